-- SPDX-License-Identifier: Apache-2.0
-- eirun kube top pods|nodes: what the metrics API measured.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local print_ = require "eirun.cli.kube.print"
local task = require "eirun.task"
local wire = require "eirun.wire"

local BASE = "/apis/metrics.k8s.io/v1beta1"
local NEW = 120 -- a pod this young may not have been measured yet, seconds

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

local function not_available(answer)
  local err = errors.from(answer)
  return err.status == 503 or err.kind == "not_found" and (not err.server_message or err.server_message:find "requested resource")
end

local function read(k8s, path, options)
  local ok, answer = pcall(k8s.call, k8s, { path = path, verb = "read", object = "metrics", attempts = 2,
    query = { labelSelector = options.selector, fieldSelector = options.field_selector } })
  if ok then return answer.items or { answer } end
  if not_available(answer) then errors.raise("not_found", "Metrics API not available") end
  error(answer, 0)
end

local function sorted(items, options)
  local at = options.sort_by == "cpu" and 1 or 2
  table.sort(items, function(a, b)
    if options.sort_by and a.usage_now[at] ~= b.usage_now[at] then return a.usage_now[at] > b.usage_now[at] end
    local x, y = a.metadata, b.metadata
    if x.namespace ~= y.namespace then return (x.namespace or "") < (y.namespace or "") end
    return x.name < y.name
  end)
  return items
end

local function measured(items, options)
  for _, item in ipairs(items) do item.usage_now = { usage_of(item) } end
  return sorted(items, options)
end

local function named(path, name) return name and path .. "/" .. name or path end

-- Pods -----------------------------------------------------------------------------------------------------------------

-- No figures at all: are the pods too young, or is nobody measuring?
local function explain_no_pods(k8s, options, name)
  local pods = name and { k8s:get("Pod", name) } or k8s:list("Pod", { labels = options.selector, fields = options.field_selector,
    all = options.all_namespaces })
  for _, pod in ipairs(pods) do
    local age = task.now() - wire.parse_time(pod.metadata.creationTimestamp)
    if age > NEW then
      errors.raise("not_found", ("Metrics not available for pod %s/%s, age: %ds"):format(pod.metadata.namespace, pod.metadata.name,
        age // 1))
    end
  end
  if #pods > 0 then errors.raise("not_found", "metrics not available yet") end
  face.note(options.all_namespaces and "No resources found" or ("No resources found in %s namespace."):format(k8s.ns))
end

local function pod_row(options, item, container, cores, bytes)
  local row = options.all_namespaces and { item.metadata.namespace } or {}
  row[#row + 1] = item.metadata.name
  if options.containers then row[#row + 1] = container end
  row[#row + 1], row[#row + 2] = cpu(cores), memory(bytes)
  return row
end

local function add_sum(rows, total)
  local line, sum = {}, {}
  for i = 1, #rows[1] - 2 do line[i], sum[i] = "", "" end
  table.move({ "________", "________" }, 1, 2, #line + 1, line)
  table.move({ cpu(total[1]), memory(total[2]) }, 1, 2, #sum + 1, sum)
  rows[#rows + 1], rows[#rows + 2] = line, sum
end

local function pods(k8s, options, name)
  local path = named(BASE .. (options.all_namespaces and "" or "/namespaces/" .. k8s.ns) .. "/pods", name)
  local items, total = measured(read(k8s, path, options), options), { 0, 0 }
  if #items == 0 then return explain_no_pods(k8s, options, name) end
  local rows = { options.containers and { "POD", "NAME", "CPU(cores)", "MEMORY(bytes)" } or { "NAME", "CPU(cores)", "MEMORY(bytes)" } }
  if options.all_namespaces then table.insert(rows[1], 1, "NAMESPACE") end
  for _, item in ipairs(items) do
    for i = 1, 2 do total[i] = total[i] + item.usage_now[i] end
    if not options.containers then rows[#rows + 1] = pod_row(options, item, nil, item.usage_now[1], item.usage_now[2]) end
    for _, container in ipairs(options.containers and item.containers or {}) do
      rows[#rows + 1] = pod_row(options, item, container.name, quantity(container.usage.cpu), quantity(container.usage.memory))
    end
  end
  if options.sum then add_sum(rows, total) end
  return rows
end

-- Nodes ----------------------------------------------------------------------------------------------------------------

local function share(used, all)
  return all and all > 0 and ("%d%%"):format(used * 100 // all) or "<unknown>"
end

local function nodes(k8s, options, name)
  local amounts = {}
  for _, node in ipairs(name and { k8s:get("Node", name) } or k8s:list("Node", { labels = options.selector })) do
    amounts[node.metadata.name] = (node.status or {})[options.show_capacity and "capacity" or "allocatable"] or {}
  end
  local items = measured(read(k8s, named(BASE .. "/nodes", name), options), options)
  if #items == 0 then errors.raise("not_found", "metrics not available yet") end
  local rows = { { "NAME", "CPU(cores)", "CPU(%)", "MEMORY(bytes)", "MEMORY(%)" } }
  for _, item in ipairs(items) do
    local all, cores, bytes = amounts[item.metadata.name] or {}, item.usage_now[1], item.usage_now[2]
    rows[#rows + 1] = { item.metadata.name, cpu(cores), share(cores, all.cpu and quantity(all.cpu)), memory(bytes),
      share(bytes, all.memory and quantity(all.memory)) }
    amounts[item.metadata.name] = nil
  end
  for _, missing in ipairs(wire.sorted_keys(amounts)) do
    rows[#rows + 1] = { missing, "<unknown>", "<unknown>", "<unknown>", "<unknown>" }
  end
  return rows
end

local views = { pod = pods, pods = pods, po = pods, node = nodes, nodes = nodes, no = nodes }

local function check_words(options, words)
  local view = views[words[1] or ""] or face.usage "top what? pods or nodes"
  if words[2] and options.selector then face.usage "only one of NAME or selector can be provided" end
  if words[3] then face.usage(("top %s takes one name, or -l LABELS"):format(words[1])) end
  local key = options.sort_by
  if key and key ~= "cpu" and key ~= "memory" then face.usage "--sort-by accepts only cpu or memory" end
  return view
end

return face.verb(function(k8s, options, words)
  local rows = check_words(options, words)(k8s, options, words[2])
  if not rows then return 0 end
  if options.no_headers then table.remove(rows, 1) end
  for _, row in ipairs(rows) do row[#row + 1] = "" end -- here kubectl ends the last column, too
  face.out(print_.align(rows))
  return 0
end)
