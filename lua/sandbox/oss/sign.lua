-- SPDX-License-Identifier: Apache-2.0
-- Checks what a client signed: V4 and V1, in headers and in presigned URLs. The signed resource is always /bucket/key,
-- whatever the addressing style.
local crypto = require "eirun.core.crypto"
local errors = require "sandbox.oss.errors"
local times = require "sandbox.times"

local M = {}

local skew = 15 * 60
local longest_expiry = 7 * 86400
local algorithm = "OSS4-HMAC-SHA256"

local function encode(text) return crypto.percent_encode(text, "rfc3986") end

-- request: { method, bucket, key, query = {{name, value}...} decoded, headers = {{name, value}...} }
local function header(request, wanted)
  for _, pair in ipairs(request.headers) do
    if pair[1]:lower() == wanted then return pair[2] end
  end
end

local function query_value(request, wanted)
  for _, pair in ipairs(request.query) do
    if pair[1] == wanted then return pair[2] end
  end
end

local function by_name(a, b) return a[1] < b[1] end

-- Sorted by name, not by line: "x-oss-copy-source:" stands before "x-oss-copy-source-range:".
local function header_lines(list)
  table.sort(list, by_name)
  local lines = {}
  for i, pair in ipairs(list) do lines[i] = pair[1] .. ":" .. pair[2]:match "^%s*(.-)%s*$" .. "\n" end
  return table.concat(lines)
end

-- V4 -------------------------------------------------------------------------------------------------------------

