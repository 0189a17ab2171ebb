-- SPDX-License-Identifier: Apache-2.0
-- Spot instances: notices from all who tell of them, prices with the time they are of, and what can be had.
local t = require "eirun.test"
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local http = require "eirun.core.http"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local price = require "eirun.price"
local sandbox = require "sandbox_client"
local spot = require "eirun.spot"
local target = require "eirun.target"
local task = require "eirun.task"

local GPU, ZONE = "ecs.gn6i-c4g1.xlarge", "cn-hangzhou-h"

local function with_sandbox(body)
  local box <close> = sandbox.start { parts = { "sandbox.control", "sandbox.cloud" }, lag = { spot_notice = 300 } }
  local undo = target.use { sandbox = true, region = "cn-hangzhou", account = box.info.account, cluster = box.info.cluster_id,
    ca_file = box.info.ca_file, endpoints = { METADATA = "http://100.100.100.200" },
    credentials = credentials.static { access_key_id = box.info.access_key_id, access_key_secret = box.info.access_key_secret } }
  local ok, err = pcall(body, box)
  undo()
  if not ok then error(err, 0) end
end

local function with_fake(handler, body)
  http.routes {} -- a sandbox before left its own, which are closed
  fake.with(handler, body)
end

t.test("prices_of_a_sandbox_are_told_with_their_time_and_kept", function()
  with_sandbox(function()
    local now = cloud.price(GPU, ZONE, "spot")
    t.ok(now.hour > 0 and now.hour < cloud.price(GPU, ZONE, "on-demand").hour, "spot is cheaper")
    t.eq({ now.currency, now.kind }, { "CNY", "spot" })
    t.ok(math.abs(now.at - task.now()) < 10)
    t.ok(rawequal(now, price.hour(GPU, ZONE, "spot")), "it was asked again")
    t.match(t.err("invalid", function() cloud.price(GPU, ZONE, "cheap") end).message, "kind is 'spot' or 'on%-demand', not 'cheap'")
  end)
end)

t.test("the_history_is_sorted_and_kept_to_its_zone", function()
  with_sandbox(function()
    local list, currency = spot.history(GPU, { from = task.now() - 86400 })
    t.eq(currency, "CNY")
    t.ok(#list >= 3 * 23, "entries: " .. #list)
    for i = 2, #list do t.ok(list[i].at >= list[i - 1].at) end
    for _, entry in ipairs(spot.history(GPU, { zone = ZONE })) do t.eq(entry.zone, ZONE) end
    t.ok(list[1].price < list[1].on_demand)
    t.match(t.err("invalid", function() spot.history(GPU, { from = task.now() - 40 * 86400 }) end).message, "30 days")
  end)
end)

t.test("advice_is_asked_ten_types_at_a_time_and_sorted", function()
  with_sandbox(function()
    local list = spot.advice { GPU, "ecs.gn7i-c8g1.2xlarge" }
    t.ok(#list >= 5, "offers: " .. #list)
    for i = 2, #list do t.ok(list[i].rate > list[i - 1].rate or list[i].discount >= list[i - 1].discount) end
    t.ok(#spot.advice() > #list)
    local zones = spot.cheapest(GPU)
    t.eq(#zones, 3)
    t.ok(zones[1].price.hour <= zones[3].price.hour)
  end)
  with_fake(function() return 200, { AvailableSpotZones = { AvailableSpotZone = json.array {} } } end, function(_, seen)
    local types = {}
    for i = 1, 23 do types[i] = "ecs.x" .. i end
    spot.advice(types)
    t.eq({ #seen, seen[3].query["InstanceTypes.3"], seen[3].query["InstanceTypes.4"] }, { 3, "ecs.x23" })
  end)
end)

t.test("a_reclaimed_instance_of_a_sandbox_has_its_notice", function()
  with_sandbox(function(box)
    local cluster = { ClusterId = box.info.cluster_id }
    t.eq(#spot.notices(), 0)
    local made = cloud.cs("CreateClusterNodePool", cluster, { body = { nodepool_info = { name = "s" },
      auto_scaling = { enable = false }, scaling_group = { instance_charge_type = "PostPaid", instance_types = json.array { GPU },
        vswitch_ids = json.array { "vsw-bp1eirunh" },
        multi_az_policy = "COST_OPTIMIZED", spot_strategy = "SpotAsPriceGo", on_demand_base_capacity = 0,
        on_demand_percentage_above_base_capacity = 0, spot_instance_pools = 1, desired_size = 1 } } })
    box:wait_task(made.task_id)
    box:wait("the instance", function()
      for _, member in ipairs(cloud.rpc("ess", "DescribeScalingInstances", { PageSize = 100 }).ScalingInstances) do
        if member.SpotStrategy == "SpotAsPriceGo" and member.LifecycleState == "InService" then return member end
      end
    end)
    t.eq(box:control("POST", "/faults", { kind = "reclaim", zone = ZONE }), 200)
    local list = box:wait("a notice", function()
      local found = spot.notices { pool = { id = made.nodepool_id, name = "s" } }
      return #found > 0 and found
    end)
    t.eq({ list[1].zone, list[1].type, list[1].sources }, { ZONE, GPU, { "ecs" } })
    t.ok(list[1].by > task.now() and list[1].by <= task.now() + 300)
  end)
end)

local function node(name, id, expired)
  return { metadata = { name = name, labels = { ["topology.kubernetes.io/zone"] = "z" } },
    spec = { providerID = "cn-hangzhou." .. id },
    status = { conditions = { { type = "Ready", status = "True" }, { type = "InstanceExpired", status = expired and "True"
      or "False" } } } }
end

t.test("notices_of_ecs_and_of_nodes_are_one_list", function()
  local k8s = { list = function(_, kind)
    t.eq(kind, "Node")
    return { node("n1", "i-1", true), node("n2", "i-2", true), node("n3", "i-3", false) }
  end }
  with_fake(function(call)
    t.eq(call.query.LockReason, "Recycling")
    return 200, { Instances = { Instance = json.array { { InstanceId = "i-1", ZoneId = "a", InstanceType = GPU } } }, NextToken = "" }
  end, function()
    local list = spot.notices { k8s = k8s }
    t.eq({ #list, list[1].id, list[1].node, list[1].zone, list[1].sources }, { 2, "i-1", "n1", "a", { "ecs", "node" } })
    t.eq({ list[2].id, list[2].node, list[2].zone, list[2].sources }, { "i-2", "n2", "z", { "node" } })
  end)
end)

t.test("an_instance_learns_of_its_own_end_from_the_metadata_service", function()
  with_sandbox(function() t.eq(spot.notice_here(), nil) end)
  local answer = 404
  with_fake(function(call)
    if call.method == "PUT" then return 200, "token" end
    t.eq(call.headers:get "x-aliyun-ecs-metadata-token", "token")
    return answer, "2026-01-02T03:04:05Z\n"
  end, function(url)
    target.current().endpoints.METADATA = url
    t.eq(spot.notice_here(), nil)
    answer = 200
    t.eq(spot.notice_here(), 1767323045)
  end)
end)
