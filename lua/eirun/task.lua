-- SPDX-License-Identifier: Apache-2.0
-- Structured concurrency: nobody outlives the block that started it. The mechanism is core/scope.c.
local core = require "eirun.core.task"

---@class eirun.task
local task = {}

--- Seconds since the Unix epoch on the run's clock.
---@return number seconds
--- Example: `local started = task.now()`. Raises nothing.
function task.now()
  return core.now()
end

--- Waits on the run's clock.
---@param seconds number 0 or less only gives way
---@return nil
--- Errors: kind `cancelled` or `timeout` when the task was stopped meanwhile.
--- Example: `task.sleep(0.5)`
function task.sleep(seconds)
  core.sleep(seconds)
end

--- Waits until a moment of the run's clock.
---@param at number seconds since the Unix epoch
--- Example: `task.sleep_until(started + 60)`
--- Errors: as `sleep`.
function task.sleep_until(at)
  core.sleep_until(at)
end

--- Runs `body(all)`; `all(fn, ...)` starts a task beside it. Returns when the body and every task have finished. The first error cancels
--- the others, waits for them and is raised, with the others that were more than the cancel as its `causes`.
---@param body fun(all: fun(fn: function, ...))
--- Example:
--- ```lua
--- task.together(function(all)
---   all(upload, "a")
---   all(upload, "b")
--- end)
--- ```
--- Errors: the first one; `cancelled` or `timeout` when the caller itself was stopped.
function task.together(body)
  local scope <close> = core.scope()
  scope:spawn(body, function(fn, ...)
    scope:spawn(fn, ...)
  end)
  scope:join()
end

--- Runs all functions, returns what the first one to finish returned (or raises its error) after the others were cancelled and have ended.
---@param functions function[]
---@return any ...
--- Example: `local winner = task.race { function() return ask("a") end, function() return ask("b") end }`
--- Errors: that of the first one to finish, if it ended with an error. An empty list returns at once.
function task.race(functions)
  local scope <close> = core.scope():first()
  for _, fn in ipairs(functions) do
    scope:spawn(fn)
  end
  return scope:join()
end

--- Runs `fn(...)` and returns its results, or cancels it after `seconds` and raises kind `timeout`.
---@param seconds number
---@param fn function
---@return any ...
--- Example: `local reply = task.timeout(5, client.get, client, "/healthz")`
function task.timeout(seconds, fn, ...)
  local scope <close> = core.scope():first()
  scope:spawn(fn, ...)
  scope:within(seconds)
  return scope:join()
end

--- Runs `fn(...)` out of reach of a cancel, at most `seconds` long: for clean-up that needs the network.
---@param seconds number
---@param fn function
---@return any ...
--- Example: `task.shield(10, bucket.abort_upload, bucket, id)`
--- Errors: what `fn` raises; kind `timeout` after `seconds`.
function task.shield(seconds, fn, ...)
  local scope <close> = core.scope():first():shield()
  scope:spawn(fn, ...)
  scope:within(seconds)
  return scope:join()
end

--- Calls `fn(item, index)` for each item, at most `limit` at a time, and returns the first results in the items' order.
---@param items any[]
---@param fn fun(item: any, index: integer): any
---@param limit? integer default: all at once
---@return any[] results
--- Example: `local sizes = task.map(files, stat, 8)`
--- Errors: the first one; then no further item is begun.
function task.map(items, fn, limit)
  local results, at = {}, 0
  local function worker()
    while at < #items do
      at = at + 1
      local index = at
      results[index] = fn(items[index], index)
    end
  end
  task.together(function(all)
    for _ = 1, math.min(limit or #items, #items) do
      all(worker)
    end
  end)
  return results
end

--- An event: `set()` wakes all waiters and stays set, `clear()`, `notify()` wakes those who wait now (`notify("one")` one of them),
--- `wait([seconds])` -> true, or false when the time was over.
---@return userdata event
--- Example: `local ready = task.event(); ready:wait(30)`
--- Errors: `wait` raises `cancelled` or `timeout` when the task is stopped; a time that is over is no error.
function task.event()
  return core.event()
end

--- Values between tasks, in order.
---@class eirun.task.queue
local queue = {}
queue.__index = queue

--- A queue between tasks: `put(value)`, `get([seconds])` -> value, or nil when the time was over or the queue closed, `close()`.
---@return eirun.task.queue
--- Example: `local jobs = task.queue(); jobs:put "a"; print(jobs:get(5))`. Raises nothing.
function task.queue()
  return setmetatable({ first = 1, last = 0, arrived = core.event() }, queue)
end

--- Adds a value at the end; wakes one task that waits. Never waits itself.
---@param value any not nil
--- Example: `jobs:put { file = "a" }`. Raises nothing.
function queue:put(value)
  self.last = self.last + 1
  self[self.last] = value
  self.arrived:notify("one")
end

--- No more values will come: whoever waits gets nil once the queue is empty.
--- Example: `jobs:close()`. Raises nothing.
function queue:close()
  self.closed = true
  self.arrived:set()
end

--- Takes the oldest value; waits for one.
---@param seconds? number default: as long as it takes
---@return any|nil value nil when the time was over or the queue is closed and empty
--- Example: `for job in function() return jobs:get() end do work(job) end`
--- Errors: kind `cancelled` or `timeout` when the task was stopped meanwhile.
function queue:get(seconds)
  local limit = seconds and core.now() + seconds
  while self.first > self.last do
    if self.closed or (limit and not self.arrived:wait(limit - core.now())) then
      return nil
    elseif not limit then
      self.arrived:wait()
    end
  end
  local value = self[self.first]
  self[self.first] = nil
  self.first = self.first + 1
  return value
end

--- The values that this task and the tasks it starts share (`context()`), or gives this task another table (`context(t)`).
---@param values? table
---@return table
--- Example: `task.context().tenant = "a"`. Raises nothing.
function task.context(values)
  if values then
    return core.context(values)
  end
  return core.context()
end

return task
