-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local task = require "eirun.task"

-- Real time here: the numbers are small and only their order matters.
local S = 0.01

t.test("together_runs_side_by_side_and_waits_for_all", function()
  local order = {}
  local from = task.now()
  task.together(function(all)
    for i = 3, 1, -1 do
      all(function()
        task.sleep(i * S)
        order[#order + 1] = i
      end)
    end
  end)
  t.eq(order, { 1, 2, 3 })
  t.ok(task.now() - from >= 3 * S)
end)

t.test("together_raises_the_first_error_after_the_others_ended", function()
  local ended
  local err = t.err("boom", task.together, function(all)
    all(function()
      local ok, err = pcall(task.sleep, 10)
      t.eq(ok, false)
      t.eq(err.kind, "cancelled")
      ended = true
    end)
    task.sleep(S)
    error("boom")
  end)
  t.ok(ended)
  t.eq(err.kind, "internal")
  t.match(err.traceback, "test_task")
end)

t.test("errors_that_are_more_than_the_cancel_become_causes", function()
  local err = t.err("network", task.together, function(all)
    all(function()
      pcall(task.sleep, 10)
      error({ kind = "conflict", message = "second" })
    end)
    task.sleep(S)
    error({ kind = "network", message = "first" })
  end)
  t.eq(err.kind, "network")
  t.eq(#err.causes, 1)
  t.eq(err.causes[1].kind, "conflict")
end)

t.test("cancel_is_sticky", function()
  local kinds = {}
  t.err("timeout", task.timeout, S, function()
    for _ = 1, 3 do
      local _, err = pcall(task.sleep, 10)
      kinds[#kinds + 1] = err.kind
    end
  end)
  t.eq(kinds, { "timeout", "timeout", "timeout" })
end)

t.test("timeout_returns_what_the_function_returned", function()
  local a, b, c = task.timeout(10, function(x)
    return x, nil, 3
  end, 1)
  t.eq(a, 1)
  t.eq(b, nil)
  t.eq(c, 3)
end)

t.test("timeout_raises_even_when_the_function_swallowed_the_cancel", function()
  t.err("timeout", task.timeout, S, function()
    pcall(task.sleep, 10)
    return "fine"
  end)
end)

t.test("race_returns_the_first_and_cancels_the_rest", function()
  local cancelled
  local winner = task.race {
    function()
      local _, err = pcall(task.sleep, 10)
      cancelled = err.kind
    end,
    function()
      task.sleep(S)
      return "fast"
    end,
  }
  t.eq(winner, "fast")
  t.eq(cancelled, "cancelled")
end)

t.test("race_raises_when_the_first_to_finish_failed", function()
  t.err("boom", task.race, {
    function()
      error("boom")
    end,
    function()
      task.sleep(10)
    end,
  })
end)

t.test("shield_lets_clean_up_wait_although_cancelled", function()
  local cleaned
  t.err("timeout", task.timeout, S, function()
    local _ <close> = setmetatable({}, {
      __close = function()
        task.shield(1, function()
          task.sleep(S)
          cleaned = true
        end)
      end,
    })
    task.sleep(10)
  end)
  t.ok(cleaned)
end)

t.test("shield_has_a_bound_of_its_own", function()
  t.err("timeout", task.shield, S, function()
    task.sleep(10)
  end)
end)

t.test("a_busy_loop_is_timed_out", function()
  t.err("timeout", task.timeout, 0.1, function()
    while true do
    end
  end)
end)

t.test("a_busy_loop_in_pcalls_in_a_coroutine_is_timed_out", function()
  t.err("timeout", task.timeout, 0.1, function()
    coroutine.wrap(function()
      while true do
        pcall(function()
          while true do
          end
        end)
      end
    end)()
  end)
end)

t.test("user_coroutines_work_around_blocking_calls", function()
  local gen = coroutine.wrap(function(a)
    task.sleep(S)
    local b = coroutine.yield(a + 1)
    task.sleep(S)
    return b * 2
  end)
  t.eq(gen(1), 2)
  t.eq(gen(21), 42)
end)

t.test("nested_user_coroutines_pass_the_wait_up_and_a_cancel_down", function()
  local seen
  t.err("timeout", task.timeout, S, function()
    coroutine.wrap(function()
      coroutine.wrap(function()
        local ok, err = pcall(task.sleep, 10)
        seen = not ok and err.kind
        error(err)
      end)()
    end)()
  end)
  t.eq(seen, "timeout")
end)

t.test("yield_outside_a_coroutine_is_misuse", function()
  t.err("outside a coroutine", function()
    coroutine.yield(1)
  end)
end)

t.test("waiting_inside_a_c_function_names_it", function()
  t.err("table.sort", table.sort, { 3, 2, 1 }, function(a, b)
    task.sleep(0)
    return a < b
  end)
end)

t.test("waiting_while_a_module_loads_is_named", function()
  package.preload["test.blocking"] = function()
    task.sleep(0)
  end
  t.err("require", require, "test.blocking")
end)

t.test("map_keeps_order_and_limit", function()
  local running, most = 0, 0
  local results = task.map({ 5, 4, 3, 2, 1 }, function(x)
    running = running + 1
    most = math.max(most, running)
    task.sleep(x * S / 5)
    running = running - 1
    return x * x
  end, 2)
  t.eq(results, { 25, 16, 9, 4, 1 })
  t.eq(most, 2)
end)

t.test("queue_hands_over_in_order_and_ends_when_closed", function()
  local q, got = task.queue(), {}
  task.together(function(all)
    all(function()
      for i = 1, 3 do
        task.sleep(S / 5)
        q:put(i)
      end
      q:close()
    end)
    local value = q:get()
    while value do
      got[#got + 1] = value
      value = q:get()
    end
  end)
  t.eq(got, { 1, 2, 3 })
end)

t.test("event_wait_has_a_time_limit", function()
  local event = task.event()
  t.eq(event:wait(S), false)
  event:set()
  t.eq(event:wait(S), true)
end)

t.test("context_is_inherited_by_children", function()
  task.together(function(all)
    task.context { step = "a" }
    all(function()
      t.eq(task.context().step, "a")
    end)
  end)
end)

t.test("a_scope_that_is_left_by_an_error_ends_its_tasks", function()
  local core = require "eirun.core.task"
  local ended
  local child = task.event()
  pcall(function()
    local scope <close> = core.scope()
    scope:spawn(function()
      ended = select(2, pcall(task.sleep, 10)).kind
      child:set()
    end)
    task.sleep(S)
    error("left")
  end)
  t.ok(child:wait(1))
  t.eq(ended, "cancelled")
end)

t.test("os_has_no_way_out_and_chunks_are_text", function()
  t.eq(os.execute, nil)
  t.eq(io, nil)
  t.eq(package.loadlib, nil)
  t.eq(load(string.dump(function() end)), nil)
end)
