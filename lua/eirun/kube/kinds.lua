-- SPDX-License-Identifier: Apache-2.0
-- From kind to path. Plurals follow no rule, so the common ones stand in a table; what is not in it is asked of the server.
local M = {}

-- kind, apiVersion, plural, namespaced, short names
local rows = {
  { "ConfigMap", "v1", "configmaps", true, "cm" },
  { "Endpoints", "v1", "endpoints", true, "ep" },
  { "Event", "v1", "events", true, "ev" },
  { "Namespace", "v1", "namespaces", false, "ns" },
  { "Node", "v1", "nodes", false, "no" },
  { "PersistentVolume", "v1", "persistentvolumes", false, "pv" },
  { "PersistentVolumeClaim", "v1", "persistentvolumeclaims", true, "pvc" },
  { "Pod", "v1", "pods", true, "po" },
  { "ResourceQuota", "v1", "resourcequotas", true, "quota" },
  { "LimitRange", "v1", "limitranges", true, "limits" },
  { "Secret", "v1", "secrets", true },
  { "Service", "v1", "services", true, "svc" },
  { "ServiceAccount", "v1", "serviceaccounts", true, "sa" },
  { "DaemonSet", "apps/v1", "daemonsets", true, "ds" },
  { "Deployment", "apps/v1", "deployments", true, "deploy" },
  { "ReplicaSet", "apps/v1", "replicasets", true, "rs" },
  { "StatefulSet", "apps/v1", "statefulsets", true, "sts" },
  { "CronJob", "batch/v1", "cronjobs", true, "cj" },
  { "Job", "batch/v1", "jobs", true },
  { "HorizontalPodAutoscaler", "autoscaling/v2", "horizontalpodautoscalers", true, "hpa" },
  { "Ingress", "networking.k8s.io/v1", "ingresses", true, "ing" },
  { "IngressClass", "networking.k8s.io/v1", "ingressclasses", false },
  { "NetworkPolicy", "networking.k8s.io/v1", "networkpolicies", true, "netpol" },
  { "PodDisruptionBudget", "policy/v1", "poddisruptionbudgets", true, "pdb" },
  { "Lease", "coordination.k8s.io/v1", "leases", true },
  { "EndpointSlice", "discovery.k8s.io/v1", "endpointslices", true },
  { "StorageClass", "storage.k8s.io/v1", "storageclasses", false, "sc" },
  { "PriorityClass", "scheduling.k8s.io/v1", "priorityclasses", false, "pc" },
  { "CustomResourceDefinition", "apiextensions.k8s.io/v1", "customresourcedefinitions", false, "crd" },
  { "APIService", "apiregistration.k8s.io/v1", "apiservices", false },
  { "ClusterRole", "rbac.authorization.k8s.io/v1", "clusterroles", false },
  { "ClusterRoleBinding", "rbac.authorization.k8s.io/v1", "clusterrolebindings", false },
  { "Role", "rbac.authorization.k8s.io/v1", "roles", true },
  { "RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings", true },
}

---@class eirun.KindInfo
---@field kind string
---@field api_version string
---@field plural string
---@field namespaced boolean

local by_kind, by_word = {}, {}
for _, row in ipairs(rows) do
  local info = { kind = row[1], api_version = row[2], plural = row[3], namespaced = row[4] }
  by_kind[info.kind] = info
  by_word[info.kind:lower()], by_word[info.plural] = info, info
  if row[5] then by_word[row[5]] = info end
end

local function copy(info)
  local new = {}
  for key, value in pairs(info) do new[key] = value end
  return new
end

---What is known of a kind without asking; nil when a server must be asked.
---@param kind string
---@param api_version? string
---@return eirun.KindInfo|nil
function M.known(kind, api_version)
  local info = by_kind[kind]
  if not info or (api_version and api_version ~= info.api_version) then return nil end
  return copy(info)
end

---A word as people write it, parted: `deployments.v1.apps` names plural (or short name), version and group.
---@param word string
---@return string name
---@return string|nil group
---@return string|nil version
function M.parts(word)
  local name, version, group = word:match("^([^.]+)%.(v%d[%w]*)%.?(.*)$")
  if name then return name:lower(), group, version end
  name, group = word:match("^([^.]+)%.(.+)$")
  return (name or word):lower(), group
end

---What is known of a plural, singular or short name (`po`, `deploy`, `deployments.apps`) without asking.
---@param word string
---@return eirun.KindInfo|nil
function M.named(word)
  local name, group, version = M.parts(word)
  local info = by_word[name]
  if not info then return nil end
  local own_group, own_version = M.group(info.api_version)
  if group and group ~= own_group or version and version ~= own_version then return nil end
  return copy(info)
end

---Group ("" for core) and version of an API version.
---@param api_version string
---@return string group
---@return string version
function M.group(api_version)
  local group, version = api_version:match("^(.+)/(.+)$")
  return group or "", version or api_version
end

---The resource as the server's messages and `-o name` write it: `deployments.apps`, `pods`.
---@param info eirun.KindInfo
---@return string
function M.resource(info)
  local group = M.group(info.api_version)
  return group == "" and info.plural or info.plural .. "." .. group
end

---The path of an API version: `/api/v1` or `/apis/apps/v1`.
---@param api_version string
---@return string
function M.base(api_version)
  return (api_version:find("/", 1, true) and "/apis/" or "/api/") .. api_version
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
