-- SPDX-License-Identifier: Apache-2.0
-- Every place that keys may come from, asked for real: STS, the metadata service and a credentials URI of a sandbox.
local t = require "eirun.test"
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local sandbox = require "sandbox_client"
local target = require "eirun.target"
local task = require "eirun.task"

local ROLE = "acs:ram::1234567890123456:role/AliyunCSDefaultRole"

-- A sandbox that is the world: a home, an environment, a target without keys of its own.
local function with_world(body)
  local box <close> = sandbox.start { parts = { "sandbox.control", "sandbox.cloud" } }
  local home = assert(fs.mkdtemp "/tmp/eirun-test-")
  local world = { box = box, home = home, info = box.info, env = { HOME = home } }
  function world.write(path, text)
    assert(fs.mkdir((home .. "/" .. path):match("^(.*)/"), { parents = true }))
    assert(fs.write(home .. "/" .. path, text))
  end
  function world.chain() return credentials.chain(function(name) return world.env[name] end) end
  function world.caller(keys)
    return cloud.call { product = "sts", action = "GetCallerIdentity", credentials = keys or world.chain() }.Arn
  end
  local undo = target.use { sandbox = true, region = "cn-hangzhou", namespace = "default", ca_file = box.info.ca_file,
    endpoints = { METADATA = "http://100.100.100.200" }, credentials = credentials.chain(function(name) return world.env[name] end) }
  local ok, err = pcall(body, world)
  undo()
  fs.remove(home, { recursive = true })
  if not ok then error(err, 0) end
end

local function profiles(world, list, current)
  world.write(".aliyun/config.json", json.encode { current = current, profiles = json.array(list) })
end

local function own(world, more)
  local profile = { access_key_id = world.info.access_key_id, access_key_secret = world.info.access_key_secret }
  for key, value in pairs(more) do profile[key] = value end
  return profile
end

local function token_file(world)
  local config = cloud.call { product = "cs", action = "DescribeClusterUserKubeconfig", params = { ClusterId = world.info.cluster_id },
    credentials = credentials.static(own(world, {})) }.config
  world.write("token", config:match("token: (%S+)") .. "\n")
  return world.home .. "/token"
end

t.test("a_pods_token_becomes_a_role", function()
  with_world(function(world)
    world.env.ALIBABA_CLOUD_OIDC_TOKEN_FILE = token_file(world)
    world.env.ALIBABA_CLOUD_ROLE_ARN = ROLE
    world.env.ALIBABA_CLOUD_OIDC_PROVIDER_ARN = "acs:ram::1234567890123456:oidc-provider/ack-rrsa-" .. world.info.cluster_id
    world.env.ALIBABA_CLOUD_ROLE_SESSION_NAME = "pod"
    local keys = world.chain()
    t.match(world.caller(keys), "assumed%-role/.*/pod$")
    t.match(keys:get().source, "OIDC")
    t.ok(keys:get().expires > task.now() + 3000, "temporary keys know when they end")
  end)
end)

t.test("an_endpoint_that_the_webhook_injected_is_used", function()
  with_world(function(world)
    world.env = { HOME = world.home, ALIBABA_CLOUD_OIDC_TOKEN_FILE = token_file(world), ALIBABA_CLOUD_ROLE_ARN = ROLE,
      ALIBABA_CLOUD_OIDC_PROVIDER_ARN = "x", ALIBABA_CLOUD_STS_ENDPOINT = "sts-vpc.cn-hangzhou.aliyuncs.com",
      ALIBABA_CLOUD_ECS_METADATA_DISABLED = "true" }
    local err = t.err("denied", function() world.chain():get() end)
    t.match(err.message, "AssumeRoleWithOIDC of " .. ROLE:gsub("%W", "%%%0") .. ": The specified OIDC provider not exists")
  end)
end)

t.test("a_profile_assumes_a_role", function()
  with_world(function(world)
    profiles(world, { own(world, { name = "role", mode = "RamRoleArn", ram_role_arn = ROLE, ram_session_name = "ops",
      expired_seconds = 900 }) }, "role")
    t.match(world.caller(), "AliyunCSDefaultRole/ops$")
  end)
end)

t.test("roles_follow_each_other", function()
  with_world(function(world)
    profiles(world, {
      own(world, { name = "base", mode = "AK" }),
      { name = "middle", mode = "ChainableRamRoleArn", source_profile = "base", ram_role_arn = ROLE, ram_session_name = "middle" },
      { name = "last", mode = "ChainableRamRoleArn", source_profile = "middle", ram_role_arn = ROLE, ram_session_name = "last" },
    }, "last")
    t.match(world.caller(), "/last$")
  end)
end)

t.test("a_circle_of_roles_is_an_error_with_its_place", function()
  with_world(function(world)
    profiles(world, {
      { name = "a", mode = "ChainableRamRoleArn", source_profile = "b", ram_role_arn = ROLE },
      { name = "b", mode = "ChainableRamRoleArn", source_profile = "a", ram_role_arn = ROLE },
    }, "a")
    local err = t.err("invalid", function() world.chain():get() end)
    t.match(err.message, "config.json:1: profile 'a': the role chain is a circle: a %-> b %-> a")
  end)
end)

t.test("the_instances_role_is_found_by_version_2_of_the_metadata_service", function()
  with_world(function(world)
    profiles(world, { { name = "ecs", mode = "EcsRamRole" } }, "ecs")
    t.match(world.caller(), "assumed%-role/KubernetesWorkerRole%-sandbox")
    world.env.ALIBABA_CLOUD_CLI_PROFILE_DISABLED = "true"
    local keys = world.chain()
    t.match(world.caller(keys), "KubernetesWorkerRole")
    t.eq(keys:get().source, "role 'KubernetesWorkerRole-sandbox' of the instance")
    t.eq({ keys:sources()[5].state, keys:sources()[6].state }, { "used", "unasked" })
  end)
end)

