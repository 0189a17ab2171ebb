-- SPDX-License-Identifier: Apache-2.0
-- Inference jobs as arena makes them, found again on the next run, ready only when the model answers.
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local http = require "eirun.http"
local json = require "eirun.core.json"
local manifest = require "eirun.serve.manifest"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local target = require "eirun.target"
local task = require "eirun.task"
local wait = require "eirun.kube.wait"
local wire = require "eirun.wire"

local M = {}

---@class eirun.App
---@field name string of its Deployment and its Service
---@field job string the job's own name
---@field version string the job's version
---@field model string
---@field model_version string|nil the one asked for
---@field namespace string
---@field deployment string
---@field port integer the REST port
---@field k8s eirun.KubeClient
local App = {}
App.__index = App
M.App = App
App.__name = "eirun.app"

local LABEL_VALUE = "^[A-Za-z0-9]([A-Za-z0-9_.-]*)$"

local function check_name(name)
  if name:find("tensorflow%-serving") then return "must not contain 'tensorflow-serving': arena would not find the job again" end
end

local function check_labels(labels)
  for key, value in pairs(labels) do
    value = tostring(value)
    if #value > 63 or value ~= "" and not value:find(LABEL_VALUE) then return ("has '%s' as the value of %s"):format(value, key) end
  end
end

local function check_data(data)
  if next(data) == nil then return "names no volume claim" end
  for claim, path in pairs(data) do
    if type(path) ~= "string" or not path:find("^/.") then
      return ("mounts '%s' at '%s', not at a path below /"):format(claim, tostring(path))
    end
  end
end

local function check_policy(policy)
  local _, problem = manifest.policy(policy)
  return problem
end

local rules = {
  name = { type = "string", required = true, match = "^[a-z]([a-z0-9-]*)$", says = "a name of lower-case letters, digits and '-'",
    check = check_name },
  version = { type = "string", match = "^[a-z0-9]([a-z0-9-]*)$", says = "a version of lower-case letters, digits and '-'" },
  model_name = { type = "string", required = true, match = "^[A-Za-z0-9_-]+$", says = "a model's name" },
  model_path = { type = "string", required = true, match = "^/", says = "an absolute path" },
  version_policy = { type = "string", check = check_policy },
  image = { type = "string", required = true },
  image_pull_policy = { type = "string", one_of = { Always = true, IfNotPresent = true, Never = true } },
  data = { type = "table", required = true, check = check_data },
  selector = { type = "table", check = check_labels },
  labels = { type = "table", check = check_labels },
  annotations = { type = "table" },
  tolerations = { type = "list" },
  env = { type = "table" },
  gpus = { type = "integer", min = 0 },
  gpu_memory = { type = "integer", min = 0 },
  gpu_core = { type = "integer", min = 0, check = function(n) return n % 5 ~= 0 and "must be a multiple of 5" or nil end },
  cpu = { type = "any" },
  memory = { type = "any" },
  limits = { type = "table" },
  requests = { type = "table" },
  replicas = { type = "integer", min = 0 },
  port = { type = "integer", min = 1, max = 65535 },
  rest_port = { type = "integer", min = 1, max = 65535 },
  scheduler = { type = "string" },
  user = { type = "string" },
  adopt = { type = "boolean" },
  timeout = { type = "number", min = 0 },
  load_timeout = { type = "integer", min = 0 },
}

-- Extended resources cannot be asked for and limited by different amounts.
local function check_requests(given, limits)
  for key, value in pairs(given.requests or {}) do
    if key:find("/", 1, true) and tostring(limits[key]) ~= tostring(value) then
      return ("requests say %s of %s, limits say %s: they must be the same"):format(value, key, tostring(limits[key]))
    end
  end
end

local function check(given)
  spec.check("ensure_tensorflow", given, rules)
  local limits, problem = manifest.limits(given)
  problem = problem or check_requests(given, limits)
  if problem then spec.fail("ensure_tensorflow", problem) end
end

local function defaults(given)
  local full = { port = 8500, rest_port = 8501, load_timeout = 600 }
  for key, value in pairs(given) do full[key] = value end
  return full
