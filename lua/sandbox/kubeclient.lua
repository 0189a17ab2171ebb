-- SPDX-License-Identifier: Apache-2.0
-- A small Kubernetes client over plain HTTP: verbs, patches, and a cache kept fresh by a watch. The sandbox's kubelet, ingress
-- controller and autoscaler use it against the emulated API server and against a real one alike.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local informer = require "sandbox.kubeclient.informer"
local resources = require "sandbox.kubeclient.resources"

local M = { resources = resources }
local Client = {}
Client.__index = Client

local patch_types = {
  apply = "application/apply-patch+yaml",
  merge = "application/merge-patch+json",
  strategic = "application/strategic-merge-patch+json",
  json = "application/json-patch+json",
}

local kinds = { [401] = "denied", [403] = "denied", [404] = "not_found", [409] = "conflict", [410] = "conflict",
  [429] = "throttled", [503] = "network", [504] = "timeout" }

---@class sandbox.kubeclient.options
---@field server string `https://host:6443`
---@field http? any an eirun.core.http client; made from the fields below when absent
---@field token? any bearer token, a string or a secret
---@field ca_pem? string
---@field ca_file? string
---@field cert_pem? string client certificate
---@field key_pem? any its key
---@field user_agent? string the part before "/" is the default field manager

---A client of one server. Nothing is sent yet.
---@param options sandbox.kubeclient.options
---@return table client
---Example: `local kube = kubeclient.new{ server = "https://127.0.0.1:6443", token = "t", ca_file = "ca.pem" }`.
function M.new(options)
  local http = options.http
  if not http then
    http = require("eirun.core.http").client {
      ca_pem = options.ca_pem, ca_file = options.ca_file, cert_pem = options.cert_pem, key_pem = options.key_pem,
      user_agent = options.user_agent or "eirun-sandbox", max_connections = options.max_connections,
    }
  end
  return setmetatable({
    server = options.server:gsub("/+$", ""), http = http, user_agent = options.user_agent or "eirun-sandbox",
    authorization = options.token and M.bearer(options.token),
  }, Client)
end

local function entry(list, name, field)
  for _, item in ipairs(list or {}) do
    if item.name == name then return item[field] end
  end
  error(errors.new("invalid", ("the kubeconfig has no %s called '%s'"):format(field, tostring(name))), 0)
end

local function data_or_file(holder, name, folder)
  local inline = holder[name .. "-data"]
  if inline then return crypto.unbase64(inline) end
  local path = holder[name]
  if not path then return nil end
  if path:sub(1, 1) ~= "/" then path = folder .. "/" .. path end
  return errors.check(require("eirun.core.fs").read(path))
end

---The current context of a kubeconfig, as options of `new`.
---@param config table decoded kubeconfig
---@param folder? string where its relative paths start
---@return sandbox.kubeclient.options
---Raises kind "invalid" when the context, cluster or user is missing, and what reading a named file raises.
function M.options_of(config, folder)
  local context = entry(config.contexts, config["current-context"], "context")
  local cluster = entry(config.clusters, context.cluster, "cluster")
  local user = entry(config.users, context.user, "user")
  folder = folder or "."
  return {
    server = cluster.server, ca_pem = data_or_file(cluster, "certificate-authority", folder), token = user.token,
    cert_pem = data_or_file(user, "client-certificate", folder), key_pem = data_or_file(user, "client-key", folder),
  }
end

---A client for the current context of a kubeconfig file.
---@param path string
---@param options? {user_agent?: string, max_connections?: integer}
function M.from_kubeconfig(path, options)
  local config = errors.check(require("eirun.core.yaml").decode(errors.check(require("eirun.core.fs").read(path))))
  local found = M.options_of(config, path:match("^(.*)/[^/]*$") or ".")
  for name, value in pairs(options or {}) do found[name] = value end
  return M.new(found)
end

---The value of an Authorization header; stays a secret when the token is one.
function M.bearer(token)
  if type(token) == "string" then return "Bearer " .. token end
  return require("eirun.core.secret").concat("Bearer ", token)
end

