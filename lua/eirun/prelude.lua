-- SPDX-License-Identifier: Apache-2.0
-- What every state starts with: the run's clock in os, coroutines that let system yields pass, no way round the host.
local core = require "eirun.core.task"

local raw_resume, raw_yield, raw_close = coroutine.resume, coroutine.yield, coroutine.close
local status, running, create = coroutine.status, coroutine.running, coroutine.create
local SYSTEM_YIELD, set_running, in_task, task_thread = core.SYSTEM_YIELD, core.set_running, core.in_task, core.thread

-- A blocking call inside a user's coroutine yields SYSTEM_YIELD: it is handed upward until the task itself yields, and the way
-- down again is a plain resume, because results travel in the host's own structures.
local function pass(co, ok, first, ...)
  set_running()
  if ok and first == SYSTEM_YIELD and status(co) == "suspended" then
    raw_yield(SYSTEM_YIELD)
    set_running(co)
    return pass(co, raw_resume(co))
  end
  return ok, first, ...
end

function coroutine.resume(co, ...)
  if type(co) ~= "thread" then
    return raw_resume(co, ...)
  end
  set_running(co)
  return pass(co, raw_resume(co, ...))
end

local function rethrow(co, ok, ...)
  if ok then
    return ...
  end
  raw_close(co)
  error((...), 0)
end

function coroutine.wrap(fn)
  local co = create(fn)
  return function(...)
    return rethrow(co, coroutine.resume(co, ...))
  end
end

function coroutine.yield(...)
  if in_task() and running() == task_thread() then
    error("attempt to yield from outside a coroutine", 2)
  end
  return raw_yield(...)
end

local date, time, getenv, difftime, clock = os.date, os.time, os.getenv, os.difftime, os.clock
os = { -- luacheck: ignore
  date = function(format, at)
    return date(format or "%c", at or core.now() // 1 | 0)
  end,
  time = function(t)
    return t and time(t) or core.now() // 1 | 0
  end,
  getenv = getenv,
  difftime = difftime,
  clock = clock,
}
package.loaded.os = os

-- Bytecode can crash the host, so chunks are text; files are read through eirun.core.fs.
local load_text = load
function load(chunk, name, _, ...) -- luacheck: ignore
  if select("#", ...) > 0 then
    return load_text(chunk, name, "t", (...))
  end
  return load_text(chunk, name, "t")
end
dofile, loadfile = nil, nil -- luacheck: ignore
debug = { traceback = debug.traceback, getinfo = debug.getinfo } -- luacheck: ignore
package.loaded.debug = debug
