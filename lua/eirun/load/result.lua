-- SPDX-License-Identifier: Apache-2.0
-- What a load run has seen, in the words of eirun.load: figures of the whole, of the window, of phases and of targets, and a verdict.
local phases = require "eirun.load.phases"
local threshold = require "eirun.threshold"

local M = {}

local function overlap(from, to, length)
  return math.max(0, math.min(to, length) - from)
end

-- Figures of one slice, in the words of the result. Of a run that is under way, or was stopped, what has not ended yet is no failure.
local function figures_of(slice, seconds, complete)
  local errors_total, answered = 0, slice.latency.count - (slice.errors.timeout or 0)
  for _, count in pairs(slice.errors) do errors_total = errors_total + count end
  local by_kind, due = slice.errors, complete and slice.planned or slice.done
  return {
    requests = slice.done, planned = slice.planned, good = slice.ok,
    errors = { total = errors_total, by_kind = by_kind, share = slice.done > 0 and errors_total / slice.done or 0 },
    rate = due > 0 and answered / due or 0,
    throughput = seconds > 0 and answered / seconds or 0,
    seconds = seconds, latency = slice.latency, bytes = slice.bytes,
  }
end

-- A percentile of fewer answers than one beyond it is their maximum, whatever its name.
---@param thresholds eirun.Threshold[]
---@param given? integer the option min_samples
---@return integer
function M.needed_samples(thresholds, given)
  local needed = given or 100
  for _, parsed in ipairs(given and {} or thresholds) do
    local percent = tonumber((parsed.metric:match("^p([%d_.]+)$") or ""):gsub("_", ".") .. "")
    if percent then needed = math.max(needed, math.ceil(100 / (100 - percent) - 1e-6)) end
  end
  return needed
end

-- Those that were refused or reset have no latency: a percentile may rest on far fewer than have ended.
local function rests_on_few(result)
  local latencies = result.window.latency.count
  for _, verdict in ipairs(result.thresholds) do
    if threshold.is_latency(verdict.metric) and latencies < result.needed then return true end
  end
  return false
end

local function judge(result, run)
  local window = result.window
  local figures = {
    latency = window.latency.count > 0 and window.latency or {},
    errors = window.errors.share, rate = window.rate, throughput = window.throughput,
  }
  result.thresholds = {}
  local all = true
  for i, parsed in ipairs(run.thresholds) do
    local verdict = threshold.judge(parsed, figures)
    result.thresholds[i] = verdict
    all = all and verdict.ok
  end
  result.needed = #run.thresholds > 0 and M.needed_samples(run.thresholds, run.opts.min_samples) or 0
  result.inconclusive = window.requests < result.needed or all and rests_on_few(result)
  result.ok = all and result.valid and not result.inconclusive and not result.stopped
end

local function validity(state, run)
  local opts = run.opts
  if state.error then return false, tostring(state.error) end
  if state.unsent > 0 and state.capped == 0 and state.starved == 0 then
    return false, ("%d requests could not be sent within their time-out: this machine was too slow"):format(state.unsent)
  end
  if state.unsent > 0 and state.capped == 0 then
    return false, ("%d requests were not made within their time-out: the function that makes them was too slow"):format(state.unsent)
  end
  if state.unsent > 0 then
    return false, ("%d requests found none of the %d connections within their time-out"):format(state.unsent, state.max_connections)
  end
  if run.failed_check then return false, "the check of answers failed: " .. run.failed_check end
  if state.lateness.p99 > opts.max_lateness then
    local waited = "; %d requests waited for one of the %d connections"
    local why = state.capped > 0 and waited:format(state.capped, state.max_connections)
      or state.starved > 0 and "; the function that makes them was too slow" or ""
    return false, ("requests were sent late: p99 %s after their planned time, more than %s%s"):format(
      threshold.show_seconds(state.lateness.p99), threshold.show_seconds(opts.max_lateness), why)
  end
  return true
end

---@class eirun.LoadSecond
---@field t integer
---@field planned integer due in this second; ok, errors and the percentiles are theirs, whenever the answers came
---@field sent integer in this second
---@field ok integer
---@field errors integer
---@field in_flight integer most at one time
---@field bytes_in integer of the answers to these requests
---@field bytes_out integer sent in this second
---@field mean? number seconds; this and the percentiles are absent where nothing was answered
---@field p50? number
---@field p90? number
---@field p95? number
---@field p99? number
---@field p99_9? number
---@field p99_99? number
---@field max? number

---@class eirun.LoadLatency
---@field count integer requests that were answered, however, and those that timed out (as their time-out)
---@field mean number seconds
---@field min number
---@field p50 number
---@field p75 number
---@field p90 number
---@field p95 number
---@field p99 number
---@field p99_9 number
---@field p99_99 number
---@field max number

---@class eirun.LoadFigures
---@field requests integer that ended, in whatever way
---@field planned integer
---@field good integer
---@field errors {total: integer, by_kind: table<string, integer>, share: number}
---@field rate number answered of planned
---@field throughput number answers a second
---@field seconds number
---@field bytes integer of the answers
---@field latency eirun.LoadLatency

