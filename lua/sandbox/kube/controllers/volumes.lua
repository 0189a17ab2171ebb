-- SPDX-License-Identifier: Apache-2.0
-- Claims and volumes find each other, and neither goes while it is used.
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local quantity = require "sandbox.kube.quantity"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local value = require "sandbox.kube.value"

local volumes = {}

local PV, PVC, PODS, CLASSES = resources.persistentvolumes, resources.persistentvolumeclaims, resources.pods, resources.storageclasses
local WHO = { manager = "kube-controller-manager" }
local BIND_COMPLETED, BY_CONTROLLER = "pv.kubernetes.io/bind-completed", "pv.kubernetes.io/bound-by-controller"
local PVC_PROTECTION, PV_PROTECTION = "kubernetes.io/pvc-protection", "kubernetes.io/pv-protection"

local function class_of(obj)
  return obj.spec.storageClassName or ""
end

local function has_modes(pv, claim)
  for _, mode in ipairs(claim.spec.accessModes or {}) do
    if not value.contains(pv.spec.accessModes, mode) then return false end
  end
  return true
end

local function size_of(pv)
  return quantity.milli(value.get(pv, "spec", "capacity", "storage") or 0) or 0
end

local function wanted_size(claim)
  return quantity.milli(value.get(claim, "spec", "resources", "requests", "storage") or 0) or 0
end

-- Why the claim cannot have that volume; nil when it can.
local function mismatch(pv, claim)
  if size_of(pv) < wanted_size(claim) then return "requested PV is too small" end
  if class_of(pv) ~= class_of(claim) then return "storageClassName does not match" end
  if (pv.spec.volumeMode or "Filesystem") ~= (claim.spec.volumeMode or "Filesystem") then return "incompatible volumeMode" end
  if not has_modes(pv, claim) then return "incompatible accessMode" end
end
volumes.mismatch = mismatch

-- "free", "ours" (reserved for this claim, bound or not) or "taken".
local function claim_state(pv, claim)
  local ref = pv.spec.claimRef
  if not ref then return "free" end
  local same = ref.name == claim.metadata.name and ref.namespace == claim.metadata.namespace
  if same and ((ref.uid or "") == "" or ref.uid == claim.metadata.uid) then return "ours" end
  return "taken"
end

-- The smallest volume that fits; one that is reserved for the claim wins.
function volumes.best(list, claim)
  local terms = claim.spec.selector and selector.from_object(claim.spec.selector) or {}
  local best
  for _, pv in ipairs(list) do
    local state = claim_state(pv, claim)
    local fits = state ~= "taken" and not pv.metadata.deletionTimestamp and not mismatch(pv, claim)
      and selector.matches(terms, pv.metadata.labels)
    if fits and state == "ours" then return pv end
    local available = value.get(pv, "status", "phase") == "Available" or value.get(pv, "status", "phase") == "Pending"
    if fits and available and (not best or size_of(pv) < size_of(best)) then best = pv end
  end
  return best
end

local Volumes = {}
Volumes.__index = Volumes

function Volumes:set_phase(r, obj, phase, more)
  local new = value.shallow(obj.status or {})
  if new.phase ~= phase then new.lastPhaseTransitionTime = r == PV and self.reg:time() or nil end
  new.phase = phase
  for key, v in pairs(more or {}) do new[key] = v end
  self.reg:set_status(r, obj, new)
end

function Volumes:note(obj, key)
  return value.with(obj, { "metadata", "annotations", key }, "yes")
end

function Volumes:bind_volume(pv, claim)
  local chosen = not pv.spec.claimRef
  local ref = { apiVersion = "v1", kind = "PersistentVolumeClaim", namespace = claim.metadata.namespace, name = claim.metadata.name,
    uid = claim.metadata.uid, resourceVersion = claim.metadata.resourceVersion }
  local rec = self.reg:modify(PV, nil, pv.metadata.name, function(old)
    if old.spec.claimRef and old.spec.claimRef.uid == ref.uid then return nil end
    local new = value.with(old, { "spec", "claimRef" }, ref)
    return chosen and self:note(new, BY_CONTROLLER) or new
  end, WHO)
  self:set_phase(PV, rec.obj, "Bound")
end

function Volumes:bind_claim(claim, pv)
  local chosen = not claim.spec.volumeName
  local rec = self.reg:modify(PVC, claim.metadata.namespace, claim.metadata.name, function(old)
    local new = self:note(value.with(old, { "spec", "volumeName" }, pv.metadata.name), BIND_COMPLETED)
    return chosen and self:note(new, BY_CONTROLLER) or new
  end, WHO)
  self:set_phase(PVC, rec.obj, "Bound", { accessModes = pv.spec.accessModes, capacity = pv.spec.capacity })
end

function Volumes:bind(pv, claim)
  self:bind_volume(pv, claim)
  self:bind_claim(claim, pv)
end

-- A claim that names its volume.
function Volumes:sync_named(claim)
  local pv = self.store:object(PV, nil, claim.spec.volumeName)
  if not pv then return self:set_phase(PVC, claim, "Pending") end
  local state = claim_state(pv, claim)
  if state == "taken" then
    self.recorder:event(PVC, claim, "Warning", "FailedBinding",
      ('volume "%s" already bound to a different claim.'):format(pv.metadata.name))
    return
  end
  local why = mismatch(pv, claim)
  if why then
    self.recorder:event(PVC, claim, "Warning", "VolumeMismatch", ('Cannot bind to requested volume "%s": %s'):format(pv.metadata.name, why))
    return self:set_phase(PVC, claim, "Pending")
  end
  self:bind(pv, claim)
end

