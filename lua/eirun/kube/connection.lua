-- SPDX-License-Identifier: Apache-2.0
-- One request to the API server and what its failure means. Reads are repeated when the connection breaks; writes only when they
-- were certainly not done, or when doing them twice is the same (server-side apply).
local auth = require "eirun.kube.auth"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local os_core = require "eirun.core.os"
local proxies = require "eirun.kube.proxy"
local secret = require "eirun.core.secret"
local settings = require "eirun.kube.config"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"

local discovery = require("eirun.later") "eirun.kube.discovery"

local M = {}

local TOTAL_SECONDS = 120

---@class eirun.KubeClient
---@field config eirun.KubeConfig
---@field ns string the namespace of calls that name none
---@field cluster? string id of the ACK cluster, where it is one
---@field shared table what copies of the client have in common
local Client = {}
Client.__index = Client
Client.__name = "eirun.kube"
M.Client = Client

-- Methods in files of their own, which are read at the first use of one.
local homes = { can_i = "access", token = "access", lease = "access", logs = "pods", follow_logs = "pods", events = "pods", exec = "pods",
  port_forward = "pods", evict = "pods", cordon = "pods", uncordon = "pods", list_drainable = "pods", drain = "pods" }
setmetatable(Client, { __index = function(_, name)
  if homes[name] then
    require("eirun.kube." .. homes[name])
    return rawget(Client, name)
  end
end })

---A client for a resolved kubeconfig; nothing is asked yet.
---@param config eirun.KubeConfig
---@return eirun.KubeClient
function M.new(config)
  local shared = { auth = auth.new(config), warned = {}, warnings = {}, found = {} }
  return setmetatable({ config = config, shared = shared, ns = config.namespace or "default" }, Client)
end

---The same connection, another namespace.
---@param name string
---@return eirun.KubeClient
---Example: `local k8s = kube.connect(cluster):namespace "serving"`.
---Raises nothing; the namespace need not exist yet.
function Client:namespace(name)
  local copy = {}
  for key, value in pairs(self) do copy[key] = value end
  copy.ns = name
  return setmetatable(copy, getmetatable(self))
end

-- Failures -----------------------------------------------------------------------------------------------------------

local kind_of_reason = {
  NotFound = "not_found", AlreadyExists = "conflict", Conflict = "conflict", Forbidden = "denied", Unauthorized = "denied",
  Invalid = "invalid", BadRequest = "invalid", TooManyRequests = "throttled", ServiceUnavailable = "internal",
  Timeout = "timeout", ServerTimeout = "internal", Expired = "conflict", Gone = "conflict", InternalError = "internal",
}
local kind_of_status = { [401] = "denied", [403] = "denied", [404] = "not_found", [409] = "conflict", [410] = "conflict",
  [422] = "invalid", [429] = "throttled", [504] = "timeout" }
local hints = {
  Unauthorized = "the kubeconfig's identity has expired or is unknown: get a new one",
  Forbidden = "give this user the right by a Role and a RoleBinding: `eirun kube rbac PLAYBOOK` prints what a playbook needs",
}

