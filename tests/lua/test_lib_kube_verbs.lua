-- SPDX-License-Identifier: Apache-2.0
-- The verbs on nodes, rights, tokens and leases, against scripted servers.
local client = require "eirun.kube.client"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local jsonpath = require "eirun.kube.jsonpath"
local print_ = require "eirun.cli.kube.print"
local t = require "eirun.test"
local task = require "eirun.task"
require "eirun.kube"

local function connect(url)
  return client.new { server = url, verify = true, namespace = "default", context = "test" }
end

-- Draining -------------------------------------------------------------------------------------------------------------

local function pod(name, more)
  more = more or {}
  return { metadata = { name = name, namespace = "default", uid = name, annotations = more.annotations,
    ownerReferences = more.owner and json.array { { kind = more.owner, name = "x", controller = true } } or nil },
    spec = { volumes = more.volume and json.array { { name = "v", emptyDir = json.decode "{}" } } or nil },
    status = { phase = more.phase or "Running" } }
end

local function node_with(pods, evict)
  local gone = {}
  return function(call)
    if call.path == "/api/v1/nodes/n1" then return 200, { metadata = { name = "n1" }, spec = json.decode "{}" } end
    local name = call.path:match "/pods/([%w-]+)/eviction$"
    if name then
      local status, body = evict(name)
      gone[name] = status < 300 or nil
      return status, body
    end
    name = call.path:match "/pods/([%w-]+)$"
    if name then return gone[name] and 404 or 200, gone[name] and fake.status(404, "NotFound", "x") or pod(name) end
    return 200, { metadata = {}, items = json.array(pods) }
  end
end

