-- SPDX-License-Identifier: Apache-2.0
-- What the service does with objects by itself: copies, deletes in batches, lists and ends uploads that were left open.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local paths = require "eirun.oss.paths"
local service = require "eirun.oss.service"
local task = require "eirun.task"
local wire = require "eirun.wire"
local xml = require "eirun.oss.xml"

local M = {}

local MOST_COPY, COPY_PART, BATCH, AT_ONCE = 1 << 30, 256 << 20, 1000, 4

local function call(bucket, given)
  given.bucket, given.region, given.place = bucket.name, bucket.region, bucket.place
  return service.call(given)
end

-- Deleting ------------------------------------------------------------------------------------------------------------

-- A key that XML cannot carry is deleted by a request of its own.
local function fits_xml(key)
  return not key:find "[%z\1-\8\11-\31]" and utf8.len(key) ~= nil
end

local function delete_body(keys)
  local parts = { "<Delete><Quiet>false</Quiet>" }
  for _, key in ipairs(keys) do parts[#parts + 1] = "<Object><Key>" .. xml.escape(key) .. "</Key></Object>" end
  parts[#parts + 1] = "</Delete>"
  return table.concat(parts)
end

local function delete_batch(bucket, keys)
  local body = delete_body(keys)
  call(bucket, { method = "POST", verb = "delete objects of", query = { delete = "", ["encoding-type"] = "url" }, body = body,
    idempotent = true, headers = { ["content-md5"] = crypto.base64(crypto.md5(body)), ["content-type"] = "application/xml" } })
end

local function batches(keys)
  local list, odd = {}, {}
  for _, key in ipairs(keys) do
    local last = list[#list]
    if not fits_xml(key) then
      odd[#odd + 1] = key
    elseif last and #last < BATCH then
      last[#last + 1] = key
    else
      list[#list + 1] = { key }
    end
  end
  return list, odd
end

---Deletes objects, a thousand a request. Objects that are not there are fine.
---@param bucket eirun.Bucket
---@param keys string[]
---@param on_done? fun(n: integer)
---@return {key: string, error: eirun.Error}[] failed
---Example: `bulk.delete(bucket, { "a", "b" })`. Raises nothing: what fails is listed.
function M.delete(bucket, keys, on_done)
  local failed = {}
  local list, odd = batches(keys)
  local function try(names, fn)
    local ok, err = pcall(fn)
    if ok then return on_done and on_done(#names) end
    if errors.is(err, "cancelled") then error(err, 0) end
    for _, key in ipairs(names) do failed[#failed + 1] = { key = key, error = errors.from(err) } end
  end
  task.map(list, function(names) try(names, function() delete_batch(bucket, names) end) end, AT_ONCE)
  task.map(odd, function(key) try({ key }, function() bucket:delete(key) end) end, AT_ONCE)
  return failed
end

-- Copying -------------------------------------------------------------------------------------------------------------

local function source_header(from, key)
  return "/" .. from.name .. "/" .. wire.encode_path(key)
end

local function copy_part(job, part)
  local reply = call(job.to, { method = "PUT", key = job.to_key, verb = "copy a part to",
    query = { partNumber = part.number, uploadId = job.id },
    headers = { ["x-oss-copy-source"] = source_header(job.from, job.key),
      ["x-oss-copy-source-range"] = ("bytes=%d-%d"):format(part.offset, part.offset + part.length - 1) } })
  part.etag = xml.text(service.element(reply, "CopyPartResult"), "ETag")
end

local function parts_of(size)
  local parts, each = {}, COPY_PART
  while (size + each - 1) // each > 10000 do each = each * 2 end
  for offset = 0, size - 1, each do
    parts[#parts + 1] = { number = #parts + 1, offset = offset, length = math.min(each, size - offset) }
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

local function copy_in_parts(job, size)
  job.id = M.begin(job.to, job.to_key, job.headers)
  local parts = parts_of(size)
  local ok, err = pcall(function()
    task.map(parts, function(part) copy_part(job, part) end, AT_ONCE)
    M.complete(job.to, job.to_key, job.id, parts)
  end)
  if ok then return end
  pcall(task.shield, 10, M.abort, job.to, job.to_key, job.id)
  error(err, 0)
end

local function check_copy(job, seen)
  local copy = job.to:head(job.to_key)
  local good = copy and copy.size == seen.size and (copy.crc64 == nil or seen.crc64 == nil or copy.crc64 == seen.crc64)
  if good then return end
  local object = ("oss://%s/%s"):format(job.to.name, job.to_key)
  errors.raise("network", object .. " is not a copy of its source: its CRC-64 differs", { object = object })
end

---Copies an object inside the service, in parts when it is larger than 1 GB, and compares the copy's CRC-64.
---@param job {from: eirun.Bucket, key: string, to: eirun.Bucket, to_key: string, headers?: table<string, string>}
---@return integer size
---Example: `bulk.copy { from = bucket, key = "a", to = bucket, to_key = "b" }`. Raises "not_found" for no such source.
function M.copy(job)
  paths.check_key(job.to_key, job.to.name)
  local seen = job.from:head(job.key)
  if not seen then
    local object = ("oss://%s/%s"):format(job.from.name, job.key)
    errors.raise("not_found", object .. " does not exist", { object = object })
  end
  if seen.size > MOST_COPY then
    copy_in_parts(job, seen.size)
  else
    local headers = { ["x-oss-copy-source"] = source_header(job.from, job.key) }
    for name, value in pairs(job.headers or {}) do headers[name] = value end
    call(job.to, { method = "PUT", key = job.to_key, verb = "copy to", headers = headers })
  end
  check_copy(job, seen)
  return seen.size
end

---The account's buckets; see `oss.buckets`.
---@param region? string
---@return {name: string, region: string, created: string, class: string}[]
---Example: `bulk.buckets()[1].name`. Raises "denied" without the right.
function M.buckets(region)
  local list, marker = {}, nil
  repeat
    local page = service.element(service.call { method = "GET", region = region, verb = "list the buckets of",
      query = { ["max-keys"] = 1000, marker = marker } }, "ListAllMyBucketsResult")
    local holder = page.Buckets and page.Buckets[1]
    for _, row in ipairs(type(holder) == "table" and holder.Bucket or {}) do
      list[#list + 1] = { name = xml.text(row, "Name"), region = (xml.text(row, "Location") or ""):gsub("^oss%-", ""),
        created = xml.text(row, "CreationDate"), class = xml.text(row, "StorageClass") }
    end
    marker = xml.text(page, "IsTruncated") == "true" and xml.text(page, "NextMarker") or nil
  until not marker
  return list
end

-- Uploads -------------------------------------------------------------------------------------------------------------

---Begins an upload in parts.
---@param bucket eirun.Bucket
---@param key string
---@param headers? table<string, string>
---@return string upload_id
---Example: `local id = bulk.begin(bucket, "big.bin")`. Raises "conflict" with x-oss-forbid-overwrite when the object exists.
function M.begin(bucket, key, headers)
  local reply = call(bucket, { method = "POST", key = key, verb = "begin to upload", query = { uploads = "", ["encoding-type"] = "url" },
    headers = headers, idempotent = true })
  return xml.text(service.element(reply, "InitiateMultipartUploadResult"), "UploadId")
end

---Makes the object out of its parts; nobody sees anything of it before.
---@param bucket eirun.Bucket
---@param key string
---@param id string
---@param parts {number: integer, etag: string}[]
---@param headers? table<string, string>
---@return integer|nil crc64 of the whole
---Example: `bulk.complete(bucket, "big.bin", id, parts)`. Raises "not_found" for an upload that is not open.
function M.complete(bucket, key, id, parts, headers)
  local all = { ["content-type"] = "application/xml" }
  for name, value in pairs(headers or {}) do all[name] = value end
  local reply = call(bucket, { method = "POST", key = key, verb = "complete", query = { uploadId = id }, body = complete_body(parts),
    idempotent = true, headers = all })
  return service.u64(reply.headers:get "x-oss-hash-crc64ecma")
end

---Ends an upload; its parts are no longer billed. One that is gone is fine.
---@param bucket eirun.Bucket
---@param key string
---@param id string
---Example: `bulk.abort(bucket, "big.bin", id)`. Raises "denied" without the right.
function M.abort(bucket, key, id)
  local ok, err = pcall(call, bucket, { method = "DELETE", key = key, verb = "abort", query = { uploadId = id } })
  if not ok and not errors.is(err, "not_found") then error(err, 0) end
end

local function unescape(text)
  return (text:gsub("%+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

---Uploads that nobody completed, by key.
---@param bucket eirun.Bucket
---@param prefix? string
---@return {key: string, id: string, initiated: number, class: string|nil}[]
---Example: `for _, open in ipairs(bulk.uploads(bucket)) do print(open.key, open.id) end`. Raises as `bucket:list`.
function M.uploads(bucket, prefix)
  local list, key_marker, id_marker = {}, nil, nil
  repeat
    local page = service.element(call(bucket, { method = "GET", verb = "list the uploads of", query = { uploads = "",
      prefix = prefix ~= "" and prefix or nil, ["max-uploads"] = 1000, ["encoding-type"] = "url", ["key-marker"] = key_marker,
      ["upload-id-marker"] = id_marker } }), "ListMultipartUploadsResult")
    for _, open in ipairs(page.Upload or {}) do
      list[#list + 1] = { key = unescape(xml.text(open, "Key") or ""), id = xml.text(open, "UploadId"),
        class = xml.text(open, "StorageClass"), initiated = wire.parse_time(xml.text(open, "Initiated") or "") }
    end
    local more = xml.text(page, "IsTruncated") == "true"
    key_marker = more and unescape(xml.text(page, "NextKeyMarker") or "") or nil
    id_marker = more and xml.text(page, "NextUploadIdMarker") or nil
  until not key_marker or key_marker == ""
  return list
end

---The parts of an open upload.
---@param bucket eirun.Bucket
---@param key string
---@param id string
---@return {number: integer, size: integer, etag: string, crc64: integer|nil}[]
---Example: `#bulk.parts(bucket, "big.bin", id)`. Raises "not_found" for an upload that is not open.
function M.parts(bucket, key, id)
  local list, marker = {}, nil
  repeat
    local page = service.element(call(bucket, { method = "GET", key = key, verb = "list the parts of",
      query = { uploadId = id, ["max-parts"] = 1000, ["part-number-marker"] = marker } }), "ListPartsResult")
    for _, part in ipairs(page.Part or {}) do
      list[#list + 1] = { number = math.tointeger(tonumber(xml.text(part, "PartNumber"))), etag = xml.text(part, "ETag"),
        size = math.tointeger(tonumber(xml.text(part, "Size"))), crc64 = service.u64(xml.text(part, "HashCrc64ecma")) }
    end
    marker = xml.text(page, "IsTruncated") == "true" and xml.text(page, "NextPartNumberMarker") or nil
  until not marker
  return list
end

return M
