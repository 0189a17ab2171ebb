-- SPDX-License-Identifier: Apache-2.0
-- The API server's verbs. Reads are repeated when the connection breaks; writes only when they were certainly not done, or
-- when doing them twice is the same (server-side apply).
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local secret = require "eirun.core.secret"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

M.MANAGER = "eirun"
local TOTAL_SECONDS = 120

---@class eirun.KubeClient
---@field config eirun.KubeConfig
---@field ns string the namespace of calls that name none
local Client = {}
Client.__index = Client
Client.__name = "eirun.kube"

---A client for a resolved kubeconfig; nothing is asked yet.
---@param config eirun.KubeConfig
---@return eirun.KubeClient
function M.new(config)
  local client = target.http { ca_pem = config.ca_pem, cert_pem = config.cert_pem, key_pem = config.key_pem, verify = config.verify,
    proxy = config.proxy, user_agent = "eirun" }
  return setmetatable({ config = config, http = client, ns = config.namespace, discovered = {} }, Client)
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
  Forbidden = "give this user the right by a Role and a RoleBinding",
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

local function failure(call, reply)
  local status = json.decode(reply.body or "")
  if type(status) ~= "table" then status = {} end
  local kind = kind_of_reason[status.reason or ""] or kind_of_status[reply.status] or reply.status >= 500 and "internal" or "invalid"
  local conflict = conflict_words((status.details or {}).causes)
  local after = tonumber(reply.headers:get "retry-after" or nil) or (status.details or {}).retryAfterSeconds
  return errors.new(kind, ("cannot %s %s: %s"):format(call.verb, call.object, words_of(status, reply)), {
    code = status.reason or tostring(reply.status), status = reply.status, operation = call.verb, object = call.object,
    request_id = reply.headers:get "audit-id" or nil, causes_of_server = (status.details or {}).causes,
    hint = conflict and "leave the field out, or say force = true to take it" or hints[status.reason or ""],
    retry_after = tonumber(after), retryable = (kind == "throttled" or (reply.status >= 500 and after ~= nil)) or nil,
    -- Server-side apply answers 500 for a field that the schema does not know: no use in repeating that.
    permanent = tostring(status.message):find("failed to create typed patch", 1, true) ~= nil,
  })
end

-- Requests -----------------------------------------------------------------------------------------------------------

