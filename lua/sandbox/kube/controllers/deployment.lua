-- SPDX-License-Identifier: Apache-2.0
-- Deployments: a ReplicaSet per template, rolled over as the strategy says, with progress told in conditions.
local json = require "eirun.core.json"
local claims = require "sandbox.kube.controllers.claims"
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local rollout = require "sandbox.kube.rollout"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local deployment = {}

local R, RS, PODS = resources.deployments, resources.replicasets, resources.pods
local WHO = { manager = "kube-controller-manager" }
local HASH = "pod-template-hash"
local REVISION = "deployment.kubernetes.io/revision"
local DESIRED, MAX = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"

local function bare_template(template)
  return value.with(template, { "metadata", "labels", HASH }, nil)
end

local function same_template(rs, d)
  return value.equal(bare_template(rs.spec.template), bare_template(d.spec.template))
end

local function revision_of(obj)
  return math.tointeger(tonumber(value.get(obj, "metadata", "annotations", REVISION))) or 0
end

local function number(rs, key)
  return rs and rs.status and rs.status[key] or 0
end

local SKIPPED = { ["kubectl.kubernetes.io/last-applied-configuration"] = true, [REVISION] = true, [DESIRED] = true, [MAX] = true,
  ["deprecated.deployment.rollback.to"] = true }

local function annotations_for(d, rs, revision)
  local notes = value.shallow(rs and rs.metadata.annotations or {})
  for key, v in pairs(d.metadata.annotations or {}) do
    if not SKIPPED[key] then notes[key] = v end
  end
  notes[REVISION] = tostring(revision)
  notes[DESIRED], notes[MAX] = tostring(d.spec.replicas), tostring(d.spec.replicas + rollout.limits(d.spec))
  return notes
end

local function replica_set(d, replicas, revision)
  local hash = common.hash(json.encode(d.spec.template))
  local template = value.copy(d.spec.template)
  template.metadata.labels = template.metadata.labels or {}
  template.metadata.labels[HASH] = hash
  local selector = value.copy(d.spec.selector)
  selector.matchLabels = selector.matchLabels or {}
  selector.matchLabels[HASH] = hash
  return {
    metadata = { name = d.metadata.name .. "-" .. hash, namespace = d.metadata.namespace, labels = template.metadata.labels,
      annotations = annotations_for(d, nil, revision), ownerReferences = json.array { common.owner_reference(R, d) } },
    spec = { replicas = replicas, minReadySeconds = d.spec.minReadySeconds, selector = selector, template = template },
  }
end

