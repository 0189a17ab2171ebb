-- SPDX-License-Identifier: Apache-2.0
-- Node pools of one cluster: found by name, made once, changed only where the specification says so.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local pool_spec = require "eirun.ack.pool_spec"
local ratio = require "eirun.ack.ratio"
local resource = require "eirun.resource"
local step = require "eirun.step"
local task = require "eirun.task"
local tasks = require "eirun.ack.tasks"
local wire = require "eirun.wire"

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

local CREATE_TRIES, CREATE_PAUSE = 3, 5

-- One try: the new pool's id; or nil and the error when it is not known whether it was made, and the name says that it was not.
local function try_create(cluster_id, given)
  local ok, answer = pcall(cloud.cs, "CreateClusterNodePool", { ClusterId = cluster_id },
    { body = pool_spec.create_body(given), object = object(given.name) })
  if ok then
    tasks.wait(answer.task_id, object(given.name), given.timeout)
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
local function create(cluster_id, given)
  local failure
  for _ = 1, CREATE_TRIES do
    local id, err = try_create(cluster_id, given)
    if id then return id end
    failure = err
  end
  error(failure, 0)
end

local function modify(cluster_id, plan, given, wanted)
  local observed = plan.observed
  local id = observed.nodepool_info.nodepool_id
  local answer = cloud.cs("ModifyClusterNodePool", { ClusterId = cluster_id, NodepoolId = id },
    { body = pool_spec.modify_body(observed, wanted, plan.changes), object = object(given.name) })
  tasks.wait(answer.task_id, object(given.name), given.timeout)
  return id
end

-- A maximum below what runs would take nodes, and replicas with them: the one who wants that says so by lowering it in two steps
-- or by deleting nodes.
local function check_shrink(observed, given)
  local running = (observed.status or {}).total_nodes or 0
  local max = given.autoscale and given.autoscale.max
  if max == 0 and running > 0 then
    errors.raise("denied", ("autoscale.max = 0 would remove all %d nodes of %s"):format(running, object(given.name)),
      { object = object(given.name), hint = "lower it to what shall stay, or delete the pool" })
  end
end

---Why the scaling group could not buy what was asked, newest first; nil when nothing failed since then.
---@param scaling_group_id string
---@param since number seconds since the epoch
---@return {code: string, text: string}|nil
function M.failed_activity(scaling_group_id, since)
  local answer = cloud.rpc("ess", "DescribeScalingActivities", { ScalingGroupId = scaling_group_id, StatusCode = "Failed",
    PageSize = 50 }, "scaling group " .. scaling_group_id)
  for _, activity in ipairs(answer.ScalingActivities or {}) do
    local started = wire.parse_time(activity.StartTime or "") or since
    if started >= math.floor(since / 60) * 60 then
      return { code = activity.ErrorCode, text = activity.StatusMessage or activity.Description or activity.Cause }
    end
  end
end

local function stock_error(name, problem)
  return errors.new("quota", ("%s cannot grow: %s"):format(object(name), problem.text or problem.code), {
    code = problem.code, object = object(name),
    hint = "add instance types or zones (vswitch_ids), or set spot.compensate = true so that on-demand stands in",
  })
end

-- The pool is well when it is active and as many nodes serve as it was promised to hold at least.
local function wait_ready(cluster_id, id, given)
  local least = given.wait_nodes or given.autoscale and given.autoscale.min or given.size or 0
  local started, detail = task.now(), nil
  local ready, err = http.poll({ timeout = given.timeout or 1200, interval = 5, cap = 10, what = object(given.name) }, function()
    detail = read(cluster_id, id, given.name)
    local status = detail.status or {}
    local healthy = status.healthy_nodes or 0
    if healthy >= least and status.state == "active" then return detail end
    if healthy < least and task.now() - started > 60 then
      local problem = M.failed_activity(detail.scaling_group.scaling_group_id, started)
      if problem then error(stock_error(given.name, problem), 0) end
    end
    return nil, ("it is %s with %d of %d nodes"):format(tostring(status.state), healthy, least)
  end)
  if not ready then error(err, 0) end
  return ready
end

-- Read back through the API: what was asked for and is not there is said, since the API takes some fields without a word.
local function tell_left(name, wanted, seen)
  for _, change in ipairs(pool_spec.compare(seen, wanted)) do
    step.note(("%s: %s was asked to be %s and is %s"):format(object(name), change.field, json.encode(change.to),
      change.from == nil and "not there" or json.encode(change.from)))
  end
end

---Makes the pool as specified; see `cluster:ensure_node_pool`.
---@param cluster_id string
---@param given table a specification with its vswitch_ids
---@return eirun.NodePool
---@return string outcome
function M.ensure(cluster_id, given)
  local wanted = pool_spec.wanted(given)
  local seen, outcome = resource.ensure {
    kind = "node pool", name = given.name, adopt = given.adopt, foreign = pool_spec.foreign,
    observe = function()
      local id = find_id(cluster_id, given.name)
      return id and read(cluster_id, id, given.name) or nil
    end,
    compare = function(observed)
      local changes = pool_spec.compare(observed, wanted)
      if observed then
        pool_spec.check_changes(given.name, changes)
        check_shrink(observed, given)
      end
      return changes
    end,
    act = function(plan)
      return plan.observed and modify(cluster_id, plan, given, wanted) or create(cluster_id, given)
    end,
    wait = function(plan)
      local id = plan.result or plan.observed.nodepool_info.nodepool_id
      return wait_ready(cluster_id, id, given)
    end,
  }
  if outcome ~= "unchanged" then tell_left(given.name, wanted, seen) end
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
