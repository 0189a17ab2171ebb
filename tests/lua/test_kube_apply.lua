-- SPDX-License-Identifier: Apache-2.0
-- Server-side apply and field managers, against answers recorded from a real API server 1.36.3.
local t = require "eirun.test"
local json = require "eirun.core.json"
local lib = require "lib_kube"

local DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
local CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
local GOLD = [[{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"gold","labels":{"app":"gold"}},"spec":{"replicas":0,
"selector":{"matchLabels":{"app":"gold"}},"template":{"metadata":{"labels":{"app":"gold"}},"spec":{"containers":[{"name":"c",
"image":"img:1","ports":[{"containerPort":80}]}]}}}}]]

local function cm(data)
  return { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "m" }, data = data }
end

local function apply(plane, manager, body, more)
  return plane:patch("apply", CONFIGMAPS .. "/m?fieldManager=" .. manager .. (more or ""), body)
end

t.test("apply_owns_exactly_the_fields_of_the_configuration", function()
  local plane = lib.new()
  local status, obj = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl&fieldValidation=Strict&force=false", GOLD)
  t.eq(status, 201)
  local entry = obj.metadata.managedFields[1]
  t.eq(#obj.metadata.managedFields, 1)
  t.eq({ entry.manager, entry.operation, entry.apiVersion, entry.fieldsType }, { "kubectl", "Apply", "apps/v1", "FieldsV1" })
  t.eq(entry.fieldsV1, json.decode [[{"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:replicas":{},"f:selector":{},"f:template":
    {"f:metadata":{"f:labels":{"f:app":{}}},"f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:image":{},"f:name":{},"f:ports":
    {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}}}}}}]])
  t.eq(obj.spec.template.spec.containers[1].ports[1].protocol, "TCP")
  t.eq({ obj.spec.revisionHistoryLimit, obj.spec.progressDeadlineSeconds }, { 10, 600 })
end)

t.test("the_same_apply_again_changes_nothing", function()
  local plane = lib.new()
  plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", GOLD)
  -- Its controller writes, too.
  plane:becomes({ 1, "True" }, function()
    local s = plane:ok("GET", DEPLOYMENTS .. "/gold").status
    return { s.observedGeneration, ((s.conditions or {})[2] or {}).status }
  end)
  plane:settle()
  local first = plane:ok("GET", DEPLOYMENTS .. "/gold")
  plane.time = plane.time + 100
  local status, again = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", GOLD)
  t.eq(status, 200)
  t.eq(again.metadata.resourceVersion, first.metadata.resourceVersion)
  t.eq(again.metadata.managedFields, first.metadata.managedFields)
end)

t.test("an_update_owns_maps_with_a_dot", function()
  local plane = lib.new()
  local obj = plane:ok("POST", CONFIGMAPS, cm { a = "1" })
  t.eq(obj.metadata.managedFields[1].manager, "unknown")
  t.eq(obj.metadata.managedFields[1].fieldsV1, json.decode [[{"f:data":{".":{},"f:a":{}}}]])
end)

t.test("a_conflict_names_field_and_manager_in_the_servers_words", function()
  local plane = lib.new()
  plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", GOLD)
  local status, body = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=other", (GOLD:gsub("img:1", "img:2")))
  t.eq(status, 409)
  t.eq(body, json.decode [[{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":
    "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.template.spec.containers[name=\"c\"].image","reason":"Conflict",
    "details":{"causes":[{"reason":"FieldManagerConflict","message":"conflict with \"kubectl\"",
    "field":".spec.template.spec.containers[name=\"c\"].image"}]},"code":409}]])
end)

t.test("a_conflict_with_an_update_says_its_version", function()
  local plane = lib.new()
  plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", GOLD)
  plane:patch("strategic", DEPLOYMENTS .. "/gold?fieldManager=kubectl-set",
    { spec = { template = { spec = { containers = { { name = "c", image = "img:3" } } } } } })
  local _, body = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", GOLD)
  t.eq(body.details.causes[1].message, 'conflict with "kubectl-set" using apps/v1')
end)

