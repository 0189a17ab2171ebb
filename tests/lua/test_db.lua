-- SPDX-License-Identifier: Apache-2.0
local db = require "eirun.core.db"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local t = require "eirun.test"

local function memory(sql)
  local d = assert(db.open("", { mode = "memory" }))
  assert(d:exec(sql or "create table x (a, b)"))
  return d
end

t.test("values_come_back_as_they_went_in", function()
  local d <close> = memory()
  local values = {
    0, -1, math.maxinteger, math.mininteger, 9007199254740993, 0.5, 3.0, -1e300, math.huge, "", "text",
    "é", "a\0b", "\255\0\1", ("x"):rep(100000),
  }
  for i, value in ipairs(values) do
    t.eq(d:run("insert into x values (?, ?)", i, value), 1)
    local got = d:row("select b from x where a = ?", i)
    t.eq(got, value)
    t.eq(math.type(got), math.type(value))
  end
end)

t.test("nil_and_null_are_null_and_booleans_are_numbers", function()
  local d <close> = memory()
  assert(d:run("insert into x values (?, ?)", nil, json.null))
  t.eq(d:row "select a is null and b is null from x", 1)
  t.eq(select("#", d:row "select a, b from x"), 2)
  t.eq(d:row("select ? + ?", true, false), 1)
end)

t.test("bytes_that_are_no_text_are_blobs", function()
  local d <close> = memory()
  t.eq(d:row("select typeof(?)", "\255"), "blob")
  t.eq(d:row("select typeof(?)", "é"), "text")
end)

t.test("rows_are_arrays_in_order_and_no_row_is_nothing", function()
  local d <close> = memory "create table x (a, b); insert into x values (1, 'one'), (2, null), (3, 'three')"
  t.eq(d:rows "select a, b from x order by a", { { 1, "one" }, { 2 }, { 3, "three" } })
  t.eq(d:rows "select a from x where a > 9", {})
  t.eq(select("#", d:row "select a from x where a > 9"), 0)
  local a, b = d:row "select a, b from x order by a desc"
  t.eq(a, 3)
  t.eq(b, "three")
end)

t.test("run_counts_what_it_changed", function()
  local d <close> = memory "create table x (a, b); insert into x values (1, 1), (2, 2), (3, 3)"
  t.eq(d:run "update x set b = 0 where a > 1", 2)
  t.eq(d:run "update x set b = 0 where a > 9", 0)
  t.eq(d:run "select 1", 0)
  t.eq(d:run "begin immediate", 0)
  t.eq(d:run "delete from x", 3)
  t.eq(d:run "rollback", 0)
  t.eq(d:row "select count(*) from x", 3)
end)

t.test("a_failure_has_sqlites_words_and_code", function()
  local d <close> = memory "create table x (a unique, b not null)"
  local function failure(...)
    local value, err = d:run(...)
    t.ok(value == nil)
    return err
  end
  assert(d:run("insert into x values (1, 1)"))
  local err = failure "insert into x values (1, 1)"
  t.eq(err.kind, "conflict")
  t.eq(err.code, "SQLITE_CONSTRAINT")
  t.eq(err.message, "UNIQUE constraint failed: x.a")
  t.ok(not err.retryable)
  t.eq(failure "insert into nowhere values (1)".message, "no such table: nowhere")
  t.eq(failure "insert into nowhere values (1)".kind, "invalid")
  t.match(failure "selec 1".message, "syntax error")
  t.match(failure 'select "a string"'.message, "no such column")
  t.match(failure "select 1; select 2".message, "more than one statement")
  t.match(failure "  -- nothing".message, "no statement")
  t.eq(select(2, d:exec "create table x (a)").message, "table x already exists")
  t.eq(select(2, d:rows "select abs(-9223372036854775808)").message, "integer overflow")
end)

t.test("a_script_stops_at_its_first_failure", function()
  local d <close> = memory()
  t.eq(d:exec "insert into x values (1, 1); -- a comment\n insert into x values (2, 2);  ", true)
  t.ok(not d:exec "insert into x values (3, 3); insert into y values (4); insert into x values (5, 5)")
  t.eq(d:row "select group_concat(a) from x", "1,2,3")
  t.eq(d:exec "", true)
end)

