-- SPDX-License-Identifier: Apache-2.0
-- The file of the vendor's command line, ~/.aliyun/config.json, with all its modes that hold or fetch keys.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local metadata = require "eirun.credentials.metadata"
local process = require "eirun.core.process"
local secret = require "eirun.core.secret"
local sts = require "eirun.credentials.sts"
local task = require "eirun.task"

local M = {}

local PROCESS_SECONDS = 60

local function wrong(where, text)
  errors.raise("invalid", where .. ": " .. text, { place = where, hint = "correct the file, or run `aliyun configure`" })
end

-- The line on which a profile's name stands, for messages.
local function line_of(text, name)
  local escaped = tostring(name):gsub("%W", "%%%0")
  local at = text:find('"name"%s*:%s*"' .. escaped .. '"')
  local _, breaks = text:sub(1, at or 1):gsub("\n", "")
  return breaks + 1
end

---@param env fun(name: string): string|nil
---@return string
function M.path(env)
  local given = env "ALIBABA_CLOUD_CONFIG_FILE"
  return given and given ~= "" and given or (env "HOME" or "") .. "/.aliyun/config.json"
end

---The file's content; nil when it is not there.
---@param env fun(name: string): string|nil
---@return {path: string, text: string, current?: string, profiles: table[]}|nil
---Raises kind "invalid" with file and line for what is no such file.
function M.read(env)
  local path = M.path(env)
  local text = fs.read(path, 4 << 20)
  if not text then return nil end
  local config, err = json.decode(text)
  if config == nil then wrong(("%s:%d:%d"):format(path, err.line or 1, err.column or 1), "this is not JSON") end
  if type(config) ~= "table" or json.is_array(config) then wrong(path .. ":1", "this is no object") end
  if config.profiles ~= nil and not json.is_array(config.profiles) then wrong(path .. ":1", "`profiles` must be a list") end
  return { path = path, text = text, current = config.current, profiles = config.profiles or {} }
end

local function find(file, name)
  for _, profile in ipairs(file.profiles) do
    if type(profile) == "table" and profile.name == name then return profile end
  end
end

---@param file table
---@param env fun(name: string): string|nil
---@return string|nil
function M.chosen(file, env)
  for _, prefix in ipairs { "ALIBABACLOUD_", "ALIBABA_CLOUD_", "ALICLOUD_" } do
    local name = env(prefix .. "PROFILE")
    if name and name ~= "" then return name end
  end
  return file.current
end

local function text_field(profile, where, key, needed)
  local value = profile[key]
  if value == json.null then value = nil end
  if value ~= nil and type(value) ~= "string" then wrong(where, ("`%s` must be text"):format(key)) end
  if value == "" then value = nil end
  if needed and value == nil then wrong(where, ("mode %s needs `%s`"):format(profile.mode or "AK", key)) end
  return value
end

local function fixed(profile, where, source, with_token)
  local keys = { access_key_id = text_field(profile, where, "access_key_id", true), source = source,
    access_key_secret = secret.new(text_field(profile, where, "access_key_secret", true)) }
  local token = with_token and text_field(profile, where, "sts_token", true)
  keys.security_token = token and secret.new(token) or nil
  return keys
end

local function role_of(profile, where)
  return { arn = text_field(profile, where, "ram_role_arn", true), session = text_field(profile, where, "ram_session_name"),
    seconds = profile.expired_seconds, external_id = text_field(profile, where, "external_id"),
    region = text_field(profile, where, "sts_region"), policy = text_field(profile, where, "policy") }
end

local function static(keys)
  return { get = function() return keys end, expire = function() return false end }
end

-- Modes ---------------------------------------------------------------------------------------------------------------
-- Each checks its fields at once and answers a function that fetches keys.

local modes = {}

function modes.AK(profile, where, source)
  local keys = fixed(profile, where, source)
  return function() return keys end
end

function modes.StsToken(profile, where, source)
  local keys = fixed(profile, where, source, true)
  return function() return keys end
end

function modes.RamRoleArn(profile, where, source, context)
  local role, keys = role_of(profile, where), fixed(profile, where, source)
  local token = text_field(profile, where, "sts_token")
  keys.security_token = token and secret.new(token) or nil
  return function() return sts.assume(role, static(keys), context.env, source) end
end

function modes.EcsRamRole(profile, where, source, context)
  local role = text_field(profile, where, "ram_role_name")
  return function()
    local keys = metadata.keys(role, context.env)
    keys.source = source .. ", " .. keys.source
    return keys
  end
end

function modes.OIDC(profile, where, source, context)
  local role = role_of(profile, where)
  local provider = text_field(profile, where, "oidc_provider_arn", true)
  local file = text_field(profile, where, "oidc_token_file", true)
  return function() return sts.assume_with_oidc(role, provider, file, context.env, source) end
