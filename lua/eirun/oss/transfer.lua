-- SPDX-License-Identifier: Apache-2.0
-- A batch of transfers: files side by side, large ones in parts side by side; one that fails does not stop the others.
local download = require "eirun.oss.download"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local lanes = require "eirun.oss.lanes"
local paths = require "eirun.oss.paths"
local progress = require "eirun.oss.progress"
local spec = require "eirun.spec"
local task = require "eirun.task"
local upload = require "eirun.oss.upload"

local M = {}

local JOBS, PARALLEL, MOST_CONNECTIONS = 16, 4, 256
local LOOK = 0.2 -- seconds between two pictures

local function between(least, most, says)
  return function(n) return (n < least or n > most) and "must be " .. says or nil end
end

local rules = {
  jobs = { type = "integer", check = between(1, MOST_CONNECTIONS, "1 to 256") },
  parallel = { type = "integer", check = between(1, MOST_CONNECTIONS, "1 to 256") },
  part_size = { type = "integer", check = between(100 * 1024, 5 << 30, "100 KB to 5 GB") },
  bandwidth_limit = { type = "number", check = between(1024, math.huge, "at least 1,024 bytes a second") },
  on_progress = { type = "function" }, resume = { type = "boolean" }, stop_on_error = { type = "boolean" },
  expected = { type = "table" },
}

-- All files of the batch would meet these.
local hopeless = { NoSuchBucket = true, InvalidBucketName = true, InvalidAccessKeyId = true, SignatureDoesNotMatch = true,
  SecurityTokenExpired = true, UserDisable = true, RequestTimeTooSkewed = true }

local Batch = {}
Batch.__index = Batch

local function iterator(jobs)
  if type(jobs) == "function" then return jobs end
  local i = 0
  return function()
    i = i + 1
    return jobs[i]
  end
end

-- The caller's table stays as it is.
local function prepared(batch, given)
  if given.direction ~= "upload" and given.direction ~= "download" then
    errors.raise("invalid", ("a transfer's direction is upload or download, not '%s'"):format(tostring(given.direction)))
  end
  local job = { bucket = batch.bucket, parallel = batch.parallel, resume = batch.resume, part_size = batch.part_size }
  for name, value in pairs(given) do job[name] = value end
  return job
end

local function ended(batch, job, err)
  if err and not errors.is(err, "cancelled") then
    batch.tally:fail(job, err)
    if batch.stop_on_error or hopeless[err.code] then batch.stopped = true end
  elseif not err then
    batch.tally:done(job)
  end
  batch.active = batch.active - 1
  batch.room:set()
end

local function wait_for_room(batch, what, most)
  while batch[what] > most do
    batch.room:clear()
    batch.room:wait()
  end
end

local function in_its_own_task(batch, job, fn, ...)
  local args = table.pack(...)
  wait_for_room(batch, "tasks", batch.jobs - 1)
  batch.tasks = batch.tasks + 1
  batch.spawn(function()
    local ok, err = pcall(fn, batch.lane, job, batch.tally, table.unpack(args, 1, args.n))
    batch.tasks = batch.tasks - 1
    ended(batch, job, not ok and errors.from(err) or nil)
    if not ok and errors.is(err, "cancelled") then error(err, 0) end
  end)
end

local function in_one_request(batch, job, op)
  batch.lane:submit(op, function(result, err)
    if result then batch.tally:part(job, op, result) end
    if not err or op.action ~= "send" then return ended(batch, job, err) end
    batch.spawn(function() -- who tells the results does not wait for a server
      upload.undo(job, err)
      ended(batch, job, err)
    end)
  end)
end

