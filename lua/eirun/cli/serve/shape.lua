-- SPDX-License-Identifier: Apache-2.0
-- A serving job in arena's shapes: the columns of `arena serve list` and `get`, and the keys of its JSON and YAML. Pure.
local json = require "eirun.core.json"
local wire = require "eirun.wire"

local M = {}

-- Quantities ------------------------------------------------------------------------------------------------------------

local function whole(limits, ...)
  local sum = 0
  for _, name in ipairs { ... } do
    local text = tostring((limits or {})[name] or 0)
    local milli = text:match("^(%d+)m$")
    sum = sum + (milli and math.ceil(tonumber(milli) / 1000) or math.ceil(tonumber(text) or 0))
  end
  return sum
end

local function sum_of(containers, ...)
  local sum = 0
  for _, container in ipairs(containers or {}) do sum = sum + whole((container.resources or {}).limits, ...) end
  return sum
end

---A time as arena says it: 42s, 5m, 3h, 12d, 1y.
---@param seconds number
---@return string
function M.age(seconds)
  local s = math.max(0, math.floor(seconds))
  if s < 60 then return s .. "s" end
  if s < 3600 then return s // 60 .. "m" end
  if s < 86400 then return s // 3600 .. "h" end
  if s < 86400 * 365 then return s // 86400 .. "d" end
  return s // (86400 * 365) .. "y"
end

-- Instances ---------------------------------------------------------------------------------------------------------------

local function reason_of(status)
  local state = status.state or {}
  return state.waiting and state.waiting.reason or state.terminated and state.terminated.reason
end

-- As kubectl's STATUS column for pods.
local function phase_of(pod)
  local status = pod.status or {}
  if pod.metadata.deletionTimestamp then return "Terminating" end
  for _, each in ipairs(status.containerStatuses or {}) do
    local reason = reason_of(each)
    if reason then return reason end
  end
  return status.reason or status.phase or "Unknown"
end

local function counts(pod)
  local ready, restarts = 0, 0
  for _, each in ipairs((pod.status or {}).containerStatuses or {}) do
    if each.ready then ready = ready + 1 end
    restarts = restarts + (each.restartCount or 0)
  end
  return ready, restarts
end

-- The GPUs of a pod that runs; a share of one counts as that part of the node's card.
local function gpus_of(pod, gpu_memory, node_memory)
  if (pod.status or {}).phase ~= "Running" or not pod.spec.nodeName then return 0 end
  if gpu_memory == 0 then return sum_of(pod.spec.containers, "nvidia.com/gpu", "aliyun.com/gpu") end
  local each = node_memory(pod.spec.nodeName)
  return each > 0 and math.floor(gpu_memory / each * 10 + 0.5) / 10 or 0
end

local function instance(pod, now, node_memory)
  local ready, restarts = counts(pod)
  local made = wire.parse_time(pod.metadata.creationTimestamp)
  local memory = sum_of(pod.spec.containers, "aliyun.com/gpu-mem")
  return {
    name = pod.metadata.name, status = phase_of(pod), age = M.age(now - made), readyContainers = ready,
    totalContainers = #pod.spec.containers, restartCount = restarts, nodeIP = (pod.status or {}).hostIP or "",
    nodeName = pod.spec.nodeName or "", ip = (pod.status or {}).podIP or "", requestGPUs = gpus_of(pod, memory, node_memory),
    requestGPUMemory = memory, requestGPUCore = sum_of(pod.spec.containers, "aliyun.com/gpu-core.percentage"),
    creationTimestamp = math.floor(made),
  }
end

-- Address -------------------------------------------------------------------------------------------------------------------

local port_words = { ["grpc-serving"] = "GRPC", ["http-serving"] = "RESTFUL" }

local function is_serving(service)
  for _, port in ipairs(service.spec.ports or {}) do if port_words[port.name] then return true end end
  return false
end

local function address_of(services)
  local found
  for _, service in ipairs(services) do
    local way_in = ((service.status or {}).loadBalancer or {}).ingress
    if service.spec.type == "LoadBalancer" and way_in and way_in[1] then return way_in[1].ip or way_in[1].hostname or "" end
    if not found and is_serving(service) then found = service.spec.clusterIP end
  end
  return found or "N/A"
end

