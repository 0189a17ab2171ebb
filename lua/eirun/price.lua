-- SPDX-License-Identifier: Apache-2.0
-- What an instance costs an hour, as the vendor says at this moment. Remembered for a while, since prices are asked often.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local spec = require "eirun.spec"
local target = require "eirun.target"
local task = require "eirun.task"

local M = {}

local REMEMBER_SECONDS = 600

---@class eirun.Price
---@field hour number
---@field currency string
---@field at number when it was asked, seconds since the epoch
---@field kind "spot"|"on-demand"

local known = {}

local function ask_on_demand(instance_type, zone)
  local answer = cloud.rpc("ecs", "DescribePrice", { ResourceType = "instance", InstanceType = instance_type, ZoneId = zone,
    PriceUnit = "Hour", SpotStrategy = "NoSpot", Amount = 1 }, "type " .. instance_type)
  local price = (answer.PriceInfo or {}).Price or {}
  return tonumber(price.TradePrice or price.OriginalPrice), price.Currency
end

local function newest(list)
  local best
  for _, entry in ipairs(list) do
    if not best or entry.Timestamp > best.Timestamp then best = entry end
  end
  return best
end

local function ask_spot(instance_type, zone)
  local answer = cloud.rpc("ecs", "DescribeSpotPriceHistory", { InstanceType = instance_type, NetworkType = "vpc", ZoneId = zone },
    "type " .. instance_type)
  local entry = newest((answer.SpotPrices or {}).SpotPriceType or {})
  return entry and tonumber(entry.SpotPrice), answer.Currency
end

local askers = { spot = ask_spot, ["on-demand"] = ask_on_demand }

---The price of one instance an hour.
---@param instance_type string
---@param zone string
---@param kind "spot"|"on-demand"
---@return eirun.Price
---Example: `price.hour("ecs.gn6i-c4g1.xlarge", "cn-hangzhou-h", "spot").hour`.
---Raises "not_found" where no price is known, and what the calls raise.
function M.hour(instance_type, zone, kind)
  if not askers[kind] then spec.fail("price", ("kind is 'spot' or 'on-demand', not '%s'"):format(tostring(kind))) end
  local key = table.concat({ target.current().region, instance_type, zone, kind }, "/")
  local price = known[key]
  if price and task.now() - price.at < REMEMBER_SECONDS then return price end
  local hour, currency = askers[kind](instance_type, zone)
  if not hour then
    errors.raise("not_found", ("no %s price is known for %s in %s"):format(kind, instance_type, zone), { object = instance_type })
  end
  price = { hour = hour, currency = currency or "CNY", at = task.now(), kind = kind }
  known[key] = price
  return price
end

---What instances cost together an hour.
---@param instances eirun.Instance[]
---@return {hour: number, currency: string, spot: number, on_demand: number, without_spot: number}
--- `without_spot` is what the same instances would cost on demand
---Example: `price.of(pool:instances()).hour`.
---Raises as `hour`.
function M.of(instances)
  local sum = { hour = 0, spot = 0, on_demand = 0, without_spot = 0, currency = "CNY" }
  for _, instance in ipairs(instances) do
    local price = M.hour(instance.type, instance.zone, instance.billing)
    local key = instance.billing == "spot" and "spot" or "on_demand"
    sum[key], sum.hour, sum.currency = sum[key] + price.hour, sum.hour + price.hour, price.currency
    sum.without_spot = sum.without_spot + M.hour(instance.type, instance.zone, "on-demand").hour
  end
  return sum
end

return M
