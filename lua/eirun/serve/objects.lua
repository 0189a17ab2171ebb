-- SPDX-License-Identifier: Apache-2.0
-- The objects of a serving job, with the names and labels by which arena lists, gets, scales, updates and deletes it. Pure.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local pod = require "eirun.serve.pod"
local resource = require "eirun.resource"
local warmup = require "eirun.serve.warmup"
local yaml = require "eirun.core.yaml"

local M = {}

local function with(map, more)
  local made = {}
  for key, value in pairs(map or {}) do made[key] = value end
  for key, value in pairs(more) do made[key] = value end
  return made
end

local function serving_labels(job)
  return { servingName = job.name, servingType = job.type.label, servingVersion = job.version }
end

local function selector_labels(job)
  return { app = job.type.chart, release = job.release }
end

local function labels(job, given)
  return with(with(with(given.labels, serving_labels(job)), selector_labels(job)), {
    chart = job.type.chart .. "-" .. job.type.chart_version, heritage = "Helm", modelName = given.model_name,
    modelVersion = given.model_version, ["arena.kubeflow.org/uid"] = crypto.hex(crypto.md5(given.user)) })
end

-- Configuration -----------------------------------------------------------------------------------------------------------

-- A file goes into the folder of its path; a path that ends with / is the folder itself.
local function place(from, path)
  local folder, name = path:match("^(.-)/+([^/]*)$")
  if name == "" then name = from:match("([^/]+)$") end
  return folder == "" and "/" or folder, name
end

local function data_entry(data, name, text)
  if utf8.len(text) and not text:find "[%z\1-\8]" then
    data.data = data.data or {}
    data.data[name] = text
  else
    data.binaryData = data.binaryData or {}
    data.binaryData[name] = crypto.base64(text)
  end
end

-- One ConfigMap a folder of the container, as arena makes them; `contents` holds what the local files hold.
local function file_maps(job, given, contents)
  local folders = {}
  for _, from in ipairs(resource.sorted_keys(given.config_files or {})) do
    local folder, name = place(from, given.config_files[from])
    folders[folder] = folders[folder] or {}
    data_entry(folders[folder], name, contents[from])
  end
  local list = {}
  for _, folder in ipairs(resource.sorted_keys(folders)) do
    local short = crypto.hex(crypto.md5(folder)):sub(1, 15)
    list[#list + 1] = { name = job.release .. "-" .. short, volume = short, folder = folder, data = folders[folder].data,
      binaryData = folders[folder].binaryData }
  end
  return list
end

-- The server's own files, and the warm-up request.
local function own_maps(job, given, parts)
  local list = {}
  if next(parts.files or {}) then
    list[1] = { name = job.fullname .. "-cm", volume = "model-config", folder = parts.directory, data = parts.files }
  end
  if given.warm_up and parts.predict then
    list[#list + 1] = { name = job.fullname .. "-warm-up", volume = "warm-up", folder = warmup.DIRECTORY,
      data = { [warmup.FILE] = given.warm_up } }
  end
  return list
end

local function config_map(job, map)
  return { apiVersion = "v1", kind = "ConfigMap", metadata = { name = map.name, namespace = job.namespace,
    labels = with(with(selector_labels(job), serving_labels(job)), {}) }, data = map.data, binaryData = map.binaryData }
end

-- Servers read their configuration at their start only: another one must be another pod.
local function digest(maps)
  local seen = {}
  for i, map in ipairs(maps) do seen[i] = { map.name, map.data or {}, map.binaryData or {} } end
  return crypto.hex(crypto.md5(json.encode(json.array(seen))))
end

-- Service, Deployment, disruption budget -------------------------------------------------------------------------------------

