-- SPDX-License-Identifier: Apache-2.0
-- Serving jobs that are there, whoever made them: found by arena's labels, deleted by arena's books.
local books = require "eirun.serve.books"
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local resource = require "eirun.resource"
local types = require "eirun.serve.types"
local yaml = require "eirun.core.yaml"

local M = {}

local function key_of(object)
  local labels = object.metadata.labels or {}
  return table.concat({ object.metadata.namespace or "", labels.servingType or "", labels.servingName or "", labels.servingVersion or "" },
    "\0")
end

local function grouped(list)
  local groups = {}
  for _, object in ipairs(list) do
    local key = key_of(object)
    groups[key] = groups[key] or {}
    table.insert(groups[key], object)
  end
  return groups
end

local function job_of(deployment, type, pods, services)
  local labels, status = deployment.metadata.labels, deployment.status or {}
  local key = key_of(deployment)
  local name, version = labels.servingName or deployment.metadata.name, labels.servingVersion or ""
  return { name = name, version = version, type = type, namespace = deployment.metadata.namespace, deployment = deployment,
    pods = pods[key] or {}, services = services[key] or {}, desired = status.replicas or 0, available = status.availableReplicas or 0,
    books = ("%s-%s-%s"):format(name, version, type.label) }
end

local function type_named(word)
  local type, known = types.of_word(word)
  if type then return type end
  errors.raise("invalid", ("'%s' is no type of serving job; there are %s"):format(word, known), { code = "usage" })
end

local function by_place(a, b)
  for _, field in ipairs { "namespace", "name", "version" } do
    if a[field] ~= b[field] then return a[field] < b[field] end
  end
  return a.type.label < b.type.label
end

local function read(k8s, selector, opts)
  local query = { labels = selector, all = opts.all }
  local deployments = k8s:list("Deployment", query)
  if #deployments == 0 then return {} end
  local pods, services = grouped(k8s:list("Pod", query)), grouped(k8s:list("Service", query))
  local list = {}
  for _, deployment in ipairs(deployments) do
    local type = types.of_label((deployment.metadata.labels or {}).servingType)
    if type then list[#list + 1] = job_of(deployment, type, pods, services) end
  end
  table.sort(list, by_place)
  return list
end

---All serving jobs of the namespace, or of all.
---@param k8s eirun.KubeClient
---@param opts? {all?: boolean, type?: string}
---@return eirun.ServingJob[] by namespace, name and version
function M.list(k8s, opts)
  opts = opts or {}
  return read(k8s, "servingType" .. (opts.type and "=" .. type_named(opts.type).label or ""), opts)
end

local function several(name, list)
  local lines = {}
  for i, job in ipairs(list) do lines[i] = ("%s %s %s"):format(job.name, job.type.title, job.version) end
  errors.raise("conflict", ("there are %d jobs '%s': %s"):format(#list, name, table.concat(lines, ", ")),
    { hint = "say which by --version, and --type where the types differ" })
end

---The one job of that name.
---@param k8s eirun.KubeClient
---@param name string
---@param opts? {version?: string, type?: string}
---@return eirun.ServingJob
function M.find(k8s, name, opts)
  opts = opts or {}
  local selector = "servingType" .. (opts.type and "=" .. type_named(opts.type).label or "") .. ",servingName=" .. name
  if opts.version then selector = selector .. ",servingVersion=" .. opts.version end
  local list = read(k8s, selector, {})
  if #list > 1 then several(name, list) end
  return list[1] or errors.raise("not_found", ("there is no serving job '%s'%s in namespace %s"):format(name,
    opts.version and " of version " .. opts.version or "", k8s.ns), { hint = "`eirun serve list -A` shows all" })
end

---The options that a job was made with; nil for one that eirun did not make.
---@param k8s eirun.KubeClient
---@param job eirun.ServingJob
---@return table|nil
function M.options(k8s, job)
  local _, live = books.read(k8s:namespace(job.namespace), job.books)
  if not live or (live.metadata.labels or {})[ensure.OWNER_LABEL] ~= ensure.OWNER then return nil end
  return errors.check(yaml.decode(live.data.values or ""))
end

-- A job without books, as arena leaves one behind, is still its Deployment and its Services.
local function own_lines(job)
  local lines = { "deployment.apps/" .. job.deployment.metadata.name }
  for _, service in ipairs(job.services) do lines[#lines + 1] = "service/" .. service.metadata.name end
  return lines
end

-- What was added last goes first: the autoscaler and the Ingress before what they point to.
local function in_order(lines)
  local list = {}
  for i = #lines, 1, -1 do list[#list + 1] = lines[i] end
  return list
end

local function delete_line(k8s, line, seconds)
  local kind, name = books.object_of(line)
  if not kind then
    errors.raise("invalid", ("cannot delete '%s': eirun does not know its kind"):format(line),
      { hint = ("delete it with kubectl, `kubectl delete %s -n %s`, then run this again"):format(line, k8s.ns) })
  end
  return k8s:delete(kind, name, { wait = seconds })
end

---Deletes what stands in a job's books, then the books. NotFound is fine.
---@param k8s eirun.KubeClient
---@param job eirun.ServingJob
---@param opts {dry_run?: boolean, wait?: number}
---@return string[] lines
function M.delete(k8s, job, opts)
  k8s = k8s:namespace(job.namespace)
  local lines, live = books.read(k8s, job.books)
  lines = in_order(#lines > 0 and lines or own_lines(job))
  if not opts.dry_run then
    for _, line in ipairs(lines) do delete_line(k8s, line, opts.wait or 120) end
    if live then k8s:delete("ConfigMap", job.books, { uid = live.metadata.uid }) end
  end
  if live then lines[#lines + 1] = "configmap/" .. job.books end
  return lines
end

local function autoscaler_of(k8s, job)
  for _, hpa in ipairs(k8s:list "HorizontalPodAutoscaler") do
    local ref = (hpa.spec or {}).scaleTargetRef or {}
    if ref.kind == "Deployment" and ref.name == job.deployment.metadata.name then return hpa.metadata.name end
  end
end

---Refuses to set replicas that are an autoscaler's.
---@param k8s eirun.KubeClient
---@param job eirun.ServingJob
function M.check_scalable(k8s, job)
  local hpa = autoscaler_of(k8s:namespace(job.namespace), job)
  if hpa then
    errors.raise("conflict", ("the replicas of '%s' belong to HorizontalPodAutoscaler '%s'"):format(job.name, hpa),
      { object = hpa, hint = "change its limits instead, or delete it first" })
  end
end

---Sets a job's replicas.
---@param k8s eirun.KubeClient
---@param job eirun.ServingJob
---@param replicas integer
---@return eirun.ServingJob
function M.scale(k8s, job, replicas)
  M.check_scalable(k8s, job)
  k8s = k8s:namespace(job.namespace)
  local name = job.deployment.metadata.name
  resource.ensure {
    kind = "scale of Deployment", name = name, observe = function() return { replicas = job.deployment.spec.replicas } end,
    compare = function(observed) return resource.differences(observed, { replicas = replicas }) end,
    act = function() return k8s:patch("Deployment", name, { spec = { replicas = replicas } }, { subresource = "scale" }) end,
  }
  return M.find(k8s, job.name, { version = job.version, type = job.type.label })
end

return M
