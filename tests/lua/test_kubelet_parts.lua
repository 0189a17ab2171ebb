-- SPDX-License-Identifier: Apache-2.0
-- The kubelet's parts that need no cluster: volume attributes, image names, logs, pod phases, shell lines.
local images = require "sandbox.kubelet.images"
local logs = require "sandbox.kubelet.logs"
local osscsi = require "sandbox.kubelet.osscsi"
local program = require "sandbox.kubelet.program"
local status = require "sandbox.kubelet.status"
local volumes = require "sandbox.kubelet.volumes"
local t = require "eirun.test"
local fs = require "eirun.core.fs"

-- Volume attributes --------------------------------------------------------------------------------------------------

local function options(attributes, secret)
  return osscsi.options({ volumeHandle = "pv", volumeAttributes = attributes }, secret, "cn-hangzhou")
end

local function refusal(attributes, secret)
  local ok, err = pcall(osscsi.check, options(attributes, secret))
  t.ok(not ok, "was accepted")
  return err.mount
end

local place = { bucket = "b", url = "oss-cn-hangzhou.aliyuncs.com", path = "/m" }

local function with(more)
  local all = {}
  for key, value in pairs(place) do all[key] = value end
  for key, value in pairs(more) do all[key] = value end
  return all
end

t.test("attribute_names_have_no_case_and_empty_values_count_as_absent", function()
  local found = options({ Bucket = " b ", URL = "oss-cn-hangzhou.aliyuncs.com", path = "", FuseType = "ossfs2" }, {})
  t.eq({ found.bucket, found.path, found.fuse }, { "b", "/", "ossfs2" })
end)

t.test("a_public_endpoint_of_the_nodes_region_becomes_internal_http", function()
  t.eq(options(place).url, "http://oss-cn-hangzhou-internal.aliyuncs.com")
  t.eq(options(with { url = "oss-cn-beijing.aliyuncs.com" }).url, "https://oss-cn-beijing.aliyuncs.com")
  t.eq(options(with { url = "https://oss-cn-hangzhou-internal.aliyuncs.com/" }).url, "https://oss-cn-hangzhou-internal.aliyuncs.com")
end)

t.test("signatures_are_v4_only_where_region_or_version_say_so", function()
  t.eq(options(place).version, "v1")
  t.eq(options(with { region = "cn-hangzhou" }).version, "v4")
  t.eq(options(with { region = "cn-hangzhou", sigVersion = "v1" }).version, "v1")
end)

t.test("one_half_of_a_pair_hides_the_other_spelling", function()
  t.eq(options(place, { akId = "i", akSecret = "s" }).id, "i")
  local low = options(place, { accesskeyid = "i", ACCESSKEYSECRET = "s", SecurityToken = "t" })
  t.eq({ low.id, low.secret, low.token }, { "i", "s", "t" })
  t.match(refusal(place, { akId = "i", AccessKeyId = "x", AccessKeySecret = "y" }), "missing access key in node publish secret$")
end)

t.test("the_drivers_words_for_wrong_authorization", function()
  t.match(refusal(with { authType = "rrsa" }), "OSS authorization error: ossfs: use RRSA but roleName is empty$")
  t.match(refusal(with { authType = "rrsa", roleArn = "r" }), "use RRSA but one of the ARNs is empty, roleArn: r, oidcProviderArn: $")
  t.match(refusal(with { authType = "sts" }), "missing roleName or ramRole in volume attributes$")
  t.match(refusal(with { fuseType = "ossfs2", authType = "public" }), "ossfs2 do not support authType: public$")
  t.match(refusal(with { assumeRoleArn = "r" }), "only support access OSS through STS AssumeRole when authType is RRSA$")
  t.match(refusal(with { secretRef = "s", akId = "i", akSecret = "k" }), "AK and secretRef cannot be set at the same time$")
  t.match(refusal(with { fuseType = "s3fs", authType = "" }, { akId = "i", akSecret = "s" }), "Unsupported fuseType s3fs$")
  t.match(refusal { akId = "i", akSecret = "s" }, "OSS parameters error: Url/Bucket empty$")
end)

