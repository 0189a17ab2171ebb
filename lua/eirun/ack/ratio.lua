-- SPDX-License-Identifier: Apache-2.0
-- Did the pool keep its promise? On-demand and spot counted in four places that do not know of each other, and why they are not as asked.
local cloud = require "eirun.cloud"
local drift = require "eirun.ack.drift"
local errors = require "eirun.errors"
local is_ready = require("eirun.kube.node").is_ready
local json = require "eirun.core.json"
local wire = require "eirun.wire"

local M = {}

---@class eirun.Instance
---@field id string
---@field type string
---@field zone string
---@field billing "spot"|"on-demand"
---@field status string
---@field ip string|nil
---@field reclaiming boolean a spot instance in its last minutes

---@class eirun.DriftReason
---@field reason "attached"|"changed_percentage"|"scaler"|"reclaim"|"compensation"|"stock_out"|"scale_in"|"unknown"
---@field instances integer|nil how many it is about
---@field text string

---@class eirun.Ratio
---@field asked {base: integer, percent: integer}|nil
---@field total integer instances in service
---@field expected {on_demand: number, spot: number} what the rule gives for that total
---@field observed {on_demand: integer, spot: integer, percent: number}
---@field tolerance number
---@field kept boolean within the tolerance of the rule
---@field counts table<string, {on_demand: integer, spot: integer}> by source: group, members, instances, nodes
---@field disagree boolean the sources differ
---@field differences string[] how they differ, for people
---@field zones table<string, {on_demand: integer, spot: integer}> by zone, as ECS tells them
---@field by_zone table<string, table<string, {on_demand: integer, spot: integer}>> by source (members, instances, nodes) and zone
---@field reasons eirun.DriftReason[] why it is not kept; empty while it is

local spot_strategies = { SpotAsPriceGo = true, SpotWithPriceLimit = true }

local function billing_of(strategy)
  return spot_strategies[strategy] and "spot" or "on-demand"
end

local in_service = { InService = true, Protected = true }

