-- SPDX-License-Identifier: Apache-2.0
-- The API server's verbs on objects.
local connection = require "eirun.kube.connection"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local owned = require("eirun.later") "eirun.kube.owned"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

M.MANAGER = "eirun"
M.new = connection.new
local PARALLEL = 32

---@class eirun.KubeClient
local Client = connection.Client

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

---Reads a collection page by page; `on_page` is given each page's text as the server sent it.
---@param info eirun.KindInfo
---@param opts {labels?: table|string, fields?: table|string, all?: boolean, limit?: integer, accept?: string, resource_version?: string}
---@param on_page fun(text: string): string|nil answers the page's `continue`
---@param on_restart? fun() the pages so far do not count any more: the server had forgotten the rest
---Example: `k8s:pages(k8s:kind "Pod", { all = true }, function(text) return names:add(text) end)`.
---Raises errors with the server's words.
function Client:pages(info, opts, on_page, on_restart)
  local namespace, token, restarts, done = not opts.all and self.ns or nil, nil, 0, false
  repeat
    local ok, text = pcall(self.call, self, { path = kinds.path(info, namespace), verb = "list", object = where(info, namespace),
      accept = opts.accept, raw = true, max_body = 256 << 20, query = {
        labelSelector = selector(opts.labels), fieldSelector = selector(opts.fields), limit = opts.limit or 500, continue = token,
        includeObject = opts.include_object, resourceVersion = not token and opts.resource_version or nil } })
    if ok then
      token = on_page(text)
      done = not token or token == ""
    elseif token and text.status == 410 and restarts < 3 and on_restart then
      restarts, token = restarts + 1, nil
      on_restart()
    else
      error(text, 0)
    end
  until done
end

