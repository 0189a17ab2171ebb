-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local autoscaler = require "sandbox.cloud.autoscaler"
local cloud = require "sandbox.cloud"
local fs = require "eirun.core.fs"
local groups = require "sandbox.cloud.groups"
local nodeshape = require "sandbox.cloud.nodeshape"
local pools = require "sandbox.cloud.pools"
local world = require "sandbox.world"

-- A cloud without its services' sockets, a cluster made of two lists, and a clock that the test moves.
local Rig = {}
Rig.__index = Rig

local function list_of(rig, kind)
  return { list = function() return rig[kind] end }
end

local function fake_kube(rig)
  local kube = {}
  function kube:informer(kind) return list_of(rig, kind) end
  function kube:create(_, event) table.insert(rig.events, event.reason .. ": " .. event.message) return event end
  function kube:modify(_, _, name, change)
    for _, node in ipairs(rig.nodes) do
      if node.metadata.name == name then change(node) end
    end
    return {}
  end
  function kube:patch() return {} end
  function kube:list() return { items = {} } end
  return kube
end

local function start()
  local rig = setmetatable({ time = 1.7e9, pods = {}, nodes = {}, events = {}, dir = assert(fs.mkdtemp "/tmp/eirun-test-") }, Rig)
  rig.ctx = world.new { dir = rig.dir, now = function() return rig.time end }
  cloud.start(rig.ctx)
  rig.scaler = autoscaler.new(rig.ctx, fake_kube(rig))
  return rig
end

Rig.__close = function(rig)
  rig.ctx.store:close()
  fs.remove(rig.dir, { recursive = true })
end

local settings = { scaler = "cluster-autoscaler", expander = "least-waste", scan_interval = 60, unneeded = 600, quiet = 600,
  utilization = 0.5, gpu_utilization = 0.3, scale_down = true, from_zero = true }

function Rig:scan(change)
  local used = {}
  for name, value in pairs(settings) do used[name] = value end
  for name, value in pairs(change or {}) do used[name] = value end
  autoscaler.scan(self.scaler, used)
end

function Rig:pass(seconds)
  local stop = self.time + seconds
  while self.time < stop do
    self.time = math.min(stop, self.time + 5)
    while self.ctx.jobs:run_due() do end
  end
end

function Rig:pool(name, types, change)
  local body = { nodepool_info = { name = name }, auto_scaling = { enable = true, min_instances = 0, max_instances = 5, type = "gpu" },
    scaling_group = { instance_types = types, vswitch_ids = { "vsw-bp1eirunh", "vsw-bp1eiruni" }, multi_az_policy = "COST_OPTIMIZED",
      spot_strategy = "SpotAsPriceGo", on_demand_base_capacity = 0, on_demand_percentage_above_base_capacity = 30,
      spot_instance_pools = 2 },
    kubernetes_config = { labels = { { key = "inference", value = name } } } }
  for key, value in pairs(change or {}) do body.auto_scaling[key] = value end
  return pools.create(self.ctx, pools.new_spec(body))
end

function Rig:pending(name, selector, gpus)
  table.insert(self.pods, { metadata = { name = name, namespace = "default", uid = name, creationTimestamp = "2026-01-05T08:00:00Z",
      ownerReferences = { { kind = "ReplicaSet", controller = true } } },
    spec = { nodeSelector = { inference = selector },
      containers = { { resources = { limits = { ["nvidia.com/gpu"] = tostring(gpus or 1) } } } } },
    status = { phase = "Pending", conditions = { { type = "PodScheduled", status = "False", reason = "Unschedulable" } } } })
end

-- Every joined instance becomes a ready node, as the kubelet would make it.
function Rig:join_all()
  self:pass(100)
  self.nodes = {}
  for _, instance in self.ctx.store:each "instance" do
    local pool = self.ctx.store:get("pool", instance.pool_id)
    local labels = require("sandbox.cloud.instances").labels(self.ctx, pool, instance)
    table.insert(self.nodes, { metadata = { name = instance.node_name, labels = labels }, spec = {},
      status = { allocatable = nodeshape.allocatable(instance.type), conditions = { { type = "Ready", status = "True" } } } })
  end
end

function Rig:members(pool) return #groups.members(self.ctx, groups.of_pool(self.ctx, pool)) end

local gpu = { "ecs.gn6i-c4g1.xlarge", "ecs.gn7i-c8g1.2xlarge" }

