-- SPDX-License-Identifier: Apache-2.0
-- Why a scaling group did not get what it wanted, in its own words, and what could be had instead.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local wire = require "eirun.wire"

local M = {}

local SUGGESTIONS = 3
local unwell = { Failed = true, Warning = true, Rejected = true }

local function minute(seconds)
  return math.floor(seconds / 60) * 60
end

local function activities_of(scaling_group_id)
  local answer = cloud.rpc("ess", "DescribeScalingActivities", { ScalingGroupId = scaling_group_id, PageSize = 50 },
    "scaling group " .. scaling_group_id)
  return answer.ScalingActivities or {}
end

local function problem_of(activity)
  local code = activity.ErrorCode
  if code == nil or code == "" then code = ((activity.ErrorMessages or {})[1] or {}).Code end
  return { code = code, text = activity.StatusMessage or activity.Description or activity.Cause or activity.StatusCode }
end

---Why the scaling group could not buy what was asked, newest first; nil when nothing failed since then.
---@param scaling_group_id string
---@param since number seconds since the epoch: before the call that made the group grow
---@return {code: string|nil, text: string}|nil
---Example: `local problem = stock.failed_activity("asg-a", task.now() - 600)`. Raises what the call raises.
function M.failed_activity(scaling_group_id, since)
  for _, activity in ipairs(activities_of(scaling_group_id)) do
    local started = wire.parse_time(activity.StartTime or "") or since
    if unwell[activity.StatusCode] and started >= minute(since) then return problem_of(activity) end
  end
end

---What the scaling group's last activity that has ended failed of, whenever that was; nil when it went well or there is none.
---@param scaling_group_id string
---@return {code: string|nil, text: string}|nil
---Example: `local problem = stock.last_failure "asg-a"`. Raises what the call raises.
function M.last_failure(scaling_group_id)
  for _, activity in ipairs(activities_of(scaling_group_id)) do
    if unwell[activity.StatusCode] then return problem_of(activity) end
    if activity.StatusCode == "Successful" then return nil end
  end
end

-- { type, zones, interrupted, price } for each type with spot stock, the calmest and cheapest first.
local function by_type(answer)
  local found, list = {}, {}
  for _, zone in ipairs((answer.AvailableSpotZones or {}).AvailableSpotZone or {}) do
    for _, offer in ipairs((zone.AvailableSpotResources or {}).AvailableSpotResource or {}) do
      local entry = found[offer.InstanceType]
      if not entry then
        entry = { type = offer.InstanceType, zones = {}, interrupted = offer.InterruptRateDesc,
          rate = tonumber(offer.InterruptionRate) or 0, price = tonumber(offer.AverageSpotDiscount) or 100 }
        found[offer.InstanceType], list[#list + 1] = entry, entry
      end
      entry.zones[#entry.zones + 1] = zone.ZoneId
    end
  end
  table.sort(list, function(a, b)
    if a.rate ~= b.rate then return a.rate < b.rate end
    if a.price ~= b.price then return a.price < b.price end
    return a.type < b.type
  end)
  return list
end

local function in_words(entry)
  return ("%s in %s (interrupted %s, at %d%% of the on-demand price)"):format(entry.type, table.concat(entry.zones, ", "),
    entry.interrupted or "rarely", entry.price)
end

-- The pool's own types come first: another zone costs less thought than another type. A GPU pool is offered GPU types only.
local function choose(list, types)
  local own, is_gpu, chosen = {}, types[1] and types[1]:find("^ecs%.[a-z]*gn%d") ~= nil, {}
  for _, name in ipairs(types) do own[name] = true end
  for _, mine in ipairs { true, false } do
    for _, entry in ipairs(list) do
      local alike = (entry.type:find("^ecs%.[a-z]*gn%d") ~= nil) == is_gpu
      if (own[entry.type] == true) == mine and alike and #chosen < SUGGESTIONS then chosen[#chosen + 1] = in_words(entry) end
    end
  end
  return chosen
end

---What spot capacity DescribeSpotAdvice knows of: types like the given ones, with the zones that have them.
---@param types string[] the pool's instance types
---@return string[] at most three lines for people; empty when there is none, or when the key may not ask
---Example: `stock.advice({ "ecs.gn6i-c4g1.xlarge" })[1]`. Raises nothing: advice must not hide the failure that it is about.
function M.advice(types)
  local ok, answer = pcall(cloud.rpc, "ecs", "DescribeSpotAdvice", {}, "spot capacity")
  if not ok then
    if errors.is(answer, "cancelled") then error(answer, 0) end
    return {}
  end
  return choose(by_type(answer), types)
end

local ways_out = "add instance types or zones (vswitch_ids), or set spot.compensate = true so that on-demand stands in"

---The error of a pool that cannot grow.
---@param object string "node pool 'gpu'"
---@param problem {code: string|nil, text: string} of `failed_activity`
---@param types string[]
---@return eirun.Error
---Example: `error(stock.error("node pool 'gpu'", problem, types), 0)`. Raises nothing.
function M.error(object, problem, types)
  local advice = (problem.code or ""):find("NoStock") and M.advice(types) or {}
  local hint = ways_out
  if #advice > 0 then hint = hint .. "; spot capacity now: " .. table.concat(advice, "; ") end
  return errors.new("quota", ("%s cannot grow: %s"):format(object, problem.text or problem.code),
    { code = problem.code, object = object, hint = hint })
end

return M
