-- SPDX-License-Identifier: Apache-2.0
-- The highest rate at which every threshold holds: doubling until one breaks, then bisection. A rate that breaks, or holds
-- but just, is tried until two trials agree, so one bad moment of a machine decides nothing, and the answer itself has held twice.
local errors = require "eirun.errors"
local results = require "eirun.load.result"
local spec = require "eirun.spec"
local task = require "eirun.task"
local threshold = require "eirun.threshold"

local M = {}

local function above_zero(value)
  if not (value > 0 and value < math.huge) then return "must be a finite number above 0" end
end

local rules = {
  thresholds = { type = "list", required = true },
  low = { type = "number", check = above_zero }, high = { type = "number", check = above_zero },
  seconds = { type = "number", check = above_zero }, pause = { type = "number", min = 0 },
  precision = { type = "number", check = above_zero }, tried = { type = "function" }, stopped = { type = "function" },
}

local function split(opts)
  local own, rest = {}, {}
  for key, value in pairs(opts) do
    if rules[key] and key ~= "thresholds" then own[key] = value else rest[key] = value end
  end
  own.thresholds = opts.thresholds
  if opts.plan or opts.connections then
    spec.fail("load.find_max", "the rate is what is looked for: it takes neither plan nor connections")
  end
  if type(opts.thresholds) == "table" and #opts.thresholds == 0 then
    spec.fail("load.find_max", "thresholds is empty: any rate would hold")
  end
  return spec.check("load.find_max", own, rules), rest
end

-- Kept by far, every one of them.
local function is_clear(result)
  for _, verdict in ipairs(result.thresholds) do
    local distance = verdict.value and verdict.limit > 0 and verdict.value / verdict.limit or 1
    if verdict.text:find ">" then distance = 1 / math.max(distance, 1e-9) end
    if distance >= 0.7 then return false end
  end
  return result.valid
end

-- One trial; the first tenth warms up and is not judged.
local function run_at(search, rate)
  local opts = {}
  for key, value in pairs(search.rest) do opts[key] = value end
  opts.plan = { { kind = "hold", rate = rate, duration = search.seconds } }
  opts.window = { from = search.seconds / 10 }
  opts.thresholds = search.thresholds
  local result = require("eirun.load").run(opts)
  local trial = { rate = rate, ok = result.ok, valid = result.valid,
    reason = result.reason or result.inconclusive and "too few requests were answered to judge" or nil,
    inconclusive = result.inconclusive, too_few = result.window.requests < result.needed,
    p50 = result.window.latency.p50, p95 = result.window.latency.p95, p99 = result.window.latency.p99,
    errors = result.window.errors.share, thresholds = result.thresholds, clear = is_clear(result) }
  search.trials[#search.trials + 1] = trial
  if search.tried then search.tried(trial) end
  if search.pause > 0 then task.sleep(search.pause) end
  return trial
end

local function judged(search, rate)
  local trial = run_at(search, rate)
  if trial.too_few then
    errors.raise("invalid", ("load.find_max: %g/s for %g s are too few requests to judge"):format(rate, search.seconds),
      { hint = "give a higher low, more seconds, or fewer min_samples" })
  end
  search.by_generator = not trial.valid and trial.reason or nil
  return trial
end

-- Two of three.
local function holds(search, rate)
  local trial = judged(search, rate)
  if trial.clear and trial.ok then return true end -- one bad moment may break a rate by far
  local votes = trial.ok and 1 or -1
  for _ = 1, 2 do
    votes = votes + (judged(search, rate).ok and 1 or -1)
    if math.abs(votes) == 2 then break end
  end
  return votes > 0
end

-- The answer must hold once more; while it does not the rate goes down by the precision.
local function confirmed(search, good, bad, precision)
  for _ = 1, 5 do
    if not good or holds(search, good) then return good, bad end
    bad, good = good, good / (1 + precision)
  end
  return nil, bad
end

local function climb(search, low, high)
  local good, rate = nil, low
  while rate < high do
    if not holds(search, rate) then return good, rate end
    good, rate = rate, rate * 2
  end
  if holds(search, high) then return high, nil end
  return good, high
end

local function look(search, low, high, precision)
  local good, bad = climb(search, low, high)
  while good and bad and bad / good > 1 + precision do
    local middle = math.sqrt(good * bad)
    if holds(search, middle) then good = middle else bad = middle end
  end
  local limited = bad == nil
  good, bad = confirmed(search, good, bad, precision)
  return { rate = good or 0, breaks_at = bad, limited = limited and bad == nil, by_generator = bad and search.by_generator,
    trials = search.trials }
end

-- What most trials of each rate say when the search ends before its answer.
local function so_far(search)
  local votes, good, bad = {}, 0, nil
  for _, trial in ipairs(search.trials) do votes[trial.rate] = (votes[trial.rate] or 0) + (trial.ok and 1 or -1) end
  for rate, sum in pairs(votes) do
    if sum > 0 and rate > good then good = rate end
    if sum < 0 and (not bad or rate < bad) then bad = rate end
  end
  return { rate = good, breaks_at = bad, limited = false, stopped = true, trials = search.trials }
end

-- See eirun.load.find_max.
---@param opts table
---@return {rate: number, breaks_at?: number, limited: boolean, stopped?: boolean, by_generator?: string, trials: table[]}
function M.find_max(opts)
  local own, rest = split(opts)
  local search = {
    rest = rest, thresholds = own.thresholds, seconds = own.seconds or 10, pause = own.pause or 1, trials = {}, tried = own.tried,
  }
  local needed = results.needed_samples(threshold.parse_all(own.thresholds), rest.min_samples)
  local low = own.low or math.max(10, math.ceil(needed / (0.9 * search.seconds)) + 1) -- fewer could not be judged
  local high, precision = own.high or math.max(100000, low), own.precision or 0.05
  if low > high then spec.fail("load.find_max", "low is above high") end
  local ended, found = pcall(look, search, low, high, precision)
  if ended then return found end
  if own.stopped and type(found) == "table" and found.kind == "cancelled" then own.stopped(so_far(search)) end
  error(found, 0)
end

return M
