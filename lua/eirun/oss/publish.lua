-- SPDX-License-Identifier: Apache-2.0
-- A SavedModel becomes a version in a bucket, at once or not at all. TensorFlow Serving takes any folder with a number for a version as
-- soon as it exists, and gives up on one that does not load; so all large files go up as uploads that nobody completes, which nobody
-- sees, and only when every byte is there they are completed in one burst: variables and assets, the manifest, saved_model.pb last.
local bulk = require "eirun.oss.bulk"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local paths = require "eirun.oss.paths"
local resource = require "eirun.resource"
local savedmodel = require "eirun.oss.savedmodel"
local spec = require "eirun.spec"
local step = require "eirun.step"
local sync = require "eirun.oss.sync"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

-- What is smaller goes whole in the burst: a request that takes no longer than completing would.
local WHOLE = 256 * 1024
local AT_ONCE = 8

local rules = {
  from = { type = "string", required = true },
  to = { type = "string", required = true, match = "^[^/\\]", says = "the model's prefix, as models/bert" },
  version = { type = "any", check = function(value)
    if value == "next" or math.type(value) == "integer" and value >= 0 then return nil end
    return "must be a whole number or \"next\""
  end },
  keep = { type = "integer", min = 1 },
  served = { type = "function" },
  jobs = { type = "integer" }, parallel = { type = "integer" }, part_size = { type = "integer" }, bandwidth_limit = { type = "number" },
  on_progress = { type = "function" }, dry_run = { type = "boolean" },
}

-- Manifests lie beside the versions, in a folder that is no number: serving does not look into it.
local function manifest_key(base, version) return ("%s.eirun/%d.json"):format(base, version) end
M.manifest_key = manifest_key

local function object_name(bucket, key) return ("oss://%s/%s"):format(bucket.name, key) end

