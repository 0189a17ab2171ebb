-- SPDX-License-Identifier: Apache-2.0
-- SLS signatures. Unlike OSS, V4 hashes the body, signs the host and lists the signed headers.
local crypto = require "eirun.core.crypto"
local sign4 = require "eirun.sign4"
local wire = require "eirun.wire"

local M = {}

local ALGORITHM = "SLS4-HMAC-SHA256"

---@class eirun.SlsRequest
---@field method string
---@field path string
---@field query? table<string, any> raw values
---@field headers table<string, string|userdata> lower-case names, `host` included for V4
---@field body? string
---@field key_id string
---@field key_secret string|userdata
---@field token? string|userdata
---@field region? string for V4
---@field now number

local function v1_resource(request)
  local list = {}
  for _, name in ipairs(wire.sorted_keys(request.query or {})) do
    list[#list + 1] = name .. "=" .. wire.value(request.query[name])
  end
  return request.path .. (#list > 0 and "?" .. table.concat(list, "&") or "")
end

---Signs in the headers (V1, HMAC-SHA1).
---@param request eirun.SlsRequest
---@return table headers the same table
function M.v1(request)
  local headers, body = request.headers, request.body or ""
  headers["date"] = headers["date"] or wire.gmt(request.now)
  headers["x-log-signaturemethod"] = "hmac-sha1"
  headers["x-acs-security-token"] = request.token
  if body ~= "" then headers["content-md5"] = crypto.hex(crypto.md5(body)):upper() end
  local parts = { table.concat({ request.method, headers["content-md5"] or "", headers["content-type"] or "", headers["date"], "" },
    "\n") }
  for _, name in ipairs(wire.sorted_keys(headers)) do
    if name:find("^x%-log%-") or name:find("^x%-acs%-") then
      table.move({ name, ":", headers[name], "\n" }, 1, 4, #parts + 1, parts)
    end
  end
  parts[#parts + 1] = v1_resource(request)
  local signature = crypto.base64(crypto.hmac_sha1(request.key_secret, wire.join(parts)))
  headers["authorization"] = "LOG " .. request.key_id .. ":" .. signature
  return headers
end

local function v4_signed(name)
  if name == "content-type" or name == "host" or name:find("^x%-acs%-") then return true end
  return name:find("^x%-log%-") and not name:find("^x%-log%-meta%-")
end

---The V4 canonical request.
---@param request eirun.SlsRequest
---@return string|userdata
function M.canonical(request)
  local parts = { table.concat({ request.method, request.path, wire.query(request.query, true), "" }, "\n") }
  local names = {}
  for _, name in ipairs(wire.sorted_keys(request.headers)) do
    if v4_signed(name) then
      names[#names + 1] = name
      table.move({ name, ":", request.headers[name], "\n" }, 1, 4, #parts + 1, parts)
    end
  end
  parts[#parts + 1] = "\n" .. table.concat(names, ";") .. "\n" .. request.headers["x-log-content-sha256"]
  return wire.join(parts)
end

---Signs in the headers (V4).
---@param request eirun.SlsRequest
---@return table headers the same table
function M.v4(request)
  local headers, date = request.headers, wire.basic(request.now)
  headers["x-log-date"] = date
  headers["x-log-content-sha256"] = crypto.hex(crypto.sha256(request.body or ""))
  headers["x-acs-security-token"] = request.token
  local signature, scope = sign4.signature(ALGORITHM, request.key_secret, date, request.region, "sls", M.canonical(request))
  headers["authorization"] = ("%s Credential=%s/%s,Signature=%s"):format(ALGORITHM, request.key_id, scope, signature)
  return headers
end

return M
