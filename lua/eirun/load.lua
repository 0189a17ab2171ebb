-- SPDX-License-Identifier: Apache-2.0
-- Load tests with an open loop: requests go out at their planned times whatever the server does, and latency counts from
-- the planned time, so a server that stops is seen by every request that fell into the stop.
local core = require "eirun.core.load"
local core_clock = require "eirun.core.clock"
local core_os = require "eirun.core.os"
local errors = require "eirun.errors"
local phases = require "eirun.load.phases"
local request = require "eirun.load.request"
local spec = require "eirun.spec"
local task = require "eirun.task"
local threshold = require "eirun.threshold"

local M = {}

local function above_zero(value)
  if not (value > 0 and value < math.huge) then return "must be a number above 0" end
end

local function is_window(value)
  local from, to = value.from or 0, value.to or math.huge
  if not (from >= 0 and to > from) then return "must have 0 <= from < to, in seconds of the plan" end
end

local rules = {
  url = { type = "string", required = true },
  method = { type = "string", match = "^%u+$", says = "a method in capitals" },
  headers = { type = "table" },
  body = { type = "string" },
  bodies = { type = "list" },
  request = { type = "function" },
  plan = { type = "list" },
  connections = { type = "integer", min = 1, max = 1000000 },
  duration = { type = "number", check = above_zero },
  threads = { type = "integer", min = 0, max = 256 },
  arrivals = { type = "string", one_of = { even = true, poisson = true } },
  seed = { type = "integer" },
  timeout = { type = "number", check = above_zero },
  max_connections = { type = "integer", min = 1, max = 1000000 },
  max_requests = { type = "integer", min = 1 },
  max_seconds = { type = "number", check = above_zero },
  max_lateness = { type = "number", check = above_zero },
  max_body = { type = "integer", min = 0 },
  keep_alive = { type = "boolean" },
  status = { type = "integer", min = 100, max = 599 },
  contains = { type = "string" },
  thresholds = { type = "list" },
  window = { type = "table", check = is_window, fields = { from = { type = "number" }, to = { type = "number" } } },
  min_samples = { type = "integer", min = 1 },
  progress = { type = "function" },
  progress_every = { type = "number", check = above_zero },
  on_cancel = { type = "function" },
  abort_after = { type = "number", min = 0 },
  allow = { type = "any" },
  connect_to = { type = "string" },
  ca_file = { type = "string" },
  ca_pem = { type = "string" },
  verify = { type = "boolean" },
}

---@class eirun.LoadOptions
---@field url string
---@field method? string default GET, or POST with a body
---@field headers? table<string, string>|string[][] values may be secrets
---@field body? string
---@field bodies? string[] taken in turn, instead of body
---@field request? fun(i: integer): {method?: string, path?: string, headers?: table, body?: string} makes the i-th request, some time
--- before it is sent; what it leaves out is as in the options
---@field plan? eirun.LoadPhase[] see eirun.load.phases
---@field connections? integer instead of plan a closed loop: each connection sends when it was answered. It cannot see a pause of the
--- server as its clients would: for saturation, not for latency
---@field duration? number seconds of the closed loop
---@field threads? integer in real time, default one a core less one; 0: the thread of the tasks. Other clocks always use that
---@field arrivals? "even"|"poisson" default even
---@field seed? integer of the Poisson arrivals, default 1
---@field timeout? number seconds from the planned time to the end of the answer, default 30
---@field max_connections? integer default 4096, or what the limit on open files allows; who waits for one is late
---@field max_requests? integer a larger plan is refused, default 50 million
---@field max_seconds? number a longer plan is refused, default a week
---@field max_lateness? number the run is invalid when p99 of sent minus planned is above it, default 0.05
---@field max_body? integer bytes of an answer, default 64 MiB
---@field keep_alive? boolean default true
---@field status? integer the only good one; else 200 to 399 are good
---@field contains? string the body of a good answer holds it
---@field thresholds? string[] see eirun.threshold
---@field window? {from?: number, to?: number} seconds of the plan that the thresholds judge, default the whole plan
---@field min_samples? integer fewer answers in the window are no basis: inconclusive; default 100
---@field progress? fun(now: eirun.LoadProgress)
---@field progress_every? number seconds, default 1
---@field on_cancel? fun(result: eirun.LoadResult) gets what was seen when a cancel ends the run
---@field abort_after? number seconds from which on a broken threshold ends the run, once the window has min_samples
---@field allow? true|string[] hosts outside this machine and its private networks that may be loaded
---@field ca_file? string certificates that an https target is checked against, default the system's
---@field ca_pem? string the same as text
---@field verify? boolean false: any certificate will do, default true
---@field connect_to? string "unix:/path" or "address:port" takes the place of the URL's host and port; Host stays

