-- SPDX-License-Identifier: Apache-2.0
-- How a bucket is reached, and what names it takes, against the sandbox's OSS.
local fs = require "eirun.core.fs"
local oss = require "eirun.oss"
local reach = require "eirun.oss.reach"
local t = require "eirun.test"
local target = require "eirun.target"

local name = "eirun-sandbox-models"

local function with_sandbox(fn)
  return function()
    local dir = assert(fs.mkdtemp "/tmp/eirun-test-places-")
    local session = target.open({ sandbox = dir, clock = "virtual" }, { target = function() end })
    local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e) or e end)
    getmetatable(session).__close(session)
    fs.remove(dir, { recursive = true })
    if not ok then error(err, 0) end
  end
end

t.test("the_internal_endpoint_reaches_the_same_bucket_and_is_found_where_it_answers", with_sandbox(function()
  oss.bucket(name):put("a", "hello")
  t.eq(oss.bucket(name, { kind = "internal" }):get "a", "hello")
  t.eq(reach.internal(oss.bucket(name)), true)
  t.eq(reach.internal(oss.bucket(name, "cn-nowhere")), false)
end))

t.test("a_public_endpoint_wants_the_bucket_in_the_host_name", with_sandbox(function()
  local err = t.err("invalid", function() oss.bucket(name, { addressing = "path" }):list() end)
  t.eq(err.code, "SecondLevelDomainForbidden")
  t.match(err.hint, "bucket in the host name")
end))

t.test("a_bucket_of_another_region_says_which", with_sandbox(function()
  local err = t.err("invalid", function() oss.bucket(name, "cn-beijing"):list() end)
  t.match(err.hint, "in region cn%-hangzhou: give %-%-region cn%-hangzhou")
  t.match(tostring(err), "EC 0003%-00001403")
end))

t.test("both_signatures_are_taken", with_sandbox(function()
  oss.bucket(name, { signature = "v1" }):put("a", "one")
  t.eq(oss.bucket(name, { signature = "v4" }):get "a", "one")
end))

t.test("names_that_cannot_be_are_refused_before_anything_is_sent", with_sandbox(function()
  local bucket = oss.bucket(name)
  for _, key in ipairs { "", "/a", "\\a", "a\0b", "a/../b", "..", ("k"):rep(1024), "a\255" } do
    t.match(t.err("invalid", function() bucket:put(key, "x") end).message, "cannot be an object")
    t.match(t.err("invalid", function() bucket:copy("a", key) end).message, "cannot be an object")
    local report = bucket:transfer { { direction = "upload", key = key, path = "/proc/self/exe" }, }
    t.eq({ report.files, report.failed[1].error.kind }, { 0, "invalid" })
  end
  for _, bad in ipairs { "UPPER", "ab", "-a-", "a_b", ("x"):rep(64), "" } do t.err("invalid", function() oss.bucket(bad) end) end
  t.eq(bucket:list(), {})
end))

t.test("odd_names_go_through_everything", with_sandbox(function()
  local bucket = oss.bucket(name)
  local keys = { "rocket 🚀", "line\nbreak", "tab\there", ("k"):rep(1023), "a//b", "%2e%2e", "q?x=y#z", "模型/é", "a+b c&d",
    "\1control" }
  for _, key in ipairs(keys) do bucket:put(key, key) end
  local seen = {}
  for _, object in ipairs(bucket:list()) do seen[object.key] = object.size end
  for _, key in ipairs(keys) do t.eq({ key, seen[key], bucket:get(key) }, { key, #key, key }) end
  bucket:copy("line\nbreak", "copy of\nit")
  t.eq(bucket:get "copy of\nit", "line\nbreak")
  keys[#keys + 1] = "copy of\nit"
  t.eq({ bucket:delete_many(keys), (bucket:list()) }, { {}, {} })
end))

t.test("a_folder_is_synced_both_ways_and_what_fails_is_raised_after_the_rest", with_sandbox(function()
  local bucket, dir = oss.bucket(name), assert(fs.mkdtemp "/tmp/eirun-test-sync-")
  assert(fs.mkdir(dir .. "/a/deep", { parents = true }))
  assert(fs.write(dir .. "/a/deep/x", "hello"))
  assert(fs.write(dir .. "/a/y", "there"))
  t.eq(bucket:sync({ from = dir .. "/a", to = "s" }).files, 2)
  bucket:put("s/y/z", "in the way")
  local err = t.err("invalid", function() bucket:sync { from = "s", to = dir .. "/b", direction = "download" } end)
  t.eq({ err.report.files, #err.report.failed, fs.read(dir .. "/b/deep/x") }, { 2, 1, "hello" })
  bucket:delete "s/y/z"
  assert(fs.write(dir .. "/a/extra", "of nobody"))
  assert(fs.write(dir .. "/a/y", "other"))
  local again = bucket:sync { from = "s", to = dir .. "/a", direction = "download", delete = true }
  t.eq({ again.files, again.equal, again.deleted, fs.read(dir .. "/a/y"), (fs.stat(dir .. "/a/extra")) }, { 1, 1, 1, "there" })
  fs.remove(dir, { recursive = true })
end))
