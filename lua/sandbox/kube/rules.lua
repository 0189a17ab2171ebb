-- SPDX-License-Identifier: Apache-2.0
-- Validation by kind: rules[id](c, new, old) adds causes to the collector; old is nil for a create.
local json = require "eirun.core.json"
local cron = require "sandbox.kube.cron"
local pod = require "sandbox.kube.validate_pod"
local quantity = require "sandbox.kube.quantity"
local selector = require "sandbox.kube.selector"
local validate = require "sandbox.kube.validate"
local value = require "sandbox.kube.value"

local rules = {}

local NOT_NEGATIVE = "must be greater than or equal to 0"

local function not_negative(c, v, field)
  if v and v < 0 then c.invalid(field, v, NOT_NEGATIVE) end
end

function rules.pods(c, new, old)
  if old then return pod.update(c, new, old) end
  pod.spec(c, new.spec, "spec")
end

-- Selector and template of every controller of pods.
local function pod_controller(c, new, old, immutable_selector)
  local spec = new.spec
  local s = spec.selector
  if not s or (next(s.matchLabels or {}) == nil and #(s.matchExpressions or {}) == 0) then
    if not s then
      local labels = spec.template.metadata.labels
      c.required("spec.selector")
      c.invalid("spec.template.metadata.labels", labels or json.null, "`selector` does not match template `labels`")
    else
      c.invalid("spec.selector", s, "empty selector is invalid for deployment")
    end
  else
    validate.selector(c, s, "spec.selector")
    local labels = spec.template.metadata.labels or {}
    if not selector.matches(selector.from_object(s), labels) then
      c.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    end
  end
  pod.template(c, spec.template, "spec.template")
  if spec.template.spec.restartPolicy ~= "Always" then
    c.unsupported("spec.template.spec.restartPolicy", spec.template.spec.restartPolicy, { "Always" })
  end
  not_negative(c, spec.replicas, "spec.replicas")
  not_negative(c, spec.minReadySeconds, "spec.minReadySeconds")
  if old and immutable_selector then validate.immutable(c, spec.selector, old.spec.selector, "spec.selector") end
end

local function int_or_percent(c, v, field)
  if type(v) == "string" and not v:match("^%d+%%$") then
    c.invalid(field, v, "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for "
      .. "validation is '[0-9]+%')")
  elseif type(v) == "number" and v < 0 then
    c.invalid(field, v, NOT_NEGATIVE)
  end
end

local function zero(v)
  return v == 0 or v == "0%" or v == nil
end

rules["deployments.apps"] = function(c, new, old)
  pod_controller(c, new, old, true)
  local strategy = new.spec.strategy
  if strategy.type == "Recreate" and strategy.rollingUpdate then
    c.forbidden("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'")
  elseif strategy.type == "RollingUpdate" then
    local rolling = strategy.rollingUpdate
    int_or_percent(c, rolling.maxUnavailable, "spec.strategy.rollingUpdate.maxUnavailable")
    int_or_percent(c, rolling.maxSurge, "spec.strategy.rollingUpdate.maxSurge")
    if zero(rolling.maxUnavailable) and zero(rolling.maxSurge) then
      c.invalid("spec.strategy.rollingUpdate.maxUnavailable", rolling.maxUnavailable, "may not be 0 when `maxSurge` is 0")
    end
  elseif strategy.type ~= "Recreate" then
    c.unsupported("spec.strategy.type", strategy.type, { "Recreate", "RollingUpdate" })
  end
  local deadline, ready = new.spec.progressDeadlineSeconds, new.spec.minReadySeconds or 0
  if deadline and deadline <= ready and deadline >= 0 then
    c.invalid("spec.progressDeadlineSeconds", deadline, "must be greater than minReadySeconds")
  end
end

rules["replicasets.apps"] = function(c, new, old) pod_controller(c, new, old, true) end
rules["statefulsets.apps"] = function(c, new, old) pod_controller(c, new, old, true) end
rules["daemonsets.apps"] = function(c, new, old) pod_controller(c, new, old, true) end

rules["jobs.batch"] = function(c, new, old)
  pod.template(c, new.spec.template, "spec.template")
  local restart = new.spec.template.spec.restartPolicy
  if restart == "Always" then
    c.required("spec.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
  elseif not value.contains({ "OnFailure", "Never" }, restart) then
    c.unsupported("spec.template.spec.restartPolicy", restart, { "OnFailure", "Never" })
  end
  not_negative(c, new.spec.parallelism, "spec.parallelism")
  not_negative(c, new.spec.backoffLimit, "spec.backoffLimit")
  if not old then return end
  validate.immutable(c, new.spec.selector, old.spec.selector, "spec.selector")
  if not new.spec.suspend then validate.immutable(c, new.spec.template, old.spec.template, "spec.template") end
  validate.immutable(c, new.spec.completions, old.spec.completions, "spec.completions")
end

rules["cronjobs.batch"] = function(c, new)
  local spec = new.spec
  if (spec.schedule or "") == "" then
    c.required("spec.schedule")
  elseif not cron.parse(spec.schedule) then
    local _, words = spec.schedule:gsub("%S+", "")
    c.invalid("spec.schedule", spec.schedule, ("expected exactly 5 fields, found %d: [%s]"):format(words, spec.schedule))
  end
  if not value.contains({ "Allow", "Forbid", "Replace" }, spec.concurrencyPolicy) then
    c.unsupported("spec.concurrencyPolicy", spec.concurrencyPolicy, { "Allow", "Forbid", "Replace" })
  end
  if #(new.metadata.name or "") > 52 then c.invalid("metadata.name", new.metadata.name, "must be no more than 52 characters") end
end

local SERVICE_TYPES = { "ClusterIP", "ExternalName", "LoadBalancer", "NodePort" }

local function service_port(c, port, seen, many, at)
  pod.port_number(c, port.port, at .. ".port")
  if math.type(port.targetPort) == "integer" then pod.port_number(c, port.targetPort, at .. ".targetPort") end
  if many and (port.name or "") == "" then c.required(at .. ".name") end
  if port.name and seen[port.name] then c.duplicate(at .. ".name", port.name) end
  if port.name then seen[port.name] = true end
  if not value.contains({ "SCTP", "TCP", "UDP" }, port.protocol) then
    c.unsupported(at .. ".protocol", port.protocol, { "SCTP", "TCP", "UDP" })
  end
end

function rules.services(c, new, old)
  local spec = new.spec
  if not value.contains(SERVICE_TYPES, spec.type) then c.unsupported("spec.type", spec.type, SERVICE_TYPES) end
  local ports = spec.ports or {}
  if #ports == 0 and spec.type ~= "ExternalName" and spec.clusterIP ~= "None" then c.required("spec.ports") end
  local seen = {}
  for i, port in ipairs(ports) do service_port(c, port, seen, #ports > 1, ("spec.ports[%d]"):format(i - 1)) end
  validate.labels(c, spec.selector, "spec.selector")
  if spec.type == "ExternalName" and (spec.externalName or "") == "" then c.required("spec.externalName") end
  if old and old.spec.type ~= "ExternalName" and spec.type ~= "ExternalName" then
    validate.immutable(c, spec.clusterIPs, old.spec.clusterIPs, "spec.clusterIPs[0]", "may not change once set")
  end
end

local function data_keys(c, data, field)
  for key in value.sorted(data or {}) do
    if not key:match("^[-._%w]+$") then
      c.invalid(("%s[%s]"):format(field, key), key, "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
        .. "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')")
    end
  end
end

local function kept(c, new, old, fields)
  if not old or not old.immutable then return end
  if not new.immutable then c.forbidden("immutable", "field is immutable when `immutable` is set") end
  for _, key in ipairs(fields) do
    if not value.equal(new[key], old[key]) then c.forbidden(key, "field is immutable when `immutable` is set") end
  end
end

function rules.configmaps(c, new, old)
  data_keys(c, new.data, "data")
  data_keys(c, new.binaryData, "binaryData")
  kept(c, new, old, { "data", "binaryData" })
end

-- What secrets of a known type must hold.
local SECRET_KEYS = { ["kubernetes.io/tls"] = { "tls.crt", "tls.key" }, ["kubernetes.io/dockerconfigjson"] = { ".dockerconfigjson" },
  ["kubernetes.io/ssh-auth"] = { "ssh-privatekey" } }

function rules.secrets(c, new, old)
  data_keys(c, new.data, "data")
  for _, key in ipairs(SECRET_KEYS[new.type] or {}) do
    if not (new.data or {})[key] then c.required(("data[%s]"):format(key)) end
  end
  if old then
    validate.immutable(c, new.type, old.type, "type")
    kept(c, new, old, { "data" })
  end
end

local MODES = { "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod" }

local function access_modes(c, modes, field, why)
  if not modes or #modes == 0 then return c.required(field, why) end
  for _, mode in ipairs(modes) do
    if not value.contains(MODES, mode) then c.unsupported(field, mode, MODES) end
  end
end

local VOLUME_SOURCES = { "csi", "hostPath", "nfs", "local", "awsElasticBlockStore", "gcePersistentDisk", "cephfs", "rbd", "iscsi", "fc",
  "flexVolume", "glusterfs", "azureFile", "azureDisk", "cinder", "storageos", "portworxVolume", "quobyte", "scaleIO", "vsphereVolume",
  "flocker", "photonPersistentDisk" }

local function source_of(spec)
  local found = {}
  for _, key in ipairs(VOLUME_SOURCES) do
    if spec[key] then found[#found + 1] = key end
  end
  return found[1], found[2]
end

function rules.persistentvolumes(c, new, old)
  local spec = new.spec
  access_modes(c, spec.accessModes, "spec.accessModes")
  local storage = spec.capacity and spec.capacity.storage
  if not spec.capacity or next(spec.capacity) == nil then c.required("spec.capacity") end
  if not storage then c.unsupported("spec.capacity", spec.capacity or json.null, { "storage" }) end
  if storage and quantity.milli(storage) <= 0 then c.invalid("spec.capacity[storage]", storage, "must be greater than zero") end
  if not value.contains({ "Delete", "Recycle", "Retain" }, spec.persistentVolumeReclaimPolicy) then
    c.unsupported("spec.persistentVolumeReclaimPolicy", spec.persistentVolumeReclaimPolicy, { "Delete", "Recycle", "Retain" })
  end
  local source, second = source_of(spec)
  if not source then c.required("spec", "must specify a volume type") end
  if second then c.forbidden("spec." .. second, "may not specify more than 1 volume type") end
  if spec.csi then
    if (spec.csi.driver or "") == "" then c.required("spec.csi.driver") end
    if (spec.csi.volumeHandle or "") == "" then c.required("spec.csi.volumeHandle") end
  end
  if old and source and not value.equal(spec[source], old.spec[source]) then
    c.forbidden("spec.persistentvolumesource", "spec.persistentvolumesource is immutable after creation")
  end
end

function rules.persistentvolumeclaims(c, new, old)
  local spec = new.spec
  access_modes(c, spec.accessModes, "spec.accessModes", "at least 1 access mode is required")
  local want = spec.resources.requests and spec.resources.requests.storage
  if not want then
    c.required("spec.resources[storage]")
  elseif quantity.milli(want) <= 0 then
    c.invalid("spec.resources[storage]", want, "must be greater than zero")
  end
  validate.selector(c, spec.selector, "spec.selector")
  if not old then return end
  local a, b = value.shallow(spec), value.shallow(old.spec)
  if value.get(old, "status", "phase") == "Bound" then a.resources, b.resources = nil, nil end
  if b.volumeName == nil then b.volumeName = a.volumeName end
  local shrunk = want and quantity.milli(want) < quantity.milli(old.spec.resources.requests.storage)
  if not value.equal(a, b) then
    c.forbidden("spec", "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims")
  elseif shrunk then
    c.forbidden("spec.resources.requests.storage", "field can not be less than previous value")
  end
end

local function ingress_backend(c, backend, field)
  local svc = backend and backend.service
  if not svc then
    if not (backend and backend.resource) then c.required(field, "resource or service backend is required") end
    return
  end
  if (svc.name or "") == "" then c.required(field .. ".service.name") end
  local port = svc.port or {}
  if port.name and port.number then
    c.invalid(field, "", "cannot set both port name & port number")
  elseif not port.name and not port.number then
    c.required(field, "port name or number is required")
  elseif port.number then
    pod.port_number(c, port.number, field .. ".service.port.number")
  end
end

local PATH_TYPES = { "Exact", "ImplementationSpecific", "Prefix" }

local function ingress_path(c, path, at)
  if not path.pathType then return c.required(at .. ".pathType", "pathType must be specified") end
  if not value.contains(PATH_TYPES, path.pathType) then
    c.unsupported(at .. ".pathType", path.pathType, PATH_TYPES)
  elseif path.pathType ~= "ImplementationSpecific" and (path.path or ""):sub(1, 1) ~= "/" then
    c.invalid(at .. ".path", path.path or "", "must be an absolute path")
  end
  ingress_backend(c, path.backend, at .. ".backend")
end

local function ingress_rule(c, rule, at)
  if rule.host and rule.host ~= "" then
    local why = validate.subdomain((rule.host:gsub("^%*%.", "")))
    if why then c.invalid(at .. ".host", rule.host, why) end
  end
  if not rule.http then return end
  if #(rule.http.paths or {}) == 0 then c.required(at .. ".http.paths") end
  for i, path in ipairs(rule.http.paths or {}) do ingress_path(c, path, ("%s.http.paths[%d]"):format(at, i - 1)) end
end

rules["ingresses.networking.k8s.io"] = function(c, new)
  local spec = new.spec or {}
  if #(spec.rules or {}) == 0 and not spec.defaultBackend then
    c.invalid("spec", new.spec or json.null, "either `defaultBackend` or `rules` must be specified")
  end
  if spec.defaultBackend then ingress_backend(c, spec.defaultBackend, "spec.defaultBackend") end
  for i, rule in ipairs(spec.rules or {}) do ingress_rule(c, rule, ("spec.rules[%d]"):format(i - 1)) end
end

local METRICS = { ContainerResource = "containerResource", External = "external", Object = "object", Pods = "pods", Resource = "resource" }
local TARGETS = { AverageValue = "averageValue", Utilization = "averageUtilization", Value = "value" }

local function metric_target(c, target, field)
  local kind = target and target.type or ""
  if kind == "" then c.required(field .. ".type", "must specify a metric target type") end
  if not TARGETS[kind] then
    c.invalid(field .. ".type", kind, "must be either Utilization, Value, or AverageValue")
    return c.required(field .. ".averageValue", "must set either a target value for metric or a per-pod target")
  end
  local v = target[TARGETS[target.type]]
  if v == nil then return c.required(field .. "." .. TARGETS[target.type], ("must set a target %s"):format(TARGETS[target.type])) end
  local positive = type(v) == "number" and v > 0 or type(v) == "string" and quantity.milli(v) > 0
  if not positive then c.invalid(field .. "." .. TARGETS[target.type], v, "must be positive") end
end

local function hpa_metric(c, metric, at)
  local key = METRICS[metric.type or ""]
  if (metric.type or "") == "" then c.required(at .. ".type", "must specify a metric source type") end
  if not key then
    -- Two of the real checks say so.
    for _ = 1, 2 do c.unsupported(at .. ".type", metric.type or "", value.sorted_keys(METRICS)) end
    return
  end
  local source = metric[key]
  if not source then
    return c.required(("%s.%s"):format(at, key), "must populate information for the given metric source")
  end
  if key == "external" or key == "pods" or key == "object" then
    if ((source.metric or {}).name or "") == "" then
      c.required(("%s.%s.metric.name"):format(at, key), "must specify a metric name")
    end
    validate.selector(c, source.metric and source.metric.selector, ("%s.%s.metric.selector"):format(at, key))
  elseif (source.name or "") == "" then
    c.required(("%s.%s.name"):format(at, key))
  end
  metric_target(c, source.target, ("%s.%s.target"):format(at, key))
end

local function hpa_rules(c, r, at)
  local window = r.stabilizationWindowSeconds
  if window and window < 0 then c.invalid(at .. ".stabilizationWindowSeconds", window, "must be greater than or equal to zero") end
  if window and window > 3600 then
    c.invalid(at .. ".stabilizationWindowSeconds", window, "must be less than or equal to 3600")
  end
  if not value.contains({ "Disabled", "Max", "Min" }, r.selectPolicy) then
    c.unsupported(at .. ".selectPolicy", r.selectPolicy, { "Disabled", "Max", "Min" })
  end
  if #(r.policies or {}) == 0 then c.required(at .. ".policies", "must specify at least one Policy") end
  for i, p in ipairs(r.policies or {}) do
    local field = ("%s.policies[%d]"):format(at, i - 1)
    if not value.contains({ "Percent", "Pods" }, p.type) then c.unsupported(field .. ".type", p.type or "", { "Percent", "Pods" }) end
    if (p.value or 0) <= 0 then c.invalid(field .. ".value", p.value or 0, "must be greater than zero") end
    if (p.periodSeconds or 0) <= 0 then c.invalid(field .. ".periodSeconds", p.periodSeconds or 0, "must be greater than zero") end
    if (p.periodSeconds or 0) > 1800 then
      c.invalid(field .. ".periodSeconds", p.periodSeconds, "must be less than or equal to 1800")
    end
  end
end

rules["horizontalpodautoscalers.autoscaling"] = function(c, new)
  local spec = new.spec
  local ref, max = spec.scaleTargetRef or {}, spec.maxReplicas or 0
  if spec.minReplicas < 1 then c.invalid("spec.minReplicas", spec.minReplicas, "must be greater than or equal to 1") end
  if max == 0 then
    c.required("spec.maxReplicas", "must be set and greater than 0")
  elseif max < 0 then
    c.invalid("spec.maxReplicas", max, "must be greater than 0")
  end
  if max < spec.minReplicas then c.invalid("spec.maxReplicas", max, "must be greater than or equal to `minReplicas`") end
  if (ref.kind or "") == "" then c.required("spec.scaleTargetRef.kind") end
  if (ref.name or "") == "" then c.required("spec.scaleTargetRef.name") end
  if (ref.apiVersion or "") == "" then
    c.invalid("spec.scaleTargetRef.apiVersion", ref.apiVersion or "", "apiVersion must specify API group")
  end
  for i, metric in ipairs(spec.metrics or {}) do hpa_metric(c, metric, ("spec.metrics[%d]"):format(i - 1)) end
  for _, direction in ipairs { "scaleUp", "scaleDown" } do
    if spec.behavior then hpa_rules(c, spec.behavior[direction], "spec.behavior." .. direction) end
  end
end

-- The spec as Go's own type prints itself.
local function inner_budget(spec)
  local function shown(v) return v == nil and "null" or json.encode(v) end
  return ('{"MinAvailable":%s,"Selector":%s,"MaxUnavailable":%s,"UnhealthyPodEvictionPolicy":%s}'):format(shown(spec.minAvailable),
    shown(spec.selector), shown(spec.maxUnavailable), shown(spec.unhealthyPodEvictionPolicy))
end

rules["poddisruptionbudgets.policy"] = function(c, new)
  local spec = new.spec or {}
  if spec.minAvailable ~= nil and spec.maxUnavailable ~= nil then
    c.invalid_as("spec", inner_budget(spec), "minAvailable and maxUnavailable cannot be both set")
  end
  int_or_percent(c, spec.minAvailable, "spec.minAvailable")
  int_or_percent(c, spec.maxUnavailable, "spec.maxUnavailable")
  validate.selector(c, spec.selector, "spec.selector")
end

rules["leases.coordination.k8s.io"] = function(c, new)
  local spec = new.spec or {}
  if spec.leaseDurationSeconds and spec.leaseDurationSeconds <= 0 then
    c.invalid("spec.leaseDurationSeconds", spec.leaseDurationSeconds, "must be greater than 0")
  end
  if spec.leaseTransitions and spec.leaseTransitions < 0 then
    c.invalid("spec.leaseTransitions", spec.leaseTransitions, NOT_NEGATIVE)
  end
end

rules["endpointslices.discovery.k8s.io"] = function(c, new, old)
  if not value.contains({ "FQDN", "IPv4", "IPv6" }, new.addressType) then
    c.unsupported("addressType", new.addressType or "", { "FQDN", "IPv4", "IPv6" })
  end
  for i, e in ipairs(new.endpoints or {}) do
    if #(e.addresses or {}) == 0 then c.required(("endpoints[%d].addresses"):format(i - 1), "must contain at least 1 address") end
  end
  if old then validate.immutable(c, new.addressType, old.addressType, "addressType") end
end

rules["storageclasses.storage.k8s.io"] = function(c, new, old)
  if (new.provisioner or "") == "" then c.required("provisioner") end
  if old then
    validate.immutable(c, new.provisioner, old.provisioner, "provisioner")
    for _, key in ipairs { "reclaimPolicy", "parameters", "volumeBindingMode" } do
      if not value.equal(new[key], old[key]) then c.forbidden(key, "updates to " .. key .. " are forbidden.") end
    end
  end
end

local function role_ref(c, new, old)
  local ref = new.roleRef or {}
  if not value.contains({ "ClusterRole", "Role" }, ref.kind) then
    c.unsupported("roleRef.kind", ref.kind or "", { "Role", "ClusterRole" })
  end
  if (ref.name or "") == "" then c.required("roleRef.name") end
  for i, subject in ipairs(new.subjects or {}) do
    local at = ("subjects[%d]"):format(i - 1)
    if (subject.name or "") == "" then c.required(at .. ".name") end
    if not value.contains({ "Group", "ServiceAccount", "User" }, subject.kind) then
      c.unsupported(at .. ".kind", subject.kind or "", { "Group", "ServiceAccount", "User" })
    end
  end
  if old then validate.immutable(c, new.roleRef, old.roleRef, "roleRef", "cannot change roleRef") end
end
rules["rolebindings.rbac.authorization.k8s.io"] = role_ref
rules["clusterrolebindings.rbac.authorization.k8s.io"] = role_ref

rules["apiservices.apiregistration.k8s.io"] = function(c, new)
  local spec = new.spec or {}
  local wanted = (spec.version or "") .. "." .. (spec.group or "")
  if new.metadata.name ~= wanted then
    c.invalid("metadata.name", new.metadata.name, ("must be `spec.version+\".\"+spec.group`: %q"):format(wanted))
  end
end

return rules
