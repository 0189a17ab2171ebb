-- SPDX-License-Identifier: Apache-2.0
-- Waiting for any kind and asking what would change, on the sandbox's cluster.
local json = require "eirun.core.json"
local t = require "eirun.test"
local task = require "eirun.task"
local with_cluster = require "sandbox_cluster"

local function template(image, more)
  local spec = { containers = json.array { { name = "c", image = image or "nginx:1.25" } } }
  for key, value in pairs(more or {}) do spec[key] = value end
  return { metadata = { labels = { app = "web" } }, spec = spec }
end

local function pod(name, image)
  local made = template(image)
  return { apiVersion = "v1", kind = "Pod", metadata = { name = name, labels = { app = "web" } }, spec = made.spec }
end

local function workload(kind, image)
  return { apiVersion = "apps/v1", kind = kind, metadata = { name = "web" }, spec = { replicas = 1, template = template(image),
    selector = { matchExpressions = json.array { { key = "app", operator = "In", values = json.array { "web" } } } } } }
end

local function config_map(data, more)
  local object = { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "cm" }, data = data }
  for key, value in pairs(more or {}) do object.metadata[key] = value end
  return object
end

-- The error and how long it took.
local function refused(kind, fn)
  local began = task.now()
  local err = t.err(kind, fn)
  return err, task.now() - began
end

