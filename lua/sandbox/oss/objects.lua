-- SPDX-License-Identifier: Apache-2.0
-- PutObject, GetObject, HeadObject, DeleteObject, CopyObject, DeleteMultipleObjects, tags.
local crypto = require "eirun.core.crypto"
local address = require "sandbox.oss.address"
local conditions = require "sandbox.oss.conditions"
local errors = require "sandbox.oss.errors"
local reply = require "sandbox.oss.reply"
local xml = require "sandbox.oss.xml"

local M = {}

local largest_put, largest_copy = 5 << 30, 1 << 30
local kept_headers = { "Content-Type", "Cache-Control", "Content-Disposition", "Content-Encoding", "Content-Language", "Expires" }
local classes = { Standard = true, IA = true, Archive = true, ColdArchive = true, DeepColdArchive = true }
local max_tags, longest_tag_key, longest_tag_value = 10, 128, 256
local most_meta = 8 << 10

local function id_of(bucket, key) return bucket .. "/" .. key end

function M.find(oss, bucket, key)
  return oss.store:get("oss_object", id_of(bucket, key))
end

function M.need(oss, q)
  local object = M.find(oss, q.bucket, q.key)
  if not object then errors.raise("NoSuchKey", { extra = { { "Key", q.key } } }) end
  return object
end

