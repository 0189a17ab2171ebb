-- SPDX-License-Identifier: Apache-2.0
-- A file becomes an object: in one request when small, in parallel parts when large; resumed where a run before stopped; never in
-- Lua's memory; believed only when the server's CRC-64 is the file's.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local resume = require "eirun.oss.resume"
local service = require "eirun.oss.service"
local task = require "eirun.task"
local xml = require "eirun.oss.xml"

local M = {}

local MIB = 1024 * 1024
-- Below this one request is quicker than three.
M.SINGLE_MAX = 16 * MIB
local QUIET = 10 -- seconds that threads may need to end what they have begun
local PART, MOST_PARTS, LEAST_PART = 8 * MIB, 10000, 100 * 1024

---Bytes of a part for a file of this size: always the same, so that an ETag can be computed again later.
---@param size integer
---@param wanted? integer as the user asked for; doubled until 10,000 parts are enough
---@return integer
function M.part_size(size, wanted)
  local part = math.max(wanted or PART, LEAST_PART)
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

local function call(job, given)
  given.bucket, given.region, given.place, given.key = job.bucket.name, job.bucket.region, job.bucket.place, given.key or job.key
  return service.call(given)
end

local function object_of(job) return ("oss://%s/%s"):format(job.bucket.name, job.key) end

-- In one request -------------------------------------------------------------------------------------------------------

---The operation that sends a small file whole.
---@param job eirun.OssJob
---@return eirun.OssOp
function M.whole(job)
  return { action = "send", verb = "upload", key = job.key, headers = job.headers, path = job.path, offset = 0, length = job.size,
    size = job.size }
end

---What is published although it arrived changed is taken away again.
---@param job eirun.OssJob
---@param err eirun.Error
function M.undo(job, err)
  if err.code == "CrcMismatch" then pcall(call, job, { method = "DELETE", verb = "delete" }) end
end

-- In parts ----------------------------------------------------------------------------------------------------------------

local function quoted(etag) return etag and etag:gsub("\"", "") end

-- nil: the upload is not there any more.
local function list_parts(job, upload_id)
  local parts, marker = {}, nil
  repeat
    local ok, reply = pcall(call, job, { method = "GET", verb = "list the parts of",
      query = { uploadId = upload_id, ["max-parts"] = 1000, ["part-number-marker"] = marker } })
    if not ok then
      if errors.is(reply, "not_found") and reply.code == "NoSuchUpload" then return nil end
      error(reply, 0)
    end
    local page = service.element(reply, "ListPartsResult")
    for _, part in ipairs(page.Part or {}) do
      parts[math.tointeger(tonumber(xml.text(part, "PartNumber")))] = { size = math.tointeger(tonumber(xml.text(part, "Size"))),
        etag = xml.text(part, "ETag"), crc = service.u64(xml.text(part, "HashCrc64ecma")) }
    end
    marker = xml.text(page, "IsTruncated") == "true" and xml.text(page, "NextPartNumberMarker") or nil
  until not marker
  return parts
end