function Volumes:nothing_fits(claim)
  local class = class_of(claim)
  if class == "" then
    self.recorder:event(PVC, claim, "Normal", "FailedBinding",
      "no persistent volumes available for this claim and no storage class is set")
  else
    local sc = self.store:object(CLASSES, nil, class)
    if not sc then
      self.recorder:event(PVC, claim, "Warning", "ProvisioningFailed", ('storageclass.storage.k8s.io "%s" not found'):format(class))
    elseif sc.volumeBindingMode == "WaitForFirstConsumer" then
      self.recorder:event(PVC, claim, "Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
    elseif sc.provisioner ~= "kubernetes.io/no-provisioner" then
      self.recorder:event(PVC, claim, "Normal", "ExternalProvisioning", ("Waiting for a volume to be created either by the external "
        .. "provisioner '%s' or manually by the system administrator. If volume creation is delayed, please verify that the "
        .. "provisioner is running and correctly registered."):format(sc.provisioner))
    end
  end
  self:set_phase(PVC, claim, "Pending")
end

function Volumes:all_volumes()
  local list = {}
  for i, rec in ipairs(self.store:list(PV)) do list[i] = rec.obj end
  return list
end

function Volumes:sync_bound(claim)
  local pv = self.store:object(PV, nil, claim.spec.volumeName)
  if pv and claim_state(pv, claim) == "ours" then return self:bind(pv, claim) end
  if pv and not pv.spec.claimRef then return self:bind(pv, claim) end
  if value.get(claim, "status", "phase") == "Lost" then return end
  self.recorder:event(PVC, claim, "Warning", "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
  self:set_phase(PVC, claim, "Lost")
end

function Volumes:used_by_pod(claim)
  for _, rec in ipairs(self.store:list(PODS, claim.metadata.namespace)) do
    if not common.pod_finished(rec.obj) and rec.obj.spec.nodeName then
      for _, v in ipairs(rec.obj.spec.volumes or {}) do
        if value.get(v, "persistentVolumeClaim", "claimName") == claim.metadata.name then return true end
      end
    end
  end
end

function Volumes:sync_claim(key)
  local claim = self.store:object(PVC, common.split(key))
  if not claim then return end
  if claim.metadata.deletionTimestamp then
    if not self:used_by_pod(claim) then deletion.remove_finalizer(self.reg, PVC, claim, PVC_PROTECTION) end
    return
  end
  if value.get(claim, "metadata", "annotations", BIND_COMPLETED) then return self:sync_bound(claim) end
  if claim.spec.volumeName then return self:sync_named(claim) end
  local pv = volumes.best(self:all_volumes(), claim)
  if pv then return self:bind(pv, claim) end
  self:nothing_fits(claim)
end

function Volumes:sync_volume(key)
  local pv = self.store:object(PV, common.split(key))
  if not pv then return end
  local ref = pv.spec.claimRef
  local claim = ref and self.store:object(PVC, ref.namespace, ref.name)
  if pv.metadata.deletionTimestamp and not (claim and claim.metadata.uid == ref.uid) then
    deletion.remove_finalizer(self.reg, PV, pv, PV_PROTECTION)
    return
  end
  if not ref then
    self:set_phase(PV, pv, "Available")
  elseif not ref.uid then
    self:set_phase(PV, pv, "Available")
    if claim then self.claims:add(claim.metadata.namespace .. "/" .. claim.metadata.name) end
  elseif claim and claim.metadata.uid == ref.uid then
    self:set_phase(PV, pv, "Bound")
  else
    self:set_phase(PV, pv, "Released")
    if pv.spec.persistentVolumeReclaimPolicy == "Delete" then deletion.delete(self.reg, PV, nil, pv.metadata.name, {}) end
  end
end

function Volumes:add_unbound_claims()
  for _, rec in ipairs(self.store:list(PVC)) do
    if value.get(rec.obj, "status", "phase") ~= "Bound" then self.claims:add(rec.key) end
  end
end

function Volumes:on_volume(event)
  self.pvs:add(event.new.key)
  local now, old = event.new.obj, event.old and event.old.obj
  local ref = now.spec.claimRef
  if event.type == "DELETED" and ref then
    self.claims:add(ref.namespace .. "/" .. ref.name)
  elseif not old or not value.equal(old.spec, now.spec) or not value.equal(old.metadata.labels, now.metadata.labels) then
    self:add_unbound_claims()
  end
end

function Volumes:on_claim(event)
  self.claims:add(event.new.key)
  local name = event.new.obj.spec.volumeName
  if name then self.pvs:add("/" .. name) end
end

function Volumes:on_pod(event)
  if event.type == "ADDED" then return end
  if event.type ~= "DELETED" and not common.pod_finished(event.new.obj) then return end
  for _, v in ipairs(event.new.obj.spec.volumes or {}) do
    local name = value.get(v, "persistentVolumeClaim", "claimName")
    if name then self.claims:add(event.new.ns .. "/" .. name) end
  end
end

function volumes.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store,
    recorder = events.recorder(m.registry, "persistentvolume-controller") }, Volumes)
  self.pvs = m:queue("volume", m.lag.controller_sync, function(key) return self:sync_volume(key) end)
  self.claims = m:queue("claim", m.lag.controller_sync, function(key) return self:sync_claim(key) end)
  m.store:subscribe(PV, function(event) self:on_volume(event) end)
  m.store:subscribe(PVC, function(event) self:on_claim(event) end)
  m.store:subscribe(PODS, function(event) self:on_pod(event) end)
  for _, rec in ipairs(m.store:list(PV)) do self.pvs:add(rec.key) end
  for _, rec in ipairs(m.store:list(PVC)) do self.claims:add(rec.key) end
end

return volumes
