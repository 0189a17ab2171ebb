-- SPDX-License-Identifier: Apache-2.0
-- Publishing under the eyes of a model server that watches the folder, and of the cluster that says which versions it serves.
local ack = require "eirun.ack"
local fs = require "eirun.core.fs"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local sandbox = require "eirun.sandbox"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"

local root = debug.getinfo(1, "S").source:match "^@(.-)tests/virtual/[^/]*$" or ""
local model = root .. "playbooks/models/chnsenticorp/1623831335"
local bucket_name, base = "eirun-sandbox-models", "tensorflow"

local function wait(what, seconds, check)
  local deadline = task.now() + seconds
  while task.now() < deadline do
    local result = check()
    if result then return result end
    task.sleep(0.5)
  end
  error("waited in vain for " .. what, 2)
end

local function deployment(path)
  return { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = "web" }, spec = { replicas = 1,
    selector = { matchLabels = { app = "web" } }, template = { metadata = { labels = { app = "web" } }, spec = {
      containers = { { name = "serving", image = "tensorflow/serving:1.15.0", command = { "sh", "-c" },
        args = { "/usr/bin/tensorflow_model_server --rest_api_port=8501 --model_name=m --model_base_path=" .. path },
        ports = { { containerPort = 8501 } }, volumeMounts = { { name = "model", mountPath = "/models" } },
        readinessProbe = { httpGet = { path = "/v1/models/m", port = 8501 }, periodSeconds = 5 } } },
      volumes = { { name = "model", persistentVolumeClaim = { claimName = "models" } } } } } } }
end

local function with_sandbox(fn)
  return function()
    local dir = assert(fs.mkdtemp "/tmp/eirun-test-publish-")
    local session = target.open({ sandbox = dir, clock = "virtual" }, { target = function() end })
    local box = { bucket = oss.bucket(bucket_name), k8s = kube.connect(ack.cluster()):namespace "default" }
    local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e) or e end, box)
    getmetatable(session).__close(session)
    fs.remove(dir, { recursive = true })
    if not ok then error(err, 0) end
  end
end

local function deploy(box, path)
  box.k8s:ensure_oss_volume { name = "model-pv", claim = "models", bucket = bucket_name, path = "/" }
  box.k8s:create(deployment(path))
end

local function serve(box, path)
  deploy(box, path)
  wait("the replica", 400, function()
    local seen = box.k8s:get("Deployment", "web")
    return (seen.status.readyReplicas or 0) == 1
  end)
  return box.k8s:list("Pod", { labels = { app = "web" } })[1].metadata.name
end

local function publish(box, version, more)
  local given = { from = model, to = base, version = version }
  for key, value in pairs(more or {}) do given[key] = value end
  return box.bucket:publish(given)
end

t.test("a_watching_server_sees_nothing_of_an_interrupted_publish_and_loads_the_whole_one", with_sandbox(function(box)
  publish(box, 1)
  local pod = serve(box, "/models/tensorflow")
  t.match(box.k8s:logs(pod), "Successfully loaded servable version {name: m version: 1}\n")
  sandbox.fault { kind = "error", service = "OSS", action = "UploadPart", status = 403, code = "AccessDenied", times = 100 }
  t.err("denied", function() publish(box, 2) end)
  sandbox.clear()
  task.sleep(120)
  t.eq(box.k8s:logs(pod):find("version: 2", 1, true), nil)
  publish(box, 2)
  wait("version 2", 60, function()
    return box.k8s:logs(pod):find("Successfully loaded servable version {name: m version: 2}", 1, true)
  end)
  t.eq(box.k8s:logs(pod):find("Could not find SavedModel", 1, true), nil)
  t.eq(box.bucket:uploads(), {})
end))

t.test("a_tree_that_is_copied_file_by_file_is_what_a_watcher_must_not_see", with_sandbox(function(box)
  publish(box, 1)
  local pod = serve(box, "/models/tensorflow")
  box.bucket:put("tensorflow/2/variables/variables.index", { file = model .. "/variables/variables.index" })
  wait("the failed load", 60, function() return box.k8s:logs(pod):find("Could not find SavedModel", 1, true) end)
end))

t.test("versions_that_a_deployment_serves_outlive_keep", with_sandbox(function(box)
  for version = 1, 2 do publish(box, version) end
  deploy(box, "/models/tensorflow/1")
  local seen = publish(box, 3, { keep = 1, served = oss.served_by(box.k8s, bucket_name, base) })
  t.eq({ seen.deleted, #seen.kept, seen.kept[1].version }, { { 2 }, 1, 1 })
  t.match(seen.kept[1].why, "Deployment default/web serves it")
  t.eq(box.bucket:head "tensorflow/1/saved_model.pb" ~= nil, true)
  t.eq(box.bucket:verify { prefix = "tensorflow/3", from = model }.ok, true)
  box.k8s:patch("Deployment", "web", { spec = { replicas = 0 } })
  wait("no replica", 120, function() return (box.k8s:get("Deployment", "web").status.replicas or 0) == 0 end)
  seen = publish(box, 3, { keep = 1, served = oss.served_by(box.k8s, bucket_name, base) })
  t.eq(seen.deleted, { 1 })
end))

t.test("the_next_version_is_the_one_that_an_interrupted_publish_left", with_sandbox(function(box)
  publish(box, 4)
  sandbox.fault { kind = "error", service = "OSS", action = "PutObject", status = 403, code = "AccessDenied", times = 100, skip = 1 }
  t.err("denied", function() publish(box, "next") end)
  sandbox.clear()
  t.eq({ #box.bucket:list { prefix = "tensorflow/5/" } > 0, box.bucket:head "tensorflow/5/saved_model.pb" }, { true })
  t.eq({ publish(box, "next").version, publish(box, "next").version }, { 5, 6 })
  t.eq(box.bucket:verify({ prefix = "tensorflow/5" }).ok, true)
end))

t.test("a_file_that_changes_while_it_is_published_stops_it_before_anything_is_seen", with_sandbox(function(box)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-model-")
  assert(require("eirun.core.process").run { "/bin/cp", "-r", model, dir .. "/9" })
  for _, path in ipairs { "/9/saved_model.pb", "/9/variables/variables.data-00000-of-00002" } do
    local whole = assert(fs.read(dir .. path))
    local function spoil() assert(fs.write(dir .. path, whole:sub(1, -2) .. string.char(whole:byte(-1) ~ 1))) end
    local got = box.bucket.transfer -- the moment between the manifest and the parts
    box.bucket.transfer = function(...)
      spoil()
      return got(...)
    end
    local err = t.err("conflict", function() box.bucket:publish { from = dir .. "/9", to = base } end)
    t.match(err.message, "changed while it was published")
    box.bucket.transfer = nil
    t.eq(box.bucket:list { prefix = base }, {})
    assert(fs.write(dir .. path, whole))
  end
  t.eq(box.bucket:publish({ from = dir .. "/9", to = base }).version, 9)
  t.eq(box.bucket:verify({ prefix = base .. "/9", from = model }).ok, true)
  fs.remove(dir, { recursive = true })
end))
