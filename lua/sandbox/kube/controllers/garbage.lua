-- SPDX-License-Identifier: Apache-2.0
-- The garbage collector: dependents go with their last owner; "orphan" and "foregroundDeletion" finalizers are served.
local json = require "eirun.core.json"
local deletion = require "sandbox.kube.deletion"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local controller = {}

local WHO = { manager = "kube-controller-manager" }

function controller.start(m)
  local reg, store, index = m.registry, m.store, m.index
  local q

  local function without_owner(rec, uid)
    reg:modify(rec.r, rec.ns, rec.name, function(old)
      local refs = value.filter(old.metadata.ownerReferences, function(ref) return ref.uid ~= uid end)
      return value.with(old, { "metadata", "ownerReferences" }, #refs > 0 and json.array(refs) or nil)
    end, WHO)
  end

  -- How the dependent's owners stand: any alive, any that waits for it in the foreground.
  local function owners_of(rec)
    local alive, waited_for = false, false
    for _, ref in ipairs(rec.obj.metadata.ownerReferences or {}) do
      local owner = index:find(ref.uid)
      if owner then
        local waits = owner.obj.metadata.deletionTimestamp and value.contains(owner.obj.metadata.finalizers, deletion.FOREGROUND)
        if waits then waited_for = true else alive = true end
      end
    end
    return alive, waited_for
  end

  local function collect(rec)
    if rec.obj.metadata.deletionTimestamp then return end
    local alive, waited_for = owners_of(rec)
    if alive then return end
    deletion.delete(reg, rec.r, rec.ns, rec.name, { propagation = waited_for and "Foreground" or "Background",
      preconditions = { uid = rec.uid } })
  end

  local function orphan(rec)
    for _, dependent in ipairs(index:owned(rec.uid)) do without_owner(dependent, rec.uid) end
    deletion.remove_finalizer(reg, rec.r, rec.obj, deletion.ORPHAN)
  end

  local function foreground(rec)
    local blocked = false
    for _, dependent in ipairs(index:owned(rec.uid)) do
      collect(dependent)
      local ref = value.find(dependent.obj.metadata.ownerReferences, "uid", rec.uid)
      if index:find(dependent.uid) and ref and ref.blockOwnerDeletion then blocked = true end
    end
    if not blocked then deletion.remove_finalizer(reg, rec.r, rec.obj, deletion.FOREGROUND) end
  end

  local function sync(uid)
    local rec = index:find(uid)
    if not rec then
      for _, dependent in ipairs(index:owned(uid)) do collect(dependent) end
      return
    end
    local finalizers = rec.obj.metadata.deletionTimestamp and rec.obj.metadata.finalizers
    if value.contains(finalizers, deletion.ORPHAN) then
      orphan(rec)
    elseif value.contains(finalizers, deletion.FOREGROUND) then
      foreground(rec)
    elseif rec.obj.metadata.ownerReferences then
      collect(rec)
    end
  end

  q = m:queue("garbage", m.lag.controller_sync, sync)
  for _, r in ipairs(resources.list) do
    if not r.storage and r ~= resources.events then
      store:subscribe(r, function(event)
        local meta = event.new.obj.metadata
        if event.type == "DELETED" then
          q:add(event.new.uid)
          for _, ref in ipairs(meta.ownerReferences or {}) do
            local owner = index:find(ref.uid)
            if owner and owner.obj.metadata.deletionTimestamp then q:add(ref.uid) end
          end
        elseif event.type == "ADDED" and meta.ownerReferences or meta.deletionTimestamp and meta.finalizers then
          q:add(event.new.uid)
        end
      end)
      for _, rec in ipairs(store:list(r)) do
        if rec.obj.metadata.ownerReferences or rec.obj.metadata.deletionTimestamp then q:add(rec.uid) end
      end
    end
  end
end

return controller
