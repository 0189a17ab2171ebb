-- SPDX-License-Identifier: Apache-2.0
-- The node calls: listing, and removing with or without draining.
local json = require "eirun.core.json"
local catalog = require "sandbox.cloud.catalog"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local groups = require "sandbox.cloud.groups"
local pools = require "sandbox.cloud.pools"
local tasks = require "sandbox.cloud.tasks"
local times = require "sandbox.times"

local nodes = {}

local states = { InService = "running", Pending = "initial", Removing = "removing" }

local function view(ctx, instance)
  local state = states[instance.ess]
  return { instance_id = instance.id, instance_name = "worker-k8s-for-cs-" .. ctx.cluster_id, node_name = instance.node_name,
    host_name = "i" .. instance.id:gsub("%W", ""), nodepool_id = instance.pool_id, instance_type = instance.type,
    instance_type_family = catalog.family(instance.type), instance_role = "Worker", instance_status = instance.ecs,
    node_status = state == "running" and "Ready" or "Unknown", state = state, instance_charge_type = "PostPaid",
    spot_strategy = instance.spot_strategy, image_id = "aliyun_3_x64_20G_alibase_sandbox.vhd", ip_address = json.array { instance.ip },
    is_aliyun_node = true, source = "ess", creation_time = times.iso(instance.created), expired_time = "2099-12-31T15:59:00Z",
    error_message = "" }
end

local function set_of(text)
  if not text or text == "" then return nil end
  local set = {}
  for item in text:gmatch "[^,]+" do set[item] = true end
  return set
end

local function filters(params)
  local wanted, ids, ips, names = params.state, set_of(params.instanceIds), set_of(params.nodeIps), set_of(params.nodeNames)
  return function(node)
    return (not wanted or wanted == "" or wanted == "all" or node.state == wanted)
      and (not params.nodepool_id or params.nodepool_id == "" or node.nodepool_id == params.nodepool_id)
      and (not ids or ids[node.instance_id]) and (not ips or ips[node.ip_address[1]]) and (not names or names[node.node_name])
  end
end

function nodes.list(call)
  local keep, list = filters(call.params), {}
  for _, instance in call.ctx.store:each "instance" do
    local node = view(call.ctx, instance)
    if keep(node) then list[#list + 1] = node end
  end
  local number, size = gateway.integer(call, "pageNumber", 1, 1, 100000), gateway.integer(call, "pageSize", 10, 1, 100)
  return { nodes = gateway.page(list, number, size), page = { page_number = number, page_size = size, total_count = #list } }
end

-- Removal of several instances: they leave their group, whose wanted size follows.
local function release(ctx, group, members)
  groups.remove(ctx, group, members, "A user removed nodes", "removed")
  group.desired = math.max(0, group.desired - #members)
  ctx.store:put("group", group.id, group)
  groups.note_size(ctx, group)
end

local function ids_of(members)
  local ids = {}
  for i, instance in ipairs(members) do ids[i] = instance.id end
  return ids
end

-- With draining the nodes are emptied first (the cluster's side does that); the task waits until they are gone.
local function start_removal(ctx, call, pool, members, drain, kind)
  return ctx.store:tx(function()
    local group = groups.of_pool(ctx, pool)
    local task = tasks.start(ctx, { type = kind, kind = "nodes_removed", target = { id = pool.id, type = "nodepool" }, stage = "DrainNodes",
      after = 1, data = { ids = ids_of(members), group = group.id, drain = drain, asked = ctx.now() }, results = ids_of(members) })
    if drain then
      for _, instance in ipairs(members) do
        ctx.emit("node.drain", { node_name = instance.node_name, task = task.id, id = instance.id })
      end
    else
      release(ctx, group, members)
    end
    return task
  end)
end

local function parse_ids(call)
  local text = call.params.instance_ids or call.params.nodes
  local list = text and json.decode(text)
  if type(list) ~= "table" or #list == 0 then
    errors.raise(400, "MissingParameter", "instance_ids must be a JSON array of instance ids")
  end
  return list
end

function nodes.remove_from_pool(call)
  local ctx = call.ctx
  local pool = pools.find(ctx, call.path.NodepoolId)
  pools.ensure_idle(pool)
  local members = {}
  for _, id in ipairs(parse_ids(call)) do
    local instance = ctx.store:get("instance", id)
    if not instance or instance.pool_id ~= pool.id then
      errors.raise(400, "InvalidInstanceId.NotFound", ("instance %s is not in node pool %s"):format(tostring(id), pool.id))
    end
    members[#members + 1] = instance
  end
  local task = start_removal(ctx, call, pool, members, call.params.drain_node == "true", "nodepool_remove_nodes")
  return { task_id = task.id, request_id = call.request_id }
end

local function by_node_name(ctx, name)
  for _, instance in ctx.store:each "instance" do
    if instance.node_name == name then return instance end
  end
  errors.raise(400, "ErrorNodeNotFound", ("node %s not found"):format(tostring(name)))
end

function nodes.delete(call)
  local ctx, body = call.ctx, call.json()
  if type(body.nodes) ~= "table" or #body.nodes == 0 then errors.raise(400, "MissingParameter", "nodes is required") end
  local by_pool, task = {}, nil
  for _, name in ipairs(body.nodes) do
    local instance = by_node_name(ctx, name)
    by_pool[instance.pool_id] = by_pool[instance.pool_id] or {}
    table.insert(by_pool[instance.pool_id], instance)
  end
  for id, pool in ctx.store:each "pool" do
    if by_pool[id] then task = start_removal(ctx, call, pool, by_pool[id], body.drain_node == true, "cluster_node_delete") end
  end
  return { cluster_id = ctx.cluster_id, task_id = task.id, request_id = call.request_id }
end

-- Drained nodes are released; after the limit they go undrained and the task says so.
local function nodes_removed(ctx, task)
  local group, left = ctx.store:get("group", task.data.group), {}
  for _, id in ipairs(task.data.ids) do
    local instance = ctx.store:get("instance", id)
    if instance then left[#left + 1] = instance end
  end
  if #left == 0 then return nil end
  local late = ctx.now() - task.data.asked > ctx.lag.node_drain_limit
  for _, instance in ipairs(left) do
    if task.data.drain and instance.ess ~= "Removing" and instance.drained then release(ctx, group, { instance }) end
  end
  if late and task.data.drain then return "fail", "drain-node job execute timeout" end
  return "again"
end

function nodes.start(ctx)
  tasks.finisher("nodes_removed", nodes_removed)
  ctx.on("node.drained", function(data)
    local instance = ctx.store:get("instance", data.id)
    if not instance then return end
    instance.drained = true
    ctx.store:put("instance", instance.id, instance)
  end)
end

return nodes
