-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.task
-- What the C modules core/bind_task.c, task.c, scope.c and signal.c offer; a test compares the names. Playbooks use eirun.task.
local task = {}

---What a blocking call yields inside a coroutine of the user's own; the prelude passes it upward.
---@type lightuserdata
task.SYSTEM_YIELD = nil

---Seconds since 1970 on the run's clock.
---@return number
function task.now() end

---Nanoseconds since 1970 on the run's clock.
---@return integer
function task.now_ns() end

---Waits; 0 or less only gives way to other tasks. Raises the reason when the task is cancelled, and for 9e9 or more.
---@param seconds number
function task.sleep(seconds) end

---Waits until a moment of the run's clock.
---@param at number seconds since 1970
function task.sleep_until(at) end

---Gives way to the tasks that are ready.
function task.yield() end

---The values of this task, which the tasks that it starts inherit; with an argument it gets that table instead.
---@param values? table
---@return table
function task.context(values) end

---Is this the body of a task (and not a finaliser or a load of a module)?
---@return boolean
function task.in_task() end

---The task's own coroutine.
---@return thread
function task.thread() end

---`xpcall` for the code that runs a user's: when a loop of the user's was interrupted, what follows may clear up in peace, while after
---`pcall` the next instruction raises again.
---@param fn function
---@param handler function
---@param ... any
---@return boolean ok
---@return any ...
function task.settle(fn, handler, ...) end

---Raises what `settle` caught; the task of an interrupted loop is interrupted again at once.
---@param err any
function task.give_up(err) end

---Tells the host which of the user's coroutines runs; for the prelude alone.
---@param co? thread
function task.set_running(co) end

---A scope owns the tasks started in it. By default the first failure cancels the others.
---@class eirun.core.task.Scope
local Scope = {}

---Starts `fn(...)` as a task. Raises the reason once the scope was cancelled.
---@param fn function
---@param ... any
function Scope:spawn(fn, ...) end

---Waits until no task lives, then raises the first failure (with the others as `causes`) or, after `first`, returns or raises what
---the first to finish did. A scope is joined once.
---@return any ...
function Scope:join() end

---Cancels all its tasks, sticky: each blocking call of theirs raises kind "cancelled".
---@param message? string
function Scope:cancel(message) end

---The first task to finish decides, well or not; the others are cancelled.
---@return eirun.core.task.Scope itself
function Scope:first() end

---A cancel of whoever joins it does not reach its tasks.
---@return eirun.core.task.Scope itself
function Scope:shield() end

---After so many seconds its tasks are cancelled and `join` raises kind "timeout".
---@param seconds number
---@return eirun.core.task.Scope itself
function Scope:within(seconds) end

---How many of its tasks live.
---@return integer
function Scope:live() end

---Makes a scope; close it (`local scope <close> = task.scope()`), which cancels what still lives.
---@return eirun.core.task.Scope
function task.scope() end

---@class eirun.core.task.Event
local Event = {}

---Wakes all waiters; later waits return at once.
function Event:set() end

---Waits block again.
function Event:clear() end

---Wakes those who wait now and nobody else.
---@param who? "one" only the one who waits longest
function Event:notify(who) end

---Waits for `set` or `notify`.
---@param seconds? number default: for ever
---@return boolean woken false when the time was over
function Event:wait(seconds) end

---Is it set?
---@return boolean
function Event:is_set() end

---Makes an event.
---@return eirun.core.task.Event
function task.event() end

return task
