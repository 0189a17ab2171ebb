-- SPDX-License-Identifier: Apache-2.0
-- Who was given which GPUs, from Nodes and Pods alone. As `arena top node` and the scheduler count: whole GPUs by nvidia.com/gpu (MIG
-- instances by nvidia.com/mig-*), shares by aliyun.com/gpu-mem; a pod counts from when it has a node until it has finished.
local M = {}

M.GPU, M.SHARE, M.SHARED_GPUS = "nvidia.com/gpu", "aliyun.com/gpu-mem", "aliyun.com/gpu-count"

-- "4", 4, "2k": counts of extended resources are whole numbers.
local factors = { [""] = 1, k = 1000, M = 1000000, Ki = 1 << 10, Mi = 1 << 20, Gi = 1 << 30 }
local function count(value)
  if type(value) == "number" then return math.tointeger(value // 1) end
  local digits, unit = tostring(value or "0"):match "^(%d+)(%a*)$"
  return digits and factors[unit] and math.tointeger(tonumber(digits)) * factors[unit] or 0
end

local function asked(container, resource)
  local resources = type(container.resources) == "table" and container.resources or {}
  local requests, limits = type(resources.requests) == "table" and resources.requests or {}, resources.limits
  limits = type(limits) == "table" and limits or {}
  return count(requests[resource] or limits[resource])
end

---What a pod is given: its containers together, or its neediest init container, whichever is more, and its overhead; sidecars run all
---the time.
---@param pod table
---@param resource string
---@return integer
---Example: `allocation.of_pod(pod, "nvidia.com/gpu")`. Raises nothing.
function M.of_pod(pod, resource)
  local spec = pod.spec or {}
  local sum, sidecars, most = 0, 0, 0
  for _, container in ipairs(spec.initContainers or {}) do
    if container.restartPolicy == "Always" then
      sidecars = sidecars + asked(container, resource)
    else
      most = math.max(most, asked(container, resource) + sidecars)
    end
  end
  for _, container in ipairs(spec.containers or {}) do sum = sum + asked(container, resource) end
  return math.max(sum + sidecars, most) + count((spec.overhead or {})[resource])
end

---Does it still hold what it was given?
---@param pod table
---@return boolean
---Example: `allocation.is_live(pod)`. Raises nothing.
function M.is_live(pod)
  local phase = (pod.status or {}).phase
  return phase ~= "Succeeded" and phase ~= "Failed"
end

---Whole GPUs of a pod, MIG instances counted as themselves, and its share of memory.
---@param pod table
---@return {gpus: integer, mig: integer, share: integer}
---Example: `allocation.wish(pod).gpus`. Raises nothing.
function M.wish(pod)
  local mig, seen, spec = 0, {}, pod.spec or {}
  for _, list in ipairs { spec.containers or {}, spec.initContainers or {} } do
    for _, container in ipairs(list) do
      for name in pairs((container.resources or {}).limits or {}) do
        if name:find "^nvidia%.com/mig%-" and not seen[name] then
          seen[name] = true
          mig = mig + M.of_pod(pod, name)
        end
      end
    end
  end
  return { gpus = M.of_pod(pod, M.GPU), mig = mig, share = M.of_pod(pod, M.SHARE) }
end

local function sum_mig(map)
  local sum = 0
  for name, value in pairs(map or {}) do
    if name:find "^nvidia%.com/mig%-" then sum = sum + count(value) end
  end
  return sum
end

---What a node has. On a node that shares its GPUs, their number is aliyun.com/gpu-count.
---@param node table
---@return {gpus: integer, allocatable: integer, mig: integer, share: integer, mode: "none"|"exclusive"|"share"|"mig"}
---Example: `allocation.of_node(node).gpus`. Raises nothing.
function M.of_node(node)
  local status = node.status or {}
  local capacity, free = status.capacity or {}, status.allocatable or {}
  local share, mig = count(capacity[M.SHARE]), sum_mig(capacity)
  if share > 0 then
    local gpus = math.max(1, count(capacity[M.SHARED_GPUS]))
    return { gpus = gpus, allocatable = count(free[M.SHARE]) > 0 and gpus or 0, mig = 0, share = share, mode = "share" }
  end
  local gpus = count(capacity[M.GPU])
  return { gpus = gpus, allocatable = count(free[M.GPU] or 0), mig = mig, share = 0,
    mode = mig > 0 and "mig" or gpus > 0 and "exclusive" or "none" }
end

local spot_labels = {
  { "node.alibabacloud.com/spot-strategy", { SpotAsPriceGo = true, SpotWithPriceLimit = true } },
  { "karpenter.sh/capacity-type", { spot = true } }, { "eks.amazonaws.com/capacityType", { SPOT = true } },
  { "cloud.google.com/gke-spot", { ["true"] = true } }, { "kubernetes.azure.com/scalesetpriority", { spot = true } },
}

---@param labels table<string, string>
---@return "spot"|"on-demand"|nil nil where no label tells
---Example: `allocation.billing(node.metadata.labels)`. Raises nothing.
function M.billing(labels)
  local known
  for _, row in ipairs(spot_labels) do
    local value = labels[row[1]]
    if value ~= nil then
      known = true
      if row[2][value] then return "spot" end
    end
  end
  return known and "on-demand" or nil
end

local models = { "aliyun.accelerator/nvidia_name", "nvidia.com/gpu.product", "cloud.google.com/gke-accelerator",
  "k8s.amazonaws.com/accelerator" }

---@param labels table<string, string>
---@return string|nil
---Example: `allocation.model(node.metadata.labels)` is "Tesla-T4". Raises nothing.
function M.model(labels)
  for _, name in ipairs(models) do
    if labels[name] then return labels[name] end
  end
end

---The job that a pod belongs to: arena's labels, else its application, else its controller, else itself.
---@param pod table
---@return {namespace: string, name: string, version?: string, kind: string}
---Example: `allocation.job_of(pod).name` is "bert-tfserving". Raises nothing.
function M.job_of(pod)
  local metadata = pod.metadata or {}
  local labels = type(metadata.labels) == "table" and metadata.labels or {}
  local namespace = metadata.namespace or "default"
  if labels.servingName then
    return { namespace = namespace, name = labels.servingName, version = labels.servingVersion, kind = "serving" }
  end
  for _, owner in ipairs(metadata.ownerReferences or {}) do
    if owner.controller then
      local hash = labels["pod-template-hash"]
      local name = owner.name or "?"
      if owner.kind == "ReplicaSet" and hash and name:sub(-#hash - 1) == "-" .. hash then
        return { namespace = namespace, name = name:sub(1, -#hash - 2), kind = "Deployment" }
      end
      return { namespace = namespace, name = name, kind = owner.kind or "?" }
    end
  end
  return { namespace = namespace, name = metadata.name or "?", kind = "Pod" }
end

return M
