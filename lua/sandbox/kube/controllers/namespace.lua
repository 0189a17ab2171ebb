-- SPDX-License-Identifier: Apache-2.0
-- A namespace that is being deleted is emptied, then it goes.
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local resources = require "sandbox.kube.resources"

local controller = {}

local R = resources.namespaces

function controller.start(m)
  local reg, store = m.registry, m.store

  -- Deletes what is there; answers how many objects are left.
  local function empty(ns)
    local left = 0
    for _, r in ipairs(resources.list) do
      if r.namespaced and not r.storage then
        for _, rec in ipairs(store:list(r, ns)) do
          if not rec.obj.metadata.deletionTimestamp then deletion.delete(reg, r, ns, rec.name, { propagation = "Background" }) end
        end
        left = left + #store:list(r, ns)
      end
    end
    return left
  end

  local function sync(key)
    local _, name = common.split(key)
    local ns = store:object(R, nil, name)
    if not ns or not ns.metadata.deletionTimestamp then return end
    if empty(name) == 0 then deletion.finalize_namespace(reg, name, {}) end
  end

  local q = m:queue("namespace", m.lag.controller_sync, sync)
  store:subscribe(R, function(event)
    if event.new.obj.metadata.deletionTimestamp then q:add(event.new.key) end
  end)
  for _, r in ipairs(resources.list) do
    if r.namespaced and not r.storage then
      store:subscribe(r, function(event)
        if event.type ~= "DELETED" then return end
        local ns = store:object(R, nil, event.new.ns)
        if ns and ns.metadata.deletionTimestamp then q:add("/" .. event.new.ns) end
      end)
    end
  end
  for _, rec in ipairs(store:list(R)) do
    if rec.obj.metadata.deletionTimestamp then q:add(rec.key) end
  end
end

return controller
