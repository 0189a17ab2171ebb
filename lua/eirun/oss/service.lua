-- SPDX-License-Identifier: Apache-2.0
-- One OSS request: addressed, signed, retried where that is safe, its errors told with code and hint.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local http = require "eirun.http"
local refusals = require "eirun.oss.errors"
local sign = require "eirun.oss.sign"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"
local xml = require "eirun.oss.xml"

local M = {}

---@class eirun.OssCall
---@field method string
---@field bucket? string
---@field key? string
---@field query? table
---@field headers? table<string, string> lower-case names
---@field body? string|table
---@field sink? table
---@field region? string
---@field verb string for messages, "upload"
---@field idempotent? boolean default: anything but POST
---@field timeout? number of one attempt
---@field attempts? integer
---@field max_body? integer
---@field place? eirun.OssPlace how the bucket is reached
---@field credentials? eirun.Credentials whose keys sign; default the run's

---@class eirun.OssPlace
---@field endpoint? string a host or URL; default by kind and region
---@field kind? "public"|"internal"|"dualstack"|"accelerate"|"accelerate-overseas" default public
---@field addressing? "virtual"|"path"|"cname" default: virtual, and path for addresses
---@field signature? "v4"|"v1" default v4

-- The region is still the bucket's own where an endpoint names none.
M.endpoint_kinds = { public = "oss-%s.aliyuncs.com", internal = "oss-%s-internal.aliyuncs.com", dualstack = "%s.oss.aliyuncs.com",
  accelerate = "oss-accelerate.aliyuncs.com", ["accelerate-overseas"] = "oss-accelerate-overseas.aliyuncs.com" }

local function object_of(call)
  return ("oss://%s/%s"):format(call.bucket or "", call.key or "")
end

local function is_address(host)
  return host:find("^%d+%.%d+%.%d+%.%d+:?%d*$") ~= nil or host:find("^localhost:?%d*$") ~= nil or host:find("^%[") ~= nil
end

local function endpoint_of(place, region)
  if place.endpoint then return place.endpoint end
  if place.kind then return M.endpoint_kinds[place.kind]:format(region) end
  return (target.current().endpoints or {}).OSS or M.endpoint_kinds.public:format(region)
end

---Where a call goes: virtual host on real endpoints, path style on addresses, unless the place says otherwise.
---@param call eirun.OssCall
---@return {scheme: string, host: string} url
---@return string path encoded
---@return string region that signs
---Example: `service.where { bucket = "b", key = "a b" }`. Raises "invalid" outside a run.
function M.where(call)
  local place = call.place or {}
  local region = call.region or target.current().region
  local url = http.split_url(http.endpoint_url(endpoint_of(place, region)))
  local path = "/" .. wire.encode_path(call.key or "")
  if not call.bucket or place.addressing == "cname" then return url, path, region end
  if place.addressing == "path" or not place.addressing and is_address(url.host) then return url, "/" .. call.bucket .. path, region end
  url.host = call.bucket .. "." .. url.host
  return url, path, region
end

local function request_of(call)
  local url, path, region = M.where(call)
  local keys = (call.credentials or target.current().credentials):get()
  local headers = { ["content-type"] = (call.body or call.method == "POST") and "application/octet-stream" or nil }
  for name, value in pairs(call.headers or {}) do headers[name] = value end
  local signer = call.place and call.place.signature == "v1" and sign.v1 or sign.v4
  signer { method = call.method, bucket = call.bucket, key = call.key, query = call.query, headers = headers, now = task.now(),
    key_id = keys.access_key_id, key_secret = keys.access_key_secret, token = keys.security_token, region = region }
  local list = {}
  for _, name in ipairs(wire.sorted_keys(headers)) do list[#list + 1] = { name, headers[name] } end
  local query = wire.query(call.query, true)
  return {
    method = call.method, url = ("%s://%s%s%s"):format(url.scheme, url.host, path, query ~= "" and "?" .. query or ""), headers = list,
    body = call.body, sink = call.sink, connect_timeout = 10, stall_timeout = 60, timeout = call.timeout, max_body = call.max_body,
  }
end

-- HEAD has no body: its error travels base64 in a header.
local function error_body(call, reply)
  if call.method ~= "HEAD" then return reply.body or "" end
  local text = reply.headers:get "x-oss-err"
  return text and crypto.unbase64(text) or ""
end

-- The endpoint that a bucket of another region wants, from the body or from where a redirect leads.
local function wanted_endpoint(body, reply)
  local location = reply.status // 100 == 3 and reply.headers:get "location"
  return xml.text(body, "Endpoint") or location and location:match "^https?://([^/?]+)" or nil
end

---The error that a reply tells of.
---@param call eirun.OssCall
---@param reply {status: integer, body: string, headers: table}
---@return eirun.Error
---Example: `error(service.failure(call, reply), 0)`. Raises nothing.
function M.failure(call, reply)
  local text = error_body(call, reply)
  local root = xml.parse(text)
  local body = root and root.Error and root.Error[1]
  if type(body) ~= "table" then body = {} end
  local code = xml.text(body, "Code") or tostring(reply.status)
  local ec = xml.text(body, "EC") or reply.headers:get "x-oss-ec"
  local kind, hint = refusals.judge(code, { status = reply.status, ec = ec, endpoint = wanted_endpoint(body, reply) })
  local words = xml.text(body, "Message") or ("the server answered %d with %s"):format(reply.status, http.excerpt(text))
  return errors.new(kind, ("cannot %s %s: %s"):format(call.verb, object_of(call), words), {
    code = code, ec = ec, status = reply.status, object = object_of(call), operation = call.verb, hint = hint,
    request_id = xml.text(body, "RequestId") or reply.headers:get "x-oss-request-id", retryable = kind == "throttled" or nil,
  })
end

---Sends a request and answers the reply.
---@param call eirun.OssCall
---@return table reply with status below 300 (or 304)
---Raises errors with the server's words, its code, the request id and a hint.
function M.call(call)
  local idempotent = call.idempotent
  if idempotent == nil then idempotent = call.method ~= "POST" end
  local policy = { idempotent = idempotent, attempts = call.attempts or 5, base = 0.2, cap = 20 }
  return errors.check(http.retry(policy, function()
    local reply, err = target.http():request(request_of(call))
    if not reply then
      return nil, errors.rephrase(err, ("cannot %s %s: %s"):format(call.verb, object_of(call), err.message))
    end
    if reply.status < 300 or reply.status == 304 then return reply end
    return nil, M.failure(call, reply)
  end))
end

---The body of a reply as XML.
---@param reply table
---@param name string the root element
---@return table element
function M.element(reply, name)
  local root, problem = xml.parse(reply.body or "")
  local element = root and root[name] and root[name][1]
  if element then return type(element) == "table" and element or {} end
  errors.raise("internal", ("the answer of OSS is not <%s>: %s"):format(name, problem or http.excerpt(reply.body)))
end

---An unsigned decimal, as CRC-64 headers carry it, as a 64-bit integer; nil for nil.
---@param text string|nil
---@return integer|nil
---Example: `service.u64 "14509182247117337356"`.
function M.u64(text)
  return text and crypto.crc64_parse(text)
end

return M
