-- SPDX-License-Identifier: Apache-2.0
-- Spot instances: who has been told to go, what they cost lately, and what can be had.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local spec = require "eirun.spec"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local NOTICE_SECONDS = 300
local TERMINATION = "/latest/meta-data/instance/spot/termination-time"

---@class eirun.SpotNotice
---@field id string the instance
---@field zone? string
---@field type? string
---@field node? string the Kubernetes node's name, where nodes were looked at
---@field sources string[] who says so: "ecs" (a Recycling lock), "node" (the condition InstanceExpired)
---@field by number until when it is gone, at the latest; five minutes from the moment it was first seen here

local first_seen = {}

-- The API does not tell the moment of a notice, so it is counted from when this program saw it first.
local function gone_by(id)
  first_seen[id] = first_seen[id] or task.now()
  return first_seen[id] + NOTICE_SECONDS
end

local function locked(pool)
  local query = { LockReason = "Recycling", MaxResults = 100,
    Tag = pool and { { Key = "ack.alibabacloud.com/nodepool-id", Value = pool.id } } or nil }
  local answer = cloud.all { product = "ecs", action = "DescribeInstances", query = query, add_region = true,
    object = pool and "node pool '" .. pool.name .. "'" or "this region" }
  return (answer.Instances or {}).Instance or {}
end

local function instance_of(node)
  local labels = node.metadata.labels or {}
  return labels["alibabacloud.com/ecs-instance-id"] or ((node.spec or {}).providerID or ""):match "%.(i%-[%w]+)$"
end

local function told_to_go(node)
  for _, condition in ipairs((node.status or {}).conditions or {}) do
    if condition.type == "InstanceExpired" and condition.status == "True" then return true end
  end
  return false
end

