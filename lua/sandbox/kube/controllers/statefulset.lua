-- SPDX-License-Identifier: Apache-2.0
-- StatefulSets: numbered pods with their own claims, started and replaced in order.
local json = require "eirun.core.json"
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local statefulset = {}

local R, PODS, CLAIMS = resources.statefulsets, resources.pods, resources.persistentvolumeclaims
local WHO = { manager = "kube-controller-manager" }
local POD_NAME, REVISION, ORDINAL = "statefulset.kubernetes.io/pod-name", "controller-revision-hash", "apps.kubernetes.io/pod-index"

local Stateful = {}
Stateful.__index = Stateful

local function revision_of(set)
  return ("%s-%s"):format(set.metadata.name, common.hash(json.encode(set.spec.template)))
end

local function claim_name(template, set, ordinal)
  return ("%s-%s-%d"):format(template.metadata.name, set.metadata.name, ordinal)
end

local function pod_for(set, ordinal)
  local pod, name = common.pod_from(set.spec.template, R, set), ("%s-%d"):format(set.metadata.name, ordinal)
  pod.metadata.generateName, pod.metadata.name = nil, name
  local labels = pod.metadata.labels
  labels[POD_NAME], labels[REVISION], labels[ORDINAL] = name, revision_of(set), tostring(ordinal)
  pod.spec.hostname, pod.spec.subdomain = name, set.spec.serviceName
  pod.spec.volumes = pod.spec.volumes or json.array {}
  for _, template in ipairs(set.spec.volumeClaimTemplates or {}) do
    table.insert(pod.spec.volumes, { name = template.metadata.name,
      persistentVolumeClaim = { claimName = claim_name(template, set, ordinal) } })
  end
  return pod
end

function Stateful:ensure_claims(set, ordinal)
  for _, template in ipairs(set.spec.volumeClaimTemplates or {}) do
    local name = claim_name(template, set, ordinal)
    if not self.store:get(CLAIMS, set.metadata.namespace, name) then
      self.reg:create(CLAIMS, set.metadata.namespace, { metadata = { name = name, labels = value.copy(set.spec.selector.matchLabels) },
        spec = value.copy(template.spec) }, WHO)
    end
  end
end

function Stateful:create(set, ordinal)
  self:ensure_claims(set, ordinal)
  local pod = pod_for(set, ordinal)
  local rec = common.make_pod(self, R, set, pod, WHO,
    ("Create Pod %s in StatefulSet %s failed error: "):format(pod.metadata.name, set.metadata.name))
  self.recorder:event(R, set, "Normal", "SuccessfulCreate",
    ("create Pod %s in StatefulSet %s successful"):format(rec.name, set.metadata.name))
end

function Stateful:delete(set, pod)
  deletion.delete(self.reg, PODS, pod.metadata.namespace, pod.metadata.name, {})
  self.recorder:event(R, set, "Normal", "SuccessfulDelete",
    ("delete Pod %s in StatefulSet %s successful"):format(pod.metadata.name, set.metadata.name))
end

-- Pods by ordinal.
function Stateful:pods_of(set)
  local list = {}
  for _, rec in ipairs(self.m.index:owned(set.metadata.uid, PODS)) do
    local ordinal = math.tointeger(tonumber(rec.name:match("%-(%d+)$")))
    if ordinal then list[ordinal] = rec.obj end
  end
  return list
end

local function settled(pod)
  return pod and common.pod_ready(pod) and not pod.metadata.deletionTimestamp
end

-- One step towards the wanted pods; true when there was something to wait for.
function Stateful:grow(set, pods)
  local ordered = set.spec.podManagementPolicy ~= "Parallel"
  for ordinal = 0, set.spec.replicas - 1 do
    local pod = pods[ordinal]
    if pod and common.pod_finished(pod) and not pod.metadata.deletionTimestamp then
      self:delete(set, pod)
    elseif not pod then
      self:create(set, ordinal)
    end
    if ordered and not settled(pod) then return true end
  end
end

function Stateful:shrink(set, pods)
  local ordered, top = set.spec.podManagementPolicy ~= "Parallel", -1
  for ordinal in pairs(pods) do top = math.max(top, ordinal) end
  for ordinal = top, set.spec.replicas, -1 do
    local pod = pods[ordinal]
    if pod and not pod.metadata.deletionTimestamp then self:delete(set, pod) end
    if pod and ordered then return true end
  end
end

-- Replaces pods of an old revision from the highest number down, one at a time.
function Stateful:roll(set, pods)
  if set.spec.updateStrategy.type ~= "RollingUpdate" then return end
  local revision = revision_of(set)
  for ordinal = set.spec.replicas - 1, set.spec.updateStrategy.rollingUpdate.partition or 0, -1 do
    local pod = pods[ordinal]
    if pod and (pod.metadata.labels or {})[REVISION] ~= revision and not pod.metadata.deletionTimestamp then
      return self:delete(set, pod)
    end
    if not settled(pod) then return end
  end
end

function Stateful:write_status(set)
  local revision = revision_of(set)
  local s = { observedGeneration = set.metadata.generation, replicas = 0, readyReplicas = 0, availableReplicas = 0, currentReplicas = 0,
    updatedReplicas = 0, updateRevision = revision, currentRevision = value.get(set, "status", "currentRevision") or revision,
    collisionCount = 0 }
  for _, pod in pairs(self:pods_of(set)) do
    local new = (pod.metadata.labels or {})[REVISION] == revision
    s.replicas = s.replicas + 1
    s[new and "updatedReplicas" or "currentReplicas"] = s[new and "updatedReplicas" or "currentReplicas"] + 1
    if settled(pod) then s.readyReplicas, s.availableReplicas = s.readyReplicas + 1, s.availableReplicas + 1 end
  end
  if s.updatedReplicas == s.replicas and s.readyReplicas == set.spec.replicas then
    s.currentRevision, s.currentReplicas = revision, s.replicas
  elseif s.currentRevision == revision then
    s.currentReplicas = s.updatedReplicas
  end
  self.reg:set_status(R, set, s)
end

function Stateful:sync(key)
  local set = self.store:object(R, common.split(key))
  if not set or set.metadata.deletionTimestamp then return end
  local pods = self:pods_of(set)
  if not self:grow(set, pods) and not self:shrink(set, pods) then self:roll(set, pods) end
  self:write_status(set)
end

function statefulset.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, "statefulset-controller") },
    Stateful)
  local q = m:queue("statefulset", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  m.store:subscribe(PODS, function(event)
    local ref = common.controller_of(event.new.obj)
    if ref and ref.kind == "StatefulSet" then q:add(event.new.ns .. "/" .. ref.name) end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

return statefulset