end

function modes.CredentialsURI(profile, where, source)
  local uri = text_field(profile, where, "credentials_uri", true)
  return function()
    local keys = metadata.from_uri(uri)
    keys.source = source .. ", " .. keys.source
    return keys
  end
end

function modes.ChainableRamRoleArn(profile, where, source, context)
  local role, from = role_of(profile, where), text_field(profile, where, "source_profile", true)
  local inner = context.follow(from)
  return function()
    local keys = inner()
    return sts.assume(role, static(keys), context.env, source .. " from profile '" .. from .. "'")
  end
end

-- Words of a command line with ' and " but without a shell.
local function words_of(command, where)
  local words, word, at = {}, nil, 1
  while at <= #command do
    local c = command:sub(at, at)
    if c == "'" or c == '"' then
      local close = command:find(c, at + 1, true) or wrong(where, "`process_command` has an open quote")
      word, at = (word or "") .. command:sub(at + 1, close - 1), close
    elseif c:find("%s") then
      words[#words + 1], word = word, nil
    else
      word = (word or "") .. c
    end
    at = at + 1
  end
  words[#words + 1] = word
  return words
end

-- What the program printed is never shown: it may hold keys.
local function run_program(words, where, source)
  local call = { timeout = PROCESS_SECONDS, max_output = 1 << 20 }
  table.move(words, 1, #words, 1, call)
  local result, err = process.run(call)
  if not result then errors.raise(err.kind, ("%s: program '%s': %s"):format(where, words[1], err.message)) end
  if result.code ~= 0 then
    errors.raise("denied", ("%s: program '%s' ended with code %d"):format(where, words[1], result.code),
      { hint = "run it by hand to see why" })
  end
  local found = json.decode(result.stdout)
  if type(found) ~= "table" or json.is_array(found) then
    errors.raise("denied", ("%s: program '%s' printed no JSON object"):format(where, words[1]))
  end
  local keys = fixed(found, where .. ", program's answer", source, found.mode == "StsToken")
  local expires = found.expiration or found.Expiration
  keys.expires = type(expires) == "string" and require("eirun.wire").parse_time(expires) or nil
  keys.reread = true
  return keys
end

function modes.External(profile, where, source)
  local words = words_of(text_field(profile, where, "process_command", true), where)
  if #words == 0 then wrong(where, "`process_command` is empty") end
  return function() return run_program(words, where, source) end
end

-- Browser sign-ins: what the vendor's program keeps of them is good until it expires.
local function signed_in(profile, where, source)
  return function()
    if not text_field(profile, where, "access_key_id") then
      errors.raise("denied", where .. ": nobody is signed in", { hint = "sign in with the aliyun command line" })
    end
    local keys = fixed(profile, where, source, true)
    keys.expires = tonumber(profile.sts_expiration)
    if keys.expires and keys.expires <= task.now() then
      errors.raise("denied", where .. ": the sign-in has expired", { hint = "sign in again with the aliyun command line" })
    end
    return keys
  end
end
modes.CloudSSO, modes.OAuth = signed_in, signed_in

local function fetcher(file, name, env, trail)
  local where = ("%s:%d: profile '%s'"):format(file.path, line_of(file.text, name), tostring(name))
  for _, before in ipairs(trail) do
    if before == name then wrong(where, "the role chain is a circle: " .. table.concat(trail, " -> ") .. " -> " .. name) end
  end
  local profile = find(file, name)
  if not profile then wrong(file.path, ("there is no profile '%s'"):format(tostring(name))) end
  local mode = text_field(profile, where, "mode") or "AK"
  local make = modes[mode]
  if not make then wrong(where, ("mode '%s' is not known"):format(mode)) end
  local deeper = table.move(trail, 1, #trail, 1, {})
  deeper[#deeper + 1] = name
  local context = { env = env, follow = function(next_name) return fetcher(file, next_name, env, deeper) end }
  return make(profile, where, ("profile '%s' of %s (%s)"):format(name, file.path, mode), context)
end

---A function that fetches the chosen profile's keys.
---@param file table as `read` gives it
---@param env fun(name: string): string|nil
---@return fun(): eirun.Keys
---Raises kind "invalid", with file and line, for a profile that cannot work, and for roles that lead in a circle.
function M.fetcher(file, env)
  return fetcher(file, M.chosen(file, env), env, {})
end

---The region that the chosen profile names.
---@param env fun(name: string): string|nil
---@return string|nil
function M.region(env)
  local file = M.read(env)
  local profile = file and find(file, M.chosen(file, env))
  local region = profile and profile.region_id
  return type(region) == "string" and region ~= "" and region or nil
end

return M
