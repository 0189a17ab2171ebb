-- SPDX-License-Identifier: Apache-2.0
-- The API server's verbs, patches, errors and watches, against answers recorded from a real API server 1.36.3.
local t = require "eirun.test"
local json = require "eirun.core.json"
local task = require "eirun.task"
local lib = require "lib_kube"

local CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
local DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
local PODS = "/api/v1/namespaces/default/pods"

local function cm(name, data, labels)
  return { metadata = { name = name, labels = labels }, data = data }
end

t.test("errors_are_the_servers_own", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("gcm", { a = "1" }))
  for _, case in ipairs {
    { "GET", DEPLOYMENTS .. "/nosuch", nil, [["message":"deployments.apps \"nosuch\" not found","reason":"NotFound",
      "details":{"name":"nosuch","group":"apps","kind":"deployments"},"code":404]] },
    { "POST", CONFIGMAPS, cm("gcm"), [["message":"configmaps \"gcm\" already exists","reason":"AlreadyExists",
      "details":{"name":"gcm","kind":"configmaps"},"code":409]] },
    { "PUT", CONFIGMAPS .. "/gcm", { metadata = { name = "gcm", resourceVersion = "1" } }, '"message":'
      .. [["Operation cannot be fulfilled on configmaps \"gcm\": the object has been modified; ]]
      .. [[please apply your changes to the latest version and try again",]]
      .. [["reason":"Conflict","details":{"name":"gcm","kind":"configmaps"},"code":409]] },
    { "POST", CONFIGMAPS .. "?fieldValidation=Strict", { metadata = { name = "x" }, foo = 1 }, [["message":
      "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"foo\"",
      "reason":"BadRequest","code":400]] },
    { "GET", CONFIGMAPS .. "?fieldSelector=spec.x%3D1", nil, [["message":
      "\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"","reason":"BadRequest","code":400]] },
    { "GET", CONFIGMAPS .. "?resourceVersion=99999999", nil, [["message":
      "Timeout: Too large resource version: 99999999, current: N","reason":"Timeout","details":{"causes":[{"reason":
      "ResourceVersionTooLarge","message":"Too large resource version"}],"retryAfterSeconds":1},"code":504]] },
  } do
    local _, body = plane:call(case[1], case[2], case[3])
    body.message = body.message:gsub("current: %d+", "current: N")
    t.eq(body, json.decode('{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",' .. case[4] .. "}"))
  end
end)

t.test("who_is_unknown_gets_401", function()
  local status, body = lib.new():call("GET", PODS, nil, { token = "nobody" })
  t.eq({ status, body.message, body.reason }, { 401, "Unauthorized", "Unauthorized" })
end)

t.test("several_causes_stand_in_brackets", function()
  local plane = lib.new()
  plane:ok("POST", DEPLOYMENTS, lib.deployment("gold", 0))
  local status, body = plane:patch("merge", DEPLOYMENTS .. "/gold", { spec = { selector = { matchLabels = { app = "zz" } } } })
  t.eq(status, 422)
  t.eq(body, json.decode [[{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"Deployment.apps \"gold\" is invalid: [spec.template.metadata.labels: Invalid value: {\"app\":\"gold\"}: `selector` does not match template `labels`, spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"zz\"}}: field is immutable]","reason":"Invalid","details":{"name":"gold","group":"apps","kind":"Deployment","causes":[{"reason":"FieldValueInvalid","message":"Invalid value: {\"app\":\"gold\"}: `selector` does not match template `labels`","field":"spec.template.metadata.labels"},{"reason":"FieldValueInvalid","message":"Invalid value: {\"matchLabels\":{\"app\":\"zz\"}}: field is immutable","field":"spec.selector"}]},"code":422}]]) -- luacheck: ignore 631
end)

t.test("unknown_fields_are_warned_about_by_default", function()
  local plane = lib.new()
  local status, obj, headers = plane:call("POST", CONFIGMAPS, { metadata = { name = "x" }, foo = 1 })
  t.eq({ status, obj.foo }, { 201, nil })
  t.eq(headers.Warning, '299 - "unknown field \\"foo\\""')
end)

t.test("removed_api_versions_are_not_served", function()
  local status, body = lib.new():call("GET", "/apis/autoscaling/v2beta1/namespaces/default/horizontalpodautoscalers")
  t.eq({ status, body.message }, { 404, "the server could not find the requested resource" })
end)

t.test("generate_name_makes_a_name", function()
  local obj = lib.new():ok("POST", CONFIGMAPS, { metadata = { generateName = "a-" } })
  t.match(obj.metadata.name, "^a%-[bcdfghjklmnpqrstvwxz2-9][bcdfghjklmnpqrstvwxz2-9]...$")
end)

t.test("generation_counts_spec_changes_only", function()
  local plane = lib.new()
  plane:ok("POST", DEPLOYMENTS, lib.deployment("web", 0))
  plane:patch("merge", DEPLOYMENTS .. "/web", { metadata = { labels = { x = "y" } } })
  t.eq(plane:ok("GET", DEPLOYMENTS .. "/web").metadata.generation, 1)
  plane:patch("merge", DEPLOYMENTS .. "/web", { spec = { replicas = 1 } })
  t.eq(plane:ok("GET", DEPLOYMENTS .. "/web").metadata.generation, 2)
end)

t.test("status_is_written_through_its_own_endpoint_only", function()
  local plane = lib.new()
  plane:node("n1")
  plane:patch("merge", "/api/v1/nodes/n1", { status = { capacity = { cpu = "8" } } })
  t.eq(plane:ok("GET", "/api/v1/nodes/n1").status.capacity.cpu, "4")
  plane:patch("merge", "/api/v1/nodes/n1/status", { status = { capacity = { cpu = "8" } }, spec = { unschedulable = true } })
  local node = plane:ok("GET", "/api/v1/nodes/n1")
  t.eq({ node.status.capacity.cpu, node.spec.unschedulable }, { "8", nil })
end)

t.test("strategic_merge_joins_lists_by_their_key", function()
  local plane = lib.new()
  local d = lib.deployment("web", 0)
  d.spec.template.spec.containers[1].env = json.array { { name = "A", value = "1" }, { name = "B", value = "2" } }
  plane:ok("POST", DEPLOYMENTS, d)
  local change = json.decode [[{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"side"},{"name":"c"}],"containers":
    [{"name":"side","image":"s"},{"name":"c","env":[{"name":"A","$patch":"delete"},{"name":"C","value":"3"}]}]}}}}]]
  local _, obj = plane:patch("strategic", DEPLOYMENTS .. "/web", change)
  local list = obj.spec.template.spec.containers
  t.eq({ #list, list[1].name, list[2].name, list[2].image }, { 2, "side", "c", "img:1" })
  t.eq(list[2].env, { { name = "C", value = "3" }, { name = "B", value = "2" } })
end)

t.test("strategy_keeps_only_the_keys_that_the_patch_retains", function()
  local plane = lib.new()
  plane:ok("POST", DEPLOYMENTS, lib.deployment("web", 0))
  local _, obj = plane:patch("strategic", DEPLOYMENTS .. "/web",
    { spec = { strategy = { ["$retainKeys"] = json.array { "type" }, type = "Recreate" } } })
  t.eq(obj.spec.strategy, { type = "Recreate" })
end)

t.test("json_patch_test_that_fails_is_422", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("a", { k = "1" }))
  local status, body = plane:patch("json", CONFIGMAPS .. "/a", json.array { { op = "test", path = "/data/k", value = "2" } })
  t.eq({ status, body.message }, { 422, "the server rejected our request due to an error in our request" })
  local _, obj = plane:patch("json", CONFIGMAPS .. "/a", json.array { { op = "replace", path = "/data/k", value = "2" },
    { op = "add", path = "/metadata/labels", value = { ["a/b"] = "c" } }, { op = "remove", path = "/metadata/labels/a~1b" } })
  t.eq(obj.data, { k = "2" })
  status, body = plane:patch("json", CONFIGMAPS .. "/a", { data = {} })
  t.eq({ status, body.message },
    { 400, "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp" })
end)

t.test("an_unknown_patch_type_is_415", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("a"))
  local status, body = plane:call("PATCH", CONFIGMAPS .. "/a", { data = {} }, { type = "application/json" })
  t.eq({ status, body.message }, { 415, "415: Unsupported Media Type" })
end)

t.test("lists_page_with_a_continue_token", function()
  local plane = lib.new()
  for i = 1, 5 do plane:ok("POST", CONFIGMAPS, cm("c" .. i)) end
  local first = plane:ok("GET", CONFIGMAPS .. "?limit=4")
  t.eq(#first.items, 4)
  plane:ok("POST", CONFIGMAPS, cm("late"))
  local rest = plane:ok("GET", CONFIGMAPS .. "?limit=4&continue=" .. first.metadata.continue:gsub("=", "%%3D"))
  t.eq(rest.metadata.resourceVersion, first.metadata.resourceVersion)
  t.eq(rest.metadata.continue, nil)
  plane:compact()
  local status, body = plane:call("GET", CONFIGMAPS .. "?limit=4&continue=" .. first.metadata.continue:gsub("=", "%%3D"))
  t.eq({ status, body.reason }, { 410, "Expired" })
  t.ok(body.metadata.continue, "a fresh token comes with the 410")
end)

t.test("items_of_a_list_carry_no_kind", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("a"))
  local list = plane:ok("GET", CONFIGMAPS)
  t.eq({ list.kind, list.items[1].kind }, { "ConfigMapList", nil })
end)

t.test("selectors_of_labels_and_fields", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("a", nil, { tier = "x", env = "p" }))
  plane:ok("POST", CONFIGMAPS, cm("b", nil, { tier = "y" }))
  local function names(query)
    local out = {}
    for i, item in ipairs(plane:ok("GET", CONFIGMAPS .. "?" .. query).items) do out[i] = item.metadata.name end
    return table.concat(out, ",")
  end
  t.eq(names "labelSelector=tier%3Dx", "a")
  t.eq(names "labelSelector=tier+in+(x,y),!env", "b")
  t.eq(names "labelSelector=tier!%3Dx,tier", "b")
  t.eq(names "labelSelector=tier+notin+(y),env", "a")
  t.eq(names "fieldSelector=metadata.name%3Db,metadata.namespace%3Ddefault", "b")
end)

