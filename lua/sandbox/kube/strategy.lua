-- SPDX-License-Identifier: Apache-2.0
-- What a kind does with an object on its way in, beside defaults and validation: fields that the server sets, keeps
-- or takes away, and the admission plug-ins that are on by default.
local json = require "eirun.core.json"
local quantity = require "sandbox.kube.quantity"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local strategy = {}

local create, update = {}, {}

local function add_finalizer(obj, name)
  obj.metadata.finalizers = obj.metadata.finalizers or json.array {}
  if not value.contains(obj.metadata.finalizers, name) then table.insert(obj.metadata.finalizers, name) end
end

local function any_resource(spec, kind)
  for _, c in ipairs(spec.containers or {}) do
    if c.resources and c.resources[kind] and next(c.resources[kind]) then return true end
  end
end

local function guaranteed(spec)
  for _, c in ipairs(spec.containers or {}) do
    local limits, requests = c.resources and c.resources.limits or {}, c.resources and c.resources.requests or {}
    for _, name in ipairs { "cpu", "memory" } do
      if not limits[name] or quantity.milli(limits[name]) ~= quantity.milli(requests[name] or limits[name]) then return false end
    end
  end
  return true
end

-- Only cpu and memory count for the class.
local function qos(spec)
  if guaranteed(spec) then return "Guaranteed" end
  for _, kind in ipairs { "limits", "requests" } do
    for _, c in ipairs(any_resource(spec, kind) and spec.containers or {}) do
      local set = c.resources[kind] or {}
      if set.cpu or set.memory then return "Burstable" end
    end
  end
  return "BestEffort"
end

local function has_toleration(spec, key)
  for _, t in ipairs(spec.tolerations or {}) do
    if (t.key == key or (t.key or "") == "") and (t.effect == "NoExecute" or (t.effect or "") == "") then return true end
  end
end

-- Admission DefaultTolerationSeconds.
local function default_tolerations(spec)
  for _, key in ipairs { "node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable" } do
    if not has_toleration(spec, key) then
      spec.tolerations = spec.tolerations or json.array {}
      table.insert(spec.tolerations, { key = key, operator = "Exists", effect = "NoExecute", tolerationSeconds = 300 })
    end
  end
end

-- Admission Priority.
local function priority(reg, pod)
  local name = pod.spec.priorityClassName
  if not name then
    pod.spec.priority = pod.spec.priority or 0
  else
    local r = reg.resources.priorityclasses
    local class = reg.store:object(r, nil, name)
    if not class then status.forbidden(reg.resources.pods, pod.metadata.name, ("no PriorityClass with name %s was found"):format(name)) end
    pod.spec.priority = class.value
    pod.spec.preemptionPolicy = pod.spec.preemptionPolicy or class.preemptionPolicy
  end
  pod.spec.preemptionPolicy = pod.spec.preemptionPolicy or "PreemptLowerPriority"
end

local TOKEN_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
local LETTERS = "bcdfghjklmnpqrstvwxz2456789"

-- Five letters that are the pod's own: out of its uid, so that no random number is spent on them.
local function letters_of(uid)
  return (uid:sub(-10):gsub("(%x%x)", function(hex)
    local at = tonumber(hex, 16) % #LETTERS + 1
    return LETTERS:sub(at, at)
  end))
end

local function token_sources()
  return json.array { { serviceAccountToken = { expirationSeconds = 3607, path = "token" } },
    { configMap = { name = "kube-root-ca.crt", items = json.array { { key = "ca.crt", path = "ca.crt" } } } },
    { downwardAPI = { items = json.array { { path = "namespace",
      fieldRef = { apiVersion = "v1", fieldPath = "metadata.namespace" } } } } } }
end

-- The token's volume, mounted in every container that has nothing at its place.
local function token_volume(pod)
  local name, used = "kube-api-access-" .. letters_of(pod.metadata.uid), false
  for _, list in ipairs { pod.spec.initContainers or {}, pod.spec.containers or {} } do
    for _, c in ipairs(list) do
      if not value.find(c.volumeMounts or {}, "mountPath", TOKEN_PATH) then
        c.volumeMounts = c.volumeMounts or json.array {}
        table.insert(c.volumeMounts, { name = name, readOnly = true, mountPath = TOKEN_PATH })
        used = true
      end
    end
  end
  if not used then return end
  pod.spec.volumes = pod.spec.volumes or json.array {}
  table.insert(pod.spec.volumes, { name = name, projected = { defaultMode = 420, sources = token_sources() } })
end

-- Admission ServiceAccount.
local function service_account(reg, pod)
  pod.spec.serviceAccountName = pod.spec.serviceAccountName or pod.spec.serviceAccount or "default"
  pod.spec.serviceAccount = pod.spec.serviceAccountName
  local ns, name = pod.metadata.namespace, pod.spec.serviceAccountName
  local account = reg.store:object(reg.resources.serviceaccounts, ns, name)
  if not account then
    status.forbidden(reg.resources.pods, pod.metadata.name, ("error looking up service account %s/%s: serviceaccount %s not found")
      :format(ns, name, status.quoted(name)))
  end
  local wanted = pod.spec.automountServiceAccountToken
  if wanted == nil then wanted = account.automountServiceAccountToken end
  if wanted ~= false then token_volume(pod) end
end

