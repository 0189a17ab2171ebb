-- SPDX-License-Identifier: Apache-2.0
local compare = require "eirun.load.compare"
local t = require "eirun.test"

-- Numbers that look random and are always the same ones.
local function noise(seed)
  local state = seed
  return function()
    state = (state * 1103515245 + 12345) % 2147483648
    return state / 2147483648
  end
end

local function run(seed, level, errors, seconds)
  local random, series = noise(seed), {}
  for i = 0, (seconds or 100) - 1 do
    local value = level * (0.9 + 0.2 * random())
    series[#series + 1] = { t = i, p50 = value / 2, p95 = value, p99 = value * (1 + random()) }
  end
  return { series = series, window = { from = 0, to = seconds or 100, requests = 10000,
    errors = { total = errors, share = errors / 10000 }, latency = { p50 = level / 2, p95 = level, p99 = level * 1.5 } } }
end

local function verdicts(a, b)
  local found = {}
  for _, row in ipairs(compare.runs(a, b).rows) do found[row.metric] = row.verdict end
  return found
end

t.test("the_rank_test_agrees_with_published_values", function()
  -- Exact two-sided p of complete separation, n = m = 10: 2 / C(20,10) = 1.08e-5; the normal approximation with continuity: 1.83e-4.
  local low, high = {}, {}
  for i = 1, 10 do low[i], high[i] = i, i + 100 end
  t.ok(math.abs(compare.rank_test(low, high) - 1.83e-4) < 5e-6, compare.rank_test(low, high))
  t.ok(compare.rank_test({ 1, 2, 3 }, { 1, 2, 3 }) > 0.999)
  t.eq(compare.rank_test({ 5, 5, 5 }, { 5, 5, 5 }), 1.0)
end)

t.test("noise_is_no_difference", function()
  local alarms = 0
  for seed = 1, 40 do
    local found = verdicts(run(seed, 0.1, 10), run(seed + 1000, 0.1, 12))
    if found.p95 ~= "same" or found.errors ~= "same" then alarms = alarms + 1 end
  end
  t.ok(alarms <= 2, alarms .. " of 40 equal pairs were called different")
end)

t.test("a_real_difference_is_told_with_its_direction", function()
  local slower = compare.runs(run(1, 0.1, 10), run(2, 0.115, 10))
  t.eq(slower.worse, true)
  t.eq(slower.rows[2].verdict, "worse")
  t.ok(math.abs(slower.rows[2].change - 0.15) < 0.04)
  t.eq(verdicts(run(1, 0.1, 10), run(2, 0.08, 10)).p95, "better")
  t.eq(verdicts(run(1, 0.1, 10), run(2, 0.1, 60)).errors, "worse")
  t.eq(compare.runs(run(1, 0.1, 60), run(2, 0.1, 10)).worse, false)
end)

t.test("a_small_change_is_not_worth_a_verdict_and_a_short_run_none", function()
  t.eq(verdicts(run(1, 0.1, 10, 1000), run(2, 0.103, 10, 1000)).p95, "same")
  t.eq(verdicts(run(1, 0.1, 10, 20), run(2, 0.5, 10, 20)).p95, "too short to judge")
end)
