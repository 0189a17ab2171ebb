-- SPDX-License-Identifier: Apache-2.0
-- Where keys are looked for, in the vendor's order. Each source answers a function that fetches, or nil and why it gives none;
-- what is written wrongly raises, so that nobody works with another key than he meant.
local fs = require "eirun.core.fs"
local ini = require "eirun.credentials.ini"
local metadata = require "eirun.credentials.metadata"
local profile = require "eirun.credentials.profile"
local secret = require "eirun.core.secret"
local sts = require "eirun.credentials.sts"

local prefixes = { "ALIBABA_CLOUD_", "ALIBABACLOUD_", "ALICLOUD_" }

local function variable(env, name)
  for _, prefix in ipairs(prefixes) do
    local value = env(prefix .. name)
    if value and value ~= "" then return value end
  end
end

local function environment(env)
  local id, key, token = variable(env, "ACCESS_KEY_ID"), variable(env, "ACCESS_KEY_SECRET"), variable(env, "SECURITY_TOKEN")
  if not id and not key then return nil, "ALIBABA_CLOUD_ACCESS_KEY_ID is not set" end
  if not id or not key then return nil, "only one of ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET is set" end
  local keys = { access_key_id = id, access_key_secret = secret.new(key), source = "environment",
    security_token = token and secret.new(token) or nil }
  return function() return keys end
end

local oidc_names = { "ROLE_ARN", "OIDC_PROVIDER_ARN", "OIDC_TOKEN_FILE" }

local function oidc(env)
  local values, missing = {}, {}
  for i, name in ipairs(oidc_names) do
    values[i] = variable(env, name)
    if not values[i] then missing[#missing + 1] = "ALIBABA_CLOUD_" .. name end
  end
  if #missing > 0 then return nil, table.concat(missing, ", ") .. (#missing == 1 and " is not set" or " are not set") end
  local role = { arn = values[1], session = variable(env, "ROLE_SESSION_NAME") }
  return function() return sts.assume_with_oidc(role, values[2], values[3], env, "role of the pod's service account (OIDC)") end
end

local function command_line_profile(env)
  if env "ALIBABA_CLOUD_CLI_PROFILE_DISABLED" == "true" then return nil, "ALIBABA_CLOUD_CLI_PROFILE_DISABLED is set" end
  if (env "ALIBABA_CLOUD_IGNORE_PROFILE" or ""):upper() == "TRUE" then return nil, "ALIBABA_CLOUD_IGNORE_PROFILE is set" end
  local file = profile.read(env)
  if not file then return nil, profile.path(env) .. " cannot be read" end
  if #file.profiles == 0 then return nil, file.path .. " holds no profile" end
  return profile.fetcher(file, env)
end

-- Only Linux on ECS says this of itself; elsewhere the address leads nowhere and takes its second.
local function instance_role(env)
  if env "ALIBABA_CLOUD_ECS_METADATA_DISABLED" == "true" then return nil, "ALIBABA_CLOUD_ECS_METADATA_DISABLED is set" end
  local vendor = fs.read("/sys/class/dmi/id/sys_vendor", 256)
  local role = env "ALIBABA_CLOUD_ECS_METADATA"
  if not role and not metadata.named() and vendor and not vendor:find("Alibaba", 1, true) then
    return nil, "this is no ECS instance"
  end
  return function() return metadata.keys(role, env) end
end

local function uri(env)
  local given = env "ALIBABA_CLOUD_CREDENTIALS_URI"
  if not given or given == "" then return nil, "ALIBABA_CLOUD_CREDENTIALS_URI is not set" end
  return function() return metadata.from_uri(given) end
end

---@type {name: string, find: fun(env: function): function|nil, string|nil}[]
return {
  { name = "environment", find = environment },
  { name = "OIDC token (RRSA)", find = oidc },
  { name = "command line profile", find = command_line_profile },
  { name = "credentials file", find = ini.fetcher },
  { name = "ECS instance role", find = instance_role },
  { name = "credentials URI", find = uri },
}
