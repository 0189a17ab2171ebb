-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local crypto = require "eirun.core.crypto"
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local client = require "sandbox_client"

-- Only the parts under test: the cluster's own have tests of theirs.
local sandbox = {}

function sandbox.start(options)
  options = options or {}
  options.parts = { "sandbox.control", "sandbox.cloud", "sandbox.sls" }
  return client.start(options)
end

local function gpu_pool(change)
  local body = {
    nodepool_info = { name = "inference", type = "ess" },
    auto_scaling = { enable = true, type = "gpu", min_instances = 1, max_instances = 10 },
    scaling_group = { instance_charge_type = "PostPaid", instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn7i-c8g1.2xlarge" },
      vswitch_ids = { "vsw-bp1eirunh", "vsw-bp1eiruni" }, multi_az_policy = "COST_OPTIMIZED", spot_strategy = "SpotAsPriceGo",
      on_demand_base_capacity = 0, on_demand_percentage_above_base_capacity = 30, spot_instance_pools = 2,
      compensate_with_on_demand = true, tags = { { key = "owner", value = "test" } } },
    kubernetes_config = { labels = { { key = "inference", value = "tensorflow" } } },
  }
  for section, fields in pairs(change or {}) do
    body[section] = body[section] or {}
    for name, value in pairs(fields) do body[section][name] = value end
  end
  return body
end

local function create(box, change)
  local status, made = box:cs("POST", "/clusters/CID/nodepools", { body = gpu_pool(change) })
  t.eq(status, 200, made and made.message)
  t.match(made.nodepool_id, "^np%x+$")
  t.eq(box:wait_task(made.task_id).state, "success")
  return made.nodepool_id
end

local function pool_of(box, id)
  local status, pool = box:cs("GET", "/clusters/CID/nodepools/" .. id)
  t.eq(status, 200)
  return pool
end

local function active(box, id)
  return box:wait("an active pool", function()
    local pool = pool_of(box, id)
    return pool.status.state == "active" and pool
  end)
end

