-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local crypto = require "eirun.core.crypto"
local signature = require "sandbox.sls.signature"

local secret = "eirunTestKeySecret"
local date = "Tue, 04 Mar 2025 05:06:07 GMT"
local adapter_query = "* and proxy_upstream_name: default-nginx-80 | SELECT count(1) / 15 as value from log "
  .. "WHERE __time__ >= 1741064742  and __time__ < 1741064757"

local function request_of(method, path, query, headers)
  local names = {}
  for name in pairs(headers) do names[#names + 1] = name end
  return { method = method, path = path, query = query, names = names, header = function(name) return headers[name] end }
end

local function v1(method, path, query, extra)
  local headers = { date = date, ["content-type"] = "application/json", ["x-log-apiversion"] = "0.6.0",
    ["x-log-signaturemethod"] = "hmac-sha1" }
  for name, value in pairs(extra or {}) do headers[name] = value end
  return signature.v1(secret, signature.v1_string(request_of(method, path, query, headers)))
end

local minimal = { { "to", "1741064757" }, { "from", "1741064667" }, { "type", "log" } }
local path = "/logstores/nginx-ingress"

-- metrics.md section 4.4
t.test("sls_v1_get_logs_with_the_adapters_query", function()
  t.eq(v1("GET", path, { { "type", "log" }, { "from", "1741064667" }, { "to", "1741064757" }, { "query", adapter_query }, { "topic", "" },
    { "line", "100" }, { "offset", "0" }, { "reverse", "false" } }), "GqESTEC31KDiu7MD4M1RpuMBGS0=")
end)

t.test("sls_v1_minimal_token_and_histogram", function()
  t.eq(v1("GET", path, minimal), "l1aRwMo58+rzHyIVoCM8UsaAnL4=")
  t.eq(v1("GET", path, minimal, { ["x-acs-security-token"] = "eirunTestToken" }), "8zQ02gASZEnuoFG3R06eNJtjG64=")
  t.eq(v1("GET", path, { { "from", "1741064667" }, { "query", "*" }, { "to", "1741064757" }, { "type", "histogram" } }),
    "c8f7nRu4qjpg4UP0/mNSXQFc0Jc=")
end)

t.test("sls_v1_posts_sign_the_bodys_md5", function()
  t.eq(v1("POST", "/logstores", {}, { ["content-md5"] = "4056EE656F22D1B13CA61B8168D8A0C0" }), "rGlFt4yc+fUDc1p1mizz/YgtmWg=")
  t.eq(v1("POST", path .. "/shards/lb", {}, { ["content-type"] = "application/x-protobuf", ["x-log-bodyrawsize"] = "63",
    ["content-md5"] = "214283717D3CE4F20E3E9DB1D62465B4" }), "0N9YxB5aTktCGSgI0/rZ7NETNGM=")
end)

local function v4(method, where, query, extra)
  local headers = { ["content-type"] = "application/json", host = "k8s-log-c0123.cn-hangzhou.log.aliyuncs.com",
    ["x-log-apiversion"] = "0.6.0", ["x-log-date"] = "20250304T050607Z" }
  for name, value in pairs(extra) do headers[name] = value end
  local scope = { date = "20250304", region = "cn-hangzhou" }
  local canonical = signature.v4_canonical(request_of(method, where, query, headers))
  return signature.v4(secret, scope, signature.v4_string("20250304T050607Z", scope, canonical)), crypto.hex(crypto.sha256(canonical))
end

-- metrics.md section 4.5
t.test("sls_v4_get_logs_v2_and_v1_paths", function()
  local sign, canonical = v4("POST", path .. "/logs", {}, { ["x-log-bodyrawsize"] = "290",
    ["x-log-content-sha256"] = "90446ef674757bff8b7ce0e35dc35d10456cb20942c1c21117b0ef3b95b328ff" })
  t.eq(canonical, "7746ede9a061023c6d990084f44fa9c8c42a99a675ab51944c25c1d6d7a54970")
  t.eq(sign, "61e94fd800efc673239ca7c3e86f66a01ff32054e4016467d2b641b5cdc14841")
  local empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
  sign, canonical = v4("GET", path, { { "from", "1741064667" }, { "to", "1741064757" }, { "topic", "" }, { "type", "log" } },
    { ["x-log-bodyrawsize"] = "0", ["x-log-content-sha256"] = empty })
  t.eq(canonical, "28cb0620507c19c10aace06d1ad73bfba7c506db119782e5b73ced77b8b45e7a")
  t.eq(sign, "614f12b111259a30e40c3fa31df20759ab2401b937f40082e793b234ee3baa32")
end)

t.test("sls_authorization_is_read", function()
  t.eq(signature.parse "LOG id:c2ln", { version = 1, id = "id", signature = "c2ln" })
  t.eq(signature.parse "SLS4-HMAC-SHA256 Credential=id/20250304/cn-hangzhou/sls/aliyun_v4_request,Signature=AB",
    { version = 4, id = "id", signature = "ab", scope = { date = "20250304", region = "cn-hangzhou" } })
  t.eq(signature.parse "Bearer x", nil)
end)
