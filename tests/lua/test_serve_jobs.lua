-- SPDX-License-Identifier: Apache-2.0
-- Jobs of every type in the sandbox, and `eirun serve` on them, each run in a process of its own.
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local task = require "eirun.core.task"
local warmup = require "eirun.serve.warmup"

local function run(...)
  local argv = { "/proc/self/exe", ... }
  argv.timeout = 100
  return assert(process.run(argv))
end

local Place = {}
Place.__index = Place

function Place:play(...)
  local done = run("--sandbox=" .. self.dir, "--output", "jsonl", "tests/playbooks/servers.lua", ...)
  local events = {}
  for line in done.stdout:gmatch("[^\n]+") do events[#events + 1] = assert(json.decode(line)) end
  t.eq(done.code, 0, done.stderr .. done.stdout:sub(-3000))
  return events[#events].result, events
end

function Place:serve(...)
  return run("serve", "--sandbox=" .. self.dir, ...)
end

local function in_sandbox(body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(body, setmetatable({ dir = dir }, Place))
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

t.test("servers_of_every_type_become_ready", function()
  in_sandbox(function(place)
    t.eq(place:play "job=triton", { name = "triton-1-tritoninferenceserver", service = "triton-1-tritoninferenceserver",
      path = "/v2/models/m/ready", predict = "/v2/models/m/infer", replicas = { wanted = 1, ready = 1, available = 1 } })
    t.eq(place:play("job=vllm").predict, "/v1/completions")
    t.eq(place:play("job=own").service, "own-1")
    local list = place:serve "list"
    t.match(list.stdout, "llm +Custom +1 +1 +1 +[%d.]+ +RESTFUL:8000\n")
    t.match(list.stdout, "triton +Triton +1 +1 +1 +[%d.]+ +RESTFUL:8000,GRPC:8001\n")
    t.eq(place:serve("list", "-T", "triton").stdout:find "llm", nil)
  end)
end)

t.test("a_warm_up_is_answered_before_the_pod_is_ready", function()
  in_sandbox(function(place)
    place:play "job=warm"
    local info = assert(json.decode(place:serve("get", "tf", "-o", "json").stdout))
    t.eq({ info.availableInstances, info.instances[1].status }, { 1, "Running" })
  end)
end)

t.test("a_published_version_is_waited_for_and_its_load_timed", function()
  in_sandbox(function(place)
    local result = place:play("job=warm", "publish=yes")
    t.eq(result.models["1700000000"], "AVAILABLE")
    t.eq(result.proxied.model_version_status[1].version, "1700000000")
    t.match(result.refused, 'no service port "9" found for service "tf%-1')
    t.ok(result.reload > 20 and result.reload < 60, ("the sandbox loads in 22.7 s, this said %s"):format(result.reload))
  end)
end)

t.test("what_a_job_no_longer_makes_is_deleted", function()
  in_sandbox(function(place)
    place:play "job=tensorflow"
    t.match(place:serve("delete", "tf", "--dry-run").stdout, "poddisruptionbudget")
    place:play("job=tensorflow", "budget=no")
    t.eq(place:serve("delete", "tf", "--dry-run").stdout:find "poddisruptionbudget", nil)
    local left = run("kube", "get", "pdb", "-o", "name", "--sandbox=" .. place.dir)
    t.eq({ left.code, left.stdout }, { 0, "" }, left.stderr)
  end)
end)

t.test("the_verbs_show_change_and_delete_a_job", function()
  in_sandbox(function(place)
    place:play "job=tensorflow"
    local shown = place:serve("get", "tf")
    t.match(shown.stdout, "Name: +tf\nNamespace: +default\nType: +Tensorflow\nVersion: +1\nDesired: +1\nAvailable: +1\n")
    t.match(place:serve("logs", "tf", "-t", "1").stdout, "Entering the event loop")
    local scaled = place:serve("scale", "tf", "--replicas", "2")
    t.eq({ scaled.code, scaled.stdout }, { 0, "tf scaled from 1 to 2 replicas\n" }, scaled.stderr)
    local updated = place:serve("update", "tf", "image=tensorflow/serving:2.15.1", "env.A=1")
    t.eq(updated.code, 0, updated.stderr)
    t.match(updated.stdout, "image: tensorflow/serving:2.14.1 %-> tensorflow/serving:2.15.1")
    t.match(updated.stdout, "tf, version 1: 2 of 2 replicas ready\n$")
    local many = place:serve("logs", "tf")
    t.eq(many.code, 64)
    t.match(many.stderr, "has 2 instances; say which by %-%-instance: tf%-1%-")
    t.match(place:serve("list", "-o", "wide").stdout, "tensorflow/serving:2.15.1")
    local gone = place:serve("delete", "tf")
    t.eq(gone.code, 0, gone.stderr)
    t.match(gone.stdout, "deployment.apps/tf%-1%-tensorflow%-serving deleted\n")
    local left = run("kube", "get", "deploy,svc,pdb,cm", "-o", "name", "--sandbox=" .. place.dir)
    t.eq(left.stdout, "service/kubernetes\nconfigmap/kube-root-ca.crt\n")
  end)
end)

t.test("replicas_that_an_autoscaler_has_are_refused_whichever_verb_names_them", function()
  in_sandbox(function(place)
    place:play "job=tensorflow"
    assert(fs.write(place.dir .. "/hpa.json", json.encode { apiVersion = "autoscaling/v2", kind = "HorizontalPodAutoscaler",
      metadata = { name = "mine" }, spec = { maxReplicas = 3,
        scaleTargetRef = { apiVersion = "apps/v1", kind = "Deployment", name = "tf-1-tensorflow-serving" } } }))
    local made = run("kube", "apply", "-f", place.dir .. "/hpa.json", "--sandbox=" .. place.dir)
    t.eq(made.code, 0, made.stderr)
    for _, words in ipairs { { "scale", "tf", "--replicas", "2" }, { "update", "tf", "replicas=2" } } do
      local done = place:serve(table.unpack(words))
      t.eq(done.code, 1, done.stdout)
      t.match(done.stderr, "the replicas of 'tf' belong to HorizontalPodAutoscaler 'mine'; change its limits instead")
    end
    t.eq(place:serve("update", "tf", "env.A=1").code, 0)
  end)
end)

t.test("mistakes_of_the_verbs_are_told", function()
  in_sandbox(function(place)
    place:play "job=own"
    for _, row in ipairs {
      { { "get", "nope" }, 1, "there is no serving job 'nope' in namespace default" }, { { "frob" }, 64, "serve has no verb 'frob'" },
      { { "list", "-T", "what" }, 64, "no type of serving job; there are tf, triton" }, { { "scale", "own" }, 64, "%-%-replicas N" },
      { { "update", "own", "imgae=x" }, 1, "unknown field 'imgae', did you mean 'image'" },
      { { "update", "own", "x" }, 64, "no key=value" },
      { { "delete" }, 64, "which job" }, { { "get", "a", "b" }, 64, "one word too many" },
    } do
      local done = place:serve(table.unpack(row[1]))
      t.eq(done.code, row[2], done.stderr)
      t.match(done.stderr, row[3])
    end
  end)
end)

-- The script that runs in containers, by a real bash against a server that is ours.
local function warmed_up(status)
  local server, seen = assert(httpd.listen { host = "127.0.0.1", port = 0 }), {}
  local scope <close> = task.scope()
  scope:spawn(function()
    local req = server:accept()
    seen.method, seen.path, seen.body, seen.type = req.method, req.path, req:body(), req:header "content-type"
    req:respond(status, {}, "{}")
  end)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  assert(fs.write(dir .. "/body", '{"instances":["好"]}'))
  local command = warmup.probe(server.port, "/v1/models/m:predict").exec.command
  local done = assert(process.run { "bash", "-c", command[3], "warm-up", command[5], command[6], dir .. "/body", timeout = 20 })
  fs.remove(dir, { recursive = true })
  server:close()
  return done, seen
end

t.test("the_warm_up_script_posts_its_file_and_believes_only_200", function()
  local done, seen = warmed_up(200)
  t.eq({ done.code, seen.method, seen.path, seen.body, seen.type },
    { 0, "POST", "/v1/models/m:predict", '{"instances":["好"]}', "application/json" }, done.stderr)
  local refused = warmed_up(503)
  t.eq({ refused.code, refused.stdout }, { 1, "the warm-up request was answered 503\n" })
  local script = warmup.probe(1, "/").exec.command[3]
  local closed = assert(process.run { "bash", "-c", script, "warm-up", "1", "/", "/dev/null", timeout = 20 })
  t.eq(closed.code, 1)
end)