---Versions below a model's prefix, the lowest first. One without saved_model.pb is not whole.
---@param bucket eirun.Bucket
---@param base string the model's prefix with a slash at its end
---@return {version: integer, prefix: string, whole: boolean}[]
---Example: `publish.versions(bucket, "models/bert/")`. Raises as `bucket:list`.
function M.versions(bucket, base)
  local _, folders = bucket:list { prefix = base, delimiter = "/" }
  local list = {}
  for _, prefix in ipairs(folders) do
    local version = savedmodel.version(prefix:sub(#base + 1, -2))
    if version then list[#list + 1] = { version = version, prefix = prefix, whole = bucket:head(prefix .. savedmodel.graph) ~= nil } end
  end
  table.sort(list, function(a, b) return a.version < b.version end)
  return list
end

-- The next one after the newest; that one itself where an interrupted run left it unfinished, which comes to light when it is looked at.
local function next_versions(there)
  local last = there[#there]
  if not last then return { 1 } end
  return last.whole and { last.version + 1 } or { last.version, last.version + 1 }
end

local function choices(given, model, there)
  if given.version == "next" then return next_versions(there) end
  return { given.version or model.version
    or errors.raise("invalid", ("which version is '%s'? its folder's name is no number"):format(model.folder),
      { hint = "say which: --set-version N or next (version = …)" }) }
end

local function digest(file)
  local sums = errors.check(fs.digest(file.path, { "crc64", "md5" }, 0, file.size))
  if sums.size ~= file.size then
    errors.raise("conflict", ("'%s' changed while it was read"):format(file.path), { object = file.path })
  end
  return { path = file.relative, size = file.size, crc64 = ("%016x"):format(sums.crc64), md5 = crypto.hex(sums.md5) }
end

local function manifest_of(model)
  local files = json.array(task.map(model.files, digest, AT_ONCE))
  return { format = 1, bytes = model.bytes, files = files, published = wire.iso(task.now()),
    shards = model.shards, tensors = model.tensors }
end

---What a published version says of itself; nil where there is no manifest.
---@param bucket eirun.Bucket
---@param base string
---@param version integer
---@return table|nil
---Example: `publish.manifest(bucket, "models/bert/", 3).files[1].crc64`. Raises "invalid" for one that cannot be read.
function M.manifest(bucket, base, version)
  local key = manifest_key(base, version)
  local ok, text = pcall(bucket.get, bucket, key, { max = 64 << 20 })
  if not ok then
    if errors.is(text, "not_found") and text.code ~= "NoSuchBucket" then return nil end
    error(text, 0)
  end
  local manifest = json.decode(text)
  if type(manifest) ~= "table" or type(manifest.files) ~= "table" then
    errors.raise("invalid", object_name(bucket, key) .. " is no manifest of eirun's", { object = object_name(bucket, key) })
  end
  return manifest
end

local function crc_of(row) return math.tointeger(tonumber("0x" .. row.crc64)) end

-- Which files of the manifest an interrupted run has put there already. Anything else below the prefix is somebody else's.
local function look(bucket, prefix, manifest)
  local wanted, there, count = {}, {}, 0
  for _, row in ipairs(manifest.files) do wanted[prefix .. row.path] = row end
  local objects = bucket:list { prefix = prefix }
  local equal = task.map(objects, function(object)
    local row = wanted[object.key]
    if not row or row.size ~= object.size then return false end
    local head = bucket:head(object.key)
    return head ~= nil and head.crc64 == crc_of(row)
  end, AT_ONCE)
  for i, object in ipairs(objects) do
    if equal[i] then
      there[object.key], count = true, count + 1
    elseif object.key:sub(-1) ~= "/" then
      return nil, object.key
    end
  end
  return there, count
end

local function refuse_other(bucket, base, version, key)
  errors.raise("conflict", ("version %d of %s is there with another content: %s differs"):format(version, object_name(bucket, base),
    paths.show(key)), { object = object_name(bucket, key),
      hint = "a published version is never changed: publish the next number (--set-version next)" })
end

-- Sending -------------------------------------------------------------------------------------------------------------

local headers = { ["content-type"] = "application/octet-stream", ["x-oss-forbid-overwrite"] = "true" }

-- Somebody else may have published the same bytes meanwhile; then it is as good as ours.
local function unless_equal(bucket, key, crc, fn)
  local ok, err = pcall(fn)
  if ok then return end
  local head = errors.is(err, "conflict") and err.code == "FileAlreadyExists" and bucket:head(key)
  if not head or head.crc64 ~= crc then error(err, 0) end
end

-- The manifest was made from other bytes: nothing of it may be seen.
local function check_crc(file, crc)
  if crc == file.crc then return end
  errors.raise("conflict", ("'%s' changed while it was published"):format(file.path), { object = file.path,
    hint = "publish again once nobody writes to it" })
end

-- What is sent is what was compared, and the server compares it again.
local function put_whole(bucket, file)
  local text = errors.check(fs.read(file.path, WHOLE))
  check_crc(file, crypto.crc64(text))
  local more = { ["content-md5"] = crypto.base64(crypto.md5(text)) }
  for name, value in pairs(headers) do more[name] = value end
  unless_equal(bucket, file.key, file.crc, function() bucket:put(file.key, text, { headers = more }) end)
end

-- Before anything is to be seen: is every file still the one of the manifest?
local function check_all(files)
  task.map(files, function(file)
    check_crc(file, file.held_crc or errors.check(fs.digest(file.path, { "crc64" }, 0, file.size)).crc64)
  end, AT_ONCE)
end

-- Parts of all large files; each answers with the function that completes it.
local function upload_unseen(bucket, files, given)
  local jobs = {}
  for _, file in ipairs(files) do
    if file.size > WHOLE then
      jobs[#jobs + 1] = { direction = "upload", key = file.key, path = file.path, size = file.size, headers = headers,
        hold = function(finish, crc) file.finish, file.held_crc = finish, crc end }
    end
  end
  if #jobs == 0 then return { sent = 0, skipped = 0 } end
  local report = bucket:transfer(jobs, { jobs = given.jobs, parallel = given.parallel, part_size = given.part_size,
    bandwidth_limit = given.bandwidth_limit, on_progress = given.on_progress or function(p)
      step.progress { done = p.bytes, total = p.bytes_total, unit = "bytes", text = "parts that nobody sees yet" }
    end })
  sync.raise_failed(report)
  return report
end

local function show_one(bucket, file)
  if not file.finish then return put_whole(bucket, file) end
  unless_equal(bucket, file.key, file.crc, file.finish)
end

local function files_to_send(model, manifest, prefix, there)
  local rest, last = {}, nil
  for i, file in ipairs(model.files) do
    local row = manifest.files[i]
    local item = { key = prefix .. file.relative, path = file.path, size = file.size, crc = crc_of(row) }
    if there[item.key] then
      item = nil
    elseif file.relative == savedmodel.graph then
      last = item
    end
    if item and item ~= last then rest[#rest + 1] = item end
  end
  return rest, last
end

local function send(bucket, plan, given)
  local rest, last = files_to_send(plan.model, plan.manifest, plan.prefix, plan.there)
  local all = table.move(rest, 1, #rest, 1, {})
  all[#all + 1] = last
  local report = upload_unseen(bucket, all, given)
  check_all(all)
  -- From here to the last line serving may see a folder that is not whole: it is as short as can be.
  task.map(rest, function(file) show_one(bucket, file) end, AT_ONCE * 2)
  bucket:put(manifest_key(plan.base, plan.version), json.encode(plan.manifest), { type = "application/json" })
  if last then show_one(bucket, last) end
  return report
end

-- Keeping the last N --------------------------------------------------------------------------------------------------

-- The newest N stay, and what a Deployment serves, and what is not whole: that may be somebody's upload of this moment.
local function outdated(there, keep, served)
  local drop, kept, whole = {}, {}, 0
  for i = #there, 1, -1 do
    local row = there[i]
    if row.whole then whole = whole + 1 end
    if row.whole and whole > keep then
      local why = served(row.version, whole - 1)
      if why then
        kept[#kept + 1] = { version = row.version, why = why }
      else
        table.insert(drop, 1, row)
      end
    end
  end
  return drop, kept
end

-- saved_model.pb goes first: a version that is half deleted does not look whole.
local function drop_version(bucket, base, row)
  bucket:delete(row.prefix .. savedmodel.graph)
  local keys = {}
  for _, object in ipairs(bucket:list { prefix = row.prefix }) do keys[#keys + 1] = object.key end
  keys[#keys + 1] = manifest_key(base, row.version)
  sync.raise_failed { failed = bulk.delete(bucket, keys) }
end

local function prune(bucket, plan, given)
  if not given.keep then return {}, {} end
  local there = M.versions(bucket, plan.base)
  if plan.dry and not plan.is_there then there[#there + 1] = { version = plan.version, prefix = plan.prefix, whole = true } end
  local served = given.served or errors.raise("invalid", "keep wants to know what is served: give served = function(version) … end")
  local drop, kept = outdated(there, given.keep, served)
  local names = {}
  for i, row in ipairs(drop) do
    if not plan.dry then
      drop_version(bucket, plan.base, row)
      step.record { kind = "model version", name = object_name(bucket, row.prefix), outcome = "deleted" }
    end
    names[i] = row.version
  end
  for _, row in ipairs(kept) do step.note(("version %d is kept: %s"):format(row.version, row.why)) end
  return names, kept
end

-- The verb ------------------------------------------------------------------------------------------------------------

local function look_at(bucket, plan, version)
  plan.version, plan.prefix = version, ("%s%d/"):format(plan.base, version)
  for _, file in ipairs(plan.model.files) do paths.check_key(plan.prefix .. file.relative, bucket.name) end
  local there, count_or_other = look(bucket, plan.prefix, plan.manifest)
  if not there then return count_or_other end
  plan.there = there
  plan.is_there = count_or_other == #plan.model.files and M.manifest(bucket, plan.base, version) ~= nil
end

local function plan_of(bucket, given)
  local model, base = savedmodel.check(given.from), paths.folder(given.to)
  local versions = choices(given, model, M.versions(bucket, base))
  local plan, other = { model = model, base = base, dry = given.dry_run, manifest = manifest_of(model) }, nil
  for _, version in ipairs(versions) do
    other = look_at(bucket, plan, version)
    if not other then break end
  end
  if other then refuse_other(bucket, base, plan.version, other) end
  plan.manifest.version = plan.version
  return plan
end

---Publishes a SavedModel; see `bucket:publish`.
---@param bucket eirun.Bucket
---@param given table
---@return table result
---@return "created"|"unchanged" outcome
---Example: `publish.run(bucket, { from = "bert/3", to = "models/bert" })`. Raises as `bucket:publish`.
function M.run(bucket, given)
  spec.check("publish", given, rules)
  local plan, report = plan_of(bucket, given), nil
  local outcome = plan.is_there and "unchanged" or "created"
  if not given.dry_run then
    local _, done = resource.ensure {
      kind = "model version", name = object_name(bucket, plan.prefix),
      observe = function() return plan.is_there and plan or nil end,
      compare = function() return {} end,
      act = function()
        report = send(bucket, plan, given)
        return plan
      end,
    }
    outcome = done
  end
  local deleted, kept = prune(bucket, plan, given)
  return { bucket = bucket.name, prefix = plan.prefix, version = plan.version, files = #plan.model.files, bytes = plan.model.bytes,
    sent = report and report.sent or 0, skipped = report and report.skipped or 0, manifest = manifest_key(plan.base, plan.version),
    deleted = deleted, kept = kept }, outcome
end

return M
