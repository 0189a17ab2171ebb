-- SPDX-License-Identifier: Apache-2.0
-- ACS3 vectors: captured from the official Node SDK on the wire, one from the vendor's documentation.
local t = require "eirun.test"
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local sign = require "eirun.cloud.sign"
local wire = require "eirun.wire"

local CLUSTER = "c1234567890abcdef1234567890abcde"
local POOL = "np0123456789abcdef0123456789abcd"
local CS, ECS = "2015-12-15", "2014-05-26"
local JSON = "application/json; charset=utf-8"
local POOLS = "/clusters/" .. CLUSTER .. "/nodepools"

local V2_BODY = [[{"auto_scaling":{"enable":true,"max_instances":10,"min_instances":1,"type":"gpu"},"kubernetes_config":{"labels":]] ..
  [[[{"key":"eirun/pool","value":"spot"}],"runtime":"containerd","taints":[{"effect":"NoSchedule","key":"eirun/spot","value":]] ..
  [["true"}]},"nodepool_info":{"name":"推理-spot","type":"ess"},"scaling_group":{"compensate_with_on_demand":true,]] ..
  [["instance_charge_type":"PostPaid","instance_types":["ecs.gn7i-c8g1.2xlarge","ecs.gn6i-c4g1.xlarge"],"key_pair":"kp",]] ..
  [["multi_az_policy":"COST_OPTIMIZED","on_demand_base_capacity":1,"on_demand_percentage_above_base_capacity":30,]] ..
  [["spot_instance_pools":2,"spot_instance_remedy":true,"spot_strategy":"SpotAsPriceGo","system_disk_category":"cloud_essd",]] ..
  [["system_disk_size":200,"vswitch_ids":["vsw-aaa","vsw-bbb"]}}]]

