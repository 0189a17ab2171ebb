-- SPDX-License-Identifier: Apache-2.0
-- Inference jobs as arena makes them, found again on the next run, ready only when the model answers.
local app = require "eirun.serve.app"
local books = require "eirun.serve.books"
local custom = require "eirun.serve.custom"
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local jobs = require "eirun.serve.jobs"
local json = require "eirun.core.json"
local objects = require "eirun.serve.objects"
local pod = require "eirun.serve.pod"
local resource = require "eirun.resource"
local rules = require "eirun.serve.rules"
local spec = require "eirun.spec"
local task = require "eirun.task"
local tensorflow = require "eirun.serve.tensorflow"
local triton = require "eirun.serve.triton"
local types = require "eirun.serve.types"
local wait = require "eirun.kube.wait"
local wire = require "eirun.wire"

local M = { App = app.App }

---@class eirun.ServingJob
---@field name string
---@field version string
---@field type table of the job: `title` as arena shows it, `label` of its objects
---@field namespace string
---@field deployment table
---@field pods table[]
---@field services table[]
---@field desired integer replicas there are, ready or not
---@field available integer
---@field books string name of the ConfigMap with its books

-- Options ----------------------------------------------------------------------------------------------------------------

local defaults = { load_timeout = 600, drain = 15, disruption_budget = "25%" }

local function check(server, given)
  spec.check(server.call, given, server.rules)
  local limits, problem = pod.limits(given)
  problem = problem or server.check(given)
  if problem then spec.fail(server.call, problem) end
  rules.check_together(server.call, given, limits)
end

local function complete(server, given)
  local full = {}
  for _, source in ipairs { defaults, server.defaults, given } do
    for key, value in pairs(source) do full[key] = value end
  end
  full.image = server.image and server.image(full) or full.image
  return server.complete and server.complete(full) or full
end

local function contents_of(given)
  local contents = {}
  for path in pairs(given.config_files or {}) do contents[path] = errors.check(fs.read(path)) end
  return contents
end

