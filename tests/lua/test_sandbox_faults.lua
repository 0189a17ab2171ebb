-- SPDX-License-Identifier: Apache-2.0
-- Faults: what a script may say, and what each of them does to a call or to the world.
local t = require "eirun.test"
local client = require "sandbox_client"
local faults = require "sandbox.faults"
local task = require "eirun.core.task"

local function start(options)
  options = options or {}
  options.parts = { "sandbox.control", "sandbox.cloud" }
  return client.start(options)
end

local function fault(box, one)
  local status, answer = box:control("POST", "/faults", one)
  t.eq(status, 200, answer.message)
end

local refused = {
  { { kind = "trottle" }, "unknown kind of fault 'trottle'; there are attach, " },
  { { service = "CS" }, "unknown kind of fault 'nil'" },
  { { kind = "throttle", zone = "h" }, "a fault of kind throttle has no field 'zone'" },
  { { kind = "throttle", times = "2" }, "times of a fault must be a number" },
  { { kind = "reclaim", action = "DescribeInstances" }, "a fault of kind reclaim has no field 'action'" },
  { { kind = "stock_out", left = "none" }, "left of a fault must be a number" },
}

for i, row in ipairs(refused) do
  t.test("a_fault_with_a_mistake_is_refused_" .. i, function()
    local ok, why = faults.new(function() end):add(row[1])
    t.eq(ok, nil)
    t.ok(why:find(row[2], 1, true), why)
  end)
end

t.test("a_fault_waits_for_its_call_lets_some_pass_and_is_used_up", function()
  local list = faults.new(function() end)
  list:add { kind = "throttle", service = "CS", action = "A", skip = 1, times = 2 }
  t.eq({ list:take("CS", "B"), list:take("ECS", "A"), list:take("CS", "A") }, {})
  t.eq({ list:take("CS", "A").kind, list:take("CS", "A").kind, list:take("CS", "A") }, { "throttle", "throttle" })
end)

t.test("a_slow_body_arrives_in_pieces_and_whole", function()
  local box <close> = start()
  fault(box, { kind = "slow_body", service = "CS", action = "DescribeClustersV1", seconds = 0.3 })
  local began = task.now()
  local status, list = box:cs("GET", "/api/v1/clusters")
  t.eq({ status, list.page_info.total_count }, { 200, 1 })
  t.ok(task.now() - began >= 0.25)
end)

t.test("throttling_comes_with_and_without_a_time_to_wait", function()
  local box <close> = start()
  fault(box, { kind = "throttle", service = "CS", times = 1, retry_after = 1500 })
  fault(box, { kind = "throttle", service = "CS" })
  local seen = {}
  for i = 1, 2 do
    local status, err, reply = box:cs("GET", "/api/v1/clusters")
    seen[i] = { status, err.code, reply.headers:get "x-acs-retry-after" }
  end
  t.eq(seen, { { 400, "Throttling.User", "1500" }, { 400, "Throttling.User" } })
end)

t.test("a_clock_that_is_off_refuses_and_shows_its_time", function()
  local box <close> = start()
  fault(box, { kind = "clock_skew", seconds = 1200 })
  local status, err, reply = box:cs("GET", "/api/v1/clusters")
  t.eq({ status, err.code }, { 400, "InvalidTimeStamp.Expired" })
  t.ok(reply.headers:get "date" ~= os.date("!%a, %d %b %Y %H:%M:%S GMT"))
  t.eq((box:cs("GET", "/api/v1/clusters", { skew = 1200 })), 200)
  fault(box, { kind = "clock_skew", seconds = 0 })
  t.eq((box:cs("GET", "/api/v1/clusters")), 200)
end)

local function price(box, zone)
  local _, answer = box:rpc("ecs", "DescribePrice", { RegionId = "cn-hangzhou", ResourceType = "instance",
    InstanceType = "ecs.gn6i-c4g1.xlarge", SpotStrategy = "SpotAsPriceGo", ZoneId = zone })
  return answer.PriceInfo.Price.TradePrice
end

t.test("prices_rise_in_one_zone_and_never_above_on_demand", function()
  local box <close> = start()
  local before = price(box, "cn-hangzhou-h")
  fault(box, { kind = "price", zone = "cn-hangzhou-h", factor = 2 })
  t.ok(math.abs(price(box, "cn-hangzhou-h") - 2 * before) < 0.002)
  fault(box, { kind = "price", factor = 100 })
  t.eq({ price(box, "cn-hangzhou-h") < 8, price(box, "cn-hangzhou-i") }, { true, 8.68 })
end)

local function make_pool(box)
  local _, made = box:cs("POST", "/clusters/CID/nodepools", { body = { nodepool_info = { name = "gpu" },
    auto_scaling = { enable = true, type = "gpu", min_instances = 8, max_instances = 10 },
    scaling_group = { instance_charge_type = "PostPaid", instance_types = { "ecs.gn6i-c4g1.xlarge" }, multi_az_policy = "BALANCE",
      vswitch_ids = { "vsw-bp1eirunh", "vsw-bp1eiruni" }, spot_strategy = "SpotAsPriceGo" } } })
  box:wait("eight nodes", function()
    local _, pool = box:cs("GET", "/clusters/CID/nodepools/" .. made.nodepool_id)
    return pool.status.healthy_nodes == 8
  end)
  return made.nodepool_id