local function encode_query(list)
  local parts = {}
  for _, pair in ipairs(list) do
    parts[#parts + 1] = pair[1] .. "=" .. crypto.percent_encode(tostring(pair[2]), "rfc3986")
  end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

local function headers_of(client, content_type)
  local headers = { { "Accept", "application/json" }, { "User-Agent", client.user_agent } }
  if content_type then headers[#headers + 1] = { "Content-Type", content_type } end
  if client.authorization then headers[#headers + 1] = { "Authorization", client.authorization } end
  return headers
end

---What a failed answer says, as an error. Bodies of failures are not always JSON.
---@param status integer
---@param body string|nil
---@param retry_after? string
function M.failure(status, body, retry_after)
  local said = body and json.decode(body)
  if type(said) ~= "table" then said = {} end
  local details = type(said.details) == "table" and said.details or {}
  local kind = kinds[status] or (status >= 500 and "internal" or "invalid")
  return errors.new(kind, said.message or body or ("HTTP " .. status), {
    status = status, code = said.reason, details = details,
    retry_after = tonumber(retry_after) or tonumber(details.retryAfterSeconds),
  })
end

local function send(client, method, url, content_type, body)
  local reply, err = client.http:request {
    method = method, url = url, headers = headers_of(client, content_type), body = body, timeout = 60,
  }
  if not reply then return nil, err end
  if reply.status >= 400 then return nil, M.failure(reply.status, reply.body, reply.headers:get("Retry-After")) end
  if not reply.body or reply.body == "" then return {} end
  return json.decode(reply.body)
end

local function may_retry(method, err)
  if err.kind == "throttled" then return true end -- a 429 was never executed
  if err.kind == "network" then return err.status == 503 or method == "GET" end
  return false
end

---One request with bounded retries of what cannot have happened.
---@param method string
---@param path string with its query
---@param body? any encoded as JSON unless it is a string
---@param content_type? string
---@return table|nil value
---@return table|nil err `details` holds the Status's details
function Client:request(method, path, body, content_type)
  if body ~= nil and type(body) ~= "string" then body = json.encode(body) end
  if body and not content_type then content_type = "application/json" end
  local pause = 0.2
  for attempt = 1, 5 do
    local value, err = send(self, method, self.server .. path, content_type, body)
    if value or attempt == 5 or not may_retry(method, err) then return value, err end
    task.sleep(err.retry_after or pause)
    pause = pause * 2
  end
end

local function query_of(options)
  local list = {}
  local function add(name, value)
    if value ~= nil and value ~= "" then list[#list + 1] = { name, value } end
  end
  add("labelSelector", options.label_selector)
  add("fieldSelector", options.field_selector)
  add("limit", options.limit)
  add("continue", options.continue)
  add("resourceVersion", options.resource_version)
  add("fieldManager", options.field_manager)
  add("force", options.force)
  add("dryRun", options.dry_run and "All" or nil)
  return list
end

---@return table|nil object
---@return table|nil err kind "not_found" when it does not exist
---Example: `local pod, err = kube:get("pods", "default", "web-0")`; cluster-scoped kinds take nil as namespace.
function Client:get(resource, namespace, name)
  return self:request("GET", resources.path(resource, namespace, name))
end

---All pages of a list, as one list object.
---@param options? {namespace?: string, label_selector?: string, field_selector?: string}
function Client:list(resource, options)
  options = options or {}
  local query = { label_selector = options.label_selector, field_selector = options.field_selector, limit = 500 }
  local path, whole = resources.path(resource, options.namespace), nil
  repeat
    local page, err = self:request("GET", path .. encode_query(query_of(query)))
    if not page then return nil, err end
    whole = M.join_pages(whole, page)
    query.continue = page.metadata and page.metadata.continue
  until query.continue == nil or query.continue == ""
  return whole
end

function M.join_pages(whole, page)
  local items = page.items
  if type(items) ~= "table" or items == json.null then items = {} end
  page.items = items
  if not whole then return page end
  table.move(items, 1, #items, #whole.items + 1, whole.items)
  whole.metadata = page.metadata
  return whole
end

---@param object table apiVersion and kind may be left out
function Client:create(resource, object, options)
  local path = resources.path(resource, object.metadata and object.metadata.namespace)
  return self:request("POST", path .. encode_query(query_of(options or {})), resources.stamp(resource, object))
end

---Replaces an object, or with `subresource = "status"` its status. Conditional when the object carries a resourceVersion.
function Client:update(resource, object, options)
  options = options or {}
  local meta = object.metadata
  local path = resources.path(resource, meta.namespace, meta.name, options.subresource)
  return self:request("PUT", path .. encode_query(query_of(options)), resources.stamp(resource, object))
end

---@param options {type?: "merge"|"strategic"|"apply"|"json", subresource?: string, field_manager?: string, force?: boolean}
---Example: `kube:patch("nodes", nil, name, { spec = { unschedulable = true } }, { type = "strategic" })`.
function Client:patch(resource, namespace, name, patch, options)
  options = options or {}
  local path = resources.path(resource, namespace, name, options.subresource)
  if options.type == "apply" then patch = resources.stamp(resource, patch) end
  return self:request("PATCH", path .. encode_query(query_of(options)), patch, patch_types[options.type or "merge"])
end

---@param options? {grace?: integer, uid?: string, propagation?: string}
function Client:delete(resource, namespace, name, options)
  options = options or {}
  local body = { kind = "DeleteOptions", apiVersion = "v1", gracePeriodSeconds = options.grace,
    propagationPolicy = options.propagation, preconditions = options.uid and { uid = options.uid } or nil }
  return self:request("DELETE", resources.path(resource, namespace, name), body)
end

---Reads, changes and writes until nobody else wrote in between; `change(object)` may return false for "nothing to do".
---@return table|nil object
---@return table|nil err
function Client:modify(resource, namespace, name, change, options)
  for _ = 1, 5 do
    local object, err = self:get(resource, namespace, name)
    if not object then return nil, err end
    if change(object) == false then return object end
    object, err = self:update(resource, object, options)
    if object or err.kind ~= "conflict" then return object, err end
  end
  return nil, errors.new("conflict", ("%s %s keeps changing"):format(resource, name), { retryable = true })
end

---Opens a watch; the caller closes it.
---@return table|nil stream with `status`, `read` and `close`
function Client:watch(resource, options)
  local query = query_of { label_selector = options.label_selector, field_selector = options.field_selector,
    resource_version = options.resource_version }
  for _, pair in ipairs { { "watch", "true" }, { "allowWatchBookmarks", "true" }, { "timeoutSeconds", options.timeout or 500 } } do
    query[#query + 1] = pair
  end
  local url = self.server .. resources.path(resource, options.namespace) .. encode_query(query)
  return self.http:open { method = "GET", url = url, headers = headers_of(self) }
end

---A cache of one kind kept fresh by list and watch. Run its loop in a task of its own: `cache:run()`.
---@param options? table `namespace`, `label_selector`, `field_selector`, and the callbacks `on_add(object)`, `on_update(old, new)`,
---`on_delete(object)`
---@return table cache with `get(namespace, name)`, `list([namespace])`, `wait_synced([seconds])`, `run()`, `stop()`
function Client:informer(resource, options)
  return informer.new(self, resource, options or {})
end

function Client:close()
  if self.http.close then self.http:close() end
end

return M
