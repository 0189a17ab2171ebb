-- SPDX-License-Identifier: Apache-2.0
-- Keys over plain HTTP: the instance's role from the metadata service (v2, then v1), and a credentials URI.
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local sts = require "eirun.credentials.sts"
local target = require "eirun.target"

local M = {}

local SECONDS, TOKEN_SECONDS = 1, 21600
local ROLES = "/latest/meta-data/ram/security-credentials/"

-- Never through a proxy, and not for long: away from ECS nobody answers at this address.
local function ask(method, url, headers, seconds)
  local client <close> = target.plain_client()
  local reply, err = client:request { method = method, url = url, headers = headers, timeout = seconds, connect_timeout = seconds,
    max_body = 65536 }
  if not reply then return nil, err end
  if reply.status ~= 200 then
    return nil, errors.new("denied", ("%s answered %d"):format(url, reply.status), { status = reply.status })
  end
  return reply.body
end

---Was another address than the real one named for the metadata service?
---@return boolean
function M.named()
  local now = target.open_target()
  return now ~= nil and now.endpoints ~= nil and now.endpoints.METADATA ~= nil
end

---The metadata service's address.
---@return string
function M.base()
  local now = target.open_target()
  return http.endpoint_url(now and now.endpoints and now.endpoints.METADATA or "http://100.100.100.200")
end

-- The header of v2; none where the instance knows only v1. Whoever is not there at all is not asked again.
local function token_headers(base, env)
  local token, err = ask("PUT", base .. "/latest/api/token", { ["X-aliyun-ecs-metadata-token-ttl-seconds"] = tostring(TOKEN_SECONDS) },
    SECONDS)
  if token then return { ["X-aliyun-ecs-metadata-token"] = token } end
  if env "ALIBABA_CLOUD_IMDSV1_DISABLED" == "true" then
    errors.raise("denied", "the metadata service gave no token, and ALIBABA_CLOUD_IMDSV1_DISABLED is set: " .. err.message)
  end
  if not err.status then errors.raise("network", "no metadata service answers here: " .. err.message) end
  return {}
end

---A page of the metadata service; nil when it has none.
---@param path string "/latest/meta-data/..."
---@param env? fun(name: string): string|nil
---@return string|nil
---Raises kind "network" where no such service is.
function M.page(path, env)
  local base = M.base()
  local text, err = ask("GET", base .. path, token_headers(base, env or require("eirun.core.os").getenv), SECONDS)
  if text then return text end
  if err.status == 404 then return nil end
  error(err, 0)
end

---The keys of the instance's role.
---@param role? string default: what the service names
---@param env fun(name: string): string|nil
---@return eirun.Keys
function M.keys(role, env)
  local base = M.base()
  local headers = token_headers(base, env)
  if not role or role == "" then
    local names, err = ask("GET", base .. ROLES, headers, SECONDS)
    if not names then errors.raise("denied", "the instance has no RAM role (" .. err.message .. ")") end
    role = names:match("^%s*(%S+)")
  end
  local text = errors.check(ask("GET", base .. ROLES .. role, headers, SECONDS))
  local found = json.decode(text) or {}
  if found.Code ~= "Success" then errors.raise("denied", ("role '%s' of the instance: %s"):format(role, tostring(found.Code))) end
  return sts.keys(found, ("role '%s' of the instance"):format(role))
end

---What a credentials URI answers.
---@param uri string
---@return eirun.Keys
function M.from_uri(uri)
  local url = http.split_url(uri)
  if not url then errors.raise("invalid", "the credentials URI is no URL") end
  local where = "credentials URI at " .. url.host
  local text, err = ask("GET", uri, {}, 10)
  if not text then errors.raise(err.kind, where .. ": " .. (err.status and "it answered " .. err.status or err.message)) end
  local found = json.decode(text)
  if type(found) ~= "table" then errors.raise("denied", where .. " answered no JSON") end
  if found.Code and found.Code ~= "Success" then errors.raise("denied", ("%s: %s"):format(where, tostring(found.Code))) end
  return sts.keys(found, where)
end

return M