local function decode_form(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function check_tags(tags)
  if #tags > max_tags then errors.raise("InvalidArgument", { message = "The count of tags exceeds the limit." }) end
  local seen = {}
  for _, tag in ipairs(tags) do
    if tag[1] == "" or #tag[1] > longest_tag_key or #tag[2] > longest_tag_value or seen[tag[1]] then
      errors.raise("InvalidTag", { extra = { { "TagKey", tag[1] } } })
    end
    seen[tag[1]] = true
  end
  return tags
end

local function tags_of_header(text)
  local tags = {}
  for name, value in (text or ""):gmatch "([^&=]+)=?([^&]*)" do tags[#tags + 1] = { decode_form(name), decode_form(value) } end
  return check_tags(tags)
end

local function check_meta(meta)
  local total = 0
  for name, value in pairs(meta) do
    if not name:find "^x%-oss%-meta%-[%w-]+$" then errors.raise("InvalidArgument", { extra = { { "ArgumentName", name } } }) end
    total = total + #name + #value
  end
  if total > most_meta then errors.raise("MetadataTooLarge", { extra = { { "MaxSizeAllowed", most_meta } } }) end
end

---What a request says about the object to be: headers to keep, user metadata, class, tags.
function M.facts(q)
  local class = q.header "x-oss-storage-class" or "Standard"
  if not classes[class] then errors.raise("InvalidArgument", { extra = { { "ArgumentName", "x-oss-storage-class" } } }) end
  local facts = { headers = {}, meta = {}, class = class, acl = q.header "x-oss-object-acl" }
  facts.tags = tags_of_header(q.header "x-oss-tagging")
  for _, name in ipairs(kept_headers) do facts.headers[name] = q.header(name) end
  facts.headers["Content-Type"] = facts.headers["Content-Type"] or "application/octet-stream"
  for _, pair in ipairs(q.req.headers) do
    local name = pair[1]:lower()
    if name:sub(1, 11) == "x-oss-meta-" then facts.meta[name] = pair[2] end
  end
  check_meta(facts.meta)
  return facts
end

function M.check_overwrite(oss, q)
  if q.header "x-oss-forbid-overwrite" == "true" and M.find(oss, q.bucket, q.key) then
    errors.raise("FileAlreadyExists", { extra = { { "Key", q.key } } })
  end
end

---Callbacks would reach out of the sandbox: refused, not passed over.
function M.refuse_callback(q)
  if q.header "x-oss-callback" or q.query.callback then
    errors.raise("NotImplemented", { message = "Callbacks are refused here.", extra = { { "Header", "x-oss-callback" } } })
  end
end

local function check_length(q)
  M.refuse_callback(q)
  local length = q.header "content-length"
  if not length and not (q.header "transfer-encoding" or ""):lower():find("chunked", 1, true) then errors.raise "MissingContentLength" end
  if (tonumber(length) or 0) > largest_put then errors.raise "EntityTooLarge" end
end

---Reads the request's body to a new file and checks Content-MD5. The file is discarded when anything is wrong.
---@return table body { file, size, md5 (raw), crc (integer) }
function M.receive(oss, q)
  check_length(q)
  local wanted = q.header "content-md5"
  local raw = wanted and crypto.unbase64(wanted)
  if wanted and (not raw or #raw ~= 16) then errors.raise "InvalidDigest" end
  local file = oss.disk:new_file()
  local got = q.req:body_to_file(oss.disk:path(file), { digest = { "md5", "crc64" }, max = q.cut_after or largest_put })
  if not got and q.cut_after then q.req:abort() end
  if not got or (raw and got.md5 ~= raw) then
    oss.disk:discard(file)
    errors.raise(got and "InvalidDigest" or "RequestTimeout")
  end
  return { file = file, size = got.size, md5 = got.md5, crc = got.crc64 }
end

---Makes the object what `object` says, in one commit, and lets go of the body it replaces.
function M.commit(oss, bucket, key, object)
  local old = M.find(oss, bucket, key)
  oss.disk:hold(object.file)
  oss.store:put("oss_object", id_of(bucket, key), object)
  if old then oss.disk:release(old.file) end
  oss.ctx.emit("oss.changed", { bucket = bucket, key = key })
end

function M.put(oss, q)
  if q.header "x-oss-copy-source" then return M.copy(oss, q) end
  M.check_overwrite(oss, q)
  local object = M.facts(q)
  local body = M.receive(oss, q)
  if q.header "x-oss-forbid-overwrite" == "true" and M.find(oss, q.bucket, q.key) then
    oss.disk:discard(body.file)
    M.check_overwrite(oss, q)
  end
  object.size, object.file, object.crc, object.type = body.size, body.file, body.crc, "Normal"
  object.etag, object.md5 = crypto.hex(body.md5):upper(), crypto.base64(body.md5)
  object.modified = oss.now()
  M.commit(oss, q.bucket, q.key, object)
  return reply.of(200, { { "ETag", reply.quote(object.etag) }, { "x-oss-hash-crc64ecma", reply.unsigned(object.crc) },
    { "Content-MD5", object.md5 } })
end

local function sorted_names(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function describe(oss, object)
  local headers = { { "ETag", reply.quote(object.etag) }, { "Last-Modified", oss.http_time(object.modified) },
    { "x-oss-object-type", object.type }, { "x-oss-storage-class", object.class },
    { "x-oss-hash-crc64ecma", reply.unsigned(object.crc) }, { "Accept-Ranges", "bytes" } }
  if object.md5 then headers[#headers + 1] = { "Content-MD5", object.md5 } end
  if #object.tags > 0 then headers[#headers + 1] = { "x-oss-tagging-count", tostring(#object.tags) } end
  for _, name in ipairs(kept_headers) do
    if object.headers[name] then headers[#headers + 1] = { name, object.headers[name] } end
  end
  for _, name in ipairs(sorted_names(object.meta)) do headers[#headers + 1] = { name, object.meta[name] } end
  return headers
end

local function override(headers, query)
  for _, name in ipairs(kept_headers) do
    local value = query["response-" .. name:lower()]
    if value then
      for i = #headers, 1, -1 do
        if headers[i][1] == name then table.remove(headers, i) end
      end
      headers[#headers + 1] = { name, value }
    end
  end
end

local function check_readable(object)
  if object.class ~= "Standard" and object.class ~= "IA" then
    errors.raise("InvalidObjectState", { status = 403, ec = "0016-00000719",
      message = "The operation is not valid for the object's state" })
  end
end

function M.get(oss, q)
  local object = M.need(oss, q)
  local headers = describe(oss, object)
  local stop = conditions.check(q, object)
  if stop == 304 then return reply.of(304, headers) end
  check_readable(object)
  override(headers, q.query)
  local range = conditions.range(q, object.size)
  if range then
    headers[#headers + 1] = { "Content-Range", ("bytes %d-%d/%d"):format(range.from, range.to, object.size) }
  end
  local from, length = range and range.from or 0, range and range.to - range.from + 1 or object.size
  return { status = range and 206 or 200, headers = headers, body = "", file = oss.disk:path(object.file), offset = from, length = length }
end

function M.head(oss, q)
  local object = M.need(oss, q)
  local headers = describe(oss, object)
  if conditions.check(q, object) == 304 then return reply.of(304, headers) end
  headers[#headers + 1] = { "Content-Length", tostring(object.size) }
  return reply.of(200, headers)
end

function M.object_meta(oss, q)
  local object = M.need(oss, q)
  return reply.of(200, { { "ETag", reply.quote(object.etag) }, { "Last-Modified", oss.http_time(object.modified) },
    { "x-oss-hash-crc64ecma", reply.unsigned(object.crc) }, { "Content-Length", tostring(q.method == "HEAD" and object.size or 0) } })
end

local function remove(oss, bucket, key)
  local old = M.find(oss, bucket, key)
  if not old then return end
  oss.store:delete("oss_object", id_of(bucket, key))
  oss.disk:release(old.file)
  oss.ctx.emit("oss.changed", { bucket = bucket, key = key })
end

function M.delete(oss, q)
  remove(oss, q.bucket, q.key)
  return reply.of(204)
end

---The body of an XML request; its Content-MD5 is checked when given (or demanded).
function M.read_xml(q, max, md5_needed)
  local text = q.req:body(max)
  if not text then errors.raise "EntityTooLarge" end
  local wanted = q.header "content-md5"
  if not wanted and md5_needed then
    errors.raise("MissingArgument", { message = "Missing Some Required Arguments.", extra = { { "ArgumentName", "Content-MD5" } } })
  end
  if wanted and crypto.unbase64(wanted) ~= crypto.md5(text) then errors.raise "InvalidDigest" end
  return text
end

function M.delete_multiple(oss, q)
  local root = xml.parse(M.read_xml(q, 2 << 20, true))
  local list = root and root[1] == "Delete" and xml.children(root, "Object") or {}
  if #list == 0 or #list > 1000 then errors.raise "MalformedXML" end
  local encode, deleted = reply.encoder(q.query), {}
  for _, node in ipairs(list) do
    local key = xml.text(node, "Key") or errors.raise "MalformedXML"
    deleted[#deleted + 1] = { "Deleted", { { "Key", encode(key) } } }
  end
  oss.store:tx(function()
    for _, node in ipairs(list) do remove(oss, q.bucket, xml.text(node, "Key")) end
  end)
  if xml.text(root, "Quiet") == "true" then return reply.of(200) end
  if q.query["encoding-type"] then table.insert(deleted, 1, { "EncodingType", q.query["encoding-type"] }) end
  return reply.xml { "DeleteResult", deleted }
end

---The object that x-oss-copy-source names, with its conditions checked.
function M.copy_source(oss, q)
  local bucket, key = address.decode(q.header "x-oss-copy-source"):match "^/([^/]+)/([^?]+)"
  if not bucket then errors.raise("InvalidArgument", { extra = { { "ArgumentName", "x-oss-copy-source" } } }) end
  if not oss.store:get("oss_bucket", bucket) then errors.raise("NoSuchBucket", { extra = { { "BucketName", bucket } } }) end
  oss.authorize(q, "oss:GetObject", bucket .. "/" .. key)
  local source = M.find(oss, bucket, key)
  if not source then errors.raise("NoSuchKey", { extra = { { "Key", key } } }) end
  conditions.check_source(q, source)
  return source
end

function M.copy(oss, q)
  local source = M.copy_source(oss, q)
  M.check_overwrite(oss, q)
  if source.size > largest_copy then errors.raise "EntityTooLarge" end
  local replace = q.header "x-oss-metadata-directive" == "REPLACE"
  local facts = M.facts(q)
  local object = { size = source.size, file = source.file, crc = source.crc, type = source.type, etag = source.etag, md5 = source.md5,
    headers = replace and facts.headers or source.headers, meta = replace and facts.meta or source.meta, class = facts.class,
    tags = q.header "x-oss-tagging-directive" == "Replace" and facts.tags or source.tags, acl = facts.acl, modified = oss.now() }
  M.commit(oss, q.bucket, q.key, object)
  return reply.xml({ "CopyObjectResult", { { "ETag", reply.quote(object.etag) }, { "LastModified", reply.time(object.modified) } } },
    { { "x-oss-hash-crc64ecma", reply.unsigned(object.crc) } })
end

local function change(oss, q, fields)
  local object = M.need(oss, q)
  for name, value in pairs(fields) do object[name] = value end
  oss.store:put("oss_object", id_of(q.bucket, q.key), object)
end

function M.put_tagging(oss, q)
  local root = xml.parse(M.read_xml(q, 64 << 10))
  local set = root and root[1] == "Tagging" and xml.children(root, "TagSet")[1]
  if not set then errors.raise "MalformedXML" end
  local tags = {}
  for _, tag in ipairs(xml.children(set, "Tag")) do tags[#tags + 1] = { xml.text(tag, "Key") or "", xml.text(tag, "Value") or "" } end
  change(oss, q, { tags = check_tags(tags) })
  return reply.of(200)
end

function M.get_tagging(oss, q)
  local set = {}
  for i, tag in ipairs(M.need(oss, q).tags) do set[i] = { "Tag", { { "Key", tag[1] }, { "Value", tag[2] } } } end
  return reply.xml { "Tagging", { { "TagSet", set } } }
end

function M.delete_tagging(oss, q)
  change(oss, q, { tags = {} })
  return reply.of(204)
end

local acls = { ["default"] = true, private = true, ["public-read"] = true, ["public-read-write"] = true }

function M.put_acl(oss, q)
  local acl = q.header "x-oss-object-acl"
  if not acls[acl] then errors.raise("InvalidArgument", { extra = { { "ArgumentName", "x-oss-object-acl" } } }) end
  change(oss, q, { acl = acl })
  return reply.of(200)
end

function M.get_acl(oss, q)
  return reply.xml { "AccessControlPolicy", { oss.owner(), { "AccessControlList", { { "Grant", M.need(oss, q).acl or "default" } } } } }
end

return M
