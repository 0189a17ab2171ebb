-- SPDX-License-Identifier: Apache-2.0
-- The pod of a serving job: what arena writes for its flags, plus probes, spreading, a drain and requests. Pure.
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local warmup = require "eirun.serve.warmup"
local words = require "eirun.serve.words"

local M = {}

local TERMINATION = 30 -- seconds that a server has for what it still works on, after the drain
M.SPOT_TAINT = "eirun.io/spot"

---@class eirun.ServingPod what a type of server adds to the pod
---@field command string the server's command line
---@field ports {name: string, port: integer, service?: string, protocol?: string}[] service: its name in the Service
---@field health? string path that answers 200 once the server serves
---@field live? string path that answers 200 while it is alive; else its port is tried
---@field live_port? integer
---@field probes? table<string, table> Kubernetes probes that win: startup, readiness, liveness
---@field predict? string path of a prediction: the warm-up request goes there
---@field mounts table[] of its configuration
---@field volumes table[]

local function pairs_sorted(map)
  local keys, i = resource.sorted_keys(map or {}), 0
  return function()
    i = i + 1
    return keys[i], keys[i] ~= nil and map[keys[i]] or nil
  end
end

-- Environment -----------------------------------------------------------------------------------------------------------

local downward = { { "ARENA_NODE_NAME", "spec.nodeName" }, { "ARENA_POD_NAMESPACE", "metadata.namespace" },
  { "ARENA_POD_NAME", "metadata.name" }, { "ARENA_POD_IP", "status.podIP" } }

local gpu_resources = { "nvidia.com/gpu", "aliyun.com/gpu", "aliyun.com/gpu-mem", "aliyun.com/gpu-core.percentage" }

local function has_gpu(limits)
  for _, name in ipairs(gpu_resources) do if limits[name] then return true end end
  return false
end