local ring_size = 1024

local defaults = {
  arrivals = "even", seed = 1, timeout = 30, max_requests = 50000000, max_seconds = 7 * 86400,
  max_lateness = 0.05, min_samples = 100, progress_every = 1, keep_alive = true,
}

local function with_defaults(opts)
  local full = setmetatable({}, { __index = defaults })
  for key, value in pairs(opts) do full[key] = value end
  return full
end

local function check_bounds(plan, opts)
  if plan.requests > opts.max_requests then
    spec.fail("load.run", ("the plan holds %.0f requests, more than max_requests (%d)"):format(plan.requests, opts.max_requests))
  end
  if plan.seconds > opts.max_seconds then
    spec.fail("load.run", ("the plan takes %.0f s, more than max_seconds (%.0f)"):format(plan.seconds, opts.max_seconds))
  end
  if opts.window and (opts.window.from or 0) >= plan.seconds then
    spec.fail("load.run", ("window begins at %g s, after the plan's end at %g s"):format(opts.window.from, plan.seconds))
  end
end

-- A closed loop has no plan but a length.
local function plan_of(opts)
  if opts.plan and opts.connections then spec.fail("load.run", "give plan or connections, not both") end
  if opts.plan then
    if opts.duration then spec.fail("load.run", "duration goes with connections; a plan's phases have durations of their own") end
    return phases.expand(opts.plan)
  end
  if not opts.connections or not opts.duration then spec.fail("load.run", "wants a plan, or connections and a duration") end
  if opts.max_connections and opts.connections > opts.max_connections then spec.fail("load.run", "connections is above max_connections") end
  local name = ("%d connections"):format(opts.connections)
  return { phases = { { name = name, from = 0, to = opts.duration } }, requests = 0, seconds = opts.duration, closed = opts.connections }
end

local function threads_of(opts)
  if core_clock.kind() ~= "real" then return 0 end
  return opts.threads or math.max(1, core_os.cpu_count() - 1)
end

