-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local crypto = require "eirun.core.crypto"
local acs3 = require "sandbox.cloud.acs3"
local encoding = require "sandbox.encoding"
local legacy = require "sandbox.cloud.legacy"

local secret = "ExampleSecretForVectorsOnly0001"
local cid, npid = "c1234567890abcdef1234567890abcde", "np0123456789abcdef0123456789abcd"
local cs, ecs = "2015-12-15", "2014-05-26"

local function hex_sha(text) return crypto.hex(crypto.sha256(text)) end

local function base_headers(case)
  local headers = { host = case.host or "127.0.0.1:18080", ["x-acs-action"] = case.action, ["x-acs-version"] = case.version,
    ["x-acs-date"] = case.date or "2026-01-02T03:04:05Z",
    ["x-acs-signature-nonce"] = case.nonce or "0123456789abcdef0123456789abcdef",
    ["x-acs-content-sha256"] = hex_sha(case.body or "") }
  if not case.minimal then headers["x-acs-credentials-provider"] = "static_ak" end
  if case.type or case.body then headers["content-type"] = case.type or "application/json; charset=utf-8" end
  for name, value in pairs(case.headers or {}) do headers[name] = value end
  return headers
end

-- A request as the checker sees it, from one line of the table.
local function request_of(case)
  local method, target = case.line:match "^(%S+) (%S+)$"
  local path, query = target:match "^([^?]*)%??(.*)$"
  local headers = base_headers(case)
  local names = {}
  for name in pairs(headers) do names[#names + 1] = name end
  table.sort(names)
  return { method = method, path = path, query = encoding.pairs_of(query), body_sha = headers["x-acs-content-sha256"],
    header_values = function(name) return { headers[name] } end }, names
end

local v2_body = '{"auto_scaling":{"enable":true,"max_instances":10,"min_instances":1,"type":"gpu"},"kubernetes_config":{"labels":'
  .. '[{"key":"eirun/pool","value":"spot"}],"runtime":"containerd","taints":[{"effect":"NoSchedule","key":"eirun/spot",'
  .. '"value":"true"}]},"nodepool_info":{"name":"推理-spot","type":"ess"},"scaling_group":{"compensate_with_on_demand":true,'
  .. '"instance_charge_type":"PostPaid","instance_types":["ecs.gn7i-c8g1.2xlarge","ecs.gn6i-c4g1.xlarge"],"key_pair":"kp",'
  .. '"multi_az_policy":"COST_OPTIMIZED","on_demand_base_capacity":1,"on_demand_percentage_above_base_capacity":30,'
  .. '"spot_instance_pools":2,"spot_instance_remedy":true,"spot_strategy":"SpotAsPriceGo","system_disk_category":"cloud_essd",'
  .. '"system_disk_size":200,"vswitch_ids":["vsw-aaa","vsw-bbb"]}}'

-- Captured from the official Node SDK and recomputed by an independent script, but for D, which is published.
local vectors = {
  { id = "V1", line = "GET /clusters/" .. cid .. "/nodes?state=all&pageSize=100&nodepool_id=" .. npid
    .. "&pageNumber=1&nodeLabels=app%3Dllm%2Ctier%3Da%20b*~%27(x)!", action = "DescribeClusterNodes", version = cs,
    signature = "b7cf85a3bb886ad87b79a1cc7d5917d4268d82e9f746a4e9052cc70fce18b9a1" },
  { id = "V2", line = "POST /clusters/" .. cid .. "/nodepools", action = "CreateClusterNodePool", version = cs, body = v2_body,
    sha = "dcbd96a9b236dd80d62f855c5da012fa0da3995b43ffde38bc0c7e1c0bb1f910",
    signature = "1f1e2729c5be54391cab44723fbf99cc2e7a0eb12bb0f1f646a63b8ffa725620" },
  { id = "V3", line = "DELETE /clusters/" .. cid .. "/nodepools/" .. npid .. "/nodes?concurrency=true&drain_node=true"
    .. "&instance_ids=%5B%22i-a%22%2C%22i-b%22%5D&release_node=true", action = "RemoveNodePoolNodes", version = cs,
    signature = "6ea46233491d5bd66793c77b601f7828ca9250e5a0e1671c7ef872cb07602176" },
  { id = "V4", line = "POST /?InstanceIds=%5B%22i-a%22%2C%22i-b%22%5D&PageSize=100&RegionId=cn-hangzhou"
    .. "&Tag.1.Key=ack.alibabacloud.com%2Fnodepool-id&Tag.1.Value=" .. npid .. "&Tag.2.Key=k%202",
    action = "DescribeInstances", version = ecs,
    signature = "144aa89b2a881d72d670420ff8650aee0fe5c67e329eae6ea499c33adeff54fe" },
  { id = "V5", line = "PUT /clusters/" .. cid .. "/nodepools/" .. npid, action = "ModifyClusterNodePool", version = cs,
    body = '{"auto_scaling":{"enable":true,"max_instances":20},"update_nodes":false}',
    headers = { ["x-acs-credentials-provider"] = "static_sts", ["x-acs-accesskey-id"] = "LTAI5tEXAMPLEKEYID000001",
      ["x-acs-security-token"] = "CAIS+token/example==" },
    sha = "a95484b6b75ee18aa0f524d72372702fe0734558ee79ee348ef7b5439db67b7a",
    signature = "509b1ac5f347e3f1c12626cd2c012040ac1ee67dff89f0081fc7036d2906b834" },
  { id = "V6", line = "POST /?RegionId=cn-hangzhou", action = "TestForm", version = ecs,
    type = "application/x-www-form-urlencoded", body = "Name=a%20b%2Bc*~!'()&List.1.K=v1&List.2.K=v%2F2&Flag=true",
    sha = "13dc78ee830a03766bd7f2ebcc6e10ee71b6fad4c387a84725896cd47af6b6c7",
    signature = "f4028ed33b7f1f1b1efa5a0de3a26683f8b807e36fcf65b92ef24f0e9bbc761a" },
  { id = "V7", line = "GET /tasks/T-5f%20d%2B2%2A~%2Fx", action = "DescribeTaskInfo", version = cs,
    signature = "876dcc8be7e05a2375c54dc15fa672762691c9ce68353b43a93688d24877b07e" },
  { id = "V9", line = "POST /", action = "GetCallerIdentity", version = "2015-04-01",
    signature = "9c2e5ad84a45df7142a636f01997648b0c7f8c34736e0b5d1a6275541857c016" },
  { id = "V10", line = "POST /clusters/" .. cid .. "/components/install", action = "InstallClusterAddons", version = cs,
    body = [==[[{"config":"{\"IngressSlbNetworkType\":\"internet\"}","name":"nginx-ingress-controller","version":"v1.9.3-aliyun.1"}]]==],
    sha = "3c323ca76286e210fa282690cfdfe37ff7c378f96d565b34abf19be6d4e242dc",
    signature = "18dba32f099089f56a5c054f1c8afada83058b34294c6717db76b581d10d8a66" },
  { id = "V11", line = "POST /cluster/" .. cid .. "/autoscale/config/", action = "CreateAutoscalingConfig", version = cs,
    body = '{"expander":"priority","priorities":{"10":["asg-a"],"100":["asg-b"]},"scaler_type":"cluster-autoscaler","scan_interval":"30"}',
    sha = "19ca5cba3f71b660e8464aae9824a0e35d1019d2585ac1ea5001970b53116329",
    signature = "5dbcf7fd26e7eca7567a0725387b312dec0f2e6683350642bd1f055bcb472c42" },
  { id = "V12", line = "DELETE /clusters/" .. cid .. "/nodepools/" .. npid .. "?force=true", action = "DeleteClusterNodepool",
    version = cs, signature = "9d00a4363c6053a84a2b4d69541e6861821ec46b1df8bee5e7812e495c3eb525" },
  { id = "V13", line = "POST /clusters/" .. cid .. "/nodepools/" .. npid, action = "ScaleClusterNodePool", version = cs,
    body = '{"count":2}', sha = "57413ce83ee1d989e384dfd3a82c6e2d9052a23c4204706bd2d7df11aa4c2d7c",
    signature = "0ad29babf35441549f5a31421068cb97ea3866934a94132cb95516bf883e9c44" },
  { id = "A", minimal = true, line = "POST /clusters/c0example/nodepools", host = "cs.cn-hangzhou.aliyuncs.com",
    action = "CreateClusterNodePool", version = cs, body = '{"nodepool_info":{"name":"spot"}}',
    sha = "4a2c2acaf37ac1d3cab6e01b59aea5be8ccda78e05743129e531ea4f7f098bc5",
    signature = "ec02e78a7f3d5833f2c26a966f9ab3770d84f5ffbc0e701201b97124c0319f57" },
  { id = "B", minimal = true, line = "POST /?RegionId=cn-hangzhou&Tag.1.Key=ack.alibabacloud.com%2Fnodepool-id"
    .. "&Tag.1.Value=a%20b%2A~%27%28x%29%21%2B%2F%3D%E4%B8%AD", host = "ecs.cn-hangzhou.aliyuncs.com",
    action = "DescribeInstances", version = ecs,
    signature = "9d4cd7e9aa18d27aea30c17d9f57bcacb3d0ed0ff6ec28a6a0c47a256ad98e13" },
  { id = "E", minimal = true, line = "GET /clusters?a=&b&c=1", host = "cs.cn-hangzhou.aliyuncs.com", action = "X", version = cs,
    signature = "8e7546bdd76cd2f03802c7e8baa44d63ab7cee9024c5e837bc331e40969266cd" },
  { id = "D", minimal = true, line = "POST /?ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai",
    host = "ecs.cn-shanghai.aliyuncs.com", action = "RunInstances", version = ecs, date = "2023-10-26T10:22:32Z",
    nonce = "3156853299f313e23d1673dc12e1703d", secret = "YourAccessKeySecret",
    signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0" },
}

for _, case in ipairs(vectors) do
  t.test("acs3_signature_of_vector_" .. case.id, function()
    if case.sha then t.eq(hex_sha(case.body), case.sha) end
    local request, names = request_of(case)
    t.ok(acs3.verify(request, { signed = names, signature = case.signature }, case.secret or secret), case.id)
  end)
end

t.test("acs3_refuses_a_changed_query", function()
  local request, names = request_of(vectors[1])
  request.query[1][2] = "running"
  local ok, text = acs3.verify(request, { signed = names, signature = vectors[1].signature }, secret)
  t.eq(ok, false)
  t.match(text, "^ACS3%-HMAC%-SHA256\n%x+$")
end)

t.test("acs3_reads_the_authorization_header", function()
  local parsed = acs3.parse "ACS3-HMAC-SHA256 Credential=ak,SignedHeaders=host;x-acs-date,Signature=AB01"
  t.eq(parsed, { id = "ak", signed = { "host", "x-acs-date" }, signature = "ab01" })
  t.eq(acs3.parse "Basic Zm9v", nil)
  t.eq(acs3.parse "ACS3-HMAC-SHA256 Credential=ak,Signature=ab", nil)
  t.eq(acs3.unsigned_header(parsed.signed), "x-acs-action")
end)

t.test("legacy_rpc_signature_vector", function()
  local params = encoding.pairs_of("Action=DescribeRegions&Format=json&Version=2014-05-26&Timestamp=2026-11-22T20%3A37%3A33Z"
    .. "&SignatureNonce=eaba511ac7438841bdeae629d707222bd37f03f206afa6e933c3def2f7e1c2f0&RegionId=cn-hangzhou&Tag=a%20b"
    .. "&SignatureMethod=HMAC-SHA1&SignatureVersion=1.0&AccessKeyId=LTAI5tEXAMPLEKEYID000001&Signature=ignored")
  t.eq(legacy.rpc_signature(secret, legacy.rpc_string("POST", params)), "Pf6G47ll3oc33oQfHP1GC98Z0T4=")
end)

t.test("legacy_roa_signature_vector", function()
  local headers = { accept = "application/json", date = "Sun, 22 Nov 2026 20:37:33 GMT",
    ["x-acs-action"] = "DescribeClusterNodePools", ["x-acs-version"] = cs, ["x-acs-date"] = "2026-01-02T03:04:05Z",
    ["x-acs-signature-nonce"] = "0123456789abcdef0123456789abcdef", ["x-acs-credentials-provider"] = "static_ak",
    ["x-acs-signature-method"] = "HMAC-SHA1", ["x-acs-signature-version"] = "1.0" }
  local text = legacy.roa_string("GET", "/clusters/" .. cid .. "/nodepools", { { "NodepoolName", "a b" } }, headers)
  t.eq(legacy.roa_signature(secret, text), "SddDaOmu+Svzz02rVvPWF0oeRS8=")
end)