local function endpoints_of(services)
  local list = json.array {}
  for _, service in ipairs(services) do
    for _, port in ipairs(service.spec.ports or {}) do
      local word = port_words[port.name]
      if word then list[#list + 1] = { name = word, port = port.port, nodePort = port.nodePort or 0 } end
    end
  end
  return list
end

---Arena's record of a job.
---@param job eirun.ServingJob
---@param now number
---@param node_memory fun(node: string): number GPU memory of one card of a node that shares its cards
---@return table
function M.info(job, now, node_memory)
  local spec = job.deployment.spec
  local containers, replicas = spec.template.spec.containers, spec.replicas or 1
  local made, instances = wire.parse_time(job.deployment.metadata.creationTimestamp), json.array {}
  for i, pod in ipairs(job.pods) do instances[i] = instance(pod, now, node_memory) end
  return {
    uuid = job.deployment.metadata.uid, name = job.name, namespace = job.namespace, type = job.type.title, version = job.version,
    age = M.age(now - made), desiredInstances = job.desired, availableInstances = job.available, endpoints = endpoints_of(job.services),
    ip = address_of(job.services), instances = instances, requestCPUs = replicas * sum_of(containers, "cpu"),
    requestGPUs = replicas * sum_of(containers, "nvidia.com/gpu", "aliyun.com/gpu"),
    requestGPUMemory = replicas * sum_of(containers, "aliyun.com/gpu-mem"),
    requestGPUCore = replicas * sum_of(containers, "aliyun.com/gpu-core.percentage"), creationTimestamp = math.floor(made),
  }
end

-- Text ------------------------------------------------------------------------------------------------------------------------

local function number(value)
  return value == math.floor(value) and ("%d"):format(value) or ("%.1f"):format(value)
end

local function ports_text(info)
  local list = {}
  for i, entry in ipairs(info.endpoints) do
    list[i] = entry.nodePort ~= 0 and ("%s:%d->%d"):format(entry.name, entry.nodePort, entry.port) or entry.name .. ":" .. entry.port
  end
  return #list > 0 and table.concat(list, ",") or "N/A"
end

local function gpus(info)
  local sum = 0
  for _, each in ipairs(info.instances) do sum = sum + each.requestGPUs end
  return sum
end

-- Two blanks between columns, as arena sets them.
local function aligned(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, utf8.len(cell) or #cell) end
  end
  for n, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = cell .. (" "):rep(widths[i] - (utf8.len(cell) or #cell)) end
    lines[n] = table.concat(cells, "  "):gsub("%s+$", "") .. "\n"
  end
  return table.concat(lines)
end

-- Images and nodes are no columns of arena's: `wide` adds them.
local function wide_cells(job, info)
  local nodes, seen = {}, {}
  for _, each in ipairs(info.instances) do
    if each.nodeName ~= "" and not seen[each.nodeName] then
      seen[each.nodeName] = true
      nodes[#nodes + 1] = each.nodeName
    end
  end
  local labels = job.deployment.metadata.labels
  return { info.age, labels.modelName or "-", job.deployment.spec.template.spec.containers[1].image,
    #nodes > 0 and table.concat(nodes, ",") or "-" }
end

---The table of `arena serve list`.
---@param jobs eirun.ServingJob[]
---@param infos table[] of the same jobs
---@param opts {all?: boolean, wide?: boolean}
---@return string
function M.list(jobs, infos, opts)
  local total = 0
  for _, info in ipairs(infos) do total = total + gpus(info) end
  local head = { "NAME", "TYPE", "VERSION", "DESIRED", "AVAILABLE", "ADDRESS", "PORTS" }
  if opts.all then table.insert(head, 1, "NAMESPACE") end
  if total > 0 then head[#head + 1] = "GPU" end
  if opts.wide then table.move({ "AGE", "MODEL", "IMAGE", "NODES" }, 1, 4, #head + 1, head) end
  local rows = { head }
  for i, info in ipairs(infos) do
    local row = { info.name, info.type, info.version, tostring(info.desiredInstances), tostring(info.availableInstances), info.ip,
      ports_text(info) }
    if opts.all then table.insert(row, 1, info.namespace) end
    if total > 0 then row[#row + 1] = number(gpus(info)) end
    if opts.wide then table.move(wide_cells(jobs[i], info), 1, 4, #row + 1, row) end
    rows[#rows + 1] = row
  end
  return aligned(rows)
end

local function facts(job, info)
  local labels = job.deployment.metadata.labels
  local rows = { { "Name:", info.name }, { "Namespace:", info.namespace }, { "Type:", info.type }, { "Version:", info.version },
    { "Desired:", tostring(info.desiredInstances) }, { "Available:", tostring(info.availableInstances) }, { "Age:", info.age },
    { "Address:", info.ip }, { "Port:", ports_text(info) } }
  if labels.modelName then rows[#rows + 1] = { "ModelName:", labels.modelName } end
  if labels.modelVersion then rows[#rows + 1] = { "ModelVersion:", labels.modelVersion } end
  if gpus(info) > 0 then rows[#rows + 1] = { "GPU:", number(gpus(info)) } end
  return rows
end

---The text of `arena serve get`.
---@param job eirun.ServingJob
---@param info table
---@param events? table[] the newest ones about its pods, shown below
---@return string
function M.get(job, info, events)
  local with_gpu = gpus(info) > 0
  local rows = { { "  NAME", "STATUS", "AGE", "READY", "RESTARTS", "NODE" }, { "  ----", "------", "---", "-----", "--------", "----" } }
  if with_gpu then
    table.insert(rows[1], 6, "GPU")
    table.insert(rows[2], 6, "---")
  end
  for _, each in ipairs(info.instances) do
    local row = { "  " .. each.name, each.status, each.age, ("%d/%d"):format(each.readyContainers, each.totalContainers),
      tostring(each.restartCount), each.nodeName }
    if with_gpu then table.insert(row, 6, number(each.requestGPUs)) end
    rows[#rows + 1] = row
  end
  local text = aligned(facts(job, info)) .. "\nInstances:\n" .. aligned(rows)
  if not events or #events == 0 then return text end
  local lines = { { "  POD", "REASON", "MESSAGE" } }
  for _, event in ipairs(events) do
    lines[#lines + 1] = { "  " .. event.involvedObject.name, event.reason or "", ((event.message or ""):gsub("%s+", " ")) }
  end
  return text .. "\nEvents:\n" .. aligned(lines)
end

return M