local function members(pool)
  local list = cloud.pages("ess", "DescribeScalingInstances", { ScalingGroupId = pool.scaling_group_id }, 100,
    function(answer) return answer.ScalingInstances end)
  local kept = {}
  for _, member in ipairs(list) do if in_service[member.LifecycleState] then kept[#kept + 1] = member end end
  return kept
end

local function is_locked(instance)
  for _, lock in ipairs((instance.OperationLocks or {}).LockReason or {}) do
    if lock.LockReason == "Recycling" then return true end
  end
  return false
end

local function as_instance(instance)
  local addresses = ((instance.VpcAttributes or {}).PrivateIpAddress or {}).IpAddress or {}
  return { id = instance.InstanceId, type = instance.InstanceType, zone = instance.ZoneId, status = instance.Status,
    billing = billing_of(instance.SpotStrategy), ip = addresses[1], reclaiming = is_locked(instance) }
end

local function describe_chunk(ids)
  return cloud.rpc("ecs", "DescribeInstances", { InstanceIds = json.encode(json.array(ids)), MaxResults = 100 }).Instances.Instance
end

local function describe(ids)
  local list = {}
  for first = 1, #ids, 100 do
    for _, instance in ipairs(describe_chunk(table.move(ids, first, math.min(first + 99, #ids), 1, {})) or {}) do
      list[#list + 1] = as_instance(instance)
    end
  end
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

local function ids_of(list)
  local ids = {}
  for i, member in ipairs(list) do ids[i] = member.InstanceId end
  table.sort(ids)
  return ids
end

---The instances of a pool that are in service, as ECS tells them.
---@param pool eirun.NodePool
---@return eirun.Instance[]
function M.instances(pool)
  return describe(ids_of(members(pool)))
end

local function count(list, billing)
  local counts = { on_demand = 0, spot = 0 }
  for _, item in ipairs(list) do
    local key = billing(item) == "spot" and "spot" or "on_demand"
    counts[key] = counts[key] + 1
  end
  return counts
end

local function group_counts(pool)
  local groups = cloud.rpc("ess", "DescribeScalingGroups", { ["ScalingGroupIds.1"] = pool.scaling_group_id, PageSize = 50 }).ScalingGroups
  local group = (groups or {})[1]
  if not group then return nil end
  local spot = group.SpotCapacity or 0
  local serving = group.ActiveCapacity and group.ActiveCapacity + (group.ProtectedCapacity or 0) or group.TotalCapacity or 0
  return { spot = spot, on_demand = serving - spot }
end

local function instance_id_of(node)
  local labels = node.metadata.labels or {}
  return labels["alibabacloud.com/ecs-instance-id"] or ((node.spec or {}).providerID or ""):match "%.(i%-[%w]+)$"
end

-- Ready nodes as { zone, billing }. Older clusters do not label them with their spot strategy; then their instance tells.
local function ready_nodes(pool, k8s, instances)
  local billing, list = {}, {}
  for _, instance in ipairs(instances) do billing[instance.id] = instance.billing end
  for _, node in ipairs(k8s:list("Node", { labels = { ["alibabacloud.com/nodepool-id"] = pool.id } })) do
    local labels = node.metadata.labels or {}
    local strategy = labels["node.alibabacloud.com/spot-strategy"]
    if is_ready(node) then
      list[#list + 1] = { zone = labels["topology.kubernetes.io/zone"] or "?",
        billing = strategy and billing_of(strategy) or billing[instance_id_of(node) or ""] or "on-demand" }
    end
  end
  return list
end

---What the rule gives: the first `base` are on-demand, then `percent` of the rest.
---@param total integer
---@param asked {base: integer, percent: integer}
---@return {on_demand: number, spot: number}
---Example: `ratio.expected(10, { base = 1, percent = 30 }).on_demand` is 3.7.
function M.expected(total, asked)
  local base = math.min(total, asked.base)
  local on_demand = base + (total - base) * asked.percent / 100
  return { on_demand = on_demand, spot = total - on_demand }
end

local function by_zone(list, zone_of, billing)
  local zones = {}
  for _, item in ipairs(list) do
    local name = zone_of(item) or "?"
    zones[name] = zones[name] or { on_demand = 0, spot = 0 }
    local key = billing(item) == "spot" and "spot" or "on_demand"
    zones[name][key] = zones[name][key] + 1
  end
  return zones
end

local sources = { "group", "members", "instances", "nodes" }
local source_names = { group = "the scaling group", members = "its members", instances = "ECS", nodes = "Ready nodes" }

local function empty(counts) return counts.on_demand + counts.spot == 0 end

-- Each source that differs from the members of the group, in words. An empty answer of ECS proves nothing.
local function differences(counts)
  local list, base = {}, counts.members
  for _, source in ipairs(sources) do
    local other = counts[source]
    if other and (other.spot ~= base.spot or other.on_demand ~= base.on_demand) then
      local text = ("%s: %d on-demand and %d spot, its members: %d and %d"):format(source_names[source], other.on_demand, other.spot,
        base.on_demand, base.spot)
      if source == "instances" and empty(other) then text = text .. "; ECS answers nothing to keys that may not ask, too" end
      if source == "nodes" then text = text .. "; an instance whose node is not Ready costs and does not serve" end
      list[#list + 1] = text
    end
  end
  return list
end

local ACTIVITIES = 100

local function strings(list)
  local kept = {}
  for _, item in ipairs(type(list) == "table" and list or {}) do kept[#kept + 1] = type(item) == "table" and item.InstanceId or item end
  return kept
end

local function as_activity(activity)
  local code = activity.ErrorCode
  if code == nil or code == "" or code == json.null then code = ((activity.ErrorMessages or {})[1] or {}).Code end
  local metadata = tostring(activity.ActivityMetadata or "")
  return { start = wire.parse_time(activity.StartTime or "") or 0, cause = tostring(activity.Cause or activity.Description or ""),
    code = code, missing = code ~= nil and code:find "NoStock" ~= nil, created = strings(activity.CreatedInstances),
    removed = strings(activity.DestroyedInstances), goatscaler = metadata:find("goatscaler", 1, true) ~= nil }
end

local function activities(pool)
  local list, number = {}, 1
  while #list < ACTIVITIES do
    local answer = cloud.rpc("ess", "DescribeScalingActivities",
      { ScalingGroupId = pool.scaling_group_id, PageSize = 50, PageNumber = number })
    for _, one in ipairs(answer.ScalingActivities or {}) do list[#list + 1] = as_activity(one) end
    if #(answer.ScalingActivities or {}) < 50 then break end
    number = number + 1
  end
  return list
end

-- Does the market have spot instances of these types? nil when the key may not ask.
local function spot_to_be_had(types)
  local asked = json.array(table.move(types, 1, math.min(#types, 10), 1, {}))
  local ok, answer = pcall(cloud.rpc, "ecs", "DescribeSpotAdvice", { InstanceTypes = asked })
  if not ok then
    if errors.is(answer, "cancelled") then error(answer, 0) end
    return nil
  end
  for _, zone in ipairs((answer.AvailableSpotZones or {}).AvailableSpotZone or {}) do
    if #((zone.AvailableSpotResources or {}).AvailableSpotResource or {}) > 0 then return true end
  end
  return false
end

local function as_member(member)
  return { id = member.InstanceId, billing = billing_of(member.SpotStrategy), attached = member.CreationType == "Attached",
    created = wire.parse_time(member.CreationTime or "") }
end

-- Looked at only when the rule is not kept: what went wrong costs some more questions.
local function reasons(pool, list, result)
  local group, info = pool.detail.scaling_group, pool.detail.nodepool_info
  local known = {}
  for i, member in ipairs(list) do known[i] = as_member(member) end
  return drift.reasons {
    asked = result.asked, on_demand = result.observed.on_demand, spot = result.observed.spot, tolerance = result.tolerance,
    expected = M.expected, members = known, activities = activities(pool), spot_to_be_had = spot_to_be_had(group.instance_types or {}),
    settings = { compensate = group.compensate_with_on_demand == true, remedy = group.spot_instance_remedy == true,
      changed = wire.parse_time(info.updated or ""), created = wire.parse_time(info.created or "") },
  }
end

local function billing_field(item) return item.billing end
local function zone_field(item) return item.zone end
local function member_billing(member) return billing_of(member.SpotStrategy) end

local function observe(pool, k8s)
  local list = members(pool)
  local instances = describe(ids_of(list))
  local nodes = k8s and ready_nodes(pool, k8s, instances)
  return list, {
    group = group_counts(pool), members = count(list, member_billing), instances = count(instances, billing_field),
    nodes = nodes and count(nodes, billing_field),
  }, {
    members = by_zone(list, function(member) return member.ZoneId end, member_billing),
    instances = by_zone(instances, zone_field, billing_field), nodes = nodes and by_zone(nodes, zone_field, billing_field),
  }
end

---Asked against observed, with the reasons where they differ. One instance of tolerance is the rounding that no document states.
---@param pool eirun.NodePool
---@param opts? {k8s?: table, tolerance?: number} with `k8s`, Ready nodes are counted too
---@return eirun.Ratio
---Example: `local r = ratio.of(pool); print(r.observed.percent, r.kept)`. Raises what the calls raise.
function M.of(pool, opts)
  opts = opts or {}
  local list, counts, zones = observe(pool, opts.k8s)
  local seen = counts.members
  local total = seen.spot + seen.on_demand
  local result = {
    asked = pool.asked, total = total, expected = M.expected(total, pool.asked or { base = total, percent = 100 }), counts = counts,
    by_zone = zones, zones = zones.instances, tolerance = opts.tolerance or 1, differences = differences(counts),
    observed = { on_demand = seen.on_demand, spot = seen.spot, percent = total > 0 and 100 * seen.on_demand / total or 0 },
  }
  result.disagree = #result.differences > 0
  result.kept = math.abs(seen.on_demand - result.expected.on_demand) <= result.tolerance
  result.reasons = result.kept and {} or reasons(pool, list, { asked = pool.asked or { base = total, percent = 100 },
    observed = result.observed, tolerance = result.tolerance })
  return result
end

return M
