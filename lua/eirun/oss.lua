-- SPDX-License-Identifier: Apache-2.0
-- Buckets and objects.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local resource = require "eirun.resource"
local service = require "eirun.oss.service"
local sign = require "eirun.oss.sign"
local spec = require "eirun.spec"
local target = require "eirun.target"
local task = require "eirun.task"
local tree = require "eirun.oss.tree"
local upload = require "eirun.oss.upload"
local wire = require "eirun.wire"
local xml = require "eirun.oss.xml"

local M = {}

---@class eirun.Bucket
---@field name string
---@field region string
local Bucket = {}
Bucket.__index = Bucket
Bucket.__name = "eirun.bucket"
Bucket.__tostring = function(self) return "oss://" .. self.name end

local bucket_rules = {
  name = { type = "string", required = true, match = "^[a-z0-9][a-z0-9-]*[a-z0-9]$", says = "a bucket's name: a-z, 0-9 and '-'",
    check = function(name) return (#name < 3 or #name > 63) and "must have 3 to 63 characters" or nil end },
  region = { type = "string" },
}

---A bucket by its name; nothing is asked yet.
---@param name string
---@param region? string default the run's
---@return eirun.Bucket
---Example: `local models = oss.bucket(arg.bucket)`. Raises "invalid" for a name that no bucket can have.
function M.bucket(name, region)
  spec.check("oss.bucket", { name = name, region = region }, bucket_rules)
  return setmetatable({ name = name, region = region or target.current().region }, Bucket)
end

local function call(self, given)
  given.bucket, given.region = self.name, self.region
  return service.call(given)
end

---@class eirun.Object
---@field key string
---@field size integer
---@field etag string without quotes
---@field modified string
---@field class string

local function unescape(text)
  return (text:gsub("%+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function as_object(contents)
  return { key = unescape(xml.text(contents, "Key") or ""), size = math.tointeger(tonumber(xml.text(contents, "Size"))),
    etag = (xml.text(contents, "ETag") or ""):gsub("\"", ""), modified = xml.text(contents, "LastModified"),
    class = xml.text(contents, "StorageClass") }
end

---All objects below a prefix, page by page, in byte order of their keys.
---@param opts? {prefix?: string, delimiter?: string, start_after?: string}
---@return eirun.Object[]
---@return string[] folders with a delimiter
---Example: `for _, o in ipairs(bucket:list { prefix = "bert/" }) do print(o.key, o.size) end`.
---Raises "not_found" for no such bucket, "denied" without the right.
function Bucket:list(opts)
  opts = opts or {}
  local objects, folders, token = {}, {}, nil
  repeat
    local query = { ["list-type"] = "2", prefix = opts.prefix ~= "" and opts.prefix or nil, delimiter = opts.delimiter, ["max-keys"] = 1000,
      ["encoding-type"] = "url", ["start-after"] = not token and opts.start_after or nil, ["continuation-token"] = token }
    local page = service.element(call(self, { method = "GET", verb = "list", query = query }), "ListBucketResult")
    for _, contents in ipairs(page.Contents or {}) do objects[#objects + 1] = as_object(contents) end
    for _, folder in ipairs(page.CommonPrefixes or {}) do folders[#folders + 1] = unescape(xml.text(folder, "Prefix") or "") end
    token = xml.text(page, "IsTruncated") == "true" and xml.text(page, "NextContinuationToken") or nil
  until not token
  return objects, folders
end

---Writes an object: a string, or a file of any size.
---@param key string
---@param content string|{file: string}
---@param opts? {type?: string, forbid_overwrite?: boolean, meta?: table<string, string>}
---Example: `bucket:put("notes.txt", "hello")`; `bucket:put("big.bin", { file = "/tmp/big.bin" })`.
---Raises "conflict" with forbid_overwrite when it exists, "network" when it does not arrive whole.
function Bucket:put(key, content, opts)
  opts = opts or {}
  local headers = { ["content-type"] = opts.type or "application/octet-stream",
    ["x-oss-forbid-overwrite"] = opts.forbid_overwrite and "true" or nil }
  for name, value in pairs(opts.meta or {}) do headers["x-oss-meta-" .. name:lower()] = value end
  if type(content) == "table" then
    local stat = errors.check(fs.stat(content.file))
    return upload.put(self, key, { path = content.file, size = stat.size }, { headers = headers })
  end
  call(self, { method = "PUT", key = key, body = content, headers = headers, verb = "upload" })
end

---Reads an object: its text, or into a file that is renamed into place when its CRC-64 is right.
---@param key string
---@param opts? {file?: string, max?: integer}
---@return string|nil text nil when it went into a file
---Example: `bucket:get("model.bin", { file = "/tmp/model.bin" })`. Raises "not_found" for a key that is not there.
function Bucket:get(key, opts)
  opts = opts or {}
  if not opts.file then return call(self, { method = "GET", key = key, verb = "read", max_body = opts.max }).body end
  local part = opts.file .. ".part"
  local reply = call(self, { method = "GET", key = key, verb = "download", sink = { file = part, digest = { "crc64" } } })
  local theirs = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
  if theirs and theirs ~= reply.digests.crc64 then
    fs.remove(part)
    errors.raise("network", ("oss://%s/%s arrived changed: its CRC-64 differs"):format(self.name, key))
  end
  errors.check(fs.rename(part, opts.file))
end

---What is known of an object without reading it; nil when there is none.
---@param key string
---@return {size: integer, etag: string, crc64: integer|nil, type: string|nil, modified: string|nil}|nil
---Example: `if not bucket:head(key) then … end`.
---Raises "not_found" for no such bucket, "denied" without the right.
function Bucket:head(key)
  local ok, reply = pcall(call, self, { method = "HEAD", key = key, verb = "look at" })
  if not ok then
    if errors.is(reply, "not_found") and reply.code ~= "NoSuchBucket" then return nil end
    error(reply, 0)
  end
  local headers = reply.headers
  return { size = math.tointeger(tonumber(headers:get "content-length")), etag = (headers:get "etag" or ""):gsub("\"", ""),
    crc64 = service.u64(headers:get "x-oss-hash-crc64ecma"), type = headers:get "content-type", modified = headers:get "last-modified" }
end

---Deletes an object; one that is not there is fine.
---@param key string
---Example: `bucket:delete "old.bin"`.
---Raises "not_found" for no such bucket, "denied" without the right.
function Bucket:delete(key)
  call(self, { method = "DELETE", key = key, verb = "delete" })
end

---Where the bucket is: its location, `oss-cn-hangzhou`; nil when there is no such bucket.
---@return string|nil
---Example: `if bucket:location() ~= "oss-" .. bucket.region then print "another region" end`. Raises "denied" for somebody else's bucket.
function Bucket:location()
  local ok, reply = pcall(call, self, { method = "GET", query = { location = "" }, verb = "find" })
  if not ok then
    if errors.is(reply, "not_found") then return nil end
    error(reply, 0)
  end
  return xml.parse(reply.body).LocationConstraint[1]
end

---Makes the bucket, private.
---@return eirun.Bucket self
---@return "created"|"unchanged"
---Example: `oss.bucket("models"):ensure()`. Raises "conflict" for a name that somebody else has.
function Bucket:ensure()
  local _, outcome = resource.ensure {
    kind = "bucket", name = self.name, observe = function() return self:location() end, compare = function() return {} end,
    act = function()
      call(self, { method = "PUT", verb = "make", headers = { ["x-oss-acl"] = "private" } })
      return self.name
    end,
  }
  return self, outcome
end

---Makes the objects below a prefix hold a folder's files. Compared by one listing (size and ETag), so what is equal is not sent
---again; `last` (saved_model.pb) goes last, so that nobody loads half a model.
---@param given {from: string, to: string, last?: string}
---@return {bucket: string, prefix: string, files: integer, bytes: integer}
---@return "created"|"updated"|"unchanged"
---Example: `oss.bucket "models":ensure_tree { from = "bert/1", to = "tensorflow/1" }`.
---Raises "not_found" for no such folder or bucket, "invalid" for an empty folder, "network" when a file does not arrive whole.
function Bucket:ensure_tree(given)
  return tree.ensure(self, given)
end

---A URL that works for a while without keys.
---@param key string
---@param seconds? integer default 3600, at most 604800
---@param method? string default GET
---@return string
---Example: `print(bucket:sign "model.bin")`.
---Raises nothing: nobody is asked whether the key exists.
function Bucket:sign(key, seconds, method)
  local keys = target.current().credentials:get()
  local query = sign.v4_presign({ method = method or "GET", bucket = self.name, key = key, headers = {}, key_id = keys.access_key_id,
    key_secret = keys.access_key_secret, region = self.region, now = task.now() }, seconds or 3600)
  return ("https://%s.oss-%s.aliyuncs.com/%s?%s"):format(self.name, self.region, wire.encode_path(key), wire.query(query, true))
end

return M
