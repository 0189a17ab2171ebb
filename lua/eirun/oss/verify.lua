-- SPDX-License-Identifier: Apache-2.0
-- Is a published version what it was? Three witnesses: the manifest, the bucket, and the folder it came from; any two can be compared.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local paths = require "eirun.oss.paths"
local publish = require "eirun.oss.publish"
local savedmodel = require "eirun.oss.savedmodel"
local scan = require "eirun.oss.scan"
local task = require "eirun.task"

local M = {}

local AT_ONCE = 8

---@class eirun.Difference
---@field path string
---@field where "bucket"|"local" the side that differs from the manifest, or from the folder where there is none
---@field what string "is missing", "has 3 bytes instead of 4"

local function in_manifest(manifest)
  local rows = {}
  for _, row in ipairs(manifest.files) do
    rows[row.path] = { size = row.size, crc = math.tointeger(tonumber("0x" .. row.crc64)) }
  end
  return rows
end

local function in_folder(folder)
  local rows = {}
  local files, problems = scan.folder(folder)
  if problems[1] then error(problems[1].error, 0) end
  local sums = task.map(files, function(file) return errors.check(fs.digest(file.path, { "crc64" })) end, AT_ONCE)
  for i, file in ipairs(files) do rows[file.relative] = { size = sums[i].size, crc = sums[i].crc64 } end
  return rows
end

local function in_bucket(bucket, prefix)
  local rows = {}
  local objects = bucket:list { prefix = prefix }
  local heads = task.map(objects, function(object) return bucket:head(object.key) or false end, AT_ONCE)
  for i, object in ipairs(objects) do
    local relative = object.key:sub(#prefix + 1)
    if heads[i] and relative ~= "" and relative:sub(-1) ~= "/" then rows[relative] = { size = heads[i].size, crc = heads[i].crc64 } end
  end
  return rows
end

local function sorted_union(a, b)
  local seen, names = {}, {}
  for _, rows in ipairs { a, b } do
    for name in pairs(rows) do
      if not seen[name] then seen[name], names[#names + 1] = true, name end
    end
  end
  table.sort(names)
  return names
end

local function difference(good, seen)
  if not seen then return "is missing" end
  if not good then return "should not be there" end
  if good.size ~= seen.size then return ("has %d bytes instead of %d"):format(seen.size, good.size) end
  if good.crc and seen.crc and good.crc ~= seen.crc then return ("has CRC-64 %016x instead of %016x"):format(seen.crc, good.crc) end
end

local function compare(list, where, good, seen)
  for _, path in ipairs(sorted_union(good, seen)) do
    local what = difference(good[path], seen[path])
    if what then list[#list + 1] = { path = path, where = where, what = what } end
  end
end

-- "models/bert/3/" is version 3 of "models/bert/".
local function split(prefix)
  local base, name = prefix:match "^(.-)([^/]+)/$"
  local version = name and savedmodel.version(name)
  if version then return base, version end
end

---Compares; see `bucket:verify`.
---@param bucket eirun.Bucket
---@param given {prefix: string, from?: string}
---@return {ok: boolean, files: integer, differences: eirun.Difference[], manifest: boolean, against: string}
---Example: `verify.run(bucket, { prefix = "models/bert/3" }).ok`. Raises "not_found" where there is neither a manifest nor a folder.
function M.run(bucket, given)
  local prefix, list = paths.folder(given.prefix), {}
  local base, version = split(prefix)
  local manifest = version and publish.manifest(bucket, base, version)
  if not manifest and not given.from then
    errors.raise("not_found", ("oss://%s/%s has no manifest and no folder was given: there is nothing to compare with"):format(bucket.name,
      prefix), { hint = "name the folder it came from, or a version that eirun oss publish made" })
  end
  local mine = given.from and in_folder(given.from)
  local good, there = manifest and in_manifest(manifest) or mine, in_bucket(bucket, prefix)
  compare(list, "bucket", good, there)
  if manifest and mine then compare(list, "local", good, mine) end
  local files = 0
  for _ in pairs(good) do files = files + 1 end
  return { ok = #list == 0, files = files, differences = list, manifest = manifest ~= nil,
    against = manifest and (mine and "manifest and folder" or "manifest") or "folder" }
end

return M
