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

local Slices = {}
Slices.__index = Slices

function Slices:pods_of(svc)
  local terms, list = selector.from_map(svc.spec.selector), {}
  for _, rec in ipairs(self.store:list(PODS, svc.metadata.namespace)) do
    local ip = value.get(rec.obj, "status", "podIP")
    if ip and ip ~= "" and rec.obj.spec.nodeName and not common.pod_finished(rec.obj)
      and selector.matches(terms, rec.obj.metadata.labels) then list[#list + 1] = rec.obj end
  end
  return list
end

function Slices:slices_of(svc)
  return value.filter(value.map(self.m.index:owned(svc.metadata.uid, R), function(rec) return rec.obj end), function(slice)
    return (slice.metadata.labels or {})[MANAGED_BY] == MANAGED
  end)
end

function Slices:create(svc, endpoints, ports)
  local labels = value.copy(svc.metadata.labels) or {}
  labels[SERVICE_NAME], labels[MANAGED_BY] = svc.metadata.name, MANAGED
  self.reg:create(R, svc.metadata.namespace, { metadata = { generateName = svc.metadata.name .. "-", labels = labels,
    ownerReferences = json.array { common.owner_reference(SERVICES, svc) } }, addressType = "IPv4", endpoints = endpoints,
    ports = ports }, WHO)
end

function Slices:sync(key)
  local svc = self.store:object(SERVICES, common.split(key))
  if not svc or svc.metadata.deletionTimestamp or not svc.spec.selector then return end
  local pods = self:pods_of(svc)
  local endpoints, ports = value.map(pods, function(pod) return endpoint_of(self.store, pod) end), ports_of(svc, pods)
  local slices = self:slices_of(svc)
  if not slices[1] then return self:create(svc, endpoints, ports) end
  self.reg:modify(R, svc.metadata.namespace, slices[1].metadata.name, function(old)
    if value.equal(old.endpoints, endpoints) and value.equal(old.ports, ports) then return nil end
    local new = value.shallow(old)
    new.endpoints, new.ports = endpoints, ports
    return new
  end, WHO)
  for i = 2, #slices do deletion.delete(self.reg, R, svc.metadata.namespace, slices[i].metadata.name, {}) end
end

function endpointslice.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store }, Slices)
  local q = m:queue("endpointslice", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(SERVICES, function(event) q:add(event.new.key) end)
  m.store:subscribe(PODS, function(event)
    local labels, before = event.new.obj.metadata.labels, event.old and event.old.obj.metadata.labels
    for _, rec in ipairs(m.store:list(SERVICES, event.new.ns)) do
      local terms = rec.obj.spec.selector and selector.from_map(rec.obj.spec.selector)
      if terms and (selector.matches(terms, labels) or before and selector.matches(terms, before)) then q:add(rec.key) end
    end
  end)
  for _, rec in ipairs(m.store:list(SERVICES)) do q:add(rec.key) end
end

return endpointslice
