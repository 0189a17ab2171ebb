-- SPDX-License-Identifier: Apache-2.0
-- Pods and the nodes they run on: logs, events, eviction, draining.
local client = require "eirun.kube.client"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}
local Client = client.Client

-- Logs ----------------------------------------------------------------------------------------------------------------

local function log_call(self, pod, opts)
  local info = self:kind "Pod"
  return { path = kinds.path(info, self.ns, pod, "log"), verb = "read the log of", object = client.where(info, self.ns, pod), raw = true,
    accept = "*/*", query = { container = opts.container, tailLines = opts.tail, previous = opts.previous, sinceSeconds = opts.since,
      timestamps = opts.timestamps, limitBytes = opts.limit_bytes, follow = opts.follow, sinceTime = opts.since_time } }
end

---The last lines of a container's log.
---@param pod string
---@param opts? {container?: string, tail?: integer, previous?: boolean, since?: integer, timestamps?: boolean, limit_bytes?: integer}
---@return string
---Example: `print(k8s:logs("web-7f5c", { tail = 20 }))`. Raises "invalid" when the container has not started.
function Client:logs(pod, opts)
  return self:call(log_call(self, pod, opts or {}))
end

---A container's log as it is written: an iterator of pieces of text that ends when the container does.
---@param pod string
---@param opts? table as `logs`
---@return fun(): string|nil
---Example: `for text in k8s:follow_logs "web-7f5c" do term.write(1, text) end`. Raises "invalid" when the container has not started.
function Client:follow_logs(pod, opts)
  local given = { follow = true }
  for key, value in pairs(opts or {}) do given[key] = value end
  local call = log_call(self, pod, given)
  call.timeout = 7 * 86400
  local stream = self:stream(call)
  if stream.status >= 300 then error(require("eirun.kube.connection").stream_failure(call, stream), 0) end
  return function()
    local chunk, err = stream:read()
    if not chunk then stream:close() end
    if err then error(err, 0) end
    return chunk
  end
end

-- Events --------------------------------------------------------------------------------------------------------------

local function event_time(event)
  local text = type(event.series) == "table" and event.series.lastObservedTime or event.lastTimestamp
  if type(text) ~= "string" then text = event.eventTime end
  if type(text) ~= "string" then text = event.firstTimestamp end
  if type(text) ~= "string" then text = (event.metadata or {}).creationTimestamp end
  return type(text) == "string" and wire.parse_time(text) or 0
end

---What was said about an object, oldest first.
---@param about {kind?: string, name?: string, uid?: string}
---@return table[] events
---Example: `for _, e in ipairs(k8s:events { kind = "Pod", name = "web-7f5c" }) do print(e.reason, e.message) end`.
---Raises "denied" without the right.
function Client:events(about)
  local fields = { ["involvedObject.name"] = about.name, ["involvedObject.kind"] = about.kind, ["involvedObject.uid"] = about.uid }
  local list = self:list("Event", { fields = fields, all = about.all })
  for i, event in ipairs(list) do event.at, event.order = event_time(event), i end
  table.sort(list, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    return a.order < b.order
  end)
  return list
end

-- Not here ------------------------------------------------------------------------------------------------------------

local function kept_for_kubectl(verb)
  errors.raise("invalid", verb .. " is not supported", { code = "NotSupported", hint = "use kubectl " .. verb })
end

---Runs a command in a container: keeps its place and says that kubectl does it.
---@param pod string
---@param command string[]
---Example: `k8s:exec("web-7f5c", { "ls" })`. Raises "invalid", always.
function Client:exec(pod, command) -- luacheck: ignore 212
  kept_for_kubectl "exec"
end

---Forwards a port to a pod: keeps its place and says that kubectl does it.
---@param pod string
---@param ports table
---Example: `k8s:port_forward("web-7f5c", { [8080] = 80 })`. Raises "invalid", always.
function Client:port_forward(pod, ports) -- luacheck: ignore 212
  kept_for_kubectl "port-forward"
end

-- Eviction ------------------------------------------------------------------------------------------------------------

---Asks for a pod's eviction; a disruption budget may refuse for now.
---@param pod string
---@param opts? {grace?: integer, uid?: string}
---@return boolean evicted false when there is no such pod
---Example: `k8s:evict("web-7f5c")`. Raises "throttled" with the budget's words when it refuses.
function Client:evict(pod, opts)
  opts = opts or {}
  local info = self:kind "Pod"
  local options = { gracePeriodSeconds = opts.grace, preconditions = opts.uid and { uid = opts.uid } or nil }
  local ok, err = pcall(self.call, self, { method = "POST", path = kinds.path(info, self.ns, pod, "eviction"), verb = "evict",
    object = client.where(info, self.ns, pod), attempts = 1, body = json.encode { apiVersion = "policy/v1", kind = "Eviction",
      metadata = { name = pod, namespace = self.ns }, deleteOptions = next(options) and options or nil } })
  if ok then return true end
  if errors.is(err, "not_found") then return false end
  error(err, 0)
end

local function mark(self, node, value)
  return self:patch("Node", node, { spec = { unschedulable = value } }, { type = "strategic" })
end

---Lets no new pods onto a node.
---@param node string
---@return boolean changed
---Example: `k8s:cordon "node-1"`. Raises "not_found" for no such node.
function Client:cordon(node)
  local object = self:get("Node", node) or errors.raise("not_found", ("nodes \"%s\" not found"):format(node), { code = "NotFound" })
  if object.spec and object.spec.unschedulable then return false end
  mark(self, node, true)
  return true
