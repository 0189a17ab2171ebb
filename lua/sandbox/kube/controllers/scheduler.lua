-- SPDX-License-Identifier: Apache-2.0
-- The scheduler: keeps what every node carries, and gives pods without a node one, or says why not.
local common = require "sandbox.kube.controllers.common"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local sched = require "sandbox.kube.sched"
local status = require "sandbox.kube.status"
local subresources = require "sandbox.kube.subresources"
local value = require "sandbox.kube.value"

local scheduler = {}

local PODS, NODES, PVS, PVCS = resources.pods, resources.nodes, resources.persistentvolumes, resources.persistentvolumeclaims
local NAME = "default-scheduler"
-- Pods that found no node are tried again after this even when nothing seems to have changed.
local FLUSH = 300

local function waiting(pod)
  return not pod.spec.nodeName and pod.spec.schedulerName == NAME and not pod.metadata.deletionTimestamp
    and not common.pod_finished(pod) and #(pod.spec.schedulingGates or {}) == 0
end

-- The pods on every node and what they take.
local Cache = {}
Cache.__index = Cache

local function new_cache()
  return setmetatable({ nodes = {}, where = {} }, Cache)
end

function Cache:node(name)
  local node = self.nodes[name]
  if not node then
    node = { name = name, allocatable = {}, requested = {}, count = 0, ports = {}, pods = {}, anti = {}, owners = {} }
    self.nodes[name], self.sorted = node, nil
  end
  return node
end

local function account(node, pod, sign)
  for name, milli in pairs(sched.requests_of(pod)) do node.requested[name] = (node.requested[name] or 0) + sign * milli end
  for port in pairs(sched.host_ports(pod)) do node.ports[port] = sign > 0 or nil end
  node.count = node.count + sign
  local owner = common.controller_of(pod)
  -- A pod that is on its way out no longer counts as a replica here.
  if owner and not pod.metadata.deletionTimestamp then
    local n = (node.owners[owner.uid] or 0) + sign
    node.owners[owner.uid] = n ~= 0 and n or nil
  end
end

function Cache:remove(key)
  local name = self.where[key]
  if not name then return end
  local node = self.nodes[name]
  account(node, node.pods[key], -1)
  node.pods[key], node.anti[key], self.where[key] = nil, nil, nil
end

function Cache:set(key, pod)
  self:remove(key)
  if not pod or not pod.spec.nodeName or common.pod_finished(pod) then return end
  local node = self:node(pod.spec.nodeName)
  node.pods[key], self.where[key] = pod, pod.spec.nodeName
  if value.get(pod, "spec", "affinity", "podAntiAffinity") then node.anti[key] = pod end
  account(node, pod, 1)
end

function Cache:set_node(name, obj)
  local node = self:node(name)
  if (node.obj == nil) ~= (obj == nil) then self.sorted = nil end
  node.obj, node.allocatable = obj, sched.allocatable_of(obj)
  if not obj and next(node.pods) == nil then self.nodes[name] = nil end
end

