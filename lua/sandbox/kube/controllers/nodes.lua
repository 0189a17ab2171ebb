-- SPDX-License-Identifier: Apache-2.0
-- Node lifecycle: who stopped renewing is not ready, taints say so, pods leave when their tolerance ends; pods of nodes
-- that are gone are removed.
local json = require "eirun.core.json"
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local sched = require "sandbox.kube.sched"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local controller = {}

local NODES, PODS, LEASES = resources.nodes, resources.pods, resources.leases
local WHO = { manager = "kube-controller-manager" }
local LEASE_NAMESPACE = "kube-node-lease"
-- --node-monitor-grace-period of 1.36, in lag's measure: a lease is 40 s, the grace 50 s.
local GRACE = 1.25
-- The pod garbage collector waits 40 s for a node that is gone to come back.
local QUARANTINE = 1

local PREFIX = "node.kubernetes.io/"
local PRESSURE = { MemoryPressure = "memory-pressure", DiskPressure = "disk-pressure", PIDPressure = "pid-pressure",
  NetworkUnavailable = "network-unavailable" }
local OURS = { ["not-ready"] = true, unreachable = true, unschedulable = true, ["memory-pressure"] = true, ["disk-pressure"] = true,
  ["pid-pressure"] = true, ["network-unavailable"] = true }