function create.pods(reg, pod)
  service_account(reg, pod)
  default_tolerations(pod.spec)
  priority(reg, pod)
  pod.status = { phase = "Pending", qosClass = qos(pod.spec) }
end

function create.services(reg, svc)
  svc.status = { loadBalancer = {} }
  reg.addresses:assign(svc)
end

function update.services(reg, new, old)
  if old.spec.clusterIP and not new.spec.clusterIP and new.spec.type ~= "ExternalName" then
    new.spec.clusterIP, new.spec.clusterIPs = old.spec.clusterIP, old.spec.clusterIPs
  end
  if new.spec.clusterIP ~= old.spec.clusterIP and value.equal(new.spec.clusterIPs, old.spec.clusterIPs) then
    new.spec.clusterIPs = json.array { new.spec.clusterIP }
  end
  for i, port in ipairs(new.spec.ports or {}) do
    local before = old.spec.ports and old.spec.ports[i]
    if before and port.nodePort == nil and new.spec.type ~= "ClusterIP" then port.nodePort = before.nodePort end
  end
  reg.addresses:assign(new)
end

function create.namespaces(_, ns)
  ns.spec = ns.spec or {}
  ns.spec.finalizers = json.array { "kubernetes" }
  ns.status = { phase = "Active" }
end

-- A node that is not said to be ready takes no pods: admission TaintNodesByCondition.
function create.nodes(_, node)
  node.spec = node.spec or {}
  node.spec.taints = node.spec.taints or json.array {}
  if not value.find(node.spec.taints, "key", "node.kubernetes.io/not-ready") then
    table.insert(node.spec.taints, { key = "node.kubernetes.io/not-ready", effect = "NoSchedule" })
  end
end

function create.persistentvolumes(reg, pv)
  add_finalizer(pv, "kubernetes.io/pv-protection")
  pv.status = { phase = "Pending", lastPhaseTransitionTime = reg:time() }
end

local function default_class(reg)
  for _, rec in ipairs(reg.store:list(reg.resources.storageclasses)) do
    local notes = rec.obj.metadata.annotations or {}
    if notes["storageclass.kubernetes.io/is-default-class"] == "true" then return rec.name end
  end
end

function create.persistentvolumeclaims(reg, pvc)
  add_finalizer(pvc, "kubernetes.io/pvc-protection")
  if pvc.spec.storageClassName == nil then pvc.spec.storageClassName = default_class(reg) end
  pvc.status = { phase = "Pending" }
end

create["jobs.batch"] = function(_, job)
  job.status = {}
  if job.spec.manualSelector then return end
  local uid = job.metadata.uid
  local labels = job.spec.template.metadata.labels or {}
  job.spec.template.metadata.labels = labels
  for _, prefix in ipairs { "", "batch.kubernetes.io/" } do
    labels[prefix .. "controller-uid"], labels[prefix .. "job-name"] = uid, job.metadata.name
  end
  job.spec.selector = { matchLabels = { ["batch.kubernetes.io/controller-uid"] = uid } }
  job.metadata.labels = job.metadata.labels or value.copy(labels)
end

create["poddisruptionbudgets.policy"] = function(_, pdb)
  pdb.status = { currentHealthy = 0, desiredHealthy = 0, disruptionsAllowed = 0, expectedPods = 0 }
end

create["horizontalpodautoscalers.autoscaling"] = function(_, hpa)
  hpa.status = { desiredReplicas = 0 }
end

create["ingresses.networking.k8s.io"] = function(_, ingress)
  ingress.status = { loadBalancer = {} }
end

create["replicasets.apps"] = function(_, rs)
  rs.status = { replicas = 0 }
end

create["statefulsets.apps"] = function(_, set)
  set.status = { replicas = 0, availableReplicas = 0 }
end

create["daemonsets.apps"] = function(_, ds)
  ds.status = { currentNumberScheduled = 0, desiredNumberScheduled = 0, numberMisscheduled = 0, numberReady = 0 }
end

local TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"

update["daemonsets.apps"] = function(_, new, old)
  local count = math.tointeger(tonumber((old.metadata.annotations or {})[TEMPLATE_GENERATION])) or 1
  if not value.equal(new.spec.template, old.spec.template) then count = count + 1 end
  new.metadata.annotations = value.shallow(new.metadata.annotations or {})
  new.metadata.annotations[TEMPLATE_GENERATION] = tostring(count)
end

-- No rule is null in what is stored.
local function no_rules(_, role)
  if role.rules and role.rules ~= json.null and #role.rules == 0 then role.rules = json.null end
end
create["roles.rbac.authorization.k8s.io"], create["clusterroles.rbac.authorization.k8s.io"] = no_rules, no_rules

-- What the Go types of a kind hold before anybody writes them, as far as it is written out: nobody adds that.
strategy.blank = {
  events = { metadata = {}, source = {}, reportingComponent = "", reportingInstance = "" },
  ["networkpolicies.networking.k8s.io"] = { metadata = {}, spec = { podSelector = {} } },
}

-- Kinds whose status a client may give with the object.
local KEEPS_STATUS = { nodes = true }

function strategy.create(reg, r, obj)
  if r.status and not KEEPS_STATUS[r.id] and not create[r.id] then obj.status = {} end
  if r.generation then obj.metadata.generation = 1 end
  if create[r.id] then create[r.id](reg, obj) end
end

function strategy.update(reg, r, new, old)
  if update[r.id] then update[r.id](reg, new, old) end
end

return strategy
