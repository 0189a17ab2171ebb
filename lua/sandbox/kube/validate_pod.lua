-- SPDX-License-Identifier: Apache-2.0
-- Validation of pod specs and pod templates.
local quantity = require "sandbox.kube.quantity"
local validate = require "sandbox.kube.validate"
local value = require "sandbox.kube.value"

local pod = {}

local PROTOCOLS = { "SCTP", "TCP", "UDP" }
local STANDARD = { cpu = true, memory = true, ["ephemeral-storage"] = true, storage = true, pods = true }

local function port_number(c, n, field)
  if math.type(n) ~= "integer" or n < 1 or n > 65535 then c.invalid(field, n, "must be between 1 and 65535, inclusive") end
end
pod.port_number = port_number

local function ports(c, list, field)
  local names = {}
  for i, port in ipairs(list or {}) do
    local at = ("%s[%d]"):format(field, i - 1)
    if port.containerPort == nil or port.containerPort == 0 then
      c.required(at .. ".containerPort")
    else
      port_number(c, port.containerPort, at .. ".containerPort")
    end
    if not value.contains(PROTOCOLS, port.protocol) then c.unsupported(at .. ".protocol", port.protocol, PROTOCOLS) end
    if port.name and names[port.name] then c.duplicate(at .. ".name", port.name) end
    if port.name then names[port.name] = true end
  end
end

local function resource_name(c, name, field)
  local extended = name:find("/", 1, true)
  if not extended and not STANDARD[name] and not name:match("^hugepages%-") then
    c.invalid(field, name, "must be a standard resource for containers")
  end
  return extended and not name:match("^kubernetes%.io/")
end

local function one_resource(c, name, amount, field)
  local extended = resource_name(c, name, field)
  local milli = quantity.milli(amount)
  if milli and milli < 0 then c.invalid(field, amount, "must be greater than or equal to 0") end
  if extended and milli and milli % 1000 ~= 0 then c.invalid(field, amount, "must be an integer") end
end

local function requests_against_limits(c, requests, limits, field)
  for name, want in value.sorted(requests) do
    local at = ("%s.requests[%s]"):format(field, name)
    one_resource(c, name, want, at)
    local limit = limits[name]
    local extended = name:find("/", 1, true)
    if limit and extended and quantity.milli(limit) ~= quantity.milli(want) then
      c.invalid(field .. ".requests", want, ("must be equal to %s limit of %s"):format(name, limit))
    elseif limit and quantity.milli(want) > quantity.milli(limit) then
      c.invalid(field .. ".requests", want, ("must be less than or equal to %s limit of %s"):format(name, limit))
    elseif not limit and extended then
      c.required(field .. ".limits", "Limit must be set for non overcommitable resources")
    end
  end
end

local function resources(c, r, field)
  if not r then return end
  local limits = r.limits or {}
  for name, amount in value.sorted(limits) do one_resource(c, name, amount, ("%s.limits[%s]"):format(field, name)) end
  requests_against_limits(c, r.requests or {}, limits, field)
end

local function env(c, list, field)
  for i, e in ipairs(list or {}) do
    local at = ("%s[%d]"):format(field, i - 1)
    if not e.name or e.name == "" then c.required(at .. ".name") end
    if e.valueFrom and e.value and e.value ~= "" then
      c.invalid(at .. ".valueFrom", "", "may not be specified when `value` is not empty")
    end
  end
end

local function mounts(c, list, volumes, field)
  local paths = {}
  for i, m in ipairs(list or {}) do
    local at = ("%s[%d]"):format(field, i - 1)
    if not m.name or m.name == "" then
      c.required(at .. ".name")
    elseif not volumes[m.name] then
      c.not_found(at .. ".name", m.name)
    end
    if not m.mountPath or m.mountPath == "" then c.required(at .. ".mountPath") end
    if m.mountPath and paths[m.mountPath] then c.invalid(at .. ".mountPath", m.mountPath, "must be unique") end
    paths[m.mountPath or ""] = true
  end
end

local HANDLERS = { "exec", "grpc", "httpGet", "tcpSocket" }

local function probe(c, p, field)
  if not p then return end
  local found = 0
  for _, key in ipairs(HANDLERS) do
    if p[key] then found = found + 1 end
  end
  if found == 0 then c.required(field, "must specify a handler type") end
  if found > 1 then c.forbidden(field, "may not specify more than 1 handler type") end
  for _, key in ipairs { "periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds" } do
    if p[key] and p[key] < 0 then c.invalid(field .. "." .. key, p[key], "must be greater than or equal to 0") end
  end
end

