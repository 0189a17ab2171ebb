-- SPDX-License-Identifier: Apache-2.0
-- Auto Scaling (ESS): what scaling groups hold and why. Version 2022-02-22, answers without nesting.
local json = require "eirun.core.json"
local encoding = require "sandbox.encoding"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local groups = require "sandbox.cloud.groups"
local times = require "sandbox.times"

local ess = {}

local function array_of(list) return json.array(table.move(list, 1, #list, 1, {})) end

local function group_tags(ctx, group)
  local tags = json.array {}
  local function add(key, value, propagate) tags[#tags + 1] = { TagKey = key, TagValue = value, Propagate = propagate } end
  add("ack.aliyun.com", ctx.cluster_id, true)
  add("ack.alibabacloud.com/nodepool-id", group.pool_id, true)
  if group.auto_scaling then add("k8s.io/cluster-autoscaler", "true", true) end
  for _, tag in ipairs(group.tags or {}) do add(tag.key, tag.value or "", true) end
  return tags
end

local function view_group(ctx, group)
  local capacity = groups.capacity(ctx, group)
  return { ScalingGroupId = group.id, ScalingGroupName = group.name, LifecycleState = group.state, RegionId = ctx.region,
    MinSize = group.min, MaxSize = group.max, DesiredCapacity = group.desired, EnableDesiredCapacity = true,
    TotalCapacity = capacity.total, TotalInstanceCount = capacity.total, ActiveCapacity = capacity.active,
    PendingCapacity = capacity.pending, PendingWaitCapacity = 0, RemovingCapacity = capacity.removing, RemovingWaitCapacity = 0,
    StandbyCapacity = 0, StoppedCapacity = 0, ProtectedCapacity = capacity.protected, InitCapacity = 0, SpotCapacity = capacity.spot,
    MultiAZPolicy = group.multi_az_policy, OnDemandBaseCapacity = group.on_demand_base_capacity,
    OnDemandPercentageAboveBaseCapacity = group.on_demand_percentage_above_base_capacity,
    SpotInstancePools = group.spot_instance_pools, SpotInstanceRemedy = group.spot_instance_remedy or false,
    CompensateWithOnDemand = group.compensate_with_on_demand or false, AllocationStrategy = "priority",
    SpotAllocationStrategy = "lowestPrice", AzBalance = false, AutoRebalance = false, ScalingPolicy = group.scaling_policy,
    CapacityOptions = { OnDemandBaseCapacity = group.on_demand_base_capacity,
      OnDemandPercentageAboveBaseCapacity = group.on_demand_percentage_above_base_capacity,
      CompensateWithOnDemand = group.compensate_with_on_demand or false, SpotAutoReplaceOnDemand = false },
    VSwitchIds = array_of(group.vswitch_ids),
    ActiveScalingConfigurationId = group.configuration,
    GroupDeletionProtection = group.deletion_protection or false, SystemSuspended = false,
    GroupType = "ECS", CreationTime = times.iso_minute(group.created), Tags = group_tags(ctx, group) }
end

local function selected(list)
  if #list == 0 then return nil end
  local set = {}
  for _, value in ipairs(list) do set[value] = true end
  return set
end

local function by_creation(a, b)
  if a.created ~= b.created then return a.created < b.created end
  return a.id < b.id
end

local function all_of(ctx, kind)
  local list = {}
  for _, record in ctx.store:each(kind) do list[#list + 1] = record end
  table.sort(list, by_creation)
  return list
end

local function groups_call(call)
  local ctx, list = call.ctx, {}
  local ids = selected(encoding.numbered(call.params, "ScalingGroupIds"))
    or selected(encoding.numbered(call.params, "ScalingGroupId"))
  local names = selected(encoding.numbered(call.params, "ScalingGroupNames")) or selected { call.params.ScalingGroupName }
  for _, group in ipairs(all_of(ctx, "group")) do
    if (not ids or ids[group.id]) and (not names or names[group.name]) then list[#list + 1] = view_group(ctx, group) end
  end
  local number, size = gateway.integer(call, "PageNumber", 1, 1, 100000), gateway.integer(call, "PageSize", 10, 1, 50)
  return { ScalingGroups = gateway.page(list, number, size), TotalCount = #list, PageNumber = number, PageSize = size }
end

local function life_cycle(instance) return instance.protected and instance.ess == "InService" and "Protected" or instance.ess end

local function view_instance(instance)
  return { InstanceId = instance.id, ScalingGroupId = instance.group_id, SpotStrategy = instance.spot_strategy,
    LifecycleState = life_cycle(instance), HealthStatus = "Healthy", CreationType = instance.creation_type,
    CreationTime = times.iso_minute(instance.created), CreatedTime = times.iso(instance.created), ZoneId = instance.zone,
    PrivateIpAddress = instance.ip, WeightedCapacity = 1, Entrusted = false, WarmupState = "NoNeedWarmup",
    ScalingConfigurationId = instance.configuration or "" }
end

local function instances_call(call)
  local ctx, list, spot = call.ctx, {}, 0
  local group_id = call.params.ScalingGroupId
  if group_id then groups.find(ctx, group_id) end
  local ids = selected(encoding.numbered(call.params, "InstanceIds"))
  local states = selected(encoding.numbered(call.params, "LifecycleStates")) or selected { call.params.LifecycleState }
  for _, instance in ipairs(all_of(ctx, "instance")) do
    local fits = (not group_id or instance.group_id == group_id) and (not ids or ids[instance.id])
    if fits and (not states or states[life_cycle(instance)]) then
      list[#list + 1] = view_instance(instance)
      if instance.spot and instance.ess == "InService" then spot = spot + 1 end
    end
  end
  local number, size = gateway.integer(call, "PageNumber", 1, 1, 100000), gateway.integer(call, "PageSize", 10, 1, 100)
  return { ScalingInstances = gateway.page(list, number, size), TotalCount = #list, TotalSpotCount = spot, PageNumber = number,
    PageSize = size }
end

local function view_activity(activity)
  local messages = json.array {}
  if activity.error_code then
    messages[1] = { Code = activity.error_code, Description = activity.message, FailedInstanceIds = json.array {} }
  end
  return { ScalingActivityId = activity.id, ScalingGroupId = activity.group_id, StatusCode = activity.status,
    StatusMessage = activity.message or "", Cause = activity.cause, Description = activity.description, Progress = activity.progress,
    StartTime = times.iso_minute(activity.start), EndTime = activity.ended and times.iso_minute(activity.ended) or "",
    ErrorCode = activity.error_code, ErrorMessages = messages, CreatedInstances = array_of(activity.created),
    DestroyedInstances = array_of(activity.destroyed),
    ActivityMetadata = activity.metadata or "{}" }
end

-- Newest first.
local function activities_call(call)
  local ctx, list = call.ctx, {}
  local group_id, status = call.params.ScalingGroupId, call.params.StatusCode
  local ids = selected(encoding.numbered(call.params, "ScalingActivityIds"))
  if group_id and not ids then groups.find(ctx, group_id) end
  local sorted = {}
  for _, activity in ctx.store:each "activity" do sorted[#sorted + 1] = activity end
  table.sort(sorted, function(a, b)
    if a.start ~= b.start then return a.start > b.start end
    return a.id < b.id
  end)
  for _, activity in ipairs(sorted) do
    local fits = (not group_id or activity.group_id == group_id) and (not ids or ids[activity.id])
    if fits and (not status or activity.status == status) then
      list[#list + 1] = view_activity(activity)
    end
  end
  local number, size = gateway.integer(call, "PageNumber", 1, 1, 100000), gateway.integer(call, "PageSize", 10, 1, 50)
  return { ScalingActivities = gateway.page(list, number, size), TotalCount = #list, PageNumber = number, PageSize = size }
end

-- The repair of a pool that cannot be deleted changes sizes and protection here; settings belong to CS.
local function modify_call(call)
  local ctx = call.ctx
  local group = groups.find(ctx, gateway.need(call, "ScalingGroupId"))
  local low, high = gateway.integer(call, "MinSize", group.min, 0, 2000), gateway.integer(call, "MaxSize", group.max, 0, 2000)
  if low > high then errors.raise(400, "IncorrectCapacity.MinSize", "MinSize is greater than MaxSize.") end
  ctx.store:tx(function()
    group.min, group.max = low, high
    if call.params.GroupDeletionProtection then group.deletion_protection = call.params.GroupDeletionProtection == "true" end
    ctx.store:put("group", group.id, group)
    groups.set_desired(ctx, group, gateway.integer(call, "DesiredCapacity", group.desired, 0, 2000), "A user changed the scaling group")
  end)
  return {}
end

-- Protection against scale-in, on or off, for named members.
local function protect_call(call)
  local ctx, group = call.ctx, groups.find(call.ctx, gateway.need(call, "ScalingGroupId"))
  local on, ids = gateway.need(call, "ProtectedFromScaleIn") == "true", encoding.numbered(call.params, "InstanceId")
  ctx.store:tx(function()
    for _, id in ipairs(ids) do
      local instance = ctx.store:get("instance", id)
      if not instance or instance.group_id ~= group.id then
        errors.raise(404, "InvalidInstanceId.NotFound", ("Instance \"%s\" is not in the scaling group."):format(id))
      end
      instance.protected = on or nil
      ctx.store:put("instance", id, instance)
    end
  end)
  return {}
end

local function delete_call(call)
  local ctx = call.ctx
  local group = groups.find(ctx, gateway.need(call, "ScalingGroupId"))
  local members = groups.members(ctx, group)
  if #members > 0 and call.params.ForceDelete ~= "true" then
    errors.raise(400, "IncorrectScalingGroupStatus", "The scaling group still has instances.")
  end
  ctx.store:tx(function()
    group.state, group.min, group.desired = "Deleting", 0, 0
    ctx.store:put("group", group.id, group)
    if #members > 0 then groups.remove(ctx, group, members, "A user deleted the scaling group") end
  end)
  return {}
end

function ess.start(ctx)
  local product = { name = "ESS", ram = "ess", versions = { ["2022-02-22"] = true, ["2014-08-28"] = true }, actions = {
    DescribeScalingGroups = groups_call, DescribeScalingInstances = instances_call, DescribeScalingActivities = activities_call,
    ModifyScalingGroup = modify_call, SetInstancesProtection = protect_call, DeleteScalingGroup = delete_call } }
  ctx.service { name = "ESS", env = "ESS", handle = gateway.rpc(ctx, product),
    hosts = { "ess.aliyuncs.com", ("ess.%s.aliyuncs.com"):format(ctx.region), ("ess-vpc.%s.aliyuncs.com"):format(ctx.region) } }
end

return ess
