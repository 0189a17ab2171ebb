-- SPDX-License-Identifier: Apache-2.0
-- Why a pool's on-demand count is not what the rule gives. Pure: facts that the APIs told in, reasons out. Only instances and
-- activities are known, not what ESS thought, so a reason says what it rests on; those with the best evidence come first.
local M = {}

---@class eirun.DriftFacts
---@field asked {base: integer, percent: integer}
---@field on_demand integer
---@field spot integer
---@field tolerance number
---@field expected fun(total: integer, asked: table): {on_demand: number, spot: number}
---@field members {id: string, billing: string, attached: boolean, created: number}[]
---@field activities {start: number, cause: string, code: string|nil, missing: boolean, created: string[], removed: string[],
--- goatscaler: boolean}[] newest first
---@field settings {compensate: boolean, remedy: boolean, changed: number|nil, created: number|nil} the pool's; `changed`: its last change
---@field spot_to_be_had boolean|nil does the market have spot instances of the pool's types now? nil: not known

local function count(list, keep)
  local n = 0
  for _, item in ipairs(list) do if keep(item) then n = n + 1 end end
  return n
end

-- On-demand above (positive) or below (negative) what the rule gives.
local function surplus(facts, on_demand, spot)
  return on_demand - facts.expected(on_demand + spot, facts.asked).on_demand
end

local function newest(facts)
  local last
  for _, member in ipairs(facts.members) do
    if member.created and (not last or member.created > last) then last = member.created end
  end
  return last
end

local reclaim_words = { "reclaim", "recycl", "interrupt" }

local function is_reclaim(activity)
  local cause = activity.cause:lower()
  for _, word in ipairs(reclaim_words) do if cause:find(word, 1, true) then return true end end
  return false
end

local function removed_by(facts, wanted)
  local n = 0
  for _, activity in ipairs(facts.activities) do
    if is_reclaim(activity) == wanted then n = n + #activity.removed end
  end
  return n
end

-- Each takes the facts and the surplus, and answers a text and the number of instances that it is about, or nil.
local explain = {}

function explain.attached(facts, over)
  local billing = over > 0 and "on-demand" or "spot"
  local n = count(facts.members, function(member) return member.attached and member.billing == billing end)
  if n == 0 then return nil end
  return ("%d %s instances were attached by hand; the rule is kept for instances that the group buys"):format(n, billing), n
end

-- Times of instances are whole minutes, so a change within the same minute does not count.
function explain.changed_percentage(facts)
  local changed, last = facts.settings.changed, newest(facts)
  if not changed or not last or changed < last + 60 or changed - (facts.settings.created or 0) < 60 then return nil end
  return "the pool was changed after its last instance had been bought; instances that are there are not bought again"
end

function explain.scaler(facts, over)
  if over <= 0 or not facts.settings.compensate or facts.spot_to_be_had == false then return nil end
  local present = {}
  for _, member in ipairs(facts.members) do present[member.id] = member.billing == "on-demand" and not member.attached end
  local n = 0
  for _, activity in ipairs(facts.activities) do
    for _, id in ipairs(activity.goatscaler and not activity.missing and activity.created or {}) do
      if present[id] then n = n + 1 end
    end
  end
  if n <= facts.tolerance then return nil end
  return ("instant scaling (goatscaler) bought %d on-demand instances although spot can be had: with compensation allowed it does "
    .. "not look at spot stock; take scaler_type cluster-autoscaler, or compensate = false"):format(n), n
end

function explain.reclaim(facts, over)
  local lost = removed_by(facts, true)
  if over <= 0 or lost == 0 then return nil end
  if surplus(facts, facts.on_demand, facts.spot + lost) > over - facts.tolerance / 2 then return nil end
  return ("%d spot instances were reclaimed%s"):format(lost, facts.settings.remedy and " and not replaced in time" or
    " and nothing replaces them: spot.remedy is off"), lost
end

function explain.compensation(facts, over)
  if over <= 0 or not facts.settings.compensate then return nil end
  local n = count(facts.members, function(member) return member.billing == "on-demand" and not member.attached end)
  n = math.min(n, math.ceil(over))
  if n == 0 then return nil end
  return ("about %d on-demand instances stand in for spot instances that could not be had; they stay until the pool shrinks"):format(n), n
end

function explain.stock_out(facts)
  for _, activity in ipairs(facts.activities) do
    if activity.missing then return ("the group could not buy what it wanted: %s"):format(activity.code or activity.cause) end
  end
end

function explain.scale_in(facts, over)
  local n = removed_by(facts, false)
  if n == 0 then return nil end
  local which = over < 0 and "the dearest vCPU, which is on demand, goes first" or "what left was spot"
  return ("%d instances were removed: %s"):format(n, which), n
end

-- What is asked, and in which order: evidence that names instances before what remains when nothing else fits.
local above = { "attached", "changed_percentage", "scaler", "reclaim", "stock_out", "compensation", "scale_in" }
local below = { "attached", "scale_in", "changed_percentage", "stock_out" }

-- These are inferred from what is left over, so they need that the others leave something.
local inferred = { compensation = true, scale_in = true, changed_percentage = true }

local function explains_all(reasons, over, facts)
  local sum = 0
  for _, reason in ipairs(reasons) do
    if reason.reason == "reclaim" then return true end
    sum = sum + (reason.instances or 0)
  end
  return math.abs(over) - sum <= facts.tolerance
end

---The reasons of a drift, those with the best evidence first; empty while the rule is kept.
---@param facts eirun.DriftFacts
---@return eirun.DriftReason[]
---Example: `drift.reasons(facts)[1].reason` is `compensation`. Raises nothing.
function M.reasons(facts)
  local over, reasons = surplus(facts, facts.on_demand, facts.spot), {}
  if math.abs(over) <= facts.tolerance then return reasons end
  for _, name in ipairs(over > 0 and above or below) do
    local open = not inferred[name] or #reasons == 0 or not explains_all(reasons, over, facts)
    local text, n = nil, nil
    if open then text, n = explain[name](facts, over) end
    if text then reasons[#reasons + 1] = { reason = name, instances = n, text = text } end
  end
  if #reasons == 0 then
    reasons[1] = { reason = "unknown", text = "none of the known reasons fits; the scaling group's activities tell more" }
  end
  return reasons
end

return M
