-- SPDX-License-Identifier: Apache-2.0
-- eirun cloud as a user meets it: the program itself, against the sandbox.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local t = require "eirun.test"
local task = require "eirun.task"

local program = fs.realpath("/proc/self/exe")
local folder = assert(fs.mkdtemp "/tmp/eirun-cli-")

local function eirun(words, env, stdin)
  local run = { program, table.unpack(words) }
  run.timeout, run.env, run.stdin = 60, env, stdin
  return assert(process.run(run))
end

local function cloud(...)
  return eirun { "cloud", "--sandbox=" .. folder .. "/sandbox", ... }
end

local function decoded(run)
  t.eq(run.code, 0, run.stderr)
  return assert(json.decode(run.stdout))
end

t.test("an_operation_of_the_container_service_needs_no_further_facts", function()
  local run = cloud("call", "cs", "DescribeClustersV1")
  t.eq(decoded(run).clusters[1].name, "eirun-sandbox")
  t.ok(not run.stdout:find("\n.", 1), "the answer is printed as it came")
end)

t.test("a_path_is_filled_and_fields_are_picked", function()
  local id = cloud("call", "cs", "DescribeClustersV1", "--query", "clusters[0].cluster_id", "-o", "text").stdout
  t.match(id, "^c%x+\n$")
  local run = cloud("call", "cs", "DescribeClusterNodePools", "ClusterId=" .. id:gsub("\n", ""), "--query",
    "nodepools[].{name: nodepool_info.name, nodes: status.total_nodes}")
  t.eq(decoded(run), { { name = "default", nodes = 2 } })
end)

t.test("lists_of_an_rpc_product_are_flattened_and_pages_followed", function()
  local run = cloud("call", "ecs", "DescribeInstances", 'Tag:=[{"Key":"ack.aliyun.com"}]', "--page", "all", "--query",
    "length(Instances.Instance)")
  t.eq(decoded(run), 2)
end)

t.test("a_body_comes_from_a_file_or_from_typed_fields", function()
  local id = cloud("call", "cs", "DescribeClustersV1", "--query", "clusters[0].cluster_id", "-o", "text").stdout:gsub("\n", "")
  assert(fs.write(folder .. "/body.json", '[{"name":"ack-node-problem-detector","version":"1.2.16"}]'))
  local file = cloud("call", "cs", "InstallClusterAddons", "ClusterId=" .. id, "--body", folder .. "/body.json")
  t.ok(file.code == 0 or file.stderr:find("Addon"), file.stderr)
  local typed = cloud("call", "cs", "ScaleClusterNodePool", "ClusterId=" .. id, "NodepoolId=np0", "count:=1")
  t.eq(typed.code, 1)
  t.match(typed.stderr, "ErrorNodePoolNotFound")
  t.match(typed.stderr, "request id")
end)

t.test("what_is_wrong_with_the_words_is_told_with_64", function()
  for words, text in pairs {
    [{ "call", "cs" }] = "which operation", [{ "wohami" }] = "did you mean 'whoami'", [{}] = "what of the cloud",
    [{ "call", "ecs", "DescribeRegions", "nonsense" }] = "neither key=value nor key:=JSON",
    [{ "call", "ecs", "DescribeRegions", "A:={" }] = "A:= wants JSON", [{ "call", "ecs", "DescribeRegions", "A=1", "A=2" }] = "given twice",
    [{ "call", "ecs", "DescribeRegions", "--query", "a[" }] = "the end comes too early",
    [{ "call", "ecs", "DescribeRegions", "--body", "/nonexistent" }] = "%-%-body: cannot open",
  } do
    local run = cloud(table.unpack(words))
    t.eq(run.code, 64, run.stderr)
    t.match(run.stderr, text)
  end
  t.match(cloud("call", "nas", "DescribeFileSystems").stderr, "product 'nas' is not known")
  t.match(cloud("call", "cs", "DescribeClusterDetial").stderr, "did you mean DescribeClusterDetail")
end)

t.test("a_region_that_does_not_exist_is_asked_about", function()
  local run = cloud("call", "ecs", "DescribeRegions", "--endpoint", "ecs.nowhere.aliyuncs.com")
  t.eq(run.code, 1)
  t.match(run.stderr, "ecs.nowhere.aliyuncs.com")
end)

-- A real target whose services are those of a serving sandbox is what tests/peers uses; here the keys never lead anywhere.
t.test("whoami_tells_every_source_and_never_a_key", function()
  local found = decoded(cloud("whoami", "-o", "json"))
  t.eq({ found.account, found.type, found.source, found.sources[1].state }, { "1234567890123456", "Account", "sandbox", "used" })
  local record = json.decode(assert(fs.read(folder .. "/sandbox/credentials.json")))
  local text = cloud("whoami").stdout .. cloud("whoami", "-o", "json").stdout
  t.ok(not text:find(record.access_key_secret, 1, true), "the secret is shown")
  t.ok(not text:find(record.access_key_id, 1, true), "the whole id is shown")
  local none = eirun({ "cloud", "whoami", "--region", "cn-hangzhou" }, { HOME = "/nonexistent",
    ALIBABA_CLOUD_ACCESS_KEY_ID = "LTAIonlyHalf", ALIBABA_CLOUD_ECS_METADATA_DISABLED = "true" })
  t.eq(none.code, 1)
  t.match(none.stderr, "only one of ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET is set; OIDC token")
  t.ok(not none.stderr:find("onlyHalf", 1, true), "the id is shown")
end)

