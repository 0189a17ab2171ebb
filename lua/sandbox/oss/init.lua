-- SPDX-License-Identifier: Apache-2.0
-- The object store: who asks, for what, may they; then one operation, one commit, one answer.
local fs = require "eirun.core.fs"
local faults = require "sandbox.faults"
local policy = require "sandbox.cloud.policy"
local hosts = require "sandbox.hosts"
local times = require "sandbox.times"
local address = require "sandbox.oss.address"
local buckets = require "sandbox.oss.buckets"
local disk = require "sandbox.oss.disk"
local errors = require "sandbox.oss.errors"
local multipart = require "sandbox.oss.multipart"
local objects = require "sandbox.oss.objects"
local policies = require "sandbox.oss.policies"
local reply = require "sandbox.oss.reply"
local sign = require "sandbox.oss.sign"
local trouble = require "sandbox.oss.trouble"

local M = {}

-- Regions whose public endpoints answer (with "wrong endpoint", for a bucket that lives here).
local neighbours = { "cn-beijing", "cn-shanghai", "cn-shenzhen", "cn-zhangjiakou" }

-- { sub-resource, name, operation }, the first sub-resource that is present wins; "" is the plain request.
local service_level = { GET = { { "", "ListBuckets", buckets.list_buckets } } }
local bucket_level = {
  GET = {
    { "bucketInfo", "GetBucketInfo", buckets.info }, { "location", "GetBucketLocation", buckets.location },
    { "acl", "GetBucketAcl", buckets.get_acl }, { "uploads", "ListMultipartUploads", multipart.list_uploads },
    { "versioning", "GetBucketVersioning", buckets.versioning }, { "stat", "GetBucketStat", buckets.stat },
    { "policy", "GetBucketPolicy", policies.get },
    { "", "ListObjects", buckets.list_objects },
  },
  HEAD = { { "", "GetBucketInfo", function() return reply.of(200) end } },
  PUT = { { "acl", "PutBucketAcl", buckets.put_acl }, { "policy", "PutBucketPolicy", policies.put },
    { "versioning", "PutBucketVersioning", buckets.refuse "versioning" }, { "tagging", "PutBucketTags", buckets.refuse "tagging" },
    { "", "PutBucket", buckets.create } },
  POST = { { "delete", "DeleteMultipleObjects", objects.delete_multiple } },
  DELETE = { { "policy", "DeleteBucketPolicy", policies.delete }, { "", "DeleteBucket", buckets.delete } },
}
local object_level = {
  GET = {
    { "uploadId", "ListParts", multipart.list_parts }, { "tagging", "GetObjectTagging", objects.get_tagging },
    { "acl", "GetObjectAcl", objects.get_acl }, { "objectMeta", "GetObjectMeta", objects.object_meta }, { "", "GetObject", objects.get },
  },
  HEAD = { { "objectMeta", "GetObjectMeta", objects.object_meta }, { "", "HeadObject", objects.head } },
  PUT = {
    { "partNumber", "UploadPart", multipart.upload_part }, { "tagging", "PutObjectTagging", objects.put_tagging },
    { "acl", "PutObjectAcl", objects.put_acl }, { "", "PutObject", objects.put },
  },
  POST = { { "uploads", "InitiateMultipartUpload", multipart.initiate }, { "uploadId", "CompleteMultipartUpload", multipart.complete } },
  DELETE = {
    { "uploadId", "AbortMultipartUpload", multipart.abort }, { "tagging", "DeleteObjectTagging", objects.delete_tagging },
    { "", "DeleteObject", objects.delete },
  },
}
-- Sub-resources that exist and are not played here: better refused than taken for the plain request.
local elsewhere = { "append", "symlink", "restore", "cors", "lifecycle", "website", "logging", "referer", "encryption",
  "replication", "inventory", "worm", "callback", "vod", "versions",
  "versionId", "live", "select", "x-oss-process", "asyncFetch", "resourceGroup",
  "accessmonitor", "transferAcceleration", "requestPayment", "publicAccessBlock", "policyStatus", "metaQuery" }

-- Which permission an operation needs, where its name is not it.
local permission = { HeadObject = "GetObject", GetObjectMeta = "GetObject", UploadPart = "PutObject", InitiateMultipartUpload = "PutObject",
  CompleteMultipartUpload = "PutObject", DeleteMultipleObjects = "DeleteObject" }