local function slices_of(plan, opts)
  local window = opts.window or {}
  local slices = { { window.from or 0, window.to or math.huge } }
  for _, phase in ipairs(plan.phases) do slices[#slices + 1] = { phase.from, phase.to } end
  return slices
end

-- Figures of one slice, in the words of the result.
local function figures_of(slice, seconds)
  local errors_total, answered = 0, slice.latency.count - (slice.errors.timeout or 0)
  for _, count in pairs(slice.errors) do errors_total = errors_total + count end
  local by_kind = slice.errors
  return {
    requests = slice.done, planned = slice.planned, good = slice.ok,
    errors = { total = errors_total, by_kind = by_kind, share = slice.done > 0 and errors_total / slice.done or 0 },
    rate = slice.planned > 0 and answered / slice.planned or 0,
    throughput = seconds > 0 and answered / seconds or 0,
    seconds = seconds, latency = slice.latency,
  }
end

local function overlap(from, to, length)
  return math.max(0, math.min(to, length) - from)
end

local function judge(result, run)
  local window, opts = result.window, run.opts
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
  result.inconclusive = #run.thresholds > 0 and window.requests < opts.min_samples
  result.ok = all and result.valid and not result.inconclusive
end

local function validity(state, opts)
  if state.error then return false, tostring(state.error) end
  if state.unsent > 0 and state.capped == 0 then
    return false, ("%d requests were not made within their time-out: the function that makes them was too slow"):format(state.unsent)
  end
  if state.unsent > 0 then
    return false, ("%d requests found none of the %d connections within their time-out"):format(state.unsent, state.max_connections)
  end
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
---@field p50? number seconds; absent where nothing was answered
---@field p95? number
---@field p99? number

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
---@field latency eirun.LoadLatency

---@class eirun.LoadResult: eirun.LoadFigures
---@field url string
---@field started_at number seconds since the epoch on the run's clock
---@field series eirun.LoadSecond[] by second of the plan
---@field window eirun.LoadFigures what the thresholds judged, with from and to
---@field phases eirun.LoadFigures[] with name, from and to
---@field thresholds {text: string, metric: string, value: number, limit: number, ok: boolean}[]
---@field inconclusive boolean too few answers in the window
---@field valid boolean
---@field reason? string why it is not valid
---@field stopped? string why the run ended before its plan: abort_after
---@field ok boolean valid, conclusive and every threshold kept
---@field lateness table of the generator: sent minus planned
---@field connections integer opened in all
---@field capped integer requests that waited because max_connections was reached
---@field starved integer times that a request was late because `request` had not made it yet
---@field aborted integer in flight when the run was stopped
---@field examples {kind: string, at: number, status?: integer, text: string}[] the first failures
---@field histogram integer[][] {lowest, highest, count, index} in microseconds; each phase has one too; pairs and JSON pass it over
---@field bytes_in integer
---@field bytes_out integer

-- Found by its name but not among the pairs: a result that is written as JSON or kept in a journal stays small.
local function attach_histogram(figures, core_run, slice)
  setmetatable(figures, { __index = { histogram = core_run:histogram(slice) } })
end

local function result_of(run)
  local state, plan, opts = run.core:state(), run.plan, run.opts
  local length = math.max(state.elapsed, 0)
  local result = figures_of(state.slices[1], length)
  for _, key in ipairs { "started_at", "lateness", "capped", "starved", "aborted", "examples", "bytes_in", "bytes_out" } do
    result[key] = state[key]
  end
  result.url, result.connections, result.series = opts.url, state.opened, run.core:series()
  local from, to = run.slices[1][1], math.min(run.slices[1][2], plan.seconds)
  result.window = figures_of(state.slices[2], overlap(from, to, math.max(length, math.min(plan.seconds, to))))
  result.window.from, result.window.to = from, to
  result.phases = {}
  for i, phase in ipairs(plan.phases) do
    local figures = figures_of(state.slices[i + 2], overlap(phase.from, phase.to, length))
    figures.name, figures.from, figures.to = phase.name, phase.from, phase.to
    result.phases[i] = figures
  end
  attach_histogram(result, run.core, 1)
  for i, figures in ipairs(result.phases) do attach_histogram(figures, run.core, i + 2) end
  result.valid, result.reason = validity(state, opts)
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

local function progress_of(run)
  local state, plan = run.core:state(true), run.plan
  local whole = math.max(0, math.floor(state.elapsed) - 1)
  local last = run.core:series(whole)[1] or {}
  return {
    elapsed = state.elapsed, seconds = plan.seconds, requests = state.slices[1].done, total = plan.requests,
    asked = phases.rate_at(plan, state.elapsed), rate = last.sent or 0, p50 = last.p50, p95 = last.p95, p99 = last.p99,
    errors = state.slices[1].done - state.slices[1].ok, in_flight = state.in_flight,
  }
end

---A load test under way.
---@class eirun.LoadRun
local run_methods = {}
local run_mt = { __index = run_methods, __name = "eirun.load.run" }

---Waits until the run has ended, or until `seconds` have passed. Answers whether it has ended.
---@param seconds? number
---@return boolean
---Example: `while not run:wait(10) do print(run:progress().rate) end`. Raises `cancelled` when the task is stopped; the run goes on.
function run_methods:wait(seconds)
  return self.core:wait(seconds)
end

-- How long a filler waits for a quarter of the ring to be sent.
local function fill_pause(run)
  local most = 1
  for _, piece in ipairs(run.plan.pieces or {}) do most = math.max(most, piece[1], piece[2]) end
  return math.max(0.001, math.min(0.25, ring_size / 4 / most))
end

---Makes requests by the option `request` until the plan has all of its own, and then waits. `load.run` does it by itself; beside
---`load.start` it belongs in a task of its own.
---Example: `task.race { function() run:wait() end, function() run:fill() end }`. Raises what the option's function raises.
function run_methods:fill()
  local opts, pause = self.opts, fill_pause(self)
  while opts.request and self.made < self.wanted do
    local bytes = request.make(opts, self.target, self.made + 1)
    while not self.core:feed(bytes) do task.sleep(pause) end
    self.made = self.made + 1
  end
  task.event():wait()
end

---Stops at once; requests in flight count as aborted.
---Example: `run:stop()`. Raises nothing.
function run_methods:stop()
  self.core:stop()
end

---What was seen so far; final once the run has ended.
---@return eirun.LoadResult
---Example: `print(run:result().latency.p95)`. Raises only for a run that was closed.
function run_methods:result()
  return result_of(self)
end

---@return eirun.LoadProgress
---How far it is, with the last whole second's figures.
---Example: `print(run:progress().in_flight)`. Raises only for a run that was closed.
function run_methods:progress()
  return progress_of(self)
end

---Closes the run; its figures are gone.
---Example: `local run <close> = load.start(options)` closes it by itself. Raises nothing.
function run_methods:close()
  self.core:close()
end

run_mt.__close = function(self) self.core:close() end

-- The first requests are made before the plan begins. Even plans know how many there will be.
local function first_made(run, target)
  local opts, requests = run.opts, {}
  if opts.bodies then spec.fail("load.run", "give request or bodies, not both") end
  local even = not run.plan.closed and (run.plan.instants or opts.arrivals == "even")
  run.wanted, run.target = even and math.ceil(run.plan.requests - 1e-7) or math.huge, target
  for i = 1, math.min(ring_size, run.wanted) do requests[i] = request.make(opts, target, i) end
  run.made = #requests
  return requests
end

---Begins a load test and returns while it runs.
---@param opts eirun.LoadOptions
---@return eirun.LoadRun run to be closed
---Example: `local run <close> = load.start { url = url, plan = { { kind = "hold", rate = 50, duration = 60 } } }`.
---Raises kind "invalid" for wrong options, "denied" for an address without allowance and "network" where nobody listens,
---each before the first request.
function M.start(opts)
  spec.check("load.run", opts, rules)
  local full = with_defaults(opts)
  local run = setmetatable({ opts = full }, run_mt)
  run.thresholds = threshold.parse_all(full.thresholds or {})
  run.plan = plan_of(full)
  check_bounds(run.plan, full)
  run.slices = slices_of(run.plan, full)
  local target = request.parse_url(full.url)
  local requests = full.request and first_made(run, target) or request.build(full, target)
  request.locate(full, target)
  run.core = errors.check(core.start {
    tls = target.scheme == "https" and target.host or nil, ca_file = full.ca_file, ca_pem = full.ca_pem, verify = full.verify,
    unix = target.unix, address = target.address, port = target.port, requests = requests,
    pieces = run.plan.pieces, instants = run.plan.instants, slices = run.slices, arrivals = full.arrivals, seed = full.seed,
    timeout = full.timeout, max_connections = full.max_connections, max_body = full.max_body, keep_alive = full.keep_alive,
    threads = threads_of(full), ring = full.request and ring_size or nil,
    closed = run.plan.closed, closed_seconds = run.plan.closed and run.plan.seconds,
    status = full.status, contains = full.contains, head = full.method == "HEAD",
  })
  return run
end

-- Thresholds of the window so far, once it has enough answers to be judged.
local function is_broken(run)
  local elapsed = run.core:state(true).elapsed
  if elapsed < run.opts.abort_after then return false end
  local result = result_of(run)
  if #result.thresholds == 0 or result.inconclusive then return false end
  for _, verdict in ipairs(result.thresholds) do
    if not verdict.ok then return true end
  end
  return false
end

local function watch(run, opts)
  while not run:wait((opts.progress or opts.abort_after) and run.opts.progress_every or nil) do
    if opts.progress then opts.progress(run:progress()) end
    if opts.abort_after and is_broken(run) then
      run.stopped = ("a threshold was broken after %.0f s"):format(run.core:state(true).elapsed)
      run:stop()
    end
  end
  local failure = run.core:state(true).error
  if failure then
    error(errors.wrap(failure, "cannot load " .. opts.url .. ": " .. failure.message, { cause = false }), 0)
  end
end

---Runs a load test to its end.
---@param opts eirun.LoadOptions
---@return eirun.LoadResult
---Example:
---```lua
---local result = load.run {
---  url = "http://test.example.com/v1/models/m:predict", body = body,
---  plan = { { kind = "ramp", from = 0, to = 60, duration = 120 }, { kind = "hold", rate = 60, duration = 720 } },
---  window = { from = 600 }, thresholds = { "p95<250ms", "errors<0.1%" },
---}
---```
---A missed threshold is not an error: read `result.ok`. Raises as start does; when the task is cancelled the run stops, the
---figures go to `on_cancel`, and the cancel goes on.
function M.run(opts)
  local run <close> = M.start(opts)
  local ended, failure = pcall(task.race, { function() watch(run, opts) end, function() run:fill() end })
  if not ended then
    local state = run.core:state(true)
    run:stop()
    if opts.on_cancel and state.phase ~= "connecting" and not state.error then opts.on_cancel(run:result()) end
    error(failure, 0)
  end
  return run:result()
end

---Finds the highest rate at which the thresholds hold.
---@param opts table as eirun.load.run's, without plan, connections and window, and with: `thresholds`; `low` (default 10) and `high`
---(default 100000) requests a second; `seconds` of each trial (10); `pause` between trials (1); `precision`, the share that the answer
---may be off (0.05); `tried`, called with each trial
---@return {rate: number, limited: boolean, trials: table[]} rate is 0 when even `low` breaks them; limited: `high` still holds
---Example: `load.find_max({ url = url, thresholds = { "p99<200ms", "errors<0.1%" } }).rate`. Raises as eirun.load.run does, and kind
---"invalid" when a trial has too few requests to judge.
function M.find_max(opts)
  return require("eirun.load.search").find_max(opts)
end

return M
