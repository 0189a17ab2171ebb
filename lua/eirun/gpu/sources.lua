-- SPDX-License-Identifier: Apache-2.0
-- Where the real use of a cluster's GPUs is read: exporters on the nodes (dcgm-exporter, `eirun gpu metrics --listen`), through the API
-- server or directly, or Prometheus. Each answers devices by node, and says in words what it could not learn.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local printable = require "eirun.gpu.printable"
local promtext = require "eirun.gpu.promtext"
local task = require "eirun.task"

local M = {}

-- A node may say where its metrics are; else its exporter's pod is looked for.
M.ANNOTATION = "eirun.io/gpu-metrics"
M.PORT = 9400
local LARGEST = 16 << 20 -- thousands of GPUs; reading 100 MB of metrics would take minutes

-- metric = { field of a device, factor, whole: a number with a fraction is none }
local function whole(name) return { name, whole = true } end
local fields = {
  DCGM_FI_DEV_GPU_UTIL = { "utilization" }, DCGM_FI_PROF_GR_ENGINE_ACTIVE = { "engine_active" },
  DCGM_FI_DEV_FB_USED = { "memory_used", 1 << 20 }, DCGM_FI_DEV_FB_FREE = { "memory_free", 1 << 20 },
  DCGM_FI_DEV_FB_RESERVED = { "memory_reserved", 1 << 20 }, DCGM_FI_DEV_GPU_TEMP = { "temperature" },
  DCGM_FI_DEV_POWER_USAGE = { "power" }, DCGM_FI_DEV_XID_ERRORS = whole "xid", DCGM_FI_DEV_ECC_DBE_VOL_TOTAL = whole "ecc_uncorrected",
  DCGM_FI_DEV_ECC_SBE_VOL_TOTAL = whole "ecc_corrected", DCGM_FI_DEV_ROW_REMAP_FAILURE = whole "remapped_failure",
  DCGM_FI_DEV_ROW_REMAP_PENDING = whole "remapped_pending", DCGM_FI_DEV_CLOCK_THROTTLE_REASONS = whole "clock_reason_bits",
  DCGM_FI_DEV_CLOCKS_EVENT_REASONS = whole "clock_reason_bits",
}

-- Prometheus renames what it has itself.
local function label(labels, name)
  local value = labels["exported_" .. name] or labels[name]
  return value ~= "" and printable.text(value) or nil
end