-- The taints that a node's conditions ask for: {key, effect} in order.
local function wanted_taints(node)
  local list = {}
  local ready = common.condition(node, "Ready")
  -- No condition, no taint: the one that admission gave the node goes, too, as in the real controller.
  local word = ready and (ready.status == "False" and "not-ready" or ready.status == "Unknown" and "unreachable")
  if word then
    list[1] = { key = PREFIX .. word, effect = "NoSchedule" }
    list[2] = { key = PREFIX .. word, effect = "NoExecute" }
  end
  for type, key in value.sorted(PRESSURE) do
    local c = common.condition(node, type)
    if c and c.status == "True" then list[#list + 1] = { key = PREFIX .. key, effect = "NoSchedule" } end
  end
  if node.spec and node.spec.unschedulable then list[#list + 1] = { key = PREFIX .. "unschedulable", effect = "NoSchedule" } end
  return list
end

local function is_ours(taint)
  return taint.key:sub(1, #PREFIX) == PREFIX and OURS[taint.key:sub(#PREFIX + 1)] ~= nil
end

-- The node's taints with ours brought up to date; times of those that stay are kept.
function controller.taints(node, now)
  local list = json.array {}
  local have = value.get(node, "spec", "taints") or {}
  for _, taint in ipairs(have) do
    if not is_ours(taint) then list[#list + 1] = taint end
  end
  for _, want in ipairs(wanted_taints(node)) do
    local kept
    for _, taint in ipairs(have) do
      if taint.key == want.key and taint.effect == want.effect then kept = taint end
    end
    -- Only evictions count from when the taint came.
    if not kept and want.effect == "NoExecute" then want.timeAdded = now end
    list[#list + 1] = kept or want
  end
  return #list > 0 and list or nil
end

-- Seconds until the pod must leave the node: nil never, 0 now.
function controller.leave_in(pod, node, now)
  local soonest
  for _, taint in ipairs(value.get(node, "spec", "taints") or {}) do
    if taint.effect == "NoExecute" then
      local toleration = sched.tolerates(pod.spec.tolerations, taint)
      if not toleration then return 0 end
      if toleration.tolerationSeconds then
        local added = tables.seconds_of(taint.timeAdded) or now
        local left = math.max(0, added + toleration.tolerationSeconds - now)
        soonest = math.min(left, soonest or left)
      end
    end
  end
  return soonest
end

local Nodes = {}
Nodes.__index = Nodes

function Nodes:pods_on(name)
  local list = {}
  for key in value.sorted(self.by_node[name] or {}) do
    local pod = self.store:object(PODS, common.split(key))
    if pod then list[#list + 1] = pod end
  end
  return list
end

function Nodes:key_of(pod)
  return pod.metadata.namespace .. "/" .. pod.metadata.name
end

function Nodes:mark_pods_not_ready(name)
  for _, pod in ipairs(self:pods_on(name)) do
    local c = common.condition(pod, "Ready")
    if c and c.status == "True" then
      self.reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
        local list = common.with_condition(old.status.conditions, { type = "Ready", status = "False" }, self.reg:time())
        return value.with(old, { "status", "conditions" }, list)
      end, { manager = "kube-controller-manager", subresource = "status" })
      self.recorder:event(PODS, pod, "Warning", "NodeNotReady", "Node is not ready")
    end
  end
end

function Nodes:silent(node)
  local conditions = value.get(node, "status", "conditions") or {}
  local list = json.array {}
  for _, c in ipairs(conditions) do
    local known = c.status ~= "Unknown"
    list[#list + 1] = { type = c.type, status = "Unknown", reason = "NodeStatusUnknown",
      message = "Kubelet stopped posting node status.", lastHeartbeatTime = c.lastHeartbeatTime,
      lastTransitionTime = known and self.reg:time() or c.lastTransitionTime }
  end
  if not value.find(list, "type", "Ready") then
    list[#list + 1] = { type = "Ready", status = "Unknown", reason = "NodeStatusNeverUpdated",
      message = "Kubelet never posted node status.", lastTransitionTime = self.reg:time() }
  end
  self.reg:set_status(NODES, node, value.with(node.status or {}, { "conditions" }, list))
  self.recorder:event(NODES, node, "Normal", "NodeNotReady", ("Node %s status is now: NodeNotReady"):format(node.metadata.name))
  self:mark_pods_not_ready(node.metadata.name)
end

-- Looks for nodes that have been silent for too long; answers when to look again.
function Nodes:watch_silence()
  local soonest
  for name, at in value.sorted(self.seen) do
    local left = at + self.grace - self.m.now()
    local node = self.store:object(NODES, nil, name)
    local ready = node and common.condition(node, "Ready")
    if node and left <= 0 and not (ready and ready.status == "Unknown") then self:silent(node) end
    if node and left > 0 then soonest = math.min(left, soonest or left) end
  end
  self.monitor.armed = soonest ~= nil
  return soonest
end

function Nodes:heard_of(name)
  self.seen[name] = self.m.now()
  if self.monitor.armed then return end
  self.monitor.armed = true
  self.monitor:add_after("nodes", self.grace)
end

function Nodes:sync_node(key)
  local _, name = common.split(key)
  local node = self.store:object(NODES, nil, name)
  if not node then return end
  local now = self.reg:time()
  local rec = self.reg:modify(NODES, nil, name, function(old)
    local list = controller.taints(old, now)
    if value.equal(list, value.get(old, "spec", "taints")) then return nil end
    return value.with(old, { "spec", "taints" }, list)
  end, WHO)
  for _, pod in ipairs(self:pods_on(name)) do
    if controller.leave_in(pod, rec.obj, self.m.now()) then self.evictions:add(self:key_of(pod)) end
  end
end

function Nodes:sync_eviction(key)
  local pod = self.store:object(PODS, common.split(key))
  if not pod or not pod.spec.nodeName or pod.metadata.deletionTimestamp then return end
  local node = self.store:object(NODES, nil, pod.spec.nodeName)
  local left = node and controller.leave_in(pod, node, self.m.now())
  if not left then return end
  if left > 0 then return left end
  self.evictor:event(PODS, pod, "Normal", "TaintManagerEviction", ("Marking for deletion Pod %s"):format(key))
  self.reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
    return value.with(old, { "status", "conditions" }, common.with_condition(old.status.conditions, { type = "DisruptionTarget",
      status = "True", reason = "DeletionByTaintManager", message = "Taint manager: deleting due to NoExecute taint" }, self.reg:time()))
  end, { manager = "kube-controller-manager", subresource = "status" })
  deletion.delete(self.reg, PODS, pod.metadata.namespace, pod.metadata.name, { preconditions = { uid = pod.metadata.uid } })
end

-- Pods whose node is no longer there.
function Nodes:sync_orphans(name)
  if self.store:get(NODES, nil, name) then return end
  for _, pod in ipairs(self:pods_on(name)) do
    if not common.pod_finished(pod) then
      self.reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
        local s = value.shallow(old.status)
        s.phase = "Failed"
        s.conditions = common.with_condition(s.conditions, { type = "DisruptionTarget", status = "True", reason = "DeletionByPodGC",
          message = "PodGC: node no longer exists" }, self.reg:time())
        return value.with(old, { "status" }, s)
      end, { manager = "kube-controller-manager", subresource = "status" })
    end
    deletion.delete(self.reg, PODS, pod.metadata.namespace, pod.metadata.name, { grace = 0 })
  end
end

function Nodes:on_node(event)
  local name = event.new.name
  if event.type == "DELETED" then
    self.seen[name] = nil
    self.recorder:event(NODES, event.new.obj, "Normal", "RemovingNode",
      ("Node %s event: Removing Node %s from Controller"):format(name, name))
    if self.by_node[name] then self.orphans:add_after(name, self.quarantine) end
    return
  end
  if event.type == "ADDED" then
    self.recorder:event(NODES, event.new.obj, "Normal", "RegisteredNode",
      ("Node %s event: Registered Node %s in Controller"):format(name, name))
  end
  local old, new = event.old and common.condition(event.old.obj, "Ready"), common.condition(event.new.obj, "Ready")
  if not self.seen[name] or (new and (not old or old.lastHeartbeatTime ~= new.lastHeartbeatTime) and new.status ~= "Unknown") then
    self:heard_of(name)
  end
  if new and new.status == "False" and (not old or old.status == "True") then self:mark_pods_not_ready(name) end
  self.nodes:add(event.new.key)
end

function Nodes:on_pod(event)
  local pod, key = event.new.obj, event.new.key
  local name = pod.spec.nodeName
  if not name then return end
  self.by_node[name] = self.by_node[name] or {}
  self.by_node[name][key] = event.type ~= "DELETED" and true or nil
  if next(self.by_node[name]) == nil then self.by_node[name] = nil end
  if event.type == "DELETED" then return end
  local node = self.store:object(NODES, nil, name)
  if not node then
    self.orphans:add_after(name, self.quarantine)
  elseif controller.leave_in(pod, node, self.m.now()) then
    self.evictions:add(key)
  end
end

function controller.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, seen = {}, by_node = {},
    grace = m.lag.node_lease * GRACE, quarantine = m.lag.node_lease * QUARANTINE,
    recorder = events.recorder(m.registry, "node-controller"), evictor = events.recorder(m.registry, "taint-eviction-controller") }, Nodes)
  self.nodes = m:queue("node", 0, function(key) return self:sync_node(key) end)
  self.evictions = m:queue("taint-eviction", 0, function(key) return self:sync_eviction(key) end)
  self.orphans = m:queue("pod-garbage", 0, function(key) return self:sync_orphans(key) end)
  self.monitor = m:queue("node-monitor", 0, function() return self:watch_silence() end)
  for _, rec in ipairs(m.store:list(PODS)) do self:on_pod { type = "ADDED", new = rec } end
  for _, rec in ipairs(m.store:list(NODES)) do
    self:heard_of(rec.name)
    self.nodes:add(rec.key)
  end
  m.store:subscribe(NODES, function(event) self:on_node(event) end)
  m.store:subscribe(PODS, function(event) self:on_pod(event) end)
  m.store:subscribe(LEASES, function(event)
    if event.new.ns == LEASE_NAMESPACE and event.type ~= "DELETED" and m.store:get(NODES, nil, event.new.name) then
      self:heard_of(event.new.name)
    end
  end)
end

return controller
