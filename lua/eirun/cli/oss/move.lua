-- SPDX-License-Identifier: Apache-2.0
-- eirun oss cp, mv, sync: what moves bytes.
local common = require "eirun.cli.oss.common"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local paths = require "eirun.oss.paths"
local stream = require "eirun.oss.stream"
local sync = require "eirun.oss.sync"

local M = {}

-- A place of either kind: { bucket, key } or { path }.
local function place_of(io, text)
  if text:find "^[oO][sS][sS]://" then return io:remote(text) end
  if text == "" then common.usage "a path is not empty" end
  return { path = text }
end

local kept = { ["content-type"] = true, ["cache-control"] = true, ["content-disposition"] = true, ["content-encoding"] = true,
  ["content-language"] = true, expires = true }

local function header_of(line, headers)
  local name, value = line:match "^([%w-]+)%s*:%s*(.-)%s*$"
  if not name then common.usage(("--meta wants NAME:VALUE, not '%s'"):format(line)) end
  name = name:lower()
  if not kept[name] and not name:find "^x%-oss%-" then name = "x-oss-meta-" .. name end
  headers[name] = value
end

local function headers_of(options)
  local headers = { ["x-oss-forbid-overwrite"] = options.forbid_overwrite and "true" or nil,
    ["x-oss-storage-class"] = options.storage_class }
  for _, line in ipairs(options.meta or {}) do header_of(line, headers) end
  return headers
end

-- Telling -------------------------------------------------------------------------------------------------------------

local function name_of(job)
  if job.direction == "copy" then return ("oss://%s/%s"):format(job.to.name, paths.show(job.to_key)) end
  return paths.show(job.direction == "upload" and job.key or job.path)
end

