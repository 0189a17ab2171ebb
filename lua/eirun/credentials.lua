-- SPDX-License-Identifier: Apache-2.0
-- Who signs. Keys are fetched when they are first needed, renewed before they expire, once for all tasks that wait, and never shown.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local os = require "eirun.core.os"
local secret = require "eirun.core.secret"
local task = require "eirun.task"

local M = {}

local AHEAD_SECONDS, REREAD_SECONDS = 900, 180

---@class eirun.Keys
---@field access_key_id string
---@field access_key_secret userdata secret
---@field security_token? userdata secret, for temporary keys
---@field source string where they were found, `environment`, `profile 'default' of ~/.aliyun/config.json (AK)`
---@field expires? number seconds since the epoch
---@field reread? boolean a program gave them and did not say until when

---@class eirun.Credentials
---@field private keys? eirun.Keys
---@field private fetch fun(): eirun.Keys
local Credentials = {}
Credentials.__index = Credentials
Credentials.__name = "eirun.credentials"
Credentials.__tostring = function(self) return "<credentials from " .. (self.keys and self.keys.source
  or "a source not asked yet") .. ">" end

-- Renewed a quarter of an hour ahead, or in the last quarter of a shorter life.
local function adopt(self, keys)
  local now = task.now()
  self.keys = keys
  if keys.expires then
    self.renew_at = keys.expires - math.min(AHEAD_SECONDS, (keys.expires - now) / 4)
  else
    self.renew_at = keys.reread and now + REREAD_SECONDS or math.huge
  end
end

local function valid(self)
  return self.keys ~= nil and (self.keys.expires == nil or task.now() < self.keys.expires)
end

-- After a failure the old keys do until they expire; the next try comes a little later, not with every call.
local function postpone(self)
  local random = string.unpack("<I4", crypto.random(4)) / 0x100000000
  self.renew_at = math.min(task.now() + 10 + 50 * random, self.keys.expires or math.huge)
end

-- Is this task itself being stopped? A stop is raised at every point of waiting.
local function is_stopped()
  return not pcall(task.sleep, 0)
end

-- One task fetches; whoever comes meanwhile waits for it, unless he has keys that still do. When the task that fetches is stopped,
-- another one takes over.
local function renew(self)
  local flight = { done = task.event() }
  self.flight = flight
  local ok, result = pcall(self.fetch)
  self.flight = nil
  local stopped = not ok and is_stopped()
  if ok then adopt(self, result) elseif not stopped then flight.err = errors.from(result) end
  flight.done:set()
  if ok then return end
  if stopped then error(result, 0) end
  self.last_failure = flight.err
  if not valid(self) then error(flight.err, 0) end
  postpone(self)
end

local function wait_for(self, flight)
  flight.done:wait()
  if flight.err and not valid(self) then error(flight.err, 0) end
end

---The keys, ready to sign with; waits where they have to be fetched or renewed first.
---@return eirun.Keys
---Example: `local id = credentials.current():get().access_key_id`.
---Raises kind "denied" where no source has keys, "invalid" for a source that is written wrongly, and what fetching raises; a renewal
---that fails is no error while the old keys are valid.
function Credentials:get()
  while not self.keys or task.now() >= self.renew_at do
    if not self.flight then
      renew(self)
    elseif valid(self) then
      break
    else
      wait_for(self, self.flight)
    end
  end
  return self.keys
end

---The server says that these keys are no good any more: fetches others at the next `get`.
---@return boolean renewable false for keys that stay what they are
---Example: `if credentials:expire() then return retry() end`. Raises nothing.
function Credentials:expire()
  if not self.keys or self.renew_at == math.huge then return false end
  self.keys = nil
  return true
end

---Where keys were looked for, and what came of it.
---@return {name: string, state: "used"|"skipped"|"unasked", why: string}[]
---Example: `for _, source in ipairs(credentials.current():sources()) do print(source.name, source.why) end`. Raises nothing.
function Credentials:sources()
  return self.asked or { { name = self.keys and self.keys.source or "the caller", state = "used", why = "given by the caller" } }
end

local function as_secret(value)
  return type(value) == "string" and secret.new(value) or value
end

local function new(fetch)
  return setmetatable({ fetch = fetch, renew_at = 0 }, Credentials)
end

---Keys that the caller has. The text of the secret is wrapped at once.
---@param given {access_key_id: string, access_key_secret: string|userdata, security_token?: string|userdata, source?: string}
---@return eirun.Credentials
---Example: `credentials.static { access_key_id = id, access_key_secret = key }`. Raises kind "invalid" when one is missing.
function M.static(given)
  if not given.access_key_id or not given.access_key_secret then
    errors.raise("invalid", "an access key needs both its id and its secret")
  end
  local made = new()
  adopt(made, { access_key_id = given.access_key_id, access_key_secret = as_secret(given.access_key_secret),
    security_token = as_secret(given.security_token), source = given.source or "the caller" })
  return made
end

---Keys that a function of the caller's fetches, renewed as those of the chain are.
---@param fetch fun(): eirun.Keys
---@return eirun.Credentials
---Example: `credentials.dynamic(function() return my_vault() end)`. Raises nothing itself.
function M.dynamic(fetch)
  return new(fetch)
end

local function note(asked, source, state, why)
  asked[#asked + 1] = { name = source.name, state = state, why = why }
end

local function told(asked)
  local list = {}
  for i, row in ipairs(asked) do list[i] = row.name .. ": " .. row.why end
  return table.concat(list, "; ")
end

-- The first source that has keys is the one that is asked again when they expire.
local function search(self, env)
  local sources, asked, keys = require "eirun.credentials.chain", {}, nil
  for _, source in ipairs(sources) do
    if keys then
      note(asked, source, "unasked", "not asked: another source had keys")
    else
      local fetch, why = source.find(env)
      local ok, result = true, nil
      if fetch then ok, result = pcall(fetch) end
      if not ok and (errors.is(result, "invalid") or is_stopped()) then error(result, 0) end
      if ok and result then
        keys, self.fetch = result, fetch
        note(asked, source, "used", result.source)
      else
        note(asked, source, "skipped", why or errors.from(result).message)
      end
    end
  end
  self.asked = asked
  return keys or errors.raise("denied", "no access key was found: " .. told(asked), {
    hint = "export ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or run `aliyun configure`",
  })
end

---The first source that has keys: environment, OIDC token of a pod, profile of the vendor's command line, credentials file, role of
---the ECS instance, credentials URI. Nothing is asked before the first `get`.
---@param env? fun(name: string): string|nil where variables come from
---@return eirun.Credentials
---Example: `local keys = credentials.chain():get()`. Raises nothing itself; `get` raises kind "denied", naming every source and why
---it gave nothing, and "invalid" with file and line for a source that is written wrongly.
function M.chain(env)
  local made = new()
  made.fetch = function() return search(made, env or os.getenv) end
  return made
end

---The region that the vendor's profile names, nil when there is none.
---@param env? fun(name: string): string|nil
---@return string|nil
---Example: `credentials.region()`. Raises kind "invalid", with file and line, for a malformed profile file.
function M.region(env)
  env = env or os.getenv
  if env "ALIBABA_CLOUD_CLI_PROFILE_DISABLED" == "true" then return nil end
  return require("eirun.credentials.profile").region(env)
end

---The keys of this run.
---@return eirun.Credentials
---Example: `volume.secret = credentials.current()`.
---Raises "invalid" outside a run.
function M.current()
  return require("eirun.target").current().credentials
end

return M
