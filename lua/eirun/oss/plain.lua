-- SPDX-License-Identifier: Apache-2.0
-- A lane over the host's HTTP client: where the clock is not real, a proxy stands between, or an old signature is asked for.
-- What a lane does is told in eirun.oss.lanes.
local clock = require "eirun.core.clock"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local service = require "eirun.oss.service"
local task = require "eirun.task"

local M = {}

local TRIES = 3

local Plain = {}
Plain.__index = Plain

local function call_of(lane, op)
  local bucket = lane.bucket
  return { bucket = bucket.name, region = bucket.region, place = bucket.place, key = op.key, query = op.query, headers = op.headers,
    verb = op.verb }
end

local function changed(op, size)
  return errors.new("conflict", ("'%s' changed while it was read: it had %d bytes, now %d"):format(op.path, op.size, size),
    { object = op.path, retryable = false })
end

local function check_source(op)
  local stat = errors.check(fs.stat(op.path))
  if stat.type ~= "file" then errors.raise("invalid", ("'%s' is a %s, not a file"):format(op.path, stat.type), { object = op.path }) end
  if stat.size ~= op.size then error(changed(op, stat.size), 0) end
end

-- Bytes of one request, at the rate that was allowed.
local function wait_for_room(lane, length)
  if not lane.bandwidth then return end
  local at = math.max(task.now(), lane.free_at or 0)
  lane.free_at = at + length / lane.bandwidth
  task.sleep(at - task.now())
end

local function mismatch(lane, op)
  return errors.new("network", ("oss://%s/%s arrived changed: the CRC-64 of %s differs"):format(lane.bucket.name, op.key, op.what or "it"),
    { object = op.key, code = "CrcMismatch", retryable = true })
end

-- Runs `once` until the CRC that the server tells is the one of the bytes here.
local function until_equal(lane, op, once)
  local result = { resent = 0 }
  for n = 1, TRIES do
    local reply, crc = once()
    local theirs = service.u64(reply.headers:get "x-oss-hash-crc64ecma")
    result.crc, result.etag = crc, reply.headers:get "etag"
    if op.part_of_object or theirs == nil or theirs == crc then return result end
    if n == TRIES then error(mismatch(lane, op), 0) end
    result.resent, result.reason = result.resent + 1, mismatch(lane, op).message
  end
end

local function send(lane, op)
  check_source(op)
  local known = op.known or {}
  local sums = errors.check(fs.digest(op.path, known.md5 and { "crc64", "md5" } or { "crc64" }, op.offset, op.length))
  if sums.size ~= op.length then error(changed(op, op.offset + sums.size), 0) end
  if known.crc and known.crc == sums.crc64 or not known.crc and known.md5 and known.md5 == sums.md5 then
    return { crc = sums.crc64, etag = known.etag, skipped = true, resent = 0 }
  end
  return until_equal(lane, op, function()
    wait_for_room(lane, op.length)
    local call = call_of(lane, op)
    call.method, call.body = "PUT", { file = op.path, offset = op.offset, length = op.length }
    local reply = service.call(call)
    lane.moved = lane.moved + op.length
    check_source(op)
    return reply, sums.crc64
  end)
end

local function fetch(lane, op)
  local result = until_equal(lane, op, function()
    wait_for_room(lane, op.length)
    local call = call_of(lane, op)
    if op.part_of_object then
      call.headers = { ["x-oss-range-behavior"] = "standard", range = ("bytes=%d-%d"):format(op.offset, op.offset + op.length - 1) }
      for name, value in pairs(op.headers or {}) do call.headers[name] = value end
    end
    call.method, call.sink = "GET", { file = op.path, offset = op.part_of_object and op.offset or nil, digest = { "crc64" } }
    local reply = service.call(call)
    if op.part_of_object and reply.status ~= 206 then
      errors.raise("internal", ("oss://%s/%s: a range was asked for and the whole came"):format(lane.bucket.name, op.key))
    end
    lane.moved = lane.moved + op.length
    return reply, reply.digests.crc64
  end)
  if op.target then errors.check(fs.rename(op.path, op.target)) end
  return result
end

local function allocate(_, op)
  errors.check(fs.write(op.path, "", { atomic = false, mode = tonumber("644", 8) }))
  return {}
end

local actions = { send = send, fetch = fetch, allocate = allocate }

---Does one operation and answers its result.
---@param op eirun.OssOp
---@return eirun.OssResult
function Plain:run(op)
  local ok, result = pcall(actions[op.action], self, op)
  if ok then return result end
  if op.target then fs.remove(op.path) end
  error(result, 0)
end

---Does one operation beside others; `done(result, err)` is called from a task of its own.
---@param op eirun.OssOp
---@param done fun(result: eirun.OssResult|nil, err: eirun.Error|nil)
function Plain:submit(op, done)
  self.spawn(function()
    local ok, result = pcall(self.run, self, op)
    if ok then return done(result) end
    if errors.is(result, "cancelled") then error(result, 0) end
    done(nil, errors.from(result))
  end)
end

---Bytes that went over the wire so far.
---@return integer
function Plain:bytes() return self.moved end

function Plain.quiet() end
function Plain.close() end
Plain.__close = Plain.close

---@param bucket eirun.Bucket
---@param opts {bandwidth?: number, spawn: fun(fn: function)}
function M.open(bucket, opts)
  return setmetatable({ bucket = bucket, bandwidth = opts.bandwidth, spawn = opts.spawn, moved = 0, clock = clock.kind() }, Plain)
end

return M