-- Owned ReplicaSets, oldest first: the one of the current template (or nil) and the others.
local function sets_of(m, d)
  local new, old, all = nil, {}, {}
  for _, rec in ipairs(m.index:owned(d.metadata.uid, RS)) do all[#all + 1] = rec.obj end
  table.sort(all, common.oldest_first)
  for _, rs in ipairs(all) do
    if not new and same_template(rs, d) then new = rs else old[#old + 1] = rs end
  end
  return new, old, all
end

local function sum(sets, fn)
  local n = 0
  for _, rs in ipairs(sets) do n = n + fn(rs) end
  return n
end

local function spec_replicas(rs)
  return rs.spec.replicas
end

local function with_progress(conditions, reason, message, ok, now)
  local c = { type = "Progressing", status = ok and "True" or "False", reason = reason, message = message, lastUpdateTime = now }
  return common.with_condition(conditions, c, now)
end

local function complete(d, s)
  return (s.updatedReplicas or 0) == d.spec.replicas and (s.replicas or 0) == d.spec.replicas
    and (s.availableReplicas or 0) == d.spec.replicas
end

local function progressed(old, s)
  local function n(t, key) return t and t[key] or 0 end
  return n(s, "updatedReplicas") > n(old, "updatedReplicas")
    or n(s, "replicas") - n(s, "updatedReplicas") < n(old, "replicas") - n(old, "updatedReplicas")
    or n(s, "readyReplicas") > n(old, "readyReplicas") or n(s, "availableReplicas") > n(old, "availableReplicas")
end

-- Seconds until the rollout counts as stuck; nil when it cannot be.
local function time_left(d, conditions, now)
  local c = value.find(conditions, "type", "Progressing")
  if not c or c.reason == "NewReplicaSetAvailable" or d.spec.paused then return nil end
  return (tables.seconds_of(c.lastUpdateTime) or now) + d.spec.progressDeadlineSeconds - now
end

local function available_condition(d, s, conditions, now)
  local _, missing = rollout.limits(d.spec)
  local ok = (s.availableReplicas or 0) >= d.spec.replicas - missing
  local c = { type = "Available", status = ok and "True" or "False", reason = ok and "MinimumReplicasAvailable"
    or "MinimumReplicasUnavailable", lastUpdateTime = now,
    message = ok and "Deployment has minimum availability." or "Deployment does not have minimum availability." }
  local was = value.find(conditions, "type", "Available")
  if was and was.status == c.status and was.reason == c.reason then return conditions end
  return common.with_condition(conditions, c, now)
end

local function progress_condition(d, new, s, conditions, now_text, now)
  local was = value.find(conditions, "type", "Progressing")
  if was and was.reason == "NewReplicaSetAvailable" and (s.replicas or 0) == (s.updatedReplicas or 0) then return conditions end
  local name = new and new.metadata.name or d.metadata.name
  if complete(d, s) then
    return with_progress(conditions, "NewReplicaSetAvailable", ('ReplicaSet "%s" has successfully progressed.'):format(name), true,
      now_text)
  elseif progressed(d.status, s) then
    return with_progress(conditions, "ReplicaSetUpdated", ('ReplicaSet "%s" is progressing.'):format(name), true, now_text)
  end
  local left = time_left(d, conditions, now)
  if left and left <= 0 and was.reason ~= "ProgressDeadlineExceeded" then
    return with_progress(conditions, "ProgressDeadlineExceeded", ('ReplicaSet "%s" has timed out progressing.'):format(name), false,
      now_text)
  end
  return conditions
end

local function failure_condition(sets, conditions)
  local list = value.filter(conditions, function(c) return c.type ~= "ReplicaFailure" end)
  for _, rs in ipairs(sets) do
    local c = common.condition(rs, "ReplicaFailure")
    if c then list[#list + 1] = { type = c.type, status = c.status, reason = c.reason, message = c.message,
      lastTransitionTime = c.lastTransitionTime, lastUpdateTime = c.lastTransitionTime } end
  end
  return list
end

local function positive(n)
  return n > 0 and n or nil
end

local function counts_of(d, new, all)
  local available = sum(all, function(rs) return number(rs, "availableReplicas") end)
  return { observedGeneration = d.metadata.generation, replicas = positive(sum(all, function(rs) return number(rs, "replicas") end)),
    updatedReplicas = positive(number(new, "replicas")), availableReplicas = positive(available),
    readyReplicas = positive(sum(all, function(rs) return number(rs, "readyReplicas") end)),
    unavailableReplicas = positive(sum(all, spec_replicas) - available),
    terminatingReplicas = sum(all, function(rs) return number(rs, "terminatingReplicas") end) }
end

local function shape_of(rs)
  return { replicas = rs.spec.replicas, available = number(rs, "availableReplicas") }
end

local Deployments = {}
Deployments.__index = Deployments

function Deployments:resize(d, rs, size)
  if rs.spec.replicas == size then return rs end
  local notes = annotations_for(d, rs, revision_of(rs))
  local rec = self.reg:modify(RS, rs.metadata.namespace, rs.metadata.name, function(old)
    return value.with(value.with(old, { "spec", "replicas" }, size), { "metadata", "annotations" }, notes)
  end, WHO)
  self.recorder:event(R, d, "Normal", "ScalingReplicaSet", ("Scaled %s replica set %s from %d to %d"):format(
    size > rs.spec.replicas and "up" or "down", rs.metadata.name, rs.spec.replicas, size))
  return rec and rec.obj or rs
end

function Deployments:note_revision(d, revision)
  if revision_of(d) == revision then return end
  self.reg:modify(R, d.metadata.namespace, d.metadata.name, function(old)
    return value.with(old, { "metadata", "annotations", REVISION }, tostring(revision))
  end, { manager = WHO.manager, subresource = "status" })
end

function Deployments:set_conditions(d, conditions)
  self.reg:set_status(R, d, value.with(d.status, { "conditions" }, conditions))
  return self.store:object(R, d.metadata.namespace, d.metadata.name)
end

function Deployments:create_set(d, old, all)
  local revision = 1
  for _, rs in ipairs(all) do revision = math.max(revision, revision_of(rs) + 1) end
  local size = rollout.new_size(d.spec, sum(old, spec_replicas), 0)
  local rec = self.reg:create(RS, d.metadata.namespace, replica_set(d, size, revision), WHO)
  if size > 0 then
    self.recorder:event(R, d, "Normal", "ScalingReplicaSet", ("Scaled up replica set %s from 0 to %d"):format(rec.name, size))
  end
  self:note_revision(d, revision)
  d = self:set_conditions(d, with_progress(value.get(d, "status", "conditions"), "NewReplicaSetCreated",
    ('Created new replica set "%s"'):format(rec.name), true, self.reg:time()))
  return rec.obj, d
end

-- An old template that is wanted again gets the next revision.
function Deployments:renew(d, new, old)
  local top = 0
  for _, rs in ipairs(old) do top = math.max(top, revision_of(rs)) end
  local revision = revision_of(new) > top and revision_of(new) or top + 1
  local notes = annotations_for(d, new, revision)
  if not value.equal(notes, new.metadata.annotations) or new.spec.minReadySeconds ~= d.spec.minReadySeconds then
    local rec = self.reg:modify(RS, new.metadata.namespace, new.metadata.name, function(was)
      local changed = value.with(was, { "metadata", "annotations" }, notes)
      return value.with(changed, { "spec", "minReadySeconds" }, d.spec.minReadySeconds)
    end, WHO)
    new = rec and rec.obj or new
  end
  self:note_revision(d, revision)
  if not value.find(value.get(d, "status", "conditions"), "type", "Progressing") then
    d = self:set_conditions(d, with_progress(value.get(d, "status", "conditions"), "FoundNewReplicaSet",
      ('Found new replica set "%s"'):format(new.metadata.name), true, self.reg:time()))
  end
  return new, d
end

function Deployments:write_status(d, new, all)
  local s = counts_of(d, new, all)
  local conditions = available_condition(d, s, value.get(d, "status", "conditions"), self.reg:time())
  if not d.spec.paused then conditions = progress_condition(d, new, s, conditions, self.reg:time(), self.m.now()) end
  s.conditions = failure_condition(all, conditions)
  self.reg:set_status(R, d, s)
  local left = time_left(d, s.conditions, self.m.now())
  return left and left > 0 and left + 1 or nil
end

function Deployments:roll(d, new, old)
  local size = rollout.new_size(d.spec, sum(old, spec_replicas) + new.spec.replicas, new.spec.replicas)
  if new.spec.replicas > d.spec.replicas then size = d.spec.replicas end
  if size ~= new.spec.replicas then return self:resize(d, new, size) end
  local sizes = rollout.old_sizes(d.spec, value.map(old, shape_of), shape_of(new))
  for i, rs in ipairs(old) do self:resize(d, rs, sizes[i]) end
  return new
end

function Deployments:pods_left(old)
  for _, rs in ipairs(old) do
    for _, rec in ipairs(self.m.index:owned(rs.metadata.uid, PODS)) do
      if not common.pod_finished(rec.obj) then return true end
    end
  end
end

function Deployments:clean_up(d, new, old)
  local keep = d.spec.revisionHistoryLimit or 10
  local idle = value.filter(old, function(rs)
    return rs.spec.replicas == 0 and number(rs, "replicas") == 0 and not rs.metadata.deletionTimestamp
  end)
  table.sort(idle, function(a, b) return revision_of(a) < revision_of(b) end)
  for i = 1, #idle - keep do
    if idle[i] ~= new then deletion.delete(self.reg, RS, idle[i].metadata.namespace, idle[i].metadata.name, {}) end
  end
end

-- Only the size changed: the one ReplicaSet that has pods follows at once.
function Deployments:only_scaled(d, old, new)
  local active = value.filter(old, function(rs) return rs.spec.replicas > 0 end)
  if new and new.spec.replicas > 0 then active[#active + 1] = new end
  if #active ~= 1 then return nil end
  local wanted = value.get(active[1], "metadata", "annotations", DESIRED)
  return wanted ~= tostring(d.spec.replicas) and active[1] or nil
end

function Deployments:sync_paused(d, new, old, all)
  local one = self:only_scaled(d, old, new)
  if one then self:resize(d, one, d.spec.replicas) end
  if not value.find(value.get(d, "status", "conditions"), "reason", "DeploymentPaused") then
    d = self:set_conditions(d, with_progress(value.get(d, "status", "conditions"), "DeploymentPaused", "Deployment is paused", true,
      self.reg:time()))
  end
  return self:write_status(d, new, all)
end

function Deployments:sync(key)
  local ns, name = common.split(key)
  local d = self.store:object(R, ns, name)
  if not d then return end
  claims.settle(self.m, R, d, RS, function(rs) return not rs.metadata.deletionTimestamp end)
  local new, old, all = sets_of(self.m, d)
  if d.metadata.deletionTimestamp then return self:write_status(d, new, all) end
  if d.spec.paused then return self:sync_paused(d, new, old, all) end
  local one = self:only_scaled(d, old, new)
  if one then self:resize(d, one, d.spec.replicas) end
  if d.spec.strategy.type == "Recreate" and not new then
    for _, rs in ipairs(old) do self:resize(d, rs, 0) end
    if self:pods_left(old) then return self:write_status(d, nil, all) end
  end
  if not new then new, d = self:create_set(d, old, all) else new, d = self:renew(d, new, old) end
  if not one or one == new then self:roll(d, self.store:object(RS, ns, new.metadata.name) or new, old) end
  new, old, all = sets_of(self.m, d)
  local again = self:write_status(d, new, all)
  if new and complete(d, counts_of(d, new, all)) then self:clean_up(d, new, old) end
  return again
end

function deployment.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, "deployment-controller") },
    Deployments)
  local q = m:queue("deployment", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  m.store:subscribe(RS, function(event)
    local ref = common.controller_of(event.new.obj)
    if ref and ref.kind == "Deployment" then q:add(event.new.ns .. "/" .. ref.name) end
    for _, key in ipairs(claims.candidates(m, R, event.new)) do q:add(key) end
  end)
  m.store:subscribe(PODS, function(event)
    if event.type ~= "DELETED" then return end
    local owner = common.controller_of(event.new.obj)
    local rec = owner and m.index:find(owner.uid)
    local ref = rec and common.controller_of(rec.obj)
    if ref and ref.kind == "Deployment" then q:add(rec.ns .. "/" .. ref.name) end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

return deployment
