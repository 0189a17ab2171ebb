-- SPDX-License-Identifier: Apache-2.0
-- Vectors made by @alicloud/log 1.2.6 (V1) and by the Go and Python SDKs' signers (V4).
local t = require "eirun.test"
local crypto = require "eirun.core.crypto"
local sign = require "eirun.sls.sign"

local NOW = 1741064767
local LOGS = "/logstores/nginx-ingress"
local HOST = "k8s-log-c0123.cn-hangzhou.log.aliyuncs.com"
local ADAPTER_QUERY = "* and proxy_upstream_name: default-nginx-80 | SELECT count(1) / 15 as value from log " ..
  "WHERE __time__ >= 1741064742  and __time__ < 1741064757"

local function request(more)
  local made = { method = "GET", path = LOGS, now = NOW, key_id = "eirunTestKeyId", key_secret = "eirunTestKeySecret",
    region = "cn-hangzhou", headers = { ["x-log-apiversion"] = "0.6.0" } }
  for key, value in pairs(more) do made[key] = value end
  return made
end

local function json_headers(more)
  local headers = { ["x-log-apiversion"] = "0.6.0", ["content-type"] = "application/json" }
  for key, value in pairs(more or {}) do headers[key] = value end
  return headers
end

local minimal = { from = 1741064667, to = 1741064757, type = "log" }
local v1 = {
  { "with_the_adapters_query", "GqESTEC31KDiu7MD4M1RpuMBGS0=", { headers = json_headers(), query = { from = 1741064667,
    to = 1741064757, line = 100, offset = 0, reverse = false, topic = "", type = "log", query = ADAPTER_QUERY } } },
  { "minimal", "l1aRwMo58+rzHyIVoCM8UsaAnL4=", { headers = json_headers(), query = minimal } },
  { "with_a_token", "8zQ02gASZEnuoFG3R06eNJtjG64=", { headers = json_headers(), query = minimal, token = "eirunTestToken" } },
  { "histogram", "c8f7nRu4qjpg4UP0/mNSXQFc0Jc=", { headers = json_headers(),
    query = { from = 1741064667, to = 1741064757, query = "*", type = "histogram" } } },
  { "put_logs", "0N9YxB5aTktCGSgI0/rZ7NETNGM=", { method = "POST", path = LOGS .. "/shards/lb",
    headers = { ["x-log-apiversion"] = "0.6.0", ["content-type"] = "application/x-protobuf", ["x-log-bodyrawsize"] = "63" },
    body64 = "CiwIv5SavgYSDQoGc3RhdHVzEgMyMDASFQoMcmVxdWVzdF90aW1lEgUwLjAxMhoFbmdpbngiCDEwLjAuMC4x" } },
  { "create_logstore", "rGlFt4yc+fUDc1p1mizz/YgtmWg=", { method = "POST", path = "/logstores", headers = json_headers(),
    body = '{"logstoreName":"nginx-ingress","ttl":30,"shardCount":2}' } },
}

for _, row in ipairs(v1) do
  local name, expected, more = table.unpack(row)
  t.test("sls_v1_signs_" .. name, function()
    more.body = more.body64 and crypto.unbase64(more.body64) or more.body
    t.eq(sign.v1(request(more)).authorization, "LOG eirunTestKeyId:" .. expected)
  end)
end

t.test("sls_v1_sends_the_md5_in_upper_case_hex", function()
  local headers = sign.v1(request(v1[6][3]))
  t.eq(headers["content-md5"], "4056EE656F22D1B13CA61B8168D8A0C0")
end)

t.test("sls_v4_signs_get_logs_v2", function()
  local body = ('{"from":1741064667,"to":1741064757,"topic":"","line":100,"offset":0,"reverse":false,"query":"%s",' ..
    '"powerSql":false,"fromNs":0,"toNs":0,"highlight":false}'):format(ADAPTER_QUERY)
  local made = request { method = "POST", path = LOGS .. "/logs", body = body,
    headers = json_headers { host = HOST, ["x-log-bodyrawsize"] = tostring(#body) } }
  local headers = sign.v4(made)
  t.eq(#body, 290)
  t.eq(crypto.hex(crypto.sha256(sign.canonical(made))), "7746ede9a061023c6d990084f44fa9c8c42a99a675ab51944c25c1d6d7a54970")
  t.match(headers.authorization, "Signature=61e94fd800efc673239ca7c3e86f66a01ff32054e4016467d2b641b5cdc14841$")
end)

t.test("sls_v4_leaves_the_equals_sign_of_an_empty_value_out", function()
  local made = request { headers = json_headers { host = HOST, ["x-log-bodyrawsize"] = "0" },
    query = { from = 1741064667, to = 1741064757, topic = "", type = "log" } }
  local headers = sign.v4(made)
  t.eq(crypto.hex(crypto.sha256(sign.canonical(made))), "28cb0620507c19c10aace06d1ad73bfba7c506db119782e5b73ced77b8b45e7a")
  t.match(headers.authorization, "Signature=614f12b111259a30e40c3fa31df20759ab2401b937f40082e793b234ee3baa32$")
end)

t.test("sls_v4_gives_the_go_sdks_own_expectation", function()
  local headers = sign.v4 { method = "POST", path = "/logstores", headers = {}, body = "adasd= -asd zcas", now = 1659929010,
    key_id = "acsddda21dsd", key_secret = "zxasdasdasw2", region = "cn-shanghai" }
  t.eq(headers["x-log-date"], "20220808T032330Z")
  t.match(headers.authorization, "Signature=8a10a5e723cb2e75964816de660b2c16a58af8bc0261f7f0722d832468c76ce8$")
end)
