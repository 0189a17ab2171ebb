-- SPDX-License-Identifier: Apache-2.0
-- Load tests with an open loop: requests go out at their planned times whatever the server does, and latency counts from
-- the planned time, so a server that stops is seen by every request that fell into the stop.
local core = require "eirun.core.load"
local core_clock = require "eirun.core.clock"
local core_os = require "eirun.core.os"
local errors = require "eirun.errors"
local phases = require "eirun.load.phases"
local request = require "eirun.load.request"
local results = require "eirun.load.result"
local spec = require "eirun.spec"
local task = require "eirun.task"
local threshold = require "eirun.threshold"

local M = {}

local function above_zero(value)
  if not (value > 0 and value < math.huge) then return "must be a number above 0" end
end

local function not_too_short(value)
  if not (value >= 0.001 and value < math.huge) then return "must be a finite number of at least 0.001 seconds" end
end

local function is_window(value)
  local from, to = value.from or 0, value.to or math.huge
  if not (from >= 0 and to > from) then return "must have 0 <= from < to, in seconds of the plan" end
end

local function is_allowance(value)
  if value ~= true and type(value) ~= "table" then return "must be true or a list of hosts" end
  for _, host in ipairs(type(value) == "table" and value or {}) do
    if type(host) ~= "string" then return "must be true or a list of hosts" end
  end
end

local rules = {
  url = { type = "string" },
  targets = { type = "list" },
  method = { type = "string", match = "^%u+$", says = "a method in capitals" },
  headers = { type = "table" },
  body = { type = "string" },
  bodies = { type = "list" },
  body_file = { type = "string" },
  form = { type = "list" },
  request = { type = "function" },
  plan = { type = "list" },
  connections = { type = "integer", min = 1, max = 1000000 },
  duration = { type = "number", check = above_zero },
  threads = { type = "integer", min = 0, max = 256 },
  arrivals = { type = "string", one_of = { even = true, poisson = true } },
  seed = { type = "integer" },
  timeout = { type = "number", check = not_too_short },
  max_connections = { type = "integer", min = 1, max = 1000000 },
  max_requests = { type = "integer", min = 1 },
  max_seconds = { type = "number", check = above_zero },
  max_lateness = { type = "number", check = above_zero },
  max_body = { type = "integer", min = 0 },
  keep_alive = { type = "boolean" },
  http = { type = "string", one_of = { ["1.1"] = true, ["2"] = true } },
  streams = { type = "integer", min = 1, max = 1000 },
  think = { type = "number", min = 0, max = 86400 },
  warm = { type = "integer", min = 0, max = 1000000 },
  status = { type = "integer", min = 100, max = 599 },
  contains = { type = "string" },
  json = { type = "any" },
  size = { type = "table", fields = { min = { type = "integer", min = 0 }, max = { type = "integer", min = 1 } } },
  check = { type = "function" },
  check_every = { type = "integer", min = 1 },
  thresholds = { type = "list" },
  window = { type = "table", check = is_window, fields = { from = { type = "number" }, to = { type = "number" } } },
  warmup = { type = "number", min = 0 },
  min_samples = { type = "integer", min = 1 },
  progress = { type = "function" },
  progress_every = { type = "number", check = above_zero },
  on_cancel = { type = "function" },
  abort_after = { type = "number", min = 0 },
  allow = { type = "any", check = is_allowance },
  connect_to = { type = "string" },
  ca_file = { type = "string" },
  ca_pem = { type = "string" },
  verify = { type = "boolean" },
}

---@class eirun.LoadTarget what it leaves out is as in the options
---@field url string
---@field name? string for the report, default the URL
---@field weight? integer default 1: with weights 3 and 1 three of four requests go to the first
---@field method? string
---@field headers? table
---@field body? string
---@field bodies? string[]
---@field body_file? string
---@field form? table[]
---@field connect_to? string

