-- SPDX-License-Identifier: Apache-2.0
-- A controller's hold on objects by its selector: it adopts those that match and belong to nobody, and lets go of those
-- of its own that no longer match.
local common = require "sandbox.kube.controllers.common"
local selector = require "sandbox.kube.selector"
local value = require "sandbox.kube.value"

local claims = {}

local WHO = { manager = "kube-controller-manager" }

local function set_owners(m, rec, list)
  m.registry:modify(rec.r, rec.ns, rec.name, function(old)
    return value.with(old, { "metadata", "ownerReferences" }, #list > 0 and list or nil)
  end, WHO)
end

local function adopt(m, rec, owner_resource, owner)
  local list = value.filter(rec.obj.metadata.ownerReferences, function() return true end)
  list[#list + 1] = common.owner_reference(owner_resource, owner)
  set_owners(m, rec, list)
end

local function release(m, rec, owner)
  set_owners(m, rec, value.filter(rec.obj.metadata.ownerReferences, function(ref) return ref.uid ~= owner.metadata.uid end))
end

-- wanted(object): whether an object without controller is worth having.
function claims.settle(m, owner_resource, owner, resource, wanted)
  local terms = selector.from_object(owner.spec.selector)
  if owner.metadata.deletionTimestamp or not terms or #terms == 0 then return end
  for _, rec in ipairs(m.store:list(resource, owner.metadata.namespace)) do
    local ref = common.controller_of(rec.obj)
    local fits = (not ref or ref.uid == owner.metadata.uid) and selector.matches(terms, rec.obj.metadata.labels)
    if not ref and fits and wanted(rec.obj) then
      adopt(m, rec, owner_resource, owner)
    elseif ref and ref.uid == owner.metadata.uid and not fits then
      release(m, rec, owner)
    end
  end
end

-- Keys of the controllers of a resource whose selector fits an object without controller.
function claims.candidates(m, resource, rec)
  local keys = {}
  if common.controller_of(rec.obj) then return keys end
  for _, owner in ipairs(m.store:list(resource, rec.ns)) do
    local terms = selector.from_object(owner.obj.spec.selector)
    if terms and #terms > 0 and selector.matches(terms, rec.obj.metadata.labels) then keys[#keys + 1] = owner.key end
  end
  return keys
end

return claims
