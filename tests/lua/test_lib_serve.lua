-- SPDX-License-Identifier: Apache-2.0
-- Against the manifests of arena's reference rendering (charts 0.11.0), plus the version policy and what arena lacks.
local t = require "eirun.test"
local books = require "eirun.serve.books"
local custom = require "eirun.serve.custom"
local objects = require "eirun.serve.objects"
local pod = require "eirun.serve.pod"
local tensorflow = require "eirun.serve.tensorflow"
local triton = require "eirun.serve.triton"
local types = require "eirun.serve.types"
local words = require "eirun.serve.words"
local yaml = require "eirun.core.yaml"

local job = types.names(types.made.tensorflow, "bert-tfserving", "202107141745", "default")

local function with(base, more)
  local copy = {}
  for key, value in pairs(base) do copy[key] = value end
  for key, value in pairs(more or {}) do copy[key] = value end
  return copy
end

local common = { user = "kubernetes-admin", load_timeout = 600, drain = 15, disruption_budget = "25%" }
local given = with(common, {
  name = "bert-tfserving", model_name = "chnsenticorp", model_path = "/models/tensorflow", version_policy = "specific:1623831335",
  image = "tensorflow/serving:1.15.0-gpu", data = { ["model-pvc"] = "/models" }, selector = { inference = "tensorflow" }, gpus = 1,
  port = 8500, rest_port = 8501,
})

local function all(options, server, contents)
  server = server or tensorflow
  local of = server == tensorflow and job or types.names(server.type, "m", "1", "default")
  local found = {}
  for _, object in ipairs(objects.all(of, options, server.parts(options), contents or {})) do
    found[object.kind] = found[object.kind] or object
    found[objects.line(object)] = object
  end
  return found
end

local function container_of(options, server)
  return all(options, server).Deployment.spec.template.spec.containers[1]
end

t.test("names_are_arenas", function()
  t.eq({ job.release, job.fullname, job.service, job.books }, { "bert-tfserving-202107141745",
    "bert-tfserving-202107141745-tensorflow-serving", "bert-tfserving-202107141745-tensorflow-serving",
    "bert-tfserving-202107141745-tf-serving" })
  local own = types.names(types.made.custom, "m", "1", "default")
  t.eq({ own.fullname, own.service, own.books }, { "m-1-custom-serving", "m-1", "m-1-custom-serving" })
end)

t.test("the_service_is_arenas", function()
  local service = all(given).Service
  t.eq(service.metadata.labels, {
    app = "tensorflow-serving", chart = "tensorflow-serving-0.11.0", heritage = "Helm", release = "bert-tfserving-202107141745",
    servingName = "bert-tfserving", servingType = "tf-serving", servingVersion = "202107141745", modelName = "chnsenticorp",
    ["arena.kubeflow.org/uid"] = "e16c40557a88702ed3185af342a7429e",
  })
  t.eq(service.spec.selector, { app = "tensorflow-serving", release = "bert-tfserving-202107141745" })
  t.eq({ service.spec.ports[1].name, service.spec.ports[1].port, service.spec.ports[2].name, service.spec.ports[2].port },
    { "grpc-serving", 8500, "http-serving", 8501 })
end)

t.test("the_deployment_is_found_by_arena_and_leaves_replicas_alone", function()
  local deployment = all(given).Deployment
  t.eq(deployment.spec.replicas, nil)
  t.eq(deployment.metadata.name, "bert-tfserving-202107141745-tensorflow-serving")
  t.eq(deployment.metadata.labels.serviceName, "bert-tfserving")
  t.eq(deployment.spec.template.metadata.labels.servingVersion, "202107141745")
  t.eq(deployment.metadata.annotations, { ["arena.kubeflow.org/username"] = "kubernetes-admin" })
  t.eq(deployment.spec.template.spec.nodeSelector, { inference = "tensorflow" })
end)

t.test("another_model_config_is_another_pod", function()
  local function mark(of) return all(of).Deployment.spec.template.metadata.annotations["eirun.io/config"] end
  t.match(mark(given), "^%x+$")
  t.ok(mark(given) ~= mark(with(given, { version_policy = "latest" })), "the policy leaves its mark on the pods")
end)