---@class eirun.LoadOptions
---@field url? string
---@field targets? eirun.LoadTarget[] instead of url: several, each with its share of the requests
---@field method? string default GET, or POST with a body
---@field headers? table<string, string>|string[][] values may be secrets
---@field body? string
---@field bodies? string[] taken in turn, instead of body
---@field body_file? string a file whose bytes are the body
---@field form? {name: string, value?: string, file?: string, type?: string, filename?: string}[] the body is a form with these fields
--- and files (multipart/form-data)
---@field request? fun(i: integer): {method?: string, path?: string, headers?: table, body?: string, target?: integer|string} makes the
--- i-th request, some time before it is sent; what it leaves out is as in the options. See eirun.load.predict
---@field plan? eirun.LoadPhase[] see eirun.load.phases
---@field connections? integer instead of plan a closed loop: each connection sends when it was answered. It cannot see a pause of the
--- server as its clients would: for saturation, not for latency
---@field duration? number seconds of the closed loop
---@field threads? integer in real time, default one a core less one; 0: the thread of the tasks. Other clocks always use that
---@field think? number seconds between an answer and the next request of a closed loop
---@field http? "1.1"|"2" default 1.1; HTTP/2 on http:// is spoken from the first byte (prior knowledge), on https:// it must be agreed on
---@field streams? integer of HTTP/2: requests at one time on a connection, default 100, and 1 in a closed loop
---@field warm? integer connections that are opened before the plan begins
---@field arrivals? "even"|"poisson" default even
---@field seed? integer of the Poisson arrivals, default 1
---@field timeout? number seconds from the planned time to the end of the answer, default 30
---@field max_connections? integer default 4096, or what the limit on open files allows; who waits for one is late
---@field max_requests? integer a larger plan is refused, default 50 million; a closed loop ends after as many, where it is given
---@field max_seconds? number a longer plan is refused, default a week
---@field max_lateness? number the run is invalid when p99 of sent minus planned is above it, default 0.05
---@field max_body? integer bytes of an answer, default 64 MiB
---@field keep_alive? boolean default true
---@field status? integer the only good one; else 200 to 399 are good
---@field contains? string the body of a good answer holds it
---@field json? string|{field: string, equals: any} the body of a good answer is JSON with this field, as "predictions[0].label"
---@field size? {min?: integer, max?: integer} bytes of the body of a good answer
---@field check? fun(answer: {status: integer, body: string, target: integer}): boolean|nil, string|nil looks at a sample of the good
--- answers (the first MiB of the body); one that it denies counts as an error, with the words that come second. It may wait
---@field check_every? integer of so many good answers the first is looked at, default 100; who is too slow sees fewer
---@field thresholds? string[] see eirun.threshold
---@field window? {from?: number, to?: number} seconds of the plan that the thresholds judge, default the whole plan
---@field warmup? number seconds at the beginning that the thresholds do not judge: short for window = { from = ... }
---@field min_samples? integer fewer answers in the window are no basis: inconclusive; default 100, and 1000 for p99.9, 10,000 for p99.99
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
  arrivals = "even", seed = 1, timeout = 30, max_seconds = 7 * 86400,
  max_lateness = 0.05, progress_every = 1, keep_alive = true, check_every = 100,
}

local function with_defaults(opts)
  local full = setmetatable({}, { __index = defaults })
  for key, value in pairs(opts) do full[key] = value end
  if opts.warmup then
    if opts.window then spec.fail("load.run", "give warmup or window, not both") end
    full.window = { from = opts.warmup }
  end
  return full
end

-- What the options say only together.
local function check_options(opts)
  if opts.think and not opts.connections then spec.fail("load.run", "think goes with connections, not with a plan") end
  if opts.streams and opts.http ~= "2" then spec.fail("load.run", "streams are those of HTTP/2: http = \"2\", or --http 2") end
  if opts.http == "2" and opts.keep_alive == false then spec.fail("load.run", "keep_alive = false goes with HTTP/1.1") end
  if opts.check_every and not opts.check then spec.fail("load.run", "check_every goes with check") end
  if opts.size and (opts.size.min or 0) > (opts.size.max or math.huge) then spec.fail("load.run", "size: min is above max") end
end

local most_planned = 50000000

