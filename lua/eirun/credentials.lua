-- SPDX-License-Identifier: Apache-2.0
-- Who signs. A provider has `get()`, which answers keys, and a name that says where they come from; keys are never shown.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local os = require "eirun.core.os"
local secret = require "eirun.core.secret"

local M = {}

---@class eirun.Keys
---@field access_key_id string
---@field access_key_secret userdata secret
---@field security_token? userdata secret, for temporary keys
---@field source string where they were found, `environment`, `profile 'default' of ~/.aliyun/config.json`

---@class eirun.Credentials
---@field skipped? string[] sources that were looked at before and why they gave nothing
local Credentials = {}
Credentials.__index = Credentials
Credentials.__name = "eirun.credentials"
Credentials.__tostring = function(self) return "<credentials from " .. self.keys.source .. ">" end

---The keys, ready to sign with.
---@return eirun.Keys
---Example: `local id = credentials.current():get().access_key_id`. Raises nothing.
function Credentials:get()
  return self.keys
end

local function as_secret(value)
  return type(value) == "string" and secret.new(value) or value
end

local function wrap(keys, skipped)
  return setmetatable({ keys = keys, skipped = skipped or {} }, Credentials)
end

---Keys that the caller has. The text of the secret is wrapped at once.
---@param given {access_key_id: string, access_key_secret: string|userdata, security_token?: string|userdata, source?: string}
---@return eirun.Credentials
---Example: `credentials.static { access_key_id = id, access_key_secret = key }`. Raises kind "invalid" when one is missing.
function M.static(given)
  if not given.access_key_id or not given.access_key_secret then
    errors.raise("invalid", "an access key needs both its id and its secret")
  end
  return wrap {
    access_key_id = given.access_key_id, access_key_secret = as_secret(given.access_key_secret),
    security_token = as_secret(given.security_token), source = given.source or "the caller",
  }
end

local function first_of(env, ...)
  for _, name in ipairs { ... } do
    local value = env(name)
    if value and value ~= "" then return value end
  end
end

local prefixes = { "ALIBABA_CLOUD_", "ALIBABACLOUD_", "ALICLOUD_" }

local function variable(env, name)
  local names = {}
  for i, prefix in ipairs(prefixes) do names[i] = prefix .. name end
  return first_of(env, table.unpack(names))
end

local function from_environment(env)
  local id, key = variable(env, "ACCESS_KEY_ID"), variable(env, "ACCESS_KEY_SECRET")
  if not id and not key then return nil, "ALIBABA_CLOUD_ACCESS_KEY_ID is not set" end
  if not id or not key then return nil, "only one of ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET is set" end
  return { access_key_id = id, access_key_secret = secret.new(key), source = "environment",
    security_token = as_secret(variable(env, "SECURITY_TOKEN")) }
end

local function profile_named(config, name)
  for _, profile in ipairs(config.profiles or {}) do
    if profile.name == name then return profile end
  end
end

local profile_modes = { AK = false, StsToken = true }

local function keys_of_profile(profile, where)
  local mode = profile.mode or "AK"
  if profile_modes[mode] == nil then return nil, ("%s has mode '%s', which is not supported yet"):format(where, mode) end
  if (profile.access_key_id or "") == "" or (profile.access_key_secret or "") == "" then return nil, where .. " holds no keys" end
  return { access_key_id = profile.access_key_id, access_key_secret = secret.new(profile.access_key_secret), source = where,
    security_token = profile_modes[mode] and as_secret(profile.sts_token) or nil }
end

local function from_profile(env)
  if env "ALIBABA_CLOUD_CLI_PROFILE_DISABLED" == "true" then return nil, "ALIBABA_CLOUD_CLI_PROFILE_DISABLED is set" end
  local path = env "ALIBABA_CLOUD_CONFIG_FILE" or (env "HOME" or "") .. "/.aliyun/config.json"
  local text = fs.read(path)
  if not text then return nil, path .. " cannot be read" end
  local config, err = json.decode(text)
  if type(config) ~= "table" then return nil, path .. " is not JSON: " .. tostring(err and err.message) end
  local name = first_of(env, "ALIBABACLOUD_PROFILE", "ALIBABA_CLOUD_PROFILE", "ALICLOUD_PROFILE") or config.current
  local profile = profile_named(config, name)
  local where = ("profile '%s' of %s"):format(tostring(name), path)
  if not profile then return nil, where .. " does not exist" end
  return keys_of_profile(profile, where)
end

local function read_ini(text)
  local sections, name = {}, nil
  for line in text:gmatch("[^\r\n]+") do
    name = line:match("^%s*%[(.-)%]%s*$") or name
    local key, value = line:match("^%s*([%w_]+)%s*=%s*(.-)%s*$")
    if name then sections[name] = sections[name] or {} end
    if name and key then sections[name][key] = value:gsub("%s+[;#].*$", "") end
  end
  return sections
end

local function from_ini(env)
  local path = env "ALIBABA_CLOUD_CREDENTIALS_FILE" or (env "HOME" or "") .. "/.alibabacloud/credentials"
  local text = fs.read(path)
  if not text then return nil, path .. " cannot be read" end
  local name = env "ALIBABA_CLOUD_PROFILE" or "default"
  local section = read_ini(text)[name]
  local where = ("section '%s' of %s"):format(name, path)
  if not section then return nil, where .. " does not exist" end
  if section.type and section.type ~= "access_key" then return nil, where .. " has type '" .. section.type .. "', not supported yet" end
  if not section.access_key_id or not section.access_key_secret then return nil, where .. " holds no keys" end
  return { access_key_id = section.access_key_id, access_key_secret = secret.new(section.access_key_secret), source = where }
end

local chain = { from_environment, from_profile, from_ini }

---The first of: environment, profile of the vendor's command line, INI file. `get` is asked once and remembered.
---@param env? fun(name: string): string|nil where variables come from
---@return eirun.Credentials
---Example: `local keys = credentials.chain():get()`. Raises kind "denied", naming every source and why it gave nothing.
function M.chain(env)
  local skipped = {}
  for _, source in ipairs(chain) do
    local keys, why = source(env or os.getenv)
    if keys then return wrap(keys, skipped) end
    skipped[#skipped + 1] = why
  end
  errors.raise("denied", "no access key was found: " .. table.concat(skipped, "; "), {
    hint = "export ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or run `aliyun configure`",
  })
end

---The keys of this run.
---@return eirun.Credentials
---Example: `volume.secret = credentials.current()`.
---Raises "invalid" outside a run.
function M.current()
  return require("eirun.target").current().credentials
end

return M
