-- SPDX-License-Identifier: Apache-2.0
-- Is a file what an object holds? Content decides, never a time: size first, then what one listing tells (an ETag), and the CRC-64,
-- which costs a HEAD, only where the ETag tells nothing.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local upload = require "eirun.oss.upload"

local M = {}

local function md5_of(path, offset, length)
  return crypto.hex(errors.check(fs.digest(path, { "md5" }, offset, length)).md5):upper()
end

local function etag_of_parts(file, part)
  local list = {}
  for offset = 0, file.size - 1, part do
    list[#list + 1] = md5_of(file.path, offset, math.min(part, file.size - offset))
  end
  return upload.multipart_etag(list)
end

-- Reading the file twice is dearer than asking: parts are only tried where their number is the one that we would have made.
local function by_parts(file, object)
  local count = math.tointeger(tonumber(object.etag:match "%-(%d+)$"))
  local part = upload.part_size(file.size)
  return count == (file.size + part - 1) // part and etag_of_parts(file, part) == object.etag
end

local function by_crc(bucket, file, object)
  local seen = bucket:head(object.key)
  return seen ~= nil and seen.crc64 ~= nil and seen.size == file.size
    and seen.crc64 == errors.check(fs.digest(file.path, { "crc64" }, 0, file.size)).crc64
end

---@param bucket eirun.Bucket
---@param file {path: string, size: integer}
---@param object eirun.Object of a listing
---@return boolean
---Example: `if compare.same(bucket, file, object) then … end`. Raises what reading the file and asking for its object raise.
function M.same(bucket, file, object)
  if object.size ~= file.size then return false end
  if object.etag:find("-", 1, true) then return by_parts(file, object) or by_crc(bucket, file, object) end
  if #object.etag == 32 then return md5_of(file.path, 0, file.size) == object.etag end
  return by_crc(bucket, file, object)
end

---Two objects: equal ETags of equal kind are enough, else both are asked for their CRC-64.
---@param from eirun.Bucket
---@param object eirun.Object
---@param to eirun.Bucket
---@param other eirun.Object
---@return boolean
---Example: `compare.same_objects(a, object, b, copy)`. Raises what asking raises.
function M.same_objects(from, object, to, other)
  if object.size ~= other.size then return false end
  if object.etag == other.etag then return true end
  if not object.etag:find("-", 1, true) and not other.etag:find("-", 1, true) then return false end
  local a, b = from:head(object.key), to:head(other.key)
  return a ~= nil and b ~= nil and a.crc64 ~= nil and a.crc64 == b.crc64
end

return M
