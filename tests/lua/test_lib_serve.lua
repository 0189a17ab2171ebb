-- SPDX-License-Identifier: Apache-2.0
-- Against the manifests of arena-serving's reference rendering (chart 0.11.0), plus the version policy.
local t = require "eirun.test"
local manifest = require "eirun.serve.manifest"

local job = manifest.names("bert-tfserving", "202107141745", "default")
local given = {
  name = "bert-tfserving", model_name = "chnsenticorp", model_path = "/models/tensorflow", version_policy = "specific:1623831335",
  image = "tensorflow/serving:1.15.0-gpu", data = { ["model-pvc"] = "/models" }, selector = { inference = "tensorflow" }, gpus = 1,
  port = 8500, rest_port = 8501, user = "kubernetes-admin", load_timeout = 600,
}

t.test("names_are_arenas", function()
  t.eq(job.release, "bert-tfserving-202107141745")
  t.eq(job.fullname, "bert-tfserving-202107141745-tensorflow-serving")
end)

t.test("the_service_is_arenas", function()
  local service = manifest.service(job, given)
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
  local deployment = manifest.deployment(job, given)
  t.eq(deployment.spec.replicas, nil)
  t.eq(deployment.metadata.labels.serviceName, "bert-tfserving")
  t.eq(deployment.spec.selector.matchLabels, { app = "tensorflow-serving", release = "bert-tfserving-202107141745" })
  t.eq(deployment.metadata.annotations, { ["arena.kubeflow.org/username"] = "kubernetes-admin" })
  t.eq(deployment.spec.template.spec.nodeSelector, { inference = "tensorflow" })
end)

t.test("another_model_config_is_another_pod", function()
  local copy = {}
  for key, value in pairs(given) do copy[key] = value end
  copy.version_policy = "latest"
  local function mark(of) return manifest.deployment(job, of).spec.template.metadata.annotations["eirun.io/model-config"] end
  t.match(mark(given), "^%x+$")
  t.ok(mark(given) ~= mark(copy), "the policy leaves its mark on the pods")
end)

t.test("the_container_is_arenas_with_a_model_config", function()
  local pod = manifest.deployment(job, given).spec.template.spec
  local container = pod.containers[1]
  t.eq(container.name, "serving")
  t.eq(container.command, { "sh", "-c" })
  t.eq(container.args, { "/usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 " ..
    "--model_config_file=/etc/tfserving/model.config\n" })
  t.eq(container.resources, { limits = { ["nvidia.com/gpu"] = 1 } })
  t.eq({ container.env[1].name, container.env[4].name, #container.env }, { "ARENA_NODE_NAME", "ARENA_POD_IP", 4 })
  t.eq(container.volumeMounts, { { name = "model-pvc", mountPath = "/models" },
    { name = "model-config", mountPath = "/etc/tfserving", readOnly = true } })
  t.eq(container.livenessProbe.tcpSocket.port, 8500)
end)

t.test("without_a_gpu_the_image_sees_none", function()
  local copy = {}
  for key, value in pairs(given) do copy[key] = value end
  copy.gpus = nil
  t.eq(manifest.deployment(job, copy).spec.template.spec.containers[1].env[1], { name = "NVIDIA_VISIBLE_DEVICES", value = "void" })
end)

t.test("the_model_config_holds_the_policy", function()
  t.eq(manifest.config(job, given).data["model.config"], [[
model_config_list {
  config {
    name: "chnsenticorp"
    base_path: "/models/tensorflow"
    model_platform: "tensorflow"
    model_version_policy { specific { versions: 1623831335 } }
  }
}
]])
end)

t.test("every_policy_word_has_its_block_and_others_have_none", function()
  t.eq({ manifest.policy(nil), manifest.policy "latest:3", manifest.policy "all" },
    { "latest { num_versions: 1 }", "latest { num_versions: 3 }", "all { }" })
  for _, bad in ipairs { "specific", "specific:x", "newest", "all:2", "" } do t.eq((manifest.policy(bad)), nil) end
  t.eq({ manifest.asked_version "specific:7", manifest.asked_version "latest:7" }, { "7" })
end)

t.test("bookkeeping_lists_what_arena_must_delete_without_a_blank_line", function()
  local record = manifest.bookkeeping(job, given, { "ingress.networking.k8s.io/bert-tfserving" })
  t.eq(record.metadata.name, "bert-tfserving-202107141745-tf-serving")
  t.eq(record.metadata.labels.createdBy, "arena")
  t.eq(record.data.tfserving, "0.11.0")
  t.eq(record.data.app, "configmap/bert-tfserving-202107141745-tensorflow-serving-cm\n" ..
    "service/bert-tfserving-202107141745-tensorflow-serving\ndeployment.apps/bert-tfserving-202107141745-tensorflow-serving\n" ..
    "ingress.networking.k8s.io/bert-tfserving")
end)

t.test("flags_and_limits_must_not_contradict_each_other", function()
  t.eq(manifest.limits { gpus = 1, limits = { ["nvidia.com/gpu"] = 1 } }, { ["nvidia.com/gpu"] = 1 })
  local limits, problem = manifest.limits { gpus = 1, limits = { ["nvidia.com/gpu"] = 2 } }
  t.eq(limits, nil)
  t.match(problem, "limits say 2 of nvidia.com/gpu, the flag says 1")
end)

t.test("a_request_that_equals_its_limit_is_left_to_kubernetes", function()
  local copy = {}
  for key, value in pairs(given) do copy[key] = value end
  copy.requests = { ["nvidia.com/gpu"] = 1, cpu = "2" }
  t.eq(manifest.deployment(job, copy).spec.template.spec.containers[1].resources,
    { limits = { ["nvidia.com/gpu"] = 1 }, requests = { cpu = "2" } })
end)
