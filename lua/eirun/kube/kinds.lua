-- SPDX-License-Identifier: Apache-2.0
-- From kind to path. Plurals follow no rule, so they stand in a table; what is not in it is asked of the server once.
local M = {}

-- kind -> apiVersion, plural, namespaced
local known = {
  ConfigMap = { "v1", "configmaps", true },
  Endpoints = { "v1", "endpoints", true },
  Event = { "v1", "events", true },
  Namespace = { "v1", "namespaces", false },
  Node = { "v1", "nodes", false },
  PersistentVolume = { "v1", "persistentvolumes", false },
  PersistentVolumeClaim = { "v1", "persistentvolumeclaims", true },
  Pod = { "v1", "pods", true },
  ResourceQuota = { "v1", "resourcequotas", true },
  Secret = { "v1", "secrets", true },
  Service = { "v1", "services", true },
  ServiceAccount = { "v1", "serviceaccounts", true },
  DaemonSet = { "apps/v1", "daemonsets", true },
  Deployment = { "apps/v1", "deployments", true },
  ReplicaSet = { "apps/v1", "replicasets", true },
  StatefulSet = { "apps/v1", "statefulsets", true },
  CronJob = { "batch/v1", "cronjobs", true },
  Job = { "batch/v1", "jobs", true },
  HorizontalPodAutoscaler = { "autoscaling/v2", "horizontalpodautoscalers", true },
  Ingress = { "networking.k8s.io/v1", "ingresses", true },
  IngressClass = { "networking.k8s.io/v1", "ingressclasses", false },
  NetworkPolicy = { "networking.k8s.io/v1", "networkpolicies", true },
  PodDisruptionBudget = { "policy/v1", "poddisruptionbudgets", true },
  Lease = { "coordination.k8s.io/v1", "leases", true },
  StorageClass = { "storage.k8s.io/v1", "storageclasses", false },
  CustomResourceDefinition = { "apiextensions.k8s.io/v1", "customresourcedefinitions", false },
  APIService = { "apiregistration.k8s.io/v1", "apiservices", false },
  ClusterRole = { "rbac.authorization.k8s.io/v1", "clusterroles", false },
  ClusterRoleBinding = { "rbac.authorization.k8s.io/v1", "clusterrolebindings", false },
  Role = { "rbac.authorization.k8s.io/v1", "roles", true },
  RoleBinding = { "rbac.authorization.k8s.io/v1", "rolebindings", true },
}

---@class eirun.KindInfo
---@field kind string
---@field api_version string
---@field plural string
---@field namespaced boolean

---What is known of a kind without asking; nil when a server must be asked.
---@param kind string
---@param api_version? string
---@return eirun.KindInfo|nil
function M.known(kind, api_version)
  local row = known[kind]
  if not row or (api_version and api_version ~= row[1]) then return nil end
  return { kind = kind, api_version = row[1], plural = row[2], namespaced = row[3] }
end

---The path of an API version: `/api/v1` or `/apis/apps/v1`.
---@param api_version string
---@return string
function M.base(api_version)
  return (api_version:find("/", 1, true) and "/apis/" or "/api/") .. api_version
end

---The entry of a kind in an APIResourceList; subresources have a slash in their name.
---@param list table
---@param kind string
---@param api_version string
---@return eirun.KindInfo|nil
function M.find(list, kind, api_version)
  for _, entry in ipairs(list.resources or {}) do
    if entry.kind == kind and not entry.name:find("/", 1, true) then
      return { kind = kind, api_version = api_version, plural = entry.name, namespaced = entry.namespaced == true }
    end
  end
end

---The path of a collection or of an object.
---@param info eirun.KindInfo
---@param namespace string|nil
---@param name string|nil
---@param subresource string|nil
---@return string
function M.path(info, namespace, name, subresource)
  local path = M.base(info.api_version)
  if info.namespaced and namespace then path = path .. "/namespaces/" .. namespace end
  path = path .. "/" .. info.plural
  if name then path = path .. "/" .. name end
  return subresource and path .. "/" .. subresource or path
end

return M
