-- SPDX-License-Identifier: Apache-2.0
-- eirun kube top pods|nodes: what the metrics API measured.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local print_ = require "eirun.cli.kube.print"

local scales = { n = 1e-9, u = 1e-6, m = 1e-3, [""] = 1, k = 1e3, M = 1e6, G = 1e9, T = 1e12,
  Ki = 1 << 10, Mi = 1 << 20, Gi = 1 << 30, Ti = 1 << 40 }

local function quantity(text)
  local number, unit = tostring(text or "0"):match "^([%d.]+)(%a*)$"
  return (tonumber(number) or 0) * (scales[unit] or 1)
end

local function cpu(cores) return ("%dm"):format(math.ceil(cores * 1000 - 1e-9)) end

local function memory(bytes) return ("%dMi"):format(bytes // (1 << 20)) end

local function usage_of(item)
  if item.usage then return quantity(item.usage.cpu), quantity(item.usage.memory) end
  local cores, bytes = 0, 0
  for _, container in ipairs(item.containers or {}) do
    cores, bytes = cores + quantity(container.usage.cpu), bytes + quantity(container.usage.memory)
  end
  return cores, bytes
end

local function read(k8s, path, options)
  local ok, answer = pcall(k8s.call, k8s, { path = path, verb = "read", object = "metrics", attempts = 2,
    query = { labelSelector = options.selector } })
  if ok then return answer end
  if errors.is(answer, "not_found") or errors.from(answer).status == 503 then
    errors.raise("not_found", "Metrics API not available", { hint = "install the add-on metrics-server" })
  end
  error(answer, 0)
end

local function sorted(items, options)
  local key = options.sort_by
  if key and key ~= "cpu" and key ~= "memory" then face.usage "--sort-by accepts only cpu or memory" end
  local at = key == "cpu" and 1 or 2
  table.sort(items, function(a, b)
    if key and a.usage_now[at] ~= b.usage_now[at] then return a.usage_now[at] > b.usage_now[at] end
    local x, y = a.metadata, b.metadata
    if x.namespace ~= y.namespace then return (x.namespace or "") < (y.namespace or "") end
    return x.name < y.name
  end)
  return items
end

local function measured(answer, options, name)
  local list = {}
  for _, item in ipairs(answer.items or { answer }) do
    item.usage_now = { usage_of(item) }
    if not name or item.metadata.name == name then list[#list + 1] = item end
  end
  return sorted(list, options)
end

local function pods(k8s, options, name)
  local base = "/apis/metrics.k8s.io/v1beta1" .. (options.all_namespaces and "/pods" or "/namespaces/" .. k8s.ns .. "/pods")
  local head = options.containers and { "POD", "NAME", "CPU(cores)", "MEMORY(bytes)" } or { "NAME", "CPU(cores)", "MEMORY(bytes)" }
  local rows = { head }
  local function add(item, words)
    if options.all_namespaces then table.insert(words, 1, item.metadata.namespace) end
    rows[#rows + 1] = words
  end
  if options.all_namespaces then table.insert(head, 1, "NAMESPACE") end
  for _, item in ipairs(measured(read(k8s, base, options), options, name)) do
    if options.containers then
      for _, container in ipairs(item.containers or {}) do
        add(item, { item.metadata.name, container.name, cpu(quantity(container.usage.cpu)), memory(quantity(container.usage.memory)) })
      end
    else
      add(item, { item.metadata.name, cpu(item.usage_now[1]), memory(item.usage_now[2]) })
    end
  end
  return rows
end

local function share(used, all)
  return all and all > 0 and ("%d%%"):format(used * 100 // all) or "<unknown>"
end

local function nodes(k8s, options, name)
  local rows, allocatable = { { "NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)" } }, {}
  for _, node in ipairs(k8s:list("Node", { labels = options.selector })) do
    allocatable[node.metadata.name] = (node.status or {}).allocatable
  end
  for _, item in ipairs(measured(read(k8s, "/apis/metrics.k8s.io/v1beta1/nodes", options), options, name)) do
    local all = allocatable[item.metadata.name] or {}
    rows[#rows + 1] = { item.metadata.name, cpu(item.usage_now[1]), share(item.usage_now[1], all.cpu and quantity(all.cpu)),
      memory(item.usage_now[2]), share(item.usage_now[2], all.memory and quantity(all.memory)) }
  end
  return rows
end

local views = { pod = pods, pods = pods, po = pods, node = nodes, nodes = nodes, no = nodes }

return face.verb(function(k8s, options, words)
  local view = views[words[1] or ""] or face.usage "top what? pods or nodes"
  local rows = view(k8s, options, words[2])
  if #rows == 1 then
    local inside = view == pods and not options.all_namespaces
    face.note(inside and ("No resources found in %s namespace."):format(k8s.ns) or "No resources found")
    return 0
  end
  if options.no_headers then table.remove(rows, 1) end
  face.out(print_.align(rows))
  return 0
end)
