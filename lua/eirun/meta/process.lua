-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.process
-- What the C module core/bind_process.c offers; a test compares the names.
local process = {}

---@class eirun.core.process.Call the array part is the program and its arguments
---@field stdin? string|eirun.Secret default: empty
---@field env? table<string, string|eirun.Secret> added to the inherited environment
---@field clear_env? boolean inherit nothing
---@field cwd? string
---@field timeout? number seconds on the run's clock
---@field max_output? integer bytes of stdout and of stderr, default 64 MiB

---@class eirun.core.process.Result
---@field code integer exit code; 128 + signal when a signal ended it
---@field signal? integer
---@field stdout string
---@field stderr string

---Runs a program without a shell and waits for its end. The child has a process group of its own; a time-out, a cancel or too much
---output ends the group (SIGTERM, after 5 s SIGKILL), and the child is reaped before the call returns.
---Errors: not_found, denied, timeout, quota; the last two carry code, signal, stdout and stderr as far as they came.
---A non-zero exit code is a result, not an error.
---Example: `local result = assert(process.run { "kubectl", "version", "--client", timeout = 10 })`
---@param call eirun.core.process.Call
---@return eirun.core.process.Result|nil
---@return eirun.Error|nil
function process.run(call) end

---This process's id.
---@return integer
---Example: `print(process.pid())`
function process.pid() end

return process
