-- SPDX-License-Identifier: Apache-2.0
-- Large trees go window by window and come to the same as a plan: here a tree is large from three files on.
local t = require "eirun.test"
local bulk = require "eirun.oss.bulk"
local crypto = require "eirun.core.crypto"
local folder = require "lib_folder"
local fs = require "eirun.core.fs"
local scan = require "eirun.oss.scan"
local stream = require "eirun.oss.stream"
local sync = require "eirun.oss.sync"

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- A bucket of texts that answers pages of three and notes what is moved.
local function bucket(texts)
  local made = { name = "models", moved = {}, pictures = {} }
  function made:pages(opts)
    local keys, at = {}, 0
    for _, key in ipairs(sorted(texts)) do if key:sub(1, #opts.prefix) == opts.prefix then keys[#keys + 1] = key end end
    return function()
      if at >= #keys then return nil end
      local page = {}
      while #page < 3 and at < #keys do
        at = at + 1
        page[#page + 1] = { key = keys[at], size = #texts[keys[at]], etag = crypto.hex(crypto.md5(texts[keys[at]])):upper() }
      end
      return page
    end
  end
  function made:list(opts)
    local all = {}
    for page in self:pages(opts) do table.move(page, 1, #page, #all + 1, all) end
    return all, {}
  end
  function made:transfer(jobs, opts)
    local list = {}
    for job in jobs do
      list[#list + 1] = job
      self.moved[#self.moved + 1] = job.relative
    end
    self.left = { opts.expected.files, opts.expected.bytes }
    return { files = #list, bytes = 0, failed = {} }
  end
  return made
end

-- Windows of two; names whose order among folders is not that of a plain walk.
local function small_windows(body)
  local large, window, delete = stream.LARGE, stream.WINDOW, bulk.delete
  local gone = {}
  stream.LARGE, stream.WINDOW = 3, 2
  bulk.delete = function(_, keys)
    table.move(keys, 1, #keys, #gone + 1, gone)
    return {}
  end
  local ok, err = pcall(body, gone)
  stream.LARGE, stream.WINDOW, bulk.delete = large, window, delete
  if not ok then error(err, 0) end
end

local tree = { ["a/x"] = "1", ["a-b"] = "2", ["a.c"] = "3", ["a/b/deep"] = "4", ["a0"] = "5", z = "6", ["b/1"] = "7", ["b/2"] = "8" }

t.test("files_come_in_the_order_of_their_keys", function()
  local dir, names = folder(tree), {}
  for file in scan.each(dir) do names[#names + 1] = file.relative end
  fs.remove(dir, { recursive = true })
  t.eq(names, sorted(tree))
end)

t.test("a_folder_and_a_bucket_are_measured_and_small_ones_are_left_to_a_plan", function()
  small_windows(function()
    local dir, few = folder(tree), folder { one = "1", two = "2" }
    t.eq(stream.large_folder(dir), { files = 8, bytes = 8 })
    t.eq(stream.large_folder(few), nil)
    local list, totals = stream.listing(bucket { ["m/a"] = "1", ["m/b"] = "22" }, "m/")
    t.eq({ #list, totals }, { 2, { files = 2, bytes = 3 } })
    local none, many = stream.listing(bucket { ["m/1"] = "1", ["m/2"] = "2", ["m/3"] = "3", ["m/4"] = "4" }, "m/")
    t.eq({ none, many.files }, { nil, 4 })
    fs.remove(dir, { recursive = true })
    fs.remove(few, { recursive = true })
  end)
end)

t.test("an_upload_sends_what_differs_and_deletes_what_no_file_has", function()
  small_windows(function(gone)
    local dir = folder(tree)
    local there = { ["m/a-b"] = "2", ["m/a.c"] = "other", ["m/a/x"] = "1", ["m/a/y"] = "gone", ["m/0"] = "gone", ["m/zz"] = "gone",
      ["m/b/1"] = "7", ["mm"] = "not below" }
    local b = bucket(there)
    local report = stream.upload(b, dir, "m/", stream.large_folder(dir), { delete = true })
    t.eq(b.moved, { "a.c", "a/b/deep", "a0", "b/2", "z" })
    t.eq({ report.files, report.equal, report.deleted, b.left }, { 5, 3, 3, { 5, 5 } })
    t.eq(gone, { "m/0", "m/a/y", "m/zz" })
    local plan = sync.plan_upload(bucket(there), dir, "m/", { delete = true })
    local planned = {}
    for i, job in ipairs(plan.send) do planned[i] = job.relative end
    fs.remove(dir, { recursive = true })
    t.eq({ planned, sorted { [plan.delete[1]] = 1, [plan.delete[2]] = 1, [plan.delete[3]] = 1 } }, { b.moved, gone })
  end)
end)

t.test("a_download_fetches_what_differs_and_removes_what_no_object_is", function()
  small_windows(function()
    local objects = {}
    for name, text in pairs(tree) do objects["m/" .. name] = text end
    local dir = folder { ["a-b"] = "2", ["a/x"] = "old", ["a/more"] = "extra", ["0"] = "extra", zz = "extra", ["b/2"] = "8" }
    local b = bucket(objects)
    local report = stream.download(b, "m/", dir, { files = 8, bytes = 8 }, { delete = true })
    t.eq(b.moved, { "a.c", "a/b/deep", "a/x", "a0", "b/1", "z" })
    t.eq({ report.equal, report.deleted, b.left }, { 2, 3, { 6, 6 } })
    local left = {}
    for file in scan.each(dir) do left[#left + 1] = file.relative end
    fs.remove(dir, { recursive = true })
    t.eq(left, { "a-b", "a/x", "b/2" })
  end)
end)

t.test("filters_and_what_cannot_be_an_object_hold_in_windows_too", function()
  small_windows(function(gone)
    local dir = folder { ["1.pb"] = "1", ["2.txt"] = "2", ["3.pb"] = "3", ["4.pb"] = "4", ["5.pb"] = "5", ["bad\255.pb"] = "6" }
    local filter = { { "exclude", "*" }, { "include", "*.pb" } }
    local b = bucket { ["m/2.txt"] = "left alone", ["m/9.pb"] = "gone" }
    local report = stream.upload(b, dir, "m/", stream.large_folder(dir, filter), { delete = true, filter = filter })
    fs.remove(dir, { recursive = true })
    t.eq(b.moved, { "1.pb", "3.pb", "4.pb", "5.pb" })
    t.eq({ #report.failed, gone }, { 1, {} }, "nothing is deleted where something failed")
    t.match(report.failed[1].error.message, "UTF%-8")
  end)
end)
