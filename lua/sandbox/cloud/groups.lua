-- SPDX-License-Identifier: Apache-2.0
-- Scaling groups: the number of instances that is wanted, the activities that make it so, and what became of them.
local catalog = require "sandbox.cloud.catalog"
local errors = require "sandbox.cloud.errors"
local instances = require "sandbox.cloud.instances"
local market = require "sandbox.cloud.market"
local ratio = require "sandbox.cloud.ratio"
local times = require "sandbox.times"

local groups = {}

local retry_after = 300 -- seconds until a fixed group tries again to get what it lacks

local function zones_of(vswitch_ids)
  local zones, seen = {}, {}
  for _, id in ipairs(vswitch_ids) do
    local zone = catalog.vswitches[id] and catalog.vswitches[id].zone
    if zone and not seen[zone] then zones[#zones + 1], seen[zone] = zone, true end
  end
  return zones
end

local function price_limits(list)
  local limits = {}
  for _, entry in ipairs(list or {}) do limits[entry.instance_type] = tonumber(entry.price_limit) end
  return limits
end

-- The group's settings in the words of the ratio engine.
function groups.settings(group)
  return { policy = group.multi_az_policy, spot_strategy = group.spot_strategy, base = group.on_demand_base_capacity,
    percent = group.on_demand_percentage_above_base_capacity, pools = group.spot_instance_pools,
    compensate = group.compensate_with_on_demand, types = group.instance_types, zones = zones_of(group.vswitch_ids),
    limits = price_limits(group.spot_price_limit) }
end

-- Present and coming instances, without those on their way out.
function groups.members(ctx, group)
  local list = {}
  for _, instance in ipairs(instances.each_of_group(ctx, group.id)) do
    if instance.ess ~= "Removing" then list[#list + 1] = instance end
  end
  return list
end

local function new_activity(ctx, group, cause, description)
  local activity = { id = ctx.id "asa-bp1", group_id = group.id, cause = cause, description = description, created = {},
    destroyed = {}, start = ctx.now(), status = "InProgress", progress = 0 }
  return ctx.store:put("activity", activity.id, activity)
end

local function end_activity(ctx, activity, status, message, code)
  activity.status, activity.progress, activity.ended = status, 100, ctx.now()
  activity.message, activity.error_code = message, code
  ctx.store:put("activity", activity.id, activity)
end

-- vSwitches that a mishap left without addresses sell nothing in their zone.
local function as_the_world_is(ctx, group, settings)
  local free = {}
  for _, id in ipairs(group.vswitch_ids) do
    if not (ctx.store:get("vswitch", id) or {}).full then free[#free + 1] = id end
  end
  settings.zones = zones_of(free)
  settings.rounding = ctx.store:get("meta", "rounding")
  return settings
end

local no_addresses = "The specified vSwitches do not have enough free IP addresses: %d of %d instances could not be created."
local no_stock = "The specified instance types are out of stock in the zones of the scaling group: %d of %d instances could not be created."

-- Ends an activity whose instances have all arrived or gone.
local function settle_activity(ctx, activity)
  if activity.status ~= "InProgress" then return end
  for _, id in ipairs(activity.created) do
    local instance = ctx.store:get("instance", id)
    if instance and instance.ess == "Pending" then return end
  end
  for _, id in ipairs(activity.destroyed) do
    if ctx.store:get("instance", id) then return end
  end
  if (activity.missing or 0) > 0 then
    local text = (activity.no_addresses and no_addresses or no_stock):format(activity.missing, activity.missing + #activity.created)
    return end_activity(ctx, activity, #activity.created > 0 and "Warning" or "Failed", text,
      activity.no_addresses and "InvalidVSwitchId.IpNotEnough" or "OperationDenied.NoStock")
  end
  end_activity(ctx, activity, "Successful", "Operation completed successfully.")
end

local function scale_out(ctx, group, count, cause, billing)
  local pool, settings = ctx.store:get("pool", group.pool_id), as_the_world_is(ctx, group, groups.settings(group))
  if billing == "on_demand" then settings.spot_strategy = "NoSpot" end
  local bought, missing = ratio.purchase(settings, groups.members(ctx, group), count, market.view(ctx))
  local activity = new_activity(ctx, group, cause, ("Add \"%d\" ECS instance(s)"):format(count))
  for _, purchase in ipairs(bought) do
    local instance = instances.create(ctx, pool, group, purchase)
    table.insert(activity.created, instance.id)
    instances.start_boot(ctx, instance)
  end
  activity.missing, activity.no_addresses = missing, #settings.zones == 0 or nil
  settle_activity(ctx, ctx.store:put("activity", activity.id, activity))
  if missing > 0 then
    ctx.emit("group.no_stock", { id = group.id, missing = missing })
    if not group.auto_scaling then ctx.jobs:after(ctx.scaled(retry_after), "group.reconcile", { id = group.id }) end
  end
  return bought, missing, activity
end

-- What happened to instances without the group's doing, as its activities tell it.
function groups.note_loss(ctx, group, ids, cause)
  local activity = new_activity(ctx, group, cause, ("Remove \"%d\" ECS instance(s)"):format(#ids))
  activity.destroyed = ids
  end_activity(ctx, activity, "Successful", "Operation completed successfully.")
end

-- Releases named instances in one activity.
function groups.remove(ctx, group, list, cause, reason)
  local activity = new_activity(ctx, group, cause, ("Remove \"%d\" ECS instance(s)"):format(#list))
  for _, instance in ipairs(list) do
    table.insert(activity.destroyed, instance.id)
    instances.remove(ctx, instance, reason or "scaled-in")
  end
  ctx.store:put("activity", activity.id, activity)
  return activity
end

-- Members that may go: a protected one stays.
local function removable(members)
  local list = {}
  for _, instance in ipairs(members) do if not instance.protected then list[#list + 1] = instance end end
  return list
end
groups.removable = removable

local function scale_in(ctx, group, count, cause)
  local going = ratio.scale_in(groups.settings(group), removable(groups.members(ctx, group)), count, market.view(ctx))
  if #going == 0 then return end
  return groups.remove(ctx, group, going, cause)
end

local function clamp(group, count) return math.max(group.min, math.min(group.max, count)) end

-- Brings the members to group.desired.
function groups.reconcile(ctx, group, cause, billing)
  local have = #groups.members(ctx, group)
  if have < group.desired then return scale_out(ctx, group, group.desired - have, cause, billing) end
  if have > group.desired then return {}, 0, scale_in(ctx, group, have - group.desired, cause) end
  return {}, 0
end

-- A pool of fixed size asks for what its group now wants.
function groups.note_size(ctx, group)
  local pool = ctx.store:get("pool", group.pool_id)
  if not pool or group.auto_scaling or pool.spec.scaling_group.desired_size == nil then return end
  pool.spec.scaling_group.desired_size = group.desired
  ctx.store:put("pool", pool.id, pool)
end

-- Wants `count` instances. An autoscaled group that finds no stock gives up the rest: its scaler will ask again.
-- billing "on_demand" buys no spot this time, whatever the group's settings say.
function groups.set_desired(ctx, group, count, cause, billing)
  return ctx.store:tx(function()
    group.desired = clamp(group, count)
    ctx.store:put("group", group.id, group)
    local bought, missing, activity = groups.reconcile(ctx, group, cause, billing)
    if missing > 0 and group.auto_scaling then
      group.desired = math.max(group.min, group.desired - missing)
      ctx.store:put("group", group.id, group)
    end
    groups.note_size(ctx, group)
    return bought, missing, activity
  end)
end

local function new_group(ctx, pool)
  return { id = ctx.id "asg-bp1", name = "acs-nodePool-" .. pool.id, pool_id = pool.id, state = "Active", created = ctx.now(),
    configuration = ctx.id "asc-bp1", desired = 0, min = 0, max = 0 }
end

local copied = { "instance_types", "vswitch_ids", "multi_az_policy", "spot_strategy", "spot_price_limit", "on_demand_base_capacity",
  "on_demand_percentage_above_base_capacity", "spot_instance_pools", "spot_instance_remedy", "compensate_with_on_demand",
  "scaling_policy", "tags", "image_type", "system_disk_category", "system_disk_size" }

-- Takes the group's settings over from the pool's spec.
function groups.follow(ctx, group, pool)
  local scaling, auto = pool.spec.scaling_group, pool.spec.auto_scaling
  for _, name in ipairs(copied) do group[name] = scaling[name] end
  group.auto_scaling = auto.enable
  group.min = auto.enable and auto.min_instances or 0
  group.max = auto.enable and auto.max_instances or 1000
  return ctx.store:put("group", group.id, group)
end

-- Creates the group of a new pool; instances come with set_desired.
function groups.create(ctx, pool)
  local group = new_group(ctx, pool)
  pool.group_id = group.id
  return groups.follow(ctx, group, pool)
end

function groups.of_pool(ctx, pool) return ctx.store:get("group", pool.group_id) end

function groups.find(ctx, id)
  local group = ctx.store:get("group", id or "")
  if not group then
    errors.raise(404, "InvalidScalingGroupId.NotFound", ("The scaling group \"%s\" does not exist."):format(tostring(id)))
  end
  return group
end

-- Counts by life cycle, as DescribeScalingGroups shows them.
function groups.capacity(ctx, group)
  local counts = { total = 0, active = 0, pending = 0, removing = 0, protected = 0, spot = 0 }
  local field = { InService = "active", Pending = "pending", Removing = "removing" }
  for _, instance in ipairs(instances.each_of_group(ctx, group.id)) do
    counts.total = counts.total + 1
    local name = instance.protected and instance.ess == "InService" and "protected" or field[instance.ess]
    counts[name] = counts[name] + 1
    if instance.spot and instance.ess == "InService" then counts.spot = counts.spot + 1 end
  end
  return counts
end

local function settle_group(ctx, group_id)
  ctx.store:tx(function()
    for _, activity in ctx.store:each "activity" do
      if activity.group_id == group_id then settle_activity(ctx, activity) end
    end
  end)
end

-- A spot instance that got its notice is replaced at once when the pool asks for that.
local function remedy(ctx, notice)
  local group, instance = ctx.store:get("group", notice.group), ctx.store:get("instance", notice.id)
  if not group or not group.spot_instance_remedy or not instance or instance.replaced then return end
  ctx.store:tx(function()
    instance.replaced = true
    ctx.store:put("instance", instance.id, instance)
    scale_out(ctx, group, 1, ("A preemptible instance will be reclaimed at %s and is replaced"):format(times.iso(notice.terminates)))
  end)
end

-- What a reclaim leaves below the minimum (or below a fixed size) is bought again.
local function refill(ctx, gone)
  if gone.reason ~= "reclaimed" then return end
  local group = ctx.store:get("group", gone.group)
  if not group then return end
  ctx.store:tx(function()
    local have = #groups.members(ctx, group)
    groups.note_loss(ctx, group, { gone.id }, ("The preemptible instance %s was reclaimed"):format(gone.id))
    if group.auto_scaling then group.desired = math.max(group.min, math.min(group.desired, have)) end
    ctx.store:put("group", group.id, group)
    if have < group.desired then groups.reconcile(ctx, group, "A preemptible instance was reclaimed") end
  end)
end

function groups.start(ctx)
  ctx.jobs:handle("group.reconcile", function(data)
    local group = ctx.store:get("group", data.id)
    if group and group.state == "Active" then groups.reconcile(ctx, group, "The scaling group lacks instances") end
  end)
  ctx.on("group.changed", function(data) settle_group(ctx, data.id) end)
  ctx.on("instance.notice", function(data) remedy(ctx, data) end)
  ctx.on("instance.gone", function(data) refill(ctx, data) end)
  -- Notices whose replacement a kill cut off.
  ctx.on("started", function()
    for _, instance in ctx.store:each "instance" do
      if instance.lock then remedy(ctx, { id = instance.id, group = instance.group_id, terminates = instance.terminates }) end
    end
  end)
end

return groups
