-- SPDX-License-Identifier: Apache-2.0
-- One tree made like another one: a folder and a prefix, either way, or two prefixes. First a plan, from one listing and by content;
-- then the work; what is equal is left alone, and nothing is deleted that was not asked for.
local bulk = require "eirun.oss.bulk"
local compare = require "eirun.oss.compare"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local glob = require "eirun.oss.glob"
local paths = require "eirun.oss.paths"
local progress = require "eirun.oss.progress"
local scan = require "eirun.oss.scan"
local spec = require "eirun.spec"
local step = require "eirun.step"
local task = require "eirun.task"

local M = {}

local COMPARED_AT_ONCE, COPIED_AT_ONCE = 8, 16

---@param side "objects"|"files" what deleting would delete
---@return eirun.SyncPlan empty
---Raises nothing.
function M.new_plan(side)
  return { send = {}, same = 0, same_bytes = 0, same_keys = {}, delete = {}, delete_side = side, problems = {}, bytes = 0,
    source_empty = true, found = 0 }
end

local function problem(plan, path, text)
  plan.problems[#plan.problems + 1] = { path = path, error = errors.new("invalid", text, { object = path }) }
end

---Objects of a listing by their names below a prefix; folders' own marks are left out.
---@param prefix string
---@param objects eirun.Object[]
---@param wanted fun(relative: string): boolean
---@return table<string, eirun.Object>
---Raises nothing.
function M.below(prefix, objects, wanted)
  local found = {}
  for _, object in ipairs(objects) do
    local relative = object.key:sub(#prefix + 1)
    if relative ~= "" and relative:sub(-1) ~= "/" and wanted(relative) then found[relative] = object end
  end
  return found
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

-- Decides for all jobs, several at a time since each may read a file or ask for a CRC.
local function sift(plan, jobs, same)
  local equal = task.map(jobs, function(job) return same(job) end, COMPARED_AT_ONCE)
  for i, job in ipairs(jobs) do
    if job.replaces then plan.found = plan.found + 1 end
    job.other = nil
    if equal[i] then
      plan.same, plan.same_bytes = plan.same + 1, plan.same_bytes + job.size
      plan.same_keys[plan.same] = job.key
    else
      plan.send[#plan.send + 1], plan.bytes = job, plan.bytes + job.size
    end
  end
end

-- Objects that no source has.
local function leftovers(plan, there, prefix, delete)
  for _, relative in ipairs(sorted(there)) do
    plan.found = plan.found + 1
    if delete then plan.delete[#plan.delete + 1] = prefix .. relative end
  end
end

---Decides about files of a folder beside objects of a listing: what is to be sent goes into the plan, what no file has stays in `there`.
---@param plan eirun.SyncPlan
---@param bucket eirun.Bucket
---@param files eirun.LocalFile[]
---@param there table<string, eirun.Object> by name below the prefix; those that have a file are taken out
---@param prefix string
---@param opts eirun.SyncOptions
---Raises what comparing raises.
function M.match_files(plan, bucket, files, there, prefix, opts)
  local jobs = {}
  for _, file in ipairs(files) do
    local key = prefix .. file.relative
    local why = paths.bad_key(key)
    if why then
      problem(plan, file.path, ("'%s' cannot be an object: %s"):format(paths.show(file.path), why))
    else
      jobs[#jobs + 1] = { direction = "upload", key = key, path = file.path, size = file.size, relative = file.relative,
        headers = opts.headers, other = there[file.relative] }
    end
    there[file.relative] = nil
  end
  sift(plan, jobs, function(job)
    job.replaces = job.other and job.other.size
    return not opts.always and job.other and compare.same(bucket, job, job.other)
  end)
end

---A file where another object needs a folder, and the like: said before anything is written.
---@param plan eirun.SyncPlan
---@param objects table<string, eirun.Object>
---Raises nothing.
function M.check_nesting(plan, objects)
  for relative in pairs(objects) do
    for at in relative:gmatch "()/" do
      local parent = relative:sub(1, at - 1)
      if objects[parent] and not objects[parent].clash then
        objects[parent].clash = true
        problem(plan, objects[parent].key, ("oss key '%s' is an object and a folder of others: no file system holds both")
          :format(paths.show(objects[parent].key)))
      end
    end
  end
end

---Decides about objects of a listing beside the files of a folder.
---@param plan eirun.SyncPlan
---@param bucket eirun.Bucket
---@param objects table<string, eirun.Object> by name below the prefix
---@param folder string
---@param opts eirun.SyncOptions
---Raises what comparing raises.
function M.match_objects(plan, bucket, objects, folder, opts)
  local jobs = {}
  M.check_nesting(plan, objects)
  for _, relative in ipairs(sorted(objects)) do
    local object, why = objects[relative], paths.bad_file(relative)
    if why then
      problem(plan, object.key, ("oss key '%s' cannot be a file: %s"):format(paths.show(object.key), why))
    elseif not object.clash then
      jobs[#jobs + 1] = { direction = "download", key = object.key, path = folder .. "/" .. relative, size = object.size,
        relative = relative, other = object }
    end
  end
  sift(plan, jobs, function(job)
    local stat = fs.stat(job.path)
    job.replaces = stat and stat.size
    return not opts.always and stat and stat.type == "file" and stat.size == job.size and compare.same(bucket, job, job.other)
  end)
end

---@class eirun.SyncOptions
---@field filter? {[1]: "include"|"exclude", [2]: string}[]
---@field delete? boolean
---@field always? boolean send also what is equal
---@field headers? table<string, string>

---What an upload of a folder would do.
---@param bucket eirun.Bucket
---@param folder string
---@param prefix string
---@param opts? eirun.SyncOptions
---@return eirun.SyncPlan
---Example: `#sync.plan_upload(bucket, "bert/3", "models/bert/3/").send`. Raises as `scan.folder` and `bucket:list`.
function M.plan_upload(bucket, folder, prefix, opts)
  opts = opts or {}
  local plan, wanted = M.new_plan "objects", glob.filter(opts.filter)
  local files
  files, plan.problems = scan.folder(folder, wanted)
  plan.source_empty = #files == 0
  local there = M.below(prefix, bucket:list { prefix = prefix }, wanted)
  M.match_files(plan, bucket, files, there, prefix, opts)
  leftovers(plan, there, prefix, opts.delete)
  return plan
end

-- Files that are no object's any more.
local function extra_files(plan, folder, wanted, kept)
  if not fs.stat(folder) then return end
  local files, problems = scan.folder(folder, wanted)
  for _, file in ipairs(files) do
    if not kept[file.relative] then plan.delete[#plan.delete + 1] = file.path end
  end
  table.move(problems, 1, #problems, #plan.problems + 1, plan.problems)
end

---What a download of a prefix would do.
---@param bucket eirun.Bucket
---@param prefix string names begin after it
---@param folder string
---@param opts? eirun.SyncOptions|{listing?: string, objects?: eirun.Object[]} `listing`: the prefix that is listed, where it is longer than
--- `prefix`; `objects`: what that listing has told already
---@return eirun.SyncPlan
---Example: `sync.plan_download(bucket, "models/bert/3/", "/tmp/bert").bytes`. Raises as `bucket:list`.
function M.plan_download(bucket, prefix, folder, opts)
  opts = opts or {}
  local plan, wanted = M.new_plan "files", glob.filter(opts.filter)
  local objects = M.below(prefix, opts.objects or bucket:list { prefix = opts.listing or prefix }, wanted)
  plan.source_empty = next(objects) == nil
  M.match_objects(plan, bucket, objects, folder, opts)
  if opts.delete then extra_files(plan, folder, wanted, objects) end
  return plan
end

---What a copy of one prefix to another would do.
---@param from eirun.Bucket
---@param prefix string
---@param to eirun.Bucket
---@param to_prefix string
---@param opts? eirun.SyncOptions|{listing?: string}
---@return eirun.SyncPlan
---Example: `sync.plan_copy(bucket, "a/", bucket, "b/")`. Raises "invalid" where one place lies in the other, and as `bucket:list`.
function M.plan_copy(from, prefix, to, to_prefix, opts)
  opts = opts or {}
  local listing = opts.listing or prefix
  if from.name == to.name and (to_prefix:sub(1, #listing) == listing or (opts.delete and listing:sub(1, #to_prefix) == to_prefix)) then
    errors.raise("invalid", ("oss://%s/%s and oss://%s/%s lie in one another"):format(from.name, listing, to.name, to_prefix))
  end
  local plan, wanted, jobs = M.new_plan "objects", glob.filter(opts.filter), {}
  local objects = M.below(prefix, from:list { prefix = listing }, wanted)
  plan.source_empty = next(objects) == nil
  local there = M.below(to_prefix, to:list { prefix = to_prefix }, wanted)
  for _, relative in ipairs(sorted(objects)) do
    local object = objects[relative]
    jobs[#jobs + 1] = { direction = "copy", from = from, key = object.key, to = to, to_key = to_prefix .. relative, size = object.size,
      relative = relative, object = object, other = there[relative] }
    there[relative] = nil
  end
  sift(plan, jobs, function(job)
    job.replaces = job.other and job.other.size
    return not opts.always and job.other and compare.same_objects(from, job.object, to, job.other)
  end)
  leftovers(plan, there, to_prefix, opts.delete)
  return plan
end

-- Doing it ------------------------------------------------------------------------------------------------------------

local function new_report(plan)
  local report = { files = 0, bytes = 0, equal = plan.same, sent = 0, skipped = 0, resent = 0, deleted = 0, failed = {}, notes = {},
    seconds = 0 }
  table.move(plan.problems, 1, #plan.problems, 1, report.failed)
  return report
end

local function add(report, part)
  for _, name in ipairs { "files", "bytes", "sent", "skipped", "resent", "seconds" } do report[name] = report[name] + (part[name] or 0) end
  for _, name in ipairs { "failed", "notes" } do
    for _, row in ipairs(part[name] or {}) do table.insert(report[name], row) end
  end
end

-- Copies are the service's own work; they are counted and shown as transfers are.
local function copy_one(tally, job, opts)
  local ok, err = pcall(bulk.copy, { from = job.from, key = job.key, to = job.to, to_key = job.to_key, headers = opts.headers })
  if ok then
    tally:part(job, { length = job.size }, {})
    tally:done(job)
    job.done = true
  elseif errors.is(err, "cancelled") then
    error(err, 0)
  else
    tally:fail({ key = job.key }, errors.from(err))
  end
  if opts.on_progress then opts.on_progress(tally:picture(tally.bytes, 0)) end
end

local function copy_all(jobs, opts)
  local tally = progress.new()
  for _, job in ipairs(jobs) do tally:add(job) end
  tally.complete_list = true
  task.map(jobs, function(job) copy_one(tally, job, opts) end, opts.jobs or COPIED_AT_ONCE)
  return tally:report()
end

---Removes files; one that is gone already is fine.
---@param list string[]
---@return {path: string, error: eirun.Error}[] failed
---Raises nothing.
function M.wipe_files(list)
  local failed = {}
  for _, path in ipairs(list) do
    local ok, err = fs.remove(path)
    if not ok and not errors.is(err, "not_found") then failed[#failed + 1] = { path = path, error = err } end
  end
  return failed
end

---Deletes only after everything else went well, and not on the word of a source that is empty or could not be read.
---@param plan eirun.SyncPlan
---@param force? boolean
---Example: `sync.check_delete(plan)`. Raises "denied", code "guard".
function M.check_delete(plan, force)
  if force or not plan.source_empty or #plan.delete == 0 then return end
  errors.raise("denied", ("the source is empty: that would delete all %d %s of the destination"):format(#plan.delete, plan.delete_side),
    { code = "guard", hint = "say --force (force = true) if that is meant" })
end

---Makes the folders that a plan's downloads go to.
---@param plan eirun.SyncPlan
---Raises what making one raises.
function M.ensure_folders(plan)
  local seen = {}
  for _, job in ipairs(plan.send) do
    local folder = job.direction == "download" and job.path:match "^(.*)/[^/]*$"
    if folder and folder ~= "" and not seen[folder] then
      seen[folder] = true
      errors.check(fs.mkdir(folder, { parents = true, mode = tonumber("755", 8) }))
    end
  end
end

local function transfer_options(opts)
  local chosen = {}
  for _, name in ipairs { "jobs", "parallel", "part_size", "bandwidth_limit", "on_progress", "resume" } do chosen[name] = opts[name] end
  return chosen
end

---Carries out a plan. A plan of one direction; with `last`, the files of that name go after all others, and only if those arrived.
---@param bucket eirun.Bucket the side that sends or receives; of a copy, the destination
---@param plan eirun.SyncPlan
---@param opts? table force, last, jobs, parallel, part_size, bandwidth_limit, on_progress, headers
---@return eirun.TransferReport
---Example: `local report = sync.run(bucket, plan, { jobs = 8 })`. Raises "denied" (code "guard") for an empty source; what fails is listed.
function M.run(bucket, plan, opts)
  opts = opts or {}
  M.check_delete(plan, opts.force)
  M.ensure_folders(plan)
  local report, first, last = new_report(plan), {}, {}
  for _, job in ipairs(plan.send) do
    local list = opts.last and paths.base(job.key) == opts.last and last or first
    list[#list + 1] = job
  end
  for _, jobs in ipairs { first, last } do
    if #jobs > 0 and #report.failed == 0 or jobs == first and #jobs > 0 then
      add(report, jobs[1].direction == "copy" and copy_all(jobs, opts) or bucket:transfer(jobs, transfer_options(opts)))
    end
  end
  if #plan.delete > 0 and #report.failed == 0 then
    local failed = plan.delete_side == "objects" and bulk.delete(bucket, plan.delete) or M.wipe_files(plan.delete)
    report.deleted = #plan.delete - #failed
    table.move(failed, 1, #failed, #report.failed + 1, report.failed)
  end
  return report
end

local rules = {
  from = { type = "string", required = true }, to = { type = "string", required = true },
  direction = { type = "string", one_of = { upload = true, download = true } }, delete = { type = "boolean" },
  force = { type = "boolean" }, dry_run = { type = "boolean" }, filter = { type = "table" }, jobs = { type = "integer" },
  parallel = { type = "integer" }, part_size = { type = "integer" }, bandwidth_limit = { type = "number" },
  on_progress = { type = "function" },
}

local function show_in_step(picture)
  step.progress { done = picture.bytes, total = picture.bytes_total, unit = "bytes", text = ("%d files"):format(picture.files) }
end

---The first failure of a report, with the others as its causes and the report itself.
---@param report eirun.TransferReport
---Example: `sync.raise_failed(report)`. Raises when there is one.
function M.raise_failed(report)
  if #report.failed == 0 then return end
  local first, causes = report.failed[1].error, {}
  for i = 2, #report.failed do causes[i - 1] = report.failed[i].error end
  local more = #causes > 0 and (" (and %d more failed)"):format(#causes) or ""
  error(errors.rephrase(first, first.message .. more, { causes = causes, report = report, hint = first.hint }), 0)
end

---Plan and run; see `bucket:sync`.
---@param bucket eirun.Bucket
---@param given table
---@return eirun.TransferReport|eirun.SyncPlan
---Example: `sync.both_ways(bucket, { from = "bert", to = "models/bert" })`. Raises as `bucket:sync`.
function M.both_ways(bucket, given)
  spec.check("sync", given, rules)
  local chosen = { filter = given.filter, delete = given.delete }
  local download, stream = given.direction == "download", require "eirun.oss.stream"
  local prefix = paths.folder(download and given.from or given.to)
  local totals
  if not download then
    totals = stream.large_folder(given.from, given.filter)
  else
    chosen.objects, totals = stream.listing(bucket, prefix)
    if chosen.objects then totals = nil end
  end
  local opts = { on_progress = show_in_step }
  for name, value in pairs(given) do opts[name] = value end
  local report
  if totals and not given.dry_run then
    report = download and stream.download(bucket, prefix, given.to, totals, opts) or stream.upload(bucket, given.from, prefix, totals, opts)
  else
    local plan = download and M.plan_download(bucket, prefix, given.to, chosen) or M.plan_upload(bucket, given.from, prefix, chosen)
    if given.dry_run then return plan end
    report = M.run(bucket, plan, opts)
  end
  local changed = report.files + report.deleted > 0
  step.record { kind = "files", name = ("%s -> %s"):format(given.from, given.to), outcome = changed and "updated" or "unchanged" }
  M.raise_failed(report)
  return report
end

return M
