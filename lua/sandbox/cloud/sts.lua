-- SPDX-License-Identifier: Apache-2.0
-- STS 2015-04-01: who am I, and temporary keys.
local crypto = require "eirun.core.crypto"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local json = require "eirun.core.json"
local times = require "sandbox.times"

local sts = {}

local principal = { Account = "root", RAMUser = "user/%s", AssumedRoleUser = "assumed-role/%s" }

local function arn(record)
  local tail = principal[record.identity]:gsub("%%s", record.name or "")
  return ("acs:ram::%s:%s"):format(record.account, tail)
end

local function identity_call(call)
  local key = call.key
  local id = key.identity == "Account" and key.account or (key.id or key.name)
  return { AccountId = key.account, Arn = arn(key), IdentityType = key.identity, PrincipalId = id, UserId = id,
    RoleId = key.role_id }
end

local function duration(call)
  local seconds = gateway.integer(call, "DurationSeconds", 3600, 1, 43200)
  if seconds < 900 then
    errors.raise(400, "InvalidParameter.DurationSeconds", "The Min/Max value of DurationSeconds is 15min/12hr.")
  end
  return seconds
end

local function find_role(ctx, role_arn)
  local account, name = role_arn:match "^acs:ram::(%d+):role/(.+)$"
  if not account then errors.raise(400, "InvalidParameter.RoleArn", "The parameter RoleArn is wrongly formed.") end
  local role = account == ctx.account and ctx.store:get("role", name:lower())
  if not role then
    errors.raise(404, "EntityNotExist.Role", "The specified Role not exists: " .. name)
  end
  return role
end

local function session_name(call)
  local name = gateway.need(call, "RoleSessionName")
  if not name:match "^[%w%.@_%-]+$" or #name < 2 or #name > 64 then
    errors.raise(400, "InvalidParameter.RoleSessionName", "The parameter RoleSessionName is wrongly formed.")
  end
  return name
end

-- A session may narrow the role by a policy of its own.
local function session_policies(call, role)
  local text = call.params.Policy
  if not text or text == "" then return role.policies end
  local document = json.decode(text)
  if not document or type(document.Statement) ~= "table" then
    errors.raise(400, "InvalidParameter.PolicyGrammar", "The parameter Policy has not passed grammar check.")
  end
  return { document }
end

local function issue(ctx, call, role)
  local session = session_name(call)
  local expires = ctx.now() + duration(call)
  local id = "STS." .. ctx.id("NU", 22, "base36")
  local record = { secret = crypto.hex(crypto.random(22)), token = "CAIS" .. crypto.base64(crypto.random(90)), expires = expires,
    identity = "AssumedRoleUser", name = role.name .. "/" .. session, id = role.id .. ":" .. session, role_id = role.id,
    policies = session_policies(call, role) }
  ctx.credentials.add(id, record)
  return { Credentials = { AccessKeyId = id, AccessKeySecret = record.secret, SecurityToken = record.token,
      Expiration = times.iso(expires) },
    AssumedRoleUser = { Arn = ("acs:ram::%s:role/%s/%s"):format(ctx.account, role.name, session), AssumedRoleId = record.id } }
end

local function assume_role(call)
  local ctx = call.ctx
  return issue(ctx, call, find_role(ctx, gateway.need(call, "RoleArn")))
end

local function has(value, wanted)
  if type(value) ~= "table" then return value == nil or value == wanted end
  for _, one in ipairs(value) do if one == wanted then return true end end
  return false
end

-- A role that was made with a trust policy trusts that provider's subject alone; the account's own roles trust all.
local function is_trusted(role, provider, subject)
  if not role.trust then return true end
  for _, statement in ipairs(json.decode(role.trust).Statement) do
    local equal = (statement.Condition or {}).StringEquals or {}
    local federated = (statement.Principal or {}).Federated
    if statement.Effect == "Allow" and federated and has(federated, provider) and has(equal["oidc:sub"], subject)
        and has(equal["oidc:aud"], "sts.aliyuncs.com") then
      return true
    end
  end
  return false
end

local function assume_with_oidc(call)
  local ctx = call.ctx
  local provider = gateway.need(call, "OIDCProviderArn")
  if provider ~= ("acs:ram::%s:oidc-provider/ack-rrsa-%s"):format(ctx.account, ctx.cluster_id) then
    errors.raise(404, "EntityNotExist.OIDCProvider", "The specified OIDC provider not exists.")
  end
  if not ctx.kube_user(gateway.need(call, "OIDCToken")) then
    errors.raise(400, "AuthenticationFail.OIDCToken.Invalid", "This OIDC token is invalid or has expired.")
  end
  local role, subject = find_role(ctx, gateway.need(call, "RoleArn")), ctx.kube_user(call.params.OIDCToken).name
  if not is_trusted(role, provider, subject) then
    errors.raise(403, "AuthenticationFail.NoPermission", "This operation is forbidden by permission system.")
  end
  local result = issue(ctx, call, role)
  result.OIDCTokenInfo = { Issuer = ctx.api_server, Subject = subject, ClientIds = "sts.aliyuncs.com" }
  return result
end

function sts.start(ctx)
  local product = { name = "STS", ram = "sts", versions = { ["2015-04-01"] = true }, anonymous = { AssumeRoleWithOIDC = true },
    actions = { GetCallerIdentity = identity_call, AssumeRole = assume_role, AssumeRoleWithOIDC = assume_with_oidc } }
  ctx.service { name = "STS", env = "STS", handle = gateway.rpc(ctx, product), hosts = { "sts.aliyuncs.com",
    ("sts.%s.aliyuncs.com"):format(ctx.region), ("sts-vpc.%s.aliyuncs.com"):format(ctx.region) } }
end

return sts
