-- SPDX-License-Identifier: Apache-2.0
-- The garbage collector: dependents go with their last owner; "orphan" and "foregroundDeletion" finalizers are served.
local json = require "eirun.core.json"
local deletion = require "sandbox.kube.deletion"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local controller = {}

local WHO = { manager = "kube-controller-manager" }

local Collector = {}
Collector.__index = Collector

function Collector:without_owner(rec, uid)
  self.reg:modify(rec.r, rec.ns, rec.name, function(old)
    local refs = value.filter(old.metadata.ownerReferences, function(ref) return ref.uid ~= uid end)
    return value.with(old, { "metadata", "ownerReferences" }, #refs > 0 and json.array(refs) or nil)
  end, WHO)
end

-- How the dependent's owners stand: any alive, any that waits for it in the foreground.
function Collector:owners_of(rec)
  local alive, waited_for = false, false
  for _, ref in ipairs(rec.obj.metadata.ownerReferences or {}) do
    local owner = self.index:find(ref.uid)
    if owner then
      local waits = owner.obj.metadata.deletionTimestamp and value.contains(owner.obj.metadata.finalizers, deletion.FOREGROUND)
      if waits then waited_for = true else alive = true end
    end
  end
  return alive, waited_for
end

function Collector:collect(rec)
  if rec.obj.metadata.deletionTimestamp then return end
  local alive, waited_for = self:owners_of(rec)
  if alive then return end
  deletion.delete(self.reg, rec.r, rec.ns, rec.name, { propagation = waited_for and "Foreground" or "Background",
    preconditions = { uid = rec.uid } })
end

function Collector:orphan(rec)
  for _, dependent in ipairs(self.index:owned(rec.uid)) do self:without_owner(dependent, rec.uid) end
  deletion.remove_finalizer(self.reg, rec.r, rec.obj, deletion.ORPHAN)
end

function Collector:foreground(rec)
  local blocked = false
  for _, dependent in ipairs(self.index:owned(rec.uid)) do
    self:collect(dependent)
    local ref = value.find(dependent.obj.metadata.ownerReferences, "uid", rec.uid)
    if self.index:find(dependent.uid) and ref and ref.blockOwnerDeletion then blocked = true end
  end
  if not blocked then deletion.remove_finalizer(self.reg, rec.r, rec.obj, deletion.FOREGROUND) end
end

function Collector:sync(uid)
  local rec = self.index:find(uid)
  if not rec then
    for _, dependent in ipairs(self.index:owned(uid)) do self:collect(dependent) end
    return
  end
  local finalizers = rec.obj.metadata.deletionTimestamp and rec.obj.metadata.finalizers
  if value.contains(finalizers, deletion.ORPHAN) then
    self:orphan(rec)
  elseif value.contains(finalizers, deletion.FOREGROUND) then
    self:foreground(rec)
  elseif rec.obj.metadata.ownerReferences then
    self:collect(rec)
  end
end

function Collector:on_event(event)
  local meta = event.new.obj.metadata
  if event.type == "DELETED" then
    self.q:add(event.new.uid)
    for _, ref in ipairs(meta.ownerReferences or {}) do
      local owner = self.index:find(ref.uid)
      if owner and owner.obj.metadata.deletionTimestamp then self.q:add(ref.uid) end
    end
  elseif event.type == "ADDED" and meta.ownerReferences or meta.deletionTimestamp and meta.finalizers then
    self.q:add(event.new.uid)
  end
end

function controller.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, index = m.index }, Collector)
  self.q = m:queue("garbage", m.lag.controller_sync, function(uid) return self:sync(uid) end)
  for _, r in ipairs(resources.list) do
    if not r.storage and r ~= resources.events then
      m.store:subscribe(r, function(event) self:on_event(event) end)
      for _, rec in ipairs(m.store:list(r)) do
        if rec.obj.metadata.ownerReferences or rec.obj.metadata.deletionTimestamp then self.q:add(rec.uid) end
      end
    end
  end
end

return controller
