-- SPDX-License-Identifier: Apache-2.0
-- Buckets and what is listed in them.
local crypto = require "eirun.core.crypto"
local address = require "sandbox.oss.address"
local errors = require "sandbox.oss.errors"
local listing = require "sandbox.oss.listing"
local objects = require "sandbox.oss.objects"
local reply = require "sandbox.oss.reply"
local xml = require "sandbox.oss.xml"

local M = {}

local most_buckets = 100
local acls = { private = true, ["public-read"] = true, ["public-read-write"] = true }

local function invalid(name, value)
  errors.raise("InvalidArgument", { extra = { { "ArgumentName", name }, { "ArgumentValue", tostring(value) } } })
end

---A whole number from the query within its limits, else the default.
function M.count_of(query, name, default, most)
  local text = query[name]
  if text == nil or text == "" then return default end
  local n = math.tointeger(tonumber(text))
  if not n or n < 0 or n > most then invalid(name, text) end
  return n
end

function M.create(oss, q)
  address.check_bucket_name(q.bucket)
  if oss.store:get("oss_bucket", q.bucket) then errors.raise("BucketAlreadyExists", { extra = { { "BucketName", q.bucket } } }) end
  if oss.store:count "oss_bucket" >= most_buckets then errors.raise "TooManyBuckets" end
  local acl = q.header "x-oss-acl" or "private"
  if not acls[acl] then invalid("x-oss-acl", acl) end
  local text = objects.read_xml(q, 64 << 10)
  local root = text ~= "" and xml.parse(text) or nil
  if text ~= "" and not (root and root[1] == "CreateBucketConfiguration") then errors.raise "MalformedXML" end
  local function said(name) return root and xml.text(root, name) end
  M.make(oss, q.bucket, { acl = acl, class = said "StorageClass", redundancy = said "DataRedundancyType" })
  return reply.of(200, { { "Location", "/" .. q.bucket } })
end

function M.make(oss, name, facts)
  oss.store:put("oss_bucket", name, { region = oss.region, created = oss.now(), acl = facts.acl or "private",
    class = facts.class or "Standard", redundancy = facts.redundancy or "LRS" })
end