t.test("a_program_gives_keys_and_its_output_is_never_shown", function()
  with_world(function(world)
    world.write("keys.json", json.encode(own(world, { mode = "AK" })))
    profiles(world, { { name = "p", mode = "External", process_command = "cat '" .. world.home .. "/keys.json'" },
      { name = "bad", mode = "External", process_command = 'sh -c "echo hush-hush; exit 3"' },
      { name = "text", mode = "External", process_command = "echo hush-hush" } }, "p")
    t.match(world.caller(), ":root$")
    world.env.ALIBABA_CLOUD_ECS_METADATA_DISABLED = "true"
    for name, words in pairs { bad = "program 'sh' ended with code 3", text = "program 'echo' printed no JSON object" } do
      world.env.ALIBABA_CLOUD_PROFILE = name
      local err = t.err("denied", function() world.chain():get() end)
      t.match(err.message, words)
      t.ok(not tostring(err):find("hush", 1, true), "the program's output is shown")
    end
  end)
end)

local function with_server(answer, body)
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0 })
  local ok, err = pcall(task.race, {
    function() httpd.serve(server, answer) end,
    function() body("http://127.0.0.1:" .. server.port) end,
  })
  server:close()
  if not ok then error(err, 0) end
end

t.test("a_credentials_uri_is_asked", function()
  require("eirun.core.http").routes {}
  local env = { HOME = "/nonexistent", ALIBABA_CLOUD_ECS_METADATA_DISABLED = "true" }
  local status = 200
  with_server(function(req)
    req:respond(status, {}, '{"Code":"Success","AccessKeyId":"STS.x","AccessKeySecret":"s","SecurityToken":"t",' ..
      '"Expiration":"2038-01-01T00:00:00Z"}')
  end, function(url)
    env.ALIBABA_CLOUD_CREDENTIALS_URI = url .. "/keys?token=hush"
    local keys = credentials.chain(function(name) return env[name] end):get()
    t.eq({ keys.access_key_id, tostring(keys.security_token), keys.expires }, { "STS.x", "<secret>", 2145916800 })
    status = 500
    local err = t.err("denied", function() credentials.chain(function(name) return env[name] end):get() end)
    t.match(err.message, "credentials URI at 127.0.0.1:%d+: it answered 500")
    t.ok(not tostring(err):find("hush", 1, true), "the URI's own secret is shown")
  end)
end)

t.test("version_1_of_the_metadata_service_does_where_there_is_no_token", function()
  require("eirun.core.http").routes {}
  with_server(function(req)
    if req.method == "PUT" then return req:respond(404, {}, "") end
    local role = req.path:match("security%-credentials/(.+)$")
    req:respond(200, {}, role and '{"Code":"Success","AccessKeyId":"STS.v1","AccessKeySecret":"s","SecurityToken":"t"}' or "worker\n")
  end, function(url)
    local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = { METADATA = url }, credentials = {} }
    local env = { HOME = "/nonexistent" }
    local ok, err = pcall(function()
      t.eq(credentials.chain(function(name) return env[name] end):get().access_key_id, "STS.v1")
      env.ALIBABA_CLOUD_IMDSV1_DISABLED = "true"
      local denied = t.err("denied", function() credentials.chain(function(name) return env[name] end):get() end)
      t.match(denied.message, "IMDSV1_DISABLED is set")
    end)
    undo()
    if not ok then error(err, 0) end
  end)
end)

local malformed = {
  { '{"current":"a",\n"profiles":[{"name":"a",}]}', "config.json:2:%d+: this is not JSON" },
  { '{"current":"a","profiles":{}}', "`profiles` must be a list" },
  { '{"current":"z","profiles":[{"name":"a"}]}', "there is no profile 'z'" },
  { '{"current":"a","profiles":[\n{"name":"a","mode":"AK"}]}', "config.json:2: profile 'a': mode AK needs `access_key_id`" },
  { '{"current":"a","profiles":[\n{"name":"a","mode":"AKK"}]}', "mode 'AKK' is not known" },
  { '{"current":"a","profiles":[\n{"name":"a","mode":"AK","access_key_id":7}]}', "`access_key_id` must be text" },
}

t.test("a_malformed_profile_is_an_error_with_its_line_and_no_other_key_is_taken", function()
  for _, row in ipairs(malformed) do
    local home = assert(fs.mkdtemp "/tmp/eirun-test-")
    assert(fs.mkdir(home .. "/.aliyun"))
    assert(fs.write(home .. "/.aliyun/config.json", row[1]))
    local err = t.err("invalid", function() credentials.chain(function(name) return name == "HOME" and home or nil end):get() end)
    t.match(err.message, row[2])
    fs.remove(home, { recursive = true })
  end
end)

t.test("a_malformed_credentials_file_is_told_by_line", function()
  local home = assert(fs.mkdtemp "/tmp/eirun-test-")
  local function try(text)
    assert(fs.write(home .. "/ini", text))
    local env = { HOME = home, ALIBABA_CLOUD_CREDENTIALS_FILE = home .. "/ini" }
    return t.err("invalid", function() credentials.chain(function(name) return env[name] end):get() end).message
  end
  t.match(try "[default]\n\nwhat is this\n", "ini:3: this is neither a section nor key = value")
  t.match(try "type = access_key\n", "ini:1: this stands before the first")
  t.match(try "; mine\n[default]\ntype = access_key\n", "ini:2: section 'default': type access_key needs access_key_id")
  t.match(try "[default]\ntype = magic\n", "type 'magic' is not known")
  fs.remove(home, { recursive = true })
end)
