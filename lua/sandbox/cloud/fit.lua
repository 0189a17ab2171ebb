-- SPDX-License-Identifier: Apache-2.0
-- Would a pod run on a node? The scaler's simulation: requests, selector, required affinity, taints. Pure.
--
--   node: { labels={}, taints={ {key,value,effect} }, free={resource->milli} }
local quantity = require "sandbox.cloud.quantity"

local fit = {}

local function larger(into, from)
  for name, value in pairs(from) do into[name] = math.max(into[name] or 0, value) end
end

-- What a pod asks for: containers together, init containers one at a time, and one place.
function fit.requests(pod)
  local sum, init = { pods = 1000 }, {}
  for _, container in ipairs(pod.spec.containers or {}) do
    local resources = container.resources or {}
    local asked = quantity.map(resources.requests)
    for name, value in pairs(quantity.map(resources.limits)) do
      if asked[name] == nil then asked[name] = value end
    end
    quantity.add(sum, asked)
  end
  for _, container in ipairs(pod.spec.initContainers or {}) do
    larger(init, quantity.map((container.resources or {}).requests))
  end
  larger(sum, init)
  return sum
end

local function tolerates(toleration, taint)
  if toleration.effect and toleration.effect ~= "" and toleration.effect ~= taint.effect then return false end
  if toleration.operator == "Exists" then return toleration.key == nil or toleration.key == "" or toleration.key == taint.key end
  return toleration.key == taint.key and (toleration.value or "") == (taint.value or "")
end

-- The first taint that keeps the pod away, or nil.
function fit.blocking_taint(pod, taints)
  for _, taint in ipairs(taints or {}) do
    local passed = taint.effect == "PreferNoSchedule"
    for _, toleration in ipairs(pod.spec.tolerations or {}) do passed = passed or tolerates(toleration, taint) end
    if not passed then return taint end
  end
end

local function in_list(list, value)
  for _, one in ipairs(list or {}) do
    if one == value then return true end
  end
  return false
end

local operators = {
  In = function(value, values) return value ~= nil and in_list(values, value) end,
  NotIn = function(value, values) return value == nil or not in_list(values, value) end,
  Exists = function(value) return value ~= nil end,
  DoesNotExist = function(value) return value == nil end,
  Gt = function(value, values) return tonumber(value) ~= nil and tonumber(value) > (tonumber(values[1]) or math.huge) end,
  Lt = function(value, values) return tonumber(value) ~= nil and tonumber(value) < (tonumber(values[1]) or -math.huge) end,
}

local function term_matches(term, labels)
  for _, expression in ipairs(term.matchExpressions or {}) do
    local operator = operators[expression.operator]
    if not operator or not operator(labels[expression.key], expression.values) then return false end
  end
  return true
end

local function affinity_matches(pod, labels)
  local node = pod.spec.affinity and pod.spec.affinity.nodeAffinity
  local required = node and node.requiredDuringSchedulingIgnoredDuringExecution
  if not required then return true end
  for _, term in ipairs(required.nodeSelectorTerms or {}) do
    if term_matches(term, labels) then return true end
  end
  return false
end

-- True when labels suit the pod.
function fit.selects(pod, labels)
  for key, value in pairs(pod.spec.nodeSelector or {}) do
    if labels[key] ~= value then return false end
  end
  return affinity_matches(pod, labels)
end

-- nil when the pod fits, else the reason in the scheduler's words.
function fit.reason(pod, node, requests)
  if node.unschedulable then return "node(s) were unschedulable" end
  if fit.blocking_taint(pod, node.taints) then return "node(s) had untolerated taint" end
  if not fit.selects(pod, node.labels) then return "node(s) didn't match Pod's node affinity/selector" end
  local names = {}
  for name in pairs(requests) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    if requests[name] > 0 and (node.free[name] or 0) < requests[name] then return "Insufficient " .. name end
  end
end

-- Puts the pod on the first node that takes it; the node's free space shrinks.
function fit.place(pod, nodes)
  local requests = fit.requests(pod)
  for _, node in ipairs(nodes) do
    if not fit.reason(pod, node, requests) then
      quantity.add(node.free, requests, -1)
      return node
    end
  end
end

local function copy_node(template)
  return { labels = template.labels, taints = template.taints, free = quantity.add({}, template.free) }
end

-- How many new nodes of a template take how many of the pods: the nodes, the pods that found a place.
function fit.estimate(pods, template, most)
  local nodes, placed = {}, {}
  for _, pod in ipairs(pods) do
    local node = fit.place(pod, nodes)
    if not node and #nodes < most then
      local fresh = copy_node(template)
      if fit.place(pod, { fresh }) then
        nodes[#nodes + 1] = fresh
        node = fresh
      end
    end
    if node then placed[#placed + 1] = pod end
  end
  return nodes, placed
end

-- Share of a node that is asked for: the GPU's where it has one, else the larger of CPU and memory.
function fit.utilization(allocatable, used)
  local function share(name)
    local total = allocatable[name] or 0
    return total > 0 and (used[name] or 0) / total or 0
  end
  if (allocatable["nvidia.com/gpu"] or 0) > 0 then return share "nvidia.com/gpu", true end
  return math.max(share "cpu", share "memory"), false
end

return fit