-- Names no longer than they may be, the label of the Ingress log's route among them: an autoscaler on requests will want it.
local function check_lengths(job, given)
  local route = ("%s-%s-%d"):format(job.namespace, job.service, given.rest_port or given.port)
  for what, name in pairs { name = job.fullname, ["label of the Ingress log (namespace-service-port)"] = route } do
    if #name > 63 then
      errors.raise("invalid", ("'%s' has %d characters, more than the 63 that a %s may have"):format(name, #name, what),
        { hint = ("choose a name of at most %d characters"):format(63 - #name + #job.name) })
    end
  end
end

-- Finding the job again ------------------------------------------------------------------------------------------------

-- The newest version among objects of ours; nil when there are none.
local function newest_version(k8s, kind, type, name)
  local versions = {}
  local labels = { servingName = name, servingType = type.label, [ensure.OWNER_LABEL] = ensure.OWNER }
  for _, object in ipairs(k8s:list(kind, { labels = labels })) do versions[#versions + 1] = object.metadata.labels.servingVersion end
  table.sort(versions)
  return versions[#versions]
end

-- The argument, else the version of the job that eirun made before, else a stamp: so the second run finds the first one's job.
-- A run that was killed early has left its books and nothing else: that is the same job still.
local function version_of(k8s, type, given)
  return given.version or newest_version(k8s, "Deployment", type, given.name) or newest_version(k8s, "ConfigMap", type, given.name)
    or wire.stamp(task.now())
end

-- Who holds this kubeconfig, as arena will name him: in a namespace that isolates users it finds only what bears his mark.
local function whoami(k8s)
  local api = "authentication.k8s.io/v1"
  local ok, review = pcall(k8s.call, k8s, { method = "POST", path = "/apis/" .. api .. "/selfsubjectreviews", verb = "create",
    object = "SelfSubjectReview", body = json.encode { apiVersion = api, kind = "SelfSubjectReview" } })
  if not ok and not errors.is(review, "not_found") and not errors.is(review, "denied") then error(review, 0) end
  return ok and review.status.userInfo.username or "eirun"
end

-- What was true of the job's birth stays: when, and by whom.
local function with_birth(k8s, job, given)
  local old = k8s:get("Deployment", job.fullname)
  local marks = old and old.metadata.annotations or {}
  given.user = given.user or marks["arena.kubeflow.org/username"] or whoami(k8s)
  given.created = marks["helm.sh/created"] or ("%d"):format(task.now() // 1)
end

-- Behind Istio all versions of a job share one Service, which the first of them makes.
local function settle_service(k8s, job, given)
  if not given.istio then return end
  job.service = job.name
  local shared = k8s:get("Service", job.name)
  local labels = shared and shared.metadata.labels or {}
  given.shared_service = shared ~= nil and labels.servingVersion ~= job.version
end

-- Replicas and readiness ------------------------------------------------------------------------------------------------

local function is_scaled(k8s, job)
  for _, hpa in ipairs(k8s:list "HorizontalPodAutoscaler") do
    local ref = (hpa.spec or {}).scaleTargetRef or {}
    if ref.kind == "Deployment" and ref.name == job.fullname then return true end
  end
  return false
end

-- Replicas go through the scale subresource and never through apply: a field that was applied once and is left out later would
-- fall back to 1 under the autoscaler that has taken it over. Once there is one, also somebody else's, they are its alone.
local function ensure_replicas(k8s, job, wanted)
  if not wanted or is_scaled(k8s, job) then return end
  resource.ensure {
    kind = "scale of Deployment", name = job.fullname,
    observe = function() return { replicas = k8s:get("Deployment", job.fullname).spec.replicas } end,
    compare = function(observed) return resource.differences(observed, { replicas = wanted }) end,
    act = function() return k8s:patch("Deployment", job.fullname, { spec = { replicas = wanted } }, { subresource = "scale" }) end,
  }
end

-- The readiness probe answers 200 whatever version is loaded, so the model's own status is asked through the API server. Where
-- that way is closed (no right, no proxy), the probe has to do.
local function missing_model(k8s, deployment, server, given)
  local path = server.missing and server.paths(given).status
  if not path then return nil end
  local problem
  for _, each in ipairs(k8s:list("Pod", { labels = deployment.spec.selector.matchLabels })) do
    if wait.pod_is_ready(each) then
      local ok, status = pcall(k8s.raw, k8s, ("/api/v1/namespaces/%s/pods/%s:%d/proxy%s"):format(k8s.ns, each.metadata.name,
        given.rest_port, path))
      if not ok and errors.is(status, "cancelled") then error(status, 0) end
      problem = ok and server.missing(given, status)
      if not problem then return nil end
    end
  end
  return ("no pod serves %s: %s"):format(given.model_name, problem or "none is ready")
end

local function wait_ready(k8s, job, server, given)
  return wait.deployment(k8s, job.fullname, { timeout = given.timeout or 1200, ready = function(deployment)
    if (deployment.spec.replicas or 1) == 0 then return nil end
    return missing_model(k8s, deployment, server, given)
  end })
end

-- Making it so -----------------------------------------------------------------------------------------------------------

local function lines_of(manifests)
  local lines = {}
  for i, manifest in ipairs(manifests) do lines[i] = objects.line(manifest) end
  return lines
end

-- The books come first, so that whatever stops this run leaves nothing that `delete` does not find.
local function apply_all(k8s, job, given, manifests)
  local lines, dropped = books.merge(books.read(k8s, job.books), lines_of(manifests))
  local opts = { adopt = given.adopt }
  ensure.ensure(k8s, objects.books(job, given, lines), opts)
  for _, manifest in ipairs(manifests) do ensure.ensure(k8s, manifest, opts) end
  books.prune(k8s, dropped)
end

local function ensure_job(server, k8s, given)
  check(server, given)
  given = complete(server, given)
  local contents = contents_of(given)
  local job = types.names(server.type, given.name, version_of(k8s, server.type, given), k8s.ns)
  settle_service(k8s, job, given)
  check_lengths(job, given)
  with_birth(k8s, job, given)
  apply_all(k8s, job, given, objects.all(job, given, server.parts(given), contents))
  ensure_replicas(k8s, job, given.replicas)
  wait_ready(k8s, job, server, given)
  return app.new(k8s, server, job, given)
end

---Serves a SavedModel with TensorFlow Serving, as `arena serve tensorflow` does; every flag has its field.
---@param k8s eirun.KubeClient
---@param given table name, image, data = {claim = path}, model_name and model_path (or model_config_file), and any of
--- version (the job's), version_policy ("specific:N[,N]", "latest", "latest:N", "all"), version_labels = {stable = N}, model_version,
--- monitoring, monitoring_config_file, port (8500), rest_port (8501), istio, expose;
--- of what all jobs know: replicas, gpus, gpu_memory, gpu_core, devices, cpu, memory, limits, requests, share_memory, env,
--- env_from_secret = {NAME = secret}, data_subpath, data_dirs, temp_dirs, temp_subpath, config_files = {["local"] = "/in/container"},
--- selector (a map, or "k=v", "k:v"), tolerations (objects, or "all", "k=v:effect"), spot (tolerate eirun.io/spot), spread ("zone",
--- "node", "none"), disruption_budget ("25%", a number, false), drain (15 s), warm_up (a request's body), labels, annotations,
--- image_pull_policy, image_pull_secrets, shell, command, scheduler, user, adopt, timeout, load_timeout (600 s)
---@return eirun.App
---Example:
---```lua
---local app = serve.ensure_tensorflow(k8s, { name = "bert", model_name = "bert", model_path = "/models/bert", gpus = 1,
---  image = "tensorflow/serving:1.15.0-gpu", data = { ["model-pvc"] = "/models" }, version_policy = "specific:3" })
---```
---Raises "invalid" before any write for names and route labels over 63 characters, limits that contradict each other and unknown
---policies; early, quoting the event or the log, when the pods cannot become ready.
function M.ensure_tensorflow(k8s, given)
  return ensure_job(tensorflow, k8s, given)
end

---Serves a model repository with NVIDIA Triton, as `arena serve triton` does.
---@param k8s eirun.KubeClient
---@param given table name, model_repository, and any of image, backend ("vllm", "trt-llm"), load_models, metrics (true opens
--- metrics_port), extend_command, model_name, rest_port (8000), port (8001), metrics_port (8002), and what `ensure_tensorflow` says
--- of all jobs
---@return eirun.App
---Example:
---```lua
---local app = serve.ensure_triton(k8s, { name = "resnet", model_repository = "/models", model_name = "resnet", gpus = 1,
---  data = { ["model-pvc"] = "/models" } })
---```
---Raises as `ensure_tensorflow` does.
function M.ensure_triton(k8s, given)
  return ensure_job(triton, k8s, given)
end

---Serves with any image: vLLM, SGLang, TorchServe, text-generation-inference or a server of your own.
---@param k8s eirun.KubeClient
---@param given table name, image, and server ("vllm", "sglang", "tgi", "torchserve": its ports, paths and command) or rest_port or
--- port; any of model_name, model_path, command, health (path that answers 200 once it serves), live, predict, probes = {startup,
--- readiness, liveness as Kubernetes has them}, metrics_port, max_surge, max_unavailable, and what `ensure_tensorflow` says of all jobs
---@return eirun.App
---Example:
---```lua
---local app = serve.ensure_custom(k8s, { name = "qwen", server = "vllm", image = "vllm/vllm-openai:v0.6.3", gpus = 1,
---  model_path = "/models/qwen", model_name = "qwen", data = { ["model-pvc"] = "/models" }, share_memory = "2Gi" })
---```
---Raises as `ensure_tensorflow` does.
function M.ensure_custom(k8s, given)
  return ensure_job(custom, k8s, given)
end

local servers = { [tensorflow.type] = tensorflow, [triton.type] = triton, [custom.type] = custom }

---Changes options of a job that eirun made, and waits until it is ready again; what is not named stays.
---@param k8s eirun.KubeClient
---@param name string
---@param changes table options of its `ensure_` function
---@param opts? {version?: string, type?: string}
---@return eirun.App
---Example: `serve.update(k8s, "bert", { image = "tensorflow/serving:2.14.1-gpu" })`. Raises "not_found" for no such job, "invalid" for
---options that it does not know, "conflict" for a job that arena made and for replicas that are an autoscaler's.
function M.update(k8s, name, changes, opts)
  local job = jobs.find(k8s, name, opts)
  local server, given = servers[job.type], jobs.options(k8s, job)
  if not server or not given then
    errors.raise("conflict", ("job '%s' was not made by eirun: its options are not known"):format(name),
      { hint = "change it with `arena serve update`, or run the playbook that shall have it with adopt = true" })
  end
  if changes.replicas then jobs.check_scalable(k8s, job) end
  for key, value in pairs(changes) do given[key] = value end
  given.version = job.version
  return ensure_job(server, k8s:namespace(job.namespace), given)
end

---All serving jobs, arena's own too.
---@param k8s eirun.KubeClient
---@param opts? {all?: boolean, type?: string}
---@return eirun.ServingJob[]
---Example: `for _, job in ipairs(serve.list(k8s)) do print(job.name, job.available) end`. Raises "denied" without the right.
function M.list(k8s, opts)
  return jobs.list(k8s, opts)
end

---One serving job.
---@param k8s eirun.KubeClient
---@param name string
---@param opts? {version?: string, type?: string}
---@return eirun.ServingJob
---Example: `serve.get(k8s, "bert").pods[1].metadata.name`. Raises "not_found", and "conflict" when several versions have that name.
function M.get(k8s, name, opts)
  return jobs.find(k8s, name, opts)
end

---Deletes a job and all that stands in its books: its autoscaler and its Ingress too, its volume claims not.
---@param k8s eirun.KubeClient
---@param name string
---@param opts? {version?: string, type?: string, dry_run?: boolean, wait?: number seconds, default 120}
---@return string[] lines what was deleted, as kubectl names it
---Example: `serve.delete(k8s, "bert")`. Raises "not_found", "conflict" for several versions, and what deleting raises: the books stay then.
function M.delete(k8s, name, opts)
  return jobs.delete(k8s, jobs.find(k8s, name, opts), opts or {})
end

---Sets the replicas of a job.
---@param k8s eirun.KubeClient
---@param name string
---@param replicas integer
---@param opts? {version?: string, type?: string}
---@return eirun.ServingJob
---Example: `serve.scale(k8s, "bert", 3)`. Raises "conflict" while an autoscaler has them, "not_found" for no such job.
function M.scale(k8s, name, replicas, opts)
  return jobs.scale(k8s, jobs.find(k8s, name, opts), replicas)
end

---The text of a request that the model answers, from a file of JSON.
---@param path string
---@return string
---Example: `serve.sample "models/bert/sample.json"`. Raises "not_found" for no such file, "invalid" for what is no JSON.
function M.sample(path)
  local text = errors.check(fs.read(path))
  local value, problem = json.decode(text)
  if value == nil then errors.raise("invalid", ("'%s' is no JSON: %s"):format(path, problem.message), { object = path }) end
  return text
end

return M