t.test("a_selector_that_cannot_be_read_is_told_in_the_servers_words", function()
  local plane = lib.new()
  for text, why in pairs {
    ["a%3D%3D%3Db"] = "unable to parse requirement: found '=', expected: identifier",
    ["a+in+b"] = "unable to parse requirement: found 'b' expected: '('",
    ["a+in+(b"] = "unable to parse requirement: found '', expected: ',' or ')'",
    ["a+b"] = "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
    ["a,,b"] = "found ',', expected: identifier after ','", [",a"] = "found ',', expected: !, identifier, or 'end of string'",
    ["!a%3Db"] = "found '=', expected: ',' or 'end of string'",
  } do
    local status, body = plane:call("GET", CONFIGMAPS .. "?labelSelector=" .. text)
    t.eq({ status, body.message }, { 400, why }, text)
  end
end)

t.test("a_body_that_is_no_json_is_told_in_the_words_of_gos_parser", function()
  local plane = lib.new()
  local words = "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: "
  for text, why in pairs {
    ["{bad"] = "invalid character 'b' looking for beginning of object key string ({bad)",
    ['{"a" 1}'] = "invalid character '1' after object key ({\"a\" 1})", ['{"a":1'] = 'unexpected end of JSON input ({"a":1)',
    ['{"a":tru}'] = "invalid character '}' in literal true (expecting 'e') ({\"a\":tru})",
    ["nul"] = "invalid character ' ' in literal null (expecting 'l') (6e756c)",
    ['{"a":01}'] = "invalid character '1' after object key:value pair ({\"a\":01})", ["[1"] = "unexpected end of JSON input (5b31)",
  } do
    local status, body = plane:call("POST", CONFIGMAPS, text, { type = "application/json" })
    t.eq({ status, body.message }, { 400, words .. why }, text)
  end
end)

