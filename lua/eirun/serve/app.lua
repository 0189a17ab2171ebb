-- SPDX-License-Identifier: Apache-2.0
-- The face of a running job.
local books = require "eirun.serve.books"
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local objects = require "eirun.serve.objects"
local target = require "eirun.target"
local task = require "eirun.task"
local wait = require "eirun.kube.wait"

---@class eirun.App
---@field name string of its Deployment
---@field service string of its Service
---@field job string the job's own name
---@field version string the job's version
---@field model string|nil
---@field namespace string
---@field deployment string
---@field port integer the port of its HTTP face, else its only one
---@field k8s eirun.KubeClient
local App = {}
App.__index = App
App.__name = "eirun.app"

local M = { App = App }

---@param k8s eirun.KubeClient
---@param server table the type of server
---@param job eirun.Job
---@param given table
---@return eirun.App
function M.new(k8s, server, job, given)
  return setmetatable({ name = job.fullname, service = job.service, job = job.name, version = job.version, model = given.model_name,
    deployment = job.fullname, port = given.rest_port or given.port, namespace = k8s.ns, k8s = k8s, names = job, given = given,
    server = server }, App)
end

---Adds an object to what `arena serve delete` deletes with the job.
---@param line string as kubectl writes it, `ingress.networking.k8s.io/bert`
---Example: `app:belongs "networkpolicy.networking.k8s.io/bert"`. `ensure_hpa` and `ensure_ingress` call it for what they make.
---Raises what writing its ConfigMap raises.
function App:belongs(line)
  local lines = books.read(self.k8s, self.names.books)
  for _, known in ipairs(lines) do if known == line then return end end
  lines[#lines + 1] = line
  ensure.ensure(self.k8s, objects.books(self.names, self.given, lines))
end

---The path of a call on the model, `predict`, or of its status without one.
---@param verb? string `predict`; TensorFlow Serving also has `classify` and `regress`
---@return string
---Example: `web:url(app:path "predict")`.
---Raises nothing; a server that names no such path answers at "/".
function App:path(verb)
  local paths = self.server.paths(self.given)
  if not verb then return paths.status or "/" end
  if verb == "predict" then return paths.predict or "/" end
  return (paths.model or "") .. ":" .. verb
end

-- The decoded answer, or its text where it is no JSON.
local function ask(web, path, body)
  local client = target.http()
  local headers = { { "Accept", "application/json" } }
  for _, header in ipairs(web.headers) do headers[#headers + 1] = header end
  if body then headers[#headers + 1] = { "Content-Type", "application/json" } end
  local reply, err = client:request { method = body and "POST" or "GET", url = web:url(path), headers = headers, body = body, timeout = 30,
    connect_timeout = 10 }
  if not reply then return nil, err.message end
  local answer = json.decode(reply.body or "")
  if reply.status == 200 then return answer == nil and (reply.body or "") or answer end
  local words = type(answer) == "table" and answer.error or http.excerpt(reply.body)
  return nil, ("it answered %d: %s"):format(reply.status, tostring(words))
end

---Waits until the model answers through an address from outside: its status, and a prediction when a body is given.
---@param web eirun.Web
---@param body? string a request for `predict`
---@param timeout? number default 300
---@return table|string answer of the prediction, or the status; text where the server answers no JSON
---Example: `app:wait_answer(web, fs.read "sample.json")`. Raises "timeout" with the last answer.
function App:wait_answer(web, body, timeout)
  return wait.until_well(("model '%s' at %s"):format(self.model or self.job, web.address), timeout or 300, function()
    local status, problem = ask(web, self:path())
    if status == nil then return nil, problem end
    problem = self.server.missing and self.server.missing(self.given, status)
    if problem then return nil, problem end
    if not body then return status end
    return ask(web, self:path "predict", body)
  end, "is the Ingress's host the one that is asked for, and does a pod serve?")
end

local function status_of(self, pod, path)
  local ok, status = pcall(self.k8s.raw, self.k8s, ("/api/v1/namespaces/%s/pods/%s:%d/proxy%s"):format(self.namespace, pod.metadata.name,
    self.port, path))
  if not ok and errors.is(status, "cancelled") then error(status, 0) end
  return ok and status or {}, not ok and errors.from(status).message or nil
end

---@class eirun.PodModels what one ready pod serves
---@field pod string
---@field versions table<string, string> version -> state: START, LOADING, AVAILABLE, UNLOADING, END
---@field problem? string why it could not be asked, or why a version failed

---The model's versions on each ready pod, asked through the API server.
---@return eirun.PodModels[]
---Example: `for _, each in ipairs(app:models()) do print(each.pod, each.versions["3"]) end`.
---Raises "invalid" for servers that tell no versions, and what listing the pods raises.
function App:models()
  local path = self.server.missing and self.server.paths(self.given).status
  if not path then errors.raise("invalid", ("job '%s' runs a server that tells no versions"):format(self.job)) end
  local list = {}
  for _, pod in ipairs(self.k8s:list("Pod", { labels = { release = self.names.release } })) do
    if wait.pod_is_ready(pod) and not pod.metadata.deletionTimestamp then
      local status, problem = status_of(self, pod, path)
      local each = { pod = pod.metadata.name, versions = {}, problem = problem }
      for _, state in ipairs(status.model_version_status or {}) do
        each.versions[tostring(state.version)] = state.state
        local said = (state.status or {}).error_message
        if said and said ~= "" then each.problem = ("version %s: %s"):format(state.version, said) end
      end
      list[#list + 1] = each
    end
  end
  return list
end

local function not_yet(models, version)
  if #models == 0 then return "no pod is ready" end
  for _, each in ipairs(models) do
    if each.versions[version] ~= "AVAILABLE" then
      return ("pod '%s' has version %s in state %s%s"):format(each.pod, version, each.versions[version] or "unknown",
        each.problem and ": " .. each.problem or "")
    end
  end
end

---Waits until every ready pod serves a version: after a publish, how long the servers took to load it.
---@param version string|integer
---@param timeout? number seconds, default 600
---@return number seconds since the call
---Example: `bucket:publish { … } local seconds = app:wait_version "4"`. Raises "timeout" with the state of the first pod that lacks it,
---"invalid" for servers that tell no versions.
function App:wait_version(version, timeout)
  local began = task.now()
  wait.until_well(("version %s of model '%s'"):format(version, self.model or self.job), timeout or 600, function()
    local problem = not_yet(self:models(), tostring(version))
    if problem then return nil, problem end
    return true
  end, "is the version below the model's path, and does the job's version policy want it?")
  return task.now() - began
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
