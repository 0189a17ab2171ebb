-- SPDX-License-Identifier: Apache-2.0
-- 1,000 nodes, 100 Deployments of 100 pods each; then a rolling update of one, a drain of ten nodes, and lists.
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local monotonic = require("eirun.core.clock").monotonic
local here = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$"
local lib = assert(load(assert(fs.read(here .. "/../lua/lib_kube.lua")), "@lib_kube.lua"))()

local NODES, DEPLOYMENTS, REPLICAS = 1000, 100, 100
local PODS = "/api/v1/namespaces/default/pods"

local function stage(name, fn)
  local from = monotonic()
  fn()
  print(("%s: %.1f s"):format(name, monotonic() - from))
end

local function running(plane)
  local n = 0
  for _, pod in ipairs(plane:ok("GET", PODS .. "?fieldSelector=status.phase%3DRunning").items) do
    if not pod.metadata.deletionTimestamp then n = n + 1 end
  end
  return n
end

t.test("a_thousand_nodes_and_ten_thousand_pods", function()
  local plane = lib.new { lag = { node_lease = 1e6 } }
  stage("1,000 nodes", function()
    for i = 1, NODES do
      local amounts = { cpu = "8", memory = "30Gi", pods = "64" }
      plane:ok("POST", "/api/v1/nodes", { metadata = { name = ("n%04d"):format(i), labels = { zone = "z" .. i % 3 } },
        status = { capacity = amounts, allocatable = amounts, conditions = lib.ready "KubeletReady" } })
    end
    plane:settle()
  end)
  stage("10,000 pods scheduled", function()
    for i = 1, DEPLOYMENTS do
      plane:ok("POST", "/apis/apps/v1/namespaces/default/deployments",
        lib.deployment("d" .. i, REPLICAS, { resources = { requests = { cpu = "100m" } } }))
    end
    plane:settle()
    plane:advance(60)
  end)
  local per_node, placed = {}, 0
  for _, pod in ipairs(plane:ok("GET", PODS).items) do
    local node = pod.spec.nodeName
    if node then
      placed = placed + 1
      per_node[node] = (per_node[node] or 0) + 1
    end
  end
  t.eq(placed, DEPLOYMENTS * REPLICAS)
  for node, n in pairs(per_node) do t.ok(n <= 64, node .. " is overfull") end
  stage("10,000 pods running", function() plane:run_all "default" end)
  t.eq(running(plane), DEPLOYMENTS * REPLICAS)
  t.eq(plane:ok("GET", "/apis/apps/v1/namespaces/default/deployments/d7").status.availableReplicas, REPLICAS)
  stage("a Deployment scaled to 0 and back", function()
    plane:patch("merge", "/apis/apps/v1/namespaces/default/deployments/d1/scale", { spec = { replicas = 0 } })
    plane:settle()
    for _, pod in ipairs(plane:ok("GET", PODS .. "?labelSelector=app%3Dd1").items) do
      plane:ok("DELETE", PODS .. "/" .. pod.metadata.name, { gracePeriodSeconds = 0 })
    end
    plane:patch("merge", "/apis/apps/v1/namespaces/default/deployments/d1/scale", { spec = { replicas = REPLICAS } })
    plane:settle()
    t.eq(#plane:ok("GET", PODS .. "?labelSelector=app%3Dd1").items, REPLICAS)
  end)
  stage("a list of all pods, in pages", function()
    local n, token = 0, nil
    repeat
      local page = plane:ok("GET", PODS .. "?limit=500" .. (token and "&continue=" .. token:gsub("=", "%%3D") or ""))
      n, token = n + #page.items, page.metadata.continue
    until not token
    t.eq(n, DEPLOYMENTS * REPLICAS)
  end)
  t.eq(plane.problems, {})
end)
