-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local ack = require "eirun.ack"
local autoscaling = require "eirun.ack.autoscaling"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local pool_spec = require "eirun.ack.pool_spec"
local ratio = require "eirun.ack.ratio"

local function given(more)
  local made = {
    name = "bert-gpu", instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn7i-c8g1.2xlarge" }, vswitch_ids = { "vsw-a", "vsw-b" },
    autoscale = { min = 1, max = 10 }, spot = { on_demand_percent = 30 }, labels = { inference = "tensorflow" },
  }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

t.test("a_spot_pool_is_asked_for_with_all_three_numbers", function()
  t.eq(json.encode(pool_spec.create_body(given())), '{"auto_scaling":{"enable":true,"max_instances":10,"min_instances":1,"type":"gpu"},' ..
    '"kubernetes_config":{"labels":[{"key":"inference","value":"tensorflow"}]},"management":{"enable":false},' ..
    '"nodepool_info":{"name":"bert-gpu","type":"ess"},"scaling_group":{"compensate_with_on_demand":true,' ..
    '"instance_charge_type":"PostPaid","instance_types":["ecs.gn6i-c4g1.xlarge","ecs.gn7i-c8g1.2xlarge"],' ..
    '"multi_az_policy":"COST_OPTIMIZED","on_demand_base_capacity":0,"on_demand_percentage_above_base_capacity":30,' ..
    '"spot_instance_pools":2,"spot_instance_remedy":true,"spot_strategy":"SpotAsPriceGo","tags":[{"key":"managed-by",' ..
    '"value":"eirun"}],"vswitch_ids":["vsw-a","vsw-b"]}}')
end)

-- nil is left out, 0 is sent as 0, "" as "", {} as [] (labels and taints are lists there): to the byte that goes over the wire.
t.test("nothing_zero_empty_text_and_empty_list_stay_apart_to_the_wire", function()
  local sent
  fake.with(function(call)
    if call.action == "CreateClusterNodePool" then
      sent = call.body
      return 200, { nodepool_id = "np1", task_id = "" }
    end
    if call.path:find "nodepools$" then return 200, { nodepools = json.array {} } end
    return 200, { nodepool_info = { nodepool_id = "np1", name = "a" }, auto_scaling = {}, scaling_group = { scaling_group_id = "asg-1" },
      status = { state = "active", healthy_nodes = 0, total_nodes = 0 } }
  end, function()
    ack.cluster("c1"):ensure_node_pool { name = "a", instance_types = { "ecs.g7.xlarge" }, vswitch_ids = { "vsw-a" },
      autoscale = { min = 0, max = 0 }, key_pair = "", labels = {}, taints = {}, security_group_ids = {}, tags = {},
      spot = { on_demand_base = 0, on_demand_percent = 0, compensate = false } }
  end)
  t.eq(sent, '{"auto_scaling":{"enable":true,"max_instances":0,"min_instances":0,"type":"cpu"},' ..
    '"kubernetes_config":{"labels":[],"taints":[]},"management":{"enable":false},"nodepool_info":{"name":"a","type":"ess"},' ..
    '"scaling_group":{"compensate_with_on_demand":false,"instance_charge_type":"PostPaid","instance_types":["ecs.g7.xlarge"],' ..
    '"key_pair":"","multi_az_policy":"COST_OPTIMIZED","on_demand_base_capacity":0,"on_demand_percentage_above_base_capacity":0,' ..
    '"security_group_ids":[],"spot_instance_pools":1,"spot_instance_remedy":true,"spot_strategy":"SpotAsPriceGo",' ..
    '"tags":[{"key":"managed-by","value":"eirun"}],"vswitch_ids":["vsw-a"]}}')
end)

