-- SPDX-License-Identifier: Apache-2.0
-- The autoscaler's arithmetic against 1,089 decisions of the real controller (tests/data/hpa).
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local defaults = require "sandbox.kube.defaults"
local hpa_math = require "sandbox.kube.hpa_math"

local folder = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../data/hpa/"

local function read(name)
  return assert(fs.read(folder .. name))
end

local function cases()
  local by_name = {}
  for _, case in ipairs(json.decode(read "cases.json")) do
    local hpa = { spec = { behavior = case.behavior ~= json.null and case.behavior or nil, metrics = json.array { {} } } }
    defaults.kinds["horizontalpodautoscalers.autoscaling"](hpa)
    by_name[case.name] = { min = case.minReplicas, max = case.maxReplicas, target = case.averageValue * 1000, behavior = hpa.spec.behavior }
  end
  return by_name
end

local function rows()
  local list = {}
  for case, at, v, before, after in read("decisions.csv"):gmatch("([%w-]+),([%d.]+),([%d.]*),(%d+),(%d+)\r?\n") do
    list[#list + 1] = { case = case, at = tonumber(at), value = tonumber(v), before = tonumber(before), after = tonumber(after) }
  end
  return list
end

-- One sync: what the controller would set, from the size that it found.
local function decide(spec, state, row)
  if not row.value then return row.before end -- no metric, no change
  local total = math.floor(row.value * 1000 + 0.5)
  local proposal = hpa_math.per_pod(total, spec.target, row.before)
  local size = hpa_math.normalise(state, spec, row.before, proposal, row.at)
  hpa_math.scaled(state, spec.behavior, row.before, size, row.at)
  return size
end

t.test("hpa_arithmetic_reproduces_every_recorded_decision", function()
  local specs, states, wrong, seen = cases(), {}, {}, 0
  for _, row in ipairs(rows()) do
    states[row.case] = states[row.case] or hpa_math.new_state(row.before, row.at)
    local size = decide(specs[row.case], states[row.case], row)
    seen = seen + 1
    if size ~= row.after then wrong[#wrong + 1] = ("%s at %s: %d instead of %d"):format(row.case, row.at, size, row.after) end
  end
  t.ok(seen > 1000, "the recording was not read")
  t.eq(wrong, {})
end)

t.test("hpa_tolerance_keeps_the_size_within_a_tenth", function()
  t.eq(hpa_math.per_pod(22000, 10000, 2), 2)
  t.eq(hpa_math.per_pod(22001, 10000, 2), 3)
  t.eq(hpa_math.per_pod(18000, 10000, 2), 2)
  t.eq(hpa_math.per_pod(0, 10000, 3), 0)
end)

t.test("hpa_without_pods_still_proposes", function()
  t.eq(hpa_math.per_pod(45000, 10000, 0), 5)
end)
