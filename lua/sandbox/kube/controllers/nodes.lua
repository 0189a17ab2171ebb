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
  local word = not ready and "not-ready" or ready.status == "False" and "not-ready" or ready.status == "Unknown" and "unreachable"
  if word then list[1] = { key = PREFIX .. word, effect = "NoSchedule" } end
  -- A node that never was ready gets no NoExecute taint until it has a condition.
  if word and ready then list[2] = { key = PREFIX .. word, effect = "NoExecute" } end
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

function controller.start(m)
  local reg, store = m.registry, m.store
  local recorder = events.recorder(reg, "node-controller")
  local evictor = events.recorder(reg, "taint-eviction-controller")
  local grace = m.lag.node_lease * GRACE
  local quarantine = m.lag.node_lease * QUARANTINE
  local seen, by_node = {}, {}
  local evictions, monitor

  local function pods_on(name)
    local list = {}
    for key in value.sorted(by_node[name] or {}) do
      local pod = store:object(PODS, common.split(key))
      if pod then list[#list + 1] = pod end
    end
    return list
  end

  local function key_of(pod)
    return pod.metadata.namespace .. "/" .. pod.metadata.name
  end

  local function mark_pods_not_ready(name)
    for _, pod in ipairs(pods_on(name)) do
      local c = common.condition(pod, "Ready")
      if c and c.status == "True" then
        reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
          local list = common.with_condition(old.status.conditions, { type = "Ready", status = "False" }, reg:time())
          return value.with(old, { "status", "conditions" }, list)
        end, { manager = "kube-controller-manager", subresource = "status" })
        recorder:event(PODS, pod, "Warning", "NodeNotReady", "Node is not ready")
      end
    end
  end

  local function silent(node)
    local conditions = value.get(node, "status", "conditions") or {}
    local list = json.array {}
    for _, c in ipairs(conditions) do
      local known = c.status ~= "Unknown"
      list[#list + 1] = { type = c.type, status = "Unknown", reason = "NodeStatusUnknown",
        message = "Kubelet stopped posting node status.", lastHeartbeatTime = c.lastHeartbeatTime,
        lastTransitionTime = known and reg:time() or c.lastTransitionTime }
    end
    if not value.find(list, "type", "Ready") then
      list[#list + 1] = { type = "Ready", status = "Unknown", reason = "NodeStatusNeverUpdated",
        message = "Kubelet never posted node status.", lastTransitionTime = reg:time() }
    end
    reg:set_status(NODES, node, value.with(node.status or {}, { "conditions" }, list))
    recorder:event(NODES, node, "Normal", "NodeNotReady", ("Node %s status is now: NodeNotReady"):format(node.metadata.name))
    mark_pods_not_ready(node.metadata.name)
  end

  -- Looks for nodes that have been silent for too long; answers when to look again.
  local function watch_silence()
    local soonest
    for name, at in value.sorted(seen) do
      local left = at + grace - m.now()
      local node = store:object(NODES, nil, name)
      local ready = node and common.condition(node, "Ready")
      if node and left <= 0 and not (ready and ready.status == "Unknown") then silent(node) end
      if node and left > 0 then soonest = math.min(left, soonest or left) end
    end
    monitor.armed = soonest ~= nil
    return soonest
  end

  local function heard_of(name)
    seen[name] = m.now()
    if monitor.armed then return end
    monitor.armed = true
    monitor:add_after("nodes", grace)
  end

  local function sync_node(key)
    local _, name = common.split(key)
    local node = store:object(NODES, nil, name)
    if not node then return end
    local now = reg:time()
    local rec = reg:modify(NODES, nil, name, function(old)
      local list = controller.taints(old, now)
      if value.equal(list, value.get(old, "spec", "taints")) then return nil end
      return value.with(old, { "spec", "taints" }, list)
    end, WHO)
    for _, pod in ipairs(pods_on(name)) do
      if controller.leave_in(pod, rec.obj, m.now()) then evictions:add(key_of(pod)) end
    end
  end

  local function sync_eviction(key)
    local pod = store:object(PODS, common.split(key))
    if not pod or not pod.spec.nodeName or pod.metadata.deletionTimestamp then return end
    local node = store:object(NODES, nil, pod.spec.nodeName)
    local left = node and controller.leave_in(pod, node, m.now())
    if not left then return end
    if left > 0 then return left end
    evictor:event(PODS, pod, "Normal", "TaintManagerEviction", ("Marking for deletion Pod %s"):format(key))
    reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
      return value.with(old, { "status", "conditions" }, common.with_condition(old.status.conditions, { type = "DisruptionTarget",
        status = "True", reason = "DeletionByTaintManager", message = "Taint manager: deleting due to NoExecute taint" }, reg:time()))
    end, { manager = "kube-controller-manager", subresource = "status" })
    deletion.delete(reg, PODS, pod.metadata.namespace, pod.metadata.name, { preconditions = { uid = pod.metadata.uid } })
  end

  -- Pods whose node is no longer there.
  local function sync_orphans(name)
    if store:get(NODES, nil, name) then return end
    for _, pod in ipairs(pods_on(name)) do
      if not common.pod_finished(pod) then
        reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
          local s = value.shallow(old.status)
          s.phase = "Failed"
          s.conditions = common.with_condition(s.conditions, { type = "DisruptionTarget", status = "True", reason = "DeletionByPodGC",
            message = "PodGC: node no longer exists" }, reg:time())
          return value.with(old, { "status" }, s)
        end, { manager = "kube-controller-manager", subresource = "status" })
      end
      deletion.delete(reg, PODS, pod.metadata.namespace, pod.metadata.name, { grace = 0 })
    end
  end

  local nodes = m:queue("node", 0, sync_node)
  evictions = m:queue("taint-eviction", 0, sync_eviction)
  local orphans = m:queue("pod-garbage", 0, sync_orphans)
  monitor = m:queue("node-monitor", 0, watch_silence)

  local function on_node(event)
    local name = event.new.name
    if event.type == "DELETED" then
      seen[name] = nil
      recorder:event(NODES, event.new.obj, "Normal", "RemovingNode", ("Node %s event: Removing Node %s from Controller"):format(name, name))
      if by_node[name] then orphans:add_after(name, quarantine) end
      return
    end
    if event.type == "ADDED" then
      recorder:event(NODES, event.new.obj, "Normal", "RegisteredNode",
        ("Node %s event: Registered Node %s in Controller"):format(name, name))
    end
    local old, new = event.old and common.condition(event.old.obj, "Ready"), common.condition(event.new.obj, "Ready")
    if not seen[name] or (new and (not old or old.lastHeartbeatTime ~= new.lastHeartbeatTime) and new.status ~= "Unknown") then
      heard_of(name)
    end
    if new and new.status == "False" and (not old or old.status == "True") then mark_pods_not_ready(name) end
    nodes:add(event.new.key)
  end

  local function on_pod(event)
    local pod, key = event.new.obj, event.new.key
    local name = pod.spec.nodeName
    if not name then return end
    by_node[name] = by_node[name] or {}
    by_node[name][key] = event.type ~= "DELETED" and true or nil
    if next(by_node[name]) == nil then by_node[name] = nil end
    if event.type == "DELETED" then return end
    local node = store:object(NODES, nil, name)
    if not node then
      orphans:add_after(name, quarantine)
    elseif controller.leave_in(pod, node, m.now()) then
      evictions:add(key)
    end
  end

  for _, rec in ipairs(store:list(PODS)) do on_pod { type = "ADDED", new = rec } end
  for _, rec in ipairs(store:list(NODES)) do
    heard_of(rec.name)
    nodes:add(rec.key)
  end
  store:subscribe(NODES, on_node)
  store:subscribe(PODS, on_pod)
  store:subscribe(LEASES, function(event)
    if event.new.ns == LEASE_NAMESPACE and event.type ~= "DELETED" and store:get(NODES, nil, event.new.name) then
      heard_of(event.new.name)
    end
  end)
end

return controller
