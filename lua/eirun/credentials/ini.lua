-- SPDX-License-Identifier: Apache-2.0
-- The SDKs' shared file, ~/.alibabacloud/credentials.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local metadata = require "eirun.credentials.metadata"
local secret = require "eirun.core.secret"
local sts = require "eirun.credentials.sts"

local M = {}

local function wrong(where, text)
  errors.raise("invalid", where .. ": " .. text, { place = where, hint = "a line is [section], key = value, or begins with ; or #" })
end

local function parse(text, path)
  local sections, name, number = {}, nil, 0
  for line in (text .. "\n"):gmatch("(.-)\r?\n") do
    number = number + 1
    local where = ("%s:%d"):format(path, number)
    local body = line:gsub("%s+[;#].*$", ""):match("^%s*(.-)%s*$")
    local key, value = body:match("^([%w_]+)%s*=%s*(.-)$")
    local comment = body == "" or body:find("^[;#]")
    if body:find("^%[.-%]$") then
      name = body:sub(2, -2)
      sections[name] = sections[name] or { line = number }
    elseif not key and not comment then
      wrong(where, "this is neither a section nor key = value")
    elseif key and not name then
      wrong(where, "this stands before the first [section]")
    elseif key then
      sections[name][key] = value
    end
  end
  return sections
end

local function need(section, where, key)
  local value = section[key]
  if not value or value == "" then wrong(where, ("type %s needs %s"):format(section.type or "access_key", key)) end
  return value
end

local function fixed(section, where, source)
  return { access_key_id = need(section, where, "access_key_id"), access_key_secret = secret.new(need(section, where, "access_key_secret")),
    security_token = section.security_token and secret.new(section.security_token) or nil, source = source }
end

local types = {}

function types.access_key(section, where, source)
  local keys = fixed(section, where, source)
  keys.security_token = nil
  return function() return keys end
end

function types.sts(section, where, source)
  need(section, where, "security_token")
  local keys = fixed(section, where, source)
  return function() return keys end
end

function types.ecs_ram_role(section, _, source, env)
  return function()
    local keys = metadata.keys(section.role_name, env)
    keys.source = source .. ", " .. keys.source
    return keys
  end
end

local function role_of(section, where)
  return { arn = need(section, where, "role_arn"), session = section.role_session_name, policy = section.policy,
    seconds = section.duration_seconds }
end

function types.ram_role_arn(section, where, source, env)
  local role, keys = role_of(section, where), fixed(section, where, source)
  local with = { get = function() return keys end, expire = function() return false end }
  return function() return sts.assume(role, with, env, source) end
end

function types.oidc_role_arn(section, where, source, env)
  local role = role_of(section, where)
  local provider, file = need(section, where, "oidc_provider_arn"), need(section, where, "oidc_token_file_path")
  return function() return sts.assume_with_oidc(role, provider, file, env, source) end
end

---@param env fun(name: string): string|nil
---@return string
function M.path(env)
  local given = env "ALIBABA_CLOUD_CREDENTIALS_FILE"
  return given and given ~= "" and given or (env "HOME" or "") .. "/.alibabacloud/credentials"
end

---A function that fetches the section's keys; nil and why, when there is no such file or section.
---@param env fun(name: string): string|nil
---@return (fun(): eirun.Keys)|nil
---@return string|nil
---Raises kind "invalid", with file and line, for what cannot be read.
function M.fetcher(env)
  local path = M.path(env)
  local text = fs.read(path, 4 << 20)
  if not text then return nil, path .. " cannot be read" end
  local name = env "ALIBABA_CLOUD_PROFILE"
  name = name and name ~= "" and name or "default"
  local section = parse(text, path)[name]
  if not section then return nil, ("section '%s' of %s does not exist"):format(name, path) end
  local where = ("%s:%d: section '%s'"):format(path, section.line, name)
  local make = types[section.type or "access_key"]
  if not make then wrong(where, ("type '%s' is not known"):format(section.type)) end
  return make(section, where, ("section '%s' of %s"):format(name, path), env)
end

return M