t.test("a_disk_s_encryption_is_a_text_and_a_gpu_pool_of_fixed_size_says_its_type", function()
  local disks = { { size = 300, encrypted = false }, { size = 40 } }
  local body = pool_spec.create_body(given { autoscale = false, size = 2, data_disks = disks })
  t.eq(json.encode(body.scaling_group.data_disks), '[{"encrypted":"false","size":300},{"size":40}]')
  t.eq(body.auto_scaling, { enable = false, type = "gpu" })
end)

local no_stock = { { StatusCode = "Failed", StartTime = "2999-01-01T00:00Z", StatusMessage = "no gn6i in zone h",
  ErrorCode = "OperationDenied.NoStock" } }
local advice = { AvailableSpotZones = { AvailableSpotZone = {
  { ZoneId = "cn-a", AvailableSpotResources = { AvailableSpotResource = {
    { InstanceType = "ecs.g7.xlarge", InterruptionRate = 0, InterruptRateDesc = "0-3%", AverageSpotDiscount = 10 },
    { InstanceType = "ecs.gn7i-c8g1.2xlarge", InterruptionRate = 4, InterruptRateDesc = "3-5%", AverageSpotDiscount = 40 } } } },
  { ZoneId = "cn-b", AvailableSpotResources = { AvailableSpotResource = {
    { InstanceType = "ecs.gn6i-c4g1.xlarge", InterruptionRate = 9, InterruptRateDesc = "5-10%", AverageSpotDiscount = 30 },
    { InstanceType = "ecs.gn7i-c8g1.2xlarge", InterruptionRate = 4, InterruptRateDesc = "3-5%", AverageSpotDiscount = 40 } } } } } } }

-- A create whose task fails, with what ESS and ECS say about it.
local function failing(activities, advise)
  return function(call)
    if call.action == "CreateClusterNodePool" then return 200, { nodepool_id = "np1", task_id = "T-1" } end
    if call.action == "DescribeClusterNodePools" then return 200, { nodepools = json.array {} } end
    if call.action == "DescribeTaskInfo" then
      return 200, { task_id = "T-1", state = "fail", error = { code = "400", message = "instances are missing" },
        stages = json.array { { message = "CreateInstances timed out" }, { message = "instances are missing" } } }
    end
    if call.action == "DescribeScalingActivities" then return 200, { ScalingActivities = activities } end
    if call.action == "DescribeSpotAdvice" then return advise() end
    return 200, { nodepool_info = { nodepool_id = "np1", name = "bert-gpu" }, scaling_group = { scaling_group_id = "asg-1" }, status = {} }
  end
end

local function failure_of(activities, advise)
  local err
  fake.with(failing(activities, advise), function()
    local _, raised = pcall(function() ack.cluster("c1"):ensure_node_pool(given()) end)
    err = raised
  end)
  return err
end

t.test("a_failed_task_is_explained_by_its_scaling_group_and_by_what_the_market_has", function()
  local err = failure_of(no_stock, function() return 200, advice end)
  t.eq({ err.kind, err.code }, { "quota", "OperationDenied.NoStock" })
  t.match(err.message, "task T%-1 failed: instances are missing; CreateInstances timed out; its scaling group says: .*no gn6i in zone h")
  t.match(err.hint, "spot capacity now: ecs.gn7i%-c8g1.2xlarge in cn%-a, cn%-b %(interrupted 3%-5%%, at 40%% of the on%-demand price%); " ..
    "ecs.gn6i%-c4g1.xlarge in cn%-b")
  t.eq(err.hint:find("g7.xlarge", 1, true), nil, "a pool of GPUs is not offered types without")
end)

t.test("a_key_that_may_not_ask_for_advice_still_learns_the_reason", function()
  local err = failure_of(no_stock, function() return 403, { Code = "Forbidden.RAM", Message = "no" } end)
  t.eq({ err.kind, err.code }, { "quota", "OperationDenied.NoStock" })
  t.eq(err.hint:find("spot capacity", 1, true), nil)
end)

