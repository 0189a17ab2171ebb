-- SPDX-License-Identifier: Apache-2.0
-- Who the client is, now: a token that stands still, files of a token or certificates that are replaced while we run, a plug-in's answer
-- until it expires, a kubeconfig that is issued anew. A 401 makes the next request ask again.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local http = require "eirun.http"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local secret = require "eirun.core.secret"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local FILE_SECONDS, PEM_SECONDS, EARLY, PLUGIN_SECONDS = 60, 300, 10, 60

---@class eirun.KubeAuth
local Auth = {}
Auth.__index = Auth

---@param config eirun.KubeConfig
---@return eirun.KubeAuth
function M.new(config)
  return setmetatable({ config = config, turn = task.event() }, Auth)
end

-- Token files: replaced through a link, so opened by path each time.
local function read_file(self)
  local kept, now = self.kept, task.now()
  if kept and now < kept.until_time then return kept end
  local text, err = fs.read(self.config.token_file)
  text = text and text:match("^%s*(.-)%s*$")
  if text and text ~= "" then
    self.kept = { token = secret.new(text), until_time = now + FILE_SECONDS - EARLY }
  elseif not (kept or self.config.token) then
    errors.raise("denied", ("cannot read the token in '%s': %s"):format(self.config.token_file, err and err.message or "it is empty"),
      { object = self.config.token_file, cause = err })
  end
  return self.kept or { token = self.config.token, until_time = now + FILE_SECONDS }
end

-- Certificates in files are looked at every five minutes; of one that cannot be read the last good text stands.
local function read_pems(self, anew)
  local config, now = self.config, task.now()
  self.pems = self.pems or { cert_pem = config.cert_pem, key_pem = config.key_pem, ca_pem = config.ca_pem, until_time = now + PEM_SECONDS }
  local kept = self.pems
  if not anew and now < kept.until_time then return kept end
  local fresh = { until_time = now + PEM_SECONDS }
  for _, field in ipairs { "cert_pem", "key_pem", "ca_pem" } do
    local text = config.files[field] and fs.read(config.files[field])
    fresh[field] = text and (field == "key_pem" and secret.new(text) or text) or kept[field]
  end
  self.pems = fresh
  return fresh
end

-- Plug-ins ------------------------------------------------------------------------------------------------------------

-- One answer for all clients of one configuration.
local kept_answers = {}

local function key_of(config)
  return crypto.sha256(json.encode { config.exec, config.exec_cluster })
end

local function environment(config)
  local exec, env = config.exec, {}
  for _, pair in ipairs(type(exec.env) == "table" and exec.env or {}) do env[pair.name] = tostring(pair.value) end
  env.KUBERNETES_EXEC_INFO = json.encode { kind = "ExecCredential", apiVersion = exec.apiVersion,
    spec = { interactive = false, cluster = exec.provideClusterInfo == true and config.exec_cluster or nil } }
  return env
end

local function plugin_failed(config, text, fields)
  fields = fields or {}
  fields.object = config.exec.command
  fields.hint = fields.hint or (config.exec.installHint ~= json.null and config.exec.installHint) or nil
  errors.raise("denied", ("the credential plug-in '%s' %s"):format(config.exec.command, text), fields)
end