t.test("draining_names_what_stands_in_the_way_before_anything_is_evicted", function()
  local pods = { pod("own"), pod("daemon", { owner = "DaemonSet" }), pod("data", { owner = "ReplicaSet", volume = true }),
    pod("fine", { owner = "ReplicaSet" }), pod("mirror", { annotations = { ["kubernetes.io/config.mirror"] = "x" } }),
    pod("done", { phase = "Failed" }) }
  fake.with(node_with(pods, function() return 201, {} end), function(url, seen)
    local err = t.err("invalid", function() connect(url):drain "n1" end)
    t.match(err.message, "DaemonSet%-managed Pods .*default/daemon.*local storage.*default/data.*no controller.*default/own")
    for _, call in ipairs(seen) do t.ok(not call.path:find "eviction", "nothing was evicted") end
    local list, left = connect(url):list_drainable("n1", { ignore_daemonsets = true, delete_emptydir_data = true, force = true })
    t.eq({ #list, #left }, { 4, 2 })
  end)
end)

t.test("a_pod_that_is_evicted_is_waited_for", function()
  local told = {}
  fake.with(node_with({ pod("a", { owner = "ReplicaSet" }) }, function() return 201, {} end), function(url, seen)
    connect(url):drain("n1", { each = function(what) told[#told + 1] = what end })
    t.eq(told, { "evicting", "gone" })
    local patch = seen[2]
    t.eq({ patch.method, patch.body, patch.headers:get "content-type" },
      { "PATCH", '{"spec":{"unschedulable":true}}', "application/strategic-merge-patch+json" })
  end)
end)

t.test("a_budget_that_refuses_is_asked_again_and_the_time_ends", function()
  local refused = fake.status(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.")
  fake.with(node_with({ pod("a", { owner = "ReplicaSet" }) }, function() return 429, refused end), function(url)
    local said
    t.err("timeout", function()
      connect(url):drain("n1", { timeout = 2, each = function(what, _, err) said = what == "refused" and err.server_message or said end })
    end)
    t.match(said, "disruption budget")
  end)
end)

-- Rights, tokens ---------------------------------------------------------------------------------------------------------

t.test("what_we_may_do_is_asked_with_group_and_subresource", function()
  fake.with(function(call)
    local spec = call.json().spec.resourceAttributes
    return 201, { status = { allowed = spec and spec.verb == "get" or false, reason = "because" } }
  end, function(url, seen)
    local k8s = connect(url)
    t.eq({ k8s:can_i("get", "deployments/scale", { name = "web" }) }, { true, "because" })
    t.eq(seen[1].json().spec.resourceAttributes,
      { verb = "get", group = "apps", version = "v1", resource = "deployments", subresource = "scale", name = "web",
        namespace = "default" })
    t.eq((k8s:can_i("delete", "Node")), false)
    t.eq(seen[2].json().spec.resourceAttributes.namespace, nil)
    k8s:can_i("get", "/metrics")
    t.eq(seen[3].json().spec.nonResourceAttributes, { path = "/metrics", verb = "get" })
  end)
end)

t.test("a_token_is_a_secret", function()
  fake.with(function() return 201, { status = { token = "abc", expirationTimestamp = "2026-01-01T00:00:00Z" } } end, function(url, seen)
    local token, expires = connect(url):token("sa", { seconds = 600 })
    t.eq({ tostring(token), expires, seen[1].path }, { "<secret>", 1767225600, "/api/v1/namespaces/default/serviceaccounts/sa/token" })
    t.eq(seen[1].json().spec, { audiences = json.array {}, expirationSeconds = 600 })
  end)
end)

t.test("exec_and_port_forward_keep_their_place", function()
  fake.with(function() return 200, {} end, function(url, seen)
    t.match(t.err("invalid", function() connect(url):exec("a", { "ls" }) end).hint, "kubectl exec")
    t.match(t.err("invalid", function() connect(url):port_forward("a", {}) end).hint, "kubectl port%-forward")
    t.eq(#seen, 0)
  end)
end)

t.test("a_warning_is_told_once", function()
  fake.with(function() return 200, {}, { Warning = '299 - "v1 Endpoints is deprecated, say \\"EndpointSlice\\""' } end, function(url)
    local k8s, told = connect(url), {}
    k8s.shared.on_warning = function(text) told[#told + 1] = text end
    k8s:raw "/a"
    k8s:raw "/b"
    t.eq(told, { 'v1 Endpoints is deprecated, say "EndpointSlice"' })
  end)
end)

-- Leases -----------------------------------------------------------------------------------------------------------------

-- A server of one lease with resource versions.
local function lease_server(world)
  return function(call)
    if call.method == "GET" then return world.lease and 200 or 404, world.lease or fake.status(404, "NotFound", "x") end
    local given = call.json()
    local fits = call.method == "POST" and not world.lease
      or call.method == "PUT" and world.lease and given.metadata.resourceVersion == world.lease.metadata.resourceVersion
    if not fits then return 409, fake.status(409, "Conflict", "the object has been modified") end
    world.version = (world.version or 0) + 1
    given.metadata.resourceVersion = tostring(world.version)
    world.lease = given
    return 200, given
  end
end

t.test("one_holds_the_lease_and_the_other_takes_it_when_it_is_given_up", function()
  fake.with(lease_server {}, function(url)
    local a, b = connect(url):lease("l", { holder = "a" }), connect(url):lease("l", { holder = "b" })
    t.eq({ a:try(), b:try(), a:try(), b:holder_now() }, { true, false, true, "a" })
    a:release()
    t.eq({ b:try(), a:try(), a:holder_now() }, { true, false, "b" })
    t.eq(b.object.spec.leaseTransitions, 1)
    t.match(b.object.spec.renewTime, "^%d+%-%d+%-%d+T%d+:%d+:%d+%.%d%d%d%d%d%dZ$")
  end)
end)

t.test("a_holder_whose_record_stands_still_is_gone_by_our_own_clock", function()
  fake.with(lease_server { lease = { metadata = { name = "l", resourceVersion = "0" }, spec = { holderIdentity = "dead",
    leaseDurationSeconds = 1, renewTime = "2099-01-01T00:00:00.000000Z" } } }, function(url)
    local lease = connect(url):lease("l", { holder = "me" })
    t.eq(lease:try(), false)
    task.sleep(1.05)
    t.eq(lease:try(), true)
  end)
end)

t.test("who_loses_the_lease_stops_leading", function()
  local world = {}
  fake.with(lease_server(world), function(url)
    local stopped
    local err = t.err("conflict", function()
      connect(url):lease("l", { holder = "me", seconds = 3, retry = 0.05 }):lead(function()
        world.lease.spec.holderIdentity, world.lease.spec.renewTime = "thief", "2026-01-01T00:00:00.000000Z"
        world.version = 100
        world.lease.metadata.resourceVersion = "100"
        local ok = pcall(task.sleep, 30)
        stopped = not ok
      end)
    end)
    t.match(err.message, "was taken by another")
    t.eq(stopped, true)
  end)
end)

-- Applying many ------------------------------------------------------------------------------------------------------------

t.test("namespaces_go_first_and_failures_are_told_one_by_one", function()
  local order = {}
  fake.with(function(call)
    local object = call.json()
    order[#order + 1] = object.kind
    if object.metadata.name == "bad" then return 422, fake.status(422, "Invalid", "no") end
    return 200, object
  end, function(url)
    local manifests = { { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" } },
      { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "bad" } },
      { apiVersion = "v1", kind = "Namespace", metadata = { name = "n" } } }
    local failed = {}
    local objects = connect(url):apply_all(manifests, { each = function(_, manifest, err)
      if err then failed[#failed + 1] = manifest.metadata.name .. " " .. err.kind end
    end })
    t.eq({ order[1], objects[1].metadata.name, objects[2], failed[1] }, { "Namespace", "a", false, "bad invalid" })
    t.err("invalid", function() connect(url):apply_all(manifests) end)
  end)
end)

t.test("what_left_a_set_is_listed_and_what_has_an_owner_is_not", function()
  fake.with(function(call)
    t.eq(call.query.labelSelector, "app.kubernetes.io/managed-by=eirun,eirun.io/set=s")
    if not call.path:find "configmaps" then return 200, { metadata = {}, items = json.array {} } end
    return 200, { metadata = {}, items = json.array { { metadata = { name = "kept", namespace = "default" } },
      { metadata = { name = "old", namespace = "default" } },
      { metadata = { name = "made", namespace = "default", ownerReferences = json.array { { kind = "X" } } } } } }
  end, function(url)
    local old = connect(url):list_prunable("s", { { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "kept" } } })
    t.eq({ #old, old[1].metadata.name, old[1].kind }, { 1, "old", "ConfigMap" })
  end)
end)

-- JSONPath and tables ------------------------------------------------------------------------------------------------------

local sample = json.decode [[{"items":[{"metadata":{"name":"a","labels":{"x.y/z":"v"}},"n":1,"list":[1,2,3]},
  {"metadata":{"name":"b"},"n":2.5,"ok":true}],"kind":"List"}]]

local paths = {
  { "{.items[*].metadata.name}", "a b" }, { "{.items[0].metadata.labels.x\\.y/z}", "v" }, { "{.items[-1:].metadata.name}", "b" },
  { "{.items[0].list[0:2]}", "1 2" }, { "{.items[0].list[-1]}", "3" }, { "{.items[0].list[0,2]}", "1 3" }, { "{..name}", "a b" },
  { "{range .items[*]}{.metadata.name}={.n}{'\\n'}{end}", "a=1\nb=2.5\n" }, { "{.items[?(@.n>1)].metadata.name}", "b" },
  { '{.items[?(@.metadata.name=="a")].n}', "1" }, { "{.items[?(@.ok)].n}", "2.5" }, { "{.kind}{.nope}", "List" },
  { "{.items[0].metadata['name']}", "a" }, { "kind: {.kind}", "kind: List" }, { "{@.kind}", "List" },
  { "{.items[0].metadata.labels}", '{"x.y/z":"v"}' }, { "{.items[*]['metadata.name','n']}", "a b 1 2.5" },
  { "{.items[0]['metadata.labels']}", '{"x.y/z":"v"}' }, { "{.items[0].metadata.labels['x\\.y/z']}", "v" },
  { "{.items[0].metadata.labels['x.y/z']}", "" }, { '{.kind}{"\\u0041\\x42\\t\\101"}', "ListAB\tA" }, { "{.kind}}", "List}" },
  { "plain", "plain" }, { ".kind", ".kind" }, { "{range .items[*]}{.n},", "1,2.5,," }, { "{range .items[*]}{.n}{.kind}", "12.5List" },
  { "{.items[].metadata.name}", "a" },
  { "{range .nope[*]}{.n}{end}x", "x" }, { "{range .items[*]}{range .list[*]}{@};{end}|{end}", "1;2;3;||" },
  { "{.items[0].list[::2]}", "1 3" }, { "{.items[0].list[5:5]}", "" }, { "{.}", "" }, { "{..x\\.y/z}", "v" },
  { "{.items[0].list[0]}{true}", "1true" },
}

for i, row in ipairs(paths) do
  t.test("jsonpath_" .. i, function() t.eq(jsonpath.render(jsonpath.compile(row[1]), sample), row[2]) end)
end

t.test("a_bad_jsonpath_says_so", function()
  for _, text in ipairs { "{.a", "{.a[", "{.a[b]}", "{{}}", '{.a["b"]}', "{.a....b}", '{"a', '{"\\q"}', "{.a[1:x]}",
    '{.items[?(@.a=="b"&&@.c=="d")]}',
    '{.items[?(@.a=~"b")]}', "{.items[?(@.a]}" } do
    t.match(t.err("invalid", function() jsonpath.compile(text) end).message, "error parsing jsonpath")
  end
end)

t.test("a_jsonpath_that_cannot_be_followed_says_so", function()
  local rows = { { "{.items[2].n}", "array index out of bounds: index 2, length 2" }, { "{.items[-3]}", "index %-1, length 2" },
    { "{.kind[0]}", "string is not array or slice" }, { "{.items[0].metadata[*]}", "is not array or slice" }, { "{end}", "nothing to end" },
    { "{items}", "unrecognized identifier items" }, { '{.items[?(@.n=="1")]}', "incompatible types for comparison" },
    { "{.items[0:9].n}", "index 8, length 2" }, { "{.items[1:0:1]}", "starting index 1 is greater than ending index 0" } }
  for _, row in ipairs(rows) do
    local err = t.err("invalid", function() jsonpath.render(jsonpath.compile(row[1]), sample) end)
    t.match(err.message, '^error executing jsonpath "')
    t.match(err.message, row[2])
  end
end)

t.test("columns_of_ones_own_show_maps_and_lists_as_go_does", function()
  local object = { a = { b = "x", c = json.array { 1, "y" } }, n = json.null, e = json.array {} }
  t.eq(print_.columns("A:.a,B:{.a.b},C:.a.c[*],N:.n,E:.e,X:.x", { object }, true), "map[b:x c:[1 y]]   x     1,y   <nil>   []    <none>\n")
end)

t.test("ages_are_said_as_kubectl_says_them", function()
  local ages = { [0] = "0s", [119] = "119s", [120] = "2m", [125] = "2m5s", [600] = "10m", [10799] = "179m", [10800] = "3h",
    [11000] = "3h3m", [28800] = "8h", [172799] = "47h", [172800] = "2d", [180000] = "2d2h", [691200] = "8d", [63072000] = "2y",
    [70000000] = "2y80d", [-5] = "<invalid>" }
  for seconds, text in pairs(ages) do t.eq(print_.age(seconds), text, tostring(seconds)) end
end)

t.test("columns_are_set_as_gos_tabwriter_sets_them", function()
  t.eq(print_.align { { "NAME", "A", "LAST" }, { "é-long-name", "1", "x" } }, "NAME          A     LAST\né-long-name   1     x\n")
end)

-- The command line --------------------------------------------------------------------------------------------------------

t.test("wrong_words_end_as_kubectls_do_and_say_what_is_meant", function()
  local process, fs = require "eirun.core.process", require "eirun.core.fs"
  local program = assert(fs.realpath "/proc/self/exe")
  local rows = { { { "exec", "a" }, "exec is not supported: use kubectl exec" }, { { "gte" }, "did you mean 'get'" },
    { { "get", "--otput=x" }, "did you mean '%-%-output'" }, { { "get", "po", "--kubeconfig", "/no/such" }, "/no/such" },
    { { "scale", "deploy/a", "--server", "http://127.0.0.1:1" }, "%-%-replicas" }, { {}, "which verb" } }
  for _, row in ipairs(rows) do
    local call = { program, "kube", timeout = 20, clear_env = true, env = { HOME = "/nowhere", PATH = "/usr/bin" } }
    table.move(row[1], 1, #row[1], 3, call)
    local result = assert(process.run(call))
    t.eq(result.code, 1, result.stderr)
    t.match(result.stderr, row[2])
  end
end)

-- What `eirun kube WORDS` says to a server that answers by path.
local function said(answers, ...)
  local process, fs, words = require "eirun.core.process", require "eirun.core.fs", table.pack(...)
  local result
  fake.with(function(call)
    local answer = answers[call.path]
    if not answer then return 404, "404 page not found" end
    return answer.code or 200, answer
  end, function(url)
    local call = { assert(fs.realpath "/proc/self/exe"), "kube", "--server", url, timeout = 20, clear_env = true,
      env = { HOME = "/nowhere", PATH = "/usr/bin" } }
    table.move(words, 1, words.n, #call + 1, call)
    result = assert(process.run(call))
  end)
  return { result.code, result.stdout, result.stderr }
end

local METRICS = "/apis/metrics.k8s.io/v1beta1"

local function list_of(...) return { metadata = {}, items = json.array { ... } } end

t.test("top_says_why_there_are_no_figures", function()
  local gone = { 1, "", "error: Metrics API not available\n" }
  t.eq(said({ ["/api/v1/nodes"] = list_of() }, "top", "nodes"), gone)
  t.eq(said({}, "top", "pods"), gone)
  t.eq(said({ [METRICS .. "/pods"] = fake.status(503, "ServiceUnavailable", "the server is currently unable to handle the request") },
    "top", "pods", "-A"), gone)
  t.eq(said({ ["/api/v1/nodes"] = list_of(), [METRICS .. "/nodes"] = list_of() }, "top", "nodes"),
    { 1, "", "error: metrics not available yet\n" })
  local pods, metrics = "/api/v1/namespaces/default/pods", METRICS .. "/namespaces/default/pods"
  t.eq(said({ [pods] = list_of(), [metrics] = list_of() }, "top", "pods"), { 0, "", "No resources found in default namespace.\n" })
  local function born(seconds)
    return list_of { metadata = { name = "a", namespace = "default",
      creationTimestamp = os.date("!%Y-%m-%dT%H:%M:%SZ", os.time() - seconds) } }
  end
  t.eq(said({ [pods] = born(5), [metrics] = list_of() }, "top", "pods")[3], "error: metrics not available yet\n")
  t.match(said({ [pods] = born(300), [metrics] = list_of() }, "top", "pods")[3],
    "^error: Metrics not available for pod default/a, age: 30%ds")
end)

t.test("a_node_that_nobody_measured_is_shown_without_figures", function()
  local function node(name) return { metadata = { name = name }, status = { allocatable = { cpu = "4", memory = "1Gi" } } } end
  local shown = said({ ["/api/v1/nodes"] = list_of(node "b", node "a"), [METRICS .. "/nodes"] = list_of { metadata = { name = "b" },
    usage = { cpu = "1500000001n", memory = "262144Ki" } } }, "top", "nodes")
  t.eq(shown, { 0, "NAME   CPU(cores)   CPU(%)      MEMORY(bytes)   MEMORY(%)   \n"
    .. "b      1501m        37%         256Mi           25%         \n"
    .. "a      <unknown>    <unknown>   <unknown>       <unknown>   \n", "" })
end)

t.test("a_server_that_never_answered_is_told_of_soon_and_one_that_did_is_waited_for", function()
  local began = task.now()
  local process, fs = require "eirun.core.process", require "eirun.core.fs"
  local result = assert(process.run { assert(fs.realpath "/proc/self/exe"), "kube", "get", "po", "--server", "http://127.0.0.1:1",
    timeout = 20, clear_env = true, env = { HOME = "/nowhere", PATH = "/usr/bin" } })
  t.match(result.stderr, "^Unable to connect to the server: .*127%.0%.0%.1:1: connection refused\n$")
  t.ok(result.code == 1 and task.now() - began < 3, "it took " .. task.now() - began)
  local count = 0
  fake.with(function()
    count = count + 1
    if count > 1 and count < 4 then return "abort" end
    return 200, list_of()
  end, function(url)
    local k8s = connect(url)
    k8s.shared.impatient = true
    k8s:list "Pod"
    k8s:list "Pod"
  end)
  t.eq(count, 4)
end)