local function headers_of(self, call)
  local headers = { { "Accept", call.accept or "application/json" }, { "User-Agent", "eirun" } }
  if call.body then headers[#headers + 1] = { "Content-Type", call.content_type or "application/json" } end
  -- As kubectl does: no credentials to a server without TLS.
  if self.config.token and self.config.server:find("^https:") then
    headers[#headers + 1] = { "Authorization", secret.concat("Bearer ", self.config.token) }
  end
  return headers
end

local function request_of(self, call)
  local query = wire.query(call.query)
  return {
    method = call.method or "GET", url = self.config.server .. call.path .. (query ~= "" and "?" .. query or ""),
    headers = headers_of(self, call), body = call.body, timeout = call.timeout or 60, connect_timeout = 10,
  }
end

local function decode(call, reply)
  if call.raw then return reply.body or "" end
  local value, err = json.decode(reply.body or "")
  if value ~= nil then return value end
  return nil, errors.new("internal", ("cannot %s %s: the answer is not JSON: %s"):format(call.verb, call.object, err.message))
end

---One request to the API server.
---@param call {method?: string, path: string, query?: table, body?: string|userdata, content_type?: string, accept?: string,
--- verb: string, object: string, idempotent?: boolean, raw?: boolean, timeout?: number}
---@return any decoded answer, or text with `raw`
---Example: `client:call { path = "/version", verb = "read", object = "the version" }`. Raises errors with the server's words.
function Client:call(call)
  local policy = { idempotent = call.idempotent ~= false and (call.method or "GET") ~= "POST", deadline = task.now() + TOTAL_SECONDS,
    base = 0.5, cap = 10 }
  return errors.check(http.retry(policy, function()
    local reply, err = self.http:request(request_of(self, call))
    if not reply then return nil, errors.rephrase(err, ("cannot %s %s: %s"):format(call.verb, call.object, err.message)) end
    if reply.status < 300 then return decode(call, reply) end
    local failed = failure(call, reply)
    if failed.permanent then failed.retryable = false end
    return nil, failed
  end))
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

local function discover(self, kind, api_version)
  local list = self:call { path = kinds.base(api_version), verb = "discover", object = api_version }
  return kinds.find(list, kind, api_version)
end

---Plural, scope and API version of a kind: "Deployment", or "serving.kserve.io/v1beta1/InferenceService".
---@param kind string
---@param api_version? string
---@return eirun.KindInfo
---Example: `k8s:kind("Deployment").plural`. Raises "not_found" for a kind that the server does not know.
function Client:kind(kind, api_version)
  local group, short = kind:match("^(.+)/([^/]+)$")
  if group then kind, api_version = short, group end
  local key = (api_version or "") .. "/" .. kind
  local info = self.discovered[key] or kinds.known(kind, api_version) or api_version and discover(self, kind, api_version)
  if not info then
    errors.raise("not_found", ("the API server knows no kind '%s'%s"):format(kind, api_version and " in " .. api_version or ""),
      { hint = not api_version and "write it with its API version, as apps/v1/Deployment" or nil })
  end
  self.discovered[key] = info
  return info
end

local function where(info, namespace, name)
  local place = info.namespaced and namespace and namespace .. "/" or ""
  return ("%s '%s%s'"):format(info.kind, place, name or "*")
end

-- Label and field selectors, sorted so that the wire does not depend on a hash.
local function selector(map)
  if type(map) ~= "table" then return map end
  local list = {}
  for _, key in ipairs(wire.sorted_keys(map)) do list[#list + 1] = key .. "=" .. tostring(map[key]) end
  return table.concat(list, ",")
end

---The object, nil when there is none.
---@param kind string
---@param name string
---@return table|nil
---Example: `local hpa = k8s:get("HorizontalPodAutoscaler", "bert")`.
---Raises "denied" without the right; an object that is not there is nil.
function Client:get(kind, name)
  local info = self:kind(kind)
  local ok, object = pcall(self.call, self, { path = kinds.path(info, self.ns, name), verb = "read", object = where(info, self.ns, name) })
  if ok then return object end
  if errors.is(object, "not_found") then return nil end
  error(object, 0)
end

---All objects of a kind in the namespace (all = true: in all), page by page.
---@param kind string
---@param opts? {labels?: table|string, fields?: table|string, all?: boolean, limit?: integer}
---@return table[] items each with its kind and apiVersion
---@return string resource_version of the list
---Example: `k8s:list("Pod", { labels = { app = "web" } })`.
---Raises "denied" without the right.
function Client:list(kind, opts)
  opts = opts or {}
  local info = self:kind(kind)
  local namespace = not opts.all and self.ns or nil
  local items, version, token = {}, "", nil
  repeat
    local page = self:call { path = kinds.path(info, namespace), verb = "list", object = where(info, namespace), query = {
      labelSelector = selector(opts.labels), fieldSelector = selector(opts.fields), limit = opts.limit or 500, continue = token } }
    for _, item in ipairs(page.items ~= json.null and page.items or {}) do
      item.kind, item.apiVersion = info.kind, info.api_version
      items[#items + 1] = item
    end
    local metadata = page.metadata or {}
    token, version = metadata.continue, metadata.resourceVersion or version
  until not token or token == ""
  return items, version
end

local function of(self, manifest)
  local info = self:kind(manifest.kind, manifest.apiVersion)
  return info, manifest.metadata.namespace or self.ns, manifest.metadata.name
end

local function encode(manifest)
  return errors.check(json.encode(manifest, { reveal = true }))
end

---Creates an object.
---@param manifest table
---@return table
---Example: `k8s:create { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" } }`. Raises "conflict" when it exists.
function Client:create(manifest)
  local info, namespace, name = of(self, manifest)
  return self:call { method = "POST", path = kinds.path(info, namespace), verb = "create", object = where(info, namespace, name),
    query = { fieldManager = M.MANAGER }, body = encode(manifest) }
end

---Server-side apply with field manager "eirun": creates, or changes the fields that the manifest names.
---@param manifest table
---@param opts? {force?: boolean, dry_run?: boolean}
---@return table the object as the server has it afterwards
---Example: `k8s:apply(manifest, { dry_run = true })`. Raises "conflict" listing each field and its owner.
function Client:apply(manifest, opts)
  opts = opts or {}
  local info, namespace, name = of(self, manifest)
  return self:call {
    method = "PATCH", path = kinds.path(info, namespace, name), verb = "apply", object = where(info, namespace, name),
    content_type = "application/apply-patch+yaml", body = encode(manifest), query = {
      fieldManager = M.MANAGER, force = opts.force == true, fieldValidation = "Strict", dryRun = opts.dry_run and "All" or nil,
    },
  }
end

local patch_types = { merge = "application/merge-patch+json", json = "application/json-patch+json",
  strategic = "application/strategic-merge-patch+json" }

---Changes part of an object.
---@param kind string
---@param name string
---@param patch table
---@param opts? {type?: "merge"|"json"|"strategic", subresource?: string}
---@return table
---Example: `k8s:patch("Deployment", "web", { spec = { replicas = 3 } }, { subresource = "scale" })`.
---Raises "not_found" when there is no such object, "invalid" for what the server refuses, "conflict" when it changed meanwhile.
function Client:patch(kind, name, patch, opts)
  opts = opts or {}
  local info = self:kind(kind)
  return self:call { method = "PATCH", path = kinds.path(info, self.ns, name, opts.subresource), verb = "patch",
    object = where(info, self.ns, name), content_type = patch_types[opts.type or "merge"], query = { fieldManager = M.MANAGER },
    body = encode(patch), idempotent = (opts.type or "merge") ~= "json" }
end

---Deletes an object; one that is not there is fine.
---@param kind string
---@param name string
---@param opts? {uid?: string, propagation?: string, grace?: integer, wait?: number seconds to wait until it is gone}
---@return boolean deleted false when there was nothing
---Example: `k8s:delete("Deployment", "web", { wait = 60 })`.
---Raises "conflict" when `uid` is another one's, "timeout" when it is still there after `wait`.
function Client:delete(kind, name, opts)
  opts = opts or {}
  local info = self:kind(kind)
  local body = { propagationPolicy = opts.propagation or "Background", gracePeriodSeconds = opts.grace,
    preconditions = opts.uid and { uid = opts.uid } or nil }
  local ok, err = pcall(self.call, self, { method = "DELETE", path = kinds.path(info, self.ns, name), verb = "delete",
    object = where(info, self.ns, name), body = encode(body) })
  if not ok and errors.is(err, "not_found") then return false end
  if not ok then error(err, 0) end
  if not opts.wait then return true end
  local _, late = http.poll({ timeout = opts.wait, interval = 1, cap = 5, what = "the deletion of " .. where(info, self.ns, name) },
    function() return not self:get(kind, name) and true or nil end)
  if late then error(late, 0) end
  return true
end

---The last lines of a container's log.
---@param pod string
---@param opts? {container?: string, tail?: integer, previous?: boolean, since?: integer}
---@return string
---Example: `print(k8s:logs("web-7f5c", { tail = 20 }))`. Raises "invalid" when the container has not started.
function Client:logs(pod, opts)
  opts = opts or {}
  local info = self:kind "Pod"
  return self:call { path = kinds.path(info, self.ns, pod, "log"), verb = "read the log of", object = where(info, self.ns, pod), raw = true,
    query = { container = opts.container, tailLines = opts.tail, previous = opts.previous, sinceSeconds = opts.since } }
end

local function event_time(event)
  local text = event.lastTimestamp or event.eventTime or event.firstTimestamp or (event.metadata or {}).creationTimestamp
  return type(text) == "string" and wire.parse_time(text) or 0
end

---What was said about an object, oldest first.
---@param about {kind?: string, name: string, uid?: string}
---@return table[] events
---Example: `for _, e in ipairs(k8s:events { kind = "Pod", name = "web-7f5c" }) do print(e.reason, e.message) end`.
---Raises "denied" without the right.
function Client:events(about)
  local fields = { ["involvedObject.name"] = about.name, ["involvedObject.kind"] = about.kind, ["involvedObject.uid"] = about.uid }
  local list = self:list("Event", { fields = fields })
  for i, event in ipairs(list) do event.at, event.order = event_time(event), i end
  table.sort(list, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    return a.order < b.order
  end)
  return list
end

---Opens a stream of watch events; see `eirun.kube.watch` for one that never ends.
---@param kind string
---@param opts {resource_version?: string, labels?: table|string, fields?: table|string, all?: boolean, timeout?: integer}
---@return table stream
---Example: `local stream <close> = k8s:open_watch("Pod", { resource_version = version })`. Raises when the server does not begin to answer.
function Client:open_watch(kind, opts)
  local info = self:kind(kind)
  local request = request_of(self, { path = kinds.path(info, not opts.all and self.ns or nil), query = {
    watch = true, allowWatchBookmarks = true, resourceVersion = opts.resource_version, timeoutSeconds = opts.timeout or 300,
    labelSelector = selector(opts.labels), fieldSelector = selector(opts.fields) } })
  request.timeout = (opts.timeout or 300) + 30
  return errors.check(self.http:open(request))
end

M.Client = Client
return M
