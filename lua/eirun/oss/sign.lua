-- SPDX-License-Identifier: Apache-2.0
-- OSS signatures: V4 for everything, V1 where an old bucket's tools need it; in headers and in presigned URLs.
local crypto = require "eirun.core.crypto"
local sign4 = require "eirun.sign4"
local wire = require "eirun.wire"

local M = {}

local ALGORITHM = "OSS4-HMAC-SHA256"
local UNSIGNED = "UNSIGNED-PAYLOAD"

---@class eirun.OssRequest
---@field method string
---@field bucket? string nil for the service itself
---@field key? string not encoded; nil for the bucket itself
---@field query? table<string, any> raw values; "" for a sub-resource
---@field headers table<string, string|userdata> lower-case names
---@field additional? string[] further headers to sign (V4)
---@field key_id string
---@field key_secret string|userdata
---@field token? string|userdata
---@field region string bare, `cn-hangzhou`
---@field now number seconds since the epoch

-- Always with the bucket, whatever the addressing style.
local function resource(request)
  if not request.bucket then return "/" end
  return "/" .. request.bucket .. "/" .. (request.key or "")
end

local implied = { ["content-type"] = true, ["content-md5"] = true }

local function is_implied(name)
  return implied[name] or name:sub(1, 6) == "x-oss-"
end

local function additional_names(request)
  local wanted = {}
  for _, name in ipairs(request.additional or {}) do
    name = name:lower()
    if request.headers[name] and not is_implied(name) then wanted[name] = true end
  end
  return wire.sorted_keys(wanted), wanted
end

local function trimmed(value)
  return type(value) == "string" and value:match("^%s*(.-)%s*$") or value
end

local function canonical_headers(request, extra)
  local parts = {}
  for _, name in ipairs(wire.sorted_keys(request.headers)) do
    if is_implied(name) or extra[name] then
      table.move({ name, ":", trimmed(request.headers[name]), "\n" }, 1, 4, #parts + 1, parts)
    end
  end
  return parts
end

-- A token in a presigned URL is part of the query; it is out in the open there, so it must be a string.
local function canonical(request, query, payload)
  local names, extra = additional_names(request)
  local parts = canonical_headers(request, extra)
  local head = { request.method, wire.encode_path(resource(request)), wire.query(query, true), "" }
  table.insert(parts, 1, table.concat(head, "\n"))
  parts[#parts + 1] = "\n" .. table.concat(names, ";") .. "\n" .. payload
  return wire.join(parts), names
end

---The V4 canonical request of a request whose headers are complete.
---@param request eirun.OssRequest
---@return string|userdata
function M.canonical(request)
  return (canonical(request, request.query or {}, request.headers["x-oss-content-sha256"] or UNSIGNED))
end

---Signs in the headers (V4): sets x-oss-date, x-oss-content-sha256, x-oss-security-token and authorization.
---@param request eirun.OssRequest
---@return table headers the same table
function M.v4(request)
  local headers, date = request.headers, wire.basic(request.now)
  headers["x-oss-date"], headers["x-oss-content-sha256"] = date, UNSIGNED
  headers["x-oss-security-token"] = request.token
  local text, names = canonical(request, request.query or {}, UNSIGNED)
  local signature, scope = sign4.signature(ALGORITHM, request.key_secret, date, request.region, "oss", text)
  local extra = #names > 0 and ",AdditionalHeaders=" .. table.concat(names, ";") or ""
  headers["authorization"] = ("%s Credential=%s/%s%s,Signature=%s"):format(ALGORITHM, request.key_id, scope, extra, signature)
  return headers
end

---The query of a presigned URL (V4), `x-oss-signature` included.
---@param request eirun.OssRequest
---@param seconds integer 1 to 604800
---@return table<string, string>
function M.v4_presign(request, seconds)
  local date = wire.basic(request.now)
  local query = {}
  for key, value in pairs(request.query or {}) do query[key] = value end
  local names = additional_names(request)
  query["x-oss-signature-version"] = ALGORITHM
  query["x-oss-credential"] = request.key_id .. "/" .. sign4.scope(date:sub(1, 8), request.region, "oss")
  query["x-oss-date"], query["x-oss-expires"] = date, tostring(seconds)
  if #names > 0 then query["x-oss-additional-headers"] = table.concat(names, ";") end
  query["x-oss-security-token"] = request.token
  local text = canonical(request, query, UNSIGNED)
  query["x-oss-signature"] = sign4.signature(ALGORITHM, request.key_secret, date, request.region, "oss", text)
  return query
end

-- Version 1 -----------------------------------------------------------------------------------------------------------

-- Only these names of a query are part of the signed resource, and all that begin with x-oss-.
local sub_resources = {}
for name in ([[acl append bucketInfo callback callback-var cloudboxes comp continuation-token cors delete endTime lifecycle
  live location logging objectMeta partNumber position qos referer regionList response-cache-control
  response-content-disposition response-content-encoding response-content-language response-content-type response-expires
  restore security-token sequential startTime stat status symlink tagging uploadId uploads versionId versioning versions vod
  website]]):gmatch("%S+") do sub_resources[name] = true end

local function v1_resource(request, query)
  local list = {}
  for _, name in ipairs(wire.sorted_keys(query)) do
    if sub_resources[name] or name:sub(1, 6) == "x-oss-" then
      local value = wire.value(query[name])
      list[#list + 1] = value == "" and name or name .. "=" .. value
    end
  end
  return resource(request) .. (#list > 0 and "?" .. table.concat(list, "&") or "")
end

local function v1_text(request, query, date)
  local headers = request.headers
  local parts = { table.concat({ request.method, headers["content-md5"] or "", headers["content-type"] or "", date, "" }, "\n") }
  for _, name in ipairs(wire.sorted_keys(headers)) do
    if name:sub(1, 6) == "x-oss-" then table.move({ name, ":", trimmed(headers[name]), "\n" }, 1, 4, #parts + 1, parts) end
  end
  parts[#parts + 1] = v1_resource(request, query)
  return wire.join(parts)
end

---Signs in the headers (V1): sets x-oss-date, x-oss-security-token and authorization.
---@param request eirun.OssRequest
---@return table headers the same table
function M.v1(request)
  local headers = request.headers
  headers["x-oss-date"] = headers["x-oss-date"] or wire.gmt(request.now)
  headers["x-oss-security-token"] = request.token
  local text = v1_text(request, request.query or {}, headers["x-oss-date"])
  local signature = crypto.base64(crypto.hmac_sha1(request.key_secret, text))
  headers["authorization"] = "OSS " .. request.key_id .. ":" .. signature
  return headers
end

---The query of a presigned URL (V1), `Signature` included.
---@param request eirun.OssRequest
---@param seconds integer
---@return table<string, string>
function M.v1_presign(request, seconds)
  local expires = tostring(math.floor(request.now) + seconds)
  local query = {}
  for key, value in pairs(request.query or {}) do query[key] = value end
  query["security-token"] = request.token
  local text = v1_text(request, query, expires)
  query["OSSAccessKeyId"], query["Expires"] = request.key_id, expires
  query["Signature"] = crypto.base64(crypto.hmac_sha1(request.key_secret, text))
  return query
end

return M
