-- SPDX-License-Identifier: Apache-2.0
-- An object becomes a file: in one request when small, in parallel ranges into a preallocated file when large; renamed into place when
-- its CRC-64 is right, resumed where a run before stopped.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local resume = require "eirun.oss.resume"
local task = require "eirun.task"
local upload = require "eirun.oss.upload"

local M = {}

local ROUNDS = 3
local QUIET = 10 -- seconds that threads may need to end what they have begun

-- Hidden, beside its place: only there a rename is one step. The same name each time, so that nothing piles up.
local function part_path(path)
  local folder, name = path:match "^(.*/)([^/]+)$"
  return ("%s.%s.eirun-part"):format(folder or "", name or path)
end

local function check_place(job)
  local stat = fs.stat(job.path)
  if stat and stat.type ~= "file" then
    errors.raise("invalid", ("'%s' is a %s: a file cannot take its place"):format(job.path, stat.type), { object = job.path })
  end
  local folder = job.path:match "^(.*)/[^/]+$"
  if folder and folder ~= "" then errors.check(fs.mkdir(folder, { parents = true, mode = tonumber("755", 8) })) end
end

---The operation that reads a small object whole.
---@param job eirun.OssJob
---@return eirun.OssOp
---Raises "invalid" when something that is no file stands in its place.
function M.whole(job)
  check_place(job)
  return { action = "fetch", verb = "download", key = job.key, headers = job.headers, path = part_path(job.path), target = job.path,
    offset = 0,
    length = job.size or 0 }
end

local function range_ops(job, head, part_size)
  local ops = {}
  local headers = { ["if-match"] = head.etag ~= "" and '"' .. head.etag .. '"' or nil }
  for offset = 0, head.size - 1, part_size do
    ops[#ops + 1] = { action = "fetch", verb = "download", what = "part " .. #ops + 1, key = job.key, path = part_path(job.path),
      offset = offset, length = math.min(part_size, head.size - offset), part_of_object = true, headers = headers }
  end
  return ops
end

-- What the run before fetched is believed when it can be read back.
local function take_done(state, job, ops)
  local done = {}
  for number, crc in pairs(state.data.parts) do
    local op = ops[number]
    local sums = op and fs.digest(op.path, { "crc64" }, op.offset, op.length)
    if sums and sums.size == op.length and sums.crc64 == crc then done[number] = { crc = crc, skipped = true, resent = 0 } end
  end
  return done
end

local function same_object(saved, head, part_size)
  return saved.size == head.size and saved.etag == head.etag and saved.part_size == part_size
end

local function begin(lane, state, job, head, part_size)
  state:clear()
  lane:run { action = "allocate", path = part_path(job.path), length = head.size, key = job.key, verb = "download" }
  state:save { size = head.size, etag = head.etag, part_size = part_size, key = job.key, bucket = job.bucket.name, path = job.path }
end

local function fetch_ranges(lane, state, job, ops, done, tally)
  return task.map(ops, function(op, number)
    local result = done[number] or lane:run(op)
    if not result.skipped then state:add(number, result.crc) end
    tally:part(job, op, result)
    return result
  end, job.parallel)
end

local function is_whole(head, ops, results)
  if not head.crc64 then return true end
  local crc = 0
  for i, result in ipairs(results) do crc = crypto.crc64_combine(crc, result.crc, ops[i].length) end
  return crc == head.crc64
end

local function rounds(lane, state, job, head, tally)
  local part_size = upload.part_size(head.size, job.part_size)
  local ops = range_ops(job, head, part_size)
  for n = 1, ROUNDS do
    local done = n == 1 and job.resume and state.data and same_object(state.data, head, part_size) and take_done(state, job, ops)
    if not done then begin(lane, state, job, head, part_size) end
    local results = fetch_ranges(lane, state, job, ops, done or {}, tally)
    if is_whole(head, ops, results) then return end
    tally:again(job, head.size, "its CRC-64 differs: it is read again")
  end
  errors.raise("network", ("oss://%s/%s arrived changed %d times: its CRC-64 differs"):format(job.bucket.name, job.key, ROUNDS),
    { object = job.key, code = "CrcMismatch", retryable = true })
end

local worth_resuming = { network = true, timeout = true, throttled = true, internal = true, cancelled = true, denied = true }

---Downloads an object in ranges.
---@param lane eirun.OssLane
---@param job eirun.OssJob
---@param tally eirun.OssTally
---@param head table of bucket:head
---Raises "conflict" when the object changes meanwhile, "network" when it does not arrive whole, "quota" when the disk is full.
function M.parts(lane, job, tally, head)
  check_place(job)
  local state <close> = resume.open("download", job.bucket, job.key, job.path)
  local ok, err = pcall(rounds, lane, state, job, head, tally)
  if ok then
    errors.check(fs.rename(part_path(job.path), job.path))
    return state:clear()
  end
  if not (job.resume and errors.is(err) and worth_resuming[err.kind]) or err.code == "CrcMismatch" then
    pcall(task.shield, QUIET, lane.quiet, lane, job.key)
    fs.remove(part_path(job.path))
    state:clear()
  end
  error(err, 0)
end

return M