end

-- Finding the job again ------------------------------------------------------------------------------------------------

-- The newest version among objects of ours; nil when there are none.
local function newest_version(k8s, kind, name)
  local versions = {}
  local labels = { servingName = name, servingType = "tf-serving", [ensure.OWNER_LABEL] = ensure.OWNER }
  for _, object in ipairs(k8s:list(kind, { labels = labels })) do versions[#versions + 1] = object.metadata.labels.servingVersion end
  table.sort(versions)
  return versions[#versions]
end

-- The argument, else the version of the job that eirun made before, else a stamp: so the second run finds the first one's job.
-- A run that was killed early has left its bookkeeping and nothing else: that is the same job still.
local function version_of(k8s, given)
  return given.version or newest_version(k8s, "Deployment", given.name) or newest_version(k8s, "ConfigMap", given.name)
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
  return given
end

local function check_lengths(job)
  if #job.fullname <= 63 then return end
  errors.raise("invalid", ("'%s' has %d characters, more than the 63 that a name may have"):format(job.fullname, #job.fullname),
    { hint = ("choose a name of at most %d characters"):format(63 - #job.fullname + #job.name) })
end

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

-- Readiness --------------------------------------------------------------------------------------------------------------

local function model_states(k8s, pod, given)
  local path = ("/api/v1/namespaces/%s/pods/%s:%d/proxy/v1/models/%s"):format(k8s.ns, pod.metadata.name, given.rest_port, given.model_name)
  return k8s:raw(path)
end

local function available(states, version)
  for _, state in ipairs(states.model_version_status or {}) do
    if state.state == "AVAILABLE" and (not version or tostring(state.version) == version) then return true end
  end
  return false
end

-- The readiness probe answers 200 whatever version is loaded, so the model's own status is asked through the API server. Where
-- that way is closed (no right, no proxy), the probe has to do.
local function missing_model(k8s, deployment, given)
  local version = manifest.asked_version(given.version_policy)
  for _, pod in ipairs(k8s:list("Pod", { labels = deployment.spec.selector.matchLabels })) do
    if wait.pod_is_ready(pod) then
      local ok, states = pcall(model_states, k8s, pod, given)
      if not ok and errors.is(states, "cancelled") then error(states, 0) end
      if not ok or available(states, version) then return nil end
    end
  end
  return ("no pod serves %s%s"):format(given.model_name, version and " version " .. version or "")
end

-- What was added to the job's belongings since it was made: its autoscaler, its Ingress.
local function extra_lines(k8s, job)
  local own, extra = {}, {}
  for _, line in ipairs(manifest.own_lines(job)) do own[line] = true end
  local live = k8s:get("ConfigMap", manifest.bookkeeping_name(job))
  for line in (live and (live.data or {}).app or ""):gmatch("[^\n]+") do
    if not own[line] then extra[#extra + 1] = line end
  end
  return extra
end

local function wait_ready(k8s, job, given)
  return wait.deployment(k8s, job.fullname, { timeout = given.timeout or 1200, ready = function(deployment)
    if (deployment.spec.replicas or 1) == 0 then return nil end
    return missing_model(k8s, deployment, given)
  end })
end

local function apply_all(k8s, job, given)
  local opts = { adopt = given.adopt }
  ensure.ensure(k8s, manifest.bookkeeping(job, given, extra_lines(k8s, job)), opts)
  ensure.ensure(k8s, manifest.config(job, given), opts)
  ensure.ensure(k8s, manifest.service(job, given), opts)
  ensure.ensure(k8s, manifest.deployment(job, given), opts)
  ensure_replicas(k8s, job, given.replicas)
  wait_ready(k8s, job, given)
end

---Serves a SavedModel with TensorFlow Serving, as `arena serve tensorflow` does; every flag has its field.
---@param k8s eirun.KubeClient
---@param given table name, model_name, model_path, image, data = {claim = path}, and any of version (the job's), version_policy
--- ("specific:N", "latest", "latest:N", "all"), selector, gpus, gpu_memory, gpu_core, cpu, memory, limits, requests, replicas, labels,
--- annotations, tolerations, env, port (8500), rest_port (8501), scheduler, image_pull_policy, user, adopt, timeout
---@return eirun.App
---Example:
---```lua
---local app = serve.ensure_tensorflow(k8s, { name = "bert", model_name = "bert", model_path = "/models/bert", gpus = 1,
---  image = "tensorflow/serving:1.15.0-gpu", data = { ["model-pvc"] = "/models" }, version_policy = "specific:3" })
---```
---Raises "invalid" before any write for names over 63 characters, limits that contradict each other and unknown policies; early,
---quoting the event or the log, when the pods cannot become ready.
function M.ensure_tensorflow(k8s, given)
  check(given)
  given = defaults(given)
  local job = manifest.names(given.name, version_of(k8s, given), k8s.ns)
  check_lengths(job)
  apply_all(k8s, job, with_birth(k8s, job, given))
  return setmetatable({
    name = job.fullname, job = job.name, version = job.version, model = given.model_name, deployment = job.fullname, port = given.rest_port,
    model_version = manifest.asked_version(given.version_policy), namespace = k8s.ns, k8s = k8s, names = job, given = given,
  }, App)
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

-- The face of a running job ------------------------------------------------------------------------------------------------

---Adds an object to what `arena serve delete` deletes with the job.
---@param line string as kubectl writes it, `ingress.networking.k8s.io/bert`
---Example: `app:belongs "poddisruptionbudget.policy/bert"`. `ensure_hpa` and `ensure_ingress` call it for what they make.
---Raises what writing its ConfigMap raises.
function App:belongs(line)
  local extra = extra_lines(self.k8s, self.names)
  for _, known in ipairs(extra) do if known == line then return end end
  extra[#extra + 1] = line
  ensure.ensure(self.k8s, manifest.bookkeeping(self.names, self.given, extra))
end

---The path of a call on the model: `predict`, `classify`, `regress`, or its status without one.
---@param verb? string
---@return string
---Example: `web:url(app:path "predict")`.
---Raises nothing.
function App:path(verb)
  return "/v1/models/" .. self.model .. (verb and ":" .. verb or "")
end

local function get_json(web, path, body)
  local client = target.http()
  local headers = { { "Accept", "application/json" } }
  for _, header in ipairs(web.headers) do headers[#headers + 1] = header end
  if body then headers[#headers + 1] = { "Content-Type", "application/json" } end
  local reply, err = client:request { method = body and "POST" or "GET", url = web:url(path), headers = headers, body = body, timeout = 30,
    connect_timeout = 10 }
  if not reply then return nil, err.message end
  local answer = json.decode(reply.body or "")
  if reply.status ~= 200 then
    local words = type(answer) == "table" and answer.error or http.excerpt(reply.body)
    return nil, ("it answered %d: %s"):format(reply.status, tostring(words))
  end
  return answer
end

---Waits until the model answers through an address from outside: its status, and a prediction when a body is given.
---@param web eirun.Web
---@param body? string a request for `:predict`
---@param timeout? number default 300
---@return table answer of the prediction, or the status
---Example: `app:wait_answer(web, fs.read "sample.json")`. Raises "timeout" with the last answer.
function App:wait_answer(web, body, timeout)
  return wait.until_well(("model '%s' at %s"):format(self.model, web.address), timeout or 300, function()
    local states, problem = get_json(web, self:path())
    if not states then return nil, problem end
    if not available(states, self.model_version) then return nil, "version " .. tostring(self.model_version) .. " is not available" end
    if not body then return states end
    return get_json(web, self:path "predict", body)
  end, "is the Ingress's host the one that is asked for, and does a pod serve?")
end

---Replicas of the job.
---@return {wanted: integer, ready: integer, available: integer}
---Example: `print(app:replicas().ready)`.
---Raises what the call raises; a Deployment that is gone counts as 0 of 0.
function App:replicas()
  local deployment = self.k8s:get("Deployment", self.deployment) or { spec = {}, status = {} }
  local status = deployment.status or {}
  return { wanted = deployment.spec.replicas or 0, ready = status.readyReplicas or 0, available = status.availableReplicas or 0 }
end

return M