t.test("a_continue_token_that_cannot_be_read_is_told", function()
  local plane = lib.new()
  for text, why in pairs { zz = "invalid character '\u{cf}' looking for beginning of value", ["a!"] = "illegal base64 data at input byte 1",
    e30 = "server does not recognize this encoded version " } do
    local status, body = plane:call("GET", CONFIGMAPS .. "?limit=1&continue=" .. text)
    t.eq({ status, body.message }, { 400, "invalid continue token: continue key is not valid: " .. why }, text)
  end
end)

t.test("delete_answers_a_status_or_what_stays", function()
  local plane = lib.new()
  local made = plane:ok("POST", CONFIGMAPS, cm("a"))
  t.eq(plane:ok("DELETE", CONFIGMAPS .. "/a"), { kind = "Status", apiVersion = "v1", metadata = {}, status = "Success",
    details = { name = "a", kind = "configmaps", uid = made.metadata.uid } })
  plane:ok("POST", CONFIGMAPS, { metadata = { name = "f", finalizers = json.array { "x.io/hold" } } })
  local held = plane:ok("DELETE", CONFIGMAPS .. "/f")
  t.eq({ held.kind, held.metadata.finalizers }, { "ConfigMap", { "x.io/hold" } })
  t.match(held.metadata.deletionTimestamp, "^%d+%-%d+%-%d+T%d+:%d+:%d+Z$")
  plane:patch("merge", CONFIGMAPS .. "/f", { metadata = { finalizers = json.null } })
  t.eq(plane:call("GET", CONFIGMAPS .. "/f"), 404)
end)

