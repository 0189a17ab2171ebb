-- SPDX-License-Identifier: Apache-2.0
-- HorizontalPodAutoscalers: every sync reads the metrics, does the arithmetic and sets the target's scale.
-- Resource and pods metrics need metrics.k8s.io, which no component of the sandbox serves: they fail as without metrics-server.
local json = require "eirun.core.json"
local common = require "sandbox.kube.controllers.common"
local events = require "sandbox.kube.events"
local external = require "sandbox.kube.external"
local hpa_math = require "sandbox.kube.hpa_math"
local quantity = require "sandbox.kube.quantity"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local status = require "sandbox.kube.status"
local subresources = require "sandbox.kube.subresources"
local value = require "sandbox.kube.value"

local hpa = {}

local R, PODS = resources.horizontalpodautoscalers, resources.pods
local WHO = "kube-controller-manager"
local FIELD = { ContainerResource = "containerResource", External = "external", Object = "object", Pods = "pods", Resource = "resource" }

-- A LabelSelector as Go prints it with %+v.
local function go_selector(s)
  if not s then return "nil" end
  local labels = {}
  for key, v in value.sorted(s.matchLabels or {}) do labels[#labels + 1] = ("%s: %s,"):format(key, v) end
  return ("&LabelSelector{MatchLabels:map[string]string{%s},MatchExpressions:[]LabelSelectorRequirement{},}"):format(table.concat(labels))
end

local function selector_text(s)
  return s and selector.text(selector.from_object(s)) or ""
end

-- The conditions of one sync, in the order in which they were first set.
local function conditions_of(obj)
  local self = { list = value.get(obj, "status", "conditions") or {} }
  function self.set(type, state, reason, message, now)
    self.list = common.with_condition(self.list, { type = type, status = state, reason = reason, message = message }, now)
  end
  return self
end

local function ready_pods(store, ns, terms)
  local n = 0
  for _, rec in ipairs(store:list(PODS, ns)) do
    if selector.matches(terms, rec.obj.metadata.labels) and value.get(rec.obj, "status", "phase") == "Running"
      and common.pod_ready(rec.obj) then n = n + 1 end
  end
  return n
end

local function total_of(list)
  local total = 0
  for _, item in ipairs(list.items) do total = total + (quantity.milli(item.value) or 0) end
  return total
end

local function tolerances(obj)
  local function of(direction)
    local q = value.get(obj, "spec", "behavior", direction, "tolerance")
    return q and quantity.milli(q) / 1000 or nil
  end
  return { tolerance_up = of "scaleUp", tolerance_down = of "scaleDown" }
end

local Autoscalers = {}
Autoscalers.__index = Autoscalers

-- Fetches an external metric: total in thousandths, or nil and the error's text.
function Autoscalers:fetch(obj, metric)
  local list, why = external.read(self.face, obj.metadata.namespace, metric.name, selector_text(metric.selector))
  if list and #(list.items or {}) == 0 then list, why = nil, "no metrics returned from external metrics API" else
    why = why and "unable to fetch metrics from external metrics API: " .. why
  end
  if list then return total_of(list) end
  return nil, ("unable to get external metric %s/%s/%s: %s"):format(obj.metadata.namespace, metric.name,
    go_selector(metric.selector), why)
end

function Autoscalers:external_metric(obj, spec, scale)
  local source = spec.external
  local total, why = self:fetch(obj, source.metric)
  if not total then
    return nil, { reason = "FailedGetExternalMetric", message = why,
      error = ("failed to get %s external metric value: failed to get %s external metric: %s"):format(source.metric.name,
        source.metric.name, why) }
  end
  local current = {}
  local proposal, shown
  if source.target.averageValue then
    proposal, shown = hpa_math.per_pod(total, quantity.milli(source.target.averageValue), scale.status.replicas, tolerances(obj))
    current.averageValue = quantity.from_milli(shown)
  else
    local target = self.store:object(scale.r, obj.metadata.namespace, scale.metadata.name)
    local ready = ready_pods(self.store, obj.metadata.namespace, selector.from_object(target.spec.selector))
    proposal = hpa_math.by_value(total, quantity.milli(source.target.value), scale.spec.replicas or 0, ready, tolerances(obj))
    current.value = quantity.from_milli(total)
  end
  return { proposal = proposal, name = ("external metric %s(%s)"):format(source.metric.name, go_selector(source.metric.selector)),
    status = { type = "External", external = { metric = source.metric, current = current } } }
end

function Autoscalers:one_metric(obj, spec, scale)
  if spec.type == "External" then return self:external_metric(obj, spec, scale) end
  local source = spec[FIELD[spec.type]] or {}
  local name = source.name or value.get(source, "metric", "name") or ""
  local api = (spec.type == "Resource" or spec.type == "ContainerResource") and "resource metrics API" or "custom metrics API"
  local why = ("failed to get %s utilization: unable to get metrics for resource %s: unable to fetch metrics from %s: the server could "
    .. "not find the requested resource"):format(name, name, api)
  return nil, { reason = "FailedGet" .. spec.type .. "Metric", message = why, error = why }
end

-- The largest proposal: {proposal, name}, statuses; nil, the error, statuses when no decision is possible.
function Autoscalers:compute(obj, scale, cond)
  local best, failed, first, statuses = nil, 0, nil, json.array {}
  for _, spec in ipairs(obj.spec.metrics) do
    local found, problem = self:one_metric(obj, spec, scale)
    if not found then
      failed, first = failed + 1, first or problem
      self.recorder:event(R, obj, "Warning", problem.reason, problem.message)
    else
      statuses[#statuses + 1] = found.status
      if not best or found.proposal > best.proposal then best = found end
    end
  end
  if not best or (failed > 0 and best.proposal < (scale.spec.replicas or 0)) then
    cond.set("ScalingActive", "False", first.reason, "the HPA was unable to compute the replica count: " .. first.message, self.reg:time())
    return nil, ("invalid metrics (%d invalid out of %d), first error is: %s"):format(failed, #obj.spec.metrics, first.error), statuses
  end
  cond.set("ScalingActive", "True", "ValidMetricFound", "the HPA was able to successfully calculate a replica count from " .. best.name,
    self.reg:time())
  return best, nil, statuses
end

function Autoscalers:write_status(obj, current, desired, statuses, cond, rescaled)
  local old = obj.status or {}
  self.reg:set_status(R, obj, { currentReplicas = current, desiredReplicas = desired or old.desiredReplicas or 0,
    currentMetrics = statuses and #statuses > 0 and statuses or nil, conditions = cond.list,
    lastScaleTime = rescaled and self.reg:time() or old.lastScaleTime, observedGeneration = obj.metadata.generation })
end

function Autoscalers:target_scale(obj)
  local ref = obj.spec.scaleTargetRef
  local r = resources.of_kind(ref.apiVersion or "v1", ref.kind)
  if not r or not r.scale then
    return nil, ('no matches for kind "%s" in group "%s"'):format(ref.kind, (ref.apiVersion or ""):match("^(.*)/") or "")
  end
  local target = self.store:object(r, obj.metadata.namespace, ref.name)
  if not target then return nil, ('%s.%s "%s" not found'):format(r.plural, r.group, ref.name) end
  local scale = subresources.scale_of(target)
  scale.r = r
  return scale
end

function Autoscalers:rescale(obj, scale, from, to, why, cond)
  local ok, err = pcall(subresources.set_scale, self.reg, scale.r, obj.metadata.namespace, scale.metadata.name,
    { spec = { replicas = to } }, { manager = WHO })
  if not ok then
    if not status.is(err) then error(err, 0) end
    self.recorder:event(R, obj, "Warning", "FailedRescale", ("New size: %d; reason: %s; error: %s"):format(to, why, err.message))
    cond.set("AbleToScale", "False", "FailedUpdateScale", "the HPA controller was unable to update the target scale: " .. err.message,
      self.reg:time())
    return false
  end
  cond.set("AbleToScale", "True", "SucceededRescale", ("the HPA controller was able to update the target scale to %d"):format(to),
    self.reg:time())
  self.recorder:event(R, obj, "Normal", "SuccessfulRescale", ("New size: %d; reason: %s"):format(to, why))
  hpa_math.scaled(self.states[obj.metadata.uid], obj.spec.behavior, from, to, self.m.now())
  return true
end

-- The wanted size and why; nil when there is nothing to decide.
function Autoscalers:decide(obj, scale, current, cond)
  local min, max = obj.spec.minReplicas or 1, obj.spec.maxReplicas
  if current == 0 and min ~= 0 then
    cond.set("ScalingActive", "False", "ScalingDisabled", "scaling is disabled since the replica count of the target is zero",
      self.reg:time())
    return current, nil, {}
  end
  if current > max then return max, "Current number of replicas above Spec.MaxReplicas", {} end
  if current < min then return min, "Current number of replicas below Spec.MinReplicas", {} end
  local best, why, statuses = self:compute(obj, scale, cond)
  if not best then return nil, why, statuses end
  local state = self.states[obj.metadata.uid]
  local size, able, limited = hpa_math.normalise(state, { min = min, max = max, behavior = obj.spec.behavior,
    window = self.m.lag.hpa_downscale_window }, current, best.proposal, self.m.now())
  cond.set("AbleToScale", able.status, able.reason, able.message, self.reg:time())
  cond.set("ScalingLimited", limited.status, limited.reason, limited.message, self.reg:time())
  local reason = best.proposal > current and best.name .. " above target" or "All metrics below target"
  return size, reason, statuses
end

function Autoscalers:reconcile(obj)
  local cond = conditions_of(obj)
  local scale, why = self:target_scale(obj)
  if not scale then
    self.recorder:event(R, obj, "Warning", "FailedGetScale", why)
    cond.set("AbleToScale", "False", "FailedGetScale", "the HPA controller was unable to get the target's current scale: " .. why,
      self.reg:time())
    return self.reg:set_status(R, obj, value.with(obj.status or {}, { "conditions" }, cond.list))
  end
  cond.set("AbleToScale", "True", "SucceededGetScale", "the HPA controller was able to get the target's current scale", self.reg:time())
  local current = scale.spec.replicas or 0
  local uid = obj.metadata.uid
  self.states[uid] = self.states[uid] or hpa_math.new_state(current, self.m.now())
  local size, reason, statuses = self:decide(obj, scale, current, cond)
  if not size then
    self:write_status(obj, current, nil, statuses, cond, false)
    return self.recorder:event(R, obj, "Warning", "FailedComputeMetricsReplicas", reason)
  end
  local changed = size ~= current and self:rescale(obj, scale, current, size, reason, cond)
  self:write_status(obj, current, changed and size or current, statuses, cond, changed)
end

-- Each autoscaler keeps its own beat from its creation on.
function Autoscalers:sync(key)
  local obj = self.store:object(R, common.split(key))
  if not obj then
    self.next_at[key] = nil
    return
  end
  if self.next_at[key] and self.m.now() < self.next_at[key] then return end
  self.next_at[key] = self.m.now() + self.m.lag.hpa_sync
  local ok, err = xpcall(self.reconcile, debug.traceback, self, obj)
  if not ok then self.m.log("error", "autoscaler %s: %s", key, tostring(err)) end
  return self.m.lag.hpa_sync
end

function hpa.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, face = m.face, states = {}, next_at = {},
    recorder = events.recorder(m.registry, "horizontal-pod-autoscaler") }, Autoscalers)
  local q = m:queue("horizontal-pod-autoscaler", 0, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event)
    if event.type == "DELETED" then
      self.states[event.new.uid] = nil
      q:add(event.new.key)
    elseif event.type == "ADDED" and not self.next_at[event.new.key] then
      q:add_after(event.new.key, m.lag.hpa_sync)
    end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add_after(rec.key, m.lag.hpa_sync) end
end

return hpa
