-- SPDX-License-Identifier: Apache-2.0
-- EndpointSlices: the addresses behind every Service with a selector.
local json = require "eirun.core.json"
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local value = require "sandbox.kube.value"

local endpointslice = {}

local R, SERVICES, PODS, NODES = resources.endpointslices, resources.services, resources.pods, resources.nodes
local WHO = { manager = "kube-controller-manager" }
local MANAGED = "endpointslice-controller.k8s.io"
local SERVICE_NAME, MANAGED_BY = "kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by"

local function number_of(pod, target)
  if math.type(target) == "integer" then return target end
  for _, c in ipairs(pod.spec.containers or {}) do
    local port = value.find(c.ports, "name", target)
    if port then return port.containerPort end
  end
end

-- Named target ports are taken from the first pod that has them.
local function ports_of(svc, pods)
  local list = json.array {}
  for _, p in ipairs(svc.spec.ports or {}) do
    local number = math.type(p.targetPort) == "integer" and p.targetPort or nil
    for _, pod in ipairs(pods) do number = number or number_of(pod, p.targetPort) end
    if number then list[#list + 1] = { name = p.name or "", port = number, protocol = p.protocol } end
  end
  return list
end

local function endpoint_of(store, pod)
  local node = store:object(NODES, nil, pod.spec.nodeName)
  local ready, going = common.pod_ready(pod), pod.metadata.deletionTimestamp ~= nil
  return { addresses = json.array { pod.status.podIP }, nodeName = pod.spec.nodeName,
    conditions = { ready = ready and not going, serving = ready, terminating = going },
    zone = value.get(node, "metadata", "labels", "topology.kubernetes.io/zone"),
    targetRef = { kind = "Pod", namespace = pod.metadata.namespace, name = pod.metadata.name, uid = pod.metadata.uid } }
end

function endpointslice.start(m)
  local reg, store = m.registry, m.store

  local function pods_of(svc)
    local terms, list = selector.from_map(svc.spec.selector), {}
    for _, rec in ipairs(store:list(PODS, svc.metadata.namespace)) do
      local ip = value.get(rec.obj, "status", "podIP")
      if ip and ip ~= "" and rec.obj.spec.nodeName and not common.pod_finished(rec.obj)
        and selector.matches(terms, rec.obj.metadata.labels) then list[#list + 1] = rec.obj end
    end
    return list
  end

  local function slices_of(svc)
    return value.filter(value.map(m.index:owned(svc.metadata.uid, R), function(rec) return rec.obj end), function(slice)
      return (slice.metadata.labels or {})[MANAGED_BY] == MANAGED
    end)
  end

  local function create(svc, endpoints, ports)
    local labels = value.copy(svc.metadata.labels) or {}
    labels[SERVICE_NAME], labels[MANAGED_BY] = svc.metadata.name, MANAGED
    reg:create(R, svc.metadata.namespace, { metadata = { generateName = svc.metadata.name .. "-", labels = labels,
      ownerReferences = json.array { common.owner_reference(SERVICES, svc) } }, addressType = "IPv4", endpoints = endpoints,
      ports = ports }, WHO)
  end

  local function sync(key)
    local svc = store:object(SERVICES, common.split(key))
    if not svc or svc.metadata.deletionTimestamp or not svc.spec.selector then return end
    local pods = pods_of(svc)
    local endpoints, ports = value.map(pods, function(pod) return endpoint_of(store, pod) end), ports_of(svc, pods)
    local slices = slices_of(svc)
    if not slices[1] then return create(svc, endpoints, ports) end
    reg:modify(R, svc.metadata.namespace, slices[1].metadata.name, function(old)
      if value.equal(old.endpoints, endpoints) and value.equal(old.ports, ports) then return nil end
      local new = value.shallow(old)
      new.endpoints, new.ports = endpoints, ports
      return new
    end, WHO)
    for i = 2, #slices do deletion.delete(reg, R, svc.metadata.namespace, slices[i].metadata.name, {}) end
  end

  local q = m:queue("endpointslice", m.lag.controller_sync, sync)
  store:subscribe(SERVICES, function(event) q:add(event.new.key) end)
  store:subscribe(PODS, function(event)
    for _, rec in ipairs(store:list(SERVICES, event.new.ns)) do
      local wanted = rec.obj.spec.selector
      local terms = wanted and selector.from_map(wanted)
      local old = event.old and event.old.obj
      if terms and (selector.matches(terms, event.new.obj.metadata.labels) or old and selector.matches(terms, old.metadata.labels)) then
        q:add(rec.key)
      end
    end
  end)
  for _, rec in ipairs(store:list(SERVICES)) do q:add(rec.key) end
end

return endpointslice