t.test("force_takes_the_field_over", function()
  local plane = lib.new()
  apply(plane, "one", cm { a = "1" })
  local status = apply(plane, "two", cm { a = "2" })
  t.eq(status, 409)
  local _, obj = apply(plane, "two", cm { a = "2" }, "&force=true")
  t.eq(obj.data.a, "2")
  t.eq(#obj.metadata.managedFields, 1)
  t.eq(obj.metadata.managedFields[1].manager, "two")
end)

t.test("several_conflicts_are_listed_by_manager", function()
  local plane = lib.new()
  apply(plane, "mm", cm { a = "1" })
  plane:patch("merge", CONFIGMAPS .. "/m?fieldManager=m3", { data = { b = "1" } })
  local _, body = apply(plane, "x", cm { a = "2", b = "2" })
  t.eq(body.message, 'Apply failed with 2 conflicts: conflicts with "m3" using v1:\n- .data.b\nconflicts with "mm":\n- .data.a')
end)

t.test("the_same_value_is_shared_without_conflict", function()
  local plane = lib.new()
  apply(plane, "one", cm { a = "1" })
  local status, obj = apply(plane, "two", cm { a = "1" })
  t.eq(status, 200)
  t.eq(#obj.metadata.managedFields, 2)
end)

t.test("a_field_that_nobody_applies_any_more_goes", function()
  local plane = lib.new()
  apply(plane, "one", cm { a = "1", b = "2" })
  local _, obj = apply(plane, "one", cm { a = "1" })
  t.eq(obj.data, { a = "1" })
end)

t.test("a_dropped_field_stays_while_another_owns_it", function()
  local plane = lib.new()
  apply(plane, "one", cm { a = "1", b = "2" })
  apply(plane, "two", cm { b = "2" })
  local _, obj = apply(plane, "one", cm { a = "1" })
  t.eq(obj.data, { a = "1", b = "2" })
end)

t.test("dropping_a_container_removes_its_defaults_too", function()
  local plane = lib.new()
  local two = json.decode(GOLD)
  two.spec.template.spec.containers[2] = { name = "side", image = "s:1" }
  plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", two)
  local _, obj = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl", GOLD)
  t.eq(#obj.spec.template.spec.containers, 1)
  t.eq(obj.spec.template.spec.containers[1].name, "c")
end)

local function manager(obj, name)
  for _, entry in ipairs(obj.metadata.managedFields) do
    if entry.manager == name then return entry end
  end
end

t.test("replicas_belong_to_who_scales", function()
  local plane = lib.new()
  plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=eirun", GOLD)
  plane:patch("merge", DEPLOYMENTS .. "/gold/scale?fieldManager=scaler", { spec = { replicas = 3 } })
  local bare = json.decode(GOLD)
  bare.spec.replicas = nil
  local status, obj = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=eirun", bare)
  t.eq({ status, obj.spec.replicas }, { 200, 3 })
  local found = manager(obj, "scaler")
  t.eq({ found.subresource, found.fieldsV1 }, { "scale", { ["f:spec"] = { ["f:replicas"] = {} } } })
end)

t.test("replicas_that_nobody_owns_stay_so_when_scaled", function()
  local plane = lib.new()
  local bare = json.decode(GOLD)
  bare.spec.replicas = nil
  plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=eirun", bare)
  plane:patch("merge", DEPLOYMENTS .. "/gold/scale?fieldManager=scaler", { spec = { replicas = 3 } })
  local status, obj = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=eirun", bare)
  t.eq({ status, obj.spec.replicas, manager(obj, "scaler") }, { 200, 3, nil })
end)

t.test("an_unknown_field_fails_the_typed_conversion", function()
  local plane = lib.new()
  local bad = json.decode(GOLD)
  bad.spec.foo = 1
  local status, body = plane:patch("apply", DEPLOYMENTS .. "/gold?fieldManager=kubectl&fieldValidation=Strict", bad)
  t.eq(status, 500)
  t.match(body.message, "^failed to create typed patch object %(/gold; apps/v1, Kind=Deployment%): "
    .. "%.spec%.foo: field not declared in schema$")
end)

t.test("apply_needs_a_manager", function()
  local plane = lib.new()
  local status, body = plane:patch("apply", CONFIGMAPS .. "/m", cm { a = "1" })
  t.eq(status, 422)
  t.eq(body.message, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch')
end)

t.test("a_dry_run_shows_but_does_not_store", function()
  local plane = lib.new()
  apply(plane, "one", cm { a = "1" })
  local _, obj = apply(plane, "one", cm { a = "2" }, "&dryRun=All")
  t.eq(obj.data.a, "2")
  t.eq(plane:ok("GET", CONFIGMAPS .. "/m").data.a, "1")
  t.eq(apply(plane, "new", { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "m" }, data = { z = "1" } }, "&dryRun=All"), 200)
end)