local function check_bounds(plan, opts)
  local most = opts.max_requests or most_planned
  if plan.requests > most then
    spec.fail("load.run", ("the plan holds %.0f requests, more than max_requests (%d)"):format(plan.requests, most))
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
  local pause = fill_pause(self)
  while self.request and self.made < self.wanted do
    local bytes, target = request.make(self, self.made + 1)
    while not self.core:feed(bytes, target) do task.sleep(pause) end
    self.made = self.made + 1
  end
  task.event():wait()
end

---Stops at once; requests in flight count as aborted.
---Example: `run:stop()`. Raises nothing.
function run_methods:stop()
  self.halted = self.halted or self.core:state(true).phase ~= "finished"
  self.core:stop()
end

---What was seen so far; final once the run has ended.
---@return eirun.LoadResult
---Example: `print(run:result().latency.p95)`. Raises only for a run that was closed.
function run_methods:result()
  return results.of(self)
end

---@return eirun.LoadProgress
---How far it is, with the last whole second's figures.
---Example: `print(run:progress().in_flight)`. Raises only for a run that was closed.
function run_methods:progress()
  return results.progress(self)
end

---Closes the run; its figures are gone.
---Example: `local run <close> = load.start(options)` closes it by itself. Raises nothing.
function run_methods:close()
  self.core:close()
end

run_mt.__close = function(self) self.core:close() end

-- One sample. A check that fails for a reason of its own ends the run: what it would have said is not known.
local function look_at(run, sample)
  local answered, good, why = pcall(run.opts.check, { status = sample.status, body = sample.body, target = sample.target })
  if not answered and type(good) == "table" and good.kind == "cancelled" then error(good, 0) end
  if not answered then
    run.failed_check = errors.text(good)
    run:stop()
  elseif not good then
    run.core:reject(sample, tostring(why or "the check denied it"))
  end
  return answered
end

local look_every = 0.05

---Looks at samples of the answers with the option `check` while there are any. `load.run` does it by itself; beside `load.start` it is
---called now and then.
---Example: `run:inspect()`. Raises what errors of the task raise (a cancel).
function run_methods:inspect()
  local sample = self.opts.check and self.core:sample()
  while sample and not self.failed_check and look_at(self, sample) do sample = self.core:sample() end
end

local function keep_inspecting(run)
  while run.opts.check do
    run:inspect()
    task.sleep(look_every)
  end
  task.event():wait()
end

-- The first requests are made before the plan begins. Even plans know how many there will be.
local function make_first(run)
  local opts = run.opts
  if opts.bodies or opts.body_file or opts.form then spec.fail("load.run", "give request or bodies, not both") end
  local even = not run.plan.closed and (run.plan.instants or opts.arrivals == "even")
  run.wanted = even and math.ceil(run.plan.requests - 1e-7) or run.plan.closed and opts.max_requests or math.huge
  local first = math.min(ring_size, run.wanted)
  run.first = {}
  for i = 1, first do run.first[i] = { request.make(run, i) } end
  run.made = first
end

