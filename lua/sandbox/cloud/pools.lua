-- SPDX-License-Identifier: Apache-2.0
-- Node pools as state: what a spec means, how it changes, what the service tells about it.
local json = require "eirun.core.json"
local errors = require "sandbox.cloud.errors"
local groups = require "sandbox.cloud.groups"
local tasks = require "sandbox.cloud.tasks"
local times = require "sandbox.times"

local pools = {}

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for key, item in pairs(value) do
    if item ~= json.null then result[key] = copy(item) end
  end
  return json.is_array(value) and json.array(result) or result
end

local defaults = {
  auto_scaling = { enable = false, min_instances = 0, max_instances = 0, type = "cpu" },
  scaling_group = { multi_az_policy = "PRIORITY", spot_strategy = "NoSpot", instance_charge_type = "PostPaid",
    system_disk_category = "cloud_efficiency", system_disk_size = 120, scaling_policy = "release", image_type = "AliyunLinux3",
    spot_instance_remedy = false, compensate_with_on_demand = false },
  kubernetes_config = { runtime = "containerd", runtime_version = "1.6.39", cpu_policy = "none", cms_enabled = false,
    unschedulable = false, node_name_mode = "nodeip" },
  management = { enable = false, auto_repair = false },
  nodepool_info = { type = "ess" },
}

local lists = { scaling_group = { "tags", "spot_price_limit", "data_disks", "security_group_ids" },
  kubernetes_config = { "labels", "taints" } }

-- A section of the spec: defaults, then `base`, then what the body says; lists are whole values.
local function section(name, base, given)
  local result = {}
  for _, layer in ipairs { defaults[name] or {}, base or {}, given or {} } do
    for key, value in pairs(copy(layer)) do result[key] = value end
  end
  for _, key in ipairs(lists[name] or {}) do result[key] = result[key] or json.array {} end
  return result
end

-- The spec of a new pool. What the body leaves out is as the service fills it.
function pools.new_spec(body)
  local spec = {}
  for name in pairs(defaults) do spec[name] = section(name, nil, body[name]) end
  return spec
end

-- A modified spec. Sections are merged field by field but for auto_scaling, which is taken whole: a body that leaves
-- min_instances out sets it to 0, as users of the real service have found.
function pools.changed_spec(spec, body)
  local changed = {}
  for name in pairs(defaults) do
    local base = spec[name]
    if name == "auto_scaling" and body[name] then base = { type = spec[name].type } end
    changed[name] = section(name, base, body[name])
  end
  changed.auto_scaling.type, changed.nodepool_info.type = spec.auto_scaling.type, spec.nodepool_info.type
  return changed
end

function pools.find(ctx, id)
  local pool = ctx.store:get("pool", id or "")
  if not pool then errors.raise(404, "ErrorNodePoolNotFound", ("node pool %s not found"):format(tostring(id))) end
  return pool
end

-- Raises unless the pool may be changed now.
function pools.ensure_idle(pool)
  local busy = pool.state
  if busy == "deleting" or busy == "delete_failed" or busy == "removing_nodes" then
    errors.raise(400, "InvalidNodePoolStatus.Forbidden", ("the node pool %s is in state %s"):format(pool.id, busy))
  end
end

-- Records a pool with its empty scaling group.
function pools.create(ctx, spec, options)
  options = options or {}
  local pool = { id = options.id or ctx.id("np", 32, "hex"), spec = spec, created = ctx.now(), updated = ctx.now(),
    is_default = options.is_default or false, state = options.state }
  pool.spec.nodepool_info.nodepool_id = pool.id
  ctx.store:put("pool", pool.id, pool)
  groups.create(ctx, pool)
  return ctx.store:put("pool", pool.id, pool)
end

-- How many instances the spec itself asks for at the start.
function pools.initial_size(spec)
  if spec.auto_scaling.enable then return spec.auto_scaling.min_instances end
  return spec.scaling_group.desired_size or 0
end

function pools.state(ctx, pool)
  if pool.state then return pool.state end
  local capacity = groups.capacity(ctx, groups.of_pool(ctx, pool))
  if capacity.pending > 0 then return "scaling" end
  if capacity.removing > 0 then return "removing" end
  return "active"