t.test("pending_gpu_pods_make_the_pool_grow_once", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu)
  for i = 1, 3 do rig:pending("p" .. i, "a") end
  rig:scan()
  t.eq(rig:members(pool), 3)
  t.match(rig.events[1], "^TriggeredScaleUp: pod triggered scale%-up: %[{asg%-%w+%-?%w* 0%->3 %(max: 5%)}%]")
  rig:scan() -- they are on their way
  t.eq(rig:members(pool), 3)
  rig:join_all()
  rig:scan() -- they have joined; the scheduler is just about to use them
  t.eq(rig:members(pool), 3)
end)

t.test("growth_stops_at_the_maximum_and_says_so", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu)
  for i = 1, 9 do rig:pending("p" .. i, "a") end
  rig:scan()
  t.eq(rig:members(pool), 5)
  t.match(rig.events[#rig.events], "^NotTriggerScaleUp: .*max node group size reached")
end)

t.test("pods_that_no_pool_can_take_change_nothing", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu)
  rig:pending("two-gpus", "a", 2)
  rig:pending("elsewhere", "b")
  rig:scan()
  t.eq(rig:members(pool), 0)
  t.eq(#rig.events, 2)
  t.match(table.concat(rig.events, "\n"), "Insufficient nvidia.com/gpu")
  t.match(table.concat(rig.events, "\n"), "didn't match Pod's node affinity/selector")
  rig:scan()
  t.eq(#rig.events, 2)
end)

t.test("the_ratio_holds_for_what_the_scaler_buys", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu, { max_instances = 10 })
  for i = 1, 10 do rig:pending("p" .. i, "a") end
  rig:scan()
  local spot = 0
  for _, instance in ipairs(groups.members(rig.ctx, groups.of_pool(rig.ctx, pool))) do spot = spot + (instance.spot and 1 or 0) end
  t.eq({ rig:members(pool), spot }, { 10, 7 })
end)

t.test("instant_scaling_may_leave_the_ratio_when_told_so", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu)
  local group = groups.of_pool(rig.ctx, pool)
  group.compensate_with_on_demand = true
  rig.ctx.store:put("group", group.id, group)
  local function spot_after(pods)
    for _ = 1, pods do rig:pending("p" .. #rig.pods, "a") end
    rig:scan { scaler = "goatscaler" }
    local spot = 0
    for _, instance in ipairs(groups.members(rig.ctx, group)) do spot = spot + (instance.spot and 1 or 0) end
    return spot
  end
  t.eq(spot_after(2), 1)
  rig.ctx.emit("fault", { kind = "goatscaler_quirk" })
  t.eq({ spot_after(2), rig:members(pool) }, { 1, 4 })
  t.match(table.concat(rig.events), "ProvisionNode: ")
end)

t.test("stock_outs_are_told_and_tried_again", function()
  local rig <close> = start()
  local pool = rig:pool("a", { "ecs.gn6i-c4g1.xlarge" })
  rig.ctx.emit("fault", { kind = "stock_out", market = "spot" })
  rig.ctx.emit("fault", { kind = "stock_out", market = "on_demand" })
  rig:pending("p1", "a")
  rig:scan()
  t.eq(rig:members(pool), 0)
  t.match(rig.events[1], "^FailedToScaleUpGroup: .*NoStock")
  require("sandbox.cloud.market").limit(rig.ctx, nil, nil, "spot", nil)
  rig:scan()
  t.eq(rig:members(pool), 1)
end)

t.test("the_priority_expander_prefers_its_group", function()
  local rig <close> = start()
  local first, second = rig:pool("a", gpu), rig:pool("a2", gpu)
  for _, pool in ipairs { first, second } do
    pool.spec.kubernetes_config.labels = { { key = "inference", value = "a" } }
    rig.ctx.store:put("pool", pool.id, pool)
  end
  rig:pending("p1", "a")
  rig:scan { expander = "priority", priorities = { ["100"] = { second.group_id }, ["10"] = { first.group_id } } }
  t.eq({ rig:members(first), rig:members(second) }, { 0, 1 })
end)

local function two_for_a(rig, first_types, second_types)
  local first, second = rig:pool("a", first_types), rig:pool("a2", second_types)
  for _, pool in ipairs { first, second } do
    pool.spec.kubernetes_config.labels = { { key = "inference", value = "a" } }
    rig.ctx.store:put("pool", pool.id, pool)
  end
  return first, second
end

t.test("instant_scaling_takes_the_fewest_vcpus_in_stock_and_knows_no_expander", function()
  local rig <close> = start()
  local big, small = two_for_a(rig, { "ecs.gn6i-c8g1.2xlarge" }, { "ecs.gn6i-c4g1.xlarge" })
  rig:pending("p1", "a")
  rig:scan { scaler = "goatscaler", expander = "priority", priorities = { ["100"] = { big.group_id } } }
  t.eq({ rig:members(big), rig:members(small) }, { 0, 1 })
  rig.ctx.emit("fault", { kind = "stock_out", type = "ecs.gn6i-c4g1.xlarge", market = "on_demand" })
  rig:pending("p2", "a")
  rig:scan { scaler = "goatscaler" }
  t.eq({ rig:members(big), rig:members(small) }, { 1, 1 })
end)

t.test("instant_scaling_leaves_pools_alone_that_stop_instead_of_releasing", function()
  local rig <close> = start()
  local pool = rig:pool("a", { "ecs.gn6i-c4g1.xlarge" })
  local group = groups.of_pool(rig.ctx, pool)
  group.scaling_policy = "recycle"
  rig.ctx.store:put("group", group.id, group)
  rig:pending("p1", "a")
  rig:scan { scaler = "goatscaler" }
  t.eq(rig:members(pool), 0)
  rig:scan()
  t.eq(rig:members(pool), 1)
end)

t.test("the_random_expander_takes_each_of_two_pools_now_and_then", function()
  local rig <close> = start()
  local first, second = two_for_a(rig, { "ecs.gn6i-c4g1.xlarge" }, { "ecs.gn6i-c4g1.xlarge" })
  for i = 1, 8 do
    rig:pending("p" .. i, "a")
    rig:scan { expander = "random" }
  end
  t.ok(rig:members(first) > 0 and rig:members(second) > 0)
end)

t.test("idle_nodes_leave_after_the_delay_but_not_below_the_minimum", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu, { min_instances = 1 })
  for i = 1, 3 do rig:pending("p" .. i, "a") end
  rig:scan()
  rig.pods = {}
  rig:join_all()
  rig:scan()
  rig:pass(500)
  rig:scan()
  t.eq(rig:members(pool), 3)
  rig:pass(200)
  rig:scan()
  t.eq(rig:members(pool), 1)
  rig:pass(2000)
  rig:join_all()
  rig:scan()
  t.eq(rig:members(pool), 1)
end)

