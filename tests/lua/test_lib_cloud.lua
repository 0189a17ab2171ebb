-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local fake = require "lib_fake"
local json = require "eirun.core.json"

t.test("an_rpc_call_is_flattened_signed_and_decoded", function()
  fake.with(function() return 200, '{"TotalCount":9007199254740993,"Instances":{"Instance":[]}}' end, function(_, seen)
    local answer = cloud.rpc("ecs", "DescribeInstances", { Tag = { { Key = "a b", Value = "c" } }, MaxResults = 100 })
    t.eq(answer.TotalCount, 9007199254740993)
    t.eq({ seen[1].method, seen[1].path, seen[1].action }, { "POST", "/", "DescribeInstances" })
    t.eq(seen[1].query, { MaxResults = "100", RegionId = "cn-hangzhou", ["Tag.1.Key"] = "a b", ["Tag.1.Value"] = "c" })
    t.match(seen[1].headers:get "authorization",
      "^ACS3%-HMAC%-SHA256 Credential=id,SignedHeaders=host;x%-acs%-action;x%-acs%-content%-sha256;x%-acs%-date;" ..
      "x%-acs%-signature%-nonce;x%-acs%-version,Signature=%x+$")
  end)
end)

t.test("a_cs_call_fills_its_path_and_sends_json", function()
  fake.with(function() return 200, { task_id = "" } end, function(_, seen)
    cloud.cs("ModifyClusterNodePool", { ClusterId = "c1", NodepoolId = "np/1" }, { body = { auto_scaling = { enable = false } } })
    t.eq({ seen[1].method, seen[1].path }, { "PUT", "/clusters/c1/nodepools/np%2F1" })
    t.eq(seen[1].body, '{"auto_scaling":{"enable":false}}')
    t.eq(seen[1].headers:get "content-type", "application/json; charset=utf-8")
  end)
end)

t.test("both_envelopes_become_one_kind_of_error", function()
  fake.with(function(call)
    if call.path == "/" then
      return 404, { Code = "InvalidAccessKeyId.NotFound", Message = "Specified access key is not found.", RequestId = "R-1" }
    end
    return 403, { code = "StatusForbidden", message = "policy Forbidden", requestId = "R-2", status = 403,
      accessDeniedDetail = { AuthAction = "cs:DescribeClusterDetail", AuthPrincipalDisplayName = "user bob" } }
  end, function()
    local rpc = t.err("denied", function() cloud.rpc("ecs", "DescribeInstances") end)
    t.eq({ rpc.code, rpc.request_id, rpc.status, rpc.operation }, { "InvalidAccessKeyId.NotFound", "R-1", 404, "DescribeInstances" })
    local cs = t.err("denied", function() cloud.cs("DescribeClusterDetail", { ClusterId = "c1" }, { object = "cluster 'c1'" }) end)
    t.eq(tostring(cs), "DescribeClusterDetail of cluster 'c1': policy Forbidden (StatusForbidden, request id R-2); " ..
      "grant cs:DescribeClusterDetail on acs:cs:cn-hangzhou:1:cluster/c1 to user bob")
  end)
end)

