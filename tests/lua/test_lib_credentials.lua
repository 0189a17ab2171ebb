-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local credentials = require "eirun.credentials"
local fs = require "eirun.core.fs"

local function with_home(files, body)
  local home = assert(fs.mkdtemp "/tmp/eirun-test-")
  for path, text in pairs(files) do
    assert(fs.mkdir(home .. "/" .. path:match("^(.*)/"), { parents = true }))
    assert(fs.write(home .. "/" .. path, text))
  end
  local ok, err = pcall(body, home)
  fs.remove(home, { recursive = true })
  if not ok then error(err, 0) end
end

local function env_of(values)
  return function(name) return values[name] end
end

t.test("the_environment_wins_and_the_secret_is_not_shown", function()
  local keys = credentials.chain(env_of { ALIBABA_CLOUD_ACCESS_KEY_ID = "id", ALIBABA_CLOUD_ACCESS_KEY_SECRET = "hush",
    ALIBABA_CLOUD_SECURITY_TOKEN = "token" }):get()
  t.eq({ keys.access_key_id, keys.source, tostring(keys.access_key_secret), tostring(keys.security_token) },
    { "id", "environment", "<secret>", "<secret>" })
end)

t.test("half_a_pair_is_named_and_passed_over", function()
  with_home({ [".alibabacloud/credentials"] = "[default]\ntype = access_key\naccess_key_id = ini-id ; mine\naccess_key_secret = s\n" },
    function(home)
      local found = credentials.chain(env_of { HOME = home, ALIBABA_CLOUD_ACCESS_KEY_ID = "id" })
      t.eq(found:get().access_key_id, "ini-id")
      local sources = found:sources()
      t.match(sources[1].why, "only one of")
      t.match(sources[3].why, "config.json cannot be read")
      t.eq({ sources[4].state, sources[5].state }, { "used", "unasked" })
    end)
end)

local config = [[{"current":"work","profiles":[{"name":"default","mode":"AK","access_key_id":"a","access_key_secret":"b"},
  {"name":"work","mode":"StsToken","access_key_id":"c","access_key_secret":"d","sts_token":"e"},
  {"name":"gone","mode":"CloudSSO"}]}]]

t.test("the_current_profile_of_the_vendors_file_is_read", function()
  with_home({ [".aliyun/config.json"] = config }, function(home)
    local keys = credentials.chain(env_of { HOME = home }):get()
    t.eq({ keys.access_key_id, tostring(keys.security_token) }, { "c", "<secret>" })
    t.match(keys.source, "profile 'work' of")
    local other = credentials.chain(env_of { HOME = home, ALIBABA_CLOUD_PROFILE = "default" }):get()
    t.eq({ other.access_key_id, other.security_token }, { "a" })
  end)
end)

t.test("without_any_key_every_source_and_its_reason_is_told", function()
  with_home({ [".aliyun/config.json"] = config }, function(home)
    local env = env_of { HOME = home, ALIBABA_CLOUD_PROFILE = "gone", ALIBABA_CLOUD_ECS_METADATA_DISABLED = "true" }
    local err = t.err("denied", function() credentials.chain(env):get() end)
    t.match(err.message,
      "environment: ALIBABA_CLOUD_ACCESS_KEY_ID is not set; OIDC token %(RRSA%): ALIBABA_CLOUD_ROLE_ARN, .* are not set; " ..
      "command line profile: .*config.json:3: profile 'gone': nobody is signed in; credentials file: .* cannot be read; " ..
      "ECS instance role: .*DISABLED is set; credentials URI: ")
    t.match(err.hint, "aliyun configure")
  end)
end)

t.test("keys_of_a_caller_are_wrapped_at_once", function()
  local given = credentials.static { access_key_id = "id", access_key_secret = "hush" }
  t.eq(tostring(given:get().access_key_secret), "<secret>")
  t.eq(tostring(given), "<credentials from the caller>")
  t.err("invalid", function() credentials.static { access_key_id = "id" } end)
end)
