-- SPDX-License-Identifier: Apache-2.0
-- Did the pool keep its promise? On-demand and spot counted in four places that do not know of each other.
local cloud = require "eirun.cloud"
local json = require "eirun.core.json"

local M = {}

---@class eirun.Instance
---@field id string
---@field type string
---@field zone string
---@field billing "spot"|"on-demand"
---@field status string
---@field ip string|nil
---@field reclaiming boolean a spot instance in its last minutes

---@class eirun.Ratio
---@field asked {base: integer, percent: integer}|nil
---@field total integer instances in service
---@field expected {on_demand: number, spot: number} what the rule gives for that total
---@field observed {on_demand: integer, spot: integer, percent: number}
---@field kept boolean within the tolerance of the rule
---@field counts table<string, {on_demand: integer, spot: integer}> by source: group, members, instances, nodes
---@field disagree boolean the sources differ
---@field zones table<string, {on_demand: integer, spot: integer}>

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
  return { spot = spot, on_demand = (group.ActiveCapacity or group.TotalCapacity or 0) - spot }
end

local function node_counts(pool, k8s)
  if not k8s then return nil end
  local nodes = k8s:list("Node", { labels = { ["alibabacloud.com/nodepool-id"] = pool.id } })
  local ready = {}
  for _, node in ipairs(nodes) do
    for _, condition in ipairs((node.status or {}).conditions or {}) do
      if condition.type == "Ready" and condition.status == "True" then ready[#ready + 1] = node end
    end
  end
  return count(ready, function(node)
    return billing_of((node.metadata.labels or {})["node.alibabacloud.com/spot-strategy"])
  end)
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

local function by_zone(instances)
  local zones = {}
  for _, instance in ipairs(instances) do
    local zone = zones[instance.zone] or { on_demand = 0, spot = 0 }
    local key = instance.billing == "spot" and "spot" or "on_demand"
    zone[key] = zone[key] + 1
    zones[instance.zone] = zone
  end
  return zones
end

local function differ(counts)
  local first
  for _, source in pairs(counts) do
    first = first or source
    if source.spot ~= first.spot or source.on_demand ~= first.on_demand then return true end
  end
  return false
end

---Asked against observed. One instance of tolerance is the rounding that no document states.
---@param pool eirun.NodePool
---@param opts? {k8s?: table, tolerance?: number} with `k8s`, Ready nodes are counted too
---@return eirun.Ratio
---Example: `local r = ratio.of(pool); print(r.observed.percent, r.kept)`. Raises what the calls raise.
function M.of(pool, opts)
  opts = opts or {}
  local list = members(pool)
  local instances = describe(ids_of(list))
  local counts = {
    group = group_counts(pool), nodes = node_counts(pool, opts.k8s),
    members = count(list, function(member) return billing_of(member.SpotStrategy) end),
    instances = count(instances, function(instance) return instance.billing end),
  }
  local seen = counts.members
  local total = seen.spot + seen.on_demand
  local asked = pool.asked or { base = total, percent = 100 }
  local expected = M.expected(total, asked)
  return {
    asked = pool.asked, total = total, expected = expected, counts = counts, disagree = differ(counts), zones = by_zone(instances),
    observed = { on_demand = seen.on_demand, spot = seen.spot, percent = total > 0 and 100 * seen.on_demand / total or 0 },
    kept = math.abs(seen.on_demand - expected.on_demand) <= (opts.tolerance or 1),
  }
end

return M