local function begin_upload(batch, job)
  paths.check_key(job.key, job.bucket.name)
  local stat = errors.check(fs.stat(job.path))
  if stat.type ~= "file" then errors.raise("invalid", ("'%s' is a %s, not a file"):format(job.path, stat.type), { object = job.path }) end
  if job.size and job.size ~= stat.size then
    errors.raise("conflict", ("'%s' changed since it was looked at: it had %d bytes, now %d"):format(job.path, job.size, stat.size),
      { object = job.path, retryable = false })
  end
  if not job.size then batch.tally.known_bytes = batch.tally.known_bytes + stat.size end
  job.size = stat.size
  local small = job.size <= math.max(upload.SINGLE_MAX, job.part_size or 0) and not job.hold
  if small then return in_one_request(batch, job, upload.whole(job)) end
  in_its_own_task(batch, job, upload.parts)
end

local function look_first(lane, job, tally)
  local head = job.bucket:head(job.key)
  if not head then
    errors.raise("not_found", ("there is no oss://%s/%s"):format(job.bucket.name, job.key), { object = job.key, code = "NoSuchKey" })
  end
  if not job.size then tally.known_bytes = tally.known_bytes + head.size end
  job.size = head.size
  if head.size > upload.SINGLE_MAX then return download.parts(lane, job, tally, head) end
  local op = download.whole(job)
  tally:part(job, op, lane:run(op))
end

-- What others wrote may have any name; but without one it cannot be asked for.
local function begin_download(batch, job)
  if job.key == "" or job.key:find("\0", 1, true) then paths.check_key(job.key, job.bucket.name) end
  if job.size and job.size <= upload.SINGLE_MAX then return in_one_request(batch, job, download.whole(job)) end
  in_its_own_task(batch, job, look_first)
end

local begin = { upload = begin_upload, download = begin_download }

local function pump(batch, jobs)
  for given in jobs do
    wait_for_room(batch, "active", batch.depth - 1)
    local job = prepared(batch, given)
    batch.tally:add(job)
    if not batch.stopped then
      batch.active = batch.active + 1
      local ok, err = pcall(begin[job.direction], batch, job)
      if not ok then ended(batch, job, errors.from(err)) end
    end
  end
  batch.tally.complete_list = true
  wait_for_room(batch, "active", 0)
end

local function show(batch, on_progress)
  repeat
    local over = batch.over:wait(LOOK)
    local moved = batch.lane:bytes()
    local tally = batch.tally
    on_progress(tally:picture(moved, math.max(0, moved - tally.sent)))
  until over
end

-- A list tells at once how much there is; an iterator when it has ended, unless its maker knows.
local function count(tally, jobs, expected)
  tally.expected = expected
  if type(jobs) ~= "table" then return end
  local bytes, known = 0, true
  for _, job in ipairs(jobs) do
    bytes, known = bytes + (job.size or 0), known and job.size ~= nil
  end
  if known then tally.expected = { files = #jobs, bytes = bytes } end
end

---Moves many files; see `bucket:transfer`.
---@param bucket eirun.Bucket
---@param jobs eirun.OssJob[]|fun(): eirun.OssJob|nil
---@param opts? table
---@return eirun.OssReport
function M.run(bucket, jobs, opts)
  opts = opts or {}
  spec.check("transfer", opts, rules)
  local files, parallel = opts.jobs or JOBS, opts.parallel or PARALLEL
  local connections = math.min(opts.jobs and opts.parallel and files * parallel or math.max(files, parallel), MOST_CONNECTIONS)
  local depth = connections == files and 2 * files or files -- a thread that is done finds the next file waiting
  local batch = setmetatable({ bucket = bucket, tally = progress.new(), jobs = files, parallel = parallel, part_size = opts.part_size,
    resume = opts.resume ~= false, stop_on_error = opts.stop_on_error, active = 0, tasks = 0, depth = depth,
    room = task.event(), over = task.event() }, Batch)
  count(batch.tally, jobs, opts.expected)
  task.together(function(all)
    batch.spawn = all
    local lane <close> = lanes.open(bucket, { connections = connections, bandwidth = opts.bandwidth_limit, spawn = all })
    batch.lane = lane
    if opts.on_progress then all(show, batch, opts.on_progress) end
    pump(batch, iterator(jobs))
    batch.over:set()
  end)
  return batch.tally:report()
end

return M
