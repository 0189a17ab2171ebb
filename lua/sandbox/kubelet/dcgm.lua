-- SPDX-License-Identifier: Apache-2.0
-- The GPU exporter of each node: Prometheus text under dcgm-exporter's names, fed by what the pods on the node really serve. Each node's
-- annotation says where it is; XIDs come by the fault `xid`.
local task = require "eirun.core.task"

local M = {}

M.annotation = "eirun.io/gpu-metrics"
local host = "dcgm.sandbox.eirun.invalid"
local settle = 1 -- seconds after which the programs of a world that goes on are back
local window = 10 -- seconds over which use is averaged
local reserved_mib, context_mib = 400, 450

-- Watts at rest and at most, from the vendor's data sheets (at rest: assumed).
local power = { T4 = { 10, 70 }, A10 = { 17, 150 }, V100 = { 30, 300 }, A100 = { 50, 400 } }
local cool, hot = 34, 72 -- degrees at rest and under full load, assumed

local function by_name(list)
  table.sort(list, function(a, b)
    local x, y = a.object.metadata, b.object.metadata
    if x.namespace ~= y.namespace then return x.namespace < y.namespace end
    return x.name < y.name
  end)
  return list
end

local function gpus_of(container)
  local limits = container.spec.resources and container.spec.resources.limits or {}
  return tonumber(limits["nvidia.com/gpu"] or 0) or 0
end

-- The containers that hold the node's GPUs, one entry a GPU.
local function holders(node)
  local workers, list = {}, {}
  for _, worker in pairs(node.workers) do workers[#workers + 1] = worker end
  for _, worker in ipairs(by_name(workers)) do
    for _, container in ipairs(worker.containers) do
      for _ = 1, gpus_of(container) do list[#list + 1] = { pod = worker.object.metadata, container = container } end
    end
  end
  return list
end

-- A model server that has loaded its model keeps nearly all the memory, as TensorFlow does; its use is what it was busy with.
local function state_of(holder, total_mib)
  local running = holder and holder.container.running
  local server = running and running.server
  if not running then return 0, 0 end
  if not (server and server.replica) then return 0, context_mib end
  return server.replica:busy(window), total_mib - reserved_mib - context_mib
end

local function gauge(lines, name, help, kind)
  lines[#lines + 1] = ("# HELP %s %s\n# TYPE %s %s"):format(name, help, name, kind or "gauge")
end

local metrics = {
  { "DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", function(g) return cool + (hot - cool) * g.busy end },
  { "DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", function(g) return g.power[1] + (g.power[2] - g.power[1]) * g.busy end },
  { "DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", function(g) return 100 * g.busy end },
  { "DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", function(g) return g.xid end },
  { "DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB).", function(g) return g.total - reserved_mib - g.used end },
  { "DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", function(g) return g.used end },
  { "DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB).", function() return reserved_mib end },
}

local function uuid(node, index)
  local crypto = require "eirun.core.crypto"
  local hex = crypto.hex(crypto.sha256(("%s/%d"):format(node.about.id, index)))
  return ("GPU-%s-%s-%s-%s-%s"):format(hex:sub(1, 8), hex:sub(9, 12), hex:sub(13, 16), hex:sub(17, 20), hex:sub(21, 32))
end

local function labels(node, index, holder)
  local text = ('gpu="%d",UUID="%s",device="nvidia%d",modelName="%s",Hostname="%s"'):format(index, uuid(node, index), index,
    node.about.gpu.model, node.name)
  if holder then
    text = ('%s,container="%s",namespace="%s",pod="%s"'):format(text, holder.container.name, holder.pod.namespace, holder.pod.name)
  end
  return text
end

local function gpus(self, node)
  local list, held = {}, holders(node)
  local total = tonumber(node.about.gpu.memory:match "^%d+")
  for index = 0, node.about.gpus - 1 do
    local holder = held[index + 1]
    local busy, used = state_of(holder, total)
    list[#list + 1] = { labels = labels(node, index, holder), busy = busy, used = used, total = total,
      power = power[node:accelerator() or ""] or power.T4, xid = (self.xids[node.name] or {})[index] or 0 }
  end
  return list
end

---The exporter's answer.
---@param self table
---@param node table
---@return string
local function text_of(self, node)
  local lines, list = {}, gpus(self, node)
  for _, metric in ipairs(metrics) do
    gauge(lines, metric[1], metric[2])
    for _, one in ipairs(list) do lines[#lines + 1] = ("%s{%s} %d"):format(metric[1], one.labels, math.floor(metric[3](one) + 0.5)) end
  end
  return table.concat(lines, "\n") .. "\n"
end

local PLAIN = { ["Content-Type"] = "text/plain; version=0.0.4" }

local function handle(self, req)
  local name = req.path:match "^/nodes/([^/]+)/metrics$"
  local node = name and self.kubelet.nodes[name]
  if not node or not node.about.gpu then return req:respond(404, PLAIN, "no such node with GPUs\n") end
  local fault = self.kubelet.ctx.faults:take("DCGM", name, { before = true })
  local early = self.ready_at - self.kubelet.ctx.now()
  if early > 0 then task.sleep(early) end
  if fault and fault.kind == "slow" then task.sleep(fault.seconds or 30) end
  if fault and fault.kind == "reset" then return req:abort() end
  if fault and fault.kind == "html" then
    return req:respond(200, { ["Content-Type"] = "text/html" }, "<html><body>no metrics here</body></html>\n")
  end
  req:respond(200, PLAIN, text_of(self, node))
end

-- The first node with a pod on a GPU, in the order of names.
local function some_node(self)
  local names = {}
  for name, node in pairs(self.kubelet.nodes) do
    if node.about.gpu and #holders(node) > 0 then names[#names + 1] = name end
  end
  table.sort(names)
  return names[1]
end

local function why_not(self, fault)
  local name = fault.node or some_node(self)
  if not name then return "no node has a job on a GPU; name one with node=" end
  local node = self.kubelet.nodes[name]
  if not node then return ("there is no node '%s'"):format(name) end
  local count = node.about.gpu and node.about.gpus or 0
  if math.type(fault.gpu or 0) == "integer" and (fault.gpu or 0) >= 0 and (fault.gpu or 0) < count then return nil end
  return ("node '%s' has %s, and none of them is gpu %s"):format(name, count == 1 and "1 GPU" or count .. " GPUs", fault.gpu or 0)
end

local function note_fault(self, fault)
  if fault.kind ~= "xid" or why_not(self, fault) then return end
  local name = fault.node or some_node(self)
  self.xids[name] = self.xids[name] or {}
  self.xids[name][fault.gpu or 0] = fault.xid or 79
end

---Where this node's metrics are; nil for one without GPUs.
---@param kubelet table
---@param node table
---@return string|nil
function M.url(kubelet, node)
  if not node.about.gpu then return nil end
  local ports = (kubelet.ctx.server and kubelet.ctx.server.ports or {}).DCGM
  local address = ports and ports.plain and "127.0.0.1:" .. ports.plain or host
  return ("http://%s/nodes/%s/metrics"):format(address, node.name)
end

---Declares the service.
---@param kubelet table
function M.start(kubelet)
  local self = { kubelet = kubelet, xids = {}, ready_at = kubelet.ctx.now() + settle }
  kubelet.ctx.service { name = "DCGM", hosts = { host }, tls = false, handle = function(req) handle(self, req) end }
  kubelet.ctx.faults:check("xid", function(fault) return why_not(self, fault) end)
  kubelet.ctx.on("fault", function(fault) note_fault(self, fault) end)
end

return M
