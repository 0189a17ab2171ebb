-- SPDX-License-Identifier: Apache-2.0
-- Lua tests, ours and a user's own: `eirun test DIR|FILE [FILTER]`.
local core_clock = require "eirun.core.clock"
local getenv = require("eirun.core.os").getenv
local task = require "eirun.task"
local testing = require "eirun.core.testing"
local vm = require "eirun.core.vm"

---@class eirun.test
local t = {}

local tests = {} -- {file, name, fn}
local current_file

-- No test may take longer than this on the run's clock, nor (the host's hook sees to it) spin that long.
-- EIRUN_TEST_SECONDS gives tests of slow things more.
local LIMIT = core_clock.kind() == "virtual" and 86400 or tonumber(getenv "EIRUN_TEST_SECONDS" or 60)

--- Declares a test. It runs in a task of its own and may wait.
---@param name string what the code does, in words joined by _
---@param fn fun()
--- Example: `t.test("adds", function() t.eq(1 + 1, 2) end)`
--- What `fn` raises, or a handle that it leaves open, fails the test; `test` itself raises nothing.
function t.test(name, fn)
  tests[#tests + 1] = { file = current_file, name = name, fn = fn }
end

--- Declares a test that cannot run here, with the reason; it is counted as skipped.
---@param name string
---@param why string
--- Example: `t.skip("reads_a_gpu", "no GPU on this machine")`. Raises nothing.
function t.skip(name, why)
  tests[#tests + 1] = { file = current_file, name = name, why = why }
end

local LEFT = {} -- what a test raises that finds out that it cannot run here

--- Ends the running test with a reason; it is counted as skipped.
---@param why string
--- Example: `if not gpu then t.leave "no GPU on this machine" end`. Raises, which ends the test.
function t.leave(why)
  error(setmetatable({ why = why }, LEFT), 0)
end

local function sorted_keys(value)
  local keys = {}
  for key in pairs(value) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b)
    return tostring(a) < tostring(b)
  end)
  return keys
end