-- Nodes that exist, by name.
function Cache:list()
  if self.sorted then return self.sorted end
  local list = {}
  for _, node in value.sorted(self.nodes) do
    if node.obj then list[#list + 1] = node end
  end
  self.sorted = list
  return list
end

-- Higher priority first, then who came first.
local function in_turn(a, b)
  local x, y = a.spec.priority or 0, b.spec.priority or 0
  if x ~= y then return x > y end
  if a.metadata.name == b.metadata.name then return a.metadata.namespace < b.metadata.namespace end
  return common.oldest_first(a, b)
end

local Scheduler = {}
Scheduler.__index = Scheduler

function Scheduler:volumes_of(pod)
  local list = {}
  for _, v in ipairs(pod.spec.volumes or {}) do
    local name = value.get(v, "persistentVolumeClaim", "claimName")
    if name then
      local claim = self.store:object(PVCS, pod.metadata.namespace, name)
      if not claim then return nil, ('persistentvolumeclaim "%s" not found'):format(name) end
      if claim.metadata.deletionTimestamp then return nil, ('persistentvolumeclaim "%s" is being deleted'):format(name) end
      if value.get(claim, "status", "phase") == "Lost" then
        return nil, ('persistentvolumeclaim "%s" bound to non-existent persistentvolume "%s"'):format(name, claim.spec.volumeName or "")
      end
      if value.get(claim, "status", "phase") ~= "Bound" then return nil, "pod has unbound immediate PersistentVolumeClaims" end
      list[#list + 1] = self.store:object(PVS, nil, claim.spec.volumeName)
    end
  end
  return list
end

function Scheduler:facts_of(pod)
  local facts = sched.facts_of(pod)
  facts.volumes, facts.blocked = self:volumes_of(pod)
  return facts
end

function Scheduler:refuse(pod, message)
  self.recorder:event(PODS, pod, "Warning", "FailedScheduling", message)
  local c = { type = "PodScheduled", status = "False", reason = "Unschedulable", message = message }
  local was = common.condition(pod, "PodScheduled")
  if was and was.status == c.status and was.message == message then return end
  self.reg:modify(PODS, pod.metadata.namespace, pod.metadata.name, function(old)
    return value.with(old, { "status", "conditions" }, common.with_condition(value.get(old, "status", "conditions"), c, self.reg:time()))
  end, { manager = "kube-scheduler", subresource = "status" })
end

function Scheduler:place(pod)
  local node, message, next_start = sched.choose(pod, self.cache:list(), self:facts_of(pod), self.start)
  if not node then return self:refuse(pod, message) end
  self.start = next_start
  local ok, err = pcall(subresources.bind, self.reg, pod.metadata.namespace, pod.metadata.name, node.name)
  if not ok and not status.is(err) then error(err, 0) end
  if not ok then return end
  self.recorder:event(PODS, pod, "Normal", "Scheduled", ("Successfully assigned %s/%s to %s"):format(pod.metadata.namespace,
    pod.metadata.name, node.name))
end

-- One turn: everything that waits, in order.
function Scheduler:turn()
  local list = {}
  for key in pairs(self.pending) do
    local pod = self.store:object(PODS, common.split(key))
    if pod and waiting(pod) then list[#list + 1] = pod else self.pending[key] = nil end
  end
  table.sort(list, in_turn)
  for _, pod in ipairs(list) do self:place(pod) end
  return next(self.pending) and FLUSH or nil
end

function Scheduler:on_pod(event)
  local pod, key = event.new.obj, event.new.key
  local gone = event.type == "DELETED"
  local freed = self.cache.where[key] and (gone or common.pod_finished(pod))
  self.cache:set(key, not gone and pod or nil)
  local was = self.pending[key]
  self.pending[key] = not gone and waiting(pod) or nil
  local spec_moved = event.old and not value.equal(event.old.obj.spec, pod.spec)
  if self.pending[key] and (not was or spec_moved) or freed and next(self.pending) then self.q:add "turn" end
end

function Scheduler:on_node(event)
  local old = event.old and event.old.obj
  local now = event.type ~= "DELETED" and event.new.obj or nil
  local changed = not old or not now or not value.equal(old.spec, now.spec)
    or not value.equal(value.get(old, "status", "allocatable"), value.get(now, "status", "allocatable"))
    or not value.equal(old.metadata.labels, now.metadata.labels)
  if changed then self.cache:set_node(event.new.name, now) end
  if changed and next(self.pending) then self.q:add "turn" end
end

function Scheduler:on_volume()
  if next(self.pending) then self.q:add "turn" end
end

function scheduler.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, NAME),
    cache = new_cache(), pending = {} }, Scheduler)
  self.q = m:queue("scheduler", m.lag.scheduler, function() return self:turn() end)
  for _, rec in ipairs(m.store:list(NODES)) do self:on_node { type = "ADDED", new = rec } end
  for _, rec in ipairs(m.store:list(PODS)) do self:on_pod { type = "ADDED", new = rec } end
  m.store:subscribe(NODES, function(event) self:on_node(event) end)
  m.store:subscribe(PODS, function(event) self:on_pod(event) end)
  m.store:subscribe(PVCS, function() self:on_volume() end)
  m.store:subscribe(PVS, function() self:on_volume() end)
end

return scheduler
