-- SPDX-License-Identifier: Apache-2.0
-- ACS3-HMAC-SHA256, the signature of every OpenAPI product. No derived keys: the secret itself is the HMAC key.
local crypto = require "eirun.core.crypto"
local wire = require "eirun.wire"

local M = {}

local ALGORITHM = "ACS3-HMAC-SHA256"

---@class eirun.AcsRequest
---@field method string
---@field path string percent-encoded; "/" for RPC products
---@field query? table<string, any> raw values
---@field headers table<string, string|userdata> what will be sent, lower-case names, `host` included
---@field body? string|userdata
---@field key_id string
---@field key_secret string|userdata

local function is_signed(name)
  return name == "host" or name == "content-type" or name:sub(1, 6) == "x-acs-"
end

-- A token among the headers makes the whole text a secret, so it is built from parts.
local function canonical_headers(headers)
  local names, parts = {}, {}
  for _, name in ipairs(wire.sorted_keys(headers)) do
    if is_signed(name) then
      local value = headers[name]
      if type(value) == "string" then value = value:match("^%s*(.-)%s*$") end
      names[#names + 1] = name
      table.move({ name, ":", value, "\n" }, 1, 4, #parts + 1, parts)
    end
  end
  return parts, table.concat(names, ";")
end

---The canonical request and the list of signed headers; a secret when a token is among them.
---@param request eirun.AcsRequest
---@return string|userdata canonical
---@return string signed_headers
function M.canonical(request)
  local parts, signed = canonical_headers(request.headers)
  table.insert(parts, 1, request.method .. "\n" .. request.path .. "\n" .. wire.query(request.query) .. "\n")
  parts[#parts + 1] = "\n" .. signed .. "\n" .. request.headers["x-acs-content-sha256"]
  return wire.join(parts), signed
end

---Sets `x-acs-content-sha256` and `authorization` among the headers.
---@param request eirun.AcsRequest
---@return table<string, string|userdata> headers the same table
---Example: see `eirun.cloud`, its only caller. Never raises on good types.
function M.sign(request)
  local headers = request.headers
  headers["x-acs-content-sha256"] = crypto.hex(crypto.sha256(request.body or ""))
  local canonical, signed = M.canonical(request)
  local to_sign = ALGORITHM .. "\n" .. crypto.hex(crypto.sha256(canonical))
  local signature = crypto.hex(crypto.hmac_sha256(request.key_secret, to_sign))
  headers["authorization"] = ("%s Credential=%s,SignedHeaders=%s,Signature=%s"):format(ALGORITHM, request.key_id, signed, signature)
  return headers
end

return M