-- A server of the test's own stands for the real thing.
local real = { HOME = "/nonexistent", ALIBABA_CLOUD_ACCESS_KEY_ID = "LTAI5tEXAMPLEKEYID000001", ALIBABA_CLOUD_REGION_ID = "cn-hangzhou",
  ALIBABA_CLOUD_ACCESS_KEY_SECRET = "ExampleSecretForVectorsOnly0001", ALIBABA_CLOUD_SECURITY_TOKEN = "CAIS-example-token",
  EIRUN_CA_FILE = "", no_proxy = "", http_proxy = "", https_proxy = "" }

local function with_server(options, answer, body)
  options.host, options.port = "127.0.0.1", 0
  local server = assert(httpd.listen(options))
  local ok, err = pcall(task.race, {
    function() httpd.serve(server, answer) end,
    function() body(server.port) end,
  })
  server:close()
  if not ok then error(err, 0) end
end

local function env_with(more)
  local env = {}
  for _, part in ipairs { real, more } do
    for name, value in pairs(part) do env[name] = value end
  end
  return env
end

t.test("a_proxy_is_used_and_no_proxy_kept", function()
  local seen
  with_server({}, function(req)
    seen = { req.target, req.headers:get "host" }
    req:respond(200, {}, '{"ok":true}')
  end, function(port)
    local words = { "cloud", "call", "ecs", "DescribeRegions", "--endpoint", "http://ecs.far.invalid" }
    local run = eirun(words, env_with { http_proxy = "http://127.0.0.1:" .. port, EIRUN_CA_FILE = nil })
    t.eq({ run.code, run.stdout }, { 0, '{"ok":true}\n' }, run.stderr)
    t.match(seen[1], "^http://ecs.far.invalid/%?RegionId=cn%-hangzhou")
    t.eq(seen[2], "ecs.far.invalid")
    local past = eirun(words, env_with { http_proxy = "http://127.0.0.1:" .. port, no_proxy = "far.invalid" })
    t.eq(past.code, 1)
    t.match(past.stderr, "name is not known")
  end)
end)

t.test("certificates_of_the_users_own_are_honoured", function()
  local now = task.now()
  local ca = assert(crypto.ca_create { name = "tests", not_before = now - 3600, not_after = now + 86400 })
  local cert = assert(crypto.cert_issue { ca = ca, cn = "localhost", names = { "127.0.0.1" }, not_before = now - 3600,
    not_after = now + 86400 })
  assert(fs.write(folder .. "/ca.pem", ca.cert_pem))
  assert(fs.write(folder .. "/empty.pem", "nothing\n"))
  with_server({ tls = { cert_pem = cert.cert_pem, key_pem = cert.key_pem } }, function(req) req:respond(200, {}, "{}") end, function(port)
    local words = { "cloud", "call", "ecs", "DescribeRegions", "--endpoint", "https://127.0.0.1:" .. port }
    local good = eirun(words, env_with { EIRUN_CA_FILE = folder .. "/ca.pem" })
    t.eq(good.code, 0, good.stderr)
    local foreign = eirun(words, env_with {})
    t.eq(foreign.code, 1)
    t.match(foreign.stderr, "certificate")
    for file, text in pairs { ["/nonexistent"] = "cannot open '/nonexistent'", [folder .. "/empty.pem"] = "no certificate is in" } do
      local bad = eirun(words, env_with { EIRUN_CA_FILE = file })
      t.eq(bad.code, 1)
      t.match(bad.stderr, "the certificates to trust: " .. text)
    end
  end)
end)

t.test("no_key_is_shown_whatever_goes_wrong", function()
  local answers = { { 200, "<html>" }, { 404, '{"Code":"InvalidAccessKeyId.NotFound","Message":"not found"}' }, { 502, "<html>Bad" },
    { 400, '{"Code":"SignatureDoesNotMatch","Message":"server string to sign is: x"}' }, { 403, "" } }
  local at = 1
  with_server({}, function(req) req:respond(answers[at][1], {}, answers[at][2]) end, function(port)
    for i = 1, #answers do
      at = i
      local run = eirun({ "cloud", "call", "ecs", "RunInstances", "--timeout", "1", "--endpoint", "http://127.0.0.1:" .. port }, real)
      t.eq(run.code, 1)
      for _, word in ipairs { "ExampleSecret", "CAIS%-example" } do
        t.ok(not (run.stdout .. run.stderr):find(word), "a key is shown: " .. run.stderr)
      end
    end
  end)
end)

t.test("clean_up", function() fs.remove(folder, { recursive = true }) end)