local function first_key(oss, kind, bucket)
  local keys = oss.sorted_keys(kind)
  local key = keys[listing.place(keys, bucket .. "/")]
  return key and key:sub(1, #bucket + 1) == bucket .. "/"
end

function M.delete(oss, q)
  if first_key(oss, "oss_object", q.bucket) then errors.raise("BucketNotEmpty", { extra = { { "BucketName", q.bucket } } }) end
  for _, upload in oss.store:each "oss_upload" do
    if upload.bucket == q.bucket then errors.raise("BucketNotEmpty", { extra = { { "BucketName", q.bucket } } }) end
  end
  oss.store:delete("oss_bucket", q.bucket)
  return reply.of(204)
end

local function endpoints(bucket)
  return "oss-" .. bucket.region .. ".aliyuncs.com", "oss-" .. bucket.region .. "-internal.aliyuncs.com"
end

local function describe(oss, name, bucket)
  local public, internal = endpoints(bucket)
  return { "Bucket", { { "AccessMonitor", "Disabled" }, { "CreationDate", reply.time(bucket.created) }, { "ExtranetEndpoint", public },
    { "IntranetEndpoint", internal }, { "Location", "oss-" .. bucket.region }, { "StorageClass", bucket.class },
    { "DataRedundancyType", bucket.redundancy }, { "TransferAcceleration", "Disabled" }, { "CrossRegionReplication", "Disabled" },
    { "Name", name }, { "ResourceGroupId", "rg-acfmxhp7sandbox" }, oss.owner(),
    { "AccessControlList", { { "Grant", bucket.acl } } }, { "ServerSideEncryptionRule", { { "SSEAlgorithm", "None" } } },
    { "BucketPolicy", { { "LogBucket", "" }, { "LogPrefix", "" } } }, { "Comment", "" }, { "BlockPublicAccess", "false" } } }
end

function M.info(oss, q)
  return reply.xml { "BucketInfo", { describe(oss, q.bucket, q.record) } }
end

function M.location(_, q)
  return reply.xml { "LocationConstraint", "oss-" .. q.record.region }
end

function M.get_acl(oss, q)
  return reply.xml { "AccessControlPolicy", { oss.owner(), { "AccessControlList", { { "Grant", q.record.acl } } } } }
end

function M.put_acl(oss, q)
  local acl = q.header "x-oss-acl"
  if not acls[acl] then invalid("x-oss-acl", acl) end
  q.record.acl = acl
  oss.store:put("oss_bucket", q.bucket, q.record)
  return reply.of(200)
end

function M.versioning(_)
  return reply.xml { "VersioningConfiguration", "" }
end

---An operation that says no: versioning is off and stays off, since nothing here keeps versions; buckets have no tags.
function M.refuse(name)
  return function() errors.raise("NotImplemented", { extra = { { "Header", name } } }) end
end

function M.stat(oss, q)
  local size, count = 0, 0
  for key, object in oss.store:each "oss_object" do
    if key:sub(1, #q.bucket + 1) == q.bucket .. "/" then size, count = size + object.size, count + 1 end
  end
  return reply.xml { "BucketStat", { { "Storage", size }, { "ObjectCount", count }, { "MultipartUploadCount", 0 } } }
end

function M.list_buckets(oss, q)
  local prefix, marker, max = q.query.prefix or "", q.query.marker or "", M.count_of(q.query, "max-keys", 100, 1000)
  local page = listing.page(oss.sorted_keys "oss_bucket", "", { prefix = prefix, delimiter = "", marker = marker, max = max })
  local list = {}
  for i, item in ipairs(page.items) do
    local bucket = oss.store:get("oss_bucket", item.name)
    local public, internal = endpoints(bucket)
    list[i] = { "Bucket", { { "CreationDate", reply.time(bucket.created) }, { "ExtranetEndpoint", public },
      { "IntranetEndpoint", internal }, { "Location", "oss-" .. bucket.region }, { "Name", item.name },
      { "Region", bucket.region }, { "StorageClass", bucket.class } } }
  end
  local nodes = { oss.owner(), { "Buckets", list } }
  if prefix ~= "" or marker ~= "" or page.truncated then
    local more = { { "Prefix", prefix }, { "Marker", marker }, { "MaxKeys", max }, { "IsTruncated", page.truncated } }
    table.move(more, 1, #more, #nodes + 1, nodes)
  end
  if page.truncated then nodes[#nodes + 1] = { "NextMarker", page.last } end
  return reply.xml { "ListAllMyBucketsResult", nodes }
end

-- Listing objects ------------------------------------------------------------------------------------------------

-- The token is opaque to clients: base64, with "-" for "=", of a protobuf whose field 1 is the last name given.
local function length_prefix(n)
  local out = {}
  repeat
    out[#out + 1] = string.char((n & 0x7F) | (n > 0x7F and 0x80 or 0))
    n = n >> 7
  until n == 0
  return table.concat(out)
end

function M.token(name)
  return (crypto.base64("\10" .. length_prefix(#name) .. name):gsub("=", "-"))
end

function M.untoken(token)
  local raw = crypto.unbase64((token:gsub("-", "=")))
  if not raw or raw:byte(1) ~= 10 then invalid("continuation-token", token) end
  local at = 2
  while (raw:byte(at) or 0) >= 0x80 do at = at + 1 end
  return raw:sub(at + 1)
end

local function contents(oss, q, item, encode, with_owner)
  local object = objects.find(oss, q.bucket, item.name)
  local node = { { "Key", encode(item.name) }, { "LastModified", reply.time(object.modified) }, { "ETag", reply.quote(object.etag) },
    { "Type", object.type }, { "Size", object.size }, { "StorageClass", object.class } }
  if with_owner then node[#node + 1] = oss.owner() end
  return { "Contents", node }
end

local function page_of(oss, q, marker, max)
  local query = q.query
  return listing.page(oss.sorted_keys "oss_object", q.bucket .. "/",
    { prefix = query.prefix or "", delimiter = query.delimiter or "", marker = marker, max = max })
end

-- Contents first, then the folded prefixes, as the service orders its XML.
local function add_items(oss, q, nodes, page, encode, with_owner)
  for _, item in ipairs(page.items) do
    if item.name then nodes[#nodes + 1] = contents(oss, q, item, encode, with_owner) end
  end
  for _, item in ipairs(page.items) do
    if item.prefix then nodes[#nodes + 1] = { "CommonPrefixes", { { "Prefix", encode(item.prefix) } } } end
  end
end

local function opening(q, encode, max)
  local query = q.query
  local nodes = { { "Name", q.bucket }, { "Prefix", encode(query.prefix or "") }, { "MaxKeys", max } }
  if query.delimiter then nodes[#nodes + 1] = { "Delimiter", encode(query.delimiter) } end
  if query["encoding-type"] then nodes[#nodes + 1] = { "EncodingType", query["encoding-type"] } end
  return nodes
end

local function list_v2(oss, q)
  local query, encode = q.query, reply.encoder(q.query)
  local max = M.count_of(query, "max-keys", 100, 1000)
  if max < 1 then invalid("max-keys", max) end
  local token = query["continuation-token"]
  local marker = token and token ~= "" and M.untoken(token) or query["start-after"] or ""
  local page = page_of(oss, q, marker, max)
  local nodes = opening(q, encode, max)
  nodes[#nodes + 1] = { "IsTruncated", page.truncated }
  nodes[#nodes + 1] = { "KeyCount", #page.items }
  if query["start-after"] then nodes[#nodes + 1] = { "StartAfter", encode(query["start-after"]) } end
  if token then nodes[#nodes + 1] = { "ContinuationToken", token } end
  if page.truncated then nodes[#nodes + 1] = { "NextContinuationToken", M.token(page.last) } end
  add_items(oss, q, nodes, page, encode, query["fetch-owner"] == "true")
  return reply.xml { "ListBucketResult", nodes }
end

local function list_v1(oss, q)
  local query, encode = q.query, reply.encoder(q.query)
  local max = M.count_of(query, "max-keys", 100, 1000)
  local page = page_of(oss, q, query.marker or "", max)
  local nodes = opening(q, encode, max)
  table.insert(nodes, 3, { "Marker", encode(query.marker or "") })
  nodes[#nodes + 1] = { "IsTruncated", page.truncated }
  if page.truncated and page.last then nodes[#nodes + 1] = { "NextMarker", encode(page.last) } end
  add_items(oss, q, nodes, page, encode, true)
  return reply.xml { "ListBucketResult", nodes }
end

function M.list_objects(oss, q)
  if q.query["list-type"] == "2" then return list_v2(oss, q) end
  return list_v1(oss, q)
end

return M
