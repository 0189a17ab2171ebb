-- SPDX-License-Identifier: Apache-2.0
-- A file becomes an object: in one request when small, in parallel parts when large; never in Lua's memory; believed only when
-- the server's CRC-64 is the file's.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local service = require "eirun.oss.service"
local task = require "eirun.task"
local xml = require "eirun.oss.xml"

local M = {}

local MIB = 1024 * 1024
-- Below this one request is quicker than three.
M.SINGLE_MAX = 16 * MIB
local PART, MOST_PARTS, PARTS_AT_ONCE, TRIES = 8 * MIB, 10000, 4, 3

---Bytes of a part for a file of this size: always the same, so that an ETag can be computed again later.
---@param size integer
---@return integer
function M.part_size(size)
  local part = PART
  while (size + part - 1) // part > MOST_PARTS do part = part * 2 end
  return part
end

---The ETag that OSS gives to a multipart object: MD5 over the parts' hexadecimal MD5s.
---@param part_md5s string[] upper-case hex
---@return string
---Example: `upload.multipart_etag { "44D0…", "7AEA…" }` ends in `-2`.
function M.multipart_etag(part_md5s)
  return crypto.hex(crypto.md5(table.concat(part_md5s))):upper() .. "-" .. #part_md5s
end

local function mismatch(object, what)
  return errors.new("network", ("%s arrived changed: the CRC-64 of %s differs"):format(object, what), { object = object, retryable = true })
end

-- Runs `send` until the server's CRC is ours.
local function until_equal(object, what, crc, send)
  for n = 1, TRIES do
    local reply = send()
    local theirs = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
    if theirs == nil or theirs == crc then return reply end
    if n == TRIES then error(mismatch(object, what), 0) end
  end
end

local function check_length(path, size)
  local stat = errors.check(fs.stat(path))
  if stat.size ~= size then
    errors.raise("conflict", ("'%s' changed while it was read: it had %d bytes, now %d"):format(path, size, stat.size), { object = path })
  end
end

local function put_whole(bucket, key, file, opts)
  local crc = errors.check(fs.digest(file.path, { "crc64" }, 0, file.size)).crc64
  local object = ("oss://%s/%s"):format(bucket.name, key)
  until_equal(object, "it", crc, function()
    return service.call { method = "PUT", bucket = bucket.name, region = bucket.region, key = key, verb = "upload", headers = opts.headers,
      body = { file = file.path, offset = 0, length = file.size } }
  end)
  check_length(file.path, file.size)
  opts.on_bytes(file.size)
end

local function put_part(bucket, key, upload_id, file, part, opts)
  local crc = errors.check(fs.digest(file.path, { "crc64" }, part.offset, part.length)).crc64
  local object = ("oss://%s/%s"):format(bucket.name, key)
  local reply = until_equal(object, "part " .. part.number, crc, function()
    return service.call { method = "PUT", bucket = bucket.name, region = bucket.region, key = key, verb = "upload a part of",
      query = { partNumber = part.number, uploadId = upload_id }, body = { file = file.path, offset = part.offset, length = part.length } }
  end)
  part.crc, part.etag = crc, reply.headers:get "etag"
  opts.on_bytes(part.length)
end

local function parts_of(file)
  local size, parts = M.part_size(file.size), {}
  for offset = 0, file.size - 1, size do
    parts[#parts + 1] = { number = #parts + 1, offset = offset, length = math.min(size, file.size - offset) }
  end
  return parts
end

local function complete_body(parts)
  local lines = { "<CompleteMultipartUpload>" }
  for _, part in ipairs(parts) do
    lines[#lines + 1] = ("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>"):format(part.number, xml.escape(part.etag))
  end
  lines[#lines + 1] = "</CompleteMultipartUpload>"
  return table.concat(lines, "\n")
end

local function combined_crc(parts)
  local crc = parts[1].crc
  for i = 2, #parts do crc = crypto.crc64_combine(crc, parts[i].crc, parts[i].length) end
  return crc
end

-- A lost answer to Complete may hide a success, after which the upload is unknown: the object itself tells.
local function complete(bucket, key, upload_id, parts)
  local object, whole = ("oss://%s/%s"):format(bucket.name, key), combined_crc(parts)
  local ok, reply = pcall(service.call, { method = "POST", bucket = bucket.name, region = bucket.region, key = key, verb = "complete",
    query = { uploadId = upload_id }, body = complete_body(parts), idempotent = true, headers = { ["content-type"] = "application/xml" } })
  if not ok then
    if not errors.is(reply, "not_found") then error(reply, 0) end
    reply = service.call { method = "HEAD", bucket = bucket.name, region = bucket.region, key = key, verb = "look at" }
  end
  local theirs = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
  if theirs and theirs ~= whole then error(mismatch(object, "the whole"), 0) end
end

local function abort(bucket, key, upload_id)
  pcall(task.shield, 10, service.call, { method = "DELETE", bucket = bucket.name, region = bucket.region, key = key, verb = "abort",
    query = { uploadId = upload_id }, attempts = 2 })
end

-- What a killed run left behind is billed until somebody ends it.
local function abort_stale(bucket, key)
  local reply = service.call { method = "GET", bucket = bucket.name, region = bucket.region, verb = "list uploads to",
    query = { uploads = "", prefix = key, ["max-uploads"] = 1000 } }
  for _, open in ipairs(service.element(reply, "ListMultipartUploadsResult").Upload or {}) do
    if xml.text(open, "Key") == key then abort(bucket, key, xml.text(open, "UploadId")) end
  end
end

local function put_parts(bucket, key, file, opts)
  abort_stale(bucket, key)
  local reply = service.call { method = "POST", bucket = bucket.name, region = bucket.region, key = key, verb = "begin to upload",
    query = { uploads = "" }, headers = opts.headers, idempotent = true }
  local upload_id = xml.text(service.element(reply, "InitiateMultipartUploadResult"), "UploadId")
  local parts = parts_of(file)
  local ok, err = pcall(function()
    task.map(parts, function(part) put_part(bucket, key, upload_id, file, part, opts) end, PARTS_AT_ONCE)
    check_length(file.path, file.size)
    complete(bucket, key, upload_id, parts)
  end)
  if ok then return end
  abort(bucket, key, upload_id)
  error(err, 0)
end

---Uploads a file.
---@param bucket eirun.Bucket
---@param key string
---@param file {path: string, size: integer}
---@param opts? {headers?: table<string, string>, on_bytes?: fun(n: integer)}
---Raises "conflict" when the file changes meanwhile, "network" when it does not arrive whole after three tries.
function M.put(bucket, key, file, opts)
  opts = { headers = opts and opts.headers, on_bytes = opts and opts.on_bytes or function() end }
  if file.size <= M.SINGLE_MAX then return put_whole(bucket, key, file, opts) end
  return put_parts(bucket, key, file, opts)
end

return M