t.test("a_fresh_sandbox_has_a_cluster_with_a_system_pool", function()
  local box <close> = sandbox.start()
  local status, list = box:cs("GET", "/api/v1/clusters")
  t.eq(status, 200)
  t.eq({ list.clusters[1].cluster_id, list.clusters[1].name, list.page_info.total_count }, { box.info.cluster_id, "eirun-sandbox", 1 })
  local _, pools = box:cs("GET", "/clusters/CID/nodepools")
  t.eq({ #pools.nodepools, pools.nodepools[1].nodepool_info.name, pools.nodepools[1].status.healthy_nodes }, { 1, "default", 2 })
  local _, addons = box:cs("GET", "/clusters/CID/addon_instances")
  t.ok(#addons.addons > 5)
  t.eq(box:log(), "")
end)

t.test("the_life_of_a_pool_over_all_services", function()
  local box <close> = sandbox.start()
  local id = create(box)
  local pool = active(box, id)
  t.eq({ pool.auto_scaling.min_instances, pool.auto_scaling.max_instances, pool.status.total_nodes }, { 1, 10, 1 })
  t.eq(pool.scaling_group.on_demand_percentage_above_base_capacity, 30)
  local group_id = pool.scaling_group.scaling_group_id
  t.match(group_id, "^asg%-")

  local _, groups = box:rpc("ess", "DescribeScalingGroups", { RegionId = "cn-hangzhou", ["ScalingGroupIds.1"] = group_id })
  local group = groups.ScalingGroups[1]
  t.eq({ groups.TotalCount, group.ScalingGroupName, group.ActiveCapacity }, { 1, "acs-nodePool-" .. id, 1 })
  local _, instances = box:rpc("ess", "DescribeScalingInstances", { RegionId = "cn-hangzhou", ScalingGroupId = group_id })
  t.eq(instances.TotalCount, 1)
  local _, ecs = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou", ["Tag.1.Key"] = "ack.alibabacloud.com/nodepool-id",
    ["Tag.1.Value"] = id })
  local one = ecs.Instances.Instance[1]
  t.eq({ ecs.TotalCount, one.InstanceId, one.InstanceChargeType, one.Status },
    { 1, instances.ScalingInstances[1].InstanceId, "PostPaid", "Running" })
  local _, nodes = box:cs("GET", "/clusters/CID/nodes", { query = { nodepool_id = id, pageSize = 100 } })
  t.eq({ nodes.nodes[1].instance_id, nodes.nodes[1].state, nodes.page.total_count }, { one.InstanceId, "running", 1 })

  local status, changed = box:cs("PUT", "/clusters/CID/nodepools/" .. id,
    { body = { auto_scaling = { enable = true, min_instances = 4, max_instances = 10 } } })
  t.eq(status, 200)
  t.eq(box:wait_task(changed.task_id).state, "success")
  t.eq(active(box, id).status.total_nodes, 4)
  _, instances = box:rpc("ess", "DescribeScalingInstances", { RegionId = "cn-hangzhou", ScalingGroupId = group_id, PageSize = 50 })
  t.eq({ instances.TotalCount, instances.TotalSpotCount }, { 4, 3 })

  local _, gone = box:cs("DELETE", "/clusters/CID/nodepools/" .. id, { query = { force = "true" } })
  t.eq(box:wait_task(gone.task_id).state, "success")
  local missing, answer = box:cs("GET", "/clusters/CID/nodepools/" .. id)
  t.eq({ missing, answer.code }, { 404, "ErrorNodePoolNotFound" })
  _, ecs = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou" })
  t.eq(ecs.TotalCount, 2)
  t.eq(box:log(), "")
end)

t.test("a_fixed_pool_asks_for_the_size_that_it_was_scaled_to", function()
  local box <close> = sandbox.start()
  local _, pools = box:cs("GET", "/clusters/CID/nodepools")
  local id = pools.nodepools[1].nodepool_info.nodepool_id
  local _, made = box:cs("POST", "/clusters/CID/nodepools/" .. id, { body = { count = 2 } })
  t.eq(box:wait_task(made.task_id).state, "success")
  t.eq(active(box, id).scaling_group.desired_size, 4)
  local _, nodes = box:cs("GET", "/clusters/CID/nodes", { query = { nodepool_id = id } })
  local _, gone = box:cs("DELETE", "/clusters/CID/nodepools/" .. id .. "/nodes",
    { query = { instance_ids = json.encode { nodes.nodes[1].instance_id }, release_node = "true" } })
  local task_info = box:wait_task(gone.task_id)
  t.eq({ task_info.state, task_info.task_result[1].status }, { "success", "success" })
  local pool = active(box, id)
  t.eq({ pool.scaling_group.desired_size, pool.status.total_nodes }, { 3, 3 })
end)

t.test("deleting_a_pool_with_nodes_needs_force", function()
  local box <close> = sandbox.start()
  local id = create(box)
  active(box, id)
  local _, gone = box:cs("DELETE", "/clusters/CID/nodepools/" .. id)
  local task_info = box:wait_task(gone.task_id)
  t.eq({ task_info.state, task_info.error.message }, { "fail", "ScalingGroup's instances not empty" })
  local status, err = box:cs("PUT", "/clusters/CID/nodepools/" .. id, { body = { update_nodes = false } })
  t.eq({ status, err.code }, { 400, "InvalidNodePoolStatus.Forbidden" })
end)

t.test("a_stuck_deletion_is_repaired_through_the_scaling_group", function()
  local box <close> = sandbox.start()
  local id = create(box)
  local group = active(box, id).scaling_group.scaling_group_id
  box:control("POST", "/faults", { kind = "delete_failed", service = "CS", action = "DeleteClusterNodepool" })
  local path = "/clusters/CID/nodepools/" .. id
  local _, gone = box:cs("DELETE", path, { query = { force = "true" } })
  t.eq(box:wait_task(gone.task_id).state, "fail")
  t.eq(pool_of(box, id).status.state, "delete_failed")
  t.eq((box:rpc("ess", "ModifyScalingGroup", { RegionId = "cn-hangzhou", ScalingGroupId = group, MinSize = 0, MaxSize = 0,
    DesiredCapacity = 0, GroupDeletionProtection = "false" })), 200)
  box:wait("an empty group", function()
    local _, found = box:rpc("ess", "DescribeScalingGroups", { RegionId = "cn-hangzhou", ["ScalingGroupIds.1"] = group })
    return found.ScalingGroups[1].TotalCapacity == 0
  end)
  _, gone = box:cs("DELETE", path)
  t.eq(box:wait_task(gone.task_id).state, "success")
  t.eq((box:cs("GET", path)), 404)
end)

t.test("a_body_with_a_mistake_names_it", function()
  local box <close> = sandbox.start()
  local function refused(change, code, pattern)
    local status, err = box:cs("POST", "/clusters/CID/nodepools", { body = gpu_pool(change) })
    t.eq({ status, err.code }, { 400, code })
    t.match(err.message, pattern)
    t.match(err.requestId, "^%x+%-")
  end
  refused({ scaling_group = { on_demand_percentage_above_base_capacity = 130 } }, "InvalidParameter", "between 0 and 100")
  refused({ scaling_group = { spot_strategy = true } }, "InvalidParameter", "expected=string, got=bool, field=scaling_group.spot_strategy")
  refused({ scaling_group = { desired_size = 2 } }, "InvalidDesiredSizeOrCount.NotNull", "auto scaling")
  refused({ auto_scaling = { min_instances = 5, max_instances = 2 } }, "InvalidParameter.AutoScaling", "greater")
  refused({ scaling_group = { multi_az_policy = "BALANCE" } }, "InvalidParameter.MultiAZPolicy", "COST_OPTIMIZED")
  refused({ scaling_group = { instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.g7.xlarge" } } }, "InvalidParameter.InstanceTypes", "mixed")
  refused({ scaling_group = { instance_types = { "ecs.none" } } }, "InvalidInstanceType.NotFound", "ecs.none")
  refused({ scaling_group = { vswitch_ids = { "vsw-x" } } }, "InvalidVSwitchId.NotFound", "vsw%-x")
  refused({ scaling_group = { key_pair = "k", login_password = "Secret123!" } }, "InvalidParameter.LoginPassword", "exclude")
  refused({ nodepool_info = { name = "-x" } }, "InvalidParameter.NodePoolName", "name")
  refused({ kubernetes_config = { labels = { { key = "kubernetes.io/x", value = "" } } } }, "InvalidParameter.Labels", "reserved")
  refused({ scaling_group = { data_disks = { { category = "cloud_essd", size = 100, encrypted = false } } } }, "InvalidParameter",
    "expected=string, got=bool")
  local _, pools = box:cs("GET", "/clusters/CID/nodepools")
  t.eq(#pools.nodepools, 1)
end)

local pools_path = "/clusters/CID/nodepools"

t.test("requests_that_are_not_the_owners_are_refused", function()
  local box <close> = sandbox.start()
  local function refused(options, status, code)
    local got, err = box:cs("GET", pools_path, options)
    t.eq({ got, err.code }, { status, code })
  end
  refused({ key = { id = "LTAInobody", secret = "x" } }, 404, "InvalidAccessKeyId.NotFound")
  refused({ key = { id = box.key.id, secret = "wrong" } }, 400, "SignatureDoesNotMatch")
  refused({ skew = -16 * 60 }, 400, "InvalidTimeStamp.Expired")
  refused({ skew = 16 * 60 }, 400, "InvalidTimeStamp.Expired")
  refused({ headers = { ["x-acs-content-sha256"] = ("0"):rep(64) } }, 400, "SignatureDoesNotMatch")
  t.eq((box:cs("GET", pools_path, { skew = -14 * 60 })), 200)
end)

t.test("a_body_changed_on_the_way_is_noticed", function()
  local box <close> = sandbox.start()
  local status, err = box:cs("POST", pools_path, { body = '{"nodepool_info":{"name":"a"}}', send = '{"nodepool_info":{"name":"b"}}' })
  t.eq({ status, err.code }, { 400, "SignatureDoesNotMatch" })
  t.match(err.message, "server string to sign is:ACS3")
end)

t.test("a_nonce_works_once", function()
  local box <close> = sandbox.start()
  local options = { headers = { ["x-acs-signature-nonce"] = "only-once" } }
  t.eq((box:cs("GET", pools_path, options)), 200)
  local status, err = box:cs("GET", pools_path, options)
  t.eq({ status, err.code }, { 400, "SignatureNonceUsed" })
end)

t.test("plain_http_and_https_serve_the_same", function()
  local box <close> = sandbox.start()
  t.eq((box:cs("GET", pools_path, { scheme = "http" })), 200)
  t.eq((box:cs("GET", pools_path)), 200)
end)

t.test("hosts_outside_the_route_table_are_denied", function()
  local box <close> = sandbox.start()
  for _, url in ipairs { "http://example.org/", "https://cs.cn-beijing.aliyuncs.com/", "http://127.0.0.1:1/", "https://10.0.0.1/",
    "http://cs.cn-hangzhou.aliyuncs.com:8080/", "http://100.100.100.201/", "http://evil-cs.cn-hangzhou.aliyuncs.com.attacker.net/" } do
    local reply, err = box.http:request { method = "GET", url = url, timeout = 5 }
    t.eq(reply, nil)
    t.eq(err.kind, "denied", url)
  end
end)

-- The sandbox's own clients (scaler, kubelet, ingress) live in its state: the same table closes that, too.
t.test("the_sandbox_itself_cannot_reach_outside", function()
  local fs = require "eirun.core.fs"
  local ctx = require("sandbox.world").new { dir = assert(fs.mkdtemp "/tmp/eirun-test-") }
  require("sandbox.control").start(ctx)
  local server = require("sandbox.server").start(ctx)
  local user <close> = http.client {}
  t.eq(user:request({ method = "GET", url = "http://sandbox.eirun.invalid/status" }).status, 403)
  for _, url in ipairs { "http://example.org/", "https://cs.cn-hangzhou.aliyuncs.com/", "http://127.0.0.1:9/" } do
    local reply, err = user:request { method = "GET", url = url }
    t.eq({ reply, err.kind }, { nil, "denied" })
  end
  server:close()
  ctx.scope:cancel("the test is over")
  pcall(ctx.scope.join, ctx.scope)
  ctx.store:close()
  fs.remove(ctx.dir, { recursive = true })
end)

t.test("a_real_control_plane_is_taken_on_loopback_only", function()
  local fs = require "eirun.core.fs"
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local function start(server)
    fs.write(dir .. "/kubeconfig", ([[{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"c","user":"u"}}],
      "clusters":[{"name":"c","cluster":{"server":"%s"}}],"users":[{"name":"u","user":{"token":"t"}}]}]]):format(server))
    local box <close> = sandbox.start { dir = dir .. "/box", kubeconfig = dir .. "/kubeconfig", keep = true }
    local routes = box.info.routes
    return routes[#routes].address
  end
  t.eq(start "https://127.0.0.1:6443", "127.0.0.1:6443")
  for _, server in ipairs { "https://10.0.0.1:6443", "https://k8s.example.com:6443", "https://127.0.0.1.example.com:6443" } do
    local ok, err = pcall(start, server)
    t.eq(ok, false, server)
    t.match(tostring(err), "loopback only")
  end
  fs.remove(dir, { recursive = true })
end)

t.test("who_am_i_and_assumed_roles", function()
  local box <close> = sandbox.start()
  local _, me = box:rpc("sts", "GetCallerIdentity")
  t.eq({ me.AccountId, me.IdentityType, me.Arn }, { "1234567890123456", "Account", "acs:ram::1234567890123456:root" })
  local _, made = box:rpc("sts", "AssumeRole", { RoleArn = "acs:ram::1234567890123456:role/aliyuncsdefaultrole", RoleSessionName = "s-1",
    DurationSeconds = 900 })
  local keys = made.Credentials
  local key = { id = keys.AccessKeyId, secret = keys.AccessKeySecret, token = keys.SecurityToken }
  local _, who = box:rpc("sts", "GetCallerIdentity", {}, { key = key })
  t.eq({ who.IdentityType, who.Arn }, { "AssumedRoleUser", "acs:ram::1234567890123456:assumed-role/AliyunCSDefaultRole/s-1" })
  local function code(changed)
    local _, err = box:rpc("sts", "GetCallerIdentity", {}, { key = changed })
    return err.Code
  end
  t.eq(code { id = key.id, secret = key.secret }, "MissingSecurityToken")
  t.eq(code { id = key.id, secret = key.secret, token = "other" }, "InvalidSecurityToken.MismatchWithAccessKey")
  local status, err = box:rpc("sts", "AssumeRole", { RoleArn = "acs:ram::1:role/none", RoleSessionName = "s-1" })
  t.eq({ status, err.Code, err.HostId }, { 404, "EntityNotExist.Role", "sts.aliyuncs.com" })
end)

t.test("a_restricted_user_is_told_which_action_it_lacks", function()
  local box <close> = sandbox.start()
  box:rpc("ram", "CreateUser", { UserName = "ci" })
  box:rpc("ram", "CreatePolicy", { PolicyName = "read", PolicyDocument = json.encode { Version = "1", Statement = { { Effect = "Allow",
    Action = { "cs:Describe*", "ecs:DescribeInstances" }, Resource = "*" } } } })
  box:rpc("ram", "AttachPolicyToUser", { UserName = "ci", PolicyName = "read", PolicyType = "Custom" })
  local _, made = box:rpc("ram", "CreateAccessKey", { UserName = "ci" })
  local key = { id = made.AccessKey.AccessKeyId, secret = made.AccessKey.AccessKeySecret }
  t.eq((box:cs("GET", pools_path, { key = key })), 200)
  local status, err = box:cs("POST", pools_path, { key = key, body = gpu_pool() })
  t.eq({ status, err.code, err.accessDeniedDetail.AuthAction }, { 403, "StatusForbidden", "cs:CreateClusterNodePool" })
  status, err = box:rpc("vpc", "DescribeVSwitches", { RegionId = "cn-hangzhou" }, { key = key })
  t.eq({ status, err.Code }, { 403, "Forbidden.RAM" })
  box.keep = true
  box:stop()
  local again <close> = sandbox.start { dir = box.dir }
  t.eq((again:cs("GET", pools_path, { key = key })), 200)
  t.eq((again:cs("POST", pools_path, { key = key, body = gpu_pool() })), 403)
  local _, listed = again:rpc("ram", "ListPoliciesForUser", { UserName = "ci" })
  t.eq(listed.Policies.Policy, { { PolicyName = "read", PolicyType = "Custom" } })
end)

t.test("no_stock_shows_in_the_scaling_activities", function()
  local box <close> = sandbox.start()
  t.eq((box:control("POST", "/faults", { kind = "stock_out", market = "spot" })), 200)
  t.eq((box:control("POST", "/faults", { kind = "stock_out", market = "on_demand", type = "ecs.gn6i-c4g1.xlarge" })), 200)
  local id = create(box, { auto_scaling = { min_instances = 2 }, scaling_group = { instance_types = { "ecs.gn6i-c4g1.xlarge" } } })
  local group = pool_of(box, id).scaling_group.scaling_group_id
  local _, list = box:rpc("ess", "DescribeScalingActivities", { RegionId = "cn-hangzhou", ScalingGroupId = group })
  t.eq({ list.ScalingActivities[1].StatusCode, list.ScalingActivities[1].ErrorCode }, { "Failed", "OperationDenied.NoStock" })
  local _, advice = box:rpc("ecs", "DescribeSpotAdvice", { RegionId = "cn-hangzhou", ["InstanceTypes.1"] = "ecs.gn6i-c4g1.xlarge" })
  t.eq(#advice.AvailableSpotZones.AvailableSpotZone[1].AvailableSpotResources.AvailableSpotResource, 0)
end)

t.test("a_reclaimed_spot_instance_is_noticed_then_gone", function()
  local box <close> = sandbox.start { lag = { spot_notice = 0.3 } }
  local id = create(box, { auto_scaling = { min_instances = 3 }, scaling_group = { spot_instance_remedy = true } })
  active(box, id)
  box:control("POST", "/faults", { kind = "reclaim" })
  local _, noticed = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou", LockReason = "Recycling" })
  t.eq(noticed.TotalCount, 2)
  local one = noticed.Instances.Instance[1]
  local reply = box.http:request { method = "GET", url = "http://100.100.100.200/latest/meta-data/instance/spot/termination-time",
    headers = { ["x-sandbox-instance"] = one.InstanceId } }
  t.eq(reply.status, 200)
  t.match(reply.body, "^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%dZ$")
  box:wait("the replacement", function()
    local _, ecs = box:rpc("ecs", "DescribeInstances", { RegionId = "cn-hangzhou", PageSize = 100, ["Tag.1.Key"] = "owner" })
    local left = 0
    for _, instance in ipairs(ecs.Instances.Instance) do
      if #instance.OperationLocks.LockReason > 0 then left = left + 1 end
    end
    return left == 0 and ecs.TotalCount == 3
  end)
end)

t.test("throttling_and_broken_replies_on_demand", function()
  local box <close> = sandbox.start()
  box:control("POST", "/faults", { kind = "throttle", service = "CS", action = "DescribeClusterNodePools", retry_after = 250 })
  local status, err, reply = box:cs("GET", pools_path)
  t.eq({ status, err.code, reply.headers:get "x-acs-retry-after" }, { 400, "Throttling.User", "250" })
  t.eq((box:cs("GET", pools_path)), 200)
  box:control("POST", "/faults", { kind = "html", service = "CS", status = 503, times = 2, skip = 1 })
  t.eq((box:cs("GET", pools_path)), 200)
  t.eq({ (box:cs("GET", pools_path)), (box:cs("GET", pools_path)), (box:cs("GET", pools_path)) }, { 503, 503, 200 })
  t.eq((box:control("POST", "/faults", { kind = "none" })), 400)
  t.eq((box:control("POST", "/faults", { kind = "html", oops = 1 })), 400)
end)

t.test("a_reply_lost_after_the_commit_leaves_a_pool", function()
  local box <close> = sandbox.start()
  box:control("POST", "/faults", { kind = "reset_after_commit", service = "CS", action = "CreateClusterNodePool" })
  local status = box:cs("POST", pools_path, { body = gpu_pool() })
  t.eq(status, nil)
  local _, pools = box:cs("GET", pools_path, { query = { NodepoolName = "inference" } })
  t.eq(#pools.nodepools, 1)
  box:control("POST", "/faults", { kind = "reset", service = "CS", action = "CreateClusterNodePool" })
  box:cs("POST", pools_path, { body = gpu_pool { nodepool_info = { name = "other" } } })
  _, pools = box:cs("GET", pools_path, { query = { NodepoolName = "other" } })
  t.eq(#pools.nodepools, 0)
end)

t.test("state_outlives_the_process", function()
  local first = sandbox.start { keep = true }
  local id = create(first)
  active(first, id)
  first:stop()
  local box <close> = sandbox.start { dir = first.dir }
  t.eq(box.info.first_boot, false)
  t.eq({ box.info.access_key_id, box.info.access_key_secret }, { first.info.access_key_id, first.info.access_key_secret })
  t.eq(pool_of(box, id).status.healthy_nodes, 1)
end)

t.test("the_state_directory_is_its_owners_alone", function()
  local box <close> = sandbox.start()
  local fs = require "eirun.core.fs"
  t.eq(fs.stat(box.dir).mode & 511, 448)
  for _, name in ipairs { "credentials.json", "ca.key", "server.json" } do t.eq(fs.stat(box.dir .. "/" .. name).mode & 511, 384, name) end
end)

t.test("a_directory_with_a_long_path_works_too", function()
  local fs = require "eirun.core.fs"
  local top = assert(fs.mkdtemp "/tmp/eirun-test-")
  local box <close> = sandbox.start { dir = top .. "/" .. ("deep/"):rep(30) .. "box" }
  t.eq((box:cs("GET", pools_path)), 200)
  local sockets
  for _, route in ipairs(box.info.routes) do sockets = sockets or route.unix and route.unix:match "^(/tmp/.*)/" end
  t.ok(fs.stat(sockets), "the sockets have a shorter path")
  box:stop()
  t.eq(fs.stat(sockets), nil)
  fs.remove(top, { recursive = true })
end)

t.test("a_damaged_file_is_named", function()
  local fs = require "eirun.core.fs"
  for name, text in pairs { ["credentials.json"] = "{", ["state.db"] = "no database at all" } do
    local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
    assert(fs.write(dir .. "/" .. name, text))
    local ok, err = pcall(sandbox.start, { dir = dir })
    t.eq(ok, false)
    t.match(tostring(err), name:gsub("%.", "%%."))
    fs.remove(dir, { recursive = true })
  end
end)

t.test("two_processes_cannot_share_a_directory", function()
  local box <close> = sandbox.start()
  local ok, err = pcall(sandbox.start, { dir = box.dir })
  t.eq(ok, false)
  t.match(tostring(err), "lock")
  http.routes(box.info.routes)
end)

t.test("prices_history_and_vswitches", function()
  local box <close> = sandbox.start()
  local facts = { RegionId = "cn-hangzhou", InstanceType = "ecs.gn6i-c4g1.xlarge", ResourceType = "instance", NetworkType = "vpc" }
  local _, price = box:rpc("ecs", "DescribePrice", facts)
  t.ok(price.PriceInfo.Price.TradePrice > 0)
  facts.SpotStrategy = "SpotAsPriceGo"
  local _, spot = box:rpc("ecs", "DescribePrice", facts)
  t.ok(spot.PriceInfo.Price.TradePrice < price.PriceInfo.Price.TradePrice)
  local _, history = box:rpc("ecs", "DescribeSpotPriceHistory", facts)
  t.eq(#history.SpotPrices.SpotPriceType, 9)
  local _, switches = box:rpc("vpc", "DescribeVSwitches", { RegionId = "cn-hangzhou" })
  t.eq(switches.TotalCount, 3)
  t.eq(switches.VSwitches.VSwitch[1].AvailableIpAddressCount, 4091)
  local status, err = box:rpc("ecs", "NoSuchAction", {})
  t.eq({ status, err.Code }, { 404, "InvalidAction.NotFound" })
end)

t.test("metadata_gives_the_workers_role_a_key_that_signs", function()
  local box <close> = sandbox.start()
  local base = "http://100.100.100.200/latest/"
  local token = box.http:request { method = "PUT", url = base .. "api/token",
    headers = { ["X-aliyun-ecs-metadata-token-ttl-seconds"] = "21600" } }
  t.eq(token.status, 200)
  local role = box.http:request { method = "GET", url = base .. "meta-data/ram/security-credentials/" }
  local keys = json.decode(box.http:request { method = "GET", url = base .. "meta-data/ram/security-credentials/" .. role.body }.body)
  t.eq(keys.Code, "Success")
  local key = { id = keys.AccessKeyId, secret = keys.AccessKeySecret, token = keys.SecurityToken }
  t.eq((box:rpc("sts", "GetCallerIdentity", {}, { key = key })), 200)
  local safe = box.http:request { method = "GET", url = base .. "meta-data/instance/spot/termination-time" }
  t.eq(safe.status, 404)
end)

t.test("addons_install_once_and_leave", function()
  local box <close> = sandbox.start()
  local path = "/clusters/CID/components/"
  local _, listed = box:cs("GET", "/addons/cluster-autoscaler", { query = { cluster_id = box.info.cluster_id } })
  local _, made = box:cs("POST", path .. "install", { body = { { name = "cluster-autoscaler", version = listed.version } } })
  t.eq(box:wait_task(made.task_id).state, "success")
  local status, err = box:cs("POST", path .. "install", { body = { { name = "cluster-autoscaler", version = listed.version } } })
  t.eq({ status, err.code }, { 400, "AddonAlreadyInstalled" })
  _, made = box:cs("POST", path .. "uninstall", { body = { { name = "cluster-autoscaler" } } })
  t.eq(box:wait_task(made.task_id).state, "success")
  status, err = box:cs("GET", "/clusters/CID/addon_instances/cluster-autoscaler")
  t.eq({ status, err.code }, { 404, "AddonNotFound" })
end)

t.test("same_seed_and_fresh_state_give_the_same_ids", function()
  local function history()
    local box <close> = sandbox.start { seed = 7 }
    local id = create(box)
    local _, nodes = box:cs("GET", "/clusters/CID/nodes", { query = { pageSize = 100 } })
    local names = { id, active(box, id).scaling_group.scaling_group_id }
    for _, node in ipairs(nodes.nodes) do names[#names + 1] = node.instance_id .. node.node_name end
    return table.concat(names, " ")
  end
  t.eq(history(), history())
end)

t.test("autoscaling_configuration_brings_the_scaler", function()
  local box <close> = sandbox.start()
  local path = "/cluster/CID/autoscale/config/"
  local status, err = box:cs("POST", path, { body = { scan_interval = "31" } })
  t.eq({ status, err.code }, { 400, "InvalidParameter.scan_interval" })
  local _, made = box:cs("POST", path, { body = { scaler_type = "cluster-autoscaler", scan_interval = "30", unneeded_duration = "10m" } })
  t.eq(box:wait_task(made.task_id).state, "success")
  local _, addon = box:cs("GET", "/clusters/CID/addon_instances/cluster-autoscaler")
  t.eq(addon.state, "active")
end)

local function sls(box, options)
  local headers = { date = os.date("!%a, %d %b %Y %H:%M:%S GMT"), ["x-log-apiversion"] = "0.6.0", ["x-log-signaturemethod"] = "hmac-sha1" }
  local parts = {}
  for name in pairs(options.query or {}) do parts[#parts + 1] = name end
  table.sort(parts)
  for i, name in ipairs(parts) do parts[i] = name .. "=" .. options.query[name] end
  local resource = options.path .. (#parts > 0 and "?" .. table.concat(parts, "&") or "")
  local md5 = options.body and crypto.hex(crypto.md5(options.body)):upper() or ""
  if options.body then headers["content-md5"], headers["content-type"] = md5, "application/json" end
  local text = table.concat({ options.body and "POST" or "GET", md5, options.body and "application/json" or "", headers.date,
    "x-log-apiversion:0.6.0", "x-log-signaturemethod:hmac-sha1", resource }, "\n")
  headers.authorization = ("LOG %s:%s"):format(box.key.id, crypto.base64(crypto.hmac_sha1(options.secret or box.key.secret, text)))
  local host = (options.project or "k8s-log-" .. box.info.cluster_id) .. ".cn-hangzhou.log.aliyuncs.com"
  local query = client.query(options.query)
  local reply = assert(box.http:request { method = options.body and "POST" or "GET", headers = headers, body = options.body,
    url = "https://" .. host .. options.path .. (query ~= "" and "?" .. query or "") })
  return reply.status, json.decode(reply.body), reply
end

t.test("log_queries_over_http_in_both_versions", function()
  local box <close> = sandbox.start()
  local now = os.time()
  local store = "/logstores/nginx-ingress"
  local question = { type = "log", from = tostring(now - 100), to = tostring(now), query = "* | select count(1) as n where status > 1" }
  local status, rows, reply = sls(box, { path = store, query = question })
  t.eq({ status, #rows, reply.headers:get "x-log-progress" }, { 200, 0, "Complete" })
  local body = json.encode { from = now - 100, to = now, query = "*", line = 10 }
  local answer
  status, answer = sls(box, { path = store .. "/logs", body = body })
  t.eq({ status, answer.meta.progress, answer.meta.count, #answer.data }, { 200, "Complete", 0, 0 })
  local function refused(options, code, name)
    local got, err = sls(box, options)
    t.eq({ got, err.errorCode }, { code, name })
  end
  refused({ path = store, query = question, secret = "wrong" }, 401, "SignatureNotMatch")
  refused({ path = store, query = question, project = "other" }, 404, "ProjectNotExist")
  refused({ path = "/logstores/other", query = question }, 404, "LogStoreNotExist")
  refused({ path = store, query = { type = "log", from = "9", to = "5", query = "*" } }, 400, "InvalidTimeRange")
  refused({ path = store, query = { type = "log", from = "1", to = "5", query = "* | drop table" } }, 400, "ParameterInvalid")
  t.eq(box:log(), "")
end)

t.test("access_keys_are_random", function()
  local one <close> = sandbox.start()
  local first = one.info.access_key_secret
  one:stop()
  local other <close> = sandbox.start()
  t.ok(first ~= other.info.access_key_secret and #first >= 30)
  t.ok(#crypto.random(4) == 4)
end)
