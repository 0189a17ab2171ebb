-- SPDX-License-Identifier: Apache-2.0
-- ResourceQuotas tell what is used of them.
local common = require "sandbox.kube.controllers.common"
local quota = require "sandbox.kube.quota"
local resources = require "sandbox.kube.resources"

local controller = {}

local R = resources.resourcequotas

function controller.start(m)
  local q = m:queue("resourcequota", m.lag.controller_sync, function(key)
    local rec = m.store:get(R, common.split(key))
    if not rec or rec.obj.metadata.deletionTimestamp then return end
    m.registry:set_status(R, rec.obj, quota.status_of(m.store, rec, m.now()))
  end)
  local function all_of(ns)
    for _, rec in ipairs(m.store:list(R, ns)) do q:add(rec.key) end
  end
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  for _, r in ipairs(resources.list) do
    if r.namespaced and not r.storage and r ~= R then
      m.store:subscribe(r, function(event)
        if m.store:count(R) > 0 then all_of(event.new.ns) end
      end)
    end
  end
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

return controller
