-- SPDX-License-Identifier: Apache-2.0
-- Who calls, and is it really they: signature, time, nonce, key, token. Raises the error that the real gateway answers.
local crypto = require "eirun.core.crypto"
local acs3 = require "sandbox.cloud.acs3"
local encoding = require "sandbox.encoding"
local errors = require "sandbox.cloud.errors"
local legacy = require "sandbox.cloud.legacy"
local policy = require "sandbox.cloud.policy"
local times = require "sandbox.times"

local auth = {}

local tolerance = 15 * 60

local function check_time(ctx, text)
  local at = times.parse(text or "")
  if not at then
    errors.raise(400, "InvalidTimeStamp.Format", "Specified time stamp or date value is not well formatted.")
  end
  if math.abs(ctx.wall() - at) > tolerance then
    errors.raise(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")
  end
end

local function key_of(ctx, id)
  local record = ctx.credentials.lookup(id)
  if not record then errors.raise(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.") end
  if record.status == "Inactive" then
    errors.raise(400, "InvalidAccessKeyId.Inactive", "Specified access key is disabled.")
  end
  return record
end

local function check_token(ctx, record, token)
  if not record.token then return end
  if not token or token == "" then
    errors.raise(400, "MissingSecurityToken", "SecurityToken is mandatory for this action.")
  end
  if token ~= record.token then
    errors.raise(400, "InvalidSecurityToken.MismatchWithAccessKey", "Specified SecurityToken mismatch with the AccessKey.")
  end
  if record.expires <= ctx.now() then
    errors.raise(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
  end
end

local function sweep(cache, now)
  for old, at in pairs(cache.seen) do -- order does not matter: all that are too old go
    if now - at > tolerance then cache.seen[old], cache.count = nil, cache.count - 1 end
  end
  cache.limit = math.max(4096, 2 * cache.count)
end

-- Nonces of the last window, swept each time that their number has doubled.
local function check_nonce(ctx, nonce)
  local cache = ctx.nonces or { seen = {}, count = 0, limit = 4096 }
  ctx.nonces = cache
  if cache.count > cache.limit then sweep(cache, ctx.now()) end
  local at = cache.seen[nonce]
  if at and ctx.now() - at <= tolerance then
    errors.raise(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
  end
  cache.seen[nonce], cache.count = ctx.now(), cache.count + 1
end

local function mismatch(text)
  errors.raise(400, "SignatureDoesNotMatch",
    "Specified signature does not match our calculation. server string to sign is:" .. text)
end

local function check_acs3(ctx, call, authorization)
  local parsed = acs3.parse(authorization)
  if not parsed then
    errors.raise(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
  end
  local absent = acs3.unsigned_header(parsed.signed)
  if absent then errors.raise(400, "IncompleteSignature", "The header " .. absent .. " must be signed.") end
  local headers = call.req.headers
  check_time(ctx, headers:get "x-acs-date")
  local record = key_of(ctx, parsed.id)
  check_token(ctx, record, headers:get "x-acs-security-token")
  local sha = crypto.hex(crypto.sha256(call.body))
  local ok, text = acs3.verify({ method = call.req.method, path = call.req.path, query = call.query, body_sha = sha,
    header_values = function(name) return headers:list(name) end }, parsed, record.secret)
  if not ok or headers:get "x-acs-content-sha256" ~= sha then mismatch(text) end
  check_nonce(ctx, headers:get "x-acs-signature-nonce")
  return record, parsed.id
end

local function check_legacy_rpc(ctx, call)
  local params = call.params
  check_time(ctx, params.Timestamp)
  local record = key_of(ctx, params.AccessKeyId or "")
  check_token(ctx, record, params.SecurityToken)
  local text = legacy.rpc_string(call.req.method, call.pairs)
  if legacy.rpc_signature(record.secret, text) ~= params.Signature then mismatch(text) end
  check_nonce(ctx, params.SignatureNonce or "")
  return record, params.AccessKeyId
end

local function header_map(headers)
  local map = {}
  for _, pair in ipairs(headers) do map[pair[1]:lower()] = pair[2] end
  return map
end

local function check_legacy_roa(ctx, call, authorization)
  local id, signature = authorization:match "^acs ([^:]+):(.+)$"
  local headers = header_map(call.req.headers)
  check_time(ctx, headers.date)
  local record = key_of(ctx, id)
  check_token(ctx, record, headers["x-acs-security-token"])
  local text = legacy.roa_string(call.req.method, encoding.decode(call.req.path), call.query, headers)
  if legacy.roa_signature(record.secret, text) ~= signature then mismatch(text) end
  check_nonce(ctx, headers["x-acs-signature-nonce"] or "")
  return record, id
end

-- call: { req=, body=, query=, pairs=, params= } -> the key's record and id. Raises.
function auth.identify(ctx, call)
  local authorization = call.req.headers:get "authorization"
  if authorization and authorization:find("^acs ") then return check_legacy_roa(ctx, call, authorization) end
  if authorization then return check_acs3(ctx, call, authorization) end
  if call.params.Signature then return check_legacy_rpc(ctx, call) end
  errors.raise(400, "MissingAccessKeyId", "AccessKeyId is mandatory for this action.")
end

local function denied_detail(record, action, why)
  return { AuthAction = action, AuthPrincipalType = record.identity, AuthPrincipalOwnerId = record.account,
    AuthPrincipalDisplayName = record.name, NoPermissionType = why, PolicyType = "AccountLevelIdentityBasedPolicy" }
end

-- Raises `forbidden(status, code, message)` of the product when the key's policies do not allow the action.
function auth.authorize(record, action, resource, style)
  local ok, why = policy.allows(record.policies, action, resource)
  if ok then return end
  local detail = denied_detail(record, action, why)
  if style == "CS" then
    local who = record.identity == "AssumedRoleUser" and "STSToken" or "RAM"
    errors.raise(403, "StatusForbidden", who .. " policy Forbidden for action " .. action, { detail = detail })
  end
  errors.raise(403, "Forbidden.RAM", "User not authorized to operate on the specified resource, or this API doesn't support RAM.",
    { detail = detail })
end

return auth
