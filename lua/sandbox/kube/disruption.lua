-- SPDX-License-Identifier: Apache-2.0
-- PodDisruptionBudgets: how many pods may go, and evictions that ask them first.
local json = require "eirun.core.json"
local deletion = require "sandbox.kube.deletion"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local disruption = {}

local function ready(pod)
  local c = value.find(value.get(pod, "status", "conditions"), "type", "Ready")
  return c ~= nil and c.status == "True" and not pod.metadata.deletionTimestamp
end

local function share(v, total, up)
  if type(v) ~= "string" then return v end
  local percent = tonumber(v:match("^(%d+)%%$")) or 0
  local exact = total * percent / 100
  return up and math.ceil(exact) or math.floor(exact)
end

-- expected pods and how many must be healthy. Percentages count what the pods' controllers want.
local function wanted(spec, expected)
  if spec.maxUnavailable ~= nil then
    return math.max(0, expected - share(spec.maxUnavailable, expected, true))
  end
  return share(spec.minAvailable ~= nil and spec.minAvailable or 1, expected, true)
end

local function controller(pod)
  return value.find(pod.metadata.ownerReferences, "controller", true)
end

-- What the controllers of these pods want together; each counts once.
local function expected_of(store, pods)
  local total, seen = 0, {}
  for _, pod in ipairs(pods) do
    local ref = controller(pod)
    if not ref then
      total = total + 1
    elseif not seen[ref.uid] then
      seen[ref.uid] = true
      local r = resources.of_kind(ref.apiVersion, ref.kind)
      local owner = r and store:object(r, pod.metadata.namespace, ref.name)
      total = total + (owner and owner.spec.replicas or 0)
    end
  end
  return total
end

-- The status of a budget: {currentHealthy, desiredHealthy, disruptionsAllowed, expectedPods}.
function disruption.status_of(store, pdb)
  local terms, pods, healthy = selector.from_object(pdb.spec.selector) , {}, 0
  for _, rec in ipairs(terms and store:list(resources.pods, pdb.metadata.namespace) or {}) do
    local phase = value.get(rec.obj, "status", "phase")
    if phase ~= "Succeeded" and phase ~= "Failed" and selector.matches(terms, rec.obj.metadata.labels) then
      pods[#pods + 1] = rec.obj
      if ready(rec.obj) then healthy = healthy + 1 end
    end
  end
  local expected = expected_of(store, pods)
  if pdb.spec.minAvailable ~= nil and type(pdb.spec.minAvailable) ~= "string" then expected = #pods end
  local desired = wanted(pdb.spec, expected)
  local allowed = expected > 0 and math.max(0, healthy - desired) or 0
  return { currentHealthy = healthy, desiredHealthy = desired, disruptionsAllowed = allowed, expectedPods = expected }
end

local function budgets_of(reg, pod)
  local list = {}
  for _, rec in ipairs(reg.store:list(resources.poddisruptionbudgets, pod.metadata.namespace)) do
    local terms = selector.from_object(rec.obj.spec.selector)
    if terms and selector.matches(terms, pod.metadata.labels) then list[#list + 1] = rec.obj end
  end
  return list
end

local function refuse(pdb, now)
  status.raise(429, "TooManyRequests", "Cannot evict pod as it would violate the pod's disruption budget.", { causes = json.array { {
    reason = "DisruptionBudget", message = ("The disruption budget %s needs %d healthy pods and has %d currently"):format(
      pdb.metadata.name, now.desiredHealthy, now.currentHealthy) } } })
end

local function mark(reg, pod)
  reg:modify(resources.pods, pod.metadata.namespace, pod.metadata.name, function(old)
    local list = value.filter(value.get(old, "status", "conditions"), function(c) return c.type ~= "DisruptionTarget" end)
    list[#list + 1] = { type = "DisruptionTarget", status = "True", reason = "EvictionByEvictionAPI", message = "Eviction API: evicting",
      lastTransitionTime = reg:time() }
    return value.with(old, { "status", "conditions" }, list)
  end, { manager = "kube-apiserver", subresource = "status" })
end

local function finished(pod)
  local phase = value.get(pod, "status", "phase")
  return phase == "Succeeded" or phase == "Failed" or phase == "Pending" or pod.metadata.deletionTimestamp ~= nil
end

-- Deletes a pod unless a budget says no. options: grace, preconditions, dry_run.
function disruption.evict(reg, pod, options)
  local list = finished(pod) and {} or budgets_of(reg, pod)
  if #list > 1 then
    status.raise(500, "InternalError", "Internal error occurred: This pod has more than one PodDisruptionBudget, which the eviction "
      .. "subresource does not support.", {})
  end
  if list[1] then
    local now = disruption.status_of(reg.store, list[1])
    if now.disruptionsAllowed < 1 and ready(pod) then refuse(list[1], now) end
  end
  if not options.dry_run and not finished(pod) then mark(reg, pod) end
  deletion.delete(reg, resources.pods, pod.metadata.namespace, pod.metadata.name, options)
end

return disruption