local function show_plan(io, plan)
  local json = require "eirun.core.json"
  local send, delete = json.array {}, json.array(plan.delete)
  for i, job in ipairs(plan.send) do
    send[i] = { name = name_of(job), size = job.size, replaces = job.replaces }
    io:say(("would %s %s (%s)"):format(job.replaces and "replace" or "send", name_of(job), common.bytes(job.size)))
  end
  for _, name in ipairs(plan.delete) do io:say("would delete " .. paths.show(name)) end
  io:say(("would send %s, %s; %d equal; would delete %d"):format(common.count(#plan.send, "file"), common.bytes(plan.bytes), plan.same,
    #plan.delete))
  io:tell_failed(plan.problems)
  io:result { dry_run = true, send = send, delete = delete, equal = plan.same, bytes = plan.bytes, failed = common.failures(plan.problems) }
end

local function rate(report)
  if report.seconds < 0.05 then return "" end
  return (" in %.1f s (%s/s)"):format(report.seconds, common.bytes(report.sent / report.seconds))
end

local function tell(io, report)
  local parts = { ("%s, %s%s"):format(common.count(report.files, "file"), common.bytes(report.bytes), rate(report)) }
  if report.skipped > 0 then parts[#parts + 1] = common.bytes(report.skipped) .. " were there already" end
  if report.equal > 0 then parts[#parts + 1] = report.equal .. " equal" end
  if report.deleted > 0 then parts[#parts + 1] = report.deleted .. " deleted" end
  if report.resent > 0 then parts[#parts + 1] = common.count(report.resent, "request") .. " repeated: bytes arrived changed" end
  if #report.failed > 0 then parts[#parts + 1] = #report.failed .. " FAILED" end
  if (report.not_tried or 0) > 0 then parts[#parts + 1] = report.not_tried .. " not tried" end
  io:tell_failed(report.failed)
  io:say(table.concat(parts, ", "))
  report.failed = common.failures(report.failed)
  report.notes = require("eirun.core.json").array(report.notes or {})
  io:result(report)
end

-- Plans of one file ---------------------------------------------------------------------------------------------------

local function one(job)
  return { send = { job }, same = 0, same_bytes = 0, delete = {}, delete_side = "objects", problems = {}, bytes = job.size or 0 }
end

local function is_folder(path)
  local stat = fs.stat(path)
  return path:sub(-1) == "/" or stat ~= nil and stat.type == "directory"
end

local function need_recursive(what)
  common.usage(("'%s' is a folder: say -r for all that is below"):format(what))
end

local function upload_one(io, from, to)
  local stat = errors.check(fs.stat(from.path))
  if stat.type == "directory" then need_recursive(from.path) end
  local key = (to.key == "" or to.key:sub(-1) == "/") and to.key .. paths.base(from.path) or to.key
  paths.check_key(key, to.bucket)
  return one { direction = "upload", key = key, path = from.path, size = stat.size, headers = headers_of(io.options),
    upload_id = io.options.upload_id }
end

local function missing(place)
  local object = ("oss://%s/%s"):format(place.bucket, paths.show(place.key))
  errors.raise("not_found", "there is no " .. object, { object = object, code = "NoSuchKey",
    hint = "eirun oss ls shows what is there; -r takes all below a prefix" })
end

local function download_one(io, from, to)
  local head = io:bucket(from.bucket):head(from.key) or missing(from)
  local name = paths.base(from.key)
  local why = is_folder(to.path) and paths.bad_file(name)
  if why then errors.raise("invalid", ("oss key '%s' cannot be a file: %s"):format(paths.show(from.key), why)) end
  local path = is_folder(to.path) and (to.path:gsub("/+$", "") .. "/" .. name) or to.path
  return one { direction = "download", key = from.key, path = path, size = head.size }
end

local function copy_one(io, from, to)
  local key = (to.key == "" or to.key:sub(-1) == "/") and to.key .. paths.base(from.key) or to.key
  paths.check_key(key, to.bucket)
  if from.bucket == to.bucket and from.key == key then common.usage "source and destination are the same object" end
  local head = io:bucket(from.bucket):head(from.key) or missing(from)
  return one { direction = "copy", from = io:bucket(from.bucket), key = from.key, to = io:bucket(to.bucket), to_key = key,
    size = head.size }
end

-- Plans of trees ------------------------------------------------------------------------------------------------------

-- cp -r of "a/b" means all keys that begin so, and their names from the last slash on; of "a/b/" what is in that folder.
local function listing_of(place)
  return place.key:match "^(.*/)" or "", place.key
end

local function check_any(io, plan, from)
  if not plan.source_empty or io.word == "sync" then return plan end
  if #plan.problems > 0 then return plan end
  local name = from.path or ("oss://%s/%s"):format(from.bucket, paths.show(from.key))
  errors.raise("not_found", ("nothing is below %s that was asked for"):format(name), { object = name })
end

-- Where names of a download begin, and what is listed.
local function places_of(io, from)
  if io.word == "sync" then return paths.folder(from.key), paths.folder(from.key) end
  return listing_of(from)
end

local function local_folder(to)
  return #to.path > 1 and to.path:gsub("/+$", "") or to.path
end

local function tree_options(io)
  local options = io.options
  return { filter = options.filter, delete = options.delete, headers = headers_of(options) }
end

local function tree(io, from, to, objects)
  local opts = tree_options(io)
  if from.path then return sync.plan_upload(io:bucket(to.bucket), from.path, paths.folder(to.key), opts) end
  local prefix, listing = places_of(io, from)
  opts.listing, opts.objects = listing, objects
  if to.path then return sync.plan_download(io:bucket(from.bucket), prefix, local_folder(to), opts) end
  return sync.plan_copy(io:bucket(from.bucket), prefix, io:bucket(to.bucket), paths.folder(to.key), opts)
end

-- Doing ---------------------------------------------------------------------------------------------------------------

local function carry_out(io, plan, from, to)
  local bucket = io:bucket(to.bucket or from.bucket)
  if io.options.dry_run then return show_plan(io, plan) end
  local opts = io:transfer_options()
  opts.force, opts.headers = io.options.force, headers_of(io.options)
  io:hint_endpoint(bucket, plan.bytes)
  return sync.run(bucket, plan, opts)
end

local function moved(io, opts)
  for name, value in pairs(io:transfer_options()) do opts[name] = value end
  return opts
end

-- A tree that is too large for a plan; nil for others, and for copies inside OSS, whose bytes do not come this way. A listing that was read
-- for this is handed on.
local function large(io, from, to)
  if io.options.dry_run or not from.path and not to.path then return nil end
  local bucket, opts = io:bucket(to.bucket or from.bucket), tree_options(io)
  if from.path then
    local totals = stream.large_folder(from.path, opts.filter)
    if not totals then return nil end
    io:hint_endpoint(bucket, totals.bytes)
    return stream.upload(bucket, from.path, paths.folder(to.key), totals, moved(io, opts))
  end
  local prefix, listing = places_of(io, from)
  local objects, totals = stream.listing(bucket, listing)
  if objects then return nil, objects end
  io:hint_endpoint(bucket, totals.bytes)
  opts.listing = listing
  return stream.download(bucket, prefix, local_folder(to), totals, moved(io, opts))
end

local function two_places(io, words)
  io:want(words, 2)
  local from, to = place_of(io, words[1]), place_of(io, words[2])
  if from.path and to.path then common.usage "one of the two places is in OSS: oss://BUCKET/KEY" end
  io:transfer_options() -- what is wrong with them is said before anything is asked
  return from, to
end

function M.cp(io, words)
  local from, to = two_places(io, words)
  local plan
  if io.options.recursive then
    local report, objects = large(io, from, to)
    if report then return tell(io, report) end
    plan = check_any(io, tree(io, from, to, objects), from)
  elseif io.options.filter then
    common.usage "--include and --exclude choose among many: say -r"
  elseif from.path then
    plan = upload_one(io, from, to)
  elseif from.key == "" or from.key:sub(-1) == "/" then
    need_recursive(words[1])
  else
    plan = (to.path and download_one or copy_one)(io, from, to)
  end
  local report = carry_out(io, plan, from, to)
  if report then tell(io, report) end
end

function M.sync(io, words)
  local from, to = two_places(io, words)
  local report, objects = large(io, from, to)
  report = report or carry_out(io, tree(io, from, to, objects), from, to)
  if report then tell(io, report) end
end

-- The source goes only when its copy is there and equal; equal copies of an interrupted run count as well.
local function delete_sources(io, from, keys, report)
  local failed = require("eirun.oss.bulk").delete(io:bucket(from.bucket), keys)
  report.deleted = #keys - #failed
  for _, row in ipairs(failed) do report.failed[#report.failed + 1] = row end
end

function M.mv(io, words)
  local from, to = two_places(io, words)
  if from.path or to.path then common.usage "mv moves inside OSS: oss://BUCKET/FROM oss://BUCKET/TO" end
  local plan
  if io.options.recursive then
    plan = check_any(io, tree(io, from, to), from)
  elseif from.key == "" or from.key:sub(-1) == "/" then
    need_recursive(words[1])
  else
    plan = copy_one(io, from, to)
  end
  local count = #plan.send + plan.same
  if io.options.recursive and not io.options.force and not io.options.dry_run then
    errors.raise("denied", ("would move %s"):format(common.count(count, "object")),
      { code = "guard", hint = "say --force if that is meant" })
  end
  local report = carry_out(io, plan, from, to)
  if not report then return end
  local keys = plan.same_keys and table.move(plan.same_keys, 1, #plan.same_keys, 1, {}) or {}
  for _, job in ipairs(plan.send) do
    if job.done then keys[#keys + 1] = job.key end
  end
  delete_sources(io, from, keys, report)
  tell(io, report)
end

return M