end

local function locked(box)
  local _, answer = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou", LockReason = "Recycling", PageSize = 100 })
  local zones, n = {}, 0
  for _, one in ipairs(answer.Instances.Instance) do
    n, zones[one.ZoneId] = n + 1, (zones[one.ZoneId] or 0) + 1
  end
  return n, zones, answer.Instances.Instance
end

t.test("a_zone_is_reclaimed_together_and_its_market_stays_empty_for_a_while", function()
  local box <close> = start { lag = { spot_notice = 3600 } }
  make_pool(box)
  fault(box, { kind = "reclaim", zone = "cn-hangzhou-i", seconds = 0.4 })
  local n, zones = locked(box)
  t.eq({ n, zones["cn-hangzhou-i"] }, { 4, 4 })
  local function offers()
    local _, advice = box:rpc("ecs", "DescribeSpotAdvice", { RegionId = "cn-hangzhou", ["InstanceTypes.1"] = "ecs.gn6i-c4g1.xlarge" })
    local list = {}
    for _, zone in ipairs(advice.AvailableSpotZones.AvailableSpotZone) do
      list[zone.ZoneId] = #zone.AvailableSpotResources.AvailableSpotResource
    end
    return list
  end
  t.eq(offers(), { ["cn-hangzhou-h"] = 1, ["cn-hangzhou-i"] = 0, ["cn-hangzhou-j"] = 1 })
  box:wait("stock again", function() return offers()["cn-hangzhou-i"] == 1 end)
end)

t.test("one_node_a_share_or_all_spot_are_reclaimed", function()
  local box <close> = start { lag = { spot_notice = 3600 } }
  make_pool(box)
  local _, nodes = box:cs("GET", "/clusters/CID/nodes", { query = { pageSize = 100 } })
  local spot
  for _, node in ipairs(nodes.nodes) do if node.spot_strategy ~= "NoSpot" then spot = node end end
  fault(box, { kind = "reclaim", node = spot.node_name })
  t.eq({ select(3, locked(box))[1].InstanceId, (locked(box)) }, { spot.instance_id, 1 })
  fault(box, { kind = "reclaim", share = 0.5 }) -- of the seven that are left: three and a half, rounded up
  t.eq((locked(box)), 5)
  fault(box, { kind = "reclaim" })
  t.eq((locked(box)), 8)
end)

t.test("the_rounding_of_the_percentage_can_be_chosen", function()
  local box <close> = start()
  local spot = {}
  for _, how in ipairs { "up", "down", "half_up" } do
    fault(box, { kind = "rounding", how = how })
    local _, made = box:cs("POST", "/clusters/CID/nodepools", { body = { nodepool_info = { name = how:gsub("_", "-") },
      auto_scaling = { enable = true, min_instances = 4, max_instances = 4 },
      scaling_group = { instance_charge_type = "PostPaid", instance_types = { "ecs.g7.xlarge" }, multi_az_policy = "COST_OPTIMIZED",
        vswitch_ids = { "vsw-bp1eirunh" }, spot_strategy = "SpotAsPriceGo", on_demand_base_capacity = 0,
        on_demand_percentage_above_base_capacity = 30, spot_instance_pools = 1 } } })
    box:wait("four nodes", function()
      local _, pool = box:cs("GET", "/clusters/CID/nodepools/" .. made.nodepool_id)
      return pool.status.healthy_nodes == 4
    end)
    local _, list = box:rpc("ess", "DescribeScalingGroups",
      { RegionId = "cn-hangzhou", ScalingGroupName = "acs-nodePool-" .. made.nodepool_id })
    spot[how] = list.ScalingGroups[1].SpotCapacity
  end
  t.eq(spot, { up = 2, down = 3, half_up = 3 }) -- 30 % of four is 1.2
end)

t.test("an_empty_list_of_ecs_lies_once", function()
  local box <close> = start()
  fault(box, { kind = "empty_list", service = "ECS", action = "DescribeInstances" })
  local counts = {}
  for i = 1, 2 do
    local _, answer = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou" })
    counts[i] = answer.TotalCount
  end
  t.eq(counts, { 0, 2 })
end)

t.test("a_full_vswitch_shows_and_sells_nothing", function()
  local box <close> = start()
  fault(box, { kind = "no_addresses", vswitch = "vsw-bp1eirunh" })
  local _, one = box:rpc("vpc", "DescribeVSwitchAttributes", { RegionId = "cn-hangzhou", VSwitchId = "vsw-bp1eirunh" })
  t.eq(one.AvailableIpAddressCount, 0)
  make_pool(box)
  local _, answer = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou", ZoneId = "cn-hangzhou-i", PageSize = 100 })
  t.eq(answer.TotalCount, 9) -- the eight of the pool, and one of the system's
end)
