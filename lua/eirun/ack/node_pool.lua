-- SPDX-License-Identifier: Apache-2.0
-- Node pools of one cluster: found by name, made once, changed only where the specification says so.
local cloud = require "eirun.cloud"
local deletion = require "eirun.ack.deletion"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local pool_spec = require "eirun.ack.pool_spec"
local ratio = require "eirun.ack.ratio"
local resource = require "eirun.resource"
local step = require "eirun.step"
local stock = require "eirun.ack.stock"
local task = require "eirun.task"
local tasks = require "eirun.ack.tasks"

local M = {}

---@class eirun.NodePool
---@field id string
---@field name string
---@field cluster_id string
---@field scaling_group_id string
---@field detail table the pool as the API tells it
---@field asked {base: integer, percent: integer}|nil the promise about on-demand instances; nil for a pool without spot
local NodePool = {}
NodePool.__index = NodePool
M.NodePool = NodePool
NodePool.__name = "eirun.node_pool"

local function asked_of(group)
  local base, percent = group.on_demand_base_capacity, group.on_demand_percentage_above_base_capacity
  if group.spot_strategy == nil or group.spot_strategy == "NoSpot" then return nil end
  return { base = tonumber(base) or 0, percent = tonumber(percent) or 0 }
end

local function as_pool(cluster_id, detail)
  return setmetatable({
    id = detail.nodepool_info.nodepool_id, name = detail.nodepool_info.name, cluster_id = cluster_id,
    scaling_group_id = detail.scaling_group.scaling_group_id, detail = detail, asked = asked_of(detail.scaling_group),
  }, NodePool)
end

local function object(name)
  return ("node pool '%s'"):format(name)
end

local function read(cluster_id, id, name)
  return cloud.cs("DescribeClusterNodePoolDetail", { ClusterId = cluster_id, NodepoolId = id }, { object = object(name) })
end

