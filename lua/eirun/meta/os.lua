-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.os
-- What the C module core/bind_os.c offers; a test compares the names.
local os = {}

---A variable of the environment.
---@param name string
---@return string|nil
function os.getenv(name) end

---All of them.
---@return table<string, string>
function os.environ() end

---This machine's name.
---@return string|nil
---@return eirun.Error|nil
function os.hostname() end

---The number of the user that runs this.
---@return integer
function os.uid() end

---Processors that this process may use.
---@return integer
function os.cpu_count() end

---Bytes resident now.
---@return integer|nil
---@return eirun.Error|nil
function os.rss() end

---Real seconds, for measurements only: nothing may be decided by them.
---@return number
function os.monotonic() end

return os