local function container(c, one, volumes, names, field)
  if not one.name or one.name == "" then
    c.required(field .. ".name")
  else
    local why = validate.label_name(one.name)
    if why then c.invalid(field .. ".name", one.name, why) end
    if names[one.name] then c.duplicate(field .. ".name", one.name) end
    names[one.name] = true
  end
  if not one.image or one.image == "" then c.required(field .. ".image") end
  if not value.contains({ "Always", "IfNotPresent", "Never" }, one.imagePullPolicy) then
    c.unsupported(field .. ".imagePullPolicy", one.imagePullPolicy, { "Always", "IfNotPresent", "Never" })
  end
  ports(c, one.ports, field .. ".ports")
  env(c, one.env, field .. ".env")
  resources(c, one.resources, field .. ".resources")
  mounts(c, one.volumeMounts, volumes, field .. ".volumeMounts")
  probe(c, one.livenessProbe, field .. ".livenessProbe")
  probe(c, one.readinessProbe, field .. ".readinessProbe")
  probe(c, one.startupProbe, field .. ".startupProbe")
end

local function volumes_of(c, list, field)
  local names = {}
  for i, v in ipairs(list or {}) do
    local at = ("%s[%d]"):format(field, i - 1)
    local why = v.name and validate.label_name(v.name)
    if not v.name or v.name == "" then
      c.required(at .. ".name")
    elseif why then
      c.invalid(at .. ".name", v.name, why)
    elseif names[v.name] then
      c.duplicate(at .. ".name", v.name)
    end
    names[v.name or ""] = true
    local claim = v.persistentVolumeClaim
    if claim and (claim.claimName or "") == "" then c.required(at .. ".persistentVolumeClaim.claimName") end
  end
  return names
end

local EFFECTS = { "NoExecute", "NoSchedule", "PreferNoSchedule" }

local function tolerations(c, list, field)
  for i, t in ipairs(list or {}) do
    local at = ("%s[%d]"):format(field, i - 1)
    if (t.key or "") == "" and t.operator ~= "Exists" then
      c.invalid(at .. ".operator", t.operator or "",
        "operator must be Exists when `key` is empty, which means \"match all values and all keys\"")
    end
    if t.operator == "Exists" and (t.value or "") ~= "" then
      c.invalid(at .. ".operator", t.value, "value must be empty when `operator` is 'Exists'")
    end
    if t.operator and not value.contains({ "Equal", "Exists", "" }, t.operator) then
      c.unsupported(at .. ".operator", t.operator, { "Equal", "Exists" })
    end
    if t.effect and t.effect ~= "" and not value.contains(EFFECTS, t.effect) then c.unsupported(at .. ".effect", t.effect, EFFECTS) end
  end
end

local RESTARTS = { "Always", "OnFailure", "Never" }

function pod.spec(c, spec, field)
  local volumes = volumes_of(c, spec.volumes, field .. ".volumes")
  local names = {}
  if not spec.containers or #spec.containers == 0 then c.required(field .. ".containers") end
  for i, one in ipairs(spec.containers or {}) do container(c, one, volumes, names, ("%s.containers[%d]"):format(field, i - 1)) end
  for i, one in ipairs(spec.initContainers or {}) do
    container(c, one, volumes, names, ("%s.initContainers[%d]"):format(field, i - 1))
  end
  if not value.contains(RESTARTS, spec.restartPolicy) then c.unsupported(field .. ".restartPolicy", spec.restartPolicy, RESTARTS) end
  if spec.terminationGracePeriodSeconds and spec.terminationGracePeriodSeconds < 0 then
    c.invalid(field .. ".terminationGracePeriodSeconds", spec.terminationGracePeriodSeconds, "must be greater than or equal to 0")
  end
  validate.labels(c, spec.nodeSelector, field .. ".nodeSelector")
  tolerations(c, spec.tolerations, field .. ".tolerations")
end

function pod.template(c, template, field)
  validate.labels(c, template.metadata and template.metadata.labels, field .. ".metadata.labels")
  pod.spec(c, template.spec or {}, field .. ".spec")
end

-- What may change in the spec of a pod that exists.
local MUTABLE = { "tolerations", "activeDeadlineSeconds", "terminationGracePeriodSeconds", "nodeName", "schedulingGates",
  "ephemeralContainers" }

local function frozen(spec)
  local copy = value.shallow(spec)
  for _, key in ipairs(MUTABLE) do copy[key] = nil end
  for _, key in ipairs { "containers", "initContainers" } do
    if copy[key] then
      copy[key] = value.map(copy[key], function(one) return value.with(one, { "image" }, nil) end)
    end
  end
  return copy
end

function pod.update(c, new, old)
  if not value.equal(frozen(new.spec), frozen(old.spec)) then
    c.forbidden("spec", "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
      .. "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
      .. "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)")
  end
end

return pod