-- Who owns which field, in words: the server lists one cause a field.
local function conflict_words(causes)
  local list = {}
  for _, cause in ipairs(causes or {}) do
    if cause.reason == "FieldManagerConflict" then list[#list + 1] = tostring(cause.field) .. ": " .. tostring(cause.message) end
  end
  return #list > 0 and table.concat(list, "; ") or nil
end

local function words_of(status, reply)
  if status.kind ~= "Status" then return ("the server answered %d with %s"):format(reply.status, http.excerpt(reply.body)) end
  return conflict_words((status.details or {}).causes) or status.message
end

local function hint_of(call, status, details)
  if conflict_words(details.causes) then return "leave the field out, or say force = true to take it" end
  for _, cause in ipairs(details.causes or {}) do
    if cause.reason == "NamespaceTerminating" then return "wait until the namespace is gone, then make it anew" end
  end
  if tostring(status.message):find("immutable", 1, true) then
    return ("delete the %s first, or give the new one another name"):format(call.object:match "^%S+")
  end
  return hints[status.reason or ""]
end

local function failure(call, reply)
  local status = json.decode(reply.body or "")
  if type(status) ~= "table" then status = {} end
  local details = type(status.details) == "table" and status.details or {}
  local kind = kind_of_reason[status.reason or ""] or kind_of_status[reply.status] or reply.status >= 500 and "internal" or "invalid"
  local after = tonumber(reply.headers:get "retry-after" or nil) or details.retryAfterSeconds
  return errors.new(kind, ("cannot %s %s: %s"):format(call.verb, call.object, words_of(status, reply)), {
    code = status.reason or tostring(reply.status), status = reply.status, operation = call.verb, object = call.object,
    request_id = reply.headers:get "audit-id" or nil, causes_of_server = details.causes, server_message = status.message,
    hint = hint_of(call, status, details), retry_after = tonumber(after), continue = (status.metadata or {}).continue,
    retryable = (kind == "throttled" or (reply.status >= 500 and after ~= nil)) or nil,
    -- Server-side apply answers 500 for a field that the schema does not know: no use in repeating that.
    permanent = tostring(status.message):find("failed to create typed patch", 1, true) ~= nil or call.final == true,
  })
end

-- Requests -----------------------------------------------------------------------------------------------------------

-- The next run resumes the TLS session of this one.
local function session_folder()
  return os_core.getenv "EIRUN_TLS_SESSIONS" ~= "off" and target.cache_folder "sessions" or nil
end

-- One HTTP client an identity: new certificates want new connections.
local function transport(self, identity)
  local shared, config = self.shared, self.config
  local ca_pem = identity.ca_pem or config.ca_pem
  if shared.http and shared.cert_pem == identity.cert_pem and shared.ca_pem == ca_pem then return shared.http end
  shared.cert_pem, shared.ca_pem = identity.cert_pem, ca_pem
  shared.http = target.http { ca_pem = ca_pem, cert_pem = identity.cert_pem, key_pem = identity.key_pem, verify = config.verify,
    proxy = config.proxy or proxies.of(config.server) or "", tls_server_name = config.tls_server_name, user_agent = "eirun",
    session_folder = session_folder() }
  return shared.http
end

local function is_tls(self)
  return self.config.server:find("^https:") ~= nil
end

local function headers_of(self, call, identity)
  local headers = { { "Accept", call.accept or "application/json" }, { "User-Agent", "eirun" } }
  if call.body then headers[#headers + 1] = { "Content-Type", call.content_type or "application/json" } end
  -- As kubectl does: no credentials to a server without TLS.
  if identity.token and is_tls(self) then headers[#headers + 1] = { "Authorization", secret.concat("Bearer ", identity.token) } end
  for _, header in ipairs(self.config.headers or {}) do headers[#headers + 1] = header end
  return headers
end

-- Reads and watches share one HTTP/2 connection where the server offers it; requests that come in turn (`shared.in_turn`) gain nothing
-- from it and are spared its greeting. Bodies are worth compressing on a line, not in memory.
local function request_of(self, call, identity)
  local query = wire.query(call.query)
  return {
    method = call.method or "GET", url = self.config.server .. call.path .. (query ~= "" and "?" .. query or ""),
    headers = headers_of(self, call, identity), body = call.body, timeout = call.timeout or 60, connect_timeout = 10,
    http_version = is_tls(self) and not self.shared.in_turn and "2" or nil,
    decompress = not settings.is_loopback(self.config.server) or nil, max_body = call.max_body,
  }
end

-- What is not reached may be the doing of a proxy.
local function unreached(self, call, err)
  local hint = err.message:find("proxy", 1, true) and (self.config.proxy
    and "see proxy-url of the kubeconfig: its proxy must let CONNECT through to the API server"
    or "see HTTPS_PROXY, and NO_PROXY for hosts that need none") or nil
  return errors.rephrase(err, ("cannot %s %s: %s"):format(call.verb, call.object, err.message), { hint = hint })
end

-- `send` is the HTTP client's request or open. A 401 is answered once by asking for the identity again.
local function attempt(self, call, send)
  local identity = self.shared.auth:now()
  local client = transport(self, identity)
  local reply, err = client[send](client, request_of(self, call, identity))
  if not reply then return nil, unreached(self, call, err) end
  if reply.status ~= 401 or not self.shared.auth:refused(identity) then return reply end
  if send == "open" then reply:close() end
  identity = self.shared.auth:now()
  client = transport(self, identity)
  return client[send](client, request_of(self, call, identity))
end

local function unescape(text)
  return (text:gsub("\\(.)", "%1"))
end

-- `Warning: 299 - "text"`, several in one header or in several; each is told once.
local function note_warnings(self, reply)
  local shared = self.shared
  for _, header in ipairs(reply.headers:list "warning") do
    for text in header:gmatch('299%s+%S+%s+"(.-[^\\])"') do
      text = unescape(text)
      if not shared.warned[text] then
        shared.warned[text] = true
        shared.warnings[#shared.warnings + 1] = text
        if shared.on_warning then shared.on_warning(text) end
      end
    end
  end
end

local function decode(call, reply)
  if call.raw then return reply.body or "" end
  local value, err = json.decode(reply.body or "")
  if value ~= nil then return value end
  return nil, errors.new("internal", ("cannot %s %s: the answer is not JSON: %s"):format(call.verb, call.object, err.message))
end

---One request to the API server.
---@param call {method?: string, path: string, query?: table, body?: string|userdata, content_type?: string, accept?: string,
--- verb: string, object: string, idempotent?: boolean, raw?: boolean, timeout?: number, attempts?: integer}
---@return any decoded answer, or text with `raw`
---Example: `client:call { path = "/version", verb = "read", object = "the version" }`. Raises errors with the server's words.
function Client:call(call)
  local policy = { idempotent = call.idempotent ~= false and (call.method or "GET") ~= "POST", base = 0.5, cap = 10,
    attempts = call.attempts, deadline = not call.attempts and task.now() + TOTAL_SECONDS or nil }
  local shared = self.shared
  return errors.check(http.retry(policy, function(n)
    local reply, err = attempt(self, call, "request")
    if not reply then
      -- A person waits for the first answer: one who never answered is told at once.
      if shared.impatient and not shared.answered and n > 1 then err.retryable = false end
      return nil, err
    end
    shared.answered = true
    note_warnings(self, reply)
    if reply.status < 300 then return decode(call, reply) end
    local failed = failure(call, reply)
    if failed.permanent then failed.retryable = false end
    return nil, failed
  end))
end

---Opens a stream of bytes, as of a watch or a log that is followed.
---@param call table as `call` takes it
---@return table stream `read([timeout])`, `close()`; its status may be an error
---Example: `client:stream { path = path, query = { watch = true }, verb = "watch", object = "pods" }`.
---Raises when the server does not begin to answer.
function Client:stream(call)
  return errors.check(attempt(self, call, "open"))
end

---The error that a stream with a bad status stands for; reads what it says and closes it.
---@param call table
---@param stream table
---@return eirun.Error
function M.stream_failure(call, stream)
  local parts = {}
  for _ = 1, 64 do
    local chunk = stream:read(5)
    if not chunk then break end
    parts[#parts + 1] = chunk
  end
  stream:close()
  return failure(call, { status = stream.status, headers = stream.headers, body = table.concat(parts) })
end

---A GET of any path.
---@param path string
---@param query? table
---@return table
---Example: `k8s:raw("/version").gitVersion`.
---Raises errors with the server's words.
function Client:raw(path, query)
  return self:call { path = path, query = query, verb = "read", object = path }
end

-- Kinds ---------------------------------------------------------------------------------------------------------------

---Plural, scope and API version of a kind: "Deployment", or "serving.kserve.io/v1beta1/InferenceService". What is not built in is
---asked of the server, for custom resources too.
---@param kind string
---@param api_version? string
---@return eirun.KindInfo
---Example: `k8s:kind("Deployment").plural`. Raises "not_found" for a kind that the server does not know.
function Client:kind(kind, api_version)
  local group, short = kind:match("^(.+)/([^/]+)$")
  if group then kind, api_version = short, group end
  local key = (api_version or "") .. "/" .. kind
  local found = self.shared.found
  local info = found[key] or kinds.known(kind, api_version) or discovery.kind(self, kind, api_version)
  if not info then
    errors.raise("not_found", ("the API server knows no kind '%s'%s"):format(kind, api_version and " in " .. api_version or ""),
      { hint = not api_version and "write it with its API version, as apps/v1/Deployment" or nil, code = "NoKind" })
  end
  found[key] = info
  return info
end

---The same for a word as people write it: `po`, `pods`, `deployments.apps`, `crontabs.v1.stable.example.com`.
---@param word string
---@return eirun.KindInfo
---Example: `k8s:resource("deploy").kind`. Raises "not_found" for a word that the server does not know.
function Client:resource(word)
  local found = self.shared.found
  local info = found[word] or kinds.named(word) or discovery.named(self, word)
  if not info then
    errors.raise("not_found", ("the server doesn't have a resource type \"%s\""):format(word), { code = "NoKind", object = word })
  end
  found[word] = info
  return info
end

return M
