-- SPDX-License-Identifier: Apache-2.0
-- Every served resource as data. Rows: plural, kind, group/version, scope and what it can do.
local resources = {}

local ALL = { "all" }

-- ns: namespaced. short, categories: as `kubectl api-resources` shows them. status: has a status subresource.
-- generation: counts spec changes (notes_count: those of annotations too).
-- keep: DELETE answers the object instead of a Status. fields: field selectors beside
-- metadata.name and metadata.namespace, path -> where the value is. upsert: PUT creates what is missing.
local TABLE = {
  { "pods", "Pod", "v1", ns = true, short = { "po" }, categories = ALL, status = true, generation = true, keep = true,
    subs = { "log", "eviction", "binding", "exec", "attach", "portforward", "ephemeralcontainers", "proxy" },
    fields = { "spec.nodeName", "status.phase", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName",
      "status.podIP", "status.nominatedNodeName", "spec.hostNetwork" } },
  { "services", "Service", "v1", ns = true, short = { "svc" }, categories = ALL, status = true, keep = true, subs = { "proxy" },
    fields = { "spec.clusterIP", "spec.type" } },
  { "endpoints", "Endpoints", "v1", ns = true, short = { "ep" },
    warning = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice" },
  { "nodes", "Node", "v1", short = { "no" }, status = true, subs = { "proxy" }, fields = { "spec.unschedulable" } },
  { "namespaces", "Namespace", "v1", short = { "ns" }, status = true, keep = true, subs = { "finalize" },
    fields = { "status.phase" } },
  { "configmaps", "ConfigMap", "v1", ns = true, short = { "cm" } },
  { "secrets", "Secret", "v1", ns = true, fields = { "type" } },
  { "persistentvolumes", "PersistentVolume", "v1", short = { "pv" }, status = true, keep = true },
  { "persistentvolumeclaims", "PersistentVolumeClaim", "v1", ns = true, short = { "pvc" }, status = true, keep = true },
  { "serviceaccounts", "ServiceAccount", "v1", ns = true, short = { "sa" }, keep = true, subs = { "token" } },
  { "events", "Event", "v1", ns = true, short = { "ev" }, upsert = true,
    fields = { "involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
      "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "type",
      "reportingComponent", "source" } },
  { "podtemplates", "PodTemplate", "v1", ns = true, generation = true, keep = true },
  { "replicationcontrollers", "ReplicationController", "v1", ns = true, short = { "rc" }, categories = ALL, status = true,
    generation = true, scale = true },
  { "resourcequotas", "ResourceQuota", "v1", ns = true, short = { "quota" }, status = true, keep = true },
  { "limitranges", "LimitRange", "v1", ns = true, short = { "limits" } },
  { "deployments", "Deployment", "apps/v1", ns = true, short = { "deploy" }, categories = ALL, status = true,
    generation = true, notes_count = true, scale = true },
  { "replicasets", "ReplicaSet", "apps/v1", ns = true, short = { "rs" }, categories = ALL, status = true,
    generation = true, scale = true },
  { "statefulsets", "StatefulSet", "apps/v1", ns = true, short = { "sts" }, categories = ALL, status = true,
    generation = true, scale = true },
  { "daemonsets", "DaemonSet", "apps/v1", ns = true, short = { "ds" }, categories = ALL, status = true, generation = true },
  { "controllerrevisions", "ControllerRevision", "apps/v1", ns = true },
  { "jobs", "Job", "batch/v1", ns = true, categories = ALL, status = true, generation = true, fields = { "status.successful" } },
  { "cronjobs", "CronJob", "batch/v1", ns = true, short = { "cj" }, categories = ALL, status = true, generation = true },
  { "horizontalpodautoscalers", "HorizontalPodAutoscaler", "autoscaling/v2", ns = true, short = { "hpa" }, categories = ALL,
    status = true },
  { "ingresses", "Ingress", "networking.k8s.io/v1", ns = true, short = { "ing" }, status = true, generation = true },
  { "ingressclasses", "IngressClass", "networking.k8s.io/v1", generation = true },
  { "networkpolicies", "NetworkPolicy", "networking.k8s.io/v1", ns = true, short = { "netpol" }, generation = true },
  { "poddisruptionbudgets", "PodDisruptionBudget", "policy/v1", ns = true, short = { "pdb" }, status = true, generation = true },
  { "leases", "Lease", "coordination.k8s.io/v1", ns = true, upsert = true, need_rv = true },
  { "endpointslices", "EndpointSlice", "discovery.k8s.io/v1", ns = true, generation = true },
  { "storageclasses", "StorageClass", "storage.k8s.io/v1", short = { "sc" }, keep = true },
  { "csidrivers", "CSIDriver", "storage.k8s.io/v1", keep = true },
  { "csinodes", "CSINode", "storage.k8s.io/v1", keep = true },
  { "volumeattachments", "VolumeAttachment", "storage.k8s.io/v1", status = true, keep = true },
  { "roles", "Role", "rbac.authorization.k8s.io/v1", ns = true },
  { "rolebindings", "RoleBinding", "rbac.authorization.k8s.io/v1", ns = true },
  { "clusterroles", "ClusterRole", "rbac.authorization.k8s.io/v1" },
  { "clusterrolebindings", "ClusterRoleBinding", "rbac.authorization.k8s.io/v1" },
  { "priorityclasses", "PriorityClass", "scheduling.k8s.io/v1", short = { "pc" }, generation = true },
  { "apiservices", "APIService", "apiregistration.k8s.io/v1", categories = { "api-extensions" }, status = true },
  { "customresourcedefinitions", "CustomResourceDefinition", "apiextensions.k8s.io/v1", short = { "crd", "crds" },
    categories = { "api-extensions" }, status = true, generation = true },
}

-- Posted, answered, never stored.
local REVIEWS = {
  { "selfsubjectaccessreviews", "SelfSubjectAccessReview", "authorization.k8s.io/v1" },
  { "selfsubjectrulesreviews", "SelfSubjectRulesReview", "authorization.k8s.io/v1" },
  { "subjectaccessreviews", "SubjectAccessReview", "authorization.k8s.io/v1" },
  { "selfsubjectreviews", "SelfSubjectReview", "authentication.k8s.io/v1" },
  { "tokenreviews", "TokenReview", "authentication.k8s.io/v1" },
}

local VERBS = { "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch" }
local FIELD_WORDS = { "metadata.name", "metadata.namespace" }

local function split_version(text)
  local group, version = text:match("^(.*)/(.*)$")
  return group or "", version or text
end

local function fields_of(row)
  local known = {}
  for _, list in ipairs { row.ns and FIELD_WORDS or { FIELD_WORDS[1] }, row.fields or {} } do
    for _, path in ipairs(list) do
      local keys = {}
      for key in path:gmatch("[^.]+") do keys[#keys + 1] = key end
      known[path] = keys
    end
  end
  return known
end

local function finish(row)
  local group, version = split_version(row[3])
  local r = {
    plural = row[1], kind = row[2], group = group, version = version, api_version = row[3],
    singular = row[2]:lower(), namespaced = row.ns or false, short = row.short, categories = row.categories,
    status = row.status, scale = row.scale, generation = row.generation, notes_count = row.notes_count,
    keep = row.keep, upsert = row.upsert,
    need_rv = row.need_rv, warning = row.warning,
    subs = row.subs or {}, verbs = row.verbs or VERBS, fields = fields_of(row), extra_fields = row.fields,
    id = group == "" and row[1] or row[1] .. "." .. group,
    schema = (group == "" and "core" or group:match("^[^.]+")) .. "." .. version .. "." .. row[2],
  }
  r.head = ('{"kind":"%s","apiVersion":"%s",'):format(r.kind, r.api_version)
  return r
end

resources.list, resources.by_id, resources.reviews = {}, {}, {}
for i, row in ipairs(TABLE) do
  local r = finish(row)
  resources.list[i] = r
  resources.by_id[r.id] = r
  resources[r.plural] = r
end
for i, row in ipairs(REVIEWS) do
  row.verbs = { "create" }
  resources.reviews[i] = finish(row)
end

-- events.k8s.io/v1 shows the same events as core/v1 in other words.
local new_events = finish { "events", "Event", "events.k8s.io/v1", ns = true, short = { "ev" }, upsert = true }
new_events.storage = resources.events
new_events.fields["reason"], new_events.fields["type"] = { "reason" }, { "type" }
resources.list[#resources.list + 1] = new_events
resources.new_events = new_events

-- Group-versions in the order of discovery: core first, then groups by name: list of {group, version, api_version, rows}.
function resources.group_versions()
  local list, seen = {}, {}
  for _, rows in ipairs { resources.list, resources.reviews } do
    for _, r in ipairs(rows) do
      if not seen[r.api_version] then
        seen[r.api_version] = { group = r.group, version = r.version, api_version = r.api_version, rows = {} }
        list[#list + 1] = seen[r.api_version]
      end
      table.insert(seen[r.api_version].rows, r)
    end
  end
  table.sort(list, function(a, b) return a.api_version < b.api_version end)
  for i, gv in ipairs(list) do
    if gv.group == "" then table.insert(list, 1, table.remove(list, i)) end
  end
  for _, gv in ipairs(list) do
    table.sort(gv.rows, function(a, b) return a.plural < b.plural end)
  end
  return list
end

local by_path = {}
for _, rows in ipairs { resources.list, resources.reviews } do
  for _, r in ipairs(rows) do by_path[r.api_version .. "/" .. r.plural] = r end
end

-- The resource of an API path's parts; nil when it is not served.
function resources.find(api_version, plural)
  return by_path[api_version .. "/" .. plural]
end

-- The stored resource of a kind, as in ownerReferences.
function resources.of_kind(api_version, kind)
  for _, r in ipairs(resources.list) do
    if r.kind == kind and (r.api_version == api_version) then return r end
  end
end

return resources
