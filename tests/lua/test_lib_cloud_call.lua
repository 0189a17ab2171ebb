-- SPDX-License-Identifier: Apache-2.0
-- Calls that meet the world: pages of all kinds, keys that went stale, clocks that are off, many at once, answers that got lost.
local t = require "eirun.test"
local cloud = require "eirun.cloud"
local codes = require "eirun.cloud.codes"
local credentials = require "eirun.credentials"
local crypto = require "eirun.core.crypto"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local products = require "eirun.cloud.products"
local secret = require "eirun.core.secret"
local target = require "eirun.target"
local task = require "eirun.task"

local function items(from, to)
  local list = json.array {}
  for i = from, math.min(to, 250) do list[#list + 1] = { id = i } end
  return list
end

local function page(call, number, size)
  local n, s = tonumber(call.query[number] or 1), tonumber(call.query[size] or 10)
  return n, s, items((n - 1) * s + 1, n * s)
end

-- How 250 things are paged by each product.
local pagers = {
  DescribeClusterNodes = { "cs", "nodes", 3, function(call)
    local n, s, list = page(call, "pageNumber", "pageSize")
    return { nodes = list, page = { page_number = n, page_size = s, total_count = 250 } }
  end },
  DescribeClustersV1 = { "cs", "clusters", 5, function(call)
    local n, s, list = page(call, "page_number", "page_size")
    return { clusters = list, page_info = { page_number = n, page_size = s, total_count = 250 } }
  end },
  DescribeScalingInstances = { "ess", "ScalingInstances", 3, function(call)
    local n, s, list = page(call, "PageNumber", "PageSize")
    return { ScalingInstances = list, PageNumber = n, PageSize = s, TotalCount = 250 }
  end },
  DescribeInstances = { "ecs", "Instances.Instance", 3, function(call)
    local from = tonumber(call.query.NextToken or 1)
    local to = from + tonumber(call.query.MaxResults) - 1
    return { Instances = { Instance = items(from, to) }, NextToken = to < 250 and tostring(to + 1) or "", TotalCount = 0, PageSize = 0 }
  end },
  DescribeSpotPriceHistory = { "ecs", "SpotPrices.SpotPriceType", 3, function(call)
    local from = tonumber(call.query.Offset or 0)
    return { SpotPrices = { SpotPriceType = items(from + 1, from + 100) }, NextOffset = from + 100 < 250 and from + 100 or 0 }
  end },
  DescribeClusterTasks = { "cs", "tasks", 3, function(call)
    local from = tonumber(call.query.next_token or 1)
    return { tasks = items(from, from + 99), next_token = from + 100 <= 250 and tostring(from + 100) or "" }
  end },
}

for action, row in pairs(pagers) do
  t.test("all_pages_are_joined_" .. action, function()
    local product, path, requests, answer = table.unpack(row)
    fake.with(function(call) return 200, answer(call) end, function(_, seen)
      local whole = cloud.all { product = product, action = action, params = { ClusterId = "c1" } }
      local list = whole
      for name in path:gmatch("[^.]+") do list = list[name] end
      t.eq({ #list, list[1].id, list[250].id, #seen }, { 250, 1, 250, requests })
      t.eq({ whole.NextToken, whole.next_token }, {})
    end)
  end)
end

t.test("a_server_that_names_the_same_page_for_ever_is_found_out", function()
  fake.with(function() return 200, { Instances = { Instance = items(1, 10) }, NextToken = "again" } end, function()
    local err = t.err("internal", function() cloud.all { product = "ecs", action = "DescribeInstances" } end)
    t.match(err.message, "the same next page twice")
  end)
end)

t.test("200_reads_run_side_by_side_over_one_pool", function()
  local under_way, most, ready = 0, 0, task.event()
  fake.with(function()
    under_way = under_way + 1
    most = math.max(most, under_way)
    if under_way == 200 then ready:set() end
    ready:wait(10)
    under_way = under_way - 1
    return 200, { ok = true }
  end, function(_, seen)
    local list = {}
    for i = 1, 200 do list[i] = i end
    local answers = task.map(list, function() return cloud.rpc("ecs", "DescribeRegions") end)
    t.eq({ #answers, #seen, most }, { 200, 200, 200 })
  end)
end)

t.test("a_create_that_is_tried_again_carries_the_same_client_token", function()
  fake.with(function(_, n)
    if n == 1 then return "abort" end
    if n == 2 then return 502, "<html>Bad Gateway</html>" end
    return 200, { ScalingGroupId = "asg-1" }
  end, function(_, seen)
    local answer = cloud.rpc("ess", "CreateScalingGroup", { MinSize = 0, MaxSize = 1 })
    t.eq({ answer.ScalingGroupId, #seen }, { "asg-1", 3 })
    t.match(seen[1].query.ClientToken, "^%x+$")
    t.eq({ seen[2].query.ClientToken, seen[3].query.ClientToken }, { seen[1].query.ClientToken, seen[1].query.ClientToken })
    t.ok(seen[1].headers:get "x-acs-signature-nonce" ~= seen[2].headers:get "x-acs-signature-nonce", "the nonce was used twice")
  end)
end)

t.test("a_create_without_a_token_is_not_repeated_once_it_may_have_arrived", function()
  fake.with(function() return "abort" end, function(_, seen)
    local err = t.err("network", function() cloud.cs("CreateClusterNodePool", { ClusterId = "c1" }, { body = {} }) end)
    t.eq({ #seen, err.uncertain }, { 1, true })
  end)
end)

t.test("a_clock_that_is_off_is_corrected_by_the_servers_date", function()
  local times = {}
  fake.with(function(call, n)
    times[n] = call.headers:get "x-acs-date"
    if n == 1 then
      return 400, { Code = "InvalidTimeStamp.Expired", Message = "expired" }, { date = "Fri, 02 Jan 2037 03:04:05 GMT" }
    end
    return 200, { ok = true }
  end, function()
    t.eq(cloud.rpc("ecs", "DescribeRegions").ok, true)
    t.match(times[2], "^2037%-01%-02T03:04:")
    cloud.rpc("ecs", "DescribeRegions")
    t.match(times[3], "^2037")
  end)
  fake.with(function(_, n)
    if n == 1 then return 400, { Code = "InvalidTimeStamp.Expired" }, { date = require("eirun.wire").gmt(task.now()) } end
    return 200, {}
  end, function() cloud.rpc("ecs", "DescribeRegions") end)
end)

t.test("keys_that_the_server_calls_expired_are_fetched_anew_once", function()
  local fetches = 0
  local keys = credentials.dynamic(function()
    fetches = fetches + 1
    return { access_key_id = "id" .. fetches, access_key_secret = secret.new "s", security_token = secret.new("token" .. fetches),
      source = "test", expires = task.now() + 3600 }
  end)
  local good = "token2"
  fake.with(function(call)
    if call.headers:get "x-acs-security-token" == good then return 200, { ok = true } end
    return 400, { Code = "InvalidSecurityToken.Expired", Message = "Specified SecurityToken is expired." }
  end, function(_, seen)
    local call = { product = "ecs", action = "DescribeRegions", credentials = keys }
    t.eq(cloud.call(call).ok, true)
    t.eq({ fetches, #seen }, { 2, 2 })
    good = "never"
    t.eq(t.err("denied", function() cloud.call(call) end).code, "InvalidSecurityToken.Expired")
    t.eq({ fetches, #seen }, { 3, 4 })
  end)
end)

t.test("fixed_keys_are_not_tried_twice", function()
  fake.with(function() return 400, { Code = "InvalidSecurityToken.Expired", Message = "expired" } end, function(_, seen)
    local err = t.err("denied", function() cloud.rpc("ecs", "DescribeRegions") end)
    t.eq(#seen, 1)
    t.match(err.hint, "get new ones")
  end)
end)

t.test("a_missing_permission_names_action_and_resource", function()
  fake.with(function(call)
    if call.path == "/" then return 403, { Code = "Forbidden.RAM", Message = "User not authorized", RequestId = "R" } end
    return 403, { code = "StatusForbidden", message = "Forbidden", requestId = "R" }
  end, function()
    t.match(t.err("denied", function() cloud.rpc("ecs", "DescribePrice") end).hint, "grant ecs:DescribePrice on %* to the key's owner")
    t.match(t.err("denied", function() cloud.cs("DescribeClusterDetail", { ClusterId = "c7" }) end).hint,
      "grant cs:DescribeClusterDetail on acs:cs:cn%-hangzhou:1:cluster/c7")
  end)
end)

t.test("the_commonest_codes_come_with_a_next_step", function()
  local common = [[Throttling.User SignatureDoesNotMatch SignatureNonceUsed InvalidTimeStamp.Expired IncompleteSignature
    InvalidAccessKeyId.NotFound InvalidAccessKeyId.Inactive MissingSecurityToken InvalidSecurityToken.Expired
    InvalidSecurityToken.MismatchWithAccessKey Forbidden.RAM NoPermission StatusForbidden MissingAuth ErrorCheckAcl
    InvalidAction.NotFound InvalidVersion InvalidRegionId.NotFound ErrorClusterNotFound ErrorNodePoolNotFound AddonNotFound
    ErrorClusterState InvalidNodePoolStatus.Forbidden InvalidDesiredSizeOrCount.NotNull InvalidParameter.Management
    OperationDenied.NoStock InvalidVSwitchId.IpNotEnough QuotaExceed IdempotentParameterMismatch ScalingActivityInProgress
    IncorrectScalingGroupStatus InvalidScalingGroupId.NotFound InvalidInstanceType.ValueNotSupported InvalidKeyPair.NotFound
    ServiceUnavailable InternalError EntityNotExist.Role EntityNotExist.OIDCProvider AuthenticationFail.OIDCToken.Expired
    InvalidAccountStatus.NotEnoughBalance MissingParameter]]
  local count = 0
  for code in common:gmatch("%S+") do
    local _, hint = codes.classify(code, 400)
    t.ok(hint, code .. " has no hint")
    count = count + 1
  end
  t.ok(count >= 30)
end)

t.test("hosts_follow_product_region_and_network", function()
  local cases = {
    { "cs", "cn-hangzhou", nil, "cs.cn-hangzhou.aliyuncs.com" }, { "cs", "cn-hangzhou", "vpc", "cs-anony-vpc.cn-hangzhou.aliyuncs.com" },
    { "ecs", "cn-beijing", "vpc", "ecs-vpc.cn-beijing.aliyuncs.com" }, { "ess", "cn-hangzhou", nil, "ess.aliyuncs.com" },
    { "ess", "cn-chengdu", nil, "ess.cn-chengdu.aliyuncs.com" }, { "ess", "cn-hangzhou", "vpc", "ess-vpc.cn-hangzhou.aliyuncs.com" },
    { "ram", "cn-hangzhou", nil, "ram.aliyuncs.com" }, { "ram", "cn-hangzhou", "vpc", "ram.vpc-proxy.aliyuncs.com" },
    { "sts", "eu-west-9", nil, "sts.eu-west-9.aliyuncs.com" }, { "nas", "cn-hangzhou", "vpc", "nas-vpc.cn-hangzhou.aliyuncs.com" },
  }
  for _, case in ipairs(cases) do t.eq(products.host(case[1], case[2], case[3]), case[4]) end
end)

t.test("what_is_no_region_or_endpoint_is_refused_before_anything_is_sent", function()
  fake.with(function() return 200, {} end, function(_, seen)
    t.match(t.err("invalid", function() cloud.call { product = "ecs", action = "X", region = "cn hangzhou" } end).message,
      "'cn hangzhou' is no region")
    t.match(t.err("invalid", function() cloud.call { product = "ecs", action = "X", endpoint = "http://" } end).message, "is no endpoint")
    t.match(t.err("invalid", function() cloud.call { product = "cs", action = "DescribeClusterDetial" } end).message,
      "did you mean DescribeClusterDetail?")
    t.match(t.err("invalid", function() cloud.cs("DescribeClusterDetail", {}) end).message, "needs params.ClusterId")
    t.eq(#seen, 0)
  end)
end)

t.test("certificates_that_cannot_be_read_are_told_before_anything_is_sent", function()
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = {}, ca_file = "/nonexistent/ca.pem",
    credentials = credentials.static { access_key_id = "id", access_key_secret = "s" } }
  local ok, err = pcall(cloud.rpc, "ecs", "DescribeRegions")
  undo()
  t.eq(ok, false)
  t.match(err.message, "the certificates to trust: cannot open '/nonexistent/ca.pem'")
  t.match(err.hint, "EIRUN_CA_FILE")
end)

t.test("a_form_is_flattened_and_an_unknown_product_is_called_by_its_facts", function()
  fake.with(function() return 200, { ok = true } end, function(url, seen)
    cloud.call { product = "nas", version = "2017-06-26", style = "RPC", action = "CreateThing", endpoint = url,
      query = { RegionId = "cn-hangzhou" }, form = { List = { { K = "a b" }, { K = "*~" } }, Empty = "" } }
    t.eq(seen[1].body, "Empty=&List.1.K=a%20b&List.2.K=%2A~")
    t.eq(seen[1].headers:get "content-type", "application/x-www-form-urlencoded")
    cloud.call { product = "fc", version = "2021-04-06", style = "ROA", action = "GetThing", method = "PUT", endpoint = url,
      path = "/things/{name}", params = { name = "a/b c" }, body = { x = 1 } }
    t.eq({ seen[2].method, seen[2].path, seen[2].body }, { "PUT", "/things/a%2Fb%20c", '{"x":1}' })
  end)
end)

t.test("a_server_that_never_answers_costs_no_more_than_the_calls_time", function()
  local never = task.event()
  fake.with(function()
    never:wait(5)
    return 200, {}
  end, function()
    local began = task.now()
    local err = t.err("timeout", function() cloud.call { product = "ecs", action = "DescribeRegions", timeout = 0.3 } end)
    t.ok(task.now() - began < 3, "it took " .. task.now() - began .. " s")
    t.eq({ err.operation, err.uncertain }, { "DescribeRegions", true })
    never:set()
  end)
end)

t.test("a_signature_that_is_refused_is_explained_by_what_the_server_signed", function()
  local acs3 = require "sandbox.cloud.acs3"
  local changed = false
  fake.with(function(call)
    local parsed = acs3.parse(call.headers:get "authorization")
    local query = {}
    for key, value in pairs(call.query) do query[#query + 1] = { key, changed and value .. "x" or value } end
    local _, text = acs3.verify({ method = call.method, path = call.path, query = query,
      body_sha = crypto.hex(crypto.sha256(call.body)), header_values = function(name) return call.headers:list(name) end }, parsed, "x")
    return 400, { Code = "SignatureDoesNotMatch", Message = "Specified signature does not match. server string to sign is:" .. text }
  end, function()
    t.match(t.err("denied", function() cloud.rpc("ecs", "DescribeRegions") end).hint, "the access key's secret is wrong")
    changed = true
    t.match(t.err("denied", function() cloud.rpc("ecs", "DescribeRegions") end).hint, "a proxy or gateway changed it")
  end)
end)