t.test("the_container_is_arenas_with_a_model_config", function()
  local container = container_of(given)
  t.eq(container.name, "serving")
  t.eq(container.command, { "sh", "-c" })
  t.eq(container.args, { "/usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 " ..
    "--model_config_file=/etc/tfserving/model.config\n" })
  t.eq(container.resources, { limits = { ["nvidia.com/gpu"] = 1 } })
  t.eq({ container.env[1].name, container.env[4].name, #container.env }, { "ARENA_NODE_NAME", "ARENA_POD_IP", 4 })
  t.eq(container.volumeMounts, { { name = "model-pvc", mountPath = "/models" },
    { name = "model-config", mountPath = "/etc/tfserving", readOnly = true } })
  t.eq(container.livenessProbe, { tcpSocket = { port = 8500 }, initialDelaySeconds = 30, periodSeconds = 5, failureThreshold = 30 })
end)

t.test("start_and_readiness_ask_for_the_version_that_was_asked", function()
  local container = container_of(given)
  local path = "/v1/models/chnsenticorp/versions/1623831335"
  t.eq(container.startupProbe, { httpGet = { path = path, port = 8501 }, periodSeconds = 5, failureThreshold = 120 })
  t.eq(container.readinessProbe, { httpGet = { path = path, port = 8501 }, periodSeconds = 5 })
  t.eq(container_of(with(given, { version_policy = "latest" })).readinessProbe.httpGet.path, "/v1/models/chnsenticorp")
end)

t.test("a_config_file_of_ones_own_is_passed_on_as_arena_does", function()
  local own = with(given, { model_config_file = "/models/models.config", monitoring_config_file = "/models/monitoring.config" })
  own.version_policy = nil
  t.eq(container_of(own).args, { "/usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=chnsenticorp "
    .. "--model_base_path=/models/tensorflow --model_config_file=/models/models.config "
    .. "--monitoring_config_file=/models/monitoring.config\n" })
  t.eq(all(own).ConfigMap, nil)
end)

t.test("a_share_of_a_gpu_limits_the_servers_memory", function()
  local shared = container_of(with(given, { gpus = 0, gpu_memory = 4, gpu_core = 20 }))
  t.eq(shared.resources.limits, { ["aliyun.com/gpu-mem"] = 4, ["aliyun.com/gpu-core.percentage"] = 20 })
  t.match(shared.args[1], "%-%-per_process_gpu_memory_fraction=%$%(awk")
  t.eq(shared.env[1].name, "ARENA_NODE_NAME", "a container with a share sees its GPU")
end)

t.test("without_a_gpu_the_image_sees_none", function()
  t.eq(container_of(with(given, { gpus = 0 })).env[1], { name = "NVIDIA_VISIBLE_DEVICES", value = "void" })
end)

t.test("the_model_config_holds_the_policy_and_the_labels", function()
  t.eq(all(with(given, { version_policy = "specific:1,2", version_labels = { stable = 1, canary = 2 } })).ConfigMap.data["model.config"], [[
model_config_list {
  config {
    name: "chnsenticorp"
    base_path: "/models/tensorflow"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1 versions: 2 } }
    version_labels { key: "canary" value: 2 }
    version_labels { key: "stable" value: 1 }
  }
}
]])
end)

t.test("every_policy_word_has_its_block_and_others_have_none", function()
  t.eq({ tensorflow.policy(nil), tensorflow.policy "latest:3", tensorflow.policy "all", tensorflow.policy "specific:7,8" },
    { "latest { num_versions: 1 }", "latest { num_versions: 3 }", "all { }", "specific { versions: 7 versions: 8 }" })
  for _, bad in ipairs { "specific", "specific:x", "specific:1,", "newest", "all:2", "latest:0", "" } do
    t.eq((tensorflow.policy(bad)), nil, bad)
  end
  t.eq(tensorflow.asked_versions "specific:7,8", { "7", "8" })
  t.eq(tensorflow.asked_versions "latest:7", {})
end)

t.test("a_status_is_asked_for_every_version", function()
  local function status(...)
    local list = {}
    for i, pair in ipairs { ... } do list[i] = { version = pair[1], state = pair[2] } end
    return { model_version_status = list }
  end
  local asked = { version_policy = "specific:1,2" }
  t.eq(tensorflow.missing(asked, status({ "1", "AVAILABLE" }, { "2", "AVAILABLE" })), nil)
  t.eq(tensorflow.missing(asked, status({ "1", "AVAILABLE" }, { "2", "LOADING" })), "version 2 is not available")
  t.eq(tensorflow.missing({}, status({ "9", "END" })), "no version is available")
  t.eq(tensorflow.missing({}, "<html>"), "no version is available")
end)