-- The server's own name filter is not reliable everywhere, so the answer is filtered again.
local function find_id(cluster_id, name)
  local answer = cloud.cs("DescribeClusterNodePools", { ClusterId = cluster_id },
    { query = { NodepoolName = name }, object = object(name) })
  local found = {}
  for _, pool in ipairs(answer.nodepools or {}) do
    if pool.nodepool_info.name == name then found[#found + 1] = pool.nodepool_info.nodepool_id end
  end
  if #found > 1 then
    errors.raise("conflict", ("%d node pools are called '%s': %s"):format(#found, name, table.concat(found, ", ")),
      { object = object(name), hint = "delete or rename all but one" })
  end
  return found[1]
end

---The pool of that name, nil when there is none.
---@param cluster_id string
---@param name string
---@return eirun.NodePool|nil
function M.get(cluster_id, name)
  local id = find_id(cluster_id, name)
  return id and as_pool(cluster_id, read(cluster_id, id, name)) or nil
end

-- What the scaling group did since it was asked, or at last where the time is over, as the error that it amounts to.
local function explain(cluster_id, id, given, asked)
  return function(late)
    local group, problem = read(cluster_id, id, given.name).scaling_group.scaling_group_id
    if late then problem = stock.last_failure(group) else problem = stock.failed_activity(group, asked) end
    return problem and stock.error(object(given.name), problem, given.instance_types)
  end
end

local function follow(cluster_id, id, task_id, given, asked)
  return tasks.wait(task_id, object(given.name), given.timeout, explain(cluster_id, id, given, asked))
end

local CREATE_TRIES, CREATE_PAUSE = 3, 5

-- One try: the new pool's id; or nil and the error when it is not known whether it was made, and the name says that it was not.
local function try_create(cluster_id, given, asked)
  local ok, answer = pcall(cloud.cs, "CreateClusterNodePool", { ClusterId = cluster_id },
    { body = pool_spec.create_body(given), object = object(given.name) })
  if ok then
    follow(cluster_id, answer.nodepool_id, answer.task_id, given, asked)
    return answer.nodepool_id
  end
  if not errors.is(answer) or not answer.uncertain then error(answer, 0) end
  task.sleep(CREATE_PAUSE)
  local id = find_id(cluster_id, given.name)
  if id then
    step.note(("the answer to CreateClusterNodePool was lost, but %s exists: going on with %s"):format(object(given.name), id))
  end
  return id, answer
end

-- CS knows no client token, so the name has to tell whether a create whose answer was lost was carried out.
local function create(cluster_id, given, asked)
  local failure
  for _ = 1, CREATE_TRIES do
    local id, err = try_create(cluster_id, given, asked)
    if id then return id end
    failure = err
  end
  error(failure, 0)
end

-- Scaling goes alone and last: bundled with others it was seen to be dropped, and to be refused for a desired size.
local function bodies_of(body)
  local scaling = body.auto_scaling
  body.auto_scaling = nil
  local list = next(body) and { body } or {}
  if scaling then list[#list + 1] = { auto_scaling = scaling } end
  return list
end

local function modify(cluster_id, plan, given, wanted, asked)
  local observed = plan.observed
  local id = observed.nodepool_info.nodepool_id
  for _, body in ipairs(bodies_of(pool_spec.modify_body(observed, wanted, plan.changes))) do
    local answer = cloud.cs("ModifyClusterNodePool", { ClusterId = cluster_id, NodepoolId = id },
      { body = body, object = object(given.name) })
    follow(cluster_id, id, answer.task_id, given, asked)
  end
  return id
end

-- A maximum or a size of nothing would take all nodes, and replicas with them: the one who wants that deletes the pool.
local function check_shrink(observed, given)
  local running = (observed.status or {}).total_nodes or 0
  local field = given.size == 0 and "size" or given.autoscale and given.autoscale.max == 0 and "autoscale.max"
  if field and running > 0 then
    errors.raise("denied", ("%s = 0 would remove all %d nodes of %s"):format(field, running, object(given.name)),
      { object = object(given.name), hint = "lower it to what shall stay, or delete the pool" })
  end
end

local BLAME_AFTER = 60 -- seconds until a scaling group has had its first try

-- The pool is well when it is active and as many nodes serve as it was promised to hold at least. `since`: when it was asked to grow,
-- which may be a minute of the clock before the waiting, and activities are dated by the minute.
local function wait_ready(cluster_id, id, given, since)
  local least = given.wait_nodes or given.autoscale and given.autoscale.min or given.size or 0
  local started, detail = task.now(), nil
  local ready, err = http.poll({ timeout = given.timeout or 1200, interval = 5, cap = 10, what = object(given.name) }, function()
    detail = read(cluster_id, id, given.name)
    local status = detail.status or {}
    local healthy = status.healthy_nodes or 0
    if healthy >= least and status.state == "active" then return detail end
    deletion.check_state(detail)
    if healthy < least and task.now() - started > BLAME_AFTER then
      local problem = stock.failed_activity(detail.scaling_group.scaling_group_id, since or started)
      if problem then error(stock.error(object(given.name), problem, given.instance_types), 0) end
    end
    return nil, ("it is %s with %d of %d nodes"):format(tostring(status.state), healthy, least)
  end)
  return ready or error(tasks.explained(err, explain(cluster_id, id, given), true), 0)
end

local STABLE_POLLS, STABLE_PAUSE = 4, 15

-- A scaler that was just switched on overshoots and comes back; a count is worth something once it stayed for a while.
local function wait_stable(cluster_id, id, given)
  local last, same, detail = nil, 0, nil
  local ok, err = http.poll({ timeout = given.timeout or 1200, interval = STABLE_PAUSE, cap = STABLE_PAUSE, what = object(given.name) },
    function()
      detail = read(cluster_id, id, given.name)
      local status = detail.status or {}
      local now = ("%s/%s/%s"):format(status.state, status.total_nodes, status.healthy_nodes)
      same, last = now == last and status.state == "active" and same + 1 or 0, now
      if same >= STABLE_POLLS - 1 then return true end
      return nil, "its count of nodes still changes: " .. now
    end)
  return ok and detail or error(tasks.explained(err, explain(cluster_id, id, given), true), 0)
end

local function switches_scaling_on(plan)
  for _, change in ipairs(plan.changes) do
    if change.field == "auto_scaling.enable" and change.to == true then return plan.observed ~= nil end
  end
  return false
end

-- Read back through the API: what was asked for and is not there is said, since the API takes some fields without a word.
local function tell_left(name, wanted, seen)
  for _, change in ipairs(pool_spec.compare(seen, wanted)) do
    step.note(("%s: %s was asked to be %s and is %s"):format(object(name), change.field, json.encode(change.to),
      change.from == nil and "not there" or json.encode(change.from)))
  end
end

-- A new pool in no named zone gets the cluster's own vSwitches; one that exists keeps those that it has.
local function with_vswitches(given, own_vswitches)
  if given.vswitch_ids then return given end
  local full = { vswitch_ids = own_vswitches() }
  for key, value in pairs(given) do full[key] = value end
  return full
end

local function observe(cluster_id, name)
  local id = find_id(cluster_id, name)
  return id and read(cluster_id, id, name) or nil
end

local function compare(observed, given)
  local changes = pool_spec.compare(observed, pool_spec.wanted(given, observed))
  if not observed then return changes end
  deletion.check_state(observed)
  pool_spec.check_changes(given, changes)
  check_shrink(observed, given)
  return changes
end

---Makes the pool as specified; see `cluster:ensure_node_pool`.
---@param cluster_id string
---@param given table a checked specification
---@param own_vswitches fun(): string[] the cluster's own, for a new pool that names none
---@return eirun.NodePool
---@return string outcome
function M.ensure(cluster_id, given, own_vswitches)
  local asked
  local seen, outcome = resource.ensure {
    kind = "node pool", name = given.name, adopt = given.adopt, foreign = pool_spec.foreign,
    observe = function() return observe(cluster_id, given.name) end,
    compare = function(observed) return compare(observed, given) end,
    act = function(plan)
      asked = task.now()
      if not plan.observed then return create(cluster_id, with_vswitches(given, own_vswitches), asked) end
      return modify(cluster_id, plan, given, pool_spec.wanted(given, plan.observed), asked)
    end,
    wait = function(plan)
      local id = plan.result or plan.observed.nodepool_info.nodepool_id
      local ready = wait_ready(cluster_id, id, given, asked)
      return switches_scaling_on(plan) and wait_stable(cluster_id, id, given) or ready
    end,
  }
  if outcome ~= "unchanged" then tell_left(given.name, pool_spec.wanted(given, seen), seen) end
  return as_pool(cluster_id, seen), outcome
end

---The pool as it is now.
---@return eirun.NodePool
---Example: `pool = pool:refresh()`. Raises kind "not_found" when it is gone.
function NodePool:refresh()
  return as_pool(self.cluster_id, read(self.cluster_id, self.id, self.name))
end

---Asked against observed: on-demand and spot instances, counted in four places; see `ack.ratio`.
---@param opts? {k8s?: table, tolerance?: number}
---@return eirun.Ratio
---Example: `print(pool:ratio().observed.spot)`. Raises what the calls raise.
function NodePool:ratio(opts)
  return ratio.of(self, opts)
end

---The pool's instances with zone, type and billing.
---@return eirun.Instance[]
---Example: `for _, node in ipairs(pool:instances()) do print(node.id, node.zone, node.billing) end`.
---Raises what the calls raise.
function NodePool:instances()
  return ratio.instances(self)
end

---Deletes the pool and waits until nothing of it is left: no pool, no scaling group, no instance that costs money.
---@param opts? {drain?: boolean, force?: boolean, adopt?: boolean, k8s?: table, timeout?: number} drain (default true): nodes are
--- emptied first, and with `k8s` a disruption budget that would block that is named before anything is written; force: release nodes
--- undrained; adopt: also a pool that eirun did not make
---@return "deleted"|"unchanged" unchanged: there was none
---Example: `cluster:node_pool("gpu"):delete { k8s = k8s }`.
---Raises "denied" for the default pool and for the last nodes that can run system pods, "conflict" for somebody else's pool or a blocking
---budget, "internal" or "timeout" naming what is left when even the repairs did not help. May be run again at any point.
function NodePool:delete(opts)
  return deletion.delete(self.cluster_id, self.name, function() return observe(self.cluster_id, self.name) end, opts)
end

---Its state and node counts.
---@return {state: string, total: integer, healthy: integer, min: integer, max: integer}
---Example: `print(pool:status().healthy)`. Raises "not_found" when the pool is gone.
function NodePool:status()
  local now = self:refresh().detail
  local scaling, status = now.auto_scaling or {}, now.status or {}
  return { state = status.state, total = status.total_nodes or 0, healthy = status.healthy_nodes or 0,
    min = scaling.min_instances or 0, max = scaling.max_instances or 0 }
end

return M