local public_reads = { GetObject = true, HeadObject = true, GetObjectMeta = true }
local public_writes = { PutObject = true, UploadPart = true, InitiateMultipartUpload = true, CompleteMultipartUpload = true,
  DeleteObject = true }

local function operation_of(q)
  for _, name in ipairs(elsewhere) do
    if q.query[name] then errors.raise("NotImplemented", { extra = { { "Header", name } } }) end
  end
  local level = (not q.bucket and service_level) or (q.key == "" and bucket_level) or object_level
  for _, row in ipairs(level[q.method] or {}) do
    if row[1] == "" or q.query[row[1]] then return row[2], row[3] end
  end
  errors.raise("MethodNotAllowed", { extra = { { "Method", q.method } } })
end

local function request_view(req, way)
  local q = { req = req, method = req.method, bucket = way.bucket, key = way.key or "", headers = req.headers, query = {} }
  q.query_list = req:query_list()
  for _, pair in ipairs(q.query_list) do q.query[pair[1]] = pair[2] end
  function q.header(name) return req.headers:get(name) end
  return q
end

local function signed_as(oss, q, host)
  local request = { method = q.method, bucket = q.bucket, key = q.key, query = q.query_list, headers = q.headers }
  return sign.verify(request, { lookup = oss.ctx.credentials.lookup, now = oss.ctx.wall(), region = host.region or oss.region })
end

-- The reading of the request that its signature fits; the first reading's failure when none does.
local function identify(oss, req, host_name)
  local ways, host = address.read(host_name, req.path)
  local first
  for _, way in ipairs(ways) do
    local q = request_view(req, way)
    local ok, identity = pcall(signed_as, oss, q, host)
    if ok then
      q.identity, q.at = identity, host
      return q
    end
    first = first or identity
    if not errors.is(identity) then break end
  end
  error(first, 0)
end

local function anonymous_may(q, name)
  local acl = q.record and q.record.acl
  if acl == "public-read-write" then return public_reads[name] or public_writes[name] end
  return acl == "public-read" and public_reads[name]
end

-- The bucket's own policy: a Deny wins over everything, an Allow lets in whom nothing else would.
local function policy_says(oss, q, action, resource)
  local who = q.identity and oss.ctx.account or nil
  return policies.verdict(q.record and q.record.policy, who, action, ("acs:oss:oss-%s:%s:%s"):format(oss.region, oss.ctx.account, resource))
end

local function check_access(oss, q, name)
  local action, resource = "oss:" .. (permission[name] or name), (q.bucket or "*") .. (q.key ~= "" and "/" .. q.key or "")
  local said = policy_says(oss, q, action, resource)
  if said == "Deny" then
    errors.raise("AccessDenied", { message = "You have no right to access this object because of bucket policy." })
  end
  if q.identity then return oss.authorize(q, action, resource) end
  if said ~= "Allow" and not anonymous_may(q, name) then
    errors.raise("AccessDenied", { message = "You have no right to access this object because of bucket acl." })
  end
end

local function check_bucket(oss, q, name)
  if not q.bucket or name == "PutBucket" then return end
  q.record = oss.store:get("oss_bucket", q.bucket)
  if not q.record then errors.raise("NoSuchBucket", { extra = { { "BucketName", q.bucket } } }) end
  if q.at.region and q.at.region ~= q.record.region then
    errors.raise("AccessDenied", { ec = "0003-00001403",
      message = "The bucket you are attempting to access must be addressed using the specified endpoint. "
        .. "Please send all future requests to this endpoint.",
      extra = { { "Bucket", q.bucket }, { "Endpoint", "oss-" .. q.record.region .. ".aliyuncs.com" } } })
  end
end

local function perform(oss, q, name, act, fault)
  check_bucket(oss, q, name)
  check_access(oss, q, name)
  if q.key ~= "" then address.check_key(q.key) end
  local troubled = fault and faults.kinds[fault.kind].when == "service"
  if troubled then trouble.before(fault, q, name) end
  local result = act(oss, q)
  if troubled then trouble.after(fault, result) end
  return result
end