t.test("a_delete_on_another_uid_is_a_conflict", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("a"))
  local status, body = plane:call("DELETE", CONFIGMAPS .. "/a", { preconditions = { uid = "other" } })
  t.eq(status, 409)
  t.match(body.message, 'on ConfigMap "a": the UID in the precondition %(other%) does not match the UID in record %(')
end)

t.test("forbidden_says_who_what_and_where", function()
  local plane = lib.new()
  plane.users.bob = { name = "bob", groups = {} }
  local status, body = plane:call("GET", CONFIGMAPS .. "/gcm", nil, { token = "bob" })
  t.eq({ status, body.message }, { 403,
    'configmaps "gcm" is forbidden: User "bob" cannot get resource "configmaps" in API group "" in the namespace "default"' })
  plane:ok("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", { metadata = { name = "r" },
    rules = json.array { { verbs = { "get" }, apiGroups = { "" }, resources = { "configmaps" } } } })
  plane:ok("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", { metadata = { name = "r" },
    roleRef = { kind = "Role", name = "r" }, subjects = json.array { { kind = "User", name = "bob" } } })
  plane:becomes(404, function() return (plane:call("GET", CONFIGMAPS .. "/gcm", nil, { token = "bob" })) end)
  t.eq(plane:call("GET", CONFIGMAPS, nil, { token = "bob" }), 403)
end)

local REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"

local function acting(plane, token, headers)
  local status, body = plane:call("POST", REVIEW, { apiVersion = "authentication.k8s.io/v1", kind = "SelfSubjectReview" },
    { token = token, headers = headers })
  local user = (body.status or {}).userInfo or {}
  return status, user.username or body.message, user.groups, user.uid, user.extra
end

t.test("a_request_acts_as_whom_its_headers_name", function()
  local plane = lib.new()
  t.eq({ acting(plane, nil, { { "Impersonate-User", "bob" }, { "Impersonate-Group", "g1" }, { "Impersonate-Group", "g2" },
    { "Impersonate-Uid", "u1" }, { "Impersonate-Extra-a%2fB", "x" } }) },
    { 201, "bob", { "g1", "g2", "system:authenticated" }, "u1", { ["a/b"] = { "x" } } })
  t.eq({ acting(plane, nil, { { "Impersonate-User", "system:serviceaccount:n:x" } }) },
    { 201, "system:serviceaccount:n:x", { "system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated" } })
  local status, body = plane:call("GET", CONFIGMAPS .. "/w", nil, { headers = { { "Impersonate-User", "bob" } } })
  t.eq({ status, body.message }, { 403,
    'configmaps "w" is forbidden: User "bob" cannot get resource "configmaps" in API group "" in the namespace "default"' })
end)

