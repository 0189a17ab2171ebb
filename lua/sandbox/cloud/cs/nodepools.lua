-- SPDX-License-Identifier: Apache-2.0
-- The node pool calls of the container service.
local json = require "eirun.core.json"
local errors = require "sandbox.cloud.errors"
local groups = require "sandbox.cloud.groups"
local pool_schema = require "sandbox.cloud.cs.pool_schema"
local pools = require "sandbox.cloud.pools"
local ram = require "sandbox.cloud.ram"
local tasks = require "sandbox.cloud.tasks"

local nodepools = {}

local function answer(call, pool, task)
  return { nodepool_id = pool.id, task_id = task.id, request_id = call.request_id }
end

local function start_task(ctx, pool, kind, after, data)
  return tasks.start(ctx, { type = kind, target = { id = pool.id, type = "nodepool" }, after = after, data = data })
end

local function check_size_fields(auto, body)
  if auto.enable and ((body.count or 0) > 0 or (body.scaling_group or {}).desired_size ~= nil) then
    errors.raise(400, "InvalidDesiredSizeOrCount.NotNull", "desired_size or count must be empty when auto scaling is enabled")
  end
end

local function check_quota(ctx)
  if ctx.store:count "pool" >= 20 then
    errors.raise(400, "QuotaExceeded.NodePool", "the quota of node pools of this cluster is 20")
  end
end

function nodepools.create(call)
  local ctx, body = call.ctx, call.json()
  pool_schema.check_body(body)
  pool_schema.check_new(body)
  local spec = pools.new_spec(body)
  check_size_fields(spec.auto_scaling, body)
  if body.count and not spec.scaling_group.desired_size then spec.scaling_group.desired_size = body.count end
  pool_schema.check_spec(ctx, spec)
  check_quota(ctx)
  ram.need_role(ctx, "AliyunOOSLifecycleHook4CSRole")
  return ctx.store:tx(function()
    local pool = pools.create(ctx, spec, { state = "initial" })
    return answer(call, pool, start_task(ctx, pool, "nodepool_create", ctx.lag.pool_create))
  end)
end

-- Everything of the spec that the caller named is taken; the rest stays.
function nodepools.modify(call)
  local ctx, body = call.ctx, call.json()
  local pool = pools.find(ctx, call.path.NodepoolId)
  pools.ensure_idle(pool)
  pool_schema.check_body(body)
  if body.nodepool_info and body.nodepool_info.name then pool_schema.check_name(body.nodepool_info.name) end
  local spec = pools.changed_spec(pool.spec, body)
  check_size_fields(spec.auto_scaling, body)
  if spec.auto_scaling.enable then spec.scaling_group.desired_size = nil end
  pool_schema.check_spec(ctx, spec)
  return ctx.store:tx(function()
    local previous = pools.copy(pool.spec.kubernetes_config)
    pool.spec, pool.updated, pool.state = spec, ctx.now(), "updating"
    ctx.store:put("pool", pool.id, pool)
    local data = { update_nodes = body.update_nodes or false, desired_size = spec.scaling_group.desired_size, previous = previous }
    return answer(call, pool, start_task(ctx, pool, "nodepool_update", ctx.lag.pool_update, data))
  end)
end

function nodepools.detail(call)
  local pool = pools.find(call.ctx, call.path.NodepoolId)
  return pools.view(call.ctx, pool, true)
end

function nodepools.list(call)
  local views, wanted = json.array {}, call.params.NodepoolName
  for _, pool in ipairs(pools.list(call.ctx)) do
    if not wanted or wanted == "" or pool.spec.nodepool_info.name == wanted then
      views[#views + 1] = pools.view(call.ctx, pool)
    end
  end
  return { nodepools = views }
end

-- As somebody may have done in the ESS console: the pool's deletion fails until the protection is taken off there.
local function protect_group(ctx, pool)
  local group = groups.of_pool(ctx, pool)
  if not group then return end
  group.deletion_protection = true
  ctx.store:put("group", group.id, group)
end

local function begin_delete(ctx, pool, force)
  pool.state = "deleting"
  ctx.store:put("pool", pool.id, pool)
  local group = groups.of_pool(ctx, pool)
  if not group or not force then return end
  if group.deletion_protection then return end
  group.min, group.desired, group.state = 0, 0, "Deleting"
  ctx.store:put("group", group.id, group)
  local members = groups.removable(groups.members(ctx, group))
  if #members > 0 then groups.remove(ctx, group, members, "A user deleted the node pool", "pool-deleted") end
end

function nodepools.delete(call)
  local ctx, force = call.ctx, call.params.force == "true"
  local pool = pools.find(ctx, call.path.NodepoolId)
  if pool.is_default then errors.raise(400, "InvalidNodePool.Forbidden", "the default node pool cannot be deleted") end
  if pool.state == "deleting" then pools.ensure_idle(pool) end
  return ctx.store:tx(function()
    if call.fault and call.fault.kind == "delete_failed" then protect_group(ctx, pool) end
    begin_delete(ctx, pool, force)
    local task = start_task(ctx, pool, "nodepool_delete", ctx.lag.pool_delete, { force = force })
    return { task_id = task.id, request_id = call.request_id }
  end)
end

-- Adds nodes; refused where a scaler owns the number.
function nodepools.scale(call)
  local ctx, body = call.ctx, call.json()
  local pool = pools.find(ctx, call.path.NodepoolId)
  pools.ensure_idle(pool)
  pool_schema.check_body(body)
  if pool.spec.auto_scaling.enable then
    errors.raise(400, "InvalidDesiredSizeOrCount.NotNull", "desired_size or count must be empty when auto scaling is enabled")
  end
  if (body.count or 0) < 1 then errors.raise(400, "InvalidParameter.Count", "count must be at least 1") end
  return ctx.store:tx(function()
    local group = groups.of_pool(ctx, pool)
    groups.set_desired(ctx, group, #groups.members(ctx, group) + body.count, "A user scaled the node pool")
    local task = tasks.start(ctx, { type = "cluster_scaleout", kind = "nodes_joined", target = { id = pool.id, type = "nodepool" },
      after = ctx.lag.node_boot, data = { group = group.id } })
    return { task_id = task.id, request_id = call.request_id }
  end)
end

-- Changes of nodes that show nowhere here: the call is checked, and its task succeeds.
function nodepools.touch(call)
  local ctx = call.ctx
  local pool = pools.find(ctx, call.path.NodepoolId)
  pools.ensure_idle(pool)
  call.json()
  return ctx.store:tx(function() return answer(call, pool, start_task(ctx, pool, "nodepool_touch", ctx.lag.pool_update)) end)
end

function nodepools.sync(call) return { RequestId = call.request_id } end

local function all_joined(ctx, task)
  local group = ctx.store:get("group", task.data.group)
  if group and groups.capacity(ctx, group).pending > 0 then return "again" end
end

function nodepools.start() tasks.finisher("nodes_joined", all_joined) end

return nodepools