---@class eirun.LoadResult: eirun.LoadFigures
---@field url string
---@field started_at number seconds since the epoch on the run's clock
---@field series eirun.LoadSecond[] by second of the plan
---@field window eirun.LoadFigures what the thresholds judged, with from and to
---@field phases eirun.LoadFigures[] with name, from and to
---@field targets eirun.LoadFigures[] with name, url, weight, window and series; empty where there is only one
---@field thresholds {text: string, metric: string, value: number, limit: number, ok: boolean}[]
---@field inconclusive boolean too few answers in the window
---@field valid boolean
---@field reason? string why it is not valid
---@field stopped? string why the run ended before its plan: abort_after, or a cancel
---@field ok boolean valid, conclusive and every threshold kept
---@field lateness table of the generator: sent minus planned
---@field connections integer opened in all
---@field capped integer requests that waited because max_connections was reached
---@field starved integer times that a request was late because `request` had not made it yet
---@field aborted integer in flight when the run was stopped
---@field resent integer requests that met a connection which the server had closed while it was idle, and went out once more
---@field needed integer answers without which the thresholds are not judged
---@field examples {kind: string, at: number, target: integer, status?: integer, text: string}[] the first failures of each kind
---@field histogram integer[][] {lowest, highest, count, index} in microseconds; each phase has one too; pairs and JSON pass it over
---@field bytes_in integer
---@field bytes_out integer

-- Found by its name but not among the pairs: a result that is written as JSON or kept in a journal stays small.
local function attach_histogram(figures, core_run, slice, target)
  setmetatable(figures, { __index = { histogram = core_run:histogram(slice, target) } })
end

-- A run that has done its plan has lasted as long as that, whenever its last answer came; a closed loop may have done all before.
local function window_of(slices, run, length, complete)
  local from, to = run.slices[1][1], math.min(run.slices[1][2], run.plan.seconds)
  local whole = complete and not (run.plan.closed and run.opts.max_requests)
  local window = figures_of(slices[2], overlap(from, to, whole and math.max(length, to) or length), complete)
  window.from, window.to = from, to
  return window
end

local function targets_of(state, run, length, complete)
  local list = {}
  for i, slices in ipairs(state.targets) do
    local figures, target = figures_of(slices[1], length, complete), run.targets[i]
    figures.name, figures.url, figures.weight = target.name, target.url, target.weight
    figures.window, figures.series = window_of(slices, run, length, complete), run.core:series(0, i)
    attach_histogram(figures, run.core, 1, i)
    list[i] = figures
  end
  return list
end

---@param run table
---@return eirun.LoadResult
function M.of(run)
  local state, plan = run.core:state(), run.plan
  local length = math.max(state.elapsed, 0)
  local complete = state.phase == "finished" and not run.halted
  local result = figures_of(state.slices[1], length, complete)
  for _, key in ipairs { "started_at", "lateness", "capped", "starved", "aborted", "resent", "examples", "bytes_in", "bytes_out" } do
    result[key] = state[key]
  end
  result.url, result.connections, result.series = run.targets[1].url, state.opened, run.core:series()
  result.window, result.targets = window_of(state.slices, run, length, complete), targets_of(state, run, length, complete)
  result.phases = {}
  for i, phase in ipairs(plan.phases) do
    local figures = figures_of(state.slices[i + 2], overlap(phase.from, phase.to, length), complete)
    figures.name, figures.from, figures.to = phase.name, phase.from, phase.to
    result.phases[i] = figures
  end
  attach_histogram(result, run.core, 1)
  for i, figures in ipairs(result.phases) do attach_histogram(figures, run.core, i + 2) end
  result.valid, result.reason = validity(state, run)
  result.stopped = run.stopped
  judge(result, run)
  return result
end

---@class eirun.LoadProgress
---@field elapsed number
---@field seconds number length of the plan
---@field requests integer ended so far
---@field total number planned in all
---@field asked number requests a second that the plan asks for now
---@field rate integer sent in the last whole second
---@field p50? number
---@field p95? number
---@field p99? number
---@field errors integer
---@field in_flight integer

---@param run table
---@return eirun.LoadProgress
function M.progress(run)
  local state, plan = run.core:state(true), run.plan
  local lag = run.threads > 0 and 0.3 or 0 -- threads tell what they have counted four times a second
  local whole = math.max(0, math.floor(state.elapsed - lag) - 1)
  local last = run.core:series(whole)[1] or {}
  return {
    elapsed = state.elapsed, seconds = plan.seconds, requests = state.slices[1].done, total = plan.requests,
    asked = phases.rate_at(plan, state.elapsed), rate = last.sent or 0, p50 = last.p50, p95 = last.p95, p99 = last.p99,
    errors = state.slices[1].done - state.slices[1].ok, in_flight = state.in_flight,
  }
end

return M
