-- SPDX-License-Identifier: Apache-2.0
-- Where each kind lives: the table that turns ("pods", "default", "web-0") into a path.
local M = {}

local groups = {
  { "", "v1", {
    { "pods", "Pod" }, { "services", "Service" }, { "endpoints", "Endpoints" }, { "configmaps", "ConfigMap" },
    { "secrets", "Secret" }, { "events", "Event" }, { "persistentvolumeclaims", "PersistentVolumeClaim" },
    { "serviceaccounts", "ServiceAccount" }, { "resourcequotas", "ResourceQuota" }, { "nodes", "Node", true },
    { "namespaces", "Namespace", true }, { "persistentvolumes", "PersistentVolume", true },
  } },
  { "apps", "v1", {
    { "deployments", "Deployment" }, { "replicasets", "ReplicaSet" }, { "daemonsets", "DaemonSet" }, { "statefulsets", "StatefulSet" },
  } },
  { "autoscaling", "v2", { { "horizontalpodautoscalers", "HorizontalPodAutoscaler" } } },
  { "batch", "v1", { { "jobs", "Job" }, { "cronjobs", "CronJob" } } },
  { "coordination.k8s.io", "v1", { { "leases", "Lease" } } },
  { "discovery.k8s.io", "v1", { { "endpointslices", "EndpointSlice" } } },
  { "networking.k8s.io", "v1", { { "ingresses", "Ingress" }, { "ingressclasses", "IngressClass", true } } },
  { "policy", "v1", { { "poddisruptionbudgets", "PodDisruptionBudget" } } },
  { "storage.k8s.io", "v1", { { "storageclasses", "StorageClass", true }, { "csinodes", "CSINode", true } } },
  { "apiregistration.k8s.io", "v1", { { "apiservices", "APIService", true } } },
}

local known = {}
for _, group in ipairs(groups) do
  for _, row in ipairs(group[3]) do
    known[row[1]] = { group = group[1], version = group[2], plural = row[1], kind = row[2], cluster = row[3] or false }
  end
end

---@param resource string|table plural name of a kind above, or `{group=, version=, plural=, kind=, cluster=}`
---@return table
function M.find(resource)
  if type(resource) == "table" then return resource end
  return known[resource] or error("no resource is called '" .. tostring(resource) .. "'", 3)
end

function M.api_version(resource)
  local it = M.find(resource)
  return it.group == "" and it.version or it.group .. "/" .. it.version
end

---@return string path `/api/v1/namespaces/default/pods/web-0/status`
function M.path(resource, namespace, name, subresource)
  local it = M.find(resource)
  local parts = { it.group == "" and "/api/" .. it.version or "/apis/" .. it.group .. "/" .. it.version }
  if namespace and not it.cluster then parts[#parts + 1] = "namespaces/" .. namespace end
  parts[#parts + 1] = it.plural
  if name then parts[#parts + 1] = name end
  if subresource then parts[#parts + 1] = subresource end
  return table.concat(parts, "/")
end

---Fills apiVersion and kind where the caller left them out; returns the object.
function M.stamp(resource, object)
  local it = M.find(resource)
  object.apiVersion = object.apiVersion or M.api_version(it)
  object.kind = object.kind or it.kind
  return object
end

return M