local function service(job, given, parts)
  local ports = json.array {}
  for _, entry in ipairs(parts.ports) do
    if entry.service then
      ports[#ports + 1] = { name = entry.service, port = entry.port, targetPort = entry.port, protocol = "TCP" }
    end
  end
  local select = given.istio and { app = job.type.chart, serviceName = job.name } or selector_labels(job)
  return { apiVersion = "v1", kind = "Service", metadata = { name = job.service, namespace = job.namespace, labels = labels(job, given) },
    spec = { type = "ClusterIP", selector = select, ports = ports } }
end

local function mount_maps(parts, maps)
  parts.volumes, parts.mounts = {}, {}
  for i, map in ipairs(maps) do
    parts.volumes[i] = { name = map.volume, configMap = { name = map.name } }
    parts.mounts[i] = { name = map.volume, mountPath = map.folder, readOnly = true }
  end
end

local function strategy(given)
  if not given.max_surge and not given.max_unavailable then return { type = "RollingUpdate" } end
  return { type = "RollingUpdate", rollingUpdate = { maxSurge = given.max_surge, maxUnavailable = given.max_unavailable } }
end

-- Replicas are left to the scale subresource.
local function deployment(job, given, parts, maps)
  local marks = with(given.annotations, { ["arena.kubeflow.org/username"] = given.user })
  local all = with(labels(job, given), { serviceName = job.name })
  local pod_marks = with(marks, { ["sidecar.istio.io/inject"] = given.istio and "true" or nil })
  if #maps > 0 then pod_marks["eirun.io/config"] = digest(maps) end
  return {
    apiVersion = "apps/v1", kind = "Deployment",
    metadata = { name = job.fullname, namespace = job.namespace, labels = with(all, {}),
      annotations = with(marks, { ["helm.sh/created"] = given.created }) },
    spec = {
      strategy = strategy(given), selector = { matchLabels = selector_labels(job) },
      template = { metadata = { labels = all, annotations = pod_marks },
        spec = pod.spec(given, parts, job.type.container, selector_labels(job)) },
    },
  }
end

-- A drain of many nodes, as when a zone loses its spot instances, leaves the others at work.
local function budget(job, given)
  if given.disruption_budget == false then return nil end
  return { apiVersion = "policy/v1", kind = "PodDisruptionBudget",
    metadata = { name = job.fullname, namespace = job.namespace, labels = with(selector_labels(job), serving_labels(job)) },
    spec = { maxUnavailable = given.disruption_budget, selector = { matchLabels = selector_labels(job) } } }
end

-- Istio -------------------------------------------------------------------------------------------------------------------

local ISTIO = "networking.istio.io/v1alpha3"

local function istio_object(job, kind, name, body)
  return { apiVersion = ISTIO, kind = kind, metadata = { name = name, namespace = job.namespace }, spec = body }
end

local function istio(job, given)
  local subset, gateway = "subset-" .. job.version, job.name .. "-gateway"
  local route = { destination = { host = job.name, subset = subset } }
  local list = {
    istio_object(job, "VirtualService", job.name, { hosts = json.array { given.expose and "*" or job.name },
      gateways = given.expose and json.array { gateway } or nil, http = json.array { { route = json.array { route } } } }),
    istio_object(job, "DestinationRule", job.name, { host = job.name,
      subsets = json.array { { name = subset, labels = { servingVersion = job.version } } } }),
  }
  if given.expose then
    list[3] = istio_object(job, "Gateway", gateway, { selector = { istio = "ingressgateway" }, servers = json.array { {
      port = { number = given.rest_port, name = "http", protocol = "HTTP" }, hosts = json.array { "*" } } } })
  end
  return list
end

-- All -------------------------------------------------------------------------------------------------------------------------

---How kubectl names an object, and arena's books with it: `deployment.apps/web`.
---@param manifest table
---@return string
function M.line(manifest)
  local group = manifest.apiVersion:match("^(.+)/")
  return manifest.kind:lower() .. (group and "." .. group or "") .. "/" .. manifest.metadata.name
end

---The job's objects in the order in which they are made, without its books.
---@param job eirun.Job
---@param given table checked options with their defaults
---@param parts eirun.ServingPod what the type of server adds; gets its volumes
---@param contents table<string, string> of the local files that config_files names
---@return table[]
function M.all(job, given, parts, contents)
  local maps = file_maps(job, given, contents)
  table.move(own_maps(job, given, parts), 1, 2, #maps + 1, maps)
  mount_maps(parts, maps)
  local list = {}
  for i, map in ipairs(maps) do list[i] = config_map(job, map) end
  if not given.shared_service then list[#list + 1] = service(job, given, parts) end
  list[#list + 1] = deployment(job, given, parts, maps)
  list[#list + 1] = budget(job, given)
  if given.istio and not given.shared_service then
    for _, object in ipairs(istio(job, given)) do list[#list + 1] = object end
  end
  return list
end

-- What no flag has said stays out of the books.
local function flags_of(given)
  local flags = {}
  for key, value in pairs(given) do flags[key] = value end
  for _, key in ipairs { "created", "timeout", "adopt", "shared_service", "replicas" } do flags[key] = nil end
  return flags
end

---What arena needs to delete the job: one object a line in `app`, without a blank line and without a last newline. `values` holds
---the options, so that `eirun serve update` can change one of them.
---@param job eirun.Job
---@param given table
---@param lines string[] of all objects that belong to the job
---@return table
function M.books(job, given, lines)
  return {
    apiVersion = "v1", kind = "ConfigMap",
    metadata = { name = job.books, namespace = job.namespace, labels = with(serving_labels(job), { createdBy = "arena" }) },
    data = { [job.type.folder] = job.type.chart_version, app = table.concat(lines, "\n"), values = yaml.encode(flags_of(given)) },
  }
end

return M