local function device_of(devices, labels)
  local key = (labels.UUID or labels.uuid or labels.gpu or "?") .. "/" .. (labels.GPU_I_ID or "")
  local device = devices[key]
  if not device then
    device = { index = math.tointeger(tonumber(labels.gpu)), uuid = label(labels, "UUID") or label(labels, "uuid"),
      model = label(labels, "modelName"), gpu_instance = label(labels, "GPU_I_ID"), processes = {}, lost = false }
    devices[key] = device
    devices[#devices + 1] = device
  end
  local pod = label(labels, "pod")
  if pod and not device.pod then device.pod, device.namespace = pod, label(labels, "namespace") end
  device.pod_uid = device.pod_uid or label(labels, "pod_uid")
  return device
end

local function note(devices, name, labels, value)
  local field = fields[name]
  if not field or value ~= value or value == math.huge or value == -math.huge then return end -- what is not known is left out
  local number = field[2] and value * field[2] // 1 or value
  local integer = math.tointeger(number)
  if field.whole and not integer then return end
  device_of(devices, labels)[field[1]] = integer or number
end

-- The driver has no use of a MIG instance, only how busy its engine was: a ratio, or with some exporters a percentage.
local function finish_instance(device)
  local active = device.gpu_instance and device.engine_active
  if active and not device.utilization then device.utilization = active <= 1 and active * 100 or active end
  device.engine_active = nil
end

local function finish(devices)
  for _, device in ipairs(devices) do
    finish_instance(device)
    if device.memory_used and device.memory_free then
      device.memory_total = device.memory_used + device.memory_free + (device.memory_reserved or 0)
    end
  end
  table.sort(devices, function(a, b)
    if a.index ~= b.index then return (a.index or -1) < (b.index or -1) end
    return (a.gpu_instance or "") < (b.gpu_instance or "")
  end)
  return table.move(devices, 1, #devices, 1, {})
end

---The devices in an exporter's text.
---@param text string
---@return table[] devices index, uuid, model, utilization, memory_used, memory_total, temperature, power, pod, namespace ...
---@return integer bad lines that were no metrics
---Example: `sources.devices(body)[1].utilization`. Raises "invalid" where nothing is a metric, "quota" where it is too long.
function M.devices(text)
  local devices = {}
  local seen = promtext.read(text, function(sample) note(devices, sample.name, sample.labels, sample.value) end,
    { names = fields, pause = require("eirun.core.task").yield })
  return finish(devices), seen.bad
end

-- Exporters ---------------------------------------------------------------------------------------------------------------

local marks = { { "app.kubernetes.io/name", "dcgm-exporter" }, { "app", "dcgm-exporter" }, { "app", "nvidia-dcgm-exporter" },
  { "app.kubernetes.io/name", "eirun-gpu-metrics" }, { "app", "ack-prometheus-gpu-exporter" },
  { "k8s-app", "ack-prometheus-gpu-exporter" } }

---Is this pod an exporter of GPU metrics?
---@param pod table
---@return boolean
---Example: `sources.is_exporter(pod)`. Raises nothing.
function M.is_exporter(pod)
  local labels = pod.metadata.labels or {}
  for _, mark in ipairs(marks) do
    if labels[mark[1]] == mark[2] then return true end
  end
  return false
end

---Which of two exporter pods of one node to read: while they are replaced there is an old one and a new one.
---@param a table|nil
---@param b table
---@return table
---Example: `sources.better(nil, pod)` is `pod`. Raises nothing.
function M.better(a, b)
  local function rank(pod)
    return ((pod.status or {}).phase == "Running" and 2 or 0) + (pod.metadata.deletionTimestamp and 0 or 1)
  end
  return a and rank(a) > rank(b) and a or b
end

local function port_of(pod, opts)
  if opts.port then return opts.port end
  local first
  for _, container in ipairs((pod.spec or {}).containers or {}) do
    for _, port in ipairs(container.ports or {}) do
      first = first or port.containerPort
      if port.name == "metrics" or port.containerPort == M.PORT then return port.containerPort end
    end
  end
  return first or M.PORT
end

local function through_proxy(k8s, pod, port)
  local path = ("/api/v1/namespaces/%s/pods/%s:%d/proxy/metrics"):format(pod.metadata.namespace, pod.metadata.name, port)
  return k8s:call { path = path, verb = "read", object = ("the metrics of Pod '%s/%s'"):format(pod.metadata.namespace, pod.metadata.name),
    raw = true, attempts = 1, max_body = LARGEST, accept = "text/plain" }
end

local function get(url)
  local reply = errors.check(require("eirun.target").http():request { url = url, timeout = 60, connect_timeout = 5, max_body = LARGEST })
  if reply.status ~= 200 then
    errors.raise(reply.status == 401 and "denied" or reply.status == 403 and "denied" or "network",
      ("%s answered %d: %s"):format(url:match "^[^?]*", reply.status, require("eirun.http").excerpt(reply.body)))
  end
  return reply.body
end

local function direct(pod, port)
  local ip = (pod.status or {}).podIP
  if not ip then errors.raise("not_found", ("Pod '%s/%s' has no address"):format(pod.metadata.namespace, pod.metadata.name)) end
  return get(("http://%s:%d/metrics"):format(ip:find(":", 1, true) and "[" .. ip .. "]" or ip, port))
end

-- From the address in the node's annotation; where nothing answers the exporter may have moved since the nodes were listed.
local function get_of_node(k8s, node)
  local ok, text = pcall(get, node.annotation)
  if ok then return text end
  local found, now = pcall(k8s.get, k8s, "Node", node.name)
  local url = found and now and (now.metadata.annotations or {})[M.ANNOTATION]
  if url and url ~= node.annotation then return get(url) end
  error(text, 0)
end

-- The ways to a node's metrics, in the order in which they are tried.
local function ways(k8s, node, pod, opts)
  local list, source = {}, opts.source or "auto"
  if node.annotation and source ~= "proxy" then
    list[#list + 1] = { "node's own address", function() return get_of_node(k8s, node) end }
  end
  if pod and source ~= "direct" then
    list[#list + 1] = { "API server's proxy", function() return through_proxy(k8s, pod, port_of(pod, opts)) end }
  end
  if pod and source ~= "proxy" then list[#list + 1] = { "pod's address", function() return direct(pod, port_of(pod, opts)) end } end
  return list
end

local function try(way, deadline)
  local ok, text = pcall(task.timeout, deadline, way[2])
  if ok then
    local devices, bad
    ok, devices, bad = pcall(M.devices, text)
    if ok then return devices, bad end
    text = devices
  end
  if errors.is(text, "cancelled") then error(text, 0) end
  local err = errors.from(text)
  if err.kind == "timeout" and not err.status then return nil, ("no answer within %g s"):format(deadline) end
  return nil, printable.text(errors.text(err))
end

-- One node: its devices, or why not. Once the proxy was refused to this user it is not asked for every other node.
local function read_node(k8s, node, pod, opts, refused)
  local list, reasons = ways(k8s, node, pod, opts), {}
  if #list == 0 then
    return nil, "no exporter runs there (no pod of dcgm-exporter, no annotation " .. M.ANNOTATION .. ")"
  end
  for _, way in ipairs(list) do
    local devices, why
    if refused[way[1]] then why = refused[way[1]] else devices, why = try(way, opts.deadline or 5) end
    if devices then
      return devices, why > 0 and ("%d line%s of its metrics could not be read"):format(why, why == 1 and "" or "s") or nil, way[1]
    end
    if why:find("forbidden", 1, true) then
      refused[way[1]] = refused[way[1]] or why -- one note for all nodes, in the words of the first
      why = refused[way[1]]
    end
    reasons[#reasons + 1] = way[1] .. ": " .. why
  end
  return nil, table.concat(reasons, "; ")
end

---Reads the exporters of nodes, several at a time.
---@param k8s eirun.KubeClient
---@param nodes table[] each with name and annotation
---@param exporters table<string, table> pod by node
---@param opts eirun.gpu.ClusterOptions
---@return table<string, {devices?: table[], note?: string, via?: string}> by node
---Example: `sources.from_exporters(k8s, nodes, exporters, { deadline = 2 })`. Raises only "cancelled".
function M.from_exporters(k8s, nodes, exporters, opts)
  local found, refused = {}, {}
  task.map(nodes, function(node)
    local devices, note_text, via = read_node(k8s, node, exporters[node.name], opts, refused)
    found[node.name] = { devices = devices, note = note_text, via = via }
  end, opts.parallel or 16)
  return found
end

-- Prometheus --------------------------------------------------------------------------------------------------------------

local function metric_names()
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local node_labels = { "Hostname", "node", "kubernetes_node", "node_name", "nodename", "instance", "pod" }

-- The node that a series is about: by its name, its address, or its exporter's pod.
local function node_of(labels, by_name)
  for _, name in ipairs(node_labels) do
    for _, value in ipairs { labels["exported_" .. name] or "", labels[name] or "" } do
      local found = by_name[value] or by_name[value:match "^%[?(.-)%]?:%d+$" or ""]
      if found then return found end
    end
  end
end

-- Names, addresses and exporters of the nodes.
local function known_names(nodes, exporters)
  local by_name = {}
  for _, node in ipairs(nodes) do
    local pod = exporters[node.name]
    for _, name in ipairs { node.name, node.address or node.name, pod and pod.metadata.name, pod and pod.status and pod.status.podIP } do
      by_name[name] = by_name[name] or node.name
    end
  end
  return by_name
end

-- Without a pod on the GPU the series carries the exporter's own.
local function without_exporter(devices, pod)
  for _, device in ipairs(devices) do
    if pod and device.pod == pod.metadata.name then device.pod, device.namespace = nil, nil end
  end
  return devices
end

local function vector(body)
  local reply = errors.check(json.decode(body))
  local data = type(reply) == "table" and type(reply.data) == "table" and reply.data or {}
  if type(reply) ~= "table" or reply.status ~= "success" or type(data.result) ~= "table" then
    errors.raise("invalid", "Prometheus did not answer a vector: " .. tostring(type(reply) == "table" and reply.error or body:sub(1, 80)))
  end
  return data.result
end

---Asks Prometheus for the last values of all GPUs.
---@param url string
---@param nodes table[] each with name and address
---@param exporters table<string, table> pod by node
---@param opts {deadline?: number}
---@return table<string, {devices: table[], via: string}> by node
---Example: `sources.from_prometheus("http://prometheus.monitoring:9090", nodes, {}, {})`.
---Raises "network", "timeout", "denied", or "invalid" for another answer.
function M.from_prometheus(url, nodes, exporters, opts)
  local wire = require "eirun.wire"
  local query = ('{__name__=~"%s"}'):format(table.concat(metric_names(), "|"))
  local body = task.timeout(opts.deadline or 30, get, ("%s/api/v1/query?%s"):format(url:gsub("/+$", ""), wire.query { query = query }))
  local by_name, raw, found = known_names(nodes, exporters), {}, {}
  for _, series in ipairs(vector(body)) do
    local labels = type(series.metric) == "table" and series.metric or {}
    local node = node_of(labels, by_name)
    local value = type(series.value) == "table" and tonumber((tostring(series.value[2]):gsub("^%+", "")))
    if node and value and labels.__name__ then
      raw[node] = raw[node] or {}
      note(raw[node], labels.__name__, labels, value + 0.0)
    end
  end
  for name, devices in pairs(raw) do
    found[name] = { devices = without_exporter(finish(devices), exporters[name]), via = "Prometheus" }
  end
  return found
end

return M