-- Without a GPU asked for, a CUDA image would see all GPUs of its host.
local function environment(given, limits)
  local env = {}
  for key, value in pairs(given.env or {}) do env[key] = tostring(value) end
  if not has_gpu(limits) then env.NVIDIA_VISIBLE_DEVICES = env.NVIDIA_VISIBLE_DEVICES or "void" end
  local list = json.array {}
  for name, value in pairs_sorted(env) do list[#list + 1] = { name = name, value = value } end
  for name, from in pairs_sorted(given.env_from_secret) do
    list[#list + 1] = { name = name, valueFrom = { secretKeyRef = { name = from, key = name } } }
  end
  for _, row in ipairs(downward) do list[#list + 1] = { name = row[1], valueFrom = { fieldRef = { fieldPath = row[2] } } } end
  return list
end

-- Resources ---------------------------------------------------------------------------------------------------------------

---The limits that the flags and `limits` make together; nil and a reason when they differ.
---@param given table
---@return table|nil
---@return string|nil problem
function M.limits(given)
  local limits = {}
  for key, value in pairs(given.limits or {}) do limits[key] = value end
  local flags = { ["nvidia.com/gpu"] = given.gpus, ["aliyun.com/gpu-mem"] = given.gpu_memory,
    ["aliyun.com/gpu-core.percentage"] = given.gpu_core, cpu = given.cpu, memory = given.memory }
  for key, value in pairs(given.devices or {}) do flags[key] = value end
  for key, value in pairs_sorted(flags) do
    if limits[key] ~= nil and tostring(limits[key]) ~= tostring(value) then
      return nil, ("limits say %s of %s, the flag says %s"):format(limits[key], key, value)
    end
    if value ~= 0 then limits[key] = value end
  end
  return limits
end

-- A requests entry that equals its limit says what Kubernetes fills in anyway, and would break `arena serve update --gpus`.
local function resources(given, limits)
  local requests = {}
  for key, value in pairs(given.requests or {}) do
    if tostring(limits[key]) ~= tostring(value) then requests[key] = value end
  end
  return { limits = next(limits) and limits or nil, requests = next(requests) and requests or nil }
end

-- Volumes -----------------------------------------------------------------------------------------------------------------

local function add_mount(pod, name, path, source, subpath)
  source.name = name
  pod.volumes[#pod.volumes + 1] = source
  pod.mounts[#pod.mounts + 1] = { name = name, mountPath = path, subPathExpr = subpath }
end

local function volumes(given, parts)
  local pod = { volumes = json.array {}, mounts = json.array {} }
  if given.share_memory then
    add_mount(pod, "dshm", "/dev/shm", { emptyDir = { medium = "Memory", sizeLimit = given.share_memory } })
  end
  for claim, path in pairs_sorted(given.data) do
    add_mount(pod, claim, path, { persistentVolumeClaim = { claimName = claim } }, (given.data_subpath or {})[claim])
  end
  for name, path in pairs_sorted(given.temp_dirs) do
    add_mount(pod, name, path, { emptyDir = json.decode "{}" }, (given.temp_subpath or {})[name])
  end
  local number = 0
  for from, path in pairs_sorted(given.data_dirs) do
    number = number + 1
    add_mount(pod, "host-" .. number, path, { hostPath = { path = from } })
  end
  for i, volume in ipairs(parts.volumes) do
    pod.volumes[#pod.volumes + 1], pod.mounts[#pod.mounts + 1] = volume, parts.mounts[i]
  end
  return pod.volumes, pod.mounts
end

-- Probes ------------------------------------------------------------------------------------------------------------------

local PERIOD = 5

local function action(parts, path)
  if path then return { httpGet = { path = path, port = parts.rest_port } } end
  return { tcpSocket = { port = parts.live_port } }
end

local function probe(made, more)
  for key, value in pairs(more) do made[key] = value end
  return made
end

-- A model may take long to load: the liveness probe begins when this one has seen the server serve.
local function startup(given, parts)
  local made = given.warm_up and parts.predict and warmup.probe(parts.rest_port, parts.predict) or action(parts, parts.health)
  return probe(made, { periodSeconds = PERIOD, failureThreshold = math.max(1, (given.load_timeout + PERIOD - 1) // PERIOD) })
end

local function probes(given, parts)
  local own = parts.probes or {}
  return {
    startup = own.startup or startup(given, parts),
    readiness = own.readiness or probe(action(parts, parts.health), { periodSeconds = PERIOD }),
    liveness = own.liveness or probe(action(parts, parts.live), { initialDelaySeconds = 30, periodSeconds = PERIOD,
      failureThreshold = 30 }),
  }
end

-- Placement -----------------------------------------------------------------------------------------------------------------

local topology = { zone = "topology.kubernetes.io/zone", node = "kubernetes.io/hostname" }

-- Zones lose their spot instances together, so replicas are spread over them where there is a choice.
local function spread(given, selector)
  local key = topology[given.spread or "zone"]
  if not key then return nil end
  return json.array { { maxSkew = 1, topologyKey = key, whenUnsatisfiable = "ScheduleAnyway", labelSelector = { matchLabels = selector } } }
end

local function tolerations(given)
  local list = words.tolerations(given.tolerations)
  if given.spot then list[#list + 1] = { key = M.SPOT_TAINT, operator = "Exists" } end
  return #list > 0 and json.array(list) or nil
end

local function pull_secrets(given)
  local list = {}
  for i, name in ipairs(given.image_pull_secrets or {}) do list[i] = { name = name } end
  return #list > 0 and json.array(list) or nil
end

-- Whoever still has the address of a pod that ends finds it at work while the news travels. Kubernetes' own `sleep` would do without
-- a program, but arena writes back Deployments by types that do not know it, and the API server refuses what is left.
local function lifecycle(given)
  if given.drain == 0 then return nil end
  return { preStop = { exec = { command = json.array { "sleep", tostring(given.drain) } } } }
end

local function ports(parts)
  local list = json.array {}
  for i, entry in ipairs(parts.ports) do list[i] = { name = entry.name, containerPort = entry.port, protocol = "TCP" } end
  return list
end

local function container(given, parts, name, limits, mounts)
  local looks = probes(given, parts)
  local command, args
  if given.command then
    command = json.array { given.shell or "sh", "-c", given.command }
  elseif parts.command then
    command, args = json.array { given.shell or "sh", "-c" }, json.array { parts.command .. "\n" }
  end
  return {
    name = name, image = given.image, imagePullPolicy = given.image_pull_policy or "IfNotPresent", command = command, args = args,
    env = environment(given, limits), ports = ports(parts), startupProbe = looks.startup, readinessProbe = looks.readiness,
    livenessProbe = looks.liveness, resources = resources(given, limits), volumeMounts = mounts, lifecycle = lifecycle(given),
  }
end

---The pod's spec.
---@param given table checked options with their defaults
---@param parts eirun.ServingPod
---@param name string of the container
---@param selector table<string, string> labels that the job's pods are known by
---@return table
function M.spec(given, parts, name, selector)
  local limits = M.limits(given)
  local list, mounts = volumes(given, parts)
  local nodes = words.selector(given.selector)
  return {
    nodeSelector = next(nodes) and nodes or nil, containers = json.array { container(given, parts, name, limits, mounts) },
    volumes = list, tolerations = tolerations(given), schedulerName = given.scheduler, imagePullSecrets = pull_secrets(given),
    topologySpreadConstraints = spread(given, selector), terminationGracePeriodSeconds = given.drain + TERMINATION,
  }
end

return M
