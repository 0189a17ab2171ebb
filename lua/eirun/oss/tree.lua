-- SPDX-License-Identifier: Apache-2.0
-- A folder becomes a tree of objects: compared by one listing and by content, only what differs is sent, and what makes the rest
-- visible (saved_model.pb) is sent last.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local resource = require "eirun.resource"
local service = require "eirun.oss.service"
local spec = require "eirun.spec"
local step = require "eirun.step"
local task = require "eirun.task"
local upload = require "eirun.oss.upload"

local M = {}

local FILES_AT_ONCE = 4

local rules = {
  from = { type = "string", required = true },
  to = { type = "string", required = true, match = "^[^/\\]", says = "a prefix that does not start with '/'" },
  last = { type = "string" },
}

local function scan_into(files, folder, prefix)
  for _, name in ipairs(errors.check(fs.list(folder))) do
    local path = folder .. "/" .. name
    local stat = errors.check(fs.stat(path))
    if stat.type == "directory" then
      scan_into(files, path, prefix .. name .. "/")
    elseif stat.type == "file" then
      files[#files + 1] = { path = path, name = name, relative = prefix .. name, size = stat.size }
    else
      errors.raise("invalid", ("'%s' is neither a file nor a folder"):format(path), { object = path })
    end
  end
end

---The files below a folder, sorted by path.
---@param folder string
---@return {path: string, name: string, relative: string, size: integer}[]
function M.scan(folder)
  local stat, err = fs.stat(folder)
  if not stat then error(err, 0) end
  if stat.type ~= "directory" then errors.raise("invalid", ("'%s' is not a folder"):format(folder), { object = folder }) end
  local files = {}
  scan_into(files, folder, "")
  if #files == 0 then
    errors.raise("invalid", ("'%s' is empty: there is nothing to upload"):format(folder), { object = folder })
  end
  return files
end

local function md5_of(path, offset, length)
  return crypto.hex(errors.check(fs.digest(path, { "md5" }, offset, length)).md5):upper()
end

local function etag_of_parts(file)
  local size, list = upload.part_size(file.size), {}
  for offset = 0, file.size - 1, size do
    list[#list + 1] = md5_of(file.path, offset, math.min(size, file.size - offset))
  end
  return upload.multipart_etag(list)
end

-- A multipart object of somebody else's part size has an ETag that tells nothing; its CRC-64 does.
local function same_crc(bucket, key, file)
  local reply = service.call { method = "HEAD", bucket = bucket.name, region = bucket.region, key = key, verb = "look at" }
  local crc = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
  return crc ~= nil and crc == errors.check(fs.digest(file.path, { "crc64" }, 0, file.size)).crc64
end

local function same_content(bucket, key, file, object)
  if object.size ~= file.size then return false end
  if not object.etag:find("-", 1, true) then return md5_of(file.path, 0, file.size) == object.etag end
  return etag_of_parts(file) == object.etag or same_crc(bucket, key, file)
end

local function compare(bucket, given, files, observed)
  local changes, todo = {}, {}
  local differs = task.map(files, function(file)
    local object = observed and observed[given.to .. file.relative]
    return not (object and same_content(bucket, given.to .. file.relative, file, object))
  end, FILES_AT_ONCE)
  for i, file in ipairs(files) do
    local object = observed and observed[given.to .. file.relative]
    if differs[i] then
      changes[#changes + 1] = { field = file.relative, from = object and object.size .. " bytes", to = file.size .. " bytes" }
      todo[#todo + 1] = file
    end
  end
  return changes, todo
end

local function observe(bucket, prefix)
  local found = {}
  for _, object in ipairs(bucket:list { prefix = prefix }) do found[object.key] = object end
  return next(found) and found or nil
end

local function total_of(files)
  local sum = 0
  for _, file in ipairs(files) do sum = sum + file.size end
  return sum
end

local function split(files, is_second)
  local first, second = {}, {}
  for _, file in ipairs(files) do
    local list = is_second(file) and second or first
    list[#list + 1] = file
  end
  return first, second
end

local function send(bucket, given, files, progress)
  local jobs = {}
  for i, file in ipairs(files) do
    jobs[i] = { direction = "upload", key = given.to .. file.relative, path = file.path, size = file.size,
      headers = { ["content-type"] = "application/octet-stream" } }
  end
  local report = bucket:transfer(jobs, { stop_on_error = true, on_progress = function(p)
    step.progress { done = progress.done + p.bytes, total = progress.total, unit = "bytes", text = given.to }
  end })
  if report.failed[1] then error(report.failed[1].error, 0) end
  progress.done = progress.done + report.bytes
end

-- If anything but the last file changes, the last one is what makes it visible, so it goes after them in any case.
local function upload_all(bucket, given, todo)
  local first, rest = split(todo, function(file) return file.name == given.last end)
  local progress = { done = 0, total = total_of(todo) }
  send(bucket, given, first, progress)
  send(bucket, given, rest, progress)
end

local function check_arrived(bucket, given, files)
  local seen = observe(bucket, given.to) or {}
  for _, file in ipairs(files) do
    local object = seen[given.to .. file.relative]
    if not object or object.size ~= file.size then
      local key = ("oss://%s/%s%s"):format(bucket.name, given.to, file.relative)
      errors.raise("conflict", key .. " is not what was uploaded: somebody else writes there", { object = key })
    end
  end
  return seen
end

---Makes the objects below a prefix hold a folder's files; see `bucket:ensure_tree`.
---@param bucket eirun.Bucket
---@param given {from: string, to: string, last?: string}
---@return {bucket: string, prefix: string, files: integer, bytes: integer}
---@return string outcome
function M.ensure(bucket, given)
  spec.check("ensure_tree", given, rules)
  given = { from = given.from:gsub("/+$", ""), to = given.to:gsub("/*$", "/"), last = given.last or "saved_model.pb" }
  local files, todo = M.scan(given.from), nil
  local _, outcome = resource.ensure {
    kind = "model", name = ("oss://%s/%s"):format(bucket.name, given.to),
    observe = function() return observe(bucket, given.to) end,
    compare = function(observed)
      local changes
      changes, todo = compare(bucket, given, files, observed)
      return changes
    end,
    act = function()
      upload_all(bucket, given, todo)
      return check_arrived(bucket, given, files)
    end,
  }
  return { bucket = bucket.name, prefix = given.to, files = #files, bytes = total_of(files) }, outcome
end

return M