-- A trace with a column of sizes makes a body of as many bytes for each of its requests.
local function sized(run)
  local sizes, given = run.plan.sizes, run.opts.request
  if not sizes then return given end
  local filler = ("x"):rep(math.max(table.unpack(sizes, 1, 1)))
  return function(i)
    local size = sizes[(i - 1) % #sizes + 1]
    if #filler < size then filler = ("x"):rep(2 * size) end
    if given then return given(i, size) end
    return { body = filler:sub(1, size) }
  end
end

local function check_json(given)
  if not given then return nil end
  local path = require "eirun.load.jsonpath"
  if type(given) == "string" then return path.parse(given) end
  local rule = spec.check("load.run.json", given, { field = { type = "string", required = true }, equals = { type = "any" } })
  return path.parse(rule.field), rule.equals ~= nil and require("eirun.core.json").encode(rule.equals) or nil
end

local function core_targets(run)
  local list = {}
  for i, target in ipairs(run.targets) do
    list[i] = { unix = target.unix, addresses = target.addresses, port = target.port, requests = target.requests,
      tls = target.scheme == "https" and target.host or nil }
  end
  return list
end

local function default_streams(opts)
  return opts.streams or opts.http == "2" and not opts.connections and 100 or 1
end

local function start_core(run)
  local opts, size = run.opts, run.opts.size or {}
  run.threads = threads_of(opts)
  local field, equals = check_json(opts.json)
  run.core = errors.check(core.start {
    ca_file = opts.ca_file, ca_pem = opts.ca_pem, verify = opts.verify,
    targets = core_targets(run), turns = run.turns, first = run.first,
    h2 = opts.http == "2", streams = default_streams(opts), warm = opts.warm, think = opts.think,
    pieces = run.plan.pieces, instants = run.plan.instants, slices = run.slices, arrivals = opts.arrivals, seed = opts.seed,
    timeout = opts.timeout, max_connections = opts.max_connections, max_body = opts.max_body, keep_alive = opts.keep_alive,
    threads = run.threads, ring = run.request and ring_size or nil,
    closed = run.plan.closed, closed_seconds = run.plan.closed and run.plan.seconds,
    most = run.plan.closed and opts.max_requests,
    status = opts.status, contains = opts.contains, field = field, equals = equals, least_body = size.min, most_body = size.max,
    sample_every = opts.check and opts.check_every or nil,
  })
end

---Begins a load test and returns while it runs.
---@param opts eirun.LoadOptions
---@return eirun.LoadRun run to be closed
---Example: `local run <close> = load.start { url = url, plan = { { kind = "hold", rate = 50, duration = 60 } } }`.
---Raises kind "invalid" for wrong options, "denied" for an address without allowance and "network" where nobody listens,
---each before the first request.
function M.start(opts)
  spec.check("load.run", opts, rules)
  check_options(opts)
  local full = with_defaults(opts)
  local run = setmetatable({ opts = full }, run_mt)
  run.thresholds = threshold.parse_all(full.thresholds or {})
  run.plan = plan_of(full)
  check_bounds(run.plan, full)
  run.slices = slices_of(run.plan, full)
  run.targets = request.targets(full)
  run.turns, run.request = request.turns(run.targets), sized(run)
  if run.request then make_first(run) end
  for _, target in ipairs(run.targets) do
    target.requests = not run.request and request.build(target.opts, target) or nil
    request.locate(target.opts, target)
  end
  start_core(run)
  return run
end

-- Thresholds of the window so far, once it has enough answers to be judged.
local function is_broken(run)
  local elapsed = run.core:state(true).elapsed
  if elapsed < run.opts.abort_after then return false end
  local result = results.of(run)
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
    local url = run.targets[run.core:state(true).failed_target].url
    error(errors.wrap(failure, "cannot load " .. url .. ": " .. failure.message, { cause = false }), 0)
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
  local ended, failure = pcall(task.race, {
    function() watch(run, opts) end, function() run:fill() end, function() keep_inspecting(run) end,
  })
  if not ended then
    local state = run.core:state(true)
    run:stop()
    run.stopped = run.stopped or ("it was interrupted after %.0f s"):format(math.max(state.elapsed, 0))
    if opts.on_cancel and state.phase ~= "connecting" and not state.error then opts.on_cancel(run:result()) end
    error(failure, 0)
  end
  run:inspect()
  return run:result()
end

---Finds the highest rate at which the thresholds hold.
---@param opts table as eirun.load.run's, without plan, connections and window, and with: `thresholds`; `low` (default 10, or what can be
---judged) and `high` (default 100000) requests a second; `seconds` of each trial (10); `pause` between trials (1); `precision`, the share
---that the answer may be off (0.05); `tried`, called with each trial; `stopped`, which gets what was found when a cancel ends the search
---@return {rate: number, breaks_at?: number, limited: boolean, stopped?: boolean, by_generator?: string, trials: table[]} rate is 0 when
--- even `low` breaks them; it has held twice, or by far; breaks_at: the lowest rate that did not hold; limited: `high` still holds;
--- stopped: a cancel came first; by_generator: the last rate broke because requests could not be sent in time, so the limit is not the
--- server's
---Example: `load.find_max({ url = url, thresholds = { "p99<200ms", "errors<0.1%" } }).rate`. Raises as eirun.load.run does, and kind
---"invalid" when a trial has too few requests to judge.
function M.find_max(opts)
  return require("eirun.load.search").find_max(opts)
end

return M
