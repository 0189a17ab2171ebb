-- SPDX-License-Identifier: Apache-2.0
-- The way in and the way to more replicas: Ingress and HorizontalPodAutoscaler.
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local http = require "eirun.http"
local metrics = require "eirun.kube.metrics"
local spec = require "eirun.spec"
local target = require "eirun.target"
local wait = require "eirun.kube.wait"
local ways = require "eirun.kube.ways"

local M = {}

local DNS_LABEL = "^[a-z0-9]([a-z0-9-]*)$"

-- HorizontalPodAutoscaler ----------------------------------------------------------------------------------------------

local hpa_rules = {
  name = { type = "string", required = true, match = DNS_LABEL, says = "a name of lower-case letters, digits and '-'" },
  target = { type = "any", required = true },
  min = { type = "integer", min = 1 },
  max = { type = "integer", required = true, min = 1 },
  external = { type = "table", fields = metrics.external_rules },
  cpu = { type = "integer", min = 1, max = 10000 },
  memory = { type = "integer", min = 1, max = 10000 },
  metrics = { type = "list" },
  behavior = metrics.behavior_rule,
  adopt = { type = "boolean" },
  timeout = { type = "number", min = 0 },
}

-- What is made for a job belongs to it: whoever deletes the job finds it in the job's books.
local function tell_job(job, line)
  if type(job) == "table" and job.belongs then job:belongs(line) end
end

---The HPA's manifest. Pure.
---@param given table
---@param namespace string
---@return table
function M.hpa_manifest(given, namespace)
  local name = type(given.target) == "table" and given.target.name or given.target
  return {
    apiVersion = "autoscaling/v2", kind = "HorizontalPodAutoscaler", metadata = { name = given.name, namespace = namespace },
    spec = {
      scaleTargetRef = { apiVersion = "apps/v1", kind = "Deployment", name = name },
      minReplicas = given.min or 1, maxReplicas = given.max, behavior = given.behavior,
      metrics = metrics.list(given),
    },
  }
end

local function check_hpa(given)
  spec.check("ensure_hpa", given, hpa_rules)
  if (given.min or 1) > given.max then spec.fail("ensure_hpa", ("min is %d, above max, %d"):format(given.min, given.max)) end
  metrics.check_behavior(given.behavior)
  metrics.list(given)
end

local function last_event(k8s, name, reason)
  local events = k8s:events { kind = "HorizontalPodAutoscaler", name = name }
  for i = #events, 1, -1 do
    if events[i].reason == reason then return events[i] end
  end
end

---@class eirun.Hpa
---@field name string
---@field target string
---@field min integer
---@field max integer
---@field k8s eirun.KubeClient
local Hpa = {}
Hpa.__index = Hpa
M.Hpa = Hpa
Hpa.__name = "eirun.hpa"

local function who(name)
  return "HorizontalPodAutoscaler '" .. name .. "'"
end

-- Taken up by its controller: it has found what it scales. A metric it may not have yet: before the first request there is none.
local function look_at_hpa(k8s, name, patience)
  local hpa = k8s:get("HorizontalPodAutoscaler", name)
  local able = hpa and wait.condition(hpa, "AbleToScale")
  if not able then return nil, "the controller has not seen it" end
  if able.status ~= "False" then return hpa end
  if patience:exhausted("scale", 45) then
    errors.raise("invalid", ("%s cannot scale: %s: \"%s\""):format(who(name), able.reason, able.message or ""),
      { object = who(name), code = able.reason, hint = "see that its target exists" })
  end
  return nil, able.reason
end

local NO_METRIC = "compare the selector with what the ingress logs: project, logstore and route <namespace>-<service>-<port>; " ..
  "and see that the add-ons ack-alibaba-cloud-metrics-adapter and logtail-ds run"

local function look_at_metric(k8s, name, patience, seconds)
  local hpa = k8s:get("HorizontalPodAutoscaler", name)
  local active = hpa and wait.condition(hpa, "ScalingActive")
  if active and active.status == "True" then return hpa end
  if not active then return nil, "no metric was asked for yet" end
  if not patience:exhausted(active.reason, seconds) then return nil, active.reason end
  local event = last_event(k8s, name, active.reason)
  local words = event and event.message or active.message or ""
  errors.raise("invalid", ("%s gets no metric: %s: \"%s\""):format(who(name), active.reason, words),
    { object = who(name), code = active.reason, hint = NO_METRIC })
