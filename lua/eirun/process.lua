-- SPDX-License-Identifier: Apache-2.0
-- Programs of this machine, without a shell. Under `eirun check` none is started.
local core = require "eirun.core.process"
local raising = require("eirun.face").raising

local M = {}

---@class eirun.process.Call the list part is the program and its arguments
---@field stdin? string|eirun.Secret default: empty
---@field env? table<string, string|eirun.Secret> added to the inherited environment
---@field clear_env? boolean inherit nothing
---@field cwd? string
---@field timeout? number seconds on the run's clock
---@field max_output? integer bytes of stdout and of stderr, default 64 MiB

---@class eirun.process.Result
---@field code integer exit code; 128 + signal when a signal ended it
---@field signal? integer
---@field stdout string
---@field stderr string

---Runs a program and waits for its end. A time-out, a cancel or too much output ends it and what it started. An exit code other than 0
---is a result, not an error.
---@param call eirun.process.Call
---@return eirun.process.Result
---Example: `local version = process.run({ "kubectl", "version", "--client", timeout = 10 }).stdout`
---Raises kind `not_found` or `denied` when it cannot be started, `timeout`, `quota` for too much output; the last two carry `stdout` and
---`stderr` as far as they came.
M.run = raising(core.run)

---This process's id.
---@return integer
---Example: `local mine = "/tmp/report-" .. process.pid()`. Raises nothing.
M.pid = core.pid

return M