t.test("the_books_list_what_arena_must_delete_without_a_blank_line", function()
  local own = {}
  for _, object in ipairs(objects.all(job, given, tensorflow.parts(given), {})) do own[#own + 1] = objects.line(object) end
  local lines = books.merge({ "configmap/old-cm", "ingress.networking.k8s.io/bert-tfserving", own[1] }, own)
  local record = objects.books(job, given, lines)
  t.eq({ record.metadata.name, record.metadata.labels.createdBy, record.data.tfserving },
    { "bert-tfserving-202107141745-tf-serving", "arena", "0.11.0" })
  t.eq(record.data.app, "configmap/bert-tfserving-202107141745-tensorflow-serving-cm\n" ..
    "service/bert-tfserving-202107141745-tensorflow-serving\ndeployment.apps/bert-tfserving-202107141745-tensorflow-serving\n" ..
    "poddisruptionbudget.policy/bert-tfserving-202107141745-tensorflow-serving\ningress.networking.k8s.io/bert-tfserving")
  t.eq(yaml.decode(record.data.values).version_policy, "specific:1623831335")
end)

t.test("what_a_job_makes_no_more_is_dropped_from_its_books", function()
  local lines, dropped = books.merge({ "poddisruptionbudget.policy/a", "horizontalpodautoscaler.autoscaling/h" }, { "service/a" })
  t.eq(lines, { "service/a", "horizontalpodautoscaler.autoscaling/h" })
  t.eq(dropped, { "poddisruptionbudget.policy/a" })
end)

t.test("flags_and_limits_must_not_contradict_each_other", function()
  t.eq(pod.limits { gpus = 1, limits = { ["nvidia.com/gpu"] = 1 } }, { ["nvidia.com/gpu"] = 1 })
  local limits, problem = pod.limits { gpus = 1, limits = { ["nvidia.com/gpu"] = 2 } }
  t.eq(limits, nil)
  t.match(problem, "limits say 2 of nvidia.com/gpu, the flag says 1")
end)

t.test("a_request_that_equals_its_limit_is_left_to_kubernetes", function()
  t.eq(container_of(with(given, { requests = { ["nvidia.com/gpu"] = 1, cpu = "2" } })).resources,
    { limits = { ["nvidia.com/gpu"] = 1 }, requests = { cpu = "2" } })
end)

t.test("selectors_and_tolerations_read_arenas_words", function()
  t.eq(words.selector { "inference:tensorflow", "zone=h" }, { inference = "tensorflow", zone = "h" })
  t.eq(words.selector "a.b/c=d", { ["a.b/c"] = "d" })
  local none, problem = words.selector { "inference" }
  t.eq(none, nil)
  t.match(problem, "'inference', neither key=value nor key:value")
  t.eq(words.tolerations { "all", "gpu=yes:NoSchedule,Equal", "spot:NoExecute", { key = "k", operator = "Exists" } }, {
    { operator = "Exists" }, { key = "gpu", value = "yes", effect = "NoSchedule", operator = "Equal" },
    { key = "spot", effect = "NoExecute", operator = "Exists" }, { key = "k", operator = "Exists" } })
  for _, bad in ipairs { "gpu", "gpu=yes", "gpu=yes:Never", "gpu:NoSchedule,Like" } do t.eq((words.tolerations(bad)), nil, bad) end
end)

t.test("replicas_are_spread_over_zones_and_tolerate_spot_nodes", function()
  local function spec(more) return all(with(given, more)).Deployment.spec.template.spec end
  local rule = spec({}).topologySpreadConstraints[1]
  t.eq({ rule.topologyKey, rule.maxSkew, rule.whenUnsatisfiable }, { "topology.kubernetes.io/zone", 1, "ScheduleAnyway" })
  t.eq(rule.labelSelector.matchLabels, { app = "tensorflow-serving", release = "bert-tfserving-202107141745" })
  t.eq(spec({ spread = "none" }).topologySpreadConstraints, nil)
  t.eq(spec({ spot = true }).tolerations, { { key = "eirun.io/spot", operator = "Exists" } })
  t.eq(spec({}).tolerations, nil)
end)

t.test("a_pod_that_ends_stays_at_work_while_the_news_travels", function()
  local spec = all(given).Deployment.spec.template.spec
  t.eq(spec.containers[1].lifecycle, { preStop = { exec = { command = { "sleep", "15" } } } })
  t.eq(spec.terminationGracePeriodSeconds, 45)
  t.eq(container_of(with(given, { drain = 0 })).lifecycle, nil)
end)

t.test("a_budget_keeps_a_drain_from_taking_all", function()
  t.eq(all(given).PodDisruptionBudget.spec.maxUnavailable, "25%")
  t.eq(all(with(given, { disruption_budget = false })).PodDisruptionBudget, nil)
end)

t.test("a_warm_up_is_a_start_up_probe_with_a_body", function()
  local found = all(with(given, { warm_up = '{"instances":[1]}' }))
  local map = found["configmap/bert-tfserving-202107141745-tensorflow-serving-warm-up"]
  t.eq(map.data, { ["warm-up.json"] = '{"instances":[1]}' })
  local probe = found.Deployment.spec.template.spec.containers[1].startupProbe
  t.eq({ table.unpack(probe.exec.command, 4) }, { "warm-up", "8501",
    "/v1/models/chnsenticorp/versions/1623831335:predict", "/etc/eirun/warm-up.json" })
  t.eq({ probe.periodSeconds, probe.failureThreshold, probe.timeoutSeconds }, { 5, 120, 30 })
end)

t.test("volumes_of_all_kinds_are_mounted", function()
  local container = container_of(with(given, { share_memory = "2Gi", temp_dirs = { cache = "/cache" }, data_dirs = { ["/mnt/d"] = "/d" },
    data_subpath = { ["model-pvc"] = "$(ARENA_POD_NAME)" }, env_from_secret = { TOKEN = "keys" }, env = { A = 1 } }))
  t.eq(container.volumeMounts, { { name = "dshm", mountPath = "/dev/shm" },
    { name = "model-pvc", mountPath = "/models", subPathExpr = "$(ARENA_POD_NAME)" }, { name = "cache", mountPath = "/cache" },
    { name = "host-1", mountPath = "/d" }, { name = "model-config", mountPath = "/etc/tfserving", readOnly = true } })
  t.eq({ container.env[1], container.env[2] }, { { name = "A", value = "1" },
    { name = "TOKEN", valueFrom = { secretKeyRef = { name = "keys", key = "TOKEN" } } } })
end)

t.test("local_files_become_a_config_map_a_folder", function()
  local found = all(with(given, { config_files = { ["a/batching.conf"] = "/models/config/", ["b.bin"] = "/models/config/c.bin" } }), nil,
    { ["a/batching.conf"] = "x: 1\n", ["b.bin"] = "\0\1" })
  local map = found["configmap/bert-tfserving-202107141745-d9f2d3f47632d13"] -- arena-serving.md gives this name for /models/config
  t.eq(map.data, { ["batching.conf"] = "x: 1\n" })
  t.eq(map.binaryData, { ["c.bin"] = "AAE=" })
end)

t.test("behind_istio_the_service_and_the_routes_bear_the_jobs_name", function()
  local behind = types.names(types.made.tensorflow, "bert-tfserving", "202107141745", "default")
  behind.service = "bert-tfserving"
  local found = {}
  for _, object in ipairs(objects.all(behind, with(given, { istio = true, expose = true }), tensorflow.parts(given), {})) do
    found[object.kind] = object
  end
  t.eq(found.Service.spec.selector, { app = "tensorflow-serving", serviceName = "bert-tfserving" })
  t.eq(found.VirtualService.spec, { hosts = { "*" }, gateways = { "bert-tfserving-gateway" },
    http = { { route = { { destination = { host = "bert-tfserving", subset = "subset-202107141745" } } } } } })
  t.eq(found.DestinationRule.spec.subsets, { { name = "subset-202107141745", labels = { servingVersion = "202107141745" } } })
  t.eq(found.Gateway.spec.servers[1].port, { number = 8501, name = "http", protocol = "HTTP" })
  t.eq(found.Deployment.spec.template.metadata.annotations["sidecar.istio.io/inject"], "true")
end)

t.test("triton_is_run_as_arena_runs_it", function()
  local options = with(common, { model_repository = "/models", rest_port = 8000, port = 8001, metrics_port = 8002, metrics = true,
    load_models = { "a", "b" }, extend_command = "--strict-readiness=true", image = "x", model_name = "a", gpus = 1 })
  local found = all(options, triton)
  local container = found.Deployment.spec.template.spec.containers[1]
  t.eq(container.name, "tritonserver")
  t.eq(container.args, { "tritonserver --http-port=8000 --grpc-port=8001 --metrics-port=8002 --allow-metrics=true "
    .. "--model-repository=/models --load-model a --load-model b --strict-readiness=true\n" })
  t.eq({ container.readinessProbe.httpGet.path, container.livenessProbe.httpGet.path }, { "/v2/health/ready", "/v2/health/live" })
  t.eq({ found.Service.spec.ports[1].name, found.Service.spec.ports[3].name }, { "http-serving", "http-metrics" })
  t.eq(found.Deployment.metadata.labels.chart, "tritoninferenceserver-0.10.0")
  t.eq(triton.image { backend = "vllm" }, "nvcr.io/nvidia/tritonserver:24.01-vllm-python-py3")
  t.match(triton.check { backend = "vllm" }, "at least one GPU")
end)

t.test("known_servers_bring_their_ports_paths_and_command", function()
  local options = custom.complete(with(common, { server = "vllm", model_path = "/models/qwen", model_name = "qwen", image = "x",
    gpus = 1 }))
  local found = all(options, custom)
  local container = found.Deployment.spec.template.spec.containers[1]
  t.eq(container.args, { "vllm serve /models/qwen --served-model-name qwen --host 0.0.0.0 --port 8000\n" })
  t.eq(container.startupProbe.httpGet, { path = "/health", port = 8000 })
  t.eq(found.Service.metadata.name, "m-1")
  t.eq(custom.complete { server = "torchserve", model_name = "bert" }.predict, "/predictions/bert")
  t.match(custom.check {}, "wants a port")
end)

t.test("probes_of_ones_own_win_and_a_server_without_http_is_tried_by_its_port", function()
  local liveness = { exec = { command = { "true" } } }
  local container = container_of(with(common, { port = 9000, image = "x", probes = { liveness = liveness } }), custom)
  t.eq(container.livenessProbe, liveness)
  t.eq(container.readinessProbe.tcpSocket, { port = 9000 })
  t.eq({ container.command, container.args }, {}, "the image's own program runs")
end)

local function refused(options, pattern, call)
  local err = t.err("invalid", function() require("eirun.serve")[call or "ensure_tensorflow"](setmetatable({}, {
    __index = function() error "it was asked" end }), options) end)
  t.match(err.message, pattern)
end

t.test("bad_options_are_refused_before_anybody_is_asked", function()
  local base = { name = "bert", model_name = "m", model_path = "/m", image = "i" }
  for _, row in ipairs {
    { { name = "Bert" }, "a name of lower%-case" }, { { name = "x-tensorflow-serving" }, "arena would not find" },
    { { version_policy = "newest" }, "latest:N" }, { { gpu_core = 7 }, "multiple of 5" }, { { data = { a = "models" } }, "below /" },
    { { selector = { "x" } }, "neither key=value" }, { { tolerations = "gpu" }, "neither 'all'" },
    { { version_policy = "specific:1", version_labels = { a = 2 } }, "does not serve" }, { { istio = true }, "wants a version" },
    { { expose = true }, "wants istio" }, { { disruption_budget = "half" }, "share such as 25%%" },
    { { data_subpath = { a = "x" } }, "data does not mount" }, { { gpus = 1, requests = { ["nvidia.com/gpu"] = 2 } }, "must be the same" },
    { { model_config_file = "/c", version_policy = "all" }, "say them there" }, { { modle_name = "x" }, "did you mean 'model_name'" },
  } do refused(with(base, row[1]), row[2]) end
  refused({ name = "a", image = "i" }, "wants a port", "ensure_custom")
  refused({ name = "a", image = "i", server = "vlm" }, "one of sglang", "ensure_custom")
  refused({ name = "a" }, "'model_repository' is missing", "ensure_triton")
end)