t.test("other_options_are_words_behind_dash_o", function()
  t.eq(osscsi.parse_other_opts "-o max_stat_cache_size=0 -o allow_other -ogid=1000,uid=1000",
    { "max_stat_cache_size=0", "allow_other", "gid=1000", "uid=1000" })
  t.eq(osscsi.parse_other_opts "", {})
  t.eq(osscsi.parse_other_opts "allow_other", nil)
end)

-- Images -------------------------------------------------------------------------------------------------------------

t.test("image_names_are_completed_as_the_runtime_does", function()
  t.eq({ images.parse "nginx" }, { "docker.io/library/nginx", "latest" })
  t.eq({ images.parse "tensorflow/serving:1.15.0-gpu" }, { "docker.io/tensorflow/serving", "1.15.0-gpu" })
  t.eq({ images.parse "localhost:5000/a/b:c" }, { "localhost:5000/a/b", "c" })
  t.eq(images.policy { image = "nginx" }, "Always")
  t.eq(images.policy { image = "nginx:1.27" }, "IfNotPresent")
end)

t.test("unknown_repositories_and_tags_fail_differently", function()
  t.match(select(2, images.find "tensorflow/serving:9"), "^rpc error: code = NotFound desc = .*: not found$")
  t.match(select(2, images.find "nobody/nothing:1"), "pull access denied, repository does not exist or may require authorization")
  t.ok(images.find "tensorflow/serving:1.15.0-gpu".size > images.find "tensorflow/serving:1.15.0".size)
end)

t.test("durations_read_as_go_writes_them", function()
  t.eq({ images.duration(0.5), images.duration(10), images.duration(40.25), images.duration(160) }, { "500ms", "10s", "40.25s", "2m40s" })
end)

-- Logs ---------------------------------------------------------------------------------------------------------------