end

---Lets pods onto a node again.
---@param node string
---@return boolean changed
---Example: `k8s:uncordon "node-1"`. Raises "not_found" for no such node.
function Client:uncordon(node)
  local object = self:get("Node", node) or errors.raise("not_found", ("nodes \"%s\" not found"):format(node), { code = "NotFound" })
  if not (object.spec and object.spec.unschedulable) then return false end
  mark(self, node, json.null)
  return true
end

-- Draining ------------------------------------------------------------------------------------------------------------

local EVICT_AGAIN = 5

local function owner(pod)
  for _, reference in ipairs(pod.metadata.ownerReferences or {}) do
    if reference.controller then return reference end
  end
end

local function is_finished(pod)
  local phase = (pod.status or {}).phase
  return phase == "Succeeded" or phase == "Failed"
end

local function has_local_data(pod)
  for _, volume in ipairs((pod.spec or {}).volumes or {}) do
    if volume.emptyDir then return true end
  end
  return false
end

-- Why a pod may not simply be evicted: nothing, "skip", or words for the list of what stands in the way.
local function judge(pod, opts)
  if (pod.metadata.annotations or {})["kubernetes.io/config.mirror"] then return "skip" end
  if is_finished(pod) then return nil end
  local controller = owner(pod)
  if controller and controller.kind == "DaemonSet" then
    return opts.ignore_daemonsets and "skip" or "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)"
  end
  if has_local_data(pod) and not opts.delete_emptydir_data then
    return "Pods with local storage (use --delete-emptydir-data to override)"
  end
  if not controller and not opts.force then return "Pods that declare no controller (use --force to override)" end
end

-- The words in the order in which kubectl says them.
local order = { "DaemonSet-managed Pods (use --ignore-daemonsets to ignore)",
  "Pods with local storage (use --delete-emptydir-data to override)", "Pods that declare no controller (use --force to override)" }

local function refuse(node, stuck)
  local parts = {}
  for _, words in ipairs(order) do
    if stuck[words] then parts[#parts + 1] = ("cannot delete %s: %s"):format(words, table.concat(stuck[words], ", ")) end
  end
  errors.raise("invalid", table.concat(parts, ", "), { code = "CannotDrain", object = ("Node '%s'"):format(node) })
end

---The pods of a node that draining would evict, and those that it leaves alone.
---@param node string
---@param opts? {ignore_daemonsets?: boolean, delete_emptydir_data?: boolean, force?: boolean}
---@return table[] pods
---@return table[] left
---Example: `local pods = k8s:list_drainable("node-1", { ignore_daemonsets = true })`.
---Raises "invalid" naming the pods that stand in the way.
function Client:list_drainable(node, opts)
  opts = opts or {}
  local pods, left, stuck = {}, {}, {}
  for _, pod in ipairs(self:list("Pod", { all = true, fields = "spec.nodeName=" .. node })) do
    local words = judge(pod, opts)
    if not words then
      pods[#pods + 1] = pod
    elseif words == "skip" then
      left[#left + 1] = pod
    else
      stuck[words] = stuck[words] or {}
      table.insert(stuck[words], pod.metadata.namespace .. "/" .. pod.metadata.name)
    end
  end
  if next(stuck) then refuse(node, stuck) end
  return pods, left
end

local function may_come_later(err)
  if err.status == 429 then return true end
  for _, cause in ipairs(err.causes_of_server or {}) do if cause.reason == "NamespaceTerminating" then return true end end
  return false
end

local function evict_patiently(scoped, pod, opts)
  while true do
    local ok, err = pcall(scoped.evict, scoped, pod.metadata.name, { grace = opts.grace })
    if ok then return end
    if not may_come_later(errors.from(err)) then error(err, 0) end
    if opts.each then opts.each("refused", pod, err) end
    task.sleep(EVICT_AGAIN)
  end
end

local function await_end(scoped, pod)
  while true do
    local now = scoped:get("Pod", pod.metadata.name)
    if not now or now.metadata.uid ~= pod.metadata.uid then return end
    task.sleep(1)
  end
end

---Empties a node: cordons it, evicts its pods as their disruption budgets allow, waits until they are gone.
---@param node string
---@param opts? {ignore_daemonsets?: boolean, delete_emptydir_data?: boolean, force?: boolean, grace?: integer, timeout?: number,
--- each?: fun(what: "evicting"|"refused"|"gone", pod: table, err?: eirun.Error)}
---@return table[] pods that were evicted
---Example: `k8s:drain("node-1", { ignore_daemonsets = true, timeout = 600 })`.
---Raises "invalid" naming the pods that stand in the way, before any is evicted; "timeout" when some are still there.
function Client:drain(node, opts)
  opts = opts or {}
  self:cordon(node)
  local pods = self:list_drainable(node, opts)
  local function all_gone()
    task.map(pods, function(pod)
      local scoped = self:namespace(pod.metadata.namespace)
      if opts.each then opts.each("evicting", pod) end
      evict_patiently(scoped, pod, opts)
      await_end(scoped, pod)
      if opts.each then opts.each("gone", pod) end
    end)
  end
  if opts.timeout and opts.timeout > 0 then
    task.timeout(opts.timeout, all_gone)
  else
    all_gone()
  end
  return pods
end

return M
