-- SPDX-License-Identifier: Apache-2.0
-- What `arena serve tensorflow` makes, object by object, plus what it lost: the version policy, and a readiness probe.
-- Pure. Arena lists, gets, updates and deletes a job by the names and labels written here.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local resource = require "eirun.resource"

local M = {}

local CHART = "0.11.0"
local CONFIG_DIRECTORY = "/etc/tfserving"

---@class eirun.Job
---@field name string
---@field version string the job's, not the model's
---@field release string
---@field fullname string
---@field namespace string

---Names of a job, as arena builds them.
---@param name string
---@param version string
---@param namespace string
---@return eirun.Job
function M.names(name, version, namespace)
  local release = name .. "-" .. version
  return { name = name, version = version, namespace = namespace, release = release, fullname = release .. "-tensorflow-serving" }
end

local function copy(map)
  local made = {}
  for key, value in pairs(map or {}) do made[key] = value end
  return made
end

local function with(map, more)
  local made = copy(map)
  for key, value in pairs(more) do made[key] = value end
  return made
end

local function labels(job, given)
  local made = copy(given.labels)
  made.app, made.chart, made.heritage, made.release = "tensorflow-serving", "tensorflow-serving-" .. CHART, "Helm", job.release
  made.servingName, made.servingType, made.servingVersion = job.name, "tf-serving", job.version
  made.modelName, made["arena.kubeflow.org/uid"] = given.model_name, crypto.hex(crypto.md5(given.user))
  return made
end

local function selector_labels(job)
  return { app = "tensorflow-serving", release = job.release }
end

-- Version policy -------------------------------------------------------------------------------------------------------

---The policy as a block of the model server's configuration; nil and a reason when it is none.
---@param policy string|nil `latest`, `latest:N`, `all`, `specific:N`
---@return string|nil block
---@return string|nil problem
function M.policy(policy)
  policy = policy or "latest"
  local word, number = policy:match("^(%a+):?(%d*)$")
  if word == "latest" then return ("latest { num_versions: %s }"):format(number ~= "" and number or "1") end
  if word == "all" and number == "" then return "all { }" end
  if word == "specific" and number ~= "" then return ("specific { versions: %s }"):format(number) end
  return nil, "must be latest, latest:N, all or specific:N"
end

---The version that must answer before the job is ready; nil when any will do.
---@param policy string|nil
---@return string|nil
function M.asked_version(policy)
  return (policy or ""):match("^specific:(%d+)$")
end

local function model_config(given)
  return table.concat({
    "model_config_list {", "  config {", ("    name: %q"):format(given.model_name), ("    base_path: %q"):format(given.model_path),
    "    model_platform: \"tensorflow\"", ("    model_version_policy { %s }"):format(M.policy(given.version_policy)), "  }", "}", "",
  }, "\n")
end

local function config_map_name(job)
  return job.fullname .. "-cm"
end

---The model server's configuration file.
---@param job eirun.Job
---@param given table
---@return table
function M.config(job, given)
  return {
    apiVersion = "v1", kind = "ConfigMap",
    metadata = { name = config_map_name(job), namespace = job.namespace, labels = with(selector_labels(job), {
      servingName = job.name, servingType = "tf-serving", servingVersion = job.version }) },
    data = { ["model.config"] = model_config(given) },
  }
end

-- Service and Deployment ------------------------------------------------------------------------------------------------

---The Service.
---@param job eirun.Job
---@param given table
---@return table
function M.service(job, given)
  return {
    apiVersion = "v1", kind = "Service", metadata = { name = job.fullname, namespace = job.namespace, labels = labels(job, given) },
    spec = {
      type = "ClusterIP", selector = selector_labels(job),
      ports = json.array {
        { name = "grpc-serving", port = given.port, targetPort = given.port, protocol = "TCP" },
        { name = "http-serving", port = given.rest_port, targetPort = given.rest_port, protocol = "TCP" },
      },
    },
  }
end

local downward = { { "ARENA_NODE_NAME", "spec.nodeName" }, { "ARENA_POD_NAMESPACE", "metadata.namespace" },
  { "ARENA_POD_NAME", "metadata.name" }, { "ARENA_POD_IP", "status.podIP" } }