t.test("acting_as_nobody_is_refused", function()
  local plane = lib.new()
  t.eq({ acting(plane, nil, { { "Impersonate-Group", "g" } }) }, { 400,
    'requested &user.DefaultInfo{Name:"", UID:"", Groups:[]string{"g"}, Extra:map[string][]string(nil)} '
      .. "without impersonating a user name" })
  local status, text = acting(plane, nil, { { "Impersonate-User", "system:anonymous" } })
  t.eq(status, 403)
  t.match(text, 'User "system:anonymous" cannot create resource "selfsubjectreviews"')
end)

-- A real server is told who asks by these very headers, so what somebody else may do with them can be asked of ours alone.
if not require("eirun.core.os").getenv "EIRUN_TEST_PLANE" then
  t.test("acting_as_another_wants_the_right_to", function()
    local plane = lib.new()
    plane.users.eve = { name = "eve", groups = {} }
    local function get(...) return plane:call("GET", CONFIGMAPS .. "/w", nil, { token = "eve", headers = { ... } }) end
    local bob, group = { "Impersonate-User", "bob" }, { "Impersonate-Group", "g" }
    t.match(select(2, get(bob)).message, '"w" is forbidden: User "eve" cannot impersonate%-on:user%-info:get resource "configmaps"')
    t.match(select(2, get { "Impersonate-User", "system:serviceaccount:n:x" }).message, "impersonate%-on:serviceaccount:get")
    plane:ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", { metadata = { name = "imp" },
      rules = json.array { { verbs = { "impersonate" }, apiGroups = { "" }, resources = { "users" } } } })
    plane:ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", { metadata = { name = "imp" },
      roleRef = { kind = "ClusterRole", name = "imp" }, subjects = json.array { { kind = "User", name = "eve" } } })
    t.match(select(2, get(bob)).message, 'User "bob" cannot get')
    t.eq(select(2, get(bob, group)).message,
      'groups "g" is forbidden: User "eve" cannot impersonate resource "groups" in API group "" at the cluster scope')
    t.eq(select(2, get(bob, { "Impersonate-Uid", "u" })).message, 'uids.authentication.k8s.io "u" is forbidden: User "eve" cannot '
      .. 'impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope')
  end)
end

