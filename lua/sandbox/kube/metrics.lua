-- SPDX-License-Identifier: Apache-2.0
-- metrics.k8s.io for `kubectl top`: nothing here burns CPU, so what runs is said to use what it requests, and a little.
local json = require "eirun.core.json"
local quantity = require "sandbox.kube.quantity"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local status = require "sandbox.kube.status"
local times = require "sandbox.times"
local value = require "sandbox.kube.value"

local metrics = {}

metrics.GROUP, metrics.VERSION = "metrics.k8s.io", "metrics.k8s.io/v1beta1"

local verbs = json.array { "get", "list" }
-- As rows of discovery.
metrics.rows = {
  { plural = "nodes", singular = "", kind = "NodeMetrics", namespaced = false, verbs = verbs, group = metrics.GROUP, version = "v1beta1" },
  { plural = "pods", singular = "", kind = "PodMetrics", namespaced = true, verbs = verbs, group = metrics.GROUP, version = "v1beta1" },
}

local WINDOW = "30s"
local LEAST = { cpu = 1, memory = 16 << 20 } -- a container that asks for nothing, millicores and bytes
local SYSTEM = { cpu = 100, memory = 600 << 20 } -- kubelet and what else is on a node

local function usage_of(container)
  local asked = value.get(container, "resources", "requests") or {}
  return { cpu = asked.cpu and quantity.milli(asked.cpu) or LEAST.cpu,
    memory = asked.memory and quantity.milli(asked.memory) // 1000 or LEAST.memory }
end

local function words(usage)
  return { cpu = ("%dm"):format(usage.cpu), memory = ("%dKi"):format(usage.memory // 1024) }
end

local function add(total, usage)
  total.cpu, total.memory = total.cpu + usage.cpu, total.memory + usage.memory
end

local function object(kind, meta, now, more)
  more.kind, more.apiVersion, more.timestamp, more.window = kind, metrics.VERSION, times.iso(now), WINDOW
  more.metadata = { name = meta.name, namespace = meta.namespace, labels = meta.labels, creationTimestamp = times.iso(now) }
  return more
end

local function pod_metrics(pod, now)
  local containers = json.array {}
  for i, container in ipairs(pod.spec.containers) do
    containers[i] = { name = container.name, usage = words(usage_of(container)) }
  end
  return object("PodMetrics", pod.metadata, now, { containers = containers })
end

local function node_metrics(node, now, pods)
  local total = { cpu = SYSTEM.cpu, memory = SYSTEM.memory }
  for _, rec in ipairs(pods) do
    if rec.obj.spec.nodeName == node.metadata.name then
      for _, container in ipairs(rec.obj.spec.containers) do add(total, usage_of(container)) end
    end
  end
  return object("NodeMetrics", node.metadata, now, { usage = words(total) })
end

local function running(store, namespace)
  return value.filter(store:list(resources.pods, namespace), function(rec) return value.get(rec.obj, "status", "phase") == "Running" end)
end

local function items(face, resource, namespace)
  local now, list = face.now(), json.array {}
  local pods = running(face.store, namespace)
  for _, rec in ipairs(resource == "pods" and pods or face.store:list(resources.nodes)) do
    list[#list + 1] = resource == "pods" and pod_metrics(rec.obj, now) or node_metrics(rec.obj, now, pods)
  end
  return list
end

---What a path below the group asks for: {resource, namespace, name}, or nil.
function metrics.locate(path)
  local rest = path:match "^/apis/metrics%.k8s%.io/v1beta1/(.+)$"
  if not rest then return nil end
  local namespace, inner = rest:match "^namespaces/([^/]+)/(.+)$"
  local resource, name = (inner or rest):match "^([^/]+)/?([^/]*)$"
  if resource ~= "pods" and (resource ~= "nodes" or namespace) then return nil end
  return { resource = resource, namespace = namespace, name = name ~= "" and name or nil }
end

---The answer's object. Raises a Status for what is not there.
function metrics.answer(face, at, query)
  local list = items(face, at.resource, at.namespace)
  if at.name then
    for _, item in ipairs(list) do
      if item.metadata.name == at.name then return item end
    end
    status.not_found({ plural = at.resource, group = metrics.GROUP }, at.name)
  end
  local labels, problem = selector.parse(query.labelSelector)
  if not labels then status.bad_request(problem) end
  return { kind = at.resource == "pods" and "PodMetricsList" or "NodeMetricsList", apiVersion = metrics.VERSION, metadata = {},
    items = value.filter(list, function(item) return selector.matches(labels, item.metadata.labels) end) }
end

return metrics
