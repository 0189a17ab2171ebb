-- SPDX-License-Identifier: Apache-2.0
-- The objects of a served job as the API server keeps them, against those that arena 0.15.5 makes (with a model-config file for the
-- version policy): every field of arena's must be there with arena's value.
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local t = require "eirun.test"

local LOOK = [[
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local play = require "eirun.play"
return play.book { name = "look", run = function(p)
  local k8s = kube.connect(ack.cluster())
  local found = {}
  for _, kind in ipairs { "ConfigMap", "Service", "Deployment" } do
    for _, object in ipairs(k8s:list(kind)) do found[kind .. "/" .. object.metadata.name] = object end
  end
  p:report(found)
end }
]]

local function eirun(...)
  local argv = { "/proc/self/exe", ... }
  argv.timeout = 100
  local run = assert(process.run(argv))
  t.eq(run.code, 0, run.stderr .. run.stdout:sub(-2000))
  return assert(json.decode(run.stdout:match "([^\n]+)\n$")).result
end

local function served(body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(function()
    assert(fs.write(dir .. "/look.lua", LOOK, { mode = 384 }))
    local options = { "--sandbox=" .. dir .. "/sb", "--output", "jsonl" }
    eirun(options[1], options[2], options[3], "tests/playbooks/small.lua", "version=202107141745")
    body(eirun(options[1], options[2], options[3], dir .. "/look.lua"), options, dir)
  end)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

-- Each field of `wanted` is in `got`; lists have the same length.
local function holds(got, wanted, path)
  if type(wanted) ~= "table" then
    t.eq(got, wanted, path)
    return
  end
  t.eq(type(got), "table", path)
  if #wanted > 0 then t.eq(#got, #wanted, path) end
  for key, value in pairs(wanted) do holds(got[key], value, path .. "." .. key) end
end

local RELEASE = "small-202107141745"
local FULL = RELEASE .. "-tensorflow-serving"
local USER, UID = "kubernetes-admin", "e16c40557a88702ed3185af342a7429e" -- md5 of the name

local function labels(more)
  local all = { app = "tensorflow-serving", chart = "tensorflow-serving-0.11.0", heritage = "Helm", release = RELEASE,
    servingName = "small", servingType = "tf-serving", servingVersion = "202107141745", modelName = "chnsenticorp",
    ["arena.kubeflow.org/uid"] = UID }
  for key, value in pairs(more or {}) do all[key] = value end
  return all
end

local COMMAND = "/usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 --model_config_file=/etc/tfserving/model.config\n"

local function from(field) return { fieldRef = { fieldPath = field } } end

local function arenas_deployment()
  return {
    metadata = { labels = labels { serviceName = "small" }, annotations = { ["arena.kubeflow.org/username"] = USER } },
    spec = {
      replicas = 1, strategy = { type = "RollingUpdate" },
      selector = { matchLabels = { app = "tensorflow-serving", release = RELEASE } },
      template = {
        metadata = { labels = labels { serviceName = "small" }, annotations = { ["arena.kubeflow.org/username"] = USER } },
        spec = {
          nodeSelector = { pool = "small" },
          containers = { {
            name = "serving", image = "tensorflow/serving:1.15.0-gpu", imagePullPolicy = "IfNotPresent", command = { "sh", "-c" },
            args = { COMMAND },
            env = {
              { name = "ARENA_NODE_NAME", valueFrom = from "spec.nodeName" },
              { name = "ARENA_POD_NAMESPACE", valueFrom = from "metadata.namespace" },
              { name = "ARENA_POD_NAME", valueFrom = from "metadata.name" },
              { name = "ARENA_POD_IP", valueFrom = from "status.podIP" },
            },
            ports = { { name = "serving", containerPort = 8500, protocol = "TCP" }, { name = "http-serving", containerPort = 8501 } },
            livenessProbe = { tcpSocket = { port = 8500 }, initialDelaySeconds = 30, periodSeconds = 5, failureThreshold = 30 },
            readinessProbe = { httpGet = { path = "/v1/models/chnsenticorp/versions/1623831335", port = 8501 } },
            resources = { limits = { ["nvidia.com/gpu"] = "1" } },
            volumeMounts = { { mountPath = "/models" }, { name = "model-config", mountPath = "/etc/tfserving", readOnly = true } },
          } },
          volumes = { { persistentVolumeClaim = {} }, { name = "model-config", configMap = { name = FULL .. "-cm" } } },
        },
      },
    },
  }
end

t.test("the_objects_of_a_job_are_arenas", function()
  served(function(found)
    local deployment = found["Deployment/" .. FULL]
    holds(deployment, arenas_deployment(), "deployment")
    t.eq(deployment.spec.template.spec.containers[1].resources.requests, nil, "requests would break `arena serve update --gpus`")
    t.match(deployment.metadata.annotations["helm.sh/created"], "^%d+$")
    t.eq(deployment.spec.template.metadata.annotations["helm.sh/created"], nil, "arena marks the Deployment alone")
    holds(found["Service/" .. FULL], {
      metadata = { labels = labels() },
      spec = { type = "ClusterIP", selector = { app = "tensorflow-serving", release = RELEASE }, ports = {
        { name = "grpc-serving", port = 8500, targetPort = 8500 }, { name = "http-serving", port = 8501, targetPort = 8501 } } },
    }, "service")
    t.match(found["ConfigMap/" .. FULL .. "-cm"].data["model.config"], "specific { versions: 1623831335 }")
  end)
end)

t.test("the_bookkeeping_lists_what_arena_must_delete", function()
  served(function(found)
    local book = found["ConfigMap/" .. RELEASE .. "-tf-serving"]
    t.eq({ book.metadata.labels.createdBy, book.data.tfserving }, { "arena", "0.11.0" })
    t.ok(not book.data.app:find "\n$" and not book.data.app:find "\n\n", "no empty line: arena would delete a thing without a name")
    for _, line in ipairs { "configmap/" .. FULL .. "-cm", "service/" .. FULL, "deployment.apps/" .. FULL } do
      t.ok(("\n" .. book.data.app .. "\n"):find("\n" .. line .. "\n", 1, true), line)
    end
  end)
end)

t.test("when_and_by_whom_a_job_was_made_stays", function()
  served(function(found, options, dir)
    local before = found["Deployment/" .. FULL].metadata.annotations
    eirun(options[1], options[2], options[3], "tests/playbooks/small.lua", "version=202107141745", "image=tensorflow/serving:2.0-gpu")
    local after = eirun(options[1], options[2], options[3], dir .. "/look.lua")["Deployment/" .. FULL].metadata.annotations
    t.eq(after["helm.sh/created"], before["helm.sh/created"])
    t.eq(after["arena.kubeflow.org/username"], USER)
  end)
end)