-- Runs fn; a failure of the service becomes its answer, anything else goes on its way.
local function answer(oss, facts, fn)
  local ok, result = pcall(fn)
  if ok then return result end
  if not errors.is(result) then error(result, 0) end
  oss.ctx.log("info", "OSS %s %s -> %d %s", facts.method, facts.host, result.status, result.code)
  return reply.failure(result, facts)
end

local function send(oss, req, result, request_id)
  local headers = { { "Server", "AliyunOSS" }, { "Date", times.http(oss.ctx.wall()) }, { "x-oss-request-id", request_id },
    { "x-oss-server-time", "1" } }
  table.move(result.headers, 1, #result.headers, #headers + 1, headers)
  if result.file then return req:respond_file(result.status, headers, result.file, result.offset, result.length) end
  req:respond(result.status, headers, result.body)
end

local function handle(oss, req)
  local request_id = oss.request_id()
  local host_name = hosts.bare(req.headers:get "host") or ""
  local facts = { method = req.method, request_id = request_id, host = host_name }
  local fault
  local result = answer(oss, facts, function()
    local q = identify(oss, req, host_name)
    q.host = host_name
    local name, act = operation_of(q)
    fault = oss.ctx.faults:take("OSS", name)
    if fault and faults.kinds[fault.kind].when == "before" and faults.play(req, fault) then return nil end
    return perform(oss, q, name, act, fault)
  end)
  if not result then return end
  if fault and faults.kinds[fault.kind].when == "after" and faults.play(req, fault, trouble.with_body(result)) then return end
  send(oss, req, result, request_id)
end

local function all_files(store)
  return function()
    return coroutine.wrap(function()
      for _, kind in ipairs { "oss_object", "oss_part" } do
        for _, value in store:each(kind) do coroutine.yield(value.file) end
      end
    end)
  end
end

local function hex_ids(ctx, stream, length)
  local draw = ctx.rng(stream)
  return function()
    local out = {}
    for i = 1, length // 4 do out[i] = ("%04X"):format(draw(0, 65535)) end
    return table.concat(out)
  end
end

local function digest(path)
  local found, err = fs.digest(path, { "md5", "crc64" })
  if not found then error(err, 0) end
  return found
end

local function new(ctx)
  local oss = { ctx = ctx, store = ctx.store, region = ctx.region, now = ctx.now, digest = digest }
  oss.disk = disk.open(ctx.dir .. "/oss", ctx.boot or 1, all_files(ctx.store))
  oss.request_id, oss.upload_id = hex_ids(ctx, "oss-request-id", 24), hex_ids(ctx, "oss-upload-id", 32)
  function oss.http_time(seconds) return times.http(seconds) end
  function oss.owner() return { "Owner", { { "ID", ctx.account }, { "DisplayName", ctx.account } } } end
  function oss.sorted_keys(kind) return ctx.store:sorted_keys(kind) end
  function oss.authorize(q, action, resource)
    local record = q.identity and q.identity.record
    local name = ("acs:oss:oss-%s:%s:%s"):format(oss.region, ctx.account, resource)
    if record and not policy.allows(record.policies, action, name) then
      errors.raise("AccessDenied", { message = "You have no right to access this object because of bucket acl." })
    end
  end
  return oss
end

local function host_patterns(region)
  local list = {}
  for _, endpoint in ipairs { "oss-" .. region, "oss-" .. region .. "-internal" } do
    list[#list + 1] = endpoint .. ".aliyuncs.com"
    list[#list + 1] = "*." .. endpoint .. ".aliyuncs.com"
  end
  for _, name in ipairs(neighbours) do
    if name ~= region then
      list[#list + 1] = "oss-" .. name .. ".aliyuncs.com"
      list[#list + 1] = "*.oss-" .. name .. ".aliyuncs.com"
    end
  end
  return list
end

---The service of this world: a function that answers one request. A fresh world has the bucket that is named after it.
function M.handler(ctx)
  local oss = new(ctx)
  if ctx.first_boot and not ctx.store:get("oss_bucket", ctx.bucket) then buckets.make(oss, ctx.bucket, {}) end
  return function(req) return handle(oss, req) end
end

function M.start(ctx)
  ctx.service { name = "oss", env = "OSS", hosts = host_patterns(ctx.region), handle = M.handler(ctx) }
end

return M
