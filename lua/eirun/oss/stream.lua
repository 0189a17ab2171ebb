-- SPDX-License-Identifier: Apache-2.0
-- Trees that are too large for a plan: both sides are gone through in the order of their keys, a window of files at a time, while what
-- was decided is on its way. Memory does not grow with the number of files, but for the names that are to be deleted.
local bulk = require "eirun.oss.bulk"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local glob = require "eirun.oss.glob"
local scan = require "eirun.oss.scan"
local sync = require "eirun.oss.sync"

local M = {}

M.LARGE = 10000 -- files above which a tree is not planned as a whole
M.WINDOW = 2000

---@class eirun.TreeTotals
---@field files integer
---@field bytes integer

local function is_large(totals) return totals.files > M.LARGE end

---How much a folder holds, when that is too much for a plan; else nil.
---@param folder string
---@param filter? table
---@return eirun.TreeTotals|nil
---Example: `if stream.large_folder "models" then … end`. Raises as `scan.each`.
function M.large_folder(folder, filter)
  local totals = { files = 0, bytes = 0 }
  for file in scan.each(folder, glob.filter(filter)) do
    totals.files, totals.bytes = totals.files + 1, totals.bytes + file.size
  end
  return is_large(totals) and totals or nil
end

---The objects below a prefix, or how much they are when that is too much for a plan.
---@param bucket eirun.Bucket
---@param prefix string
---@return eirun.Object[]|nil objects
---@return eirun.TreeTotals totals
---Example: `local objects = stream.listing(bucket, "models/")`. Raises as `bucket:list`.
function M.listing(bucket, prefix)
  local list, totals = {}, { files = 0, bytes = 0 }
  for objects in bucket:pages { prefix = prefix } do
    for _, object in ipairs(objects) do
      totals.files, totals.bytes = totals.files + 1, totals.bytes + object.size
      if list then list[#list + 1] = object end
    end
    if is_large(totals) then list = nil end
  end
  return list, totals
end

-- Going through one side ------------------------------------------------------------------------------------------------

-- Objects one by one with their names below the prefix.
local function each_object(bucket, listing, prefix, wanted)
  local next_page, page, at = bucket:pages { prefix = listing }, {}, 0
  return function()
    while page do
      at = at + 1
      local object = page[at]
      if not object then
        page, at = next_page(), 0
      else
        local relative = object.key:sub(#prefix + 1)
        if relative ~= "" and relative:sub(-1) ~= "/" and wanted(relative) then return { relative = relative, object = object } end
      end
    end
  end
end

-- A side that is taken from in windows, or up to a name.
local function side(next_entry)
  local ahead = next_entry()
  local function take()
    local entry = ahead
    if entry then ahead = next_entry() end
    return entry
  end
  return {
    window = function(most)
      local list = {}
      while #list < most do
        local entry = take()
        if not entry then break end
        list[#list + 1] = entry
      end
      return list
    end,
    upto = function(last)
      local list = {}
      while ahead and (not last or ahead.relative <= last) do list[#list + 1] = take() end
      return list
    end,
  }
end

local function objects_by_name(entries)
  local map = {}
  for _, entry in ipairs(entries) do map[entry.relative] = entry.object end
  return map
end

-- Moving ------------------------------------------------------------------------------------------------------------------

-- Jobs of one window after the other; nil from the last one on.
local function jobs_of(next_window)
  local jobs, at = {}, 0
  return function()
    while jobs do
      at = at + 1
      if jobs[at] then return jobs[at] end
      jobs, at = next_window(), 0
    end
  end
end

local chosen = { "jobs", "parallel", "part_size", "bandwidth_limit", "on_progress", "resume" }

local function transfer(bucket, state, next_window, opts)
  local given = { expected = state.expected }
  for _, name in ipairs(chosen) do given[name] = opts[name] end
  local report = bucket:transfer(jobs_of(next_window), given)
  report.equal, report.deleted = state.same, 0
  table.move(state.problems, 1, #state.problems, #report.failed + 1, report.failed)
  return report
end

-- What was equal is no longer expected to move.
local function account(state, plan)
  state.same = state.same + plan.same
  state.expected.files, state.expected.bytes = state.expected.files - plan.same, state.expected.bytes - plan.same_bytes
  table.move(plan.problems, 1, #plan.problems, #state.problems + 1, state.problems)
  return plan.send
end

local function new_state(totals)
  return { same = 0, problems = {}, delete = {}, expected = { files = totals.files, bytes = totals.bytes } }
end

local function names_of(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

---Sends a folder of any size; what is equal is left alone.
---@param bucket eirun.Bucket
---@param folder string
---@param prefix string
---@param totals eirun.TreeTotals of the folder
---@param opts? table of `eirun.SyncOptions` and of a transfer
---@return eirun.TransferReport
---Example: `stream.upload(bucket, "models", "models/", stream.large_folder "models")`. Raises as `scan.each` and `bucket:list`; what fails
---is listed.
function M.upload(bucket, folder, prefix, totals, opts)
  opts = opts or {}
  local wanted, state = glob.filter(opts.filter), new_state(totals)
  local next_file, unreadable = scan.each(folder, wanted)
  local files, objects = side(next_file), side(each_object(bucket, prefix, prefix, wanted))
  local function leave(there)
    if not opts.delete then return end
    for _, name in ipairs(names_of(there)) do state.delete[#state.delete + 1] = prefix .. name end
  end
  local report = transfer(bucket, state, function()
    local window = files.window(M.WINDOW)
    if #window == 0 then return leave(objects_by_name(objects.upto(nil))) end
    local there = objects_by_name(objects.upto(window[#window].relative))
    local plan = sync.new_plan "objects"
    sync.match_files(plan, bucket, window, there, prefix, opts)
    leave(there)
    return account(state, plan)
  end, opts)
  table.move(unreadable, 1, #unreadable, #report.failed + 1, report.failed)
  if #report.failed > 0 or #state.delete == 0 then return report end
  report.failed = bulk.delete(bucket, state.delete)
  report.deleted = #state.delete - #report.failed
  return report
end

---Fetches a prefix of any size; what is equal is left alone.
---@param bucket eirun.Bucket
---@param prefix string names begin after it
---@param folder string
---@param totals eirun.TreeTotals of the objects
---@param opts? table of `eirun.SyncOptions` and of a transfer, and `listing`: the prefix that is listed, where it is longer
---@return eirun.TransferReport
---Example: `stream.download(bucket, "models/", "/tmp/models", totals)`. Raises as `bucket:list`; what fails is listed.
function M.download(bucket, prefix, folder, totals, opts)
  opts = opts or {}
  local wanted, state = glob.filter(opts.filter), new_state(totals)
  errors.check(fs.mkdir(folder, { parents = true, mode = tonumber("755", 8) }))
  local objects = side(each_object(bucket, opts.listing or prefix, prefix, wanted))
  local files = opts.delete and side(scan.each(folder, wanted)) or nil
  local function leave(entries, objects_there)
    for _, file in ipairs(entries) do
      if not objects_there[file.relative] then state.delete[#state.delete + 1] = file.path end
    end
  end
  local report = transfer(bucket, state, function()
    local window = objects.window(M.WINDOW)
    if #window == 0 then
      if files then leave(files.upto(nil), {}) end
      return nil
    end
    local there = objects_by_name(window)
    if files then leave(files.upto(window[#window].relative), there) end
    local plan = sync.new_plan "files"
    sync.match_objects(plan, bucket, there, folder, opts)
    sync.ensure_folders(plan)
    return account(state, plan)
  end, opts)
  if #report.failed > 0 or #state.delete == 0 then return report end
  report.failed = sync.wipe_files(state.delete)
  report.deleted = #state.delete - #report.failed
  return report
end

return M
