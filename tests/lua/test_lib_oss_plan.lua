-- SPDX-License-Identifier: Apache-2.0
-- What is decided before anything is sent: names, globs, files of a folder, what is equal, what would be deleted.
local t = require "eirun.test"
local folder = require "lib_folder"
local fs = require "eirun.core.fs"
local glob = require "eirun.oss.glob"
local paths = require "eirun.oss.paths"
local scan = require "eirun.oss.scan"
local sync = require "eirun.oss.sync"

t.test("places_are_taken_apart_as_they_are_written", function()
  t.eq(paths.remote "oss://models/bert/3/", { bucket = "models", key = "bert/3/" })
  t.eq(paths.remote "oss://models", { bucket = "models", key = "" })
  t.eq(paths.remote "models/bert", nil)
  t.match(t.err("invalid", function() paths.remote "oss:///key" end).message, "names no bucket")
end)

t.test("keys_that_no_object_can_have_are_told_apart_from_odd_ones", function()
  for _, good in ipairs { "a", "a b+c", "模型/é.bin", "rocket 🚀", "a\nb", "a//b", "..a/b..", ("x"):rep(1023) } do
    t.eq({ good, paths.bad_key(good) }, { good })
  end
  for key, why in pairs { [""] = "at least one", ["/a"] = "does not begin", ["\\a"] = "does not begin", ["a\0b"] = "NUL",
    ["a\255"] = "UTF%-8",
    ["a/../b"] = "'..'", ["./a"] = "'.'", [".."] = "'..'", [("x"):rep(1024)] = "1023 bytes, this one has 1024" } do
    t.match(paths.bad_key(key) or "nothing wrong with " .. key, why)
  end
end)

t.test("names_cannot_write_to_the_terminal_what_they_like", function()
  t.eq(paths.show "a\27[2Jb\nc", "a\\x1b[2Jb\\x0ac")
  t.eq(paths.show "a\255", "a\\xff")
  t.eq(paths.show "模型 🚀", "模型 🚀")
end)

t.test("a_key_that_leads_out_of_the_folder_is_no_file", function()
  for _, bad in ipairs { "../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a\0b", ("x"):rep(256) } do
    t.ok(paths.bad_file(bad), "taken for a file: " .. paths.show(bad))
  end
  for _, good in ipairs { "a", "a/b", "a..b", "...", "a\nb" } do t.eq(paths.bad_file(good), nil) end
end)

local function fits(rules, name) return glob.filter(rules)(name) end

t.test("globs_choose_as_ossutil_does", function()
  local only_pb = { { "exclude", "*" }, { "include", "*.pb" } }
  t.eq({ fits(only_pb, "1/saved_model.pb"), fits(only_pb, "1/notes.txt") }, { true, false })
  local text_but_a = { { "include", "*.txt" }, { "exclude", "a*" } }
  t.eq({ fits(text_but_a, "b.txt"), fits(text_but_a, "a.txt"), fits(text_but_a, "b.bin") }, { true, false, false })
  t.eq({ fits({ { "exclude", "*.tmp" } }, "x/y.tmp"), fits({ { "exclude", "*.tmp" } }, "x/y.bin") }, { false, true })
  t.eq({ fits({ { "include", "v?/*" } }, "v1/a/b"), fits({ { "include", "v?/*" } }, "v10/a") }, { true, false })
  t.eq({ fits({ { "include", "[a-c]*" } }, "beta"), fits({ { "include", "[!a-c]*" } }, "beta") }, { true, false })
  t.eq({ fits({ { "include", "?.bin" } }, "é.bin"), fits({ { "include", "a.b" } }, "axb"), fits({ { "include", "100%[" } }, "100%[") },
    { true, false, true })
  t.err("invalid", function() glob.filter { { "include", "" } } end)
end)

local function run(...)
  return assert(require("eirun.core.process").run { ... })
end