---All objects of a kind in the namespace (all = true: in all), page by page.
---@param kind string
---@param opts? {labels?: table|string, fields?: table|string, all?: boolean, limit?: integer}
---@return table[] items each with its kind and apiVersion
---@return string resource_version of the list
---Example: `k8s:list("Pod", { labels = { app = "web" } })`.
---Raises "denied" without the right.
function Client:list(kind, opts)
  local info = self:kind(kind)
  local items, version = {}, ""
  self:pages(info, opts or {}, function(text)
    local page = errors.check(json.decode(text))
    for _, item in ipairs(type(page.items) == "table" and page.items or {}) do
      item.kind, item.apiVersion = info.kind, info.api_version
      items[#items + 1] = item
    end
    local metadata = page.metadata or {}
    version = metadata.resourceVersion or version
    return metadata.continue
  end, function() items = {} end)
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
---@param opts? {force?: boolean, dry_run?: boolean, manager?: string, validate?: "Strict"|"Warn"|"Ignore"}
---@return table the object as the server has it afterwards
---Example: `k8s:apply(manifest, { dry_run = true })`. Raises "conflict" listing each field and its owner.
function Client:apply(manifest, opts)
  opts = opts or {}
  local info, namespace, name = of(self, manifest)
  return self:call {
    method = "PATCH", path = kinds.path(info, namespace, name), verb = "apply", object = where(info, namespace, name),
    content_type = "application/apply-patch+yaml", body = encode(manifest), query = {
      fieldManager = opts.manager or M.MANAGER, force = opts.force == true, fieldValidation = opts.validate or "Strict",
      dryRun = opts.dry_run and "All" or nil,
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
---@param opts? {uid?: string, propagation?: "Background"|"Foreground"|"Orphan", grace?: integer, dry_run?: boolean,
--- wait?: number seconds to wait until it is gone}
---@return boolean deleted false when there was nothing
---Example: `k8s:delete("Deployment", "web", { wait = 60 })`.
---Raises "conflict" when `uid` is another one's, "timeout" when it is still there after `wait`.
function Client:delete(kind, name, opts)
  opts = opts or {}
  local info = self:kind(kind)
  local body = { propagationPolicy = opts.propagation or "Background", gracePeriodSeconds = opts.grace,
    preconditions = opts.uid and { uid = opts.uid } or nil, dryRun = opts.dry_run and json.array { "All" } or nil }
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

local MANY, CROWD = 16, 4 -- objects of a kind that are worth a list; a list that holds so many times more is not

-- The objects of a kind in a namespace by name, nil where there are too many others or they may not be listed.
local function crowd(self, kind, api_version, namespace, wanted)
  local found, few = {}, true
  local function take(text)
    local page = errors.check(json.decode(text))
    for _, item in ipairs(type(page.items) == "table" and page.items or {}) do
      item.kind, item.apiVersion = kind, api_version
      found[item.metadata.name] = item
    end
    local metadata = page.metadata or {}
    few = (metadata.remainingItemCount or 0) <= wanted * CROWD
    return few and metadata.continue or nil
  end
  local ok, err = pcall(function() self:namespace(namespace):pages(self:kind(kind, api_version), {}, take) end)
  if ok then return few and found or nil end
  if errors.is(err, "cancelled") then error(err, 0) end
  return nil
end

-- The manifests of many objects whose sending would change nothing, with the object as it is.
local function settled(self, manifests, opts)
  local groups, list, as_is = {}, {}, {}
  for _, manifest in ipairs(manifests) do
    local namespace = manifest.metadata.namespace or self.ns
    local key = table.concat({ manifest.apiVersion, manifest.kind, namespace }, "\0")
    if not groups[key] then
      groups[key] = { namespace = namespace }
      list[#list + 1] = groups[key]
    end
    table.insert(groups[key], manifest)
  end
  task.map(list, function(group)
    local first = group[1]
    local found = #group >= MANY and crowd(self, first.kind, first.apiVersion, group.namespace, #group)
    for _, manifest in ipairs(found and group or {}) do
      local live = found[manifest.metadata.name]
      if live and owned.is_as_applied(live, manifest, opts.manager or M.MANAGER) then as_is[manifest] = live end
    end
  end, 8)
  return as_is
end

---Applies many objects, several at a time: namespaces and definitions of kinds first, what may need them afterwards. Of many objects of one
---kind those are listed first that are there, and what is as this manager applied it is not sent again.
---@param manifests table[]
---@param opts? {force?: boolean, dry_run?: boolean, manager?: string, validate?: "Strict"|"Warn"|"Ignore", parallel?: integer,
--- resend?: boolean, each?: fun(object: table|nil, manifest: table, err: eirun.Error|nil)} resend: send all
---@return table[] objects in the order of the manifests
---Example: `k8s:apply_all(manifests, { parallel = 8 })`. Raises the first error, after the others have ended; with `each` every error is
---given to it and none is raised.
function Client:apply_all(manifests, opts)
  opts = opts or {}
  local as_is = (opts.dry_run or opts.resend) and {} or settled(self, manifests, opts)
  local first, rest = {}, {}
  for i, manifest in ipairs(manifests) do
    local early = manifest.kind == "Namespace" or manifest.kind == "CustomResourceDefinition"
    table.insert(early and first or rest, i)
  end
  local objects = {}
  local function one(i)
    local manifest = manifests[i]
    local ok, object = true, as_is[manifest]
    if not object then ok, object = pcall(self.apply, self, manifest, opts) end
    if not ok and (not opts.each or errors.is(object, "cancelled")) then error(object, 0) end
    if opts.each then opts.each(ok and object or nil, manifest, not ok and errors.from(object) or nil) end
    objects[i] = ok and object or false
  end
  for _, group in ipairs { first, rest } do task.map(group, one, opts.parallel or PARALLEL) end
  return objects
end

-- A collection of all that `prune` may look through: what playbooks make.
local PRUNED = { "ConfigMap", "Secret", "Service", "ServiceAccount", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob",
  "Ingress", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy", "Role", "RoleBinding", "PersistentVolumeClaim" }

M.SET_LABEL = "eirun.io/set"

local function key_of(kind, namespace, name)
  return kind .. "\0" .. (namespace or "") .. "\0" .. name
end

---What carries the owner's mark of a set and is not among the manifests any more: to be shown before it is deleted.
---@param set string the value of label `eirun.io/set`
---@param manifests table[] what shall stay
---@param opts? {kinds?: string[]}
---@return table[] objects that `delete` may be called for
---Example: `for _, old in ipairs(k8s:list_prunable("bert", manifests)) do print(old.kind, old.metadata.name) end`.
---Raises errors with the server's words.
function Client:list_prunable(set, manifests, opts)
  local keep, found = {}, {}
  for _, manifest in ipairs(manifests) do
    keep[key_of(manifest.kind, manifest.metadata.namespace or self.ns, manifest.metadata.name)] = true
  end
  local labels = { [M.SET_LABEL] = set, ["app.kubernetes.io/managed-by"] = M.MANAGER }
  for _, items in ipairs(task.map(opts and opts.kinds or PRUNED, function(kind) return self:list(kind, { labels = labels }) end, 8)) do
    for _, item in ipairs(items) do
      local has_owner = #((item.metadata or {}).ownerReferences or {}) > 0
      if not has_owner and not keep[key_of(item.kind, item.metadata.namespace, item.metadata.name)] then found[#found + 1] = item end
    end
  end
  return found
end

---Changes the number of replicas, through the scale subresource.
---@param kind string
---@param name string
---@param replicas integer
---@return table scale
---Example: `k8s:scale("Deployment", "web", 3)`. Raises "not_found" when there is no such object.
function Client:scale(kind, name, replicas)
  return self:patch(kind, name, { spec = { replicas = replicas } }, { subresource = "scale" })
end

---Opens a stream of watch events; see `eirun.kube.watch` for one that never ends.
---@param kind string
---@param opts {resource_version?: string, labels?: table|string, fields?: table|string, all?: boolean, timeout?: integer,
--- accept?: string, initial?: boolean}
---@return table stream
---Example: `local stream <close> = k8s:open_watch("Pod", { resource_version = version })`. Raises when the server does not begin to answer.
function Client:open_watch(kind, opts)
  local info = self:kind(kind)
  local seconds, namespace = opts.timeout or 300, not opts.all and self.ns or nil
  return self:stream { path = kinds.path(info, namespace), verb = "watch", object = where(info, namespace), accept = opts.accept,
    timeout = seconds + 30, query = { watch = true, allowWatchBookmarks = true, resourceVersion = opts.resource_version,
      timeoutSeconds = seconds, labelSelector = selector(opts.labels), fieldSelector = selector(opts.fields),
      sendInitialEvents = opts.initial, resourceVersionMatch = opts.initial and "NotOlderThan" or nil } }
end

---Some fields of all objects of a kind, picked out of the list's bytes.
---@param kind string
---@param paths string[]
---@param opts? {labels?: table|string, fields?: table|string, all?: boolean}
---@return table[] rows with the values by path
---Example: `for _, pod in ipairs(k8s:pick("Pod", { "metadata.name", "status.phase" })) do … end`.
---Raises "invalid" for a path that is none, "denied" without the right.
function Client:pick(kind, paths, opts)
  local picker, bad = require("eirun.core.kube").picker(paths)
  if not picker then errors.raise("invalid", "pick: " .. bad.message) end
  local found = {}
  self:pages(self:kind(kind), opts or {}, function(text)
    local rows, token = picker:items(text)
    if not rows then error(token, 0) end
    table.move(rows, 1, #rows, #found + 1, found)
    return token
  end, function() found = {} end)
  return found
end

M.Client = Client
M.selector, M.where = selector, where
return M