t.test("a_time_out_quotes_the_last_failure_of_the_scaling_group_whenever_that_was", function()
  local in_progress = { StatusCode = "InProgress", StartTime = "2001-01-02T00:00Z" }
  local old = { StatusCode = "Failed", StartTime = "2001-01-01T00:00Z", StatusMessage = "no gn6i in zone h",
    ErrorCode = "OperationDenied.NoStock" }
  local function err_of(activities)
    local raised
    fake.with(function(call)
      local info = { nodepool_info = { nodepool_id = "np1", name = "bert-gpu" }, scaling_group = { scaling_group_id = "asg-1" },
        status = { state = "active", healthy_nodes = 0 }, auto_scaling = { enable = true, min_instances = 1, max_instances = 2 } }
      if call.action == "CreateClusterNodePool" then return 200, { nodepool_id = "np1", task_id = "" } end
      if call.action == "DescribeClusterNodePools" then return 200, { nodepools = json.array {} } end
      if call.action == "DescribeScalingActivities" then return 200, { ScalingActivities = activities } end
      if call.action == "DescribeSpotAdvice" then return 200, advice end
      return 200, info
    end, function()
      local _, err = pcall(function() ack.cluster("c1"):ensure_node_pool(given { autoscale = { min = 1, max = 2 }, timeout = 1 }) end)
      raised = err
    end)
    return raised
  end
  local err = err_of { in_progress, old }
  t.eq({ err.kind, err.code }, { "quota", "OperationDenied.NoStock" })
  t.match(err.message, "not ready after 1 seconds: it is active with 0 of 1 nodes; its scaling group says: .*no gn6i in zone h")
  err = err_of { { StatusCode = "Successful", StartTime = "2001-01-02T00:00Z" }, old }
  t.eq({ err.kind, err.message }, { "timeout", "node pool 'bert-gpu' is not ready after 1 seconds: it is active with 0 of 1 nodes" })
end)

t.test("a_failed_task_without_a_failed_activity_speaks_for_itself", function()
  local err = failure_of({}, function() return 200, advice end)
  t.eq({ err.kind, err.code }, { "internal", "400" })
  t.eq(err.message, "node pool 'bert-gpu': task T-1 failed: instances are missing; CreateInstances timed out")
end)

t.test("a_fixed_pool_has_a_size_and_no_spot_numbers", function()
  local body = pool_spec.create_body { name = "cpu", instance_types = { "ecs.g7.xlarge" }, vswitch_ids = { "vsw-a" }, size = 2 }
  t.eq(body.auto_scaling, { enable = false })
  t.eq(body.scaling_group.desired_size, 2)
  t.eq({ body.scaling_group.spot_strategy, body.scaling_group.spot_instance_pools }, { "NoSpot" })
end)

