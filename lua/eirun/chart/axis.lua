-- SPDX-License-Identifier: Apache-2.0
-- What every picture of numbers needs: round scales, values and times as people write them, series by panel.
local M = {}

local function power_of_ten(value)
  return 10.0 ^ math.floor(math.log(value, 10) + 1e-9)
end

-- The smallest of 1, 2, 2.5, 5 and 10 times a power of ten that is not below `value`.
local function round_up(value)
  local base = power_of_ten(value)
  for _, factor in ipairs { 1, 2, 2.5, 5, 10 } do
    if value <= base * factor * (1 + 1e-9) then return base * factor end
  end
end

local function linear(high, count, whole)
  if high <= 0 then high = 1 end
  local step = round_up(high / count)
  if whole then step = math.max(1, math.ceil(step)) end
  local top = math.ceil(high / step - 1e-9) * step
  local ticks = {}
  for i = 0, math.floor(top / step + 0.5) do ticks[#ticks + 1] = i * step end
  return { low = 0, high = top, ticks = ticks, place = function(value) return math.max(0, math.min(1, value / top)) end }
end

local function log_ticks(low, high)
  local ticks, decades = {}, math.log(high / low, 10)
  local factors = decades <= 2 and { 1, 2, 5 } or { 1 }
  local base = power_of_ten(low)
  while base <= high * 1.0001 do
    for _, factor in ipairs(factors) do
      local tick = base * factor
      if tick >= low * 0.9999 and tick <= high * 1.0001 then ticks[#ticks + 1] = tick end
    end
    base = base * 10
  end
  return ticks
end

local function logarithmic(low, high)
  low = low / power_of_ten(low) >= 5 and 5 * power_of_ten(low) or power_of_ten(low)
  high = math.max(round_up(high), low * 10)
  local span = math.log(high / low)
  return {
    low = low, high = high, ticks = log_ticks(low, high), log = true,
    place = function(value) return value <= low and 0 or math.min(1, math.log(value / low) / span) end,
  }
end

---A scale for values from 0 (or, logarithmic, from the smallest above 0) to `high`.
---@param opts {high: number, low?: number, log?: boolean, count?: integer, whole?: boolean} low: smallest value above 0
---@return {low: number, high: number, ticks: number[], place: fun(value: number): number} place answers 0 (bottom) to 1
---Example: `axis.scale({ high = 57, count = 4 }).ticks --> { 0.0, 20.0, 40.0, 60.0 }`. Never raises.
function M.scale(opts)
  if opts.log and opts.low and opts.high > 0 then return logarithmic(opts.low, opts.high) end
  return linear(opts.high, opts.count or 4, opts.whole)
end

local function trim(number, format)
  local text = format:format(number)
  if text:find("%.") then text = text:gsub("0+$", ""):gsub("%.$", "") end
  return text
end

local function seconds(value)
  if value >= 120 then return trim(value / 60, "%.1f") .. " min" end
  if value >= 1 or value == 0 then return trim(value, value >= 10 and "%.1f" or "%.2f") .. " s" end
  if value >= 1e-3 then return trim(value * 1e3, value >= 0.1 and "%.0f" or "%.1f") .. " ms" end
  return trim(value * 1e6, "%.0f") .. " us"
end

---A value with its unit, short: 0.25 of "s" is "250 ms", 12500 of "/s" is "12.5k/s".
---@param value number
---@param unit? string
---@return string
function M.value(value, unit)
  if unit == "s" then return seconds(value) end
  if unit == "%" or unit == "share" then return trim(value * (unit == "share" and 100 or 1), "%.1f") .. " %" end
  local text
  if math.abs(value) >= 1e6 then text = trim(value / 1e6, "%.2f") .. "M"
  elseif math.abs(value) >= 1e4 then text = trim(value / 1e3, "%.1f") .. "k"
  else text = trim(value, math.abs(value) >= 100 and "%.0f" or "%.2f") end
  if not unit or unit == "" then return text end
  return text .. (unit:sub(1, 1) == "/" and unit or " " .. unit)
end

-- Counted things are named by their unit: "nodes".
local function is_word(unit) return unit:find "^%a%a" ~= nil and unit ~= "share" end

---A value in a panel that names its unit: words such as `nodes` are left out, `ms` and `/s` are not.
---@param value number
---@param unit? string
---@return string
---Example: `axis.tick(3, "nodes") --> "3"`.
function M.tick(value, unit)
  return M.value(value, unit and not is_word(unit) and unit or "")
end

---A time on the axis: "4:30" minutes and seconds, "1:04:30" from an hour on.
---@param t number seconds
---@return string
function M.time(t)
  local whole = math.floor(t + 0.5)
  if whole >= 3600 then return ("%d:%02d:%02d"):format(whole // 3600, whole // 60 % 60, whole % 60) end
  return ("%d:%02d"):format(whole // 60, whole % 60)
end

local time_steps = { 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400 }

---Round instants between two times, at most `count` of them.
---@param from number
---@param to number
---@param count integer
---@return number[]
function M.time_ticks(from, to, count)
  local step = time_steps[#time_steps]
  for _, candidate in ipairs(time_steps) do
    if (to - from) / candidate <= count then step = candidate break end
  end
  local ticks = {}
  for t = math.ceil(from / step) * step, to, step do ticks[#ticks + 1] = t end
  return ticks
end

---@class eirun.Series
---@field name string
---@field unit? string "s", "/s", "share", "" ...
---@field points number[][] {t, value} ascending by t, seconds
---@field kind? "line"|"step" a step holds its value until the next point
---@field group? string series of one group share a panel; default: its unit, else its name
---@field log? boolean the panel's scale is logarithmic

---@class eirun.Panel
---@field name string
---@field unit string
---@field series eirun.Series[]
---@field scale table

---What a panel is called: its group, the things it counts, or its first series.
---@param panel eirun.Panel
---@return string
function M.title(panel)
  if panel.name ~= panel.unit then return panel.name end
  if is_word(panel.unit) then return (panel.unit:gsub("^%l", string.upper)) end
  return panel.series[1].name
end

local function bounds(panel, limits)
  local low, high = math.huge, 0
  local whole = panel.unit == "" or is_word(panel.unit)
  local function see(value)
    if value > high then high = value end
    if value > 0 and value < low then low = value end
  end
  for _, series in ipairs(panel.series) do
    for _, point in ipairs(series.points) do
      see(point[2])
      whole = whole and point[2] == math.floor(point[2])
    end
  end
  for _, limit in ipairs(limits or {}) do
    if limit.group == panel.name then see(limit.value) end
  end
  return { low = low < math.huge and low or nil, high = high, log = panel.log, whole = whole }
end

---Series by panel, in the order in which their groups first come.
---@param list eirun.Series[]
---@param limits? {group: string, value: number, label?: string}[]
---@param ticks? integer
---@return eirun.Panel[]
function M.panels(list, limits, ticks)
  local panels, by_name = {}, {}
  for _, series in ipairs(list) do
    local name = series.group or (series.unit ~= "" and series.unit) or series.name
    local panel = by_name[name]
    if not panel then
      panel = { name = name, unit = series.unit or "", series = {}, log = false }
      by_name[name] = panel
      panels[#panels + 1] = panel
    end
    panel.series[#panel.series + 1] = series
    panel.log = panel.log or series.log == true
  end
  for _, panel in ipairs(panels) do
    local range = bounds(panel, limits)
    range.count = ticks
    panel.scale = M.scale(range)
  end
  return panels
end

---First and last time of any point.
---@param list eirun.Series[]
---@return number from
---@return number to
function M.span(list)
  local from, to = math.huge, -math.huge
  for _, series in ipairs(list) do
    local points = series.points
    if #points > 0 then
      from, to = math.min(from, points[1][1]), math.max(to, points[#points][1])
    end
  end
  if from > to then return 0, 1 end
  return from, to > from and to or from + 1
end

---The pause between points above which a line is broken: ten times the usual one.
---@param points number[][]
---@return number
function M.gap(points)
  local gaps = {}
  for i = 2, #points do gaps[#gaps + 1] = points[i][1] - points[i - 1][1] end
  table.sort(gaps)
  return #gaps > 0 and 10 * math.max(gaps[(#gaps + 1) // 2], 1e-9) or math.huge
end

return M
