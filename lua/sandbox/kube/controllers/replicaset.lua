-- SPDX-License-Identifier: Apache-2.0
-- As many pods as a ReplicaSet asks for.
local deletion = require "sandbox.kube.deletion"
local claims = require "sandbox.kube.controllers.claims"
local common = require "sandbox.kube.controllers.common"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local replicaset = {}

local R, PODS = resources.replicasets, resources.pods
local WHO = "kube-controller-manager"
-- As many at once as the real controller dares in one turn.
local BURST = 500

-- Which of two pods goes first when there are too many: lower ranks first, field by field.
local function rank(pod, on_node)
  local ready = common.condition(pod, "Ready")
  local restarts = 0
  for _, s in ipairs(value.get(pod, "status", "containerStatuses") or {}) do restarts = math.max(restarts, s.restartCount or 0) end
  local phase = { Pending = 0, Unknown = 1, Running = 2 }
  local cost = tonumber(value.get(pod, "metadata", "annotations", "controller.kubernetes.io/pod-deletion-cost")) or 0
  return { pod.spec.nodeName and 1 or 0, phase[value.get(pod, "status", "phase")] or 0, common.pod_ready(pod) and 1 or 0, cost,
    -(on_node[pod.spec.nodeName or ""] or 0), ready and ready.status == "True" and ready.lastTransitionTime or "", -restarts,
    pod.metadata.creationTimestamp }
end

-- Younger readiness and younger pods go first: those two fields count backwards.
local BACKWARDS = { [6] = true, [8] = true }

local function before(a, b)
  for i = 1, 8 do
    local x, y = a.rank[i], b.rank[i]
    if x ~= y then
      if BACKWARDS[i] then return x > y end
      return x < y
    end
  end
  return a.pod.metadata.name < b.pod.metadata.name
end

local function victims(pods, count)
  local on_node, ranked = {}, {}
  for _, pod in ipairs(pods) do
    local node = pod.spec.nodeName or ""
    on_node[node] = (on_node[node] or 0) + 1
  end
  for i, pod in ipairs(pods) do ranked[i] = { pod = pod, rank = rank(pod, on_node) } end
  table.sort(ranked, before)
  local list = {}
  for i = 1, count do list[i] = ranked[i].pod end
  return list
end
replicaset.victims = victims

local ReplicaSets = {}
ReplicaSets.__index = ReplicaSets

function ReplicaSets:create(rs, count)
  for _ = 1, math.min(count, BURST) do
    local pod = common.pod_from(rs.spec.template, R, rs)
    local ok, made = pcall(self.reg.create, self.reg, PODS, rs.metadata.namespace, pod, { manager = WHO })
    if not ok then
      if not status.is(made) then error(made, 0) end
      self.recorder:event(R, rs, "Warning", "FailedCreate", "Error creating: " .. made.message)
      return made
    end
    self.recorder:event(R, rs, "Normal", "SuccessfulCreate", "Created pod: " .. made.name)
  end
end

function ReplicaSets:delete(rs, pods, count)
  for _, pod in ipairs(victims(pods, count)) do
    deletion.delete(self.reg, PODS, pod.metadata.namespace, pod.metadata.name, { preconditions = { uid = pod.metadata.uid } })
    self.recorder:event(R, rs, "Normal", "SuccessfulDelete", "Deleted pod: " .. pod.metadata.name)
  end
end

function ReplicaSets:pods_of(rs)
  local active, terminating = {}, 0
  for _, rec in ipairs(self.m.index:owned(rs.metadata.uid, PODS)) do
    if common.pod_active(rec.obj) then
      active[#active + 1] = rec.obj
    elseif rec.obj.metadata.deletionTimestamp and not common.pod_finished(rec.obj) then
      terminating = terminating + 1
    end
  end
  return active, terminating
end

function ReplicaSets:status_of(rs, failure)
  local pods, terminating = self:pods_of(rs)
  local s = { replicas = #pods, observedGeneration = rs.metadata.generation, terminatingReplicas = terminating }
  local labels, ready, available, wait = rs.spec.template.metadata.labels or {}, 0, 0, nil
  local labelled = 0
  for _, pod in ipairs(pods) do
    local full = true
    for key, v in pairs(labels) do full = full and (pod.metadata.labels or {})[key] == v end
    if full then labelled = labelled + 1 end
    if common.pod_ready(pod) then
      ready = ready + 1
      local yes, seconds = common.pod_available(pod, rs.spec.minReadySeconds, self.m.now())
      if yes then available = available + 1 end
      wait = seconds and math.min(seconds, wait or seconds) or wait
    end
  end
  s.fullyLabeledReplicas, s.readyReplicas, s.availableReplicas = labelled > 0 and labelled or nil, ready > 0 and ready or nil,
    available > 0 and available or nil
  s.conditions = value.filter(rs.status and rs.status.conditions, function(c) return c.type ~= "ReplicaFailure" end)
  if failure then
    s.conditions = common.with_condition(rs.status and rs.status.conditions, { type = "ReplicaFailure", status = "True",
      reason = "FailedCreate", message = failure.message }, self.reg:time())
  end
  if #s.conditions == 0 then s.conditions = nil end
  return s, wait
end

function ReplicaSets:sync(key)
  local ns, name = common.split(key)
  local rs = self.store:object(R, ns, name)
  if not rs then return end
  local failure
  if not rs.metadata.deletionTimestamp then
    claims.settle(self.m, R, rs, PODS, common.pod_active)
    local pods = self:pods_of(rs)
    local missing = rs.spec.replicas - #pods
    if missing > 0 then failure = self:create(rs, missing) end
    if missing < 0 then self:delete(rs, pods, -missing) end
  end
  local new, wait = self:status_of(rs, failure)
  self.reg:set_status(R, rs, new)
  if failure then return 1 end
  return wait
end

function replicaset.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, "replicaset-controller") },
    ReplicaSets)
  local q = m:queue("replicaset", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  m.store:subscribe(PODS, function(event)
    for _, rec in ipairs { event.new, event.old } do
      local ref = common.controller_of(rec.obj)
      if ref and ref.kind == "ReplicaSet" then q:add(rec.ns .. "/" .. ref.name) end
    end
    for _, key in ipairs(claims.candidates(m, R, event.new)) do q:add(key) end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

return replicaset
