-- SPDX-License-Identifier: Apache-2.0
-- Thresholds as text: `p95<250ms`, `errors<0.1%`, `rate>=0.99`, `throughput>=55/s`.
local errors = require "eirun.errors"

local M = {}

local seconds = { us = 1e-6, ms = 1e-3, s = 1, m = 60 }
local share = { [""] = 1, ["%"] = 0.01 }

-- What may be judged: the units that its numbers take, and where its figure is found.
local metrics = {
  errors = { units = share, says = "a share (0.001) or per cent (0.1%)", get = function(figures) return figures.errors end },
  rate = { units = share, says = "a share of the planned rate (0.99 or 99%)", get = function(figures) return figures.rate end },
  throughput = { units = { ["/s"] = 1 }, says = "a number with the unit /s", get = function(figures) return figures.throughput end },
}

for _, name in ipairs { "mean", "min", "max", "p50", "p75", "p90", "p95", "p99", "p99.9", "p99.99" } do
  local field = name:gsub("%.", "_")
  local metric = {
    units = seconds, says = "a time with its unit: us, ms, s or m", latency = true,
    get = function(figures) return figures.latency[field] end,
  }
  metrics[name], metrics[field] = metric, metric
end

local compare = {
  ["<"] = function(a, b) return a < b end,
  ["<="] = function(a, b) return a <= b end,
  [">"] = function(a, b) return a > b end,
  [">="] = function(a, b) return a >= b end,
}

local function names()
  local list = {}
  for name in pairs(metrics) do if not name:find("_") then list[#list + 1] = name end end
  table.sort(list)
  return table.concat(list, ", ")
end

local function refuse(text, column, reason)
  local shown = text:gsub("[%c]", " ")
  errors.raise("invalid", ("threshold '%s': %s at column %d"):format(shown, reason, column), {
    column = column,
    excerpt = shown .. "\n" .. (" "):rep(column - 1) .. "^",
    hint = "write for example p95<250ms, errors<0.1% or rate>=0.99",
  })
end

-- The word at `at`, and where the one after it begins.
local function take(text, pattern, at)
  local from, to = text:find("^" .. pattern, at)
  if not from then return nil, at end
  return text:sub(from, to), text:find("%S", to + 1) or #text + 1
end

local function take_number(text, at)
  local digits = text:match("^%d*%.?%d*", at)
  digits = digits .. (text:match("^[eE][+-]?%d+", at + #digits) or "")
  return digits, text:find("%S", at + #digits) or #text + 1
end

---@class eirun.Threshold
---@field text string as it was written
---@field metric string
---@field op "<"|"<="|">"|">="
---@field value number seconds, a share, or requests a second

---Reads one threshold.
---@param text string `p95<250ms`
---@return eirun.Threshold
---Example: `threshold.parse("p99.9 <= 1.5s").value --> 1.5`. Raises kind "invalid" with `column` and `excerpt` (the text with a
---caret under the place).
function M.parse(text)
  if type(text) ~= "string" then
    errors.raise("invalid", "a threshold is a text like 'p95<250ms', got a " .. type(text))
  end
  local at = text:find("%S") or 1
  local name, after_name = take(text, "[%a][%w_.]*", at)
  local metric = name and metrics[name]
  if not metric then refuse(text, at, "expected one of " .. names()) end
  local op, after_op = take(text, "[<>]=?", after_name)
  if not op then refuse(text, after_name, "expected <, <=, > or >=") end
  local digits, after_number = take_number(text, after_op)
  local number = tonumber(digits)
  if not number or number >= 1e15 then refuse(text, after_op, "expected a number") end
  local unit, after_unit = take(text, "[%a%%/]*", after_number)
  local factor = metric.units[unit or ""]
  if not factor then refuse(text, after_number, "expected " .. metric.says) end
  if after_unit <= #text then refuse(text, after_unit, "nothing more was expected") end
  return { text = text, metric = name, op = op, value = number * factor }
end

---Reads a list of thresholds.
---@param list string[]
---@return eirun.Threshold[]
---Example: `threshold.parse_all { "p95<250ms", "errors<0.1%" }`. Raises as `parse`.
function M.parse_all(list)
  local parsed = {}
  for i, text in ipairs(list) do parsed[i] = M.parse(text) end
  return parsed
end

---Does the figure keep the threshold?
---@param threshold eirun.Threshold
---@param figures {latency: table<string, number>, errors: number, rate: number, throughput: number}
---@return {text: string, metric: string, value: number, limit: number, ok: boolean}
---Example: `threshold.judge(threshold.parse "errors<1%", { errors = 0.02, latency = {} }).ok --> false`. Never raises.
function M.judge(threshold, figures)
  local value = metrics[threshold.metric].get(figures)
  return {
    text = threshold.text, metric = threshold.metric, value = value, limit = threshold.value,
    ok = value ~= nil and compare[threshold.op](value, threshold.value),
  }
end

---Is it a time of the answers, not a share or a rate?
---@param metric string
---@return boolean
---Example: `threshold.is_latency "p95" --> true`. Raises only for an unknown metric.
function M.is_latency(metric)
  return metrics[metric].latency == true
end

---A figure in the unit that people read: `0.0123` of `p95` is "12.3 ms".
---@param metric string
---@param value number|nil
---@return string
---Example: `threshold.show("errors", 0.001) --> "0.1 %"`. Raises only for an unknown metric.
function M.show(metric, value)
  if value == nil then return "no figure" end
  if metrics[metric].latency then return M.show_seconds(value) end
  if metric == "throughput" then return ("%.4g/s"):format(value) end
  return ("%.4g %%"):format(value * 100)
end

---A time in the unit that people read.
---@param value number seconds
---@return string
---Example: `threshold.show_seconds(0.0123) --> "12.3 ms"`.
---Raises nothing.
function M.show_seconds(value)
  if value >= 60 then return ("%.1f min"):format(value / 60) end
  if value >= 0.9995 then return ("%.3g s"):format(value) end
  if value >= 0.9995e-3 then return ("%.3g ms"):format(value * 1e3) end
  return ("%.3g us"):format(value * 1e6)
end

return M
