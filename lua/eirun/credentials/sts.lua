-- SPDX-License-Identifier: Apache-2.0
-- Temporary keys from STS: a role assumed with other keys, or with a cluster's token.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local secret = require "eirun.core.secret"
local wire = require "eirun.wire"

local M = {}

local DEFAULT_SECONDS, ATTEMPTS, TOTAL_SECONDS = 3600, 3, 30

---Keys of an answer that spells them as STS, the metadata service and credential URIs do.
---@param found table
---@param source string
---@return eirun.Keys
---Raises kind "denied" when one is missing.
function M.keys(found, source)
  if type(found) ~= "table" or not found.AccessKeyId or not found.AccessKeySecret then
    errors.raise("denied", source .. " answered without keys")
  end
  return { access_key_id = found.AccessKeyId, access_key_secret = secret.new(found.AccessKeySecret), source = source,
    security_token = found.SecurityToken and secret.new(found.SecurityToken) or nil,
    expires = found.Expiration and wire.parse_time(found.Expiration) }
end

-- Where STS is: what the pod's webhook injected, a region's own host, or the central one.
local function endpoint(env, region)
  local given = env "ALIBABA_CLOUD_STS_ENDPOINT"
  if given and given ~= "" then return given end
  local now = require("eirun.target").open_target()
  if now and now.endpoints and now.endpoints.STS then return nil end
  region = region or env "ALIBABA_CLOUD_STS_REGION"
  if not region or region == "" then return "sts.aliyuncs.com" end
  return (env "ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED" == "true" and "sts-vpc.%s.aliyuncs.com" or "sts.%s.aliyuncs.com"):format(region)
end

local function checked_seconds(seconds)
  return math.max(900, math.tointeger(tonumber(seconds)) or DEFAULT_SECONDS)
end

---@class eirun.Role
---@field arn string
---@field session? string
---@field seconds? integer
---@field external_id? string
---@field policy? string
---@field region? string of STS

---AssumeRole.
---@param role eirun.Role
---@param with eirun.Credentials who may assume it
---@param env fun(name: string): string|nil
---@param source string
---@return eirun.Keys
function M.assume(role, with, env, source)
  local answer = require("eirun.cloud").call { product = "sts", action = "AssumeRole", credentials = with, object = role.arn,
    endpoint = endpoint(env, role.region), attempts = ATTEMPTS, timeout = TOTAL_SECONDS, idempotent = true,
    query = { RoleArn = role.arn, RoleSessionName = role.session or "eirun", DurationSeconds = checked_seconds(role.seconds),
      ExternalId = role.external_id, Policy = role.policy } }
  return M.keys(answer.Credentials, source)
end

---AssumeRoleWithOIDC; the token's file is read at each call, since the cluster replaces it.
---@param role eirun.Role
---@param provider_arn string
---@param token_file string
---@param env fun(name: string): string|nil
---@param source string
---@return eirun.Keys
function M.assume_with_oidc(role, provider_arn, token_file, env, source)
  local token = errors.check(fs.read(token_file, 65536)):match("^%s*(.-)%s*$")
  if token == "" then errors.raise("denied", token_file .. " is empty") end
  local answer = require("eirun.cloud").call { product = "sts", action = "AssumeRoleWithOIDC", anonymous = true, object = role.arn,
    endpoint = endpoint(env, role.region), attempts = ATTEMPTS, timeout = TOTAL_SECONDS, idempotent = true,
    form = { OIDCProviderArn = provider_arn, OIDCToken = token, RoleArn = role.arn, RoleSessionName = role.session or "eirun",
      DurationSeconds = checked_seconds(role.seconds), Policy = role.policy } }
  return M.keys(answer.Credentials, source)
end

return M
