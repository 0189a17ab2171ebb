-- SPDX-License-Identifier: Apache-2.0
-- Uploads in parts: initiate, parts (sent or copied), lists, complete, abort.
local crypto = require "eirun.core.crypto"
local buckets = require "sandbox.oss.buckets"
local errors = require "sandbox.oss.errors"
local listing = require "sandbox.oss.listing"
local objects = require "sandbox.oss.objects"
local reply = require "sandbox.oss.reply"
local xml = require "sandbox.oss.xml"

local M = {}

local most_parts, smallest_part = 10000, 100 * 1024

local function part_id(upload_id, number) return ("%s/%05d"):format(upload_id, number) end

local function need_upload(oss, q)
  local id = q.query.uploadId
  local upload = oss.store:get("oss_upload", id)
  if not upload or upload.bucket ~= q.bucket or upload.key ~= q.key then
    errors.raise("NoSuchUpload", { extra = { { "UploadId", id } } })
  end
  return upload, id
end

-- { number, part } of an upload in order.
local function parts_of(oss, id)
  local keys, list = oss.sorted_keys "oss_part", {}
  local at = listing.place(keys, id .. "/")
  while keys[at] and keys[at]:sub(1, #id + 1) == id .. "/" do
    list[#list + 1] = { math.tointeger(tonumber(keys[at]:sub(#id + 2))), oss.store:get("oss_part", keys[at]) }
    at = at + 1
  end
  return list
end

function M.initiate(oss, q)
  objects.check_overwrite(oss, q)
  local upload = objects.facts(q)
  upload.bucket, upload.key, upload.initiated = q.bucket, q.key, oss.now()
  local id = oss.upload_id()
  oss.store:put("oss_upload", id, upload)
  local encode = reply.encoder(q.query)
  local nodes = { { "Bucket", q.bucket }, { "Key", encode(q.key) }, { "UploadId", id } }
  if q.query["encoding-type"] then table.insert(nodes, 1, { "EncodingType", q.query["encoding-type"] }) end
  return reply.xml { "InitiateMultipartUploadResult", nodes }
end

local function part_number(q)
  local n = math.tointeger(tonumber(q.query.partNumber))
  if not n or n < 1 or n > most_parts then
    errors.raise("InvalidArgument", { message = "Part number must be an integer between 1 and 10000, inclusive.",
      extra = { { "ArgumentName", "partNumber" }, { "ArgumentValue", tostring(q.query.partNumber) } } })
  end
  return n
end

-- The upload may have been completed or aborted while the part was on its way.
local function keep_part(oss, q, id, number, body)
  if not oss.store:get("oss_upload", id) then
    oss.disk:discard(body.file)
    need_upload(oss, q)
  end
  local key = part_id(id, number)
  local old = oss.store:get("oss_part", key)
  local part = { size = body.size, file = body.file, crc = body.crc, etag = crypto.hex(body.md5):upper(), modified = oss.now() }
  oss.disk:hold(part.file)
  oss.store:put("oss_part", key, part)
  if old then oss.disk:release(old.file) end
  return part
end

local function copy_range(q, source)
  local text = q.header "x-oss-copy-source-range"
  if not text then return 0, source.size end
  local from, to = text:match "^bytes=(%d+)%-(%d+)$"
  from, to = math.tointeger(tonumber(from)), math.tointeger(tonumber(to))
  if not from or from > to or to >= source.size then errors.raise "InvalidRange" end
  return from, to - from + 1
end

local function copy_part(oss, q, id, number)
  local source = objects.copy_source(oss, q)
  local from, length = copy_range(q, source)
  local file = oss.disk:join { { file = source.file, offset = from, length = length } }
  local digests = oss.digest(oss.disk:path(file))
  local part = keep_part(oss, q, id, number, { file = file, size = length, md5 = digests.md5, crc = digests.crc64 })
  return reply.xml({ "CopyPartResult", { { "LastModified", reply.time(part.modified) }, { "ETag", reply.quote(part.etag) } } },
    { { "x-oss-hash-crc64ecma", reply.unsigned(part.crc) } })
end

function M.upload_part(oss, q)
  local _, id = need_upload(oss, q)
  local number = part_number(q)
  if q.header "x-oss-copy-source" then return copy_part(oss, q, id, number) end
  local body = objects.receive(oss, q)
  local part = keep_part(oss, q, id, number, body)
  return reply.of(200, { { "ETag", reply.quote(part.etag) }, { "x-oss-hash-crc64ecma", reply.unsigned(part.crc) },
    { "Content-MD5", crypto.base64(body.md5) } })
end

function M.list_parts(oss, q)
  local upload, id = need_upload(oss, q)
  local max = buckets.count_of(q.query, "max-parts", 1000, 1000)
  local marker = buckets.count_of(q.query, "part-number-marker", 0, most_parts)
  local shown, truncated, last = {}, false, marker
  for _, entry in ipairs(parts_of(oss, id)) do
    if entry[1] > marker then
      if #shown >= max then truncated = true break end
      local part = entry[2]
      last = entry[1]
      shown[#shown + 1] = { "Part", { { "PartNumber", entry[1] }, { "LastModified", reply.time(part.modified) },
        { "ETag", reply.quote(part.etag) }, { "HashCrc64ecma", reply.unsigned(part.crc) }, { "Size", part.size } } }
    end
  end
  local nodes = { { "Bucket", q.bucket }, { "Key", reply.encoder(q.query)(upload.key) }, { "UploadId", id },
    { "StorageClass", upload.class }, { "PartNumberMarker", marker }, { "NextPartNumberMarker", last }, { "MaxParts", max },
    { "IsTruncated", truncated } }
  if q.query["encoding-type"] then table.insert(nodes, 1, { "EncodingType", q.query["encoding-type"] }) end
  return reply.xml { "ListPartsResult", table.move(shown, 1, #shown, #nodes + 1, nodes) }
end

-- All uploads of a bucket as { key, id, upload }, by key, then by id.
local function uploads_of(oss, q)
  local list, prefix = {}, q.query.prefix or ""
  for id, upload in oss.store:each "oss_upload" do
    if upload.bucket == q.bucket and upload.key:sub(1, #prefix) == prefix then list[#list + 1] = { upload.key, id, upload } end
  end
  table.sort(list, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  return list
end

local function past_marker(entry, query)
  local key, id = query["key-marker"] or "", query["upload-id-marker"] or ""
  if key == "" then return true end
  return entry[1] > key or (entry[1] == key and id ~= "" and entry[2] > id)
end

-- Uploads and folded prefixes of one page.
local function page_of_uploads(oss, q, max)
  local query, items, seen, truncated, last = q.query, {}, {}, false, nil
  local delimiter, from = query.delimiter or "", #(query.prefix or "") + 1
  for _, entry in ipairs(uploads_of(oss, q)) do
    local _, stop
    if delimiter ~= "" then _, stop = entry[1]:find(delimiter, from, true) end
    local prefix = stop and entry[1]:sub(1, stop)
    if past_marker(entry, query) and not (prefix and seen[prefix]) then
      if #items >= max then truncated = true break end
      if prefix then seen[prefix] = true end
      items[#items + 1] = prefix and { prefix = prefix } or { entry = entry }
      last = entry
    end
  end
  return items, truncated, last
end

function M.list_uploads(oss, q)
  local query, encode = q.query, reply.encoder(q.query)
  local max = buckets.count_of(query, "max-uploads", 1000, 1000)
  local items, truncated, last = page_of_uploads(oss, q, max)
  local nodes = { { "Bucket", q.bucket }, { "KeyMarker", encode(query["key-marker"] or "") },
    { "UploadIdMarker", query["upload-id-marker"] or "" }, { "NextKeyMarker", truncated and encode(last[1]) or "" },
    { "NextUploadIdMarker", truncated and last[2] or "" }, { "Delimiter", encode(query.delimiter or "") },
    { "Prefix", encode(query.prefix or "") }, { "MaxUploads", max }, { "IsTruncated", truncated } }
  if query["encoding-type"] then table.insert(nodes, 1, { "EncodingType", query["encoding-type"] }) end
  for _, item in ipairs(items) do
    local entry = item.entry
    nodes[#nodes + 1] = entry and { "Upload", { { "Key", encode(entry[1]) }, { "UploadId", entry[2] },
      { "StorageClass", entry[3].class }, { "Initiated", reply.time(entry[3].initiated) } } }
      or { "CommonPrefixes", { { "Prefix", encode(item.prefix) } } }
  end
  return reply.xml { "ListMultipartUploadsResult", nodes }
end

-- What Complete asks for: { { number, etag } ... }
local function asked_parts(q)
  local text = objects.read_xml(q, 4 << 20)
  if q.header "x-oss-complete-all" == "yes" then
    if text ~= "" then errors.raise("InvalidArgument", { ec = "0042-00000216", message = "The request body must be empty." }) end
    return nil
  end
  local root = xml.parse(text)
  local list = {}
  for i, node in ipairs(root and root[1] == "CompleteMultipartUpload" and xml.children(root, "Part") or {}) do
    local number = math.tointeger(tonumber(xml.text(node, "PartNumber")))
    local etag = (xml.text(node, "ETag") or ""):match "^%s*(.-)%s*$"
    list[i] = { number or errors.raise("MalformedXML", { ec = "0042-00000205" }), reply.unquote(etag) }
  end
  if #list == 0 then errors.raise("MalformedXML", { ec = "0042-00000205" }) end
  return list
end

local function choose_parts(oss, id, asked)
  local stored = parts_of(oss, id)
  if not asked then return stored end
  local by_number, chosen = {}, {}
  for _, entry in ipairs(stored) do by_number[entry[1]] = entry end
  for i, want in ipairs(asked) do
    local entry = by_number[want[1]]
    if i > 1 and want[1] <= asked[i - 1][1] then errors.raise "InvalidPartOrder" end
    if not entry or entry[2].etag ~= want[2]:upper() then
      errors.raise("InvalidPart", { extra = { { "PartNumber", want[1] }, { "PartEtag", want[2] } } })
    end
    chosen[i] = entry
  end
  return chosen
end

local function check_sizes(chosen)
  if #chosen == 0 then errors.raise "InvalidPart" end
  for i = 1, #chosen - 1 do
    local part = chosen[i][2]
    if part.size < smallest_part then
      errors.raise("EntityTooSmall", { extra = { { "PartNumber", chosen[i][1] }, { "MinSizeAllowed", smallest_part },
        { "ProposedSize", part.size } } })
    end
  end
end

-- Size, CRC and ETag of the whole from those of its parts.
local function sum_up(object, chosen)
  local etags = {}
  object.size, object.crc = 0, 0
  for i, entry in ipairs(chosen) do
    local part = entry[2]
    object.crc = i == 1 and part.crc or crypto.crc64_combine(object.crc, part.crc, part.size)
    object.size, etags[i] = object.size + part.size, part.etag
  end
  object.etag = ("%s-%d"):format(crypto.hex(crypto.md5(table.concat(etags))):upper(), #chosen)
end

local function forget(oss, id)
  oss.store:delete("oss_upload", id)
  for _, entry in ipairs(parts_of(oss, id)) do
    oss.store:delete("oss_part", part_id(id, entry[1]))
    oss.disk:release(entry[2].file)
  end
end

local function join(oss, chosen)
  if #chosen == 1 then return chosen[1][2].file end
  local pieces = {}
  for i, entry in ipairs(chosen) do pieces[i] = { file = entry[2].file } end
  return oss.disk:join(pieces)
end

function M.complete(oss, q)
  objects.refuse_callback(q)
  local upload, id = need_upload(oss, q)
  local asked = asked_parts(q)
  objects.check_overwrite(oss, q)
  local chosen = choose_parts(oss, id, asked)
  check_sizes(chosen)
  local object = { headers = upload.headers, meta = upload.meta, class = upload.class, tags = upload.tags, acl = upload.acl,
    type = "Multipart", modified = oss.now(), file = join(oss, chosen) }
  need_upload(oss, q) -- joining took time: somebody may have been faster
  objects.check_overwrite(oss, q)
  sum_up(object, chosen)
  oss.store:tx(function()
    objects.commit(oss, q.bucket, q.key, object)
    forget(oss, id)
  end)
  local encode = reply.encoder(q.query)
  local nodes = { { "Location", ("http://%s/%s"):format(q.host, encode(q.key)) }, { "Bucket", q.bucket }, { "Key", encode(q.key) },
    { "ETag", reply.quote(object.etag) } }
  if q.query["encoding-type"] then table.insert(nodes, 1, { "EncodingType", q.query["encoding-type"] }) end
  return reply.xml({ "CompleteMultipartUploadResult", nodes },
    { { "ETag", reply.quote(object.etag) }, { "x-oss-hash-crc64ecma", reply.unsigned(object.crc) } })
end

function M.abort(oss, q)
  local _, id = need_upload(oss, q)
  oss.store:tx(function() forget(oss, id) end)
  return reply.of(204)
end

return M
