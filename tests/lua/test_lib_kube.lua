-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local client = require "eirun.kube.client"
require "eirun.kube.pods"
local diff = require "eirun.kube.diff"
local ensure = require "eirun.kube.ensure"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local marked = require "eirun.kube.marked"
local task = require "eirun.task"
local traffic = require "eirun.kube.traffic"
local verdict = require "eirun.kube.verdict"
local volume = require "eirun.kube.volume"
local wait = require "eirun.kube.wait"

local function connect(url)
  return client.new { server = url, verify = true, namespace = "default", context = "test" }
end

t.test("kinds_have_their_paths", function()
  t.eq(kinds.path(kinds.known "Pod", "ns", "p", "log"), "/api/v1/namespaces/ns/pods/p/log")
  t.eq(kinds.path(kinds.known "PersistentVolume", "ns", "v"), "/api/v1/persistentvolumes/v")
  t.eq(kinds.path(kinds.known "Ingress", "ns"), "/apis/networking.k8s.io/v1/namespaces/ns/ingresses")
  t.eq(kinds.known("Deployment", "apps/v1beta1"), nil)
end)

local function group(name, version, resources)
  return { metadata = { name = name }, versions = json.array { { version = version, resources = json.array(resources) } } }
end

local function thing(plural, kind, short)
  return { resource = plural, responseKind = { kind = kind }, scope = "Namespaced", singularResource = kind:lower(),
    shortNames = json.array { short }, verbs = json.array { "get" } }
end

-- Answers discovery in the aggregated format, anything else as a Thing.
local function with_things(call)
  if call.path == "/api" then return 200, { kind = "APIGroupDiscoveryList", items = json.array {} } end
  if call.path == "/apis" then
    return 200, { kind = "APIGroupDiscoveryList", items = json.array {
      group("x.io", "v1", { thing("thingies", "Thing", "th") }), group("y.io", "v2", { thing("thingies", "Thing", "th") }) } }
  end
  return 200, { kind = "Thing", metadata = { name = "a" } }
end

