-- SPDX-License-Identifier: Apache-2.0
-- The defaults of the API types (pkg/apis/*/v1/defaults.go of Kubernetes): a field that is nil gets its value.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"

local defaults = {}

local function fill(t, values)
  for key, v in pairs(values) do
    if t[key] == nil then t[key] = v end
  end
end

local function pull_policy(image)
  local last = (image or ""):match("[^/]*$")
  local tag = last:match(":([^@]*)")
  if image and image:find("@", 1, true) then return "IfNotPresent" end
  return (tag == nil or tag == "latest") and "Always" or "IfNotPresent"
end

local function probe(p)
  if not p then return end
  fill(p, { timeoutSeconds = 1, periodSeconds = 10, successThreshold = 1, failureThreshold = 3 })
  if p.httpGet then fill(p.httpGet, { path = "/", scheme = "HTTP" }) end
  if p.grpc then fill(p.grpc, { service = "" }) end
end

local function requests_from_limits(resources)
  if not resources or not resources.limits then return end
  resources.requests = resources.requests or {}
  fill(resources.requests, resources.limits)
end

local function container(c, in_pod)
  fill(c, { terminationMessagePath = "/dev/termination-log", terminationMessagePolicy = "File", resources = {},
    imagePullPolicy = pull_policy(c.image) })
  for _, port in ipairs(c.ports or {}) do fill(port, { protocol = "TCP" }) end
  for _, env in ipairs(c.env or {}) do
    local ref = env.valueFrom and env.valueFrom.fieldRef
    if ref then fill(ref, { apiVersion = "v1" }) end
  end
  probe(c.livenessProbe)
  probe(c.readinessProbe)
  probe(c.startupProbe)
  if in_pod then requests_from_limits(c.resources) end
end

local VOLUME_SOURCES = {
  configMap = { defaultMode = 420 }, secret = { defaultMode = 420 }, downwardAPI = { defaultMode = 420 },
  projected = { defaultMode = 420 }, hostPath = { type = "" },
}

local function volume(v)
  local source
  for key in pairs(v) do
    if key ~= "name" then source = key end
  end
  if not source then v.emptyDir = {} end
  if source and VOLUME_SOURCES[source] then fill(v[source], VOLUME_SOURCES[source]) end
end

-- in_pod: a Pod itself, not a template: limits become requests there.
function defaults.pod_spec(spec, in_pod)
  fill(spec, { restartPolicy = "Always", dnsPolicy = "ClusterFirst", schedulerName = "default-scheduler",
    terminationGracePeriodSeconds = 30, securityContext = {} })
  for _, list in ipairs { spec.initContainers or {}, spec.containers or {} } do
    for _, c in ipairs(list) do container(c, in_pod) end
  end
  for _, v in ipairs(spec.volumes or {}) do volume(v) end
  if spec.serviceAccountName and not spec.serviceAccount then spec.serviceAccount = spec.serviceAccountName end
end

local function template(spec)
  spec.template = spec.template or {}
  spec.template.metadata = spec.template.metadata or {}
  spec.template.spec = spec.template.spec or {}
  defaults.pod_spec(spec.template.spec, false)
end

local kinds = {}
defaults.kinds = kinds

function kinds.pods(pod)
  pod.spec = pod.spec or {}
  fill(pod.spec, { enableServiceLinks = true })
  defaults.pod_spec(pod.spec, true)
end

kinds["deployments.apps"] = function(d)
  d.spec = d.spec or {}
  fill(d.spec, { replicas = 1, revisionHistoryLimit = 10, progressDeadlineSeconds = 600, strategy = {} })
  fill(d.spec.strategy, { type = "RollingUpdate" })
  if d.spec.strategy.type == "RollingUpdate" then
    d.spec.strategy.rollingUpdate = d.spec.strategy.rollingUpdate or {}
    fill(d.spec.strategy.rollingUpdate, { maxSurge = "25%", maxUnavailable = "25%" })
  end
  template(d.spec)
end

kinds["replicasets.apps"] = function(rs)
  rs.spec = rs.spec or {}
  fill(rs.spec, { replicas = 1 })
  template(rs.spec)
end

kinds["statefulsets.apps"] = function(s)
  s.spec = s.spec or {}
  fill(s.spec, { replicas = 1, revisionHistoryLimit = 10, podManagementPolicy = "OrderedReady", updateStrategy = {},
    persistentVolumeClaimRetentionPolicy = {} })
  fill(s.spec.persistentVolumeClaimRetentionPolicy, { whenDeleted = "Retain", whenScaled = "Retain" })
  fill(s.spec.updateStrategy, { type = "RollingUpdate" })
  if s.spec.updateStrategy.type == "RollingUpdate" then
    s.spec.updateStrategy.rollingUpdate = s.spec.updateStrategy.rollingUpdate or {}
    fill(s.spec.updateStrategy.rollingUpdate, { partition = 0 })
  end
  template(s.spec)
  for _, claim in ipairs(s.spec.volumeClaimTemplates or {}) do
    fill(claim, { kind = "PersistentVolumeClaim", apiVersion = "v1" })
    kinds.persistentvolumeclaims(claim)
  end
end

kinds["daemonsets.apps"] = function(ds)
  ds.spec = ds.spec or {}
  ds.metadata.annotations = ds.metadata.annotations or {}
  fill(ds.metadata.annotations, { ["deprecated.daemonset.template.generation"] = "1" })
  fill(ds.spec, { revisionHistoryLimit = 10, updateStrategy = {} })
  fill(ds.spec.updateStrategy, { type = "RollingUpdate" })
  if ds.spec.updateStrategy.type == "RollingUpdate" then
    ds.spec.updateStrategy.rollingUpdate = ds.spec.updateStrategy.rollingUpdate or {}
    fill(ds.spec.updateStrategy.rollingUpdate, { maxSurge = 0, maxUnavailable = 1 })
  end
  template(ds.spec)
end

kinds["jobs.batch"] = function(job)
  job.spec = job.spec or {}
  local spec = job.spec
  fill(spec, { manualSelector = false })
  if spec.completions == nil and spec.parallelism == nil then fill(spec, { completions = 1 }) end
  fill(spec, { parallelism = 1, backoffLimit = 6, completionMode = "NonIndexed", suspend = false,
    podReplacementPolicy = spec.podFailurePolicy and "Failed" or "TerminatingOrFailed" })
  template(spec)
end

kinds["cronjobs.batch"] = function(cj)
  cj.spec = cj.spec or {}
  fill(cj.spec, { concurrencyPolicy = "Allow", suspend = false, successfulJobsHistoryLimit = 3, failedJobsHistoryLimit = 1 })
  cj.spec.jobTemplate = cj.spec.jobTemplate or {}
  fill(cj.spec.jobTemplate, { metadata = {}, spec = {} })
  template(cj.spec.jobTemplate.spec)
end

function kinds.services(svc)
  svc.spec = svc.spec or {}
  local spec = svc.spec
  fill(spec, { type = "ClusterIP", sessionAffinity = "None" })
  for _, port in ipairs(spec.ports or {}) do fill(port, { protocol = "TCP", targetPort = port.port }) end
  if spec.type == "ExternalName" then return end
  fill(spec, { internalTrafficPolicy = "Cluster" })
  if spec.type ~= "ClusterIP" then fill(spec, { externalTrafficPolicy = "Cluster" }) end
  if spec.type == "LoadBalancer" then fill(spec, { allocateLoadBalancerNodePorts = true }) end
end

function kinds.secrets(secret)
  fill(secret, { type = "Opaque" })
  if not secret.stringData then return end
  local data = {}
  for key, v in pairs(secret.data or {}) do data[key] = v end
  for key, text in pairs(secret.stringData) do data[key] = crypto.base64(text) end
  secret.data, secret.stringData = data, nil
end

function kinds.persistentvolumes(pv)
  pv.spec = pv.spec or {}
  fill(pv.spec, { persistentVolumeReclaimPolicy = "Retain", volumeMode = "Filesystem" })
  pv.status = pv.status or {}
  fill(pv.status, { phase = "Pending" })
  if pv.spec.claimRef then fill(pv.spec.claimRef, { apiVersion = "v1", kind = "PersistentVolumeClaim" }) end
end

function kinds.persistentvolumeclaims(pvc)
  pvc.spec = pvc.spec or {}
  fill(pvc.spec, { volumeMode = "Filesystem", resources = {} })
  requests_from_limits(pvc.spec.resources)
  pvc.status = pvc.status or {}
  fill(pvc.status, { phase = "Pending" })
end

function kinds.namespaces(ns)
  ns.metadata.labels = ns.metadata.labels or {}
  fill(ns.metadata.labels, { ["kubernetes.io/metadata.name"] = ns.metadata.name })
end

local RULES = {
  scaleUp = { stabilizationWindowSeconds = 0, selectPolicy = "Max" },
  scaleDown = { selectPolicy = "Max" },
}

local function default_policies(direction)
  local list = json.array {}
  if direction == "scaleUp" then list[1] = { type = "Pods", value = 4, periodSeconds = 15 } end
  list[#list + 1] = { type = "Percent", value = 100, periodSeconds = 15 }
  return list
end

local function behavior(spec)
  if not spec.behavior then return end
  for direction, rules in pairs(RULES) do
    spec.behavior[direction] = spec.behavior[direction] or {}
    fill(spec.behavior[direction], rules)
    fill(spec.behavior[direction], { policies = default_policies(direction) })
  end
end

kinds["horizontalpodautoscalers.autoscaling"] = function(hpa)
  hpa.spec = hpa.spec or {}
  fill(hpa.spec, { minReplicas = 1 })
  if not hpa.spec.metrics or #hpa.spec.metrics == 0 then
    hpa.spec.metrics = json.array { { type = "Resource",
      resource = { name = "cpu", target = { type = "Utilization", averageUtilization = 80 } } } }
  end
  behavior(hpa.spec)
end

kinds["endpointslices.discovery.k8s.io"] = function(slice)
  for _, port in ipairs(slice.ports or {}) do fill(port, { name = "", protocol = "TCP" }) end
end

kinds["networkpolicies.networking.k8s.io"] = function(policy)
  local spec = policy.spec or {}
  local types = json.array { "Ingress" }
  if spec.egress then types[2] = "Egress" end
  fill(spec, { policyTypes = types })
end

kinds["csidrivers.storage.k8s.io"] = function(driver)
  driver.spec = driver.spec or {}
  fill(driver.spec, { attachRequired = true, fsGroupPolicy = "ReadWriteOnceWithFSType", podInfoOnMount = false,
    requiresRepublish = false, seLinuxMount = false, storageCapacity = false, volumeLifecycleModes = json.array { "Persistent" } })
end

function kinds.endpoints(endpoints)
  for _, subset in ipairs(endpoints.subsets or {}) do
    for _, port in ipairs(subset.ports or {}) do fill(port, { protocol = "TCP" }) end
  end
end

local NODE_INFO = { architecture = "", bootID = "", containerRuntimeVersion = "", kernelVersion = "", kubeProxyVersion = "",
  kubeletVersion = "", machineID = "", operatingSystem = "", osImage = "", systemUUID = "" }

-- Structs that the Go types hold without a pointer stand in every status.
local statuses = {}

function statuses.nodes(node)
  local s = node.status
  fill(s, { nodeInfo = {}, daemonEndpoints = {} })
  fill(s.nodeInfo, NODE_INFO)
  fill(s.daemonEndpoints, { kubeletEndpoint = { Port = 0 } })
end

function statuses.pods(pod)
  for _, key in ipairs { "initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses" } do
    for _, s in ipairs(pod.status[key] or {}) do fill(s, { state = {}, lastState = {} }) end
  end
end

function kinds.nodes(node)
  node.status = node.status or {}
  if node.status.capacity then fill(node.status, { allocatable = node.status.capacity }) end
  statuses.nodes(node)
end

-- Limits of containers stand for each other where one is left out.
function kinds.limitranges(range)
  for _, limit in ipairs(range.spec and range.spec.limits or {}) do
    if limit.type == "Container" then
      if limit.max then limit.default = limit.default or {} end
      fill(limit.default or {}, limit.max or {})
      if limit.default or limit.min then limit.defaultRequest = limit.defaultRequest or {} end
      fill(limit.defaultRequest or {}, limit.default or {})
      fill(limit.defaultRequest or {}, limit.min or {})
    end
  end
end

function kinds.events(event)
  fill(event, { source = {}, reportingComponent = "", reportingInstance = "" })
end

kinds["storageclasses.storage.k8s.io"] = function(sc)
  fill(sc, { reclaimPolicy = "Delete", volumeBindingMode = "Immediate" })
end

local function subjects(binding)
  local api = "rbac.authorization.k8s.io"
  if binding.roleRef then fill(binding.roleRef, { apiGroup = api }) end
  for _, s in ipairs(binding.subjects or {}) do
    if s.kind ~= "ServiceAccount" then fill(s, { apiGroup = api }) end
  end
end
kinds["rolebindings.rbac.authorization.k8s.io"] = subjects
kinds["clusterrolebindings.rbac.authorization.k8s.io"] = subjects

kinds["priorityclasses.scheduling.k8s.io"] = function(pc)
  fill(pc, { preemptionPolicy = "PreemptLowerPriority" })
end

kinds["apiservices.apiregistration.k8s.io"] = function(api)
  if api.spec and api.spec.service then fill(api.spec.service, { port = 443 }) end
end

-- Fills obj in place.
function defaults.apply(r, obj)
  local fn = kinds[r.id]
  if fn then fn(obj) end
end

-- Fills what a status that was just written must hold.
function defaults.apply_status(r, obj)
  local fn = statuses[r.id]
  if fn and obj.status then fn(obj) end
end

return defaults
