-- SPDX-License-Identifier: Apache-2.0
-- Every n-th allocation fails, and goes on failing: an operation either works or raises, and nothing is broken afterwards.
local t = require "eirun.test"
local task = require "eirun.task"
local testing = require "eirun.core.testing"

local MOST = 2000

-- Runs `operation` with memory running out at its 1st, 2nd, ... allocation, until it gets through.
local function torture(operation)
  for n = 1, MOST do
    collectgarbage()
    testing.fail_from(n)
    local ok, err = pcall(operation)
    testing.fail_from(0)
    if ok then
      return n
    end
    local text = type(err) == "table" and err.message or err
    t.match(text, "memory")
  end
  error("still failing after " .. MOST .. " allocations")
end

local operations = {
  together = function()
    local done = 0
    task.together(function(all)
      for _ = 1, 3 do
        all(function()
          task.sleep(0)
          done = done + 1
        end)
      end
    end)
    assert(done == 3, "memory: a task was lost")
  end,
  race = function()
    task.race {
      function()
        task.sleep(0)
      end,
      function()
        task.sleep(1)
      end,
    }
  end,
  timeout = function()
    assert(task.timeout(1, function()
      return true
    end))
  end,
  queue = function()
    local q = task.queue()
    task.together(function(all)
      all(function()
        q:put(1)
        q:close()
      end)
      q:get()
    end)
  end,
  event = function()
    task.event():wait(0.001)
  end,
  user_coroutine = function()
    coroutine.wrap(function()
      task.sleep(0)
    end)()
  end,
}

local names = {}
for name in pairs(operations) do
  names[#names + 1] = name
end
table.sort(names)

for _, name in ipairs(names) do
  t.test("memory_that_runs_out_in_" .. name .. "_is_an_error_and_no_more", function()
    operations[name]() -- what is made once is made now
    t.ok(torture(operations[name]) > 1)
    operations[name]()
  end)
end