t.test("a_folder_is_read_whole_and_a_link_that_leads_back_is_told", function()
  local dir = folder { ["a.txt"] = "1", ["b/c.txt"] = "22", ["b-c"] = "3" }
  run("/bin/ln", "-s", dir, dir .. "/b/up")
  run("/bin/ln", "-s", "nowhere", dir .. "/dangling")
  run("/usr/bin/mkfifo", dir .. "/pipe")
  local files, problems = scan.folder(dir)
  local names, whys = {}, {}
  for i, file in ipairs(files) do names[i] = file.relative .. "=" .. file.size end
  for i, row in ipairs(problems) do whys[i] = row.path:sub(#dir + 2) end
  table.sort(whys)
  fs.remove(dir, { recursive = true })
  t.eq({ names, whys }, { { "a.txt=1", "b-c=1", "b/c.txt=2" }, { "b/up", "dangling", "pipe" } })
end)

t.test("a_folder_that_is_a_file_or_is_not_there_is_said", function()
  local dir = folder { ["a.txt"] = "1" }
  local not_folder = t.err("invalid", function() scan.folder(dir .. "/a.txt") end)
  t.err("not_found", function() scan.folder(dir .. "/nothing") end)
  fs.remove(dir, { recursive = true })
  t.match(not_folder.message, "is not a folder")
end)

-- A bucket that answers listings and heads out of a table.
local function bucket(objects)
  local made = { name = "models", heads = 0 }
  function made.list(_, opts)
    local list = {}
    for key, object in pairs(objects) do
      if key:sub(1, #opts.prefix) == opts.prefix then
        list[#list + 1] = { key = key, size = object.size, etag = object.etag }
      end
    end
    table.sort(list, function(a, b) return a.key < b.key end)
    return list, {}
  end
  function made:head(key)
    self.heads = self.heads + 1
    return objects[key]
  end
  return made
end

local hello = { size = 5, etag = "5D41402ABC4B2A76B9719D911017C592", crc64 = 0x53600be67ee1c6be }

local function sent(plan)
  local list = {}
  for i, job in ipairs(plan.send) do list[i] = job.relative end
  return list
end

t.test("only_what_differs_is_sent_and_one_listing_tells_it", function()
  local dir = folder { same = "hello", shorter = "hell", other = "olleh", new = "x" }
  local b = bucket { ["m/same"] = hello, ["m/shorter"] = hello, ["m/other"] = hello, ["m/gone"] = hello, ["mx"] = hello }
  local plan = sync.plan_upload(b, dir, "m/", { delete = true })
  fs.remove(dir, { recursive = true })
  t.eq({ sent(plan), plan.same, plan.delete, plan.bytes, b.heads, plan.found },
    { { "new", "other", "shorter" }, 1, { "m/gone" }, 10, 0, 4 })
end)

t.test("an_etag_of_parts_that_tells_nothing_costs_one_head", function()
  local crypto = require "eirun.core.crypto"
  local dir = folder { same = "hello", other = "olleh" }
  local parts = { size = 5, etag = "B864DB6A936D376F9F8D3ED3BBE540DD-3", crc64 = crypto.crc64 "hello" }
  local b = bucket { ["m/same"] = parts, ["m/other"] = parts }
  local plan = sync.plan_upload(b, dir, "m/")
  fs.remove(dir, { recursive = true })
  t.eq({ sent(plan), plan.same, b.heads, plan.delete }, { { "other" }, 1, 2, {} })
end)

t.test("an_empty_source_deletes_nothing_unless_told", function()
  local dir = folder {}
  local plan = sync.plan_upload(bucket { ["m/a"] = hello, ["m/b"] = hello }, dir, "m/", { delete = true })
  fs.remove(dir, { recursive = true })
  local err = t.err("denied", function() sync.check_delete(plan) end)
  t.eq({ err.code, plan.delete }, { "guard", { "m/a", "m/b" } })
  t.match(err.message, "would delete all 2 objects")
  sync.check_delete(plan, true)
end)

t.test("what_a_filter_leaves_out_is_not_deleted_either", function()
  local dir = folder { ["a.pb"] = "hello" }
  local b = bucket { ["m/a.pb"] = hello, ["m/b.txt"] = hello, ["m/c.pb"] = hello }
  local plan = sync.plan_upload(b, dir, "m/", { delete = true, filter = { { "include", "*.pb" } } })
  fs.remove(dir, { recursive = true })
  t.eq({ plan.same, plan.delete }, { 1, { "m/c.pb" } })
end)

t.test("a_download_refuses_names_that_lead_out_and_takes_the_rest", function()
  local dir = folder {}
  local b = bucket { ["m/ok"] = hello, ["m/../../etc/x"] = hello, ["m/a"] = hello, ["m/a/b"] = hello, ["m/folder/"] = hello }
  local plan = sync.plan_download(b, "m/", dir)
  fs.remove(dir, { recursive = true })
  local whys = {}
  for i, row in ipairs(plan.problems) do whys[i] = row.error.message end
  table.sort(whys)
  t.eq(sent(plan), { "a/b", "ok" })
  t.eq(#whys, 2)
  t.match(whys[1], "leads out of the folder")
  t.match(whys[2], "'m/a' is an object and a folder of others")
end)

t.test("one_place_inside_the_other_is_refused", function()
  t.err("invalid", function() sync.plan_copy(bucket {}, "a/", bucket {}, "a/b/") end)
end)
