-- SPDX-License-Identifier: Apache-2.0
-- Plans and durations as one writes them on a command line: `0..60:2m, 60:12m, 60..0:1m`.
local errors = require "eirun.errors"

local M = {}

local units = { [""] = 1, ms = 1e-3, s = 1, m = 60, h = 3600 }

local function refuse(what, text, column, reason)
  errors.raise("invalid", ("%s '%s': %s at column %d"):format(what, text, reason, column), {
    column = column, excerpt = text .. "\n" .. (" "):rep(column - 1) .. "^",
  })
end

local function number_at(what, text, at)
  local digits = text:match("^%d+%.?%d*", at) or text:match("^%.%d+", at)
  if not digits then refuse(what, text, at, "expected a number") end
  if text:sub(at + #digits - 1, at + #digits) == ".." then digits = digits:sub(1, -2) end -- "0..60": the first dot is none of the number's
  return tonumber(digits), at + #digits
end

local function duration_at(what, text, at, may_be_zero)
  local total, first = 0, at
  repeat
    local number, after = number_at(what, text, at)
    local unit = text:match("^%a*", after)
    if not units[unit] then refuse(what, text, after, "expected ms, s, m or h") end
    total, at = total + number * units[unit], after + #unit
  until not text:find("^%d", at)
  if total <= 0 and not may_be_zero then refuse(what, text, first, "a duration must be above 0") end
  return total, at
end

---Reads a duration: `90`, `90s`, `1m30s`, `250ms`, `2h`.
---@param text string
---@return number seconds
---Example: `plantext.duration "1m30s" --> 90`. Raises kind "invalid" with `column` and `excerpt`.
function M.duration(text)
  local seconds, at = duration_at("duration", text, 1)
  if at <= #text then refuse("duration", text, at, "nothing more was expected") end
  return seconds
end

local function range_at(text, at)
  local from, to
  from, at = number_at("plan", text, at)
  if not text:find("^%.%.", at) then return from, nil, at end
  to, at = number_at("plan", text, at + 2)
  return from, to, at
end

local function waves_at(text, at, kind)
  local phase = { kind = kind }
  phase.rate, phase.peak, at = range_at(text, at)
  if not phase.peak then refuse("plan", text, at, "expected .. and the peak") end
  if kind == "sine" then
    if text:sub(at, at) ~= "/" then refuse("plan", text, at, "expected / and the time of one wave") end
    phase.period, at = duration_at("plan", text, at + 1)
  end
  return phase, at
end

local function rates_at(text, at)
  local from, to
  from, to, at = range_at(text, at)
  if not to then return { kind = "hold", rate = from }, at end
  local steps = text:match("^/(%d+)", at)
  if not steps then return { kind = "ramp", from = from, to = to }, at end
  return { kind = "steps", from = from, to = to, steps = math.tointeger(tonumber(steps)) }, at + 1 + #steps
end

local function phase_at(text, at)
  local phase
  local word, after = text:match("^(%a+):?()", at)
  if word == "pause" then
    phase, at = { kind = "pause" }, at + 5
  elseif word == "sine" or word == "spike" then
    phase, at = waves_at(text, after, word)
  else
    phase, at = rates_at(text, at)
  end
  if text:sub(at, at) ~= ":" then refuse("plan", text, at, phase.kind == "hold" and "expected .. or :" or "expected :") end
  phase.duration, at = duration_at("plan", text, at + 1)
  return phase, at
end

---Reads a plan: phases with commas between, each `RATE:DURATION`, `FROM..TO:DURATION`, `FROM..TO/STEPS:DURATION`,
---`sine:FROM..PEAK/PERIOD:DURATION`, `spike:FROM..PEAK:DURATION` or `pause:DURATION`.
---@param text string
---@return eirun.LoadPhase[]
---Example: `plantext.plan "0..60:2m, 60:12m"`. Raises kind "invalid" with `column` and `excerpt`.
function M.plan(text)
  local plan, at = {}, text:find("%S") or 1
  while true do
    plan[#plan + 1], at = phase_at(text, at)
    at = text:find("%S", at) or #text + 1
    if at > #text then return plan end
    if text:sub(at, at) ~= "," then refuse("plan", text, at, "expected a comma") end
    at = text:find("%S", at + 1) or #text + 1
  end
end

-- A time since the beginning.
local function instant(text)
  local seconds, at = duration_at("time", text, 1, true)
  if at <= #text then refuse("time", text, at, "nothing more was expected") end
  return seconds
end

---Reads a window of the plan: `10m..14m`, `5m..` or `..30s`.
---@param text string
---@return {from?: number, to?: number}
function M.window(text)
  local from, to = text:match("^(.-)%.%.(.*)$")
  if not from then refuse("window", text, 1, "expected FROM..TO") end
  return { from = from ~= "" and instant(from) or nil, to = to ~= "" and M.duration(to) or nil }
end

return M
