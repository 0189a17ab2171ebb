-- SPDX-License-Identifier: Apache-2.0
-- The ConfigMap that arena keeps a job's books in: which objects belong to it, one a line. Arena deletes what stands there.
local ensure = require "eirun.kube.ensure"
local step = require "eirun.step"

local M = {}

local function lines_of(text)
  local list = {}
  for line in (text or ""):gmatch("[^\n]+") do list[#list + 1] = line end
  return list
end

---The lines that stand in a job's books; empty when there are none.
---@param k8s eirun.KubeClient
---@param name string of the ConfigMap
---@return string[] lines
---@return table|nil object
function M.read(k8s, name)
  local live = k8s:get("ConfigMap", name)
  return lines_of(live and (live.data or {}).app), live
end

-- The kinds that a job makes itself. What else stands in the books was added to it: its autoscaler, its Ingress.
local own_kinds = { configmap = true, service = true, ["deployment.apps"] = true, ["poddisruptionbudget.policy"] = true,
  ["virtualservice.networking.istio.io"] = true, ["destinationrule.networking.istio.io"] = true, ["gateway.networking.istio.io"] = true }

local function kind_of(line) return line:match("^(.-)/") end

---The lines for the books: the job's own objects and what was added to it; and those that it made once and makes no more.
---@param before string[]
---@param own string[]
---@return string[] lines
---@return string[] dropped
function M.merge(before, own)
  local is_own, lines, dropped = {}, table.move(own, 1, #own, 1, {}), {}
  for _, line in ipairs(own) do is_own[line] = true end
  for _, line in ipairs(before) do
    if not is_own[line] then
      local list = own_kinds[kind_of(line)] and dropped or lines
      list[#list + 1] = line
    end
  end
  return lines, dropped
end

-- What kubectl calls a kind, by the word in the books.
local names = {
  configmap = "ConfigMap", service = "Service", secret = "Secret", ["deployment.apps"] = "Deployment",
  ["horizontalpodautoscaler.autoscaling"] = "HorizontalPodAutoscaler", ["ingress.networking.k8s.io"] = "Ingress",
  ["networkpolicy.networking.k8s.io"] = "NetworkPolicy", ["poddisruptionbudget.policy"] = "PodDisruptionBudget",
  ["virtualservice.networking.istio.io"] = "networking.istio.io/v1alpha3/VirtualService",
  ["destinationrule.networking.istio.io"] = "networking.istio.io/v1alpha3/DestinationRule",
  ["gateway.networking.istio.io"] = "networking.istio.io/v1alpha3/Gateway",
}

---Kind and name of a line; nil for a kind that is not known here.
---@param line string `deployment.apps/web`
---@return string|nil kind
---@return string|nil name
function M.object_of(line)
  local word, name = line:match("^([^/]+)/(.+)$")
  return names[word], name
end

---Deletes what a job made once and makes no more.
---@param k8s eirun.KubeClient
---@param dropped string[]
function M.prune(k8s, dropped)
  for _, line in ipairs(dropped) do
    local kind, name = M.object_of(line)
    local live = kind and k8s:get(kind, name)
    if live and ((live.metadata or {}).labels or {})[ensure.OWNER_LABEL] == ensure.OWNER then
      k8s:delete(kind, name, { uid = live.metadata.uid })
      step.record { kind = kind, name = name, outcome = "deleted", changes = {} }
    end
  end
end

return M
