-- SPDX-License-Identifier: Apache-2.0
-- Buckets and objects.
local errors = require "eirun.errors"
local bulk = require "eirun.oss.bulk"
local paths = require "eirun.oss.paths"
local publish = require "eirun.oss.publish"
local resource = require "eirun.resource"
local served = require "eirun.oss.served"
local service = require "eirun.oss.service"
local sign = require "eirun.oss.sign"
local spec = require "eirun.spec"
local sync = require "eirun.oss.sync"
local target = require "eirun.target"
local task = require "eirun.task"
local tree = require "eirun.oss.tree"
local transfer = require "eirun.oss.transfer"
local verify = require "eirun.oss.verify"
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
  region = { type = "string" }, endpoint = { type = "string" },
  kind = { type = "string", check = function(kind)
    return not service.endpoint_kinds[kind] and "is public, internal, dualstack, accelerate or accelerate-overseas" or nil end },
  addressing = { type = "string", match = "^[a-z]+$", says = "virtual, path or cname" },
  signature = { type = "string", match = "^v[14]$", says = "v4 or v1" },
}

---Looks at a bucket's name before anything is asked.
---@param name string
---Example: `oss.check_name "my-models"`. Raises "invalid" for a name that no bucket can have.
function M.check_name(name)
  spec.check("oss.bucket", { name = name }, bucket_rules)
end

---A bucket by its name; nothing is asked yet.
---@param name string
---@param opts? string|{region?: string, endpoint?: string, kind?: string, addressing?: string, signature?: string} a string is the region,
---  default the run's; kind is one of public, internal, dualstack, accelerate, accelerate-overseas; addressing is virtual, path or cname
---@return eirun.Bucket
---Example: `local models = oss.bucket(arg.bucket)`; `oss.bucket("models", { kind = "internal" })`.
---Raises "invalid" for a name that no bucket can have.
function M.bucket(name, opts)
  opts = type(opts) == "table" and opts or { region = opts }
  local given = { name = name }
  for key, value in pairs(opts) do given[key] = value end
  spec.check("oss.bucket", given, bucket_rules)
  local place = { endpoint = opts.endpoint, kind = opts.kind, addressing = opts.addressing, signature = opts.signature }
  return setmetatable({ name = name, region = opts.region or target.current().region, place = place }, Bucket)
end

---The account's buckets.
---@param region? string of the endpoint that is asked
---@return {name: string, region: string, created: string, class: string}[]
---Example: `for _, b in ipairs(oss.buckets()) do print(b.name, b.region) end`. Raises "denied" without the right.
function M.buckets(region)
  return bulk.buckets(region)
end

---Why a version of a model must stay, asked of a cluster: a function for `publish`'s `served`.
---@param k8s eirun.KubeClient
---@param bucket string
---@param prefix string the model's
---@return fun(version: integer, newer: integer): string|nil
---Example: `oss.served_by(kube.connect(cluster), "models", "models/bert")`. Raises "denied" without the right to list Deployments.
function M.served_by(k8s, bucket, prefix)
  return served.by(k8s, bucket, prefix)
end

local function call(self, given)
  given.bucket, given.region, given.place = self.name, self.region, self.place
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

---The objects below a prefix, a page of at most 1,000 at a time, in byte order of their keys.
---@param opts? {prefix?: string, delimiter?: string, start_after?: string}
---@return fun(): eirun.Object[]|nil, string[] next_page objects, and folders with a delimiter; nil after the last page
---Example: `for objects in bucket:pages { prefix = "bert/" } do print(#objects) end`.
---Raises "not_found" for no such bucket, "denied" without the right, when a page is asked for.
function Bucket:pages(opts)
  opts = opts or {}
  local token, over = nil, false
  return function()
    if over then return nil end
    local query = { ["list-type"] = "2", prefix = opts.prefix ~= "" and opts.prefix or nil, delimiter = opts.delimiter, ["max-keys"] = 1000,
      ["encoding-type"] = "url", ["start-after"] = not token and opts.start_after or nil, ["continuation-token"] = token }
    local page = service.element(call(self, { method = "GET", verb = "list", query = query }), "ListBucketResult")
    local objects, folders = {}, {}
    for i, contents in ipairs(page.Contents or {}) do objects[i] = as_object(contents) end
    for i, folder in ipairs(page.CommonPrefixes or {}) do folders[i] = unescape(xml.text(folder, "Prefix") or "") end
    token = xml.text(page, "IsTruncated") == "true" and xml.text(page, "NextContinuationToken") or nil
    over = token == nil
    return objects, folders
  end