t.test("a_gateways_html_is_quoted_and_a_read_is_tried_again", function()
  fake.with(function(_, n)
    if n < 3 then return 502, "<html><h1>Bad Gateway</h1></html>" end
    return 200, { ok = true }
  end, function(_, seen)
    t.eq(cloud.cs("DescribeClusterDetail", { ClusterId = "c1" }).ok, true)
    t.eq(#seen, 3)
    t.ok(seen[1].headers:get "x-acs-signature-nonce" ~= seen[2].headers:get "x-acs-signature-nonce", "the nonce was used twice")
  end)
end)

t.test("a_write_is_repeated_after_throttling_only", function()
  fake.with(function(_, n)
    if n == 1 then return 400, { code = "Throttling.User", message = "slow" }, { ["x-acs-retry-after"] = 20 } end
    return 503, { code = "ServiceUnavailable", message = "later" }
  end, function(_, seen)
    local err = t.err("internal", function() cloud.cs("CreateClusterNodePool", { ClusterId = "c1" }, { body = {} }) end)
    t.eq(#seen, 2)
    t.eq(err.uncertain, true)
  end)
end)

t.test("an_answer_that_is_no_json_says_so", function()
  fake.with(function() return 200, "<html>hello</html>" end, function()
    local err = t.err("internal", function() cloud.call { product = "cs", action = "DescribeClustersV1", timeout = 0.5 } end)
    t.match(err.message, "DescribeClustersV1: the answer is not JSON")
  end)
end)

t.test("an_unknown_product_wants_its_version", function()
  t.match(t.err("invalid", function() cloud.call { product = "nas", action = "X" } end).message, "give version and style")
  t.match(t.err("invalid", function() cloud.call { product = "cs", acton = "X" } end).message, "did you mean 'action'")
end)

t.test("pages_are_followed_to_the_end", function()
  fake.with(function(call)
    local number, list = tonumber(call.query.PageNumber), json.array {}
    for i = 1, number < 3 and 100 or 50 do list[i] = { InstanceId = "i-" .. number .. "-" .. i } end
    return 200, { ScalingInstances = list, TotalCount = 250 }
  end, function(_, seen)
    local list = cloud.pages("ess", "DescribeScalingInstances", {}, 100, function(answer) return answer.ScalingInstances end)
    t.eq({ #list, #seen }, { 250, 3 })
  end)
end)

-- Node pools ------------------------------------------------------------------------------------------------------------

local function pool_spec(more)
  local given = { name = "gpu", instance_types = { "ecs.gn6i-c4g1.xlarge" }, autoscale = { min = 0, max = 3 }, vswitch_ids = { "vsw-a" },
    spot = { on_demand_percent = 30 } }
  for key, value in pairs(more or {}) do given[key] = value end
  return given
end

-- A Container Service that remembers pools; `lose` drops the answer of the first create.
local function container_service(world)
  return function(call)
    world.calls = (world.calls or "") .. call.action .. " "
    if call.action == "DescribeClusterNodePools" then
      return 200, { nodepools = json.array(world.pool and { world.pool } or {}) }
    elseif call.action == "CreateClusterNodePool" then
      world.pool = call.json()
      world.pool.nodepool_info.nodepool_id, world.pool.scaling_group.scaling_group_id = "np1", "asg-1"
      world.pool.status = { state = "active", total_nodes = 0, healthy_nodes = 0 }
      if world.lose then return "abort" end
      return 200, { nodepool_id = "np1", task_id = "T-1" }
    elseif call.action == "ModifyClusterNodePool" then
      world.modified = call.json()
      for key, value in pairs(world.modified.scaling_group or {}) do world.pool.scaling_group[key] = value end
      return 200, { nodepool_id = "np1", task_id = "" }
    elseif call.action == "DescribeTaskInfo" then
      return 200, { task_id = "T-1", state = world.task or "success", error = { code = "x", message = "no such role" },
        stages = json.array { { message = "stage one" } } }
    end
    return 200, world.pool
  end
end

t.test("a_pool_is_created_once_and_then_left_alone", function()
  local world = {}
  fake.with(container_service(world), function()
    local cluster = ack.cluster "c1"
    local pool, first = cluster:ensure_node_pool(pool_spec())
    local _, second = cluster:ensure_node_pool(pool_spec())
    t.eq({ pool.id, first, second }, { "np1", "created", "unchanged" })
    t.eq(world.calls, "DescribeClusterNodePools CreateClusterNodePool DescribeTaskInfo DescribeClusterNodePoolDetail " ..
      "DescribeClusterNodePools DescribeClusterNodePoolDetail DescribeClusterNodePoolDetail ")
  end)
end)

t.test("a_create_whose_answer_was_lost_is_not_made_twice", function()
  local world = { lose = true }
  fake.with(container_service(world), function()
    local pool, outcome = ack.cluster "c1":ensure_node_pool(pool_spec())
    t.eq({ pool.id, outcome }, { "np1", "created" })
    local _, creates = world.calls:gsub("CreateClusterNodePool", "")
    t.eq(creates, 1)
  end)
end)

t.test("a_failed_task_tells_its_reason_and_its_stages", function()
  local world = { task = "fail" }
  fake.with(container_service(world), function()
    local err = t.err("internal", function() ack.cluster "c1":ensure_node_pool(pool_spec()) end)
    t.eq(err.message, "node pool 'gpu': task T-1 failed: no such role; stage one")
  end)
end)

t.test("another_percentage_updates_the_pool_alone", function()
  local world = {}
  fake.with(container_service(world), function()
    local cluster = ack.cluster "c1"
    cluster:ensure_node_pool(pool_spec())
    local pool, outcome = cluster:ensure_node_pool(pool_spec { spot = { on_demand_percent = 50 } })
    t.eq({ outcome, pool.asked.percent }, { "updated", 50 })
    t.eq(world.modified.auto_scaling, nil)
    t.eq(world.modified.scaling_group.on_demand_percentage_above_base_capacity, 50)
  end)
end)

t.test("a_route_over_63_characters_is_refused", function()
  fake.with(function() return 200, {} end, function()
    local cluster = ack.cluster "c1"
    t.eq(cluster:ingress_log("bert-202107141745-tensorflow-serving", 8501)["sls.ingress.route"],
      "default-bert-202107141745-tensorflow-serving-8501")
    local long = ("x"):rep(55)
    t.match(t.err("invalid", function() cluster:ingress_log(long, 8501) end).message, "at most 63 letters")
  end)
end)