local function show(value, depth)
  if type(value) == "string" then
    return string.format("%q", value)
  elseif type(value) ~= "table" or (depth or 0) > 4 then
    return tostring(value)
  end
  local parts = {}
  for _, key in ipairs(sorted_keys(value)) do
    parts[#parts + 1] = (type(key) == "string" and key or "[" .. tostring(key) .. "]") .. "=" .. show(value[key], (depth or 0) + 1)
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- Where a and b first differ: a path and the two values, or nil.
local function difference(a, b, path)
  if type(a) ~= "table" or type(b) ~= "table" then
    if a ~= b or math.type(a) ~= math.type(b) then
      return path, a, b
    end
    return nil
  end
  for _, key in ipairs(sorted_keys(a)) do
    local where, left, right = difference(a[key], b[key], path .. "." .. tostring(key))
    if where then
      return where, left, right
    end
  end
  for _, key in ipairs(sorted_keys(b)) do
    if a[key] == nil then
      return path .. "." .. tostring(key), nil, b[key]
    end
  end
end

local function fail(message, level)
  error(message, (level or 1) + 2)
end

--- Fails unless both are equal; tables by content, 1 and 1.0 differ.
---@param actual any
---@param expected any
---@param what? string named in the failure
--- Example: `t.eq(json.decode "[1]", { 1 })`. Raises the first difference, with its path.
function t.eq(actual, expected, what)
  local path, left, right = difference(actual, expected, "value")
  if path then
    fail(string.format("%s%s is %s, not %s", what and what .. ": " or "", path, show(left), show(right)))
  end
end

--- Fails unless the value is true-ish; returns it.
---@param value any
---@param what? string named in the failure
---@return any value
--- Example: `t.ok(#pods > 0, "pods")`. Raises when it is false or nil.
function t.ok(value, what)
  if not value then
    fail((what or "value") .. " is " .. tostring(value))
  end
  return value
end

--- Fails unless `text` contains the Lua pattern.
---@param text string
---@param pattern string
--- Example: `t.match(err.message, "no stock")`. Raises when it does not.
function t.match(text, pattern)
  if type(text) ~= "string" or not text:find(pattern) then
    fail(string.format("%s does not match %q", show(text), pattern))
  end
end

--- Fails unless fn raises; `kind` is an error kind, or a pattern that its message matches. Returns the error.
---@param kind string
---@param fn fun()
---@return any err what was raised
--- Example: `t.err("invalid", oss.bucket, "No Bucket")`. Raises when nothing was raised, or something else.
function t.err(kind, fn, ...)
  local ok, err = pcall(fn, ...)
  if ok then
    fail("no error was raised, expected: " .. kind)
  end
  local matches = type(err) == "table" and err.kind == kind or tostring(err):find(kind)
  if not matches then
    fail(string.format("raised %q (kind %s), expected: %s", tostring(err), type(err) == "table" and tostring(err.kind) or "-", kind))
  end
  return err
end

-- Handles that a test left open after a collection and a few turns of the loop.
local function leaked_handles(before)
  for _ = 1, 20 do
    collectgarbage()
    if testing.handles() <= before then
      return nil
    end
    task.sleep(0.005)
  end
  return testing.handles() - before
end

local function run_one(test)
  local before = testing.handles()
  local ok, err = xpcall(task.timeout, function(e)
    if type(e) == "string" then
      return { message = e, traceback = debug.traceback("", 2) }
    end
    return e
  end, LIMIT, test.fn)
  local leaked = leaked_handles(before)
  if ok and leaked then
    return false, { message = leaked .. " handles are still open after the test" }
  end
  return ok, err
end

-- A file that cannot be loaded is one failed test; the others still run.
local function load_tests(dir, name, file)
  current_file = file
  vm.set_playbook_dir(dir)
  local ok, err = pcall(require, name)
  if not ok then
    t.test("loads", function()
      error(err, 0)
    end)
  end
end

local function load_all(path)
  local dir, name = path:match("^(.-)/?([^/]+)%.lua$")
  if name then
    load_tests(dir == "" and "." or dir, name, path)
    return
  end
  for _, entry in ipairs(assert(require("eirun.core.fs").list(path))) do
    local module = entry:match("^(test_.*)%.lua$")
    if module then
      load_tests(path, module, path .. "/" .. entry)
    end
  end
end

--- Runs the tests of a folder (files test_*.lua) or of one file; prints failures and a closing line of counts.
---@param path string
---@param filter? string plain text that a test's name must contain
---@return integer exit_code 0, or 1 when one failed or none ran
--- Example: `eirun test tests/lua threshold` runs it from the command line. Raises when the folder cannot be read.
function t.run(path, filter)
  load_all(path)
  local passed, failed, skipped = 0, 0, 0
  for _, test in ipairs(tests) do
    if filter and not test.name:find(filter, 1, true) then
      goto continue
    end
    if test.why then
      skipped = skipped + 1
      print("SKIPPED " .. test.name .. ": " .. test.why)
      goto continue
    end
    local started = core_clock.monotonic()
    local ok, err = run_one(test)
    if ok then
      passed = passed + 1
    elseif getmetatable(err) == LEFT then
      skipped = skipped + 1
      print("SKIPPED " .. test.name .. ": " .. err.why)
    elseif type(err) == "table" and err.kind == "cancelled" and err.message == "interrupted" then
      error(err, 0)
    else
      failed = failed + 1
      print(string.format("failed: %s: %s\n  %s", test.file, test.name, type(err) == "table" and err.message or tostring(err)))
      if type(err) == "table" and err.traceback then
        print((err.traceback:gsub("\n", "\n  ")))
      end
    end
    local seconds = core_clock.monotonic() - started
    if seconds > 5 then
      print(string.format("slow: %s took %.1f s", test.name, seconds))
    end
    ::continue::
  end
  if passed + failed + skipped == 0 then
    print(#tests == 0 and ("no tests: %s holds no file test_*.lua with one"):format(path)
      or ("no tests: none of the %d in %s has %q in its name"):format(#tests, path, filter))
  end
  print(string.format("%d passed, %d failed, %d skipped", passed, failed, skipped))
  return (failed > 0 or passed == 0) and 1 or 0
end

return t