local function run(config)
  local call = { config.exec.command, env = environment(config), timeout = PLUGIN_SECONDS, max_output = 1 << 20 }
  for _, word in ipairs(type(config.exec.args) == "table" and config.exec.args or {}) do call[#call + 1] = tostring(word) end
  local result, err = process.run(call)
  if not result then plugin_failed(config, "cannot be run: " .. err.message, { cause = err }) end
  if result.code ~= 0 then
    plugin_failed(config, ("ended with code %d: %s"):format(result.code, http.excerpt(result.stderr)), { hint = "run it by hand and see" })
  end
  return result.stdout
end

local function status_of(config, text)
  local answer = json.decode(text)
  if type(answer) ~= "table" or answer.kind ~= "ExecCredential" then plugin_failed(config, "did not answer an ExecCredential") end
  if answer.apiVersion ~= config.exec.apiVersion then
    plugin_failed(config, ("answered %s, the kubeconfig wants %s"):format(tostring(answer.apiVersion), config.exec.apiVersion))
  end
  local status = type(answer.status) == "table" and answer.status or plugin_failed(config, "answered no status")
  local token, cert, key = status.token, status.clientCertificateData, status.clientKeyData
  if (cert ~= nil) ~= (key ~= nil) then plugin_failed(config, "answered a certificate or a key, and both are needed") end
  if not token and not cert then plugin_failed(config, "answered neither a token nor a certificate") end
  return status
end

local function ask_plugin(config)
  local status = status_of(config, run(config))
  local expires = type(status.expirationTimestamp) == "string" and wire.parse_time(status.expirationTimestamp) or math.huge
  return { token = status.token and secret.new(status.token), cert_pem = status.clientCertificateData,
    key_pem = status.clientKeyData and secret.new(status.clientKeyData), until_time = expires - EARLY }
end

-- One run at a time; the others wait for what it brings.
local function plugin(self)
  local key = key_of(self.config)
  while true do
    local kept = kept_answers[key]
    if kept and kept.running then
      kept.running:wait()
    elseif kept and task.now() < kept.until_time then
      return kept
    else
      break
    end
  end
  local running = { running = task.event() }
  kept_answers[key] = running
  local ok, answer = pcall(ask_plugin, self.config)
  kept_answers[key] = ok and answer or nil
  running.running:set()
  return ok and answer or error(answer, 0)
end

-- Kubeconfigs that end ----------------------------------------------------------------------------------------------------

local RETRY_SECONDS = 60

-- A renewal that fails does no harm while the identity from before is good.
local function renewed(self, anew)
  local ok, config, at = pcall(self.config.renew, anew)
  if ok then
    self.inner, self.renew_at, self.renewed_at = M.new(config), at, task.now()
  elseif anew or errors.is(config, "cancelled") or task.now() >= (self.inner.config.ends or math.huge) then
    error(config, 0)
  else
    self.renew_at = task.now() + RETRY_SECONDS
  end
end

-- The identity of a kubeconfig that is issued for some time: one asks for the next one, the others wait for what it brings.
local function issued(self, anew)
  while self.renewing do self.renewing:wait() end
  self.inner = self.inner or M.new(self.config.first)
  self.renew_at = self.renew_at or self.config.renew_at
  if not anew and task.now() < self.renew_at then return self.inner end
  local event = task.event()
  self.renewing = event
  local ok, err = pcall(renewed, self, anew)
  self.renewing = nil
  event:set()
  if not ok then error(err, 0) end
  return self.inner
end

---The identity to use now: token, or certificate and key; nothing at all is possible.
---@return {token?: userdata, cert_pem?: string, key_pem?: userdata, ca_pem?: string}
function Auth:now()
  local config = self.config
  if config.renew then return issued(self):now() end
  if config.exec then return plugin(self) end
  local holder = config.token_file and read_file(self) or config
  local pems = config.files and read_pems(self) or config
  if holder == pems then return config end
  return { token = holder.token, cert_pem = pems.cert_pem, key_pem = pems.key_pem, ca_pem = pems.ca_pem, holder = holder }
end

---The server did not take the identity: forget what was kept. Answers whether asking again can bring another one.
---@param used table what `now` had answered
---@return boolean
function Auth:refused(used)
  if self.config.renew then
    if self.inner:refused(used) or used ~= self.inner.config then return true end -- the other: a new one is there already
    if self.renewed_at and task.now() - self.renewed_at < RETRY_SECONDS then return false end
    issued(self, true)
    return true
  end
  if self.config.exec then
    local key = key_of(self.config)
    if kept_answers[key] == used then kept_answers[key] = nil end
    return true
  end
  local again = false
  if self.config.files then again = read_pems(self, true).cert_pem ~= used.cert_pem end
  if not self.config.token_file then return again end
  if self.kept == used.holder then self.kept.until_time = 0 end
  return true
end

return M