t.test("a_condition_of_pods_by_label_is_waited_for", with_cluster(function(k8s)
  for _, name in ipairs { "a", "b" } do k8s:create(pod(name)) end
  local pods = k8s:wait { kind = "Pod", labels = { app = "web" }, condition = "Ready" }
  t.eq({ #pods, pods[1].status.phase, pods[2].status.phase }, { 2, "Running", "Running" })
  t.eq(k8s:wait({ kind = "Pod", name = "a", jsonpath = "{.status.phase}", value = "Running" }).metadata.name, "a")
  t.err("not_found", function() k8s:wait { kind = "Pod", labels = { app = "nope" }, condition = "Ready" } end)
end))

t.test("a_used_up_quota_ends_the_waiting_early_in_the_servers_words", with_cluster(function(k8s)
  local team = k8s:ensure_namespace("team", { quota = { pods = 1 } })
  local web = workload("Deployment")
  web.spec.replicas = 2
  team:create(web)
  local err, took = refused("quota", function()
    team:wait { kind = "Deployment", name = "web", condition = "Available", timeout = 900 }
  end)
  t.match(err.message, 'exceeded quota: eirun, requested: pods=1, used: pods=1, limited: pods=1"$')
  t.match(err.hint, "quota is used up: raise it, or ask for less")
  t.ok(took < 60, "it took " .. took)
  team:ensure_quota { hard = { pods = 2 } }
  t.eq(team:wait({ kind = "Deployment", name = "web", condition = "Available" }).status.readyReplicas, 2)
end))

t.test("a_field_that_another_sets_ends_the_waiting", with_cluster(function(k8s)
  k8s:create(config_map { k = "old" })
  task.together(function(all)
    all(function()
      task.sleep(30)
      k8s:patch("ConfigMap", "cm", { data = { k = "new" } })
    end)
    all(function()
      local began = task.now()
      t.eq(k8s:wait({ kind = "ConfigMap", name = "cm", jsonpath = "{.data.k}", value = "new" }).data.k, "new")
      t.ok(task.now() - began < 33, "it took " .. task.now() - began)
    end)
  end)
  local err = t.err("timeout", function() k8s:wait { kind = "ConfigMap", name = "cm", jsonpath = "{.data.k}", value = "x",
    timeout = 5 } end)
  t.match(err.message, "ConfigMap 'default/cm' has not come to {.data.k} is 'x': {.data.k} is 'new'")
end))

t.test("a_birth_is_waited_for_and_what_comes_after_it", with_cluster(function(k8s)
  t.err("not_found", function() k8s:wait { kind = "Pod", name = "late", condition = "Ready" } end)
  task.together(function(all)
    all(function()
      task.sleep(20)
      k8s:create(pod "late")
    end)
    all(function() t.eq(k8s:wait({ kind = "Pod", name = "late", condition = "Ready", create = true }).status.phase, "Running") end)
  end)
end))

t.test("an_end_that_a_finalizer_holds_is_told_with_it", with_cluster(function(k8s)
  k8s:create(config_map({}, { finalizers = json.array { "example.com/stop" } }))
  local err = t.err("timeout", function() k8s:wait { kind = "ConfigMap", name = "cm", delete = true, timeout = 3 } end)
  t.match(err.message, "nobody has deleted it")
  k8s:delete("ConfigMap", "cm")
  err = t.err("timeout", function() k8s:wait { kind = "ConfigMap", name = "cm", delete = true, timeout = 3 } end)
  t.match(err.message, "being deleted and held by example.com/stop")
  k8s:patch("ConfigMap", "cm", { metadata = { finalizers = json.null } })
  t.eq(k8s:wait({ kind = "ConfigMap", name = "cm", delete = true, timeout = 10 }), nil)
end))

t.test("a_pod_whose_image_cannot_be_pulled_ends_the_waiting_early", with_cluster(function(k8s)
  k8s:create(pod("bad", "no/such:image"))
  local err, took = refused("invalid", function() k8s:wait { kind = "Pod", name = "bad", condition = "Ready", timeout = 3000 } end)
  t.match(err.message, "ImagePull")
  t.match(err.hint, "name and tag")
  t.ok(took < 200, "it took " .. took)
  err, took = refused("timeout", function()
    k8s:wait { kind = "Pod", name = "bad", condition = "Ready", timeout = 400, patient = true }
  end)
  t.match(err.message, "Ready is False.*; %u%w+: \"")
  t.ok(took >= 400, "it took " .. took)
end))

for _, kind in ipairs { "ReplicaSet", "Deployment" } do
  t.test("the_pods_of_a_workload_are_looked_at_" .. kind:lower(), with_cluster(function(k8s)
    k8s:create(workload(kind, "no/such:image"))
    local err, took = refused("invalid", function()
      k8s:wait { kind = kind, name = "web", jsonpath = "{.status.readyReplicas}", value = 1, timeout = 3000 }
    end)
    t.match(err.message, "pod 'web%-.*ImagePull")
    t.ok(took < 200, "it took " .. took)
  end))
end

t.test("a_job_that_failed_does_not_complete_any_more", with_cluster(function(k8s)
  local failing = template("nginx:1.25", { restartPolicy = "Never", containers = json.array { { name = "c", image = "busybox",
    command = json.array { "sh", "-c", "exit 3" } } } })
  k8s:create { apiVersion = "batch/v1", kind = "Job", metadata = { name = "convert" }, spec = { backoffLimit = 0, template = failing } }
  local err, took = refused("invalid", function()
    k8s:wait { kind = "Job", name = "convert", condition = "Complete", timeout = 3000 }
  end)
  t.match(err.message, "Job 'convert' has ended and will not get to condition Complete=True: Failed: \"BackoffLimitExceeded")
  t.ok(took < 300, "it took " .. took)
  t.eq(k8s:wait({ kind = "Job", name = "convert", condition = "Failed" }).metadata.name, "convert")
end))

t.test("a_claim_that_no_volume_fits_ends_the_waiting", with_cluster(function(k8s)
  k8s:create { apiVersion = "v1", kind = "PersistentVolumeClaim", metadata = { name = "c" }, spec = { storageClassName = "",
    accessModes = json.array { "ReadOnlyMany" }, resources = { requests = { storage = "1Gi" } } } }
  local err, took = refused("invalid", function()
    k8s:wait { kind = "PersistentVolumeClaim", name = "c", jsonpath = "{.status.phase}", value = "Bound", timeout = 3000 }
  end)
  t.match(err.message, "PersistentVolumeClaim 'c' will not become ready: FailedBinding")
  t.ok(took < 200, "it took " .. took)
end))

t.test("what_is_waited_for_must_be_said_once", with_cluster(function(k8s)
  for _, given in ipairs { {}, { condition = "Ready", delete = true }, { value = "x", condition = "Ready" }, { delete = true,
    create = true },
    { jsonpath = "{.a" }, { condition = "=x" }, { conditon = "Ready" } } do
    given.kind, given.name = "Pod", "a"
    t.err("invalid", function() k8s:wait(given) end)
  end
  t.err("invalid", function() k8s:wait { kind = "Pod", condition = "Ready" } end)
end))

-- Differences ----------------------------------------------------------------------------------------------------------

t.test("differences_are_the_servers_and_nothing_is_stored", with_cluster(function(k8s)
  local changes, live, merged = k8s:diff(config_map { k = "1" })
  t.eq({ #changes > 0, live, merged.data.k, k8s:get("ConfigMap", "cm") }, { true, nil, "1", nil })
  k8s:apply(config_map { k = "1" })
  t.eq(k8s:diff(config_map { k = "1" }), {})
  t.eq(k8s:diff(config_map { k = "2" }), { { field = "data.k", from = "1", to = "2" } })
  t.eq(k8s:get("ConfigMap", "cm").data.k, "1")
  local err = t.err("conflict", function()
    k8s:diff(config_map { k = "2" }, { manager = "other" })
  end)
  t.match(err.message, "data.k: conflict with \"eirun\"")
  t.eq(k8s:diff(config_map { k = "2" }, { manager = "other", force = true })[1].field, "data.k")
end))

t.test("differences_of_a_secret_name_the_key_and_never_the_value", with_cluster(function(k8s)
  local function secret(value)
    return { apiVersion = "v1", kind = "Secret", metadata = { name = "s", annotations = {
      ["kubectl.kubernetes.io/last-applied-configuration"] = value } }, data = { same = "c2FtZQ==", k = value } }
  end
  local function shown(value)
    local list = table.pack(k8s:diff(secret(value)))
    local text = json.encode(json.array { list[1], list[2] or json.null, list[3] })
    for _, hidden in ipairs { "b2xk", "bmV3", "c2FtZQ" } do t.ok(not text:find(hidden, 1, true), text) end
    return list
  end
  shown "b2xk"
  k8s:apply(secret "b2xk")
  local list = shown "bmV3"
  t.eq({ list[1][1].field, list[1][1].from, list[1][1].to }, { "data.k", "<secret>", "<secret>" })
  t.eq({ list[2].data.k, list[3].data.k, list[2].data.same, list[3].data.same }, { "*** (before)", "*** (after)", "***", "***" })
end))