t.test("many_different_statements_and_the_same_one_again", function()
  local d <close> = memory()
  for round = 1, 2 do
    for i = 1, 200 do
      t.eq(d:row(("select %d + ?"):format(i), round), i + round)
    end
  end
  for i = 1, 1000 do
    t.eq(d:row("select ?", i), i)
  end
end)

t.test("a_statement_survives_a_changed_schema", function()
  local d <close> = memory()
  assert(d:run("insert into x values (1, 2)"))
  t.eq(d:rows "select * from x", { { 1, 2 } })
  assert(d:exec "alter table x add column c default 7")
  t.eq(d:rows "select * from x", { { 1, 2, 7 } })
end)

t.test("misuse_raises", function()
  local d = memory()
  t.ok(not pcall(d.run, d, "select ?"))
  t.ok(not pcall(d.run, d, "select ?", 1, 2))
  t.ok(not pcall(d.run, d, "select ?", {}))
  t.ok(not pcall(d.run, d, "select ?", print))
  t.ok(not pcall(d.run, d, "select 1\0"))
  t.ok(not pcall(d.run, d))
  t.ok(not pcall(db.open, "", { mode = "other" }))
  t.ok(not pcall(db.open, "", { mod = "memory" }))
  d:close()
  d:close()
  t.ok(not pcall(d.run, d, "select 1"))
end)

t.test("a_raise_in_the_middle_leaves_no_lock", function()
  local d <close> = memory "create table x (a); insert into x values (1), (2)"
  for _ = 1, 3 do
    t.ok(not pcall(d.row, d, "select ?, a from x"))
    t.ok(d:exec "create table y (a); drop table y")
  end
end)

local function in_folder(test)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-db-")
  local ok, err = pcall(test, dir .. "/x.db")
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

t.test("what_was_committed_is_there_for_the_next_opener", function()
  in_folder(function(path)
    do
      local d <close> = assert(db.open(path, { durable = false }))
      assert(d:exec "create table x (a); insert into x values (1); begin; insert into x values (2)")
    end
    local d <close> = assert(db.open(path, { mode = "read" }))
    t.eq(d:row "select group_concat(a) from x", "1")
    t.eq(d:row "pragma journal_mode", "wal")
    t.eq(fs.stat(path).mode & 63, 0)
    local _, err = d:run "insert into x values (3)"
    t.eq(err.kind, "denied")
    t.eq(err.code, "SQLITE_READONLY")
  end)
end)

t.test("durable_decides_how_far_a_commit_reaches", function()
  in_folder(function(path)
    local full <close> = assert(db.open(path))
    t.eq(full:row "pragma synchronous", 2)
    local off <close> = assert(db.open(path, { durable = false }))
    t.eq(off:row "pragma synchronous", 0)
  end)
end)

t.test("two_writers_conflict_and_may_try_again", function()
  in_folder(function(path)
    local one <close> = assert(db.open(path, { busy_timeout = 0 }))
    local two <close> = assert(db.open(path, { busy_timeout = 0 }))
    assert(one:exec "create table x (a); begin immediate; insert into x values (1)")
    local _, err = two:run "insert into x values (2)"
    t.eq(err.kind, "conflict")
    t.eq(err.code, "SQLITE_BUSY")
    t.ok(err.retryable)
    assert(one:exec "commit")
    t.eq(two:run "insert into x values (2)", 1)
  end)
end)

t.test("what_cannot_be_opened_says_which", function()
  local d, err = db.open "/nonexistent/folder/x.db"
  t.ok(d == nil)
  t.match(err.message, "^cannot open '/nonexistent/folder/x.db': ")
  in_folder(function(path)
    t.eq(select(2, db.open(path, { mode = "write" })).kind, "not_found")
    assert(fs.write(path, ("no database "):rep(1000)))
    t.match(select(2, db.open(path)).message, "file is not a database")
  end)
end)
