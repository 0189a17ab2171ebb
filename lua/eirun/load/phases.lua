-- SPDX-License-Identifier: Apache-2.0
-- A plan as people write it, phase by phase, made into the linear pieces that the engine runs.
local spec = require "eirun.spec"
local trace = require "eirun.load.trace"

local M = {}

local function number(what) return { type = "number", required = what == "required" } end

local function finite(value)
  return value == value and value >= 0 and value < math.huge
end

-- One line from `from` to `to`.
local function line(into, from, to, duration) into[#into + 1] = { from, to, duration } end

---@class eirun.LoadPhase: eirun.Trace
---@field kind "hold"|"ramp"|"steps"|"pause"|"spike"|"sine"|"trace"
---@field name? string for the report
---@field duration number seconds; a trace has its own
---@field rate? number hold: requests a second; spike, sine: the level they start from
---@field from? number ramp, steps
---@field to? number ramp, steps
---@field steps? integer how many, the first at `from` and the last at `to`
---@field peak? number spike: the highest rate, held for a third of the duration; sine: the highest rate
---@field period? number sine: seconds of one wave

local kinds = {
  hold = {
    fields = { rate = number "required" },
    expand = function(phase, into) line(into, phase.rate, phase.rate, phase.duration) end,
    title = function(phase) return ("hold %g/s"):format(phase.rate) end,
  },
  ramp = {
    fields = { from = number(), to = number "required" },
    expand = function(phase, into) line(into, phase.from or 0, phase.to, phase.duration) end,
    title = function(phase) return ("ramp %g to %g/s"):format(phase.from or 0, phase.to) end,
  },
  steps = {
    fields = { from = number "required", to = number "required", steps = { type = "integer", required = true, min = 2, max = 10000 } },
    expand = function(phase, into)
      for i = 0, phase.steps - 1 do
        local rate = phase.from + (phase.to - phase.from) * i / (phase.steps - 1)
        line(into, rate, rate, phase.duration / phase.steps)
      end
    end,
    title = function(phase) return ("%d steps %g to %g/s"):format(phase.steps, phase.from, phase.to) end,
  },
  pause = {
    fields = {},
    expand = function(phase, into) line(into, 0, 0, phase.duration) end,
    title = function() return "pause" end,
  },
  spike = {
    fields = { rate = number(), peak = number "required" },
    expand = function(phase, into)
      local base, third = phase.rate or 0, phase.duration / 3
      line(into, base, phase.peak, third)
      line(into, phase.peak, phase.peak, third)
      line(into, phase.peak, base, third)
    end,
    title = function(phase) return ("spike to %g/s"):format(phase.peak) end,
  },
  -- Forty chords a wave stay within 0.3 % of the sine's height.
  sine = {
    fields = { rate = number(), peak = number "required", period = number "required" },
    expand = function(phase, into)
      local low, high = phase.rate or 0, phase.peak
      local count = math.max(4, math.ceil(phase.duration / phase.period * 40))
      local function at(i)
        local turn = phase.duration * i / count / phase.period
        return low + (high - low) * (1 - math.cos(2 * math.pi * turn)) / 2
      end
      for i = 0, count - 1 do line(into, at(i), at(i + 1), phase.duration / count) end
    end,
    title = function(phase) return ("sine up to %g/s"):format(phase.peak) end,
  },
}

local function word() return { type = "string" } end

-- A trace with one row a request is a list of instants, which cannot stand beside other phases.
local trace_fields = {
  file = { type = "string", required = true }, time = word(), rate = word(), count = word(), weight = word(), size = word(),
  interval = number(), from = number(), to = number(), speed = number(), scale = number(), duration = { type = "number" },
}
kinds.trace = {
  fields = trace_fields,
  prepare = function(phase)
    local read = trace.read(phase)
    return setmetatable({ duration = read.seconds, read = read }, { __index = phase })
  end,
  expand = function(phase, into, out)
    out.instants, out.sizes = phase.read.instants or out.instants, phase.read.sizes
    for _, piece in ipairs(phase.read.pieces or {}) do into[#into + 1] = piece end
  end,
  title = function(phase) return "trace " .. phase.file:match("[^/]*$") end,
}

local kind_names = {}
for name in pairs(kinds) do kind_names[name] = true end

local function rules_of(kind)
  local rules = {
    kind = { type = "string", required = true, one_of = kind_names },
    name = { type = "string" },
    duration = { type = "number", required = true },
  }
  for key, rule in pairs(kind.fields) do rules[key] = rule end
  return rules
end

local function check_numbers(what, phase)
  for _, key in ipairs { "rate", "from", "to", "peak" } do
    if math.type(phase[key]) and not finite(phase[key]) then
      spec.fail(what, ("%s must be a finite number, not negative, got %s"):format(key, phase[key]))
    end
  end
  for _, key in ipairs { "duration", "period" } do
    if phase[key] and not (finite(phase[key]) and phase[key] > 0) then
      spec.fail(what, ("%s must be a finite number of seconds above 0, got %s"):format(key, phase[key]))
    end
  end
  if phase.kind == "hold" and phase.rate == 0 then
    spec.fail(what, "rate is 0: nothing would be sent; write kind = \"pause\" where that is meant")
  end
end

local function check_phase(index, phase)
  local what = ("load.run.plan[%d]"):format(index)
  if type(phase) ~= "table" then
    spec.fail(what, "wants a table like { kind = \"hold\", rate = 10, duration = 60 }, got " .. type(phase))
  end
  local kind = kinds[phase.kind]
  if not kind then
    spec.check(what, { kind = phase.kind }, { kind = { type = "string", required = true, one_of = kind_names } })
  end
  spec.check(what, phase, rules_of(kind))
  if phase.kind == "trace" and phase.duration then spec.fail(what, "a trace has a duration of its own: use from and to") end
  check_numbers(what, phase)
  return kind
end

local function area(pieces)
  local requests, seconds = 0, 0
  for _, piece in ipairs(pieces) do
    requests = requests + (piece[1] + piece[2]) / 2 * piece[3]
    seconds = seconds + piece[3]
  end
  return requests, seconds
end

---Checks a plan and makes it pieces.
---@param plan eirun.LoadPhase[]
---@return {pieces?: number[][], instants?: number[], sizes?: integer[], phases: {name: string, from: number, to: number}[],
--- requests: number, seconds: number}
---Example: `phases.expand { { kind = "ramp", to = 60, duration = 120 } }.requests --> 3600`. Raises kind "invalid", and what reading
---a trace raises.
function M.expand(plan)
  if #plan == 0 then spec.fail("load.run", "plan has no phase") end
  local out = { pieces = {}, phases = {} }
  local at = 0
  for i, phase in ipairs(plan) do
    local kind = check_phase(i, phase)
    if kind.prepare then phase = kind.prepare(phase) end
    kind.expand(phase, out.pieces, out)
    out.phases[i] = { name = phase.name or kind.title(phase), from = at, to = at + phase.duration }
    at = at + phase.duration
  end
  out.requests, out.seconds = area(out.pieces)
  if out.instants then
    if #plan > 1 then spec.fail("load.run", "a trace with one row a request must be the only phase of a plan") end
    out.requests, out.seconds, out.pieces = #out.instants, at, nil
  end
  if out.requests < 1 then spec.fail("load.run", "plan holds no request") end
  return out
end

-- How many instants lie before `t`.
local function before(instants, t)
  local low, high = 1, #instants + 1
  while low < high do
    local middle = (low + high) // 2
    if instants[middle] < t then low = middle + 1 else high = middle end
  end
  return low - 1
end

-- Requests due before `t`.
local function count_at(plan, t)
  if plan.instants then return before(plan.instants, t) end
  local count, start = 0, 0
  for _, piece in ipairs(plan.pieces) do
    local within = math.max(0, math.min(t - start, piece[3]))
    count = count + piece[1] * within + (piece[2] - piece[1]) / piece[3] * within * within / 2
    start = start + piece[3]
  end
  return count
end

---Requests a second, on average, between two times.
---@param plan table as expand made it
---@param from number
---@param to number above from
---@return number
function M.mean_rate(plan, from, to)
  to = math.min(to, plan.seconds)
  return to > from and (count_at(plan, to) - count_at(plan, from)) / (to - from) or 0
end

---Requests a second that the plan asks for at a time.
---@param plan table as expand made it
---@param t number seconds from the start
---@return number
function M.rate_at(plan, t)
  local start = 0
  if plan.instants then return before(plan.instants, t + 0.5) - before(plan.instants, t - 0.5) end
  for _, piece in ipairs(plan.pieces or {}) do
    if t < start + piece[3] then
      return t < start and 0 or piece[1] + (piece[2] - piece[1]) * (t - start) / piece[3]
    end
    start = start + piece[3]
  end
  return 0
end

return M
