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

function volumes.start(m)
  local reg, store = m.registry, m.store
  local recorder = events.recorder(reg, "persistentvolume-controller")

  local function set_phase(r, obj, phase, more)
    local new = value.shallow(obj.status or {})
    if new.phase ~= phase then new.lastPhaseTransitionTime = r == PV and reg:time() or nil end
    new.phase = phase
    for key, v in pairs(more or {}) do new[key] = v end
    reg:set_status(r, obj, new)
  end

  local function note(obj, key)
    return value.with(obj, { "metadata", "annotations", key }, "yes")
  end

  local function bind_volume(pv, claim)
    local chosen = not pv.spec.claimRef
    local ref = { apiVersion = "v1", kind = "PersistentVolumeClaim", namespace = claim.metadata.namespace, name = claim.metadata.name,
      uid = claim.metadata.uid, resourceVersion = claim.metadata.resourceVersion }
    local rec = reg:modify(PV, nil, pv.metadata.name, function(old)
      if old.spec.claimRef and old.spec.claimRef.uid == ref.uid then return nil end
      local new = value.with(old, { "spec", "claimRef" }, ref)
      return chosen and note(new, BY_CONTROLLER) or new
    end, WHO)
    set_phase(PV, rec.obj, "Bound")
  end

  local function bind_claim(claim, pv)
    local chosen = not claim.spec.volumeName
    local rec = reg:modify(PVC, claim.metadata.namespace, claim.metadata.name, function(old)
      local new = note(value.with(old, { "spec", "volumeName" }, pv.metadata.name), BIND_COMPLETED)
      return chosen and note(new, BY_CONTROLLER) or new
    end, WHO)
    set_phase(PVC, rec.obj, "Bound", { accessModes = pv.spec.accessModes, capacity = pv.spec.capacity })
  end

  local function bind(pv, claim)
    bind_volume(pv, claim)
    bind_claim(claim, pv)
  end

  -- A claim that names its volume.
  local function sync_named(claim)
    local pv = store:object(PV, nil, claim.spec.volumeName)
    if not pv then return set_phase(PVC, claim, "Pending") end
    local state = claim_state(pv, claim)
    if state == "taken" then
      recorder:event(PVC, claim, "Warning", "FailedBinding", ('volume "%s" already bound to a different claim.'):format(pv.metadata.name))
      return
    end
    local why = mismatch(pv, claim)
    if why then
      recorder:event(PVC, claim, "Warning", "VolumeMismatch", ('Cannot bind to requested volume "%s": %s'):format(pv.metadata.name, why))
      return set_phase(PVC, claim, "Pending")
    end
    bind(pv, claim)
  end

  local function nothing_fits(claim)
    local class = class_of(claim)
    if class == "" then
      recorder:event(PVC, claim, "Normal", "FailedBinding",
        "no persistent volumes available for this claim and no storage class is set")
    else
      local sc = store:object(CLASSES, nil, class)
      if not sc then
        recorder:event(PVC, claim, "Warning", "ProvisioningFailed", ('storageclass.storage.k8s.io "%s" not found'):format(class))
      elseif sc.volumeBindingMode == "WaitForFirstConsumer" then
        recorder:event(PVC, claim, "Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding")
      elseif sc.provisioner ~= "kubernetes.io/no-provisioner" then
        recorder:event(PVC, claim, "Normal", "ExternalProvisioning", ("Waiting for a volume to be created either by the external "
          .. "provisioner '%s' or manually by the system administrator. If volume creation is delayed, please verify that the "
          .. "provisioner is running and correctly registered."):format(sc.provisioner))
      end
    end
    set_phase(PVC, claim, "Pending")
  end

  local function all_volumes()
    local list = {}
    for i, rec in ipairs(store:list(PV)) do list[i] = rec.obj end
    return list
  end

  local function sync_bound(claim)
    local pv = store:object(PV, nil, claim.spec.volumeName)
    if pv and claim_state(pv, claim) == "ours" then return bind(pv, claim) end
    if pv and not pv.spec.claimRef then return bind(pv, claim) end
    if value.get(claim, "status", "phase") == "Lost" then return end
    recorder:event(PVC, claim, "Warning", "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
    set_phase(PVC, claim, "Lost")
  end

  local function used_by_pod(claim)
    for _, rec in ipairs(store:list(PODS, claim.metadata.namespace)) do
      if not common.pod_finished(rec.obj) and rec.obj.spec.nodeName then
        for _, v in ipairs(rec.obj.spec.volumes or {}) do
          if value.get(v, "persistentVolumeClaim", "claimName") == claim.metadata.name then return true end
        end
      end
    end
  end

  local function sync_claim(key)
    local claim = store:object(PVC, common.split(key))
    if not claim then return end
    if claim.metadata.deletionTimestamp then
      if not used_by_pod(claim) then deletion.remove_finalizer(reg, PVC, claim, PVC_PROTECTION) end
      return
    end
    if value.get(claim, "metadata", "annotations", BIND_COMPLETED) then return sync_bound(claim) end
    if claim.spec.volumeName then return sync_named(claim) end
    local pv = volumes.best(all_volumes(), claim)
    if pv then return bind(pv, claim) end
    nothing_fits(claim)
  end

  local claims

  local function sync_volume(key)
    local pv = store:object(PV, common.split(key))
    if not pv then return end
    local ref = pv.spec.claimRef
    local claim = ref and store:object(PVC, ref.namespace, ref.name)
    if pv.metadata.deletionTimestamp and not (claim and claim.metadata.uid == ref.uid) then
      deletion.remove_finalizer(reg, PV, pv, PV_PROTECTION)
      return
    end
    if not ref then
      set_phase(PV, pv, "Available")
    elseif not ref.uid then
      set_phase(PV, pv, "Available")
      if claim then claims:add(claim.metadata.namespace .. "/" .. claim.metadata.name) end
    elseif claim and claim.metadata.uid == ref.uid then
      set_phase(PV, pv, "Bound")
    else
      set_phase(PV, pv, "Released")
      if pv.spec.persistentVolumeReclaimPolicy == "Delete" then deletion.delete(reg, PV, nil, pv.metadata.name, {}) end
    end
  end

  local function add_unbound_claims()
    for _, rec in ipairs(store:list(PVC)) do
      if value.get(rec.obj, "status", "phase") ~= "Bound" then claims:add(rec.key) end
    end
  end

  local pvs = m:queue("volume", m.lag.controller_sync, sync_volume)
  claims = m:queue("claim", m.lag.controller_sync, sync_claim)

  store:subscribe(PV, function(event)
    pvs:add(event.new.key)
    local spec_moved = not event.old or not value.equal(event.old.obj.spec, event.new.obj.spec)
    if event.type == "DELETED" and event.new.obj.spec.claimRef then
      local ref = event.new.obj.spec.claimRef
      claims:add(ref.namespace .. "/" .. ref.name)
    elseif spec_moved or not value.equal(event.old.obj.metadata.labels, event.new.obj.metadata.labels) then
      add_unbound_claims()
    end
  end)
  store:subscribe(PVC, function(event)
    claims:add(event.new.key)
    local name = event.new.obj.spec.volumeName
    if name then pvs:add("/" .. name) end
  end)
  store:subscribe(PODS, function(event)
    if event.type == "ADDED" then return end
    if event.type ~= "DELETED" and not common.pod_finished(event.new.obj) then return end
    for _, v in ipairs(event.new.obj.spec.volumes or {}) do
      local name = value.get(v, "persistentVolumeClaim", "claimName")
      if name then claims:add(event.new.ns .. "/" .. name) end
    end
  end)
  for _, rec in ipairs(store:list(PV)) do pvs:add(rec.key) end
  for _, rec in ipairs(store:list(PVC)) do claims:add(rec.key) end
end

return volumes