local function in_folder(body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(body, function(now) return logs.new(now, dir) end)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

t.test("logs_are_cut_stamped_and_kept_for_one_restart", function()
  in_folder(function(kept)
    local now = 1767600000
    local all = kept(function() return now end)
    local write = all:open("u", "c")
    write "one"
    now = now + 10
    write "two"
    t.eq(all:read("c", { uid = "u" }), "one\ntwo\n")
    t.eq(all:read("c", { uid = "u", tail = 1 }), "two\n")
    t.eq(all:read("c", { uid = "u", since_seconds = 5 }), "two\n")
    t.eq(all:read("c", { uid = "u", timestamps = true, tail = 1 }), "2026-01-05T08:00:10.000000000Z two\n")
    t.eq(all:read("c", { uid = "u", limit_bytes = 2 }), "on")
    all:open("u", "c") "three"
    t.eq(all:read("c", { uid = "u" }), "three\n")
    t.eq(all:read("c", { uid = "u", previous = true }), "one\ntwo\n")
    t.eq(all:read("c", { uid = "other" }), "")
  end)
end)

t.test("who_follows_a_log_gets_what_comes_and_an_end", function()
  in_folder(function(kept)
    local all = kept(function() return 1767600000 end)
    local write = all:open("u", "c")
    write "one"
    local following = all:read("c", { uid = "u", follow = true })
    t.eq(following(), "one\n")
    write "two"
    t.eq(following(), "two\n")
    all:finish("u", "c")
    t.eq(following(), nil)
  end)
end)

t.test("another_sandbox_finds_the_lines_and_a_container_taken_up_goes_on_with_them", function()
  in_folder(function(kept)
    local now = 100
    local function clock() return now end
    kept(clock):open("u", "c") "one"
    local again = kept(clock)
    t.eq(again:read("c", { uid = "u" }), "one\n")
    local write = again:open("u", "c", true)
    write "what it said at its start"
    now = now + 5
    write "two"
    t.eq(again:read("c", { uid = "u", timestamps = true }), "1970-01-01T00:01:40.000000000Z one\n1970-01-01T00:01:45.000000000Z two\n")
    again:forget "u"
    t.eq(kept(clock):read("c", { uid = "u" }), "")
  end)
end)

t.test("old_lines_make_room", function()
  in_folder(function(kept)
    local all = kept(function() return 0 end)
    local write = all:open("u", "c")
    for i = 1, 5000 do write(tostring(i)) end
    local text = all:read("c", { uid = "u" })
    t.match(text, "^3001\n")
    t.match(text, "\n5000\n$")
  end)
end)

-- Status -------------------------------------------------------------------------------------------------------------

local function container(kind, more)
  local one = { name = "c", image = "i", ready = kind == "running", started = true, restarts = 0,
    state = { kind = kind, started_at = 0, finished_at = 0, code = 0, reason = "x" } }
  for key, value in pairs(more or {}) do one[key] = value end
  return one
end

local function phase(policy, ...)
  return status.phase { containers = { ... }, init_containers = {}, restart_policy = policy }
end

t.test("phases_follow_containers_and_policy", function()
  local failed = container "terminated"
  failed.state.code = 1
  t.eq(phase("Always", container "waiting"), "Pending")
  t.eq(phase("Always", container "running", container "waiting"), "Pending")
  t.eq(phase("Always", container("waiting", { last = failed.state })), "Running")
  t.eq(phase("Never", container "terminated"), "Succeeded")
  t.eq(phase("Never", container "terminated", failed), "Failed")
  t.eq(phase("OnFailure", container "running", failed), "Running")
end)

t.test("conditions_keep_their_time_and_those_of_others", function()
  local pod = { containers = { container "waiting" }, init_containers = {}, restart_policy = "Always", host_ip = "h", start_time = 0,
    conditions = { { type = "PodScheduled", status = "True" } } }
  local first = status.of(pod, 100)
  t.eq(first.conditions[1].type, "PodScheduled")
  pod.containers[1] = container "running"
  local second = status.of(pod, 200)
  local times = {}
  for _, one in ipairs(second.conditions) do times[one.type] = one.lastTransitionTime end
  t.eq(times.Initialized, "1970-01-01T00:01:40Z")
  t.eq(times.Ready, "1970-01-01T00:03:20Z")
end)

-- Programs and file systems ------------------------------------------------------------------------------------------

t.test("commands_are_what_a_container_would_run", function()
  local function of(spec) return program.commands(spec, { NAME = "n" }) end
  t.eq(of { image = "nginx" }, nil)
  t.eq(of { image = "busybox", command = { "sh", "-c" }, args = { "echo $NAME && sleep 3; exit 2" } },
    { { "echo", "n" }, { "sleep", "3" }, { "exit", "2" } })
  t.eq(of { image = "busybox", command = { "sleep", "$(NAME)" } }, { { "sleep", "n" } })
  t.eq(of { image = "tensorflow/serving:1.15.0", args = { "--x=1" } }[1], { "tensorflow_model_server", "--port=8500",
    "--rest_api_port=8501", "--model_name=model", "--model_base_path=/models/model", "--x=1" })
end)

t.test("the_longest_mount_path_wins_and_sub_paths_are_inside", function()
  local function tree(name)
    return { read = function(_, path) return name .. ":" .. path end, options = { bucket = "b" }, prefix = "p/" }
  end
  local files = volumes.view({ volumeMounts = { { name = "a", mountPath = "/models" }, { name = "b", mountPath = "/models/x/" },
    { name = "a", mountPath = "/sub", subPath = "in/ner" } } }, { a = { tree = tree "a" }, b = { tree = tree "b" } })
  t.eq(files.read "/models/1/saved_model.pb", "a:1/saved_model.pb")
  t.eq(files.read "/models/x/1", "b:1")
  t.eq(files.read "/sub//f", "a:in/ner/f")
  t.eq(files.read "/etc/passwd", nil)
  t.eq(files.path_of("b", "p/in/ner/f"), "/models/x/in/ner/f")
  t.eq(files.path_of("c", "p/f"), nil)
end)
