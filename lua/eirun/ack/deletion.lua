-- SPDX-License-Identifier: Apache-2.0
-- A node pool goes: scaler off, nodes emptied and released, pool deleted, and the known ways of getting stuck repaired. Each step looks at
-- what is there first, so running again after any failure goes on where it stood.
local budgets = require "eirun.ack.budgets"
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local pool_spec = require "eirun.ack.pool_spec"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local step = require "eirun.step"
local target = require "eirun.target"
local task = require "eirun.task"
local tasks = require "eirun.ack.tasks"

local M = {}

local TIMEOUT, DRAIN_TIMEOUT, EMPTY_TIMEOUT, TRIES = 1200, 2400, 900, 3
local CHUNK = 50
local DRAIN_HINT = "pods could not be evicted, as with a disruption budget that allows none: delete { k8s = k8s } names it; run again, or "
  .. "say force = true"

local rules = {
  drain = { type = "boolean" }, force = { type = "boolean" }, adopt = { type = "boolean" }, k8s = { type = "table" },
  timeout = { type = "number", min = 0 },
}

local hints = {
  deleting = "wait until it is gone, then run again",
  delete_failed = "finish its deletion first: cluster:node_pool(name):delete() repairs what holds it",
}

---Raises kind "conflict" for a pool that is on its way out: nothing can be changed about it.
---@param detail table
function M.check_state(detail)
  local state, name = (detail.status or {}).state, detail.nodepool_info.name
  if not hints[state] then return end
  errors.raise("conflict", ("node pool '%s' is in state %s"):format(name, state),
    { object = ("node pool '%s'"):format(name), hint = hints[state] })
end

-- What ESS is asked to do here may be done twice.
local function ess(job, action, query)
  query.RegionId, query.ScalingGroupId = target.current().region, job.group
  return cloud.call { product = "ess", action = action, query = query, object = job.object, idempotent = true }
end

local function pages(job)
  return cloud.pages("ess", "DescribeScalingInstances", { ScalingGroupId = job.group }, 100,
    function(answer) return answer.ScalingInstances end)
end