local vectors = {
  { id = "V1", method = "GET", path = "/clusters/" .. CLUSTER .. "/nodes", action = "DescribeClusterNodes", version = CS,
    query = { nodeLabels = "app=llm,tier=a b*~'(x)!", nodepool_id = POOL, pageNumber = 1, pageSize = 100, state = "all" },
    canonical = "e30bee63e0a474adf6cf480c57906dcc405e05b58ab9250d083f220a3fe8d1fe",
    signature = "b7cf85a3bb886ad87b79a1cc7d5917d4268d82e9f746a4e9052cc70fce18b9a1" },
  { id = "V2", method = "POST", path = POOLS, action = "CreateClusterNodePool", version = CS, type = JSON, body = V2_BODY,
    canonical = "36fa08b058e6d3a4ca7f0f9072b289e924151461287fbc9345c1bac4cacbd1f1",
    signature = "1f1e2729c5be54391cab44723fbf99cc2e7a0eb12bb0f1f646a63b8ffa725620" },
  { id = "V3", method = "DELETE", path = POOLS .. "/" .. POOL .. "/nodes", action = "RemoveNodePoolNodes", version = CS,
    query = { concurrency = true, drain_node = true, instance_ids = '["i-a","i-b"]', release_node = true },
    signature = "6ea46233491d5bd66793c77b601f7828ca9250e5a0e1671c7ef872cb07602176" },
  { id = "V4", method = "POST", path = "/", action = "DescribeInstances", version = ECS,
    query = { InstanceIds = '["i-a","i-b"]', PageSize = 100, RegionId = "cn-hangzhou", ["Tag.2.Key"] = "k 2",
      ["Tag.1.Key"] = "ack.alibabacloud.com/nodepool-id", ["Tag.1.Value"] = POOL },
    signature = "144aa89b2a881d72d670420ff8650aee0fe5c67e329eae6ea499c33adeff54fe" },
  { id = "V5", method = "PUT", path = POOLS .. "/" .. POOL, action = "ModifyClusterNodePool", version = CS, type = JSON,
    provider = "static_sts", token = "CAIS+token/example==",
    body = '{"auto_scaling":{"enable":true,"max_instances":20},"update_nodes":false}',
    canonical = "7e6e6c9eabc007de4b1c28a2c3eaeb11aa5944c3a4d493f6dc198ea539ccb866",
    signature = "509b1ac5f347e3f1c12626cd2c012040ac1ee67dff89f0081fc7036d2906b834" },
  { id = "V6", method = "POST", path = "/", action = "TestForm", version = ECS, type = "application/x-www-form-urlencoded",
    query = { RegionId = "cn-hangzhou" }, body = "Name=a%20b%2Bc*~!'()&List.1.K=v1&List.2.K=v%2F2&Flag=true",
    canonical = "948003769e5ca68c06e921a36b4114dc504a131b7ee63e642d4b2c5cc05d072a",
    signature = "f4028ed33b7f1f1b1efa5a0de3a26683f8b807e36fcf65b92ef24f0e9bbc761a" },
  { id = "V7", method = "GET", path = "/tasks/" .. wire.encode("T-5f d+2*~/x"), action = "DescribeTaskInfo", version = CS,
    signature = "876dcc8be7e05a2375c54dc15fa672762691c9ce68353b43a93688d24877b07e" },
  { id = "V9", method = "POST", path = "/", action = "GetCallerIdentity", version = "2015-04-01",
    signature = "9c2e5ad84a45df7142a636f01997648b0c7f8c34736e0b5d1a6275541857c016" },
  { id = "V10", method = "POST", path = "/clusters/" .. CLUSTER .. "/components/install", action = "InstallClusterAddons",
    version = CS, type = JSON,
    body = [=[[{"config":"{\"IngressSlbNetworkType\":\"internet\"}","name":"nginx-ingress-controller","version":"v1.9.3-aliyun.1"}]]=],
    signature = "18dba32f099089f56a5c054f1c8afada83058b34294c6717db76b581d10d8a66" },
  { id = "V11", method = "POST", path = "/cluster/" .. CLUSTER .. "/autoscale/config/", action = "CreateAutoscalingConfig",
    version = CS, type = JSON,
    body = '{"expander":"priority","priorities":{"10":["asg-a"],"100":["asg-b"]},"scaler_type":"cluster-autoscaler","scan_interval":"30"}',
    signature = "5dbcf7fd26e7eca7567a0725387b312dec0f2e6683350642bd1f055bcb472c42" },
  { id = "V12", method = "DELETE", path = POOLS .. "/" .. POOL, action = "DeleteClusterNodepool", version = CS,
    query = { force = true }, signature = "9d00a4363c6053a84a2b4d69541e6861821ec46b1df8bee5e7812e495c3eb525" },
  { id = "V13", method = "POST", path = POOLS .. "/" .. POOL, action = "ScaleClusterNodePool", version = CS, type = JSON,
    body = '{"count":2}', signature = "0ad29babf35441549f5a31421068cb97ea3866934a94132cb95516bf883e9c44" },
  { id = "A", method = "POST", path = "/clusters/c0example/nodepools", host = "cs.cn-hangzhou.aliyuncs.com", provider = false,
    action = "CreateClusterNodePool", version = CS, type = JSON, body = '{"nodepool_info":{"name":"spot"}}',
    signature = "ec02e78a7f3d5833f2c26a966f9ab3770d84f5ffbc0e701201b97124c0319f57" },
  { id = "B", method = "POST", path = "/", host = "ecs.cn-hangzhou.aliyuncs.com", provider = false, action = "DescribeInstances",
    version = ECS, query = { RegionId = "cn-hangzhou", ["Tag.1.Key"] = "ack.alibabacloud.com/nodepool-id",
      ["Tag.1.Value"] = "a b*~'(x)!+/=中" },
    signature = "9d4cd7e9aa18d27aea30c17d9f57bcacb3d0ed0ff6ec28a6a0c47a256ad98e13" },
  { id = "E", method = "GET", path = "/clusters", host = "cs.cn-hangzhou.aliyuncs.com", provider = false, action = "X", version = CS,
    query = { a = "", b = json.null, c = 1 }, signature = "8e7546bdd76cd2f03802c7e8baa44d63ab7cee9024c5e837bc331e40969266cd" },
  { id = "D", method = "POST", path = "/", host = "ecs.cn-shanghai.aliyuncs.com", provider = false, action = "RunInstances",
    version = ECS, key_id = "YourAccessKeyId", key_secret = "YourAccessKeySecret", date = "2023-10-26T10:22:32Z",
    nonce = "3156853299f313e23d1673dc12e1703d",
    query = { ImageId = "win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd", RegionId = "cn-shanghai" },
    signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0" },
}

local function provider_headers(vector, headers)
  if vector.provider == false then return end
  headers["x-acs-credentials-provider"] = vector.provider or "static_ak"
  if vector.token then headers["x-acs-accesskey-id"] = "LTAI5tEXAMPLEKEYID000001" end
end

local function request_of(vector)
  local headers = {
    host = vector.host or "127.0.0.1:18080", accept = "application/json", ["user-agent"] = "unsigned",
    ["content-type"] = vector.type, ["x-acs-action"] = vector.action, ["x-acs-version"] = vector.version,
    ["x-acs-date"] = vector.date or "2026-01-02T03:04:05Z", ["x-acs-security-token"] = vector.token,
    ["x-acs-signature-nonce"] = vector.nonce or "0123456789abcdef0123456789abcdef",
  }
  provider_headers(vector, headers)
  return {
    method = vector.method, path = vector.path, query = vector.query, body = vector.body, headers = headers,
    key_id = vector.key_id or "LTAI5tEXAMPLEKEYID000001", key_secret = vector.key_secret or "ExampleSecretForVectorsOnly0001",
  }
end

for _, vector in ipairs(vectors) do
  t.test("acs3_signs_as_the_official_sdk_does_" .. vector.id, function()
    local request = request_of(vector)
    sign.sign(request)
    if vector.canonical then t.eq(crypto.hex(crypto.sha256((sign.canonical(request)))), vector.canonical) end
    t.eq(request.headers.authorization:match("Signature=(%x+)$"), vector.signature)
  end)
end

t.test("a_token_in_a_secret_gives_the_same_signature", function()
  local secret = require "eirun.core.secret"
  local request = request_of(vectors[5])
  request.headers["x-acs-security-token"] = secret.new(vectors[5].token)
  request.key_secret = secret.new(request.key_secret)
  sign.sign(request)
  t.eq(request.headers.authorization:match("Signature=(%x+)$"), vectors[5].signature)
end)

t.test("times_are_written_and_read_in_every_spelling", function()
  t.eq(wire.iso(1741064767), "2025-03-04T05:06:07Z")
  t.eq(wire.basic(1741064767.9), "20250304T050607Z")
  t.eq(wire.gmt(1741064767), "Tue, 04 Mar 2025 05:06:07 GMT")
  t.eq(wire.stamp(1626284700), "202107141745")
  t.eq(wire.iso(951782400), "2000-02-29T00:00:00Z")
  t.eq(wire.parse_time("2025-03-04T05:06:07Z"), 1741064767)
  t.eq(wire.parse_time("2025-03-04T13:06:07+08:00"), 1741064767)
  t.eq(wire.parse_time("2025-03-04T05:06Z"), 1741064760)
  t.eq(wire.parse_time("yesterday"), nil)
end)
