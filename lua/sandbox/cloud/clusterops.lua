-- SPDX-License-Identifier: Apache-2.0
-- What the cloud does inside the cluster: empties nodes before they are released, and carries changed labels and taints of a
-- pool to its nodes. Plain Kubernetes calls.
local task = require "eirun.core.task"
local instances = require "sandbox.cloud.instances"
local resources = require "sandbox.kubeclient.resources"

local clusterops = {}

local function is_daemon(pod)
  for _, owner in ipairs(pod.metadata.ownerReferences or {}) do
    if owner.kind == "DaemonSet" then return true end
  end
  return (pod.metadata.annotations or {})["kubernetes.io/config.mirror"] ~= nil
end

clusterops.is_daemon = is_daemon

-- Pods of a node that a drain must move, in the order of their names.
local function movable(kube, node_name)
  local list, err = kube:list("pods", { field_selector = "spec.nodeName=" .. node_name })
  if not list then return nil, err end
  local pods = {}
  for _, pod in ipairs(list.items) do
    local phase = pod.status and pod.status.phase
    if not is_daemon(pod) and phase ~= "Succeeded" and phase ~= "Failed" then pods[#pods + 1] = pod end
  end
  return pods
end

-- A 429 means that a disruption budget holds the pod back for now.
local function evict(kube, pod)
  local meta = pod.metadata
  if meta.deletionTimestamp then return true end
  local body = { apiVersion = "policy/v1", kind = "Eviction", metadata = { name = meta.name, namespace = meta.namespace } }
  local ok, err = kube:request("POST", resources.path("pods", meta.namespace, meta.name, "eviction"), body)
  return ok ~= nil or err.kind == "not_found"
end

-- Cordons the node and evicts its pods until none is left. false after `limit` seconds.
function clusterops.drain(kube, node_name, limit)
  local deadline = task.now() + limit
  local ok, err = kube:patch("nodes", nil, node_name, { spec = { unschedulable = true } })
  if not ok and err.kind == "not_found" then return true end
  while task.now() < deadline do
    local pods = movable(kube, node_name)
    if pods and #pods == 0 then return true end
    for _, pod in ipairs(pods or {}) do evict(kube, pod) end
    task.sleep(2)
  end
  return false
end

local function merged_taints(present, before, after)
  local dropped, list = {}, {}
  for _, taint in ipairs(before or {}) do dropped[taint.key .. "/" .. taint.effect] = true end
  for _, taint in ipairs(after or {}) do dropped[taint.key .. "/" .. taint.effect] = true end
  for _, taint in ipairs(present or {}) do
    if not dropped[taint.key .. "/" .. taint.effect] then list[#list + 1] = taint end
  end
  for _, taint in ipairs(after or {}) do list[#list + 1] = taint end
  return list
end

local function update_node(ctx, kube, pool, instance, previous)
  kube:modify("nodes", nil, instance.node_name, function(node)
    for _, label in ipairs(previous.labels or {}) do node.metadata.labels[label.key] = nil end
    for key, value in pairs(instances.labels(ctx, pool, instance)) do node.metadata.labels[key] = value end
    node.spec.taints = merged_taints(node.spec.taints, previous.taints, pool.spec.kubernetes_config.taints)
  end)
end

local function update_pool(ctx, data)
  local pool, kube = ctx.store:get("pool", data.id), ctx.kube_client "system:cloud-controller-manager"
  for _, instance in ctx.store:each "instance" do
    if pool and instance.pool_id == pool.id and instance.ess == "InService" then
      update_node(ctx, kube, pool, instance, data.previous or {})
    end
  end
  kube:close()
end

local function drain_for_task(ctx, data)
  local kube = ctx.kube_client "system:cloud-controller-manager"
  if clusterops.drain(kube, data.node_name, ctx.lag.node_drain_limit) then ctx.emit("node.drained", { id = data.id }) end
  kube:close()
end

-- Drains that a kill interrupted begin again.
local function resume(ctx)
  for _, record in ctx.store:each "task" do
    if record.state == "running" and record.data.drain then
      for _, id in ipairs(record.data.ids) do
        local instance = ctx.store:get("instance", id)
        if instance and not instance.drained then ctx.emit("node.drain", { id = id, node_name = instance.node_name }) end
      end
    end
  end
end

function clusterops.start(ctx)
  ctx.on("node.drain", function(data) ctx.spawn("drain " .. data.node_name, function() drain_for_task(ctx, data) end) end)
  ctx.on("pool.updated", function(data) ctx.spawn("update nodes of " .. data.id, function() update_pool(ctx, data) end) end)
  ctx.on("started", function() resume(ctx) end)
end

return clusterops