-- The events of a watch; bookmarks only where they end the initial ones: a real server sends others when it likes.
local function lines(watch)
  local out = {}
  for line in watch.text():gmatch("[^\n]+") do
    local event = json.decode(line)
    local meta = event.object.metadata or {}
    local initial = (meta.annotations or {})["k8s.io/initial-events-end"]
    if event.type ~= "BOOKMARK" or initial then
      out[#out + 1] = { event.type, meta.name, event.object.data and event.object.data.a, initial }
    end
  end
  return out
end

t.test("a_watch_list_tells_the_state_then_what_enters_and_leaves_the_selector", function()
  local plane = lib.new()
  plane:ok("POST", CONFIGMAPS, cm("wa", { a = "1" }, { w = "1" }))
  task.together(function(all)
    local watch = plane:watch(CONFIGMAPS .. "?allowWatchBookmarks=true&labelSelector=w%3D1&resourceVersionMatch=NotOlderThan"
      .. "&sendInitialEvents=true&timeoutSeconds=600&watch=true", all)
    plane:becomes({ { "ADDED", "wa", "1" }, { "BOOKMARK", nil, nil, "true" } }, function() return lines(watch) end)
    plane:ok("POST", CONFIGMAPS, cm("wb", { a = "1" }, { w = "1" }))
    plane:ok("POST", CONFIGMAPS, cm("other", { a = "1" }, { w = "9" }))
    plane:patch("merge", CONFIGMAPS .. "/wb", { data = { a = "2" } })
    plane:patch("merge", CONFIGMAPS .. "/wb", { data = { a = "3" }, metadata = { labels = { w = "2" } } })
    plane:ok("DELETE", CONFIGMAPS .. "/wa")
    plane:becomes({ { "ADDED", "wb", "1" }, { "MODIFIED", "wb", "2" }, { "DELETED", "wb", "2" }, { "DELETED", "wa", "1" } }, function()
      return table.move(lines(watch), 3, 6, 1, {})
    end)
    watch.close()
    plane:ok("POST", CONFIGMAPS, cm("end", nil, { w = "1" }))
  end)
end)

t.test("a_watch_goes_on_exactly_behind_a_resource_version", function()
  local plane = lib.new()
  local first = plane:ok("POST", CONFIGMAPS, cm("a", { a = "1" }))
  plane:patch("merge", CONFIGMAPS .. "/a", { data = { a = "2" } })
  task.together(function(all)
    local watch = plane:watch(CONFIGMAPS .. "?watch=True&resourceVersion=" .. first.metadata.resourceVersion, all)
    plane:becomes({ { "MODIFIED", "a", "2" } }, function() return lines(watch) end)
    watch.close()
    plane:ok("POST", CONFIGMAPS, cm("b"))
  end)
end)

t.test("a_watch_from_a_forgotten_version_gets_an_error_event", function()
  local plane = lib.new()
  local first = plane:ok("POST", CONFIGMAPS, cm("a"))
  plane:patch("merge", CONFIGMAPS .. "/a", { data = { a = "2" } })
  plane:compact()
  task.together(function(all)
    local watch = plane:watch(CONFIGMAPS .. "?watch=1&resourceVersion=" .. first.metadata.resourceVersion, all)
    t.eq(watch.status, 200)
    local event = plane:until_(function() return json.decode(watch.text():match("[^\n]+") or "") end)
    t.eq({ event.type, event.object.code, event.object.reason }, { "ERROR", 410, "Expired" })
    t.match(event.object.message, "^too old resource version: %d+ %(%d+%)$")
    watch.close()
  end)
end)

t.test("the_past_is_kept_for_five_minutes", function()
  local plane = lib.new()
  local store, r = plane.kube.store, plane.kube.registry.resources.configmaps
  local first = plane:ok("POST", CONFIGMAPS, cm("a"))
  local function change(times)
    for i = 1, times do plane:patch("merge", CONFIGMAPS .. "/a", { data = { n = tostring(i) } }) end
  end
  change(500)
  t.eq(#store:since(r, tonumber(first.metadata.resourceVersion)), 500)
  plane:advance(400)
  change(1000)
  t.eq(store:since(r, tonumber(first.metadata.resourceVersion)), nil)
  t.eq(#store:since(r, store.rv - 100), 100)
end)

t.test("objects_outlive_a_restart_and_versions_go_on", function()
  local plane = lib.new()
  local made = plane:ok("POST", CONFIGMAPS, cm("a", { k = "v" }))
  local again = plane:restart()
  local read = again:ok("GET", CONFIGMAPS .. "/a")
  t.eq({ read.metadata.uid, read.data }, { made.metadata.uid, { k = "v" } })
  local later = again:ok("POST", CONFIGMAPS, cm("b"))
  t.ok(tonumber(later.metadata.resourceVersion) > tonumber(made.metadata.resourceVersion))
end)

t.test("discovery_answers_both_formats", function()
  local plane = lib.new()
  local old = plane:ok("GET", "/api/v1")
  local eviction
  for _, r in ipairs(old.resources) do
    if r.name == "pods/eviction" then eviction = r end
  end
  t.eq({ eviction.group, eviction.version, eviction.kind }, { "policy", "v1", "Eviction" })
  local _, new, headers = plane:call("GET", "/apis", nil,
    { accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json" })
  t.eq({ new.kind, headers["Content-Type"] }, { "APIGroupDiscoveryList",
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" })
end)

t.test("scale_leaves_out_zero_replicas", function()
  local plane = lib.new()
  plane:ok("POST", DEPLOYMENTS, lib.deployment("web", 0))
  local scale = plane:ok("GET", DEPLOYMENTS .. "/web/scale")
  t.eq({ scale.kind, scale.spec, scale.status.selector }, { "Scale", {}, "app=web" })
end)

t.test("secrets_take_plain_text_and_keep_base64", function()
  local plane = lib.new()
  local obj = plane:ok("POST", "/api/v1/namespaces/default/secrets", { metadata = { name = "s" }, stringData = { a = "b" } })
  t.eq({ obj.data, obj.stringData, obj.type }, { { a = "Yg==" }, nil, "Opaque" })
end)

t.test("a_log_of_a_container_that_waits_is_refused_in_the_kubelets_words", function()
  local plane = lib.new { pod_logs = function(_, _, container) return "hello from " .. container .. "\n" end }
  plane:node("n1")
  plane:ok("POST", PODS, { metadata = { name = "p" }, spec = { containers = json.array { { name = "c", image = "i" } } } })
  plane:settle()
  local status, body = plane:call("GET", PODS .. "/p/log")
  t.eq({ status, body.message }, { 400, 'container "c" in pod "p" is waiting to start: ContainerCreating' })
  plane:run_pod("default", "p")
  t.eq(plane:ok("GET", PODS .. "/p/log?container=c"), "hello from c\n")
end)

t.test("protobuf_bodies_are_read", function()
  local plane = lib.new()
  -- What kubectl create configmap sends: k8s\0, Unknown { TypeMeta, raw ConfigMap }.
  local function field(number, bytes) return string.char(number << 3 | 2, #bytes) .. bytes end
  local entry = field(1, "key") .. field(2, "value")
  local raw = field(1, field(1, "pb") .. field(2, "") .. field(3, "")) .. field(2, entry)
  local body = "k8s\0" .. field(1, field(1, "v1") .. field(2, "ConfigMap")) .. field(2, raw)
  local obj = plane:ok("POST", CONFIGMAPS .. "?fieldManager=kubectl-create", body, { type = "application/vnd.kubernetes.protobuf" })
  t.eq({ obj.metadata.name, obj.data }, { "pb", { key = "value" } })
  t.eq(plane:call("POST", CONFIGMAPS, "k8s\0\xff", { type = "application/vnd.kubernetes.protobuf" }), 400)
end)

t.test("faults_show_as_a_real_server_would_show_them", function()
  local plane = lib.new()
  plane.faults:add { kind = "throttle", service = "KUBE", action = "list configmaps", times = 2, retry_after = 3 }
  local status, body, headers = plane:call("GET", CONFIGMAPS)
  t.eq({ status, body.reason, headers["Retry-After"] }, { 429, "TooManyRequests", "3" })
  status, body, headers = plane:call("GET", CONFIGMAPS)
  t.eq({ status, body, headers["Retry-After"] }, { 429, "Too many requests, please try again later.\n", "3" })
  t.eq(plane:call("GET", CONFIGMAPS), 200)
  plane.faults:add { kind = "reset_after_commit", service = "KUBE", action = "create configmaps" }
  local req = plane:request("POST", CONFIGMAPS, cm "lost")
  plane.service.handle(req)
  t.eq({ req.aborted, req.status }, { true })
  t.eq(plane:ok("GET", CONFIGMAPS .. "/lost").metadata.name, "lost")
  plane.faults:add { kind = "permission_lost", service = "KUBE" }
  status, body = plane:call("GET", CONFIGMAPS .. "/lost")
  t.eq(status, 403)
  t.match(body.message, 'User "kubernetes%-admin" cannot get resource "configmaps"')
end)

t.test("faults_spare_the_sandboxes_own_components", function()
  local plane = lib.new()
  plane.users.kubelet = { name = "system:node:n1", groups = { "system:nodes" } }
  plane.faults:add { kind = "error", service = "*", times = 1 }
  t.eq(plane:call("GET", "/api/v1/nodes", nil, { token = "kubelet" }), 200)
  t.eq(plane:call("GET", "/api/v1/nodes"), 500)
end)

t.test("openapi_documents_name_kinds_parameters_and_fields", function()
  local plane = lib.new()
  local doc = plane:ok("GET", plane:ok("GET", "/openapi/v3").paths["apis/apps/v1"].serverRelativeURL)
  local patch = doc.paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"].patch
  t.eq(patch["x-kubernetes-group-version-kind"], { group = "apps", version = "v1", kind = "Deployment" })
  t.eq({ patch.parameters[1].name, patch.parameters[3].name }, { "dryRun", "fieldValidation" })
  local containers = doc.components.schemas["io.k8s.api.core.v1.PodSpec"].properties.containers
  t.eq({ containers["x-kubernetes-list-map-keys"], containers["x-kubernetes-patch-merge-key"] }, { { "name" }, "name" })
end)