end

---Waits until the autoscaler gets its metric. Without requests there is none: `ask` sends some while it waits.
---@param opts? {seconds?: number, ask?: fun()} seconds: how long to hope, default 120; ask: called at each look
---@return table object
---Example: `hpa:wait_metric { ask = function() app:wait_answer(web) end }`. Raises "invalid", quoting the controller's event, when the
---metric does not come, and what `ask` raises.
function Hpa:wait_metric(opts)
  opts = opts or {}
  local patience, seconds = wait.patience(), opts.seconds or 120
  return wait.until_well(who(self.name), seconds + 60, function()
    local found, missing = look_at_metric(self.k8s, self.name, patience, seconds)
    if not found and opts.ask then opts.ask() end
    return found, missing
  end)
end

---Makes an autoscaler on an external metric; waits until the controller has taken it up.
---@param k8s eirun.KubeClient
---@param given table
---@return eirun.Hpa
function M.ensure_hpa(k8s, given)
  check_hpa(given)
  local manifest = M.hpa_manifest(given, k8s.ns)
  local patience = wait.patience()
  ensure.ensure(k8s, manifest, { adopt = given.adopt, wait = function()
    return wait.until_well(who(given.name), given.timeout or 300, function() return look_at_hpa(k8s, given.name, patience) end)
  end })
  tell_job(given.target, "horizontalpodautoscaler.autoscaling/" .. given.name)
  return setmetatable({ name = given.name, target = manifest.spec.scaleTargetRef.name, min = manifest.spec.minReplicas, max = given.max,
    k8s = k8s }, Hpa)
end

-- Ingress --------------------------------------------------------------------------------------------------------------

local ingress_rules = {
  name = { type = "string", required = true, match = DNS_LABEL, says = "a name of lower-case letters, digits and '-'" },
  host = { type = "string" },
  path = { type = "string", match = "^/", says = "a path that starts with '/'" },
  service = { type = "any", required = true },
  port = { type = "any", required = true },
  class = { type = "string" },
  way = { type = "string", one_of = ways.ways },
  tls = { type = "string", match = DNS_LABEL, says = "the name of a Secret with a certificate" },
  annotations = { type = "table" },
  adopt = { type = "boolean" },
  timeout = { type = "number", min = 0 },
}

---The manifest of a way in. Pure.
---@param given table
---@param namespace string
---@return table
function M.ingress_manifest(given, namespace)
  return ways.ways[given.way or "nginx"].manifest(given, namespace)
end

---@class eirun.Web
---@field name string
---@field address string where the balancer answers
---@field base string the URL of that address, or what EIRUN_ENDPOINT_INGRESS puts in its place
---@field host string|nil the name that requests must carry
---@field headers table[] to send along, so that the name need not be known to DNS
local Web = {}
Web.__index = Web
M.Web = Web
Web.__name = "eirun.web"

---The URL of a path at the balancer's address.
---@param path? string default "/"
---@return string
---Example: `web:url "/v1/models/bert:predict"`.
---Raises nothing.
function Web:url(path)
  return self.base .. (path or "/")
end

local function look_at_address(k8s, way, name)
  local object = k8s:get(way.kind, name)
  if object and way.address(object) then return object end
  return nil, "it has no address"
end

---Makes an Ingress and waits for its address.
---@param k8s eirun.KubeClient
---@param given table
---@return eirun.Web
function M.ensure_ingress(k8s, given)
  spec.check("ensure_ingress", given, ingress_rules)
  local way = ways.ways[given.way or "nginx"]
  local made = ensure.ensure(k8s, way.manifest(given, k8s.ns), { adopt = given.adopt, wait = function()
    return wait.until_well(("%s '%s'"):format(way.kind, given.name), given.timeout or 600, function()
      return look_at_address(k8s, way, given.name)
    end, way.no_address)
  end })
  tell_job(given.service, "ingress.networking.k8s.io/" .. given.name)
  local headers = given.host and { { "Host", given.host } } or {}
  local address = way.address(made)
  local instead = (target.current().endpoints or {}).INGRESS
  return setmetatable({ name = given.name, address = address, base = instead and http.endpoint_url(instead) or "http://" .. address,
    host = given.host, headers = headers }, Web)
end

return M