t.test("an_unknown_kind_is_discovered_once", function()
  fake.with(with_things, function(url, seen)
    local k8s = connect(url)
    k8s:get("x.io/v1/Thing", "a")
    k8s:get("x.io/v1/Thing", "a")
    t.eq({ #seen, seen[3].path, seen[4].path }, { 4, "/apis/x.io/v1/namespaces/default/thingies/a", seen[3].path })
  end)
end)

t.test("words_are_plurals_singulars_and_short_names_with_group_and_version", function()
  fake.with(with_things, function(url, seen)
    local k8s = connect(url)
    for word, api_version in pairs { th = "x.io/v1", thing = "x.io/v1", ["thingies.y.io"] = "y.io/v2", ["th.v2.y.io"] = "y.io/v2",
      po = "v1", ["deployments.apps"] = "apps/v1", deploy = "apps/v1", Pods = "v1" } do
      t.eq(k8s:resource(word).api_version, api_version, word)
    end
    t.eq(#seen, 2, "discovery was asked for once")
    t.match(t.err("not_found", function() k8s:resource "th.z.io" end).message, 'resource type "th.z.io"')
  end)
end)

t.test("discovery_reads_the_old_format_and_a_broken_group_blocks_nobody", function()
  fake.with(function(call)
    local answers = {
      ["/api"] = { kind = "APIVersions", versions = json.array { "v1" } },
      ["/api/v1"] = { resources = json.array { { name = "pods", kind = "Pod", namespaced = true }, { name = "pods/log", kind = "Pod" } } },
      ["/apis"] = { kind = "APIGroupList", groups = json.array { { name = "x.io", preferredVersion = { groupVersion = "x.io/v2" },
        versions = json.array { { groupVersion = "x.io/v1" }, { groupVersion = "x.io/v2" }, { groupVersion = "broken/v1" } } } } },
      ["/apis/x.io/v1"] = { resources = json.array { { name = "things", kind = "Thing" } } },
      ["/apis/x.io/v2"] = { resources = json.array { { name = "things", kind = "Thing", shortNames = json.array { "th" } } } },
    }
    if answers[call.path] then return 200, answers[call.path] end
    return 503, "service unavailable"
  end, function(url)
    t.eq(connect(url):resource("th").api_version, "x.io/v2")
    t.eq(connect(url):kind("Thing").api_version, "x.io/v2")
  end)
end)

t.test("what_is_not_there_is_nil_and_what_is_forbidden_raises", function()
  fake.with(function(call)
    if call.path:find "secret" then return 403, fake.status(403, "Forbidden", "secrets is forbidden") end
    return 404, fake.status(404, "NotFound", "not found")
  end, function(url)
    local k8s = connect(url)
    t.eq(k8s:get("ConfigMap", "a"), nil)
    local err = t.err("denied", function() k8s:get("Secret", "a") end)
    t.eq(err.message, "cannot read Secret 'default/a': secrets is forbidden")
    t.match(err.hint, "Role")
  end)
end)

t.test("lists_are_paged_and_items_get_their_kind", function()
  fake.with(function(call)
    local last = call.query.continue == "more"
    return 200, { metadata = { continue = not last and "more" or nil, resourceVersion = "9" },
      items = json.array { { metadata = { name = last and "b" or "a" } } } }
  end, function(url, seen)
    local items, version = connect(url):list("Pod", { labels = { z = "1", a = "2" } })
    t.eq({ #items, items[2].kind, version, seen[1].query.labelSelector }, { 2, "Pod", "9", "a=2,z=1" })
  end)
end)

t.test("a_conflict_names_each_field_and_its_owner", function()
  fake.with(function()
    return 409, fake.status(409, "Conflict", "Apply failed with 1 conflict: ...", { details = { causes = json.array { {
      reason = "FieldManagerConflict", field = ".spec.replicas", message = 'conflict with "kubectl" using apps/v1' } } } })
  end, function(url)
    local err = t.err("conflict", function()
      connect(url):apply { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = "web" } }
    end)
    t.eq(err.message, "cannot apply Deployment 'default/web': .spec.replicas: conflict with \"kubectl\" using apps/v1")
    t.match(err.hint, "force = true")
  end)
end)

t.test("an_unknown_field_is_not_tried_again", function()
  fake.with(function()
    return 500, fake.status(500, nil, "failed to create typed patch object (...): .spec.x: field not declared in schema")
  end, function(url, seen)
    t.err("internal", function() connect(url):apply { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" } } end)
    t.eq(#seen, 1)
  end)
end)

-- A server of one object that merges what is applied.
local function one_object(world)
  return function(call)
    if call.method == "GET" and call.path:find "/events" then return 200, { metadata = {}, items = json.array(world.events or {}) } end
    if call.method == "GET" then
      if world.object then return 200, world.object end
      return 404, fake.status(404, "NotFound", "not found")
    end
    local applied = call.json()
    applied.metadata.uid, applied.metadata.resourceVersion = "u1", tostring((world.version or 0) + 1)
    if call.query.dryRun then return 200, applied end
    world.version, world.object = (world.version or 0) + 1, applied
    world.writes = (world.writes or 0) + 1
    return 200, applied
  end
end

local function config_map(value)
  return { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a", namespace = "default" }, data = { key = value } }
end

t.test("an_object_is_created_left_alone_and_updated_by_the_servers_dry_run", function()
  local world = {}
  fake.with(one_object(world), function(url)
    local k8s, outcomes = connect(url), {}
    for i, value in ipairs { "1", "1", "2" } do outcomes[i] = select(2, ensure.ensure(k8s, config_map(value))) end
    t.eq(outcomes, { "created", "unchanged", "updated" })
    t.eq(world.writes, 2)
    t.eq(world.object.metadata.labels["app.kubernetes.io/managed-by"], "eirun")
  end)
end)

t.test("an_object_of_somebody_else_is_left_alone_unless_adopted", function()
  local world = { object = { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" }, data = { key = "theirs" } } }
  fake.with(one_object(world), function(url)
    t.err("conflict", function() ensure.ensure(connect(url), config_map "mine") end)
    t.eq(world.object.data.key, "theirs")
    ensure.ensure(connect(url), config_map "mine", { adopt = true })
    t.eq(world.object.data.key, "mine")
  end)
end)

t.test("a_secrets_values_are_never_among_the_changes", function()
  local changes = diff.changes({ kind = "Secret", data = { k = "b2xk" } }, { kind = "Secret", data = { k = "bmV3", l = "eA==" } })
  t.eq(changes, { { field = "data.k", from = "<secret>", to = "<secret>" }, { field = "data.l", to = "<secret>" } })
end)

t.test("of_a_text_of_many_lines_those_that_come_and_go_are_told", function()
  t.eq(diff.changes({ kind = "ConfigMap", data = { app = "a\nb" } }, { kind = "ConfigMap", data = { app = "a\nc\nd" } }),
    { { field = "data.app", from = "b", to = "c, d" } })
end)

-- Waiting -----------------------------------------------------------------------------------------------------------------

local function pending_pod(more)
  local pod = { metadata = { name = "web-1" }, spec = {}, status = { phase = "Pending", conditions = json.array {} } }
  for key, value in pairs(more or {}) do pod.status[key] = value end
  return pod
end

local function event(reason, message, at)
  return { reason = reason, message = message, type = "Warning", lastTimestamp = at or "2026-01-05T08:00:00Z",
    involvedObject = { name = "web-1" } }
end

local function judge(pod, events, patience)
  local result
  fake.with(function(call)
    if call.path:find "/log" then return 200, "starting\nCould not find base path /models/x for servable m\n" end
    return 200, { metadata = {}, items = json.array(events) }
  end, function(url)
    result = wait.judge_pod(connect(url), pod, patience or wait.patience(), {})
  end)
  return result
end

-- Long enough ago for every symptom.
local function impatient()
  local patience = wait.patience()
  setmetatable(patience.seen, { __index = function() return 0 end })
  return patience
end

t.test("a_failed_mount_is_quoted_with_what_to_do", function()
  local err = judge(pending_pod(), { event("FailedMount", "MountVolume.SetUp failed: NoSuchBucket") }, impatient())
  t.eq(err.message, "pod 'web-1' will not become ready: FailedMount: \"MountVolume.SetUp failed: NoSuchBucket\"")
  t.match(err.hint, "the bucket does not exist")
end)

t.test("a_symptom_that_is_new_is_given_time", function()
  t.eq(judge(pending_pod(), { event("FailedMount", "timeout") }), nil)
end)

t.test("what_was_said_before_this_run_may_have_been_mended_since", function()
  local function after(seconds)
    local patience = wait.patience()
    setmetatable(patience.seen, { __index = function() return task.now() - seconds end })
    return judge(pending_pod(), { event("FailedMount", "missing access key in node publish secret") }, patience)
  end
  t.eq(after(100), nil)
  t.match(after(200).hint, "akId and akSecret")
end)

t.test("the_schedulers_words_are_quoted_when_no_pool_can_help", function()
  local err = judge(pending_pod(), {
    event("FailedScheduling", "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
    event("NotTriggerScaleUp", "pod didn't trigger scale-up", "2026-01-05T08:00:10Z"),
  }, impatient())
  t.match(err.message, "FailedScheduling: \"0/3 nodes are available")
  t.match(err.hint, "selector")
end)

t.test("nodes_on_their_way_are_a_reason_to_wait", function()
  t.eq(judge(pending_pod(), {
    event("FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."),
    event("TriggeredScaleUp", "pod triggered scale-up", "2026-01-05T08:00:10Z"),
  }, impatient()), nil)
end)

t.test("an_image_that_cannot_be_pulled_ends_the_waiting", function()
  local err = judge(pending_pod { containerStatuses = json.array { { name = "c", state = { waiting = {
    reason = "ImagePullBackOff", message = "Back-off pulling image \"no/such\"" } } } } }, {}, impatient())
  t.match(err.message, "ImagePullBackOff: \"Back%-off pulling image")
  t.match(err.hint, "name and tag")
end)

t.test("a_log_that_says_never_is_believed", function()
  local err = judge(pending_pod { phase = "Running" }, {}, impatient())
  t.match(err.message, "its log says: \"Could not find base path")
end)

t.test("a_rollout_is_done_when_all_replicas_are_new_and_available", function()
  local function missing(generation, status)
    return wait.rollout_missing { metadata = { generation = generation }, spec = { replicas = 2 }, status = status }
  end
  t.match(missing(2, { observedGeneration = 1 }), "not observed")
  t.match(missing(1, { observedGeneration = 1, updatedReplicas = 1 }), "1 of 2 replicas are updated")
  t.match(missing(1, { observedGeneration = 1, updatedReplicas = 2, replicas = 3 }), "1 old replicas")
  t.match(missing(1, { observedGeneration = 1, updatedReplicas = 2, replicas = 2, availableReplicas = 1 }), "1 of 2 replicas are available")
  t.eq(missing(1, { observedGeneration = 1, updatedReplicas = 2, replicas = 2, availableReplicas = 2 }), nil)
end)

t.test("every_symptom_says_what_to_do", function()
  for _, row in ipairs(verdict.symptoms) do t.ok(#row.hint > 10 and row.patience >= 0, row.reason) end
end)

-- Manifests -----------------------------------------------------------------------------------------------------------------

t.test("a_volume_holds_no_key_and_its_handle_is_its_name", function()
  local pv, claim = volume.manifests({ name = "model-csi-pv", claim = "model-pvc", bucket = "models" }, "serving", "cn-hangzhou")
  t.eq(pv.spec.csi, { driver = "ossplugin.csi.alibabacloud.com", volumeHandle = "model-csi-pv",
    nodePublishSecretRef = { name = "model-csi-pv-oss", namespace = "serving" },
    volumeAttributes = { bucket = "models", path = "/", url = "oss-cn-hangzhou-internal.aliyuncs.com", region = "cn-hangzhou",
      fuseType = "ossfs2" } })
  t.eq({ pv.spec.storageClassName, claim.spec.storageClassName }, { "", "" })
  t.eq(claim.spec.selector.matchLabels, pv.metadata.labels)
end)

t.test("an_hpa_on_requests_is_the_procedures", function()
  local hpa = traffic.hpa_manifest({ name = "h", target = { name = "d" }, min = 1, max = 10,
    external = { metric = "sls_ingress_qps", average = 10, selector = { ["sls.project"] = "p" } } }, "default")
  t.eq(hpa.spec.metrics[1], { type = "External", external = {
    metric = { name = "sls_ingress_qps", selector = { matchLabels = { ["sls.project"] = "p" } } },
    target = { type = "AverageValue", averageValue = "10" } } })
end)

t.test("an_ingress_names_a_port_by_number_or_name", function()
  local function port(value)
    return traffic.ingress_manifest({ name = "i", service = "s", port = value }, "d").spec.rules[1].http.paths[1].backend.service.port
  end
  t.eq(port(8501), { number = 8501 })
  t.eq(port "http-serving", { name = "http-serving" })
end)

t.test("only_this_machine_is_loopback", function()
  for server, expected in pairs { ["https://127.0.0.1:6443"] = true, ["https://localhost:6443"] = true, ["https://[::1]:6443"] = true,
    ["https://10.0.0.1:6443"] = false, ["https://127.0.0.1.example.com"] = false, ["https://localhost.example.com:6443"] = false } do
    t.eq(marked.is_loopback(server), expected, server)
  end
end)