end

local function status(ctx, pool)
  local capacity = groups.capacity(ctx, groups.of_pool(ctx, pool))
  return { state = pools.state(ctx, pool), total_nodes = capacity.total, healthy_nodes = capacity.active + capacity.protected,
    serving_nodes = capacity.active + capacity.protected, initial_nodes = capacity.pending, removing_nodes = capacity.removing,
    failed_nodes = 0, offline_nodes = 0 }
end

local function scaling_group_view(pool)
  local view = copy(pool.spec.scaling_group)
  view.scaling_group_id = pool.group_id
  view.instance_types = view.instance_types or json.array {}
  if view.login_password and view.login_password ~= "" then view.login_password = "******" end
  return view
end

-- The read model; `detail` adds what lists leave out.
function pools.view(ctx, pool, detail)
  local info = copy(pool.spec.nodepool_info)
  info.nodepool_id, info.region_id, info.is_default = pool.id, ctx.region, pool.is_default
  info.created, info.updated = times.iso_china(pool.created), times.iso_china(pool.updated)
  info.resource_group_id = info.resource_group_id or "rg-acfmsandbox"
  local view = { nodepool_info = info, status = status(ctx, pool), auto_scaling = copy(pool.spec.auto_scaling),
    scaling_group = scaling_group_view(pool), kubernetes_config = copy(pool.spec.kubernetes_config),
    management = copy(pool.spec.management), tee_config = { tee_enable = false }, interconnect_mode = "", max_nodes = 0 }
  if detail then
    view.status.conditions = json.array {}
    view.node_config, view.auto_mode, view.host_network, view.intranet = {}, { enable = false }, false, true
  end
  return view
end

-- Pools in order of their making.
function pools.list(ctx)
  local list = {}
  for _, pool in ctx.store:each "pool" do list[#list + 1] = pool end
  table.sort(list, function(a, b)
    if a.created ~= b.created then return a.created < b.created end
    return a.id < b.id
  end)
  return list
end

local function finish_create(ctx, task)
  local pool = ctx.store:get("pool", task.target.id)
  if not pool then return "fail", "the node pool is gone" end
  pool.state = nil
  ctx.store:put("pool", pool.id, pool)
  local size = pools.initial_size(pool.spec)
  if size > 0 then groups.set_desired(ctx, groups.of_pool(ctx, pool), size, "A user created the node pool") end
end

-- Labels and taints of a changed spec reach present nodes only when the caller asked for it.
local function finish_modify(ctx, task)
  local pool = ctx.store:get("pool", task.target.id)
  if not pool then return "fail", "the node pool is gone" end
  pool.state = nil
  ctx.store:put("pool", pool.id, pool)
  local group = groups.follow(ctx, groups.of_pool(ctx, pool), pool)
  local have, wanted = #groups.members(ctx, group), task.data.desired_size
  wanted = math.max(group.min, math.min(group.max, wanted or have))
  groups.set_desired(ctx, group, wanted, "A user modified the node pool")
  if task.data.update_nodes then ctx.emit("pool.updated", { id = pool.id, previous = task.data.previous }) end
end

local function delete_failed(ctx, pool, why)
  pool.state = "delete_failed"
  ctx.store:put("pool", pool.id, pool)
  return "fail", why
end

local function finish_delete(ctx, task)
  local pool = ctx.store:get("pool", task.target.id)
  if not pool then return nil end
  local group = groups.of_pool(ctx, pool)
  if group and group.deletion_protection then return delete_failed(ctx, pool, "the scaling group is protected against deletion") end
  if group and groups.capacity(ctx, group).total > 0 then
    if task.data.force and #groups.members(ctx, group) == 0 then return "again" end
    return delete_failed(ctx, pool, "ScalingGroup's instances not empty")
  end
  if group then ctx.store:delete("group", group.id) end
  ctx.store:delete("pool", pool.id)
end

function pools.start()
  tasks.finisher("nodepool_create", finish_create)
  tasks.finisher("nodepool_update", finish_modify)
  tasks.finisher("nodepool_delete", finish_delete)
end

pools.copy = copy

return pools
