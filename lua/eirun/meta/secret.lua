-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.secret
-- What the C module core/bind_secret.c offers; a test compares the names.
local secret = {}

---Bytes that Lua may pass on but not read: `tostring` gives `<secret>`, `..` raises, and there is no accessor. C takes them by
---reference (crypto, HTTP headers and bodies, files, `json.encode` with `reveal`). Wiped when closed or collected. Two secrets
---of the same bytes are not equal: `crypto.constant_time_equal` compares.
---@class eirun.Secret
local Secret = {}

---Wipes it. Using it afterwards raises; closing it again does nothing.
function Secret:close() end

---Takes bytes out of Lua's sight. The string that was given stays where it is: do not keep it.
---@param bytes string|eirun.Secret
---@return eirun.Secret
---Example: `local token = secret.new(os.getenv "TOKEN")`
function secret.new(bytes) end

---Joins texts and secrets.
---@param ... string|eirun.Secret
---@return eirun.Secret
---Example: `local header = secret.concat("Bearer ", token)`
function secret.concat(...) end

---Is it a secret?
---Example: `secret.is(keys.access_key_secret)`
---@param value any
---@return boolean
function secret.is(value) end

return secret
