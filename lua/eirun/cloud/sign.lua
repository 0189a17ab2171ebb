-- SPDX-License-Identifier: Apache-2.0
-- ACS3-HMAC-SHA256, the signature of every OpenAPI product. No derived keys: the secret itself is the HMAC key.
local crypto = require "eirun.core.crypto"
local wire = require "eirun.wire"

local M = {}

local ALGORITHM = "ACS3-HMAC-SHA256"
local NO_BODY = crypto.hex(crypto.sha256(""))
local concat, sort, byte, sub = table.concat, table.sort, string.byte, string.sub
local BLANK = 32

---@class eirun.AcsRequest
---@field method string
---@field path string percent-encoded; "/" for RPC products
---@field query? table<string, any> raw values
---@field headers table<string, string|userdata> what will be sent, lower-case names, `host` included
---@field body? string|userdata
---@field key_id string
---@field key_secret string|userdata

local function is_signed(name)
  return sub(name, 1, 6) == "x-acs-" or name == "host" or name == "content-type"
end

local function trimmed(value)
  if byte(value, 1) <= BLANK or byte(value, -1) <= BLANK then return value:match("^%s*(.-)%s*$") end
  return value
end

local function signed_names(headers)
  local names, n = {}, 0
  for name in pairs(headers) do
    if is_signed(name) then
      n = n + 1
      names[n] = name
    end
  end
  sort(names)
  return names
end

-- Names, their texts and the list of names; a token among the headers makes the whole text a secret, so it is built from parts.
local function canonical_parts(request, query)
  local headers = request.headers
  local names = signed_names(headers)
  local parts, n = { request.method, "\n", request.path, "\n", query, "\n" }, 6
  for i = 1, #names do
    local name = names[i]
    local value = headers[name]
    parts[n + 1], parts[n + 2], parts[n + 4] = name, ":", "\n"
    parts[n + 3] = (type(value) ~= "string" or value == "") and value or trimmed(value)
    n = n + 4
  end
  local signed = concat(names, ";")
  parts[n + 1], parts[n + 2], parts[n + 3], parts[n + 4] = "\n", signed, "\n", headers["x-acs-content-sha256"]
  return parts, signed
end

---The canonical request and the list of signed headers; a secret when a token is among them.
---@param request eirun.AcsRequest
---@return string|userdata canonical
---@return string signed_headers
---@return string query in its canonical form, which is also what should be sent
function M.canonical(request)
  local query = wire.query(request.query)
  local parts, signed = canonical_parts(request, query)
  if request.headers["x-acs-security-token"] then return wire.join(parts), signed, query end
  return concat(parts), signed, query
end

---Sets `x-acs-content-sha256` and `authorization` among the headers.
---@param request eirun.AcsRequest
---@return string query as it was signed and has to be sent
---@return string digest of the canonical request: a server that refuses the signature tells its own
---Example: see `eirun.cloud`, its only caller. Never raises on good types.
function M.sign(request)
  local headers, body = request.headers, request.body
  headers["x-acs-content-sha256"] = body and crypto.hex(crypto.sha256(body)) or NO_BODY
  local canonical, signed, query = M.canonical(request)
  local digest = crypto.hex(crypto.sha256(canonical))
  local to_sign = ALGORITHM .. "\n" .. digest
  local signature = crypto.hex(crypto.hmac_sha256(request.key_secret, to_sign))
  headers["authorization"] = ALGORITHM .. " Credential=" .. request.key_id .. ",SignedHeaders=" .. signed .. ",Signature=" .. signature
  return query, digest
end

return M