-- `empty_equals`: one client signs an ordinary empty parameter as `prefix=`, all others as `prefix`. Both are accepted.
local function canonical_query(request, left_out, empty_equals)
  local pairs_of = {}
  for _, pair in ipairs(request.query) do
    if pair[1] ~= left_out then pairs_of[#pairs_of + 1] = { encode(pair[1]), encode(pair[2]) } end
  end
  table.sort(pairs_of, by_name)
  local parts = {}
  for i, pair in ipairs(pairs_of) do
    parts[i] = (pair[2] ~= "" or empty_equals) and pair[1] .. "=" .. pair[2] or pair[1]
  end
  return table.concat(parts, "&")
end

local function is_default_header(name)
  return name == "content-type" or name == "content-md5" or name:sub(1, 6) == "x-oss-"
end

local function wanted_names(additional)
  local wanted = {}
  for name in (additional or ""):gmatch "[^;]+" do
    name = name:lower():match "^%s*(.-)%s*$"
    if not is_default_header(name) then wanted[name] = true end
  end
  return wanted
end

local function canonical_headers(request, additional)
  local wanted, lines, extra, seen = wanted_names(additional), {}, {}, {}
  for _, pair in ipairs(request.headers) do
    local name = pair[1]:lower()
    if (is_default_header(name) or wanted[name]) and not seen[name] then
      seen[name] = true
      lines[#lines + 1] = { name, pair[2] }
      if wanted[name] then extra[#extra + 1] = name end
    end
  end
  table.sort(extra)
  return header_lines(lines), table.concat(extra, ";")
end

local function resource(request)
  if not request.bucket then return "/" end
  return "/" .. request.bucket .. "/" .. (request.key or "")
end

---The text whose hash V4 signs.
---@param options {additional?: string, left_out?: string, empty_equals?: boolean}
function M.canonical_v4(request, options)
  local lines, extra = canonical_headers(request, options.additional)
  return table.concat({ request.method, crypto.percent_encode(resource(request), "path"),
    canonical_query(request, options.left_out, options.empty_equals), lines, extra, "UNSIGNED-PAYLOAD" }, "\n")
end

function M.signing_key(secret, date, region, product)
  local key = crypto.hmac_sha256("aliyun_v4" .. secret, date)
  for _, word in ipairs { region, product or "oss", "aliyun_v4_request" } do key = crypto.hmac_sha256(key, word) end
  return key
end

function M.to_sign_v4(canonical, stamp, scope)
  return table.concat({ algorithm, stamp, scope, crypto.hex(crypto.sha256(canonical)) }, "\n")
end

local function signature_v4(secret, scope, to_sign)
  local date, region, product = scope:match "^(%d+)/([^/]+)/([^/]+)/"
  return crypto.hex(crypto.hmac_sha256(M.signing_key(secret, date, region, product), to_sign))
end

local function mismatch(id, given, to_sign, canonical)
  local extra = { { "OSSAccessKeyId", id }, { "SignatureProvided", given }, { "StringToSign", to_sign },
    { "StringToSignBytes", (to_sign:gsub(".", function(c) return ("%02X "):format(c:byte()) end):gsub(" $", "")) } }
  if canonical then extra[#extra + 1] = { "CanonicalRequest", canonical } end
  errors.raise("SignatureDoesNotMatch", { extra = extra })
end

local function check_v4(request, claim, secret)
  local canonical
  for _, empty_equals in ipairs { false, true } do
    local text = M.canonical_v4(request, { additional = claim.additional, left_out = claim.left_out, empty_equals = empty_equals })
    local to_sign = M.to_sign_v4(text, claim.stamp, claim.scope)
    if signature_v4(secret, claim.scope, to_sign) == claim.signature then return end
    canonical = canonical or text
  end
  mismatch(claim.id, claim.signature, M.to_sign_v4(canonical, claim.stamp, claim.scope), canonical)
end

-- "AK/20250304/cn-hangzhou/oss/aliyun_v4_request"
local function split_credential(text)
  local id, scope = (text or ""):match "^([^/]+)/(%d%d%d%d%d%d%d%d/[^/]+/[^/]+/aliyun_v4_request)$"
  if not id then
    errors.raise("InvalidArgument", { ec = "0002-00000225", message = "The credential scope of the signature is malformed." })
  end
  return id, scope
end

local function check_scope(scope, stamp, region)
  local date, named = scope:match "^(%d+)/([^/]+)"
  if named ~= region then
    errors.raise("InvalidArgument", { ec = "0002-00000226", message = "Invalid signing region in Authorization header." })
  end
  if stamp:sub(1, 8) ~= date then
    errors.raise("InvalidArgument", { ec = "0002-00000227", message = "Invalid signing date in Authorization header." })
  end
end

local function header_claim_v4(request, text)
  local fields = {}
  for name, value in text:gmatch "(%w+)=([^,%s]+)" do fields[name] = value end
  local id, scope = split_credential(fields.Credential)
  local stamp = header(request, "x-oss-date") or ""
  if not times.parse(stamp) then
    errors.raise("AccessDenied", { ec = "0002-00000501", message = "OSS authentication requires a valid Date." })
  end
  return { id = id, scope = scope, stamp = stamp, additional = fields.AdditionalHeaders, signature = fields.Signature or "",
    token = header(request, "x-oss-security-token"), at = times.parse(stamp), check = check_v4 }
end

local function expiry_v4(request)
  local text = query_value(request, "x-oss-expires")
  if not text then
    errors.raise("InvalidArgument", { ec = "0002-00000215", message = "Missing Expires parameter." })
  end
  local seconds = math.tointeger(tonumber(text))
  if not seconds then
    errors.raise("InvalidArgument", { ec = "0002-00000070", message = "Invalid Expires parameter." })
  elseif seconds < 1 or seconds > longest_expiry then
    errors.raise("InvalidArgument", { ec = "0002-00000232", message = "The value of Expires is out of range." })
  end
  return seconds
end

local function query_claim_v4(request)
  local id, scope = split_credential(query_value(request, "x-oss-credential"))
  local stamp = query_value(request, "x-oss-date") or ""
  local from = times.parse(stamp)
  if not from then
    errors.raise("AccessDenied", { ec = "0002-00000501", message = "OSS authentication requires a valid Date." })
  end
  return { id = id, scope = scope, stamp = stamp, additional = query_value(request, "x-oss-additional-headers"),
    left_out = "x-oss-signature", signature = query_value(request, "x-oss-signature") or "", from = from,
    token = query_value(request, "x-oss-security-token"), expires = from + expiry_v4(request), check = check_v4 }
end

-- V1 -------------------------------------------------------------------------------------------------------------

local sub_resources = {}
for name in ([[acl append bucketInfo callback callback-var cloudboxes comp continuation-token cors delete endTime lifecycle live
  location logging objectMeta partNumber position qos referer regionList response-cache-control response-content-disposition
  response-content-encoding response-content-language response-content-type response-expires restore security-token sequential
  startTime stat status symlink tagging uploadId uploads versionId versioning versions vod website]]):gmatch "%S+" do
  sub_resources[name] = true
end

local function signed_resource_v1(request)
  local list = {}
  for _, pair in ipairs(request.query) do
    if sub_resources[pair[1]] or pair[1]:sub(1, 6) == "x-oss-" then list[#list + 1] = pair end
  end
  table.sort(list, by_name)
  local parts = {}
  for i, pair in ipairs(list) do parts[i] = pair[2] ~= "" and pair[1] .. "=" .. pair[2] or pair[1] end
  return resource(request) .. (#parts > 0 and "?" .. table.concat(parts, "&") or "")
end

---The text that V1 signs; `date` is the Date line (the expiry of a presigned URL).
function M.canonical_v1(request, date)
  local lines = {}
  for _, pair in ipairs(request.headers) do
    local name = pair[1]:lower()
    if name:sub(1, 6) == "x-oss-" then lines[#lines + 1] = { name, pair[2] } end
  end
  return table.concat({ request.method, header(request, "content-md5") or "", header(request, "content-type") or "", date,
    header_lines(lines) .. signed_resource_v1(request) }, "\n")
end

local function check_v1(request, claim, secret)
  local to_sign = M.canonical_v1(request, claim.date)
  if crypto.base64(crypto.hmac_sha1(secret, to_sign)) ~= claim.signature then
    mismatch(claim.id, claim.signature, to_sign)
  end
end

local function header_claim_v1(request, text)
  local id, signature = text:match "^OSS%s+([^:]+):(%S+)$"
  if not id then
    errors.raise("InvalidArgument", { ec = "0002-00000001", message = "Authorization header is invalid." })
  end
  local date = header(request, "x-oss-date") or header(request, "date") or ""
  local at = times.parse(date)
  if not at then
    errors.raise("AccessDenied", { ec = "0002-00000501", message = "OSS authentication requires a valid Date." })
  end
  return { id = id, signature = signature, date = date, at = at, token = header(request, "x-oss-security-token"), check = check_v1 }
end

local function query_claim_v1(request)
  local text = query_value(request, "Expires")
  local expires = math.tointeger(tonumber(text))
  if not expires then
    errors.raise("AccessDenied", { ec = "0002-00000069", message = "Missing or malformed Expires parameter." })
  end
  return { id = query_value(request, "OSSAccessKeyId"), signature = query_value(request, "Signature") or "", date = text,
    token = query_value(request, "security-token"), expires = expires, check = check_v1 }
end

-- Both -----------------------------------------------------------------------------------------------------------

local function claim_of(request)
  local text = header(request, "authorization")
  if text then
    if text:match "^OSS4%-HMAC%-SHA256%s" then return header_claim_v4(request, text) end
    if text:match "^OSS%s" then return header_claim_v1(request, text) end
    errors.raise("InvalidArgument", { ec = "0002-00000002", message = "Unsupported authorization type." })
  end
  if query_value(request, "x-oss-signature-version") == algorithm then return query_claim_v4(request) end
  if query_value(request, "OSSAccessKeyId") then return query_claim_v1(request) end
end

local function millis(seconds) return (times.iso(seconds):gsub("Z$", ".000Z")) end

local function check_time(claim, now)
  if claim.at and math.abs(claim.at - now) > skew then
    errors.raise("RequestTimeTooSkewed", { extra = { { "RequestTime", millis(claim.at) }, { "ServerTime", millis(now) },
      { "MaxAllowedSkewMilliseconds", skew * 1000 } } })
  end
  if (claim.expires and now > claim.expires) or (claim.from and claim.from - now > skew) then
    errors.raise("AccessDenied", { ec = "0002-00000069", message = "Request has expired.",
      extra = { { "Expires", millis(claim.expires) }, { "ServerTime", millis(now) } } })
  end
end

local function check_token(claim, record, now)
  if record.expires and now > record.expires then errors.raise "SecurityTokenExpired" end
  if record.token ~= claim.token and (record.token or claim.token) then errors.raise "InvalidSecurityToken" end
end

---Who signed this request. Raises the service's failure when the signature is not good.
---@param request table { method, bucket, key, query, headers }
---@param options {lookup: function, now: number, region: string} `lookup(id)` gives { secret, token?, expires?, policies? }
---@return table|nil identity the key's record with `id`; nil for an anonymous request
---@return boolean|nil presigned
function M.verify(request, options)
  local claim = claim_of(request)
  if not claim then return nil end
  local record = options.lookup(claim.id)
  if not record then
    errors.raise("InvalidAccessKeyId", { extra = { { "OSSAccessKeyId", claim.id } } })
  elseif record.status == "Inactive" then
    errors.raise("InvalidAccessKeyId", { ec = "0002-00000903", message = "The OSS Access Key Id you provided is disabled.",
      extra = { { "OSSAccessKeyId", claim.id } } })
  end
  if claim.scope then check_scope(claim.scope, claim.stamp, options.region) end
  check_time(claim, options.now)
  check_token(claim, record, options.now)
  claim.check(request, claim, record.secret)
  return { id = claim.id, record = record }, claim.expires ~= nil
end

return M