local function note(found, id, source)
  local notice = found[id]
  if not notice then
    notice = { id = id, sources = {}, by = gone_by(id) }
    found[id], found[#found + 1] = notice, notice
  end
  table.insert(notice.sources, source)
  return notice
end

local function add_locked(found, pool)
  for _, instance in ipairs(locked(pool)) do
    local notice = note(found, instance.InstanceId, "ecs")
    notice.zone, notice.type = instance.ZoneId, instance.InstanceType
  end
end

local function add_nodes(found, k8s, pool)
  local labels = pool and { ["alibabacloud.com/nodepool-id"] = pool.id } or nil
  for _, node in ipairs(k8s:list("Node", { labels = labels })) do
    local id = instance_of(node)
    if id and told_to_go(node) then note(found, id, "node") end
    if id and found[id] then
      found[id].node = node.metadata.name
      found[id].zone = found[id].zone or (node.metadata.labels or {})["topology.kubernetes.io/zone"]
    end
  end
end

---Instances that have been told to go, as ECS (a `Recycling` lock) and, with `k8s`, the nodes (condition `InstanceExpired` of
---ack-node-problem-detector) tell.
---@param opts? {pool?: eirun.NodePool, k8s?: eirun.KubeClient} default: every instance of the region
---@return eirun.SpotNotice[] sorted by instance
---Example: `for _, notice in ipairs(spot.notices { pool = pool, k8s = k8s }) do print(notice.node, notice.by) end`.
---Raises what the calls raise.
function M.notices(opts)
  spec.check("spot.notices", opts or {}, { pool = { type = "table" }, k8s = { type = "any" } })
  local found, pool, k8s = {}, opts and opts.pool, opts and opts.k8s
  add_locked(found, pool)
  if k8s then add_nodes(found, k8s, pool) end
  for id in pairs(first_seen) do
    if not found[id] then first_seen[id] = nil end
  end
  local list = table.move(found, 1, #found, 1, {})
  table.sort(list, function(a, b) return a.id < b.id end)
  return list
end

---When the instance that this program runs on will be gone, as its metadata service says.
---@return number|nil seconds since the epoch; nil while it is safe
---Example: `local at = spot.notice_here(); if at then drain(at) end`. Raises kind "network" away from ECS.
function M.notice_here()
  local text = require("eirun.credentials.metadata").page(TERMINATION)
  return text and wire.parse_time((text:gsub("%s+$", ""))) or nil
end

local history_rules = { zone = { type = "string" }, from = { type = "number" }, to = { type = "number" } }

---What a type cost as a spot instance, oldest first.
---@param instance_type string
---@param opts? {zone?: string, from?: number, to?: number} default: every zone, the last three hours; 30 days back at most
---@return {zone: string, price: number, on_demand: number, at: number}[] prices an hour
---@return string currency
---Example: `spot.history("ecs.gn6i-c4g1.xlarge", { zone = "cn-hangzhou-h" })[1].price`.
---Raises "invalid" for a time too long ago, and what the call raises.
function M.history(instance_type, opts)
  opts = spec.check("spot.history", opts or {}, history_rules)
  local answer = cloud.all { product = "ecs", action = "DescribeSpotPriceHistory", add_region = true, object = "type " .. instance_type,
    query = { InstanceType = instance_type, NetworkType = "vpc", ZoneId = opts.zone, StartTime = opts.from and wire.iso(opts.from),
      EndTime = opts.to and wire.iso(opts.to) } }
  local list = {}
  for i, entry in ipairs((answer.SpotPrices or {}).SpotPriceType or {}) do
    list[i] = { zone = entry.ZoneId, price = entry.SpotPrice, on_demand = entry.OriginPrice, at = wire.parse_time(entry.Timestamp) }
  end
  table.sort(list, function(a, b)
    if a.at ~= b.at then return a.at < b.at end
    return a.zone < b.zone
  end)
  return list, answer.Currency or "CNY"
end

---Spot capacity that can be had, the calmest and cheapest first.
---@param types? string[] default: every type of the region; more than ten are asked in turns
---@return {type: string, zone: string, interrupted: string, rate: number, discount: number}[] discount: spot price in per cent of
--- the on-demand one
---Example: `spot.advice({ "ecs.gn6i-c4g1.xlarge" })[1].zone`. Raises what the call raises.
function M.advice(types)
  local list = {}
  types = types or {}
  for first = 1, math.max(#types, 1), 10 do
    local chunk = json.array(table.move(types, first, math.min(first + 9, #types), 1, {}))
    local answer = cloud.rpc("ecs", "DescribeSpotAdvice", { InstanceTypes = chunk }, "spot capacity")
    for _, zone in ipairs((answer.AvailableSpotZones or {}).AvailableSpotZone or {}) do
      for _, offer in ipairs((zone.AvailableSpotResources or {}).AvailableSpotResource or {}) do
        list[#list + 1] = { type = offer.InstanceType, zone = zone.ZoneId, interrupted = offer.InterruptRateDesc,
          rate = tonumber(offer.InterruptionRate) or 0, discount = tonumber(offer.AverageSpotDiscount) or 100 }
      end
    end
  end
  table.sort(list, function(a, b)
    if a.rate ~= b.rate then return a.rate < b.rate end
    if a.discount ~= b.discount then return a.discount < b.discount end
    return a.type .. a.zone < b.type .. b.zone
  end)
  return list
end

---The region's zones in which a type is sold as spot now, and at what price, cheapest first.
---@param instance_type string
---@return {zone: string, price: eirun.Price}[]
---Example: `spot.cheapest("ecs.gn6i-c4g1.xlarge")[1].zone`. Raises what the calls raise.
function M.cheapest(instance_type)
  local list = {}
  for _, offer in ipairs(M.advice { instance_type }) do
    local ok, price = pcall(cloud.price, instance_type, offer.zone, "spot")
    if ok then
      list[#list + 1] = { zone = offer.zone, price = price }
    elseif not errors.is(price, "not_found") then
      error(price, 0)
    end
  end
  table.sort(list, function(a, b) return a.price.hour < b.price.hour end)
  return list
end

return M
