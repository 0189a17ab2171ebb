-- SPDX-License-Identifier: Apache-2.0
-- Runs a book: steps with outcomes, in order or side by side, told to an output.
local clock = require "eirun.core.clock"
local core = require "eirun.core.task"
local errors = require "eirun.errors"
local task = require "eirun.task"

local M = {}

-- Steps ---------------------------------------------------------------------------------------------------------------

local Step = {}
Step.__index = Step

local ranks = { unchanged = 1, deleted = 3, updated = 2, created = 3 }

function Step:add_record(record)
  self.records[#self.records + 1] = record
  for _, change in ipairs(record.changes or {}) do
    self.changes[#self.changes + 1] = { object = ("%s %s"):format(record.kind, record.name),
      field = change.field, from = change.from, to = change.to }
  end
  if record.outcome == "created" then
    self.changes[#self.changes + 1] = { object = ("%s %s"):format(record.kind, record.name), outcome = "created" }
  end
  if not self.outcome or ranks[record.outcome] > ranks[self.outcome] then
    self.outcome = record.outcome
  end
end

function Step:add_note(text)
  self.notes[#self.notes + 1] = text
  self.out:note(self, text)
end

function Step:show_progress(progress)
  self.out:progress(self, progress)
end

-- Created objects are told by name; their fields are not changes of anything.
local function told_changes(step)
  local created, told = {}, {}
  for _, record in ipairs(step.records) do
    if record.outcome == "created" then
      created[("%s %s"):format(record.kind, record.name)] = true
    end
  end
  for _, change in ipairs(step.changes) do
    if change.outcome or not created[change.object] then
      told[#told + 1] = change
    end
  end
  return told
end

-- Run -----------------------------------------------------------------------------------------------------------------

---@class eirun.play.Run
local Run = {}
Run.__index = Run

local function place_of(err)
  local text = type(err) == "table" and err.traceback
  return text
end

local function on_error(err)
  if type(err) ~= "table" then
    err = errors.new("internal", tostring(err), { bug = true })
  end
  if not place_of(err) then
    err.traceback = debug.traceback("", 2)
  end
  return err
end

local function begin(run, name)
  local step = setmetatable({ name = name, records = {}, changes = {}, notes = {}, out = run.out, started = clock.monotonic(),
    clock_started = task.now() }, Step)
  run.steps[#run.steps + 1] = step
  run.out:step_started(step)
  return step
end

local function finish(run, step, outcome, err)
  step.outcome = outcome
  step.error = err
  step.seconds = clock.monotonic() - step.started
  step.clock_seconds = task.now() - step.clock_started
  step.changes = told_changes(step)
  run.counts[outcome] = (run.counts[outcome] or 0) + 1
  run.out:step_finished(step)
end

-- A result that says of itself that it missed its target: the run goes on, the exit code tells.
local function missed(result)
  return type(result) == "table" and rawget(result, "ok") == false and result.thresholds ~= nil
end

local function perform(run, name, fn)
  local step = begin(run, name)
  local before = task.context()
  local mine = {}
  for key, value in pairs(before) do
    mine[key] = value
  end
  mine.eirun_step = step
  task.context(mine)
  local results = table.pack(core.settle(fn, on_error))
  task.context(before)
  if not results[1] then
    local err = results[2]
    finish(run, step, err.kind == "cancelled" and "cancelled" or "failed", err)
    err.step = err.step or name
    core.give_up(err)
  end
  if missed(results[2]) then
    run.missed = true
    finish(run, step, "failed", errors.new("quota", "a threshold was missed", { code = "threshold" }))
  else
    finish(run, step, step.outcome or "done")
  end
  return table.unpack(results, 2, results.n)
end

--- A step: runs `fn`, shows what it did. What it raises ends the playbook.
---@param name string
---@param fn fun(): any
---@return any ... what fn returned
--- Example: `local pool = p:step("node pool", function() return cluster:ensure_node_pool { ... } end)`
--- Raises what `fn` raises, which ends the playbook unless it is caught.
function Run:step(name, fn)
  return perform(self, name, fn)
end

--- A step that waits for something, at most `timeout` seconds of the run's clock.
---@param name string
---@param opts {timeout: number}
---@param fn fun(): any
--- Example: `p:wait("the model answers", { timeout = 300 }, function() app:wait_answer(web) end)`
--- Raises kind `timeout` when the time is over, and what `fn` raises; either ends the playbook.
function Run:wait(name, opts, fn)
  return perform(self, name, function()
    return task.timeout(opts.timeout, fn)
  end)
end

--- A step that only looks: a load test, a status.
---@param name string
---@param fn fun(): any
---@return any ... what fn returned
--- Example: `local now = p:probe("status", function() return status.of { app = app, pool = pool } end)`
--- Raises what `fn` raises. A result with `ok = false` and `thresholds` fails the step but raises nothing: the run goes on and ends with
--- exit code 4.
Run.probe = Run.step

--- Says that a step is left out, and why.
---@param name string
---@param why string
--- Example: `p:skip("load test", "load=no")`. Raises nothing.
function Run:skip(name, why)
  local step = begin(self, name)
  step:add_note(why)
  finish(self, step, "skipped")
end

--- Runs steps side by side: `p:together(function(all) all:step("a", fa) all:step("b", fb) end)`.
---@param body fun(all: {step: fun(self, name: string, fn: fun())})
--- Example: `p:together(function(all) all:step("pool", make_pool) all:step("model", upload) end)`
--- Raises the first failure after the other steps were cancelled and have ended; more failures are its `causes`.
function Run:together(body)
  task.together(function(start)
    body({
      step = function(_, name, fn)
        start(perform, self, name, fn)
      end,
    })
  end)
end

--- A line for people.
---@param text string
--- Example: `p:note("the address may need a minute")`. Raises nothing.
function Run:note(text)
  local step = task.context().eirun_step
  if step then
    step:add_note(text)
  else
    self.out:note(nil, text)
  end
end

--- The run's result: `result` of the machine-readable output; its field `text` is shown to people at the end.
---@param result table
--- Example: `p:report { address = web:url(), text = status.text(now) }`. Raises nothing.
function Run:report(result)
  self.result = result
end

local function outcome_of(ok, err)
  if ok then
    return "ok"
  end
  return err.kind == "cancelled" and "cancelled" or "failed"
end

local function exit_code(run, ok, err)
  if ok then
    return run.missed and 4 or 0
  elseif err.kind == "cancelled" then
    return 130
  end
  return err.code == "guard" and 3 or err.code == "threshold" and 4 or 1
end

--- Runs a book with its values.
---@param book eirun.play.Book
---@param values table
---@param out table an output
---@return integer exit_code
---@return table run
function M.run(book, values, out)
  local run = setmetatable({ out = out, steps = {}, counts = {}, book = book, values = values }, Run)
  local started, clock_started = clock.monotonic(), task.now()
  local ok, err = core.settle(book.run, on_error, run, values)
  local outcome = outcome_of(ok, err)
  if ok and run.missed then
    outcome = "failed"
  end
  if not ok and not err.step and err.kind ~= "cancelled" then
    out:failed(err)
    run.counts.failed = (run.counts.failed or 0) + 1
  end
  run.summary = {
    outcome = outcome,
    created = run.counts.created or 0,
    updated = run.counts.updated or 0,
    unchanged = run.counts.unchanged or 0,
    failed = run.counts.failed or 0,
    cancelled = run.counts.cancelled or 0,
    seconds = clock.monotonic() - started,
    clock_seconds = task.now() - clock_started,
    result = run.result or {},
    error = not ok and err or nil,
  }
  if run.result and run.result.text then
    out:text((run.result.text:gsub("\n*$", "\n")))
  end
  out:run_finished(run.summary)
  return exit_code(run, ok, err), run
end

return M