end

---All objects below a prefix, page by page, in byte order of their keys.
---@param opts? {prefix?: string, delimiter?: string, start_after?: string}
---@return eirun.Object[]
---@return string[] folders with a delimiter
---Example: `for _, o in ipairs(bucket:list { prefix = "bert/" }) do print(o.key, o.size) end`.
---Raises "not_found" for no such bucket, "denied" without the right.
function Bucket:list(opts)
  local objects, folders = {}, {}
  for more, more_folders in self:pages(opts) do
    table.move(more, 1, #more, #objects + 1, objects)
    table.move(more_folders, 1, #more_folders, #folders + 1, folders)
  end
  return objects, folders
end

---@class eirun.OssJob
---@field direction "upload"|"download"
---@field key string
---@field path string
---@field size? integer
---@field headers? table<string, string> lower-case names
---@field part_size? integer
---@field upload_id? string one to go on with, whoever began it
---@field hold? fun(finish: fun(), crc64: integer) send all parts and no more; `finish` makes the object, which nobody sees before

---@class eirun.OssReport
---@field files integer that are where they should be
---@field bytes integer of these
---@field sent integer bytes that this run moved into place
---@field skipped integer bytes that were there already, from an interrupted run
---@field resent integer requests that were repeated because their bytes arrived changed
---@field failed {key: string, path: string, error: eirun.Error}[]
---@field notes {key: string, path: string, text: string}[] what was mended on the way, the first hundred
---@field not_tried integer files that were left out after an error that all would have met
---@field seconds number

---@class eirun.OssProgress
---@field files integer done, skipped ones included
---@field files_total integer|nil nil while the list is still being read
---@field bytes integer done, what a run before had sent included
---@field bytes_total integer|nil
---@field moved integer bytes on the wire in this run
---@field failed integer
---@field rate number bytes a second of the last seconds
---@field eta number|nil seconds; nil while nothing can be said
---@field seconds number

local function headers_of(opts)
  local headers = { ["content-type"] = opts.type or "application/octet-stream",
    ["x-oss-forbid-overwrite"] = opts.forbid_overwrite and "true" or nil }
  for name, value in pairs(opts.headers or {}) do headers[name:lower()] = value end
  for name, value in pairs(opts.meta or {}) do headers["x-oss-meta-" .. name:lower()] = value end
  return headers
end

local transfer_options = { "parallel", "part_size", "bandwidth_limit", "on_progress", "resume" }

local function one(self, job, opts)
  local chosen = {}
  for _, name in ipairs(transfer_options) do chosen[name] = opts[name] end
  local report = transfer.run(self, { job }, chosen)
  if report.failed[1] then error(report.failed[1].error, 0) end
  return report
end

---Writes an object: a string, or a file of any size. A file that was begun before goes on where it stopped.
---@param key string
---@param content string|{file: string}
---@param opts? {type?: string, forbid_overwrite?: boolean, meta?: table<string, string>, headers?: table<string, string>,
---  parallel?: integer,
---  part_size?: integer, bandwidth_limit?: number, on_progress?: fun(p: eirun.OssProgress), resume?: boolean, upload_id?: string}
---@return eirun.OssReport|nil report for a file
---Example: `bucket:put("notes.txt", "hello")`; `bucket:put("big.bin", { file = "/tmp/big.bin" })`.
---Raises "invalid" for a key that no object can have, "conflict" with forbid_overwrite when it exists or the file changes meanwhile,
---"network" when it does not arrive whole.
function Bucket:put(key, content, opts)
  opts = opts or {}
  local headers = headers_of(opts)
  if type(content) == "table" then
    return one(self, { direction = "upload", key = key, path = content.file, headers = headers, upload_id = opts.upload_id }, opts)
  end
  paths.check_key(key, self.name)
  call(self, { method = "PUT", key = key, body = content, headers = headers, verb = "upload" })
end

-- A range is asked for in the standard way: without saying so this service answers a bad one with everything.
local function read(self, key, opts)
  local headers = { ["if-match"] = opts.etag and '"' .. opts.etag .. '"' or nil }
  if opts.offset then
    headers.range = ("bytes=%d-%s"):format(opts.offset, opts.length and opts.offset + opts.length - 1 or "")
    headers["x-oss-range-behavior"] = "standard"
  end
  return call(self, { method = "GET", key = key, verb = "read", max_body = opts.max, headers = headers }).body
end

---Reads an object: its text, or into a file that is renamed into place when its CRC-64 is right.
---@param key string
---@param into? string|{file?: string, max?: integer, offset?: integer, length?: integer, etag?: string} a path, or options; offset and
---  length name a part of the text, etag the object that is meant
---@param opts? {max?: integer, parallel?: integer, part_size?: integer, bandwidth_limit?: number, resume?: boolean,
---  on_progress?: fun(p: eirun.OssProgress)}
---@return string|eirun.OssReport text, or for a file the report
---Example: `local text = bucket:get "notes.txt"`; `bucket:get("model.bin", "/tmp/model.bin")`.
---Raises "not_found" for a key that is not there, "network" when it does not arrive whole, "quota" when the disk is full.
function Bucket:get(key, into, opts)
  if type(into) == "table" then
    opts, into = into, into.file
  end
  opts = opts or {}
  if not into then return read(self, key, opts) end
  return one(self, { direction = "download", key = key, path = into }, opts)
end

---Moves many files, side by side, large ones in parts; what an interrupted run had moved is not moved again, every byte is verified by
---CRC-64. A file that fails is listed in the report and does not stop the others; an error that all would meet does.
---@param jobs eirun.OssJob[]|fun(): eirun.OssJob|nil a list, or what gives the next one
---@param opts? {jobs?: integer, parallel?: integer, part_size?: integer, bandwidth_limit?: number, resume?: boolean,
---  stop_on_error?: boolean,
---  on_progress?: fun(p: eirun.OssProgress)} bandwidth_limit in bytes a second
---@return eirun.OssReport
---Example: `bucket:transfer({ { direction = "upload", key = "a", path = "a.bin" } }, { jobs = 8 }).failed[1]`.
---Raises "invalid" for options that are none, "denied" without credentials; what fails for one file is in the report.
function Bucket:transfer(jobs, opts)
  return transfer.run(self, jobs, opts)
end

---What is known of an object without reading it; nil when there is none.
---@param key string
---@return {size: integer, etag: string, crc64: integer|nil, type: string|nil, modified: string|nil, class: string|nil,
---  object_type: string|nil, meta: string[][]}|nil
---Example: `if not bucket:head(key) then … end`.
---Raises "not_found" for no such bucket, "denied" without the right.
function Bucket:head(key)
  local ok, reply = pcall(call, self, { method = "HEAD", key = key, verb = "look at" })
  if not ok then
    if errors.is(reply, "not_found") and reply.code ~= "NoSuchBucket" then return nil end
    error(reply, 0)
  end
  local headers, meta = reply.headers, {}
  for _, pair in ipairs(headers) do
    local name = pair[1]:lower():match "^x%-oss%-meta%-(.+)$"
    if name then meta[#meta + 1] = { name, pair[2] } end
  end
  return { size = math.tointeger(tonumber(headers:get "content-length")), etag = (headers:get "etag" or ""):gsub("\"", ""),
    crc64 = service.u64(headers:get "x-oss-hash-crc64ecma"), type = headers:get "content-type", modified = headers:get "last-modified",
    class = headers:get "x-oss-storage-class", object_type = headers:get "x-oss-object-type", meta = meta }
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

---What the service tells of the bucket.
---@return {name: string, region: string, created: string, class: string, acl: string, public: string, internal: string}
---Example: `print(bucket:info().internal)`. Raises "not_found" for no such bucket.
function Bucket:info()
  local reply = call(self, { method = "GET", query = { bucketInfo = "" }, verb = "look at" })
  local row = (service.element(reply, "BucketInfo").Bucket or {})[1] or {}
  local grants = (row.AccessControlList or {})[1] or {}
  return { name = xml.text(row, "Name"), region = (xml.text(row, "Location") or ""):gsub("^oss%-", ""),
    created = xml.text(row, "CreationDate"), class = xml.text(row, "StorageClass"), acl = xml.text(grants, "Grant"),
    public = xml.text(row, "ExtranetEndpoint"), internal = xml.text(row, "IntranetEndpoint"), versioning = xml.text(row, "Versioning") }
end

local function configuration(class)
  return class and ("<CreateBucketConfiguration><StorageClass>%s</StorageClass></CreateBucketConfiguration>"):format(xml.escape(class))
end

---Makes the bucket, private.
---@param opts? {class?: string} the storage class, default Standard
---@return eirun.Bucket self
---@return "created"|"unchanged"
---Example: `oss.bucket("models"):ensure()`. Raises "conflict" for a name that somebody else has.
function Bucket:ensure(opts)
  local _, outcome = resource.ensure {
    kind = "bucket", name = self.name, observe = function() return self:location() end, compare = function() return {} end,
    act = function()
      call(self, { method = "PUT", verb = "make", body = configuration(opts and opts.class),
        headers = { ["x-oss-acl"] = "private", ["content-type"] = opts and opts.class and "application/xml" or nil } })
      return self.name
    end,
  }
  return self, outcome
end

---Deletes the bucket itself, which must be empty.
---Example: `oss.bucket("old"):remove()`. Raises "conflict" for one that holds objects or open uploads, "not_found" for none.
function Bucket:remove()
  call(self, { method = "DELETE", verb = "delete" })
end

---Makes the objects below a prefix hold a folder's files. Compared by one listing (size and ETag), so what is equal is not sent
---again; `last` (saved_model.pb) goes last, so that nobody loads half a model. With `delete` what the folder has not is deleted; an empty
---folder deletes everything only with `force`.
---@param given {from: string, to: string, last?: string, delete?: boolean, force?: boolean, filter?: table}
---@return {bucket: string, prefix: string, files: integer, bytes: integer}
---@return "created"|"updated"|"unchanged"
---Example: `oss.bucket "models":ensure_tree { from = "bert/1", to = "tensorflow/1" }`.
---Raises "not_found" for no such folder or bucket, "invalid" for an empty folder, "network" when a file does not arrive whole.
function Bucket:ensure_tree(given)
  return tree.ensure(self, given)
end

---@class eirun.SyncPlan
---@field send table[] jobs: {direction, key, path, size, relative}, between prefixes {direction = "copy", from, key, to, to_key, size}
---@field same integer files that are equal already
---@field same_bytes integer
---@field same_keys string[] of the source
---@field delete string[] keys, or paths of this machine
---@field delete_side "objects"|"files"
---@field problems {path: string, error: eirun.Error}[]
---@field bytes integer to send
---@field source_empty boolean
---@field found integer objects or files that the destination holds already

---@class eirun.TransferReport
---@field files integer of the plan that arrived
---@field bytes integer of them
---@field equal integer files that were equal before
---@field sent integer bytes that this run moved into place
---@field skipped integer bytes that an interrupted run had moved
---@field resent integer requests that were repeated because their bytes arrived changed
---@field deleted integer
---@field failed {key?: string, path?: string, error: eirun.Error}[]
---@field seconds number

---Makes a prefix like a folder, or a folder like a prefix (`direction = "download"`): what is equal by content is left alone, what fails
---does not stop the others and is raised at the end, `err.report` then lists all. With `delete` what the source has not is deleted, once
---all else went well.
---@param given {from: string, to: string, direction?: "upload"|"download", delete?: boolean, force?: boolean, dry_run?: boolean,
---  filter?: table, jobs?: integer, parallel?: integer, part_size?: integer, bandwidth_limit?: number, on_progress?: function}
---  filter: a list of { "include"|"exclude", glob }; the last one that fits decides
---@return eirun.TransferReport|eirun.SyncPlan report with dry_run: the plan
---Example: `local report = oss.bucket "models":sync { from = "bert", to = "models/bert", delete = true }`.
---Raises "denied" (code "guard") for an empty source that would delete everything, "not_found" for no such folder or bucket, and the
---first failure of a file.
function Bucket:sync(given)
  return sync.both_ways(self, given)
end

---Publishes a SavedModel as a version of a model: checked first, invisible until every byte is there, never over another content,
---with a manifest of sizes and checksums beside it. With `keep` older versions are deleted, but none for which `served(version, newer)`
---gives a reason (see `oss.served_by`); `newer` counts the whole versions above it.
---@param given {from: string, to: string, version?: integer|"next", keep?: integer, served?: (fun(version: integer, newer: integer):
---  string|nil), dry_run?: boolean, jobs?: integer, parallel?: integer, part_size?: integer, bandwidth_limit?: number,
---  on_progress?: function} from: the version folder; to: the model's prefix; version: default the folder's name
---@return {version: integer, prefix: string, files: integer, bytes: integer, sent: integer, manifest: string, deleted: integer[]}
---@return "created"|"unchanged"
---Example: `oss.bucket "models":publish { from = "bert/3", to = "models/bert" }`.
---Raises "invalid" for a model that is not whole, "conflict" when the version is there with another content.
function Bucket:publish(given)
  return publish.run(self, given)
end

---Compares what is below a prefix with its manifest and, when given, with a folder: sizes and CRC-64.
---@param given {prefix: string, from?: string}
---@return {ok: boolean, files: integer, differences: {path: string, where: "bucket"|"local", what: string}[], against: string}
---Example: `if not bucket:verify { prefix = "models/bert/3" }.ok then … end`.
---Raises "not_found" where there is neither a manifest nor a folder to compare with.
function Bucket:verify(given)
  return verify.run(self, given)
end

---Copies an object inside the service, whatever its size; the copy's CRC-64 is compared.
---@param key string
---@param to_key string
---@param to? eirun.Bucket default this one; in the same region
---@return integer size
---Example: `bucket:copy("a.bin", "b.bin")`. Raises "not_found" for a key that is not there.
function Bucket:copy(key, to_key, to)
  return bulk.copy { from = self, key = key, to = to or self, to_key = to_key }
end

---Deletes many objects, a thousand a request.
---@param keys string[]
---@return {key: string, error: eirun.Error}[] failed
---Example: `bucket:delete_many { "a", "b" }`. Raises nothing: what fails is listed.
function Bucket:delete_many(keys)
  return bulk.delete(self, keys)
end

---Uploads in parts that nobody has completed: they are billed and seen by nobody.
---@param prefix? string
---@return {key: string, id: string, initiated: number}[]
---Example: `for _, open in ipairs(bucket:uploads()) do print(open.key, open.id) end`. Raises as `list`.
function Bucket:uploads(prefix)
  return bulk.uploads(self, prefix)
end

---Ends an upload that nobody will complete; one that is gone is fine.
---@param key string
---@param id string
---Example: `bucket:abort(open.key, open.id)`. Raises "denied" without the right.
function Bucket:abort(key, id)
  bulk.abort(self, key, id)
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
    key_secret = keys.access_key_secret, token = keys.security_token, region = self.region, now = task.now() }, seconds or 3600)
  local url, path = service.where { bucket = self.name, key = key, region = self.region, place = self.place }
  return ("%s://%s%s?%s"):format(url.scheme, url.host, path, wire.query(query, true))
end

return M