local refused = {
  { { spot = { on_demand_percent = 130 } }, "on_demand_percent must be at most 100" },
  { { autoscale = { min = 5, max = 2 } }, "autoscale.min is 5, above autoscale.max, 2" },
  { { size = 3 }, "exclude each other" },
  { { instance_types = {} }, "must name 1 to 10 instance types" },
  { { instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.g7.xlarge" } }, "mixes types with and without a GPU" },
  { { spot = { pools = 3 } }, "only 2 instance types are named" },
  { { policy = "BALANCE", spot = { compensate = true } }, "works with policy COST_OPTIMIZED only" },
  { { spot = { strategy = "SpotWithPriceLimit" } }, "price_limit is missing" },
  { { name = "-x" }, "is not made of letters" },
  { { taints = { { key = "a", effect = "Never" } } }, "taints wants" },
  { { spot = { on_demand_procent = 3 } }, "did you mean 'on_demand_percent'%?" },
  { { vswitch_ids = {} }, "must name 1 to 8 vSwitches" },
  { { instance_types = { "ecs.g7.xlarge" }, autoscale = { min = 1, max = 2, type = "gpu" } }, "none of instance_types has a GPU" },
  { { instance_types = { "ecs.g7.xlarge" }, autoscale = { min = 1, max = 2, type = "gpushare" } }, "none of instance_types has a GPU" },
  { { spot = { on_demand_percent = -1 } }, "on_demand_percent must be at least 0" },
  { { spot = { on_demand_percent = 30.5 } }, "on_demand_percent must be an integer" },
  { { spot = { on_demand_base = 1001 } }, "on_demand_base must be at most 1000" },
  { { spot = { strategy = "SpotWithPriceLimit", price_limit = { ["ecs.gn5-c4g1.xlarge"] = 3 } } }, "which is not in instance_types" },
  { { spot = { strategy = "SpotWithPriceLimit", price_limit = { ["ecs.gn6i-c4g1.xlarge"] = "cheap" } } }, "is no price: cheap" },
  { { data_disks = { { size = 20 } } }, "data_disks%[1%]: size must be at least 40" },
  { { labels = { ["kubernetes.io/role"] = "x" } }, "has 'kubernetes.io/role': keys under kubernetes.io" },
  { { autoscale = 3 }, "autoscale: wants a table of options" },
  { { lables = {} }, "unknown field 'lables', did you mean 'labels'%?" },
  { { spot = { price_limits = {} } }, "unknown field 'price_limits', did you mean 'price_limit'%?" },
}

for i, row in ipairs(refused) do
  t.test("a_pool_that_cannot_be_is_refused_before_any_write_" .. i, function()
    local err = t.err("invalid", function() pool_spec.check(given(row[1])) end)
    t.match(err.message, row[2])
    t.match(err.message, "^tests/lua/test_lib_node_pool.lua:%d+: ")
  end)
end

-- What the API tells of a pool made from `given`, with what the vendor adds.
local function observed(more)
  local body = pool_spec.create_body(given())
  body.nodepool_info.nodepool_id = "np1"
  body.scaling_group.scaling_group_id = "asg-1"
  body.scaling_group.system_disk_category = "cloud_efficiency"
  table.insert(body.kubernetes_config.labels, 1, { key = "vendor/added", value = "x" })
  body.scaling_group.vswitch_ids = json.array { "vsw-b", "vsw-a" }
  for key, value in pairs(more or {}) do body.scaling_group[key] = value end
  return body
end

t.test("a_pool_as_it_was_made_does_not_differ", function()
  t.eq(pool_spec.compare(observed(), pool_spec.wanted(given())), {})
end)

t.test("another_percentage_is_one_change_and_the_update_sends_that_section_whole", function()
  local wanted = pool_spec.wanted(given { spot = { on_demand_percent = 50 } })
  local changes = pool_spec.compare(observed(), wanted)
  t.eq(changes, { { field = "scaling_group.on_demand_percentage_above_base_capacity", from = 30, to = 50 } })
  local body = pool_spec.modify_body(observed(), wanted, changes)
  t.eq({ body.auto_scaling, body.kubernetes_config, body.update_nodes }, {})
  t.eq({ body.scaling_group.on_demand_base_capacity, body.scaling_group.spot_instance_pools }, { 0, 2 })
end)

t.test("a_new_bound_sends_auto_scaling_whole_and_nothing_else", function()
  local wanted = pool_spec.wanted(given { autoscale = { min = 0, max = 20 } })
  local changes = pool_spec.compare(observed(), wanted)
  t.eq(#changes, 2)
  t.eq(pool_spec.modify_body(observed(), wanted, changes),
    { auto_scaling = { enable = true, type = "gpu", min_instances = 0, max_instances = 20 } })
end)

t.test("labels_of_others_survive_an_update", function()
  local wanted = pool_spec.wanted(given { labels = { inference = "triton" } })
  local changes = pool_spec.compare(observed(), wanted)
  t.eq(changes, { { field = "kubernetes_config.labels.inference", from = "tensorflow", to = "triton" } })
  local body = pool_spec.modify_body(observed(), wanted, changes)
  t.eq(body.kubernetes_config.labels, { { key = "inference", value = "triton" }, { key = "vendor/added", value = "x" } })
  t.eq(body.update_nodes, true)
end)

t.test("a_spot_pool_cannot_become_an_ordinary_one", function()
  local wanted = pool_spec.wanted { name = "bert-gpu", instance_types = given().instance_types, autoscale = { min = 1, max = 10 } }
  local changes = pool_spec.compare(observed(), wanted)
  t.match(t.err("conflict", function() pool_spec.check_changes("bert-gpu", changes) end).hint, "another name")
end)

t.test("a_pool_without_our_tag_is_somebody_elses", function()
  t.eq(pool_spec.foreign(observed()), nil)
  t.match(pool_spec.foreign(observed { tags = json.array {} }), "eirun did not make it")
end)

t.test("gpu_types_are_known_by_their_family", function()
  t.eq({ pool_spec.is_gpu "ecs.gn6i-c4g1.xlarge", pool_spec.is_gpu "ecs.vgn6i-m4.xlarge", pool_spec.is_gpu "ecs.ebmgn7e.32xlarge",
    pool_spec.is_gpu "ecs.g7.xlarge", pool_spec.is_gpu "ecs.c7.large" }, { true, true, true, false, false })
end)

t.test("the_rule_of_base_and_percentage", function()
  t.eq(ratio.expected(10, { base = 1, percent = 30 }), { on_demand = 3.7, spot = 6.3 })
  t.eq(ratio.expected(2, { base = 5, percent = 30 }), { on_demand = 2.0, spot = 0.0 })
end)

t.test("autoscaling_speaks_the_apis_strings_and_minutes", function()
  t.eq(json.encode(autoscaling.wanted { scaler = "cluster-autoscaler", scan_interval = 30, cool_down = 600, utilization = 0.5 }),
    '{"cool_down_duration":"10","scaler_type":"cluster-autoscaler","scan_interval":"30","utilization_threshold":"0.5"}')
end)

t.test("priorities_name_pools_or_groups", function()
  local priorities = { [100] = { { scaling_group_id = "asg-a" } }, [10] = { "asg-b" } }
  t.eq(json.encode(autoscaling.wanted { expander = "priority", priorities = priorities }),
    '{"expander":"priority","priorities":{"10":["asg-b"],"100":["asg-a"]},"scaler_type":"cluster-autoscaler"}')
end)

for i, row in ipairs {
  { { scaler = "goatscaler", expander = "random" }, "expander is for scaler" },
  { { scaler = "goatscaler", scale_down = false }, "scale_down is for" },
  { { expander = "priority" }, "wants priorities" }, { { priorities = { [5] = { "asg-a" } } }, "want expander" },
  { { expander = "priority", priorities = { [500] = { "asg-a" } } }, "no number from 1 to 100" },
  { { scan_interval = 20 }, "scan_interval" },
  { { cool_down = 90 }, "whole minutes" }, { { expender = "random" }, "did you mean 'expander'%?" },
} do
  t.test("autoscaling_that_cannot_be_is_refused_" .. i, function()
    t.match(t.err("invalid", function() autoscaling.check(row[1]) end).message, row[2])
  end)
end

t.test("a_setting_that_is_new_is_a_change_unless_none_can_be_read", function()
  local wanted = autoscaling.wanted { scan_interval = 15, cool_down = 600 }
  t.eq(autoscaling.compare({ scaler_type = "cluster-autoscaler", scan_interval = 15 }, wanted),
    { { field = "cool_down_duration", to = "10" } })
  t.eq(autoscaling.compare({ scaler_type = "cluster-autoscaler" }, wanted), {})
  t.eq(autoscaling.compare({ scaler_type = "goatscaler" }, wanted),
    { { field = "scaler_type", from = "goatscaler", to = "cluster-autoscaler" } })
end)
