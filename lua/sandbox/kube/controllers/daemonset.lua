-- SPDX-License-Identifier: Apache-2.0
-- DaemonSets: one pod on every node that can have it, bound by the scheduler through its node affinity.
local json = require "eirun.core.json"
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local sched = require "sandbox.kube.sched"
local value = require "sandbox.kube.value"

local daemonset = {}

local R, PODS, NODES = resources.daemonsets, resources.pods, resources.nodes
local WHO = { manager = "kube-controller-manager" }
local GENERATION, COUNTED = "pod-template-generation", "deprecated.daemonset.template.generation"
-- Daemons stay where others have to leave.
local TOLERATED = { { "not-ready", "NoExecute" }, { "unreachable", "NoExecute" }, { "disk-pressure", "NoSchedule" },
  { "memory-pressure", "NoSchedule" }, { "pid-pressure", "NoSchedule" }, { "unschedulable", "NoSchedule" } }

local Daemons = {}
Daemons.__index = Daemons

local function node_affinity(name)
  return { nodeAffinity = { requiredDuringSchedulingIgnoredDuringExecution = { nodeSelectorTerms = json.array { {
    matchFields = json.array { { key = "metadata.name", operator = "In", values = json.array { name } } } } } } } }
end

-- Changes of the template alone make pods old.
local function template_generation(ds) return ds.metadata.annotations[COUNTED] end

local function pod_for(ds, node)
  local pod = common.pod_from(ds.spec.template, R, ds)
  pod.metadata.labels[GENERATION] = template_generation(ds)
  pod.spec.affinity = value.copy(pod.spec.affinity) or {}
  pod.spec.affinity.nodeAffinity = node_affinity(node.metadata.name).nodeAffinity
  pod.spec.tolerations = pod.spec.tolerations or json.array {}
  for _, t in ipairs(TOLERATED) do
    table.insert(pod.spec.tolerations, { key = "node.kubernetes.io/" .. t[1], operator = "Exists", effect = t[2] })
  end
  return pod
end

-- The node that a pod of ours is meant for.
local function node_of(pod)
  if pod.spec.nodeName then return pod.spec.nodeName end
  local terms = value.get(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
  return value.get(terms, 1, "matchFields", 1, "values", 1)
end

local function tolerated(pod, node)
  for _, taint in ipairs(value.get(node, "spec", "taints") or {}) do
    if taint.effect ~= "PreferNoSchedule" and not sched.tolerates(pod.spec.tolerations, taint) then return false end
  end
  return true
end

local function wanted_on(ds, node)
  local pod = pod_for(ds, node)
  pod.spec.affinity = ds.spec.template.spec.affinity
  return sched.matches_node(pod, node) and tolerated(pod, node)
end

function Daemons:pods_of(ds)
  local by_node = {}
  for _, rec in ipairs(self.m.index:owned(ds.metadata.uid, PODS)) do
    local name = node_of(rec.obj)
    if name and not rec.obj.metadata.deletionTimestamp then
      by_node[name] = by_node[name] or {}
      table.insert(by_node[name], rec.obj)
    end
  end
  return by_node
end

function Daemons:delete(ds, pod)
  deletion.delete(self.reg, PODS, pod.metadata.namespace, pod.metadata.name, {})
  self.recorder:event(R, ds, "Normal", "SuccessfulDelete", "Deleted pod: " .. pod.metadata.name)
end

function Daemons:place(ds, node, pods)
  local wanted = wanted_on(ds, node)
  for i, pod in ipairs(pods) do
    if not wanted or i > 1 or common.pod_finished(pod) then self:delete(ds, pod) end
  end
  if not wanted or pods[1] then return end
  local rec = common.make_pod(self, R, ds, pod_for(ds, node), WHO, "Error creating: ")
  self.recorder:event(R, ds, "Normal", "SuccessfulCreate", "Created pod: " .. rec.name)
end

local function current(ds, pod)
  return (pod.metadata.labels or {})[GENERATION] == template_generation(ds)
end

-- Replaces old pods, as many at once as may be missing.
function Daemons:roll(ds, by_node)
  if ds.spec.updateStrategy.type ~= "RollingUpdate" then return end
  local room = ds.spec.updateStrategy.rollingUpdate.maxUnavailable
  room = type(room) == "number" and room or 1
  local old = {}
  for _, pods in value.sorted(by_node) do
    local pod = pods[1]
    if not current(ds, pod) then
      if common.pod_ready(pod) then old[#old + 1] = pod else self:delete(ds, pod) end
    elseif not common.pod_ready(pod) then
      room = room - 1
    end
  end
  for i = 1, math.min(room, #old) do self:delete(ds, old[i]) end
end

function Daemons:write_status(ds)
  local s = { observedGeneration = ds.metadata.generation, desiredNumberScheduled = 0, currentNumberScheduled = 0, numberMisscheduled = 0,
    numberReady = 0, updatedNumberScheduled = 0, numberAvailable = 0, numberUnavailable = 0 }
  local by_node = self:pods_of(ds)
  for _, rec in ipairs(self.store:list(NODES)) do
    local pod, wanted = (by_node[rec.name] or {})[1], wanted_on(ds, rec.obj)
    if wanted then s.desiredNumberScheduled = s.desiredNumberScheduled + 1 end
    if wanted and pod then
      s.currentNumberScheduled = s.currentNumberScheduled + 1
      if current(ds, pod) then s.updatedNumberScheduled = s.updatedNumberScheduled + 1 end
      if common.pod_ready(pod) then s.numberReady, s.numberAvailable = s.numberReady + 1, s.numberAvailable + 1 end
    elseif pod then
      s.numberMisscheduled = s.numberMisscheduled + 1
    end
  end
  s.numberUnavailable = s.desiredNumberScheduled - s.numberAvailable
  if s.numberUnavailable == 0 then s.numberUnavailable = nil end
  self.reg:set_status(R, ds, s)
end

function Daemons:sync(key)
  local ds = self.store:object(R, common.split(key))
  if not ds or ds.metadata.deletionTimestamp then return end
  local by_node = self:pods_of(ds)
  for _, rec in ipairs(self.store:list(NODES)) do self:place(ds, rec.obj, by_node[rec.name] or {}) end
  self:roll(ds, by_node)
  self:write_status(ds)
end

local function matters(event)
  local old, new = event.old and event.old.obj, event.new.obj
  return not old or event.type == "DELETED" or not value.equal(old.spec, new.spec)
    or not value.equal(old.metadata.labels, new.metadata.labels)
end

function daemonset.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, "daemonset-controller") },
    Daemons)
  local q = m:queue("daemonset", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  m.store:subscribe(PODS, function(event)
    local ref = common.controller_of(event.new.obj)
    if ref and ref.kind == "DaemonSet" then q:add(event.new.ns .. "/" .. ref.name) end
  end)
  m.store:subscribe(NODES, function(event)
    if not matters(event) then return end
    for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

return daemonset
