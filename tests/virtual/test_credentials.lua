-- SPDX-License-Identifier: Apache-2.0
-- How keys age: renewed ahead of time, once for all who wait, and a renewal that fails does no harm while the old ones are good.
local t = require "eirun.test"
local credentials = require "eirun.credentials"
local errors = require "eirun.errors"
local secret = require "eirun.core.secret"
local task = require "eirun.task"

local function source(life)
  local state = { fetches = 0 }
  state.keys = credentials.dynamic(function()
    state.fetches = state.fetches + 1
    local number = state.fetches
    task.sleep(2)
    if state.fail then errors.raise("network", "STS does not answer") end
    return { access_key_id = "id" .. number, access_key_secret = secret.new "s", source = "test", expires = task.now() + life }
  end)
  return state
end

t.test("many_tasks_share_one_fetch", function()
  local state, seen = source(3600), {}
  task.together(function(all)
    for i = 1, 50 do all(function() seen[i] = state.keys:get().access_key_id end) end
  end)
  t.eq({ #seen, seen[1], seen[50], state.fetches }, { 50, "id1", "id1", 1 })
end)

t.test("keys_are_renewed_a_quarter_of_an_hour_ahead", function()
  local state = source(3600)
  state.keys:get()
  task.sleep(2600)
  t.eq(state.keys:get().access_key_id, "id1")
  task.sleep(150)
  t.eq(state.keys:get().access_key_id, "id2")
  t.eq(state.fetches, 2)
end)

t.test("who_has_keys_that_still_do_need_not_wait_for_the_new_ones", function()
  local state = source(3600)
  state.keys:get()
  task.sleep(3000)
  local began, took = task.now(), nil
  task.together(function(all)
    all(function() state.keys:get() end)
    all(function()
      task.sleep(1)
      t.eq(state.keys:get().access_key_id, "id1")
      took = task.now() - began
    end)
  end)
  t.ok(took < 1.5, "the second task waited " .. took .. " s")
  t.eq(state.fetches, 2)
end)

t.test("a_renewal_that_fails_leaves_the_old_keys_in_use_until_they_expire", function()
  local state = source(3600)
  state.keys:get()
  task.sleep(2800)
  state.fail = true
  for _ = 1, 20 do t.eq(state.keys:get().access_key_id, "id1") end
  t.eq(state.fetches, 2)
  task.sleep(70)
  t.eq({ state.keys:get().access_key_id, state.fetches }, { "id1", 3 })
  task.sleep(800)
  local err = t.err("network", function() state.keys:get() end)
  t.eq(err.message, "STS does not answer")
  state.fail = false
  t.match(state.keys:get().access_key_id, "^id%d+$")
end)

t.test("a_fetch_whose_task_is_stopped_is_taken_over_by_another", function()
  local state = source(3600)
  local got
  task.together(function(all)
    all(function() pcall(task.timeout, 1, function() state.keys:get() end) end)
    all(function()
      task.sleep(0.5)
      got = state.keys:get().access_key_id
    end)
  end)
  t.eq({ got, state.fetches }, { "id2", 2 })
end)

t.test("short_lives_are_renewed_in_their_last_quarter", function()
  local state = source(900)
  state.keys:get()
  task.sleep(600)
  t.eq(state.keys:get().access_key_id, "id1")
  task.sleep(100)
  t.eq(state.keys:get().access_key_id, "id2")
end)