-- The size that all listed parts agree on, nil when they are not equal parts of a file of this size.
local function common_size(parts, size)
  local numbers, part = {}, nil
  for number, found in pairs(parts) do
    numbers[#numbers + 1] = number
    part = math.max(part or 0, found.size)
  end
  if not part or part == 0 or #numbers == 1 and not parts[1] and part < LEAST_PART then return nil end
  local count = (size + part - 1) // part
  if count > MOST_PARTS then return nil end
  for _, number in ipairs(numbers) do
    local expected = number < count and part or number == count and size - part * (count - 1)
    if parts[number].size ~= expected then return nil end
  end
  return part
end

local function fits(job, parts, part_size)
  if not parts then return nil end
  if not next(parts) then return part_size or M.part_size(job.size, job.part_size) end
  local found = common_size(parts, job.size)
  return (not part_size or found == part_size or common_size(parts, job.size) == nil) and (part_size or found) or found
end

local function abort(job, upload_id)
  pcall(task.shield, 10, call, job, { method = "DELETE", verb = "abort", query = { uploadId = upload_id }, attempts = 2 })
end

-- The uploads to this very key that others, or a run that died before it could write its id down, have begun; newest first.
local function open_uploads(job)
  local ids = {}
  local reply = call(job, { method = "GET", key = "", verb = "list uploads to", query = { uploads = "", prefix = job.key,
    ["max-uploads"] = 1000 } })
  for _, open in ipairs(service.element(reply, "ListMultipartUploadsResult").Upload or {}) do
    if xml.text(open, "Key") == job.key then table.insert(ids, 1, xml.text(open, "UploadId")) end
  end
  return ids
end

local function same_source(saved, job)
  return saved.size == job.size and saved.mtime == job.mtime and saved.ino == job.ino and saved.headers == json.encode(job.headers or {})
end

local function save(state, job, upload_id, part_size)
  state:save { upload_id = upload_id, part_size = part_size, size = job.size, mtime = job.mtime, ino = job.ino, key = job.key,
    bucket = job.bucket.name, path = job.path, headers = json.encode(job.headers or {}) }
end

-- A Complete that the run before had sent may have been carried out after that run was gone.
local function is_there_by_now(job)
  local ok, reply = pcall(call, job, { method = "HEAD", verb = "look at" })
  if not ok or tonumber(reply.headers:get "content-length") ~= job.size then return false end
  local crc = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
  return crc ~= nil and crc == errors.check(fs.digest(job.path, { "crc64" }, 0, job.size)).crc64
end

-- What the run before began, when the file is still the one it was; true when that has come to its end.
local function own_upload(state, job)
  local saved = state.data
  if not saved then return nil end
  if same_source(saved, job) then
    local parts = list_parts(job, saved.upload_id)
    if parts then return saved.upload_id, parts, saved.part_size end
    if is_there_by_now(job) then return true end
  else
    abort(job, saved.upload_id)
  end
  state:clear()
end

local function adopted_upload(state, job)
  for _, upload_id in ipairs(job.upload_id and { job.upload_id } or open_uploads(job)) do
    local parts = list_parts(job, upload_id)
    local part_size = fits(job, parts)
    if part_size then
      save(state, job, upload_id, part_size)
      return upload_id, parts, part_size
    end
  end
end

local function begin(state, job)
  local reply = call(job, { method = "POST", verb = "begin to upload", query = { uploads = "" }, headers = job.headers, idempotent = true })
  local upload_id = xml.text(service.element(reply, "InitiateMultipartUploadResult"), "UploadId")
  local part_size = M.part_size(job.size, job.part_size)
  save(state, job, upload_id, part_size)
  return upload_id, {}, part_size
end

local function find(state, job)
  local upload_id, parts, part_size
  if job.resume then upload_id, parts, part_size = own_upload(state, job) end
  if not upload_id and job.resume then upload_id, parts, part_size = adopted_upload(state, job) end
  if not upload_id then upload_id, parts, part_size = begin(state, job) end
  return upload_id, parts, part_size
end

local function known_of(part, length)
  if not part or part.size ~= length then return nil end
  local md5 = quoted(part.etag)
  return { crc = part.crc, md5 = md5 and #md5 == 32 and crypto.unhex(md5:lower()) or nil, etag = part.etag }
end

local function part_ops(job, upload_id, listed, part_size)
  local ops = {}
  for offset = 0, math.max(job.size, 1) - 1, part_size do
    local number, length = #ops + 1, math.min(part_size, job.size - offset)
    ops[number] = { action = "send", verb = "upload a part of", what = "part " .. number, key = job.key, path = job.path, offset = offset,
      length = length, size = job.size, known = known_of(listed[number], length), query = { partNumber = number, uploadId = upload_id } }
  end
  return ops
end

local function complete_body(parts)
  local lines = { "<CompleteMultipartUpload>" }
  for number, part in ipairs(parts) do
    lines[#lines + 1] = ("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>"):format(number, xml.escape(part.etag))
  end
  lines[#lines + 1] = "</CompleteMultipartUpload>"
  return table.concat(lines, "\n")
end

local function combined_crc(ops, results)
  local crc = results[1].crc
  for i = 2, #results do crc = crypto.crc64_combine(crc, results[i].crc, ops[i].length) end
  return crc
end

-- A lost answer to Complete may hide a success, after which the upload is unknown: the object itself tells.
local function complete(job, upload_id, results, whole)
  local ok, reply = pcall(call, job, { method = "POST", verb = "complete", query = { uploadId = upload_id }, body = complete_body(results),
    idempotent = true, headers = { ["content-type"] = "application/xml",
      ["x-oss-forbid-overwrite"] = job.headers and job.headers["x-oss-forbid-overwrite"] } })
  if not ok then
    if not errors.is(reply, "not_found") then error(reply, 0) end
    local lost = reply
    ok, reply = pcall(call, job, { method = "HEAD", verb = "look at" })
    if not ok or service.u64(reply.headers:get "x-oss-hash-crc64ecma") ~= whole then error(lost, 0) end
  end
  local theirs = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
  if theirs and theirs ~= whole then
    errors.raise("network", ("%s arrived changed: the CRC-64 of the whole differs"):format(object_of(job)),
      { object = object_of(job), code = "CrcMismatch", retryable = true })
  end
end

-- As it was when the transfer began; a file that somebody writes to is not published.
local function check_unchanged(job)
  local stat = errors.check(fs.stat(job.path))
  if stat.size == job.size and stat.mtime == job.mtime and stat.ino == job.ino then return end
  local what = stat.size ~= job.size and ("it had %d bytes, now %d"):format(job.size, stat.size) or "it was written to"
  errors.raise("conflict", ("'%s' changed while it was read: %s"):format(job.path, what), { object = job.path, retryable = false })
end

local function identify(job)
  local stat = errors.check(fs.stat(job.path))
  if stat.type ~= "file" then errors.raise("invalid", ("'%s' is a %s, not a file"):format(job.path, stat.type), { object = job.path }) end
  job.size, job.mtime, job.ino = stat.size, stat.mtime, stat.ino
end

-- The object is made later, when its caller says so; until then nobody sees anything of it.
local function finisher(job, upload_id, results, whole)
  return function()
    complete(job, upload_id, results, whole)
    local state <close> = resume.open("upload", job.bucket, job.key, job.path)
    state:clear()
  end
end

-- What may pass is left for the next run; what cannot be mended by it is ended, since open uploads are billed.
local worth_resuming = { network = true, timeout = true, throttled = true, internal = true, cancelled = true, denied = true }

---Uploads a file in parts.
---@param lane eirun.OssLane
---@param job eirun.OssJob
---@param tally eirun.OssTally
---Raises "conflict" when the file changes meanwhile, "network" when it does not arrive whole after all tries.
function M.parts(lane, job, tally)
  identify(job)
  local state <close> = resume.open("upload", job.bucket, job.key, job.path)
  local upload_id, listed, part_size = find(state, job)
  if upload_id == true then
    tally:part(job, { length = job.size }, { skipped = true })
    state:clear()
    return job.hold and job.hold(function() end)
  end
  local ok, err = pcall(function()
    local ops = part_ops(job, upload_id, listed, part_size)
    local results = task.map(ops, function(op)
      local result = lane:run(op)
      tally:part(job, op, result)
      return result
    end, job.parallel)
    check_unchanged(job)
    local whole = combined_crc(ops, results)
    if job.hold then return job.hold(finisher(job, upload_id, results, whole), whole) end
    complete(job, upload_id, results, whole)
  end)
  if ok and job.hold then return end
  if ok then return state:clear() end
  if err.code == "NoSuchUpload" then state:clear() end
  if not (job.resume and errors.is(err) and worth_resuming[err.kind]) or err.code == "CrcMismatch" then
    pcall(task.shield, QUIET, lane.quiet, lane, job.key) -- a part that arrives after the abort would be billed
    abort(job, upload_id)
    M.undo(job, errors.from(err))
    state:clear()
  end
  error(err, 0)
end

return M