-- Members of the scaling group that are not on their way out; none when the group itself is gone.
local function members(job)
  local ok, list = pcall(pages, job)
  if not ok then
    if errors.is(list, "not_found") then return {} end
    error(list, 0)
  end
  local kept = {}
  for _, member in ipairs(list) do
    if not (member.LifecycleState or ""):find "^Removing" then kept[#kept + 1] = member end
  end
  return kept
end

local function ids_of(list, keep)
  local ids = {}
  for _, member in ipairs(list) do
    if not keep or keep(member) then ids[#ids + 1] = member.InstanceId end
  end
  table.sort(ids)
  return ids
end

-- Guards -------------------------------------------------------------------------------------------------------------

local function refuse(job, kind, text, hint)
  errors.raise(kind, ("%s %s"):format(job.object, text), { object = job.object, hint = hint })
end

-- Nodes of other pools that run: what DNS, ingress and metrics would have left.
local function others(job)
  local number, seen, count = 1, 0, 0
  while true do
    local answer = cloud.cs("DescribeClusterNodes", { ClusterId = job.cluster_id },
      { query = { state = "running", pageNumber = number, pageSize = 100 }, object = job.object })
    for _, node in ipairs(answer.nodes or {}) do if node.nodepool_id ~= job.id then count = count + 1 end end
    seen, number = seen + #(answer.nodes or {}), number + 1
    if #(answer.nodes or {}) == 0 or seen >= ((answer.page or {}).total_count or 0) then return count end
  end
end

local function check(job, detail)
  local foreign = not job.opts.adopt and pool_spec.foreign(detail)
  if detail.nodepool_info.is_default == true then
    refuse(job, "denied", "is the cluster's default pool", "it goes with the cluster only")
  end
  if foreign then refuse(job, "conflict", foreign, "say adopt = true to delete it all the same") end
  if ((detail.status or {}).total_nodes or 0) > 0 and others(job) == 0 then
    refuse(job, "denied", "has the cluster's last running nodes: DNS, ingress and metrics would have no place",
      "give the cluster another pool first")
  end
  local blocking = job.opts.k8s and not job.opts.force and budgets.blocking(job.opts.k8s, job.id) or {}
  if #blocking > 0 then
    refuse(job, "conflict", "cannot be emptied: " .. table.concat(blocking, "; "), "run more replicas elsewhere, or say force = true")
  end
end

-- Emptying -----------------------------------------------------------------------------------------------------------

-- The scaler lets go, and no minimum holds nodes: both are said, since what is left out may keep its old value.
local function stop_scaling(job, detail)
  local scaling = detail.auto_scaling or {}
  if not scaling.enable then return end
  local answer = cloud.cs("ModifyClusterNodePool", { ClusterId = job.cluster_id, NodepoolId = job.id },
    { body = { auto_scaling = { enable = false, min_instances = 0, max_instances = 0 } }, object = job.object })
  tasks.wait(answer.task_id, job.object, job.timeout)
end

local function unprotect(job, list)
  local ids = ids_of(list, function(member) return member.LifecycleState == "Protected" end)
  for first = 1, #ids, CHUNK do
    local some = table.move(ids, first, math.min(first + CHUNK - 1, #ids), 1, {})
    ess(job, "SetInstancesProtection", { ProtectedFromScaleIn = false, InstanceId = some })
  end
  if #ids > 0 then step.note(("%s: %d instances were protected against scale-in, and are no more"):format(job.object, #ids)) end
end

local function remove(job, ids)
  local ok, answer = pcall(cloud.cs, "RemoveNodePoolNodes", { ClusterId = job.cluster_id, NodepoolId = job.id }, { object = job.object,
    query = { instance_ids = json.encode(json.array(ids)), drain_node = true, release_node = true, concurrency = true } })
  if ok then
    local done, err = pcall(tasks.wait, answer.task_id, job.object, DRAIN_TIMEOUT)
    if done then return end
    if not errors.is(err) or err.kind == "cancelled" then error(err, 0) end
    error(errors.wrap(err, ("%s; its scaler is off and %d nodes are left"):format(err.message, #members(job)), { hint = DRAIN_HINT }), 0)
  end
  if not errors.is(answer, "not_found") then error(answer, 0) end -- gone meanwhile: the list is read again
end

local function in_service(member) return member.LifecycleState == "InService" or member.LifecycleState == "Protected" end

-- Only nodes that joined can be emptied; the others are released with the pool.
local function drain(job)
  for _ = 1, TRIES do
    local list = members(job)
    unprotect(job, list)
    local ids = ids_of(list, in_service)
    if #ids == 0 then return end
    for first = 1, #ids, CHUNK do remove(job, table.move(ids, first, math.min(first + CHUNK - 1, #ids), 1, {})) end
  end
end

-- Deleting -----------------------------------------------------------------------------------------------------------

local function request(job)
  local force = job.opts.force == true or job.opts.drain == false or #members(job) > 0
  local ok, answer = pcall(cloud.cs, "DeleteClusterNodepool", { ClusterId = job.cluster_id, NodepoolId = job.id },
    { query = { force = force }, object = job.object })
  if ok then return answer.task_id end
  if errors.is(answer, "not_found") then return nil end
  -- Busy with a deletion already: an earlier call whose answer was lost.
  if answer.code == "InvalidNodePoolStatus.Forbidden" then return nil end
  error(answer, 0)
end

-- true when the pool is gone, else the reason why it stays; nil while that is open.
local function verdict(job)
  local detail = job.observe()
  if not detail then return true end
  local state = (detail.status or {}).state
  if state ~= "deleting" then return "it is " .. tostring(state) end
end

local function settle(job, task_id)
  local ok, err = pcall(tasks.wait, task_id, job.object, job.timeout)
  if not ok and (errors.is(err, "cancelled") or not errors.is(err)) then error(err, 0) end
  local outcome, late = http.poll({ timeout = job.timeout, interval = 5, cap = 15, what = "the deletion of " .. job.object },
    function() return verdict(job), "it is deleting" end)
  if outcome == nil then error(late, 0) end
  return outcome == true, not ok and err.message or outcome
end

local function group_is_empty(job)
  local groups = ess(job, "DescribeScalingGroups", { ["ScalingGroupIds.1"] = job.group, PageSize = 50 }).ScalingGroups or {}
  return not groups[1] or groups[1].TotalCapacity == 0, groups[1]
end

-- Protection off, all sizes 0, and patience until the group is empty: what users found to free a pool in delete_failed.
local function repair(job, why)
  step.note(("%s: its deletion failed (%s); taking protection off its scaling group %s and emptying it"):format(job.object, why, job.group))
  local ok, err = pcall(function()
    unprotect(job, members(job))
    ess(job, "ModifyScalingGroup", { GroupDeletionProtection = false, MinSize = 0, MaxSize = 0, DesiredCapacity = 0 })
  end)
  if not ok and errors.is(err, "not_found") then return end -- the group is gone: nothing to repair there
  if not ok then error(err, 0) end
  local _, late = http.poll({ timeout = EMPTY_TIMEOUT, interval = 10, cap = 15, what = "an empty scaling group " .. job.group },
    function() return group_is_empty(job) or nil, "it still has instances" end)
  if late then error(late, 0) end
end

-- Instances by the tag that ACK puts on them: an empty answer of ECS proves nothing, a full one does.
local function left_over(job)
  local answer = cloud.rpc("ecs", "DescribeInstances", { MaxResults = 100, ["Tag.1.Key"] = "ack.alibabacloud.com/nodepool-id",
    ["Tag.1.Value"] = job.id }, job.object)
  return ids_of((answer.Instances or {}).Instance or {}, function(instance) return instance.Status ~= "Stopping" end)
end

local function check_left(job)
  local deadline, ids = task.now() + EMPTY_TIMEOUT, left_over(job)
  while #ids > 0 and task.now() < deadline do
    task.sleep(15)
    ids = left_over(job)
  end
  if #ids == 0 then return end
  errors.raise("internal", ("%s is gone, but %d of its instances are not, and cost money: %s"):format(job.object, #ids,
    table.concat(ids, ", ")), { object = job.object, hint = "release them in the ECS console" })
end

local function give_up(job, why)
  errors.raise("internal", ("%s cannot be deleted: %s; left are the pool %s, its scaling group %s and %d instances"):format(job.object, why,
    job.id, job.group, #members(job)), { object = job.object, hint = "run again, or look at the group's activities in the ESS console" })
end

local function delete_until_gone(job, detail)
  local why
  for try = 1, TRIES do
    local running = try == 1 and (detail.status or {}).state == "deleting"
    local gone, reason = settle(job, not running and request(job) or nil)
    if gone then return end
    why = reason
    if try < TRIES then repair(job, why) end
  end
  give_up(job, why)
end

local function act(job, detail)
  local state, opts = (detail.status or {}).state, job.opts
  if state ~= "deleting" and state ~= "delete_failed" then
    stop_scaling(job, detail)
    if opts.drain ~= false and not opts.force then drain(job) else unprotect(job, members(job)) end
  end
  delete_until_gone(job, detail)
  check_left(job)
end

---Deletes a pool; see `NodePool:delete`.
---@param cluster_id string
---@param name string
---@param observe fun(): table|nil the pool's detail as it is now
---@param opts? table
---@return "deleted"|"unchanged"
function M.delete(cluster_id, name, observe, opts)
  opts = spec.check("delete", opts or {}, rules)
  local detail = observe()
  if not detail then return "unchanged" end
  local job = { cluster_id = cluster_id, id = detail.nodepool_info.nodepool_id, group = detail.scaling_group.scaling_group_id, opts = opts,
    object = ("node pool '%s'"):format(name), observe = observe, timeout = opts.timeout or TIMEOUT }
  if (detail.status or {}).state ~= "deleting" then check(job, detail) end
  local _, outcome = resource.apply { action = "delete", observed = detail, changes = {},
    resource = { kind = "node pool", name = name, act = function() act(job, detail) end } }
  return outcome
end

return M
