-- SPDX-License-Identifier: Apache-2.0
-- Bytes that may be passed on but not read: `tostring` gives `<secret>`, and no report, log or error shows them.
local core = require "eirun.core.secret"
local raising = require("eirun.face").raising

local M = {}

---Takes bytes out of sight. The string that was given stays where it is: do not keep it.
---@param bytes string|eirun.Secret
---@return eirun.Secret
---Example: `local token = secret.new(os.getenv "TOKEN")`
---Raises kind `invalid` for what is no text.
M.new = raising(core.new)

---Joins texts and secrets.
---@param ... string|eirun.Secret
---@return eirun.Secret
---Example: `local header = secret.concat("Bearer ", token)`
---Raises kind `invalid` for what is neither.
M.concat = raising(core.concat)

---Is it a secret?
---@param value any
---@return boolean
---Example: `secret.is "text"` is false. Raises nothing.
M.is = core.is

return M