-- Without a GPU asked for, a CUDA image would see all GPUs of its host.
local function environment(given, limits)
  local env = copy(given.env)
  local has_gpu = limits["nvidia.com/gpu"] or limits["aliyun.com/gpu-mem"] or limits["aliyun.com/gpu-core.percentage"]
  if not has_gpu then env.NVIDIA_VISIBLE_DEVICES = env.NVIDIA_VISIBLE_DEVICES or "void" end
  local list = json.array {}
  for _, name in ipairs(resource.sorted_keys(env)) do list[#list + 1] = { name = name, value = tostring(env[name]) } end
  for _, row in ipairs(downward) do
    list[#list + 1] = { name = row[1], valueFrom = { fieldRef = { fieldPath = row[2] } } }
  end
  return list
end

-- A requests entry that equals its limit says what Kubernetes fills in anyway, and would break `arena serve update --gpus`.
local function resources(given, limits)
  local requests = {}
  for key, value in pairs(given.requests or {}) do if limits[key] == nil then requests[key] = value end end
  return { limits = next(limits) and limits or nil, requests = next(requests) and requests or nil }
end

local function server_command(given)
  return ("/usr/bin/tensorflow_model_server --port=%d --rest_api_port=%d --model_config_file=%s/model.config\n"):format(given.port,
    given.rest_port, CONFIG_DIRECTORY)
end

local function volumes(job, given)
  local list, mounts = json.array {}, json.array {}
  for _, claim in ipairs(resource.sorted_keys(given.data)) do
    list[#list + 1] = { name = claim, persistentVolumeClaim = { claimName = claim } }
    mounts[#mounts + 1] = { name = claim, mountPath = given.data[claim] }
  end
  list[#list + 1] = { name = "model-config", configMap = { name = config_map_name(job) } }
  mounts[#mounts + 1] = { name = "model-config", mountPath = CONFIG_DIRECTORY, readOnly = true }
  return list, mounts
end

local function container(given, limits, mounts)
  return {
    name = "serving", image = given.image, imagePullPolicy = given.image_pull_policy or "IfNotPresent",
    command = json.array { "sh", "-c" }, args = json.array { server_command(given) }, env = environment(given, limits),
    ports = json.array {
      { name = "serving", containerPort = given.port, protocol = "TCP" },
      { name = "http-serving", containerPort = given.rest_port, protocol = "TCP" },
    },
    -- The server opens its ports after the first load, so a load slower than this budget would be killed again and again.
    livenessProbe = { tcpSocket = { port = given.port }, initialDelaySeconds = 30, periodSeconds = 5,
      failureThreshold = math.max(30, given.load_timeout // 5) },
    readinessProbe = { httpGet = { path = "/v1/models/" .. given.model_name, port = given.rest_port }, periodSeconds = 5 },
    resources = resources(given, limits), volumeMounts = mounts,
  }
end

local function pod_spec(job, given, limits)
  local list, mounts = volumes(job, given)
  return {
    nodeSelector = next(given.selector or {}) and given.selector or nil, containers = json.array { container(given, limits, mounts) },
    volumes = list, tolerations = given.tolerations and json.array(given.tolerations), schedulerName = given.scheduler,
  }
end

---The Deployment. Its replicas are left to the scale subresource.
---@param job eirun.Job
---@param given table
---@return table
function M.deployment(job, given)
  local marks = with(given.annotations, { ["arena.kubeflow.org/username"] = given.user })
  local all = with(labels(job, given), { serviceName = job.name })
  -- The server reads its configuration at its start only: another one must be another pod.
  local pod_marks = with(marks, { ["eirun.io/model-config"] = crypto.hex(crypto.md5(model_config(given))) })
  return {
    apiVersion = "apps/v1", kind = "Deployment",
    metadata = { name = job.fullname, namespace = job.namespace, labels = copy(all),
      annotations = with(marks, { ["helm.sh/created"] = given.created }) },
    spec = {
      strategy = { type = "RollingUpdate" }, selector = { matchLabels = selector_labels(job) },
      template = { metadata = { labels = all, annotations = pod_marks }, spec = pod_spec(job, given, M.limits(given)) },
    },
  }
end

---The limits that --gpus, --gpumemory, --gpucore, --cpu, --memory and --limits make together; nil and a reason when they differ.
---@param given table
---@return table|nil
---@return string|nil problem
function M.limits(given)
  local limits = copy(given.limits)
  local flags = { ["nvidia.com/gpu"] = given.gpus, ["aliyun.com/gpu-mem"] = given.gpu_memory,
    ["aliyun.com/gpu-core.percentage"] = given.gpu_core, cpu = given.cpu, memory = given.memory }
  for _, key in ipairs(resource.sorted_keys(flags)) do
    local value = flags[key]
    if limits[key] ~= nil and tostring(limits[key]) ~= tostring(value) then
      return nil, ("limits say %s of %s, the flag says %s"):format(limits[key], key, value)
    end
    if value ~= 0 then limits[key] = value end
  end
  return limits
end

---The name of the ConfigMap that arena keeps a job's books in.
---@param job eirun.Job
---@return string
function M.bookkeeping_name(job)
  return job.release .. "-tf-serving"
end

---The job's own objects, as kubectl names them.
---@param job eirun.Job
---@return string[]
function M.own_lines(job)
  return { "configmap/" .. config_map_name(job), "service/" .. job.fullname, "deployment.apps/" .. job.fullname }
end

local function values_of(job, given)
  local lines = {}
  for _, row in ipairs {
    { "image", given.image }, { "modelName", given.model_name }, { "modelPath", given.model_path }, { "port", given.port },
    { "restApiPort", given.rest_port }, { "servingName", job.name }, { "versionPolicy", given.version_policy or "latest" },
  } do lines[#lines + 1] = row[1] .. ": " .. row[2] end
  lines[#lines + 1] = ("servingVersion: %q"):format(job.version)
  return table.concat(lines, "\n") .. "\n"
end

---What arena needs to delete the job: one object a line in `app`, without a blank line and without a last newline.
---@param job eirun.Job
---@param given table
---@param extra? string[] further objects that belong to the job, `ingress.networking.k8s.io/bert`
---@return table
function M.bookkeeping(job, given, extra)
  local lines = M.own_lines(job)
  table.move(extra or {}, 1, #(extra or {}), #lines + 1, lines)
  return {
    apiVersion = "v1", kind = "ConfigMap",
    metadata = { name = M.bookkeeping_name(job), namespace = job.namespace, labels = { createdBy = "arena",
      servingName = job.name, servingType = "tf-serving", servingVersion = job.version } },
    data = { tfserving = CHART, app = table.concat(lines, "\n"), values = values_of(job, given) },
  }
end

return M
