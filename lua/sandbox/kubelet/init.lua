-- SPDX-License-Identifier: Apache-2.0
-- The kubelets of all nodes: nodes come with their instances and go with them, pods that are bound to a node live there.
local task = require "eirun.core.task"
local clusterops = require "sandbox.cloud.clusterops"
local dcgm = require "sandbox.kubelet.dcgm"
local events = require "sandbox.kubelet.events"
local logs = require "sandbox.kubelet.logs"
local network = require "sandbox.inference.network"
local node = require "sandbox.kubelet.node"
local pod = require "sandbox.kubelet.pod"

local M = {}

local user = "system:nodes"
local collect_after = 20 -- pods of a node that is gone are collected this long after it
local vanish_after = 120 -- until then packets to its pods are lost, afterwards nobody has their addresses

-- The values of a map by the order of its keys: what follows is then the same in every run.
local function in_order(map)
  local keys, list = {}, {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  for i, key in ipairs(keys) do list[i] = map[key] end
  return list
end

-- A number for each node's pod network, kept over restarts.
local function node_index(ctx, name)
  local known = ctx.store:get("kubelet_node", name)
  if known then return known.index end
  local index = (ctx.store:get("meta", "kubelet_nodes") or 0) + 1
  ctx.store:tx(function()
    ctx.store:put("meta", "kubelet_nodes", index)
    ctx.store:put("kubelet_node", name, { index = index })
  end)
  return index
end

-- Pods -----------------------------------------------------------------------------------------------------------

local function run_worker(self, where, worker)
  local uid = worker.object.metadata.uid
  where.workers[uid] = worker
  self.ctx.spawn("pod " .. worker.object.metadata.name, function()
    if worker.ran then return end -- a life that ended by an error is not begun again
    worker.ran = true
    local ok, err = pcall(worker.run, worker)
    where.workers[uid] = nil
    if not ok then error(err, 0) end
  end)
end

local function take_up(self, object)
  local where = self.nodes[object.spec.nodeName]
  if not where or not where.alive or where.workers[object.metadata.uid] then return end
  if object.status and pod.finished[object.status.phase] and not object.metadata.deletionTimestamp then return end
  local worker = pod.new(where, object)
  worker:adopt()
  if object.metadata.deletionTimestamp then worker.inbox:put "delete" end
  run_worker(self, where, worker)
end

local function worker_of(self, object)
  local where = self.nodes[object.spec.nodeName or ""]
  return where and where.workers[object.metadata.uid]
end

local function pod_changed(self, object)
  if not object.spec.nodeName then return end
  local worker = worker_of(self, object)
  if worker then worker:update(object) else take_up(self, object) end
end

local function pod_deleted(self, object)
  local worker = worker_of(self, object)
  if worker then worker.inbox:put "gone" end
end

-- Nodes ----------------------------------------------------------------------------------------------------------

local function run_node(self, where)
  where:register()
  for _, object in ipairs(self.pods:list()) do
    if object.spec.nodeName == where.name then take_up(self, object) end
  end
  where:keep_alive()
end

local function node_joins(self, description)
  if self.nodes[description.node_name] then return end
  local where = node.new { kubelet = self, description = description, index = node_index(self.ctx, description.node_name) }
  self.nodes[where.name] = where
  self.ctx.spawn("node " .. where.name, function()
    self.started:wait()
    run_node(self, where)
  end)
end

-- The machine is off: nothing on it answers any more, and nobody there can say so.
local function switch_off(self, where)
  where.alive = false
  local addresses = {}
  for _, worker in ipairs(in_order(where.workers)) do
    if worker.ip then addresses[#addresses + 1] = worker.ip end
    worker.inbox:put "lost"
  end
  return addresses
end

local function delete_pods(self, name)
  local list = self.kube:list("pods", { field_selector = "spec.nodeName=" .. name })
  for _, object in ipairs(list and list.items or {}) do
    self.kube:delete("pods", object.metadata.namespace, object.metadata.name, { grace = 0, uid = object.metadata.uid })
  end
end

-- What the cloud controller and the pod collector do about a node whose instance is gone.
local function clean_up(self, where, addresses)
  self.events:say({ kind = "Node", metadata = { name = where.name, uid = where.name } }, "Normal", "DeletingNode",
    ("Deleting node %s because it does not exist in the cloud provider"):format(where.name))
  self.kube:delete("nodes", nil, where.name)
  self.kube:delete("leases", "kube-node-lease", where.name)
  task.sleep(collect_after)
  delete_pods(self, where.name)
  task.sleep(vanish_after)
  for _, ip in ipairs(addresses) do self.network:close(ip) end
end

local function node_goes(self, gone)
  local where = self.nodes[gone.node_name]
  if not where then return end
  self.nodes[where.name] = nil
  local addresses = switch_off(self, where)
  self.ctx.store:delete("kubelet_node", where.name)
  self.ctx.spawn("node gone " .. where.name, function()
    self.started:wait()
    clean_up(self, where, addresses)
  end)
end

-- A reclaim was announced: the node is emptied before it happens.
local function node_is_noticed(self, notice)
  local where = self.nodes[notice.node_name]
  if not where then return end
  self.ctx.spawn("spot notice " .. where.name, function()
    self.started:wait()
    self.events:say({ kind = "Node", metadata = { name = where.name, uid = where.name } }, "Warning", "InstanceToBeTerminated",
      "Instance is going to be terminated: the spot instance is being reclaimed")
    where:post_notice()
    clusterops.drain(self.kube, where.name, self.ctx.lag.spot_notice)
  end)
end

-- Start ----------------------------------------------------------------------------------------------------------

local function object_changed(self, change)
  for _, where in ipairs(in_order(self.nodes)) do
    for _, worker in ipairs(in_order(where.workers)) do
      for _, one in ipairs(worker.containers) do
        if one.running then one.running:object_changed(change.bucket, change.key) end
      end
    end
  end
end

local function begin(self)
  self.kube = self.ctx.kube_client(user)
  self.http = require("eirun.core.http").client { ca_pem = self.ctx.ca and self.ctx.ca.cert_pem, user_agent = "ossfs" }
  self.events = events.new { kube = self.kube, now = self.ctx.now, component = "kubelet", log = self.ctx.log,
    boot = self.ctx.boot }
  self.pods = self.kube:informer("pods", {
    on_add = function(object) pod_changed(self, object) end,
    on_update = function(_, object) pod_changed(self, object) end,
    on_delete = function(object) pod_deleted(self, object) end,
  })
  self.ctx.spawn("kubelet pods", function() self.pods:run() end)
  self.pods:wait_synced()
  self.started:set()
end

function M.start(ctx)
  local self = { ctx = ctx, network = network.of(ctx), logs = logs.new(ctx.now, ctx.dir), nodes = {}, started = task.event() }
  dcgm.start(self)
  ctx.on("instance.running", function(description) node_joins(self, description) end)
  ctx.on("instance.gone", function(gone) node_goes(self, gone) end)
  ctx.on("instance.notice", function(notice) node_is_noticed(self, notice) end)
  ctx.on("oss.changed", function(change) object_changed(self, change) end)
  ctx.on("started", function() ctx.spawn("kubelet", function() begin(self) end) end)
  function ctx.pod_logs(_, _, container, options) return self.logs:read(container, options) end
  return self
end

return M
