-- SPDX-License-Identifier: Apache-2.0
-- Keeps the status of PodDisruptionBudgets.
local common = require "sandbox.kube.controllers.common"
local disruption = require "sandbox.kube.disruption"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local controller = {}

local R, PODS = resources.poddisruptionbudgets, resources.pods

function controller.start(m)
  local reg, store = m.registry, m.store

  local function sync(key)
    local pdb = store:object(R, common.split(key))
    if not pdb then return end
    local s = disruption.status_of(store, pdb)
    s.observedGeneration = pdb.metadata.generation
    local enough = s.disruptionsAllowed > 0
    s.conditions = common.with_condition(value.get(pdb, "status", "conditions"), { type = "DisruptionAllowed",
      status = enough and "True" or "False", reason = enough and "SufficientPods" or "InsufficientPods", message = "",
      observedGeneration = pdb.metadata.generation }, reg:time())
    reg:set_status(R, pdb, s)
  end

  local q = m:queue("disruption", m.lag.controller_sync, sync)
  local function all_of(ns)
    for _, rec in ipairs(store:list(R, ns)) do q:add(rec.key) end
  end
  store:subscribe(R, function(event) q:add(event.new.key) end)
  store:subscribe(PODS, function(event) all_of(event.new.ns) end)
  store:subscribe(resources.deployments, function(event) all_of(event.new.ns) end)
  store:subscribe(resources.replicasets, function(event) all_of(event.new.ns) end)
  all_of()
end

return controller
