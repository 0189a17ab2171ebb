-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local jobs = require "sandbox.jobs"
local store = require "sandbox.store"
local task = require "eirun.core.task"

local function with_store(fn)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(fn, dir .. "/state.db")
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

local function open(path, now) return assert(store.open(path, now or function() return 1000 end)) end

local function keys(s, kind)
  local list = {}
  for key in s:each(kind) do list[#list + 1] = key end
  return list
end

t.test("what_was_put_is_there_after_reopening", function()
  with_store(function(path)
    local s = open(path)
    s:put("pool", "b", { name = "b", list = { 1, 2 } })
    s:put("pool", "a", { name = "a" })
    s:put("pool", "c", { name = "c" })
    s:delete("pool", "c")
    s:close()
    local again = open(path)
    t.eq(keys(again, "pool"), { "a", "b" })
    t.eq(again:get("pool", "b").list, { 1, 2 })
    t.eq(again:get("meta", "clock"), 1000)
    again:close()
  end)
end)

t.test("a_failed_transaction_leaves_nothing", function()
  with_store(function(path)
    local s = open(path)
    s:put("pool", "a", { n = 1 })
    local ok, err = pcall(s.tx, s, function()
      local a = s:get("pool", "a")
      a.n = 2
      s:put("pool", "a", a)
      s:put("pool", "b", { n = 3 })
      error("no", 0)
    end)
    t.eq({ ok, err }, { false, "no" })
    t.eq({ s:get("pool", "a").n, s:get("pool", "b") }, { 1 })
    t.eq(keys(s, "pool"), { "a" })
    s:close()
  end)
end)

t.test("one_transaction_is_one_commit_and_inner_ones_join", function()
  with_store(function(path)
    local s = open(path)
    local heard = 0
    local result = s:tx(function()
      s:put("pool", "a", {})
      s:tx(function() s:put("pool", "b", {}) end)
      s:after_commit(function() heard = s:count "pool" end)
      t.eq(heard, 0)
      return "made"
    end)
    t.eq({ result, heard }, { "made", 2 })
    s:close()
  end)
end)

t.test("a_transaction_that_blocks_is_caught", function()
  with_store(function(path)
    local s = open(path)
    local scope = task.scope()
    local other
    scope:spawn(function()
      s:tx(function()
        s:put("pool", "a", {})
        task.sleep(0.05)
      end)
    end)
    scope:spawn(function() other = { pcall(s.put, s, "pool", "b", {}) } end)
    scope:join()
    t.eq(other[1], false)
    t.match(tostring(other[2]), "must not block")
    s:close()
  end)
end)

t.test("walking_survives_deletes", function()
  with_store(function(path)
    local s = open(path)
    for i = 1, 5 do s:put("n", tostring(i), { i }) end
    local seen = {}
    for key in s:each "n" do
      seen[#seen + 1] = key
      if key == "2" then
        s:delete("n", "3")
        s:put("n", "0", {})
      end
    end
    t.eq(seen, { "1", "2", "4", "5" })
    s:close()
  end)
end)

local function no_log() end

t.test("jobs_run_in_the_order_of_time_then_of_making", function()
  with_store(function(path)
    local now, order = 100, {}
    local s = open(path, function() return now end)
    local j = jobs.new(s, function() return now end, no_log)
    j:handle("note", function(data) order[#order + 1] = data.name end)
    j:at(120, "note", { name = "late" })
    j:at(110, "note", { name = "first" })
    j:at(110, "note", { name = "second" })
    local dropped = j:at(105, "note", { name = "dropped" })
    j:cancel(dropped)
    t.eq(j:run_due(), false)
    now = 115
    while j:run_due() do end
    t.eq(order, { "first", "second" })
    s:close()
  end)
end)

t.test("jobs_survive_the_process_and_failures_are_logged_once", function()
  with_store(function(path)
    local now = 100
    local s = open(path, function() return now end)
    jobs.new(s, function() return now end, no_log):at(110, "note", { name = "kept" })
    jobs.new(s, function() return now end, no_log):at(111, "bad", {})
    s:close()
    s = open(path, function() return now end)
    local ran, logged = {}, {}
    local j = jobs.new(s, function() return now end, function(_, format, ...) logged[#logged + 1] = format:format(...) end)
    j:handle("note", function(data) ran[#ran + 1] = data.name end)
    j:handle("bad", function()
      s:put("trace", "left", {})
      error "broken"
    end)
    now = 200
    while j:run_due() do end
    t.eq(ran, { "kept" })
    t.eq(#logged, 1)
    t.match(logged[1], "broken")
    t.eq({ s:get("trace", "left"), s:count "job" }, { [2] = 0 })
    s:close()
  end)
end)

t.test("a_start_clears_what_has_had_its_time", function()
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ctx = require("sandbox.world").new { dir = dir }
  local now, month = ctx.now(), 31 * 86400
  ctx.store:put("task", "old", { ended = now - month })
  ctx.store:put("task", "young", { ended = now - 10 })
  ctx.store:put("task", "running", {})
  ctx.store:put("kube_token", "gone", { user = "u", expires = now - 1 })
  ctx.store:put("kube_token", "lasting", { user = "u" })
  ctx.store:close()
  assert(fs.write(dir .. "/sandbox.log", ("x"):rep(5 << 20)))
  ctx = require("sandbox.world").new { dir = dir }
  t.eq({ keys(ctx.store, "task"), keys(ctx.store, "kube_token") }, { { "running", "young" }, { "lasting" } })
  t.eq({ fs.stat(dir .. "/sandbox.log"), fs.stat(dir .. "/sandbox.log.1").size }, { nil, 5 << 20 })
  ctx.store:close()
  fs.remove(dir, { recursive = true })
end)
