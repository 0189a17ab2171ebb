-- SPDX-License-Identifier: Apache-2.0
-- Deleting: grace for pods, finalizers, preconditions, what becomes of dependents.
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local deletion = {}

local IMMORTAL = { default = true, ["kube-system"] = true, ["kube-public"] = true }
local FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"

local function check(r, rec, preconditions)
  if not preconditions then return end
  local uid, rv = preconditions.uid, preconditions.resourceVersion
  -- These two name the kind where other conflicts name the resource.
  local named = { plural = r.kind, group = r.group }
  if uid and uid ~= rec.uid then
    status.conflict(named, rec.name, ("the UID in the precondition (%s) does not match the UID in record (%s). The object might have "
      .. "been deleted and then recreated"):format(uid, rec.uid))
  end
  if rv and rv ~= tostring(rec.rv) then
    status.conflict(named, rec.name, ("the ResourceVersion in the precondition (%s) does not match the ResourceVersion in record (%d). "
      .. "The object might have been modified"):format(rv, rec.rv))
  end
end

-- Seconds that a pod may take; 0 for everything that nobody has to stop.
local function grace_of(r, obj, asked)
  if r.id ~= "pods" then return 0 end
  local phase = obj.status and obj.status.phase
  if not obj.spec.nodeName or phase == "Succeeded" or phase == "Failed" then return 0 end
  return asked or obj.spec.terminationGracePeriodSeconds or 30
end

local function without(list, name)
  local left = value.filter(list or {}, function(f) return f ~= name end)
  return #left > 0 and left or nil
end

local function finalizers_for(r, obj, policy)
  local list = value.filter(obj.metadata.finalizers or {}, function(f) return f ~= FOREGROUND and f ~= ORPHAN end)
  if policy == "Foreground" then list[#list + 1] = FOREGROUND end
  if policy == "Orphan" then list[#list + 1] = ORPHAN end
  if policy == nil and obj.metadata.finalizers then return obj.metadata.finalizers end
  return #list > 0 and list or nil
end

local function stays(obj)
  local meta = obj.metadata
  return (meta.finalizers and #meta.finalizers > 0) or (obj.spec and obj.spec.finalizers and #obj.spec.finalizers > 0)
    or (meta.deletionGracePeriodSeconds or 0) > 0
end

local function terminating(reg, r, rec, grace, policy)
  local obj = value.shallow(rec.obj)
  local meta = value.shallow(obj.metadata)
  obj.metadata = meta
  meta.finalizers = finalizers_for(r, obj, policy)
  if not meta.deletionTimestamp or grace < (meta.deletionGracePeriodSeconds or 0) then
    if not meta.deletionTimestamp and meta.generation then meta.generation = meta.generation + 1 end
    local since = grace > 0 and reg.now() + grace or reg.now()
    meta.deletionTimestamp = reg:time(since)
    meta.deletionGracePeriodSeconds = r.id ~= "namespaces" and grace or nil
  end
  if r.id == "namespaces" then obj = value.with(obj, { "status", "phase" }, "Terminating") end
  return obj
end

local function same(a, b)
  return value.equal(a.metadata, b.metadata) and value.equal(a.status, b.status)
end

-- options: grace, propagation, preconditions, dry_run. Answers the record (gone or not) and whether it still exists.
function deletion.delete(reg, r, ns, name, options)
  local rec = reg:get(r, ns, name)
  if r.id == "namespaces" and IMMORTAL[name] then status.forbidden(r, name, "this namespace may not be deleted") end
  check(r, rec, options.preconditions)
  local grace = grace_of(r, rec.obj, options.grace)
  local obj = terminating(reg, r, rec, grace, options.propagation)
  if stays(obj) then
    if same(obj, rec.obj) then return rec, true end
    return reg:save(r, obj, options), true
  end
  if options.dry_run then return rec, false end
  -- A pod's last state says that it was being deleted.
  return reg.store:delete(rec, r.id == "pods" and obj or nil), false
end

-- Takes a finalizer away; the object goes when it was the last one.
function deletion.remove_finalizer(reg, r, obj, name, manager)
  return reg:modify(r, obj.metadata.namespace, obj.metadata.name, function(old)
    if not value.contains(old.metadata.finalizers, name) then return nil end
    return value.with(old, { "metadata", "finalizers" }, without(old.metadata.finalizers, name))
  end, { manager = manager or "kube-controller-manager" })
end

-- A namespace's own finalizer, through its finalize endpoint.
function deletion.finalize_namespace(reg, name, finalizers)
  return reg:modify(resources.namespaces, nil, name, function(old)
    return value.with(old, { "spec", "finalizers" }, json.array(finalizers))
  end, { manager = "kube-controller-manager", subresource = "finalize" })
end

deletion.FOREGROUND, deletion.ORPHAN = FOREGROUND, ORPHAN

return deletion