t.test("a_busy_gpu_keeps_its_node", function()
  local rig <close> = start()
  local pool = rig:pool("a", gpu)
  rig:pending("p1", "a")
  rig:scan()
  rig:join_all()
  for _, node in ipairs(rig.nodes) do
    if node.status.allocatable["nvidia.com/gpu"] then
      rig.pods[1].spec.nodeName, rig.pods[1].status = node.metadata.name, { phase = "Running" }
    end
  end
  for _ = 1, 3 do
    rig:scan()
    rig:pass(1000)
  end
  t.eq(rig:members(pool), 1)
end)

t.test("a_price_limit_that_is_passed_brings_a_notice_after_the_first_hour", function()
  local rig <close> = start()
  local catalog = require "sandbox.cloud.catalog"
  local pool = rig:pool("a", { "ecs.gn6i-c4g1.xlarge" })
  local group = groups.of_pool(rig.ctx, pool)
  local function all_below(limit)
    group.spot_strategy, group.spot_price_limit = "SpotWithPriceLimit", { { instance_type = "ecs.gn6i-c4g1.xlarge", price_limit = limit } }
    group.on_demand_percentage_above_base_capacity = 0
    rig.ctx.store:put("group", group.id, group)
  end
  all_below "9.99"
  groups.set_desired(rig.ctx, group, 1, "test")
  rig:pass(100)
  local instance = groups.members(rig.ctx, group)[1]
  t.ok(catalog.spot_price(instance.type, instance.zone, rig.time) > 1)
  all_below "0.5"
  local noticed
  rig.ctx.on("instance.notice", function() noticed = rig.time end)
  rig:pass(4000)
  t.ok(noticed and noticed - instance.created >= 3600 and noticed - instance.created < 3950, tostring(noticed))
  rig:pass(310)
  t.eq(rig.ctx.store:get("instance", instance.id), nil)
end)
