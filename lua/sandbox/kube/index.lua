-- SPDX-License-Identifier: Apache-2.0
-- Who owns whom: dependents by their owners' uid, kept fresh by the store's events.
local resources = require "sandbox.kube.resources"

local Index = {}
Index.__index = Index

local function owners(obj)
  return obj.metadata.ownerReferences or {}
end

local function add(self, rec)
  for _, ref in ipairs(owners(rec.obj)) do
    local of = self.by_owner[ref.uid]
    if not of then
      of = {}
      self.by_owner[ref.uid] = of
    end
    of[rec.uid] = rec
  end
end

local function remove(self, rec)
  for _, ref in ipairs(owners(rec.obj)) do
    local of = self.by_owner[ref.uid]
    if of then
      of[rec.uid] = nil
      if next(of) == nil then self.by_owner[ref.uid] = nil end
    end
  end
end

function Index.new(store)
  local self = setmetatable({ by_owner = {}, uids = {} }, Index)
  for _, r in ipairs(resources.list) do
    if not r.storage then
      for _, rec in ipairs(store:list(r)) do
        add(self, rec)
        self.uids[rec.uid] = rec
      end
      store:subscribe(r, function(event)
        if event.old then remove(self, event.old) end
        self.uids[event.new.uid] = event.type ~= "DELETED" and event.new or nil
        if event.type ~= "DELETED" then add(self, event.new) end
      end)
    end
  end
  return self
end

local function by_key(a, b)
  if a.r ~= b.r then return a.r.id < b.r.id end
  return a.key < b.key
end

-- Records owned by that uid, all or of one resource, in a stable order.
function Index:owned(uid, r)
  local list = {}
  for _, rec in pairs(self.by_owner[uid] or {}) do
    if not r or rec.r == r then list[#list + 1] = rec end
  end
  table.sort(list, by_key)
  return list
end

-- The record with that uid, of whatever resource.
function Index:find(uid)
  return self.uids[uid]
end

return Index
