-- SPDX-License-Identifier: Apache-2.0
-- A lane over the engine in C: threads that read, hash, sign and send by themselves. What a lane does is told in eirun.oss.lanes.
local clock = require "eirun.core.clock"
local core_load = require "eirun.core.load"
local engine = require "eirun.core.oss"
local errors = require "eirun.errors"
local service = require "eirun.oss.service"
local target = require "eirun.target"
local task = require "eirun.task"

local M = {}

local KEYS_LOOKED_AT = 1 -- seconds between two looks at the credentials, which may be renewed while bytes move

local Lane = {}
Lane.__index = Lane

local function object_of(lane, op) return ("oss://%s/%s"):format(lane.bucket.name, op.key) end

local function headers_of(result)
  local known = { ["x-oss-request-id"] = result.request_id, ["x-oss-ec"] = result.ec, location = result.location }
  return { get = function(_, name) return known[name] end }
end

local function arrived_changed(lane, op)
  return ("%s arrived changed: the CRC-64 of %s differs"):format(object_of(lane, op), op.what or "it")
end

local from_the_wire = { network = true, timeout = true }

local function failure(lane, op, result)
  local err = result.error
  if result.rotten then
    return errors.new("network", arrived_changed(lane, op), { object = object_of(lane, op), code = "CrcMismatch", retryable = true })
  elseif err and from_the_wire[err.kind] then
    return errors.new(err.kind, ("cannot %s %s: %s"):format(op.verb, object_of(lane, op), err.message), { object = object_of(lane, op) })
  elseif err then
    return errors.new(err.kind, err.message, { object = op.path, retryable = false })
  end
  local call = { method = op.action == "send" and "PUT" or "GET", verb = op.verb, bucket = lane.bucket.name, key = op.key }
  return service.failure(call, { status = result.status, body = result.body, headers = headers_of(result) })
end

local function settle(lane, result)
  local waiting = lane.pending[result.tag]
  lane.pending[result.tag] = nil
  lane.count = lane.count - 1
  if lane.quieter then lane.quieter:set() end
  local op = waiting.op
  if result.resent > 0 then result.reason = arrived_changed(lane, op) end
  if result.error or result.status ~= 0 and result.status >= 300 then return waiting.done(nil, failure(lane, op, result)) end
  if result.skipped then result.etag = op.known.etag end
  if op.action == "fetch" then op.length = result.length end
  return waiting.done(result)
end

-- Runs while something is under way.
local function dispatch(lane)
  while lane.engine and lane.count > 0 do
    for _, result in ipairs(lane.engine:wait()) do settle(lane, result) end
  end
  lane.dispatching = false
end

local function renew_keys(lane)
  local now = clock.monotonic()
  if lane.keys_at and now - lane.keys_at < KEYS_LOOKED_AT then return end
  local keys = target.current().credentials:get()
  lane.keys_at = now
  if lane.keys == keys.access_key_id and lane.token == keys.security_token and lane.secret == keys.access_key_secret then return end
  lane.keys, lane.token, lane.secret = keys.access_key_id, keys.security_token, keys.access_key_secret
  lane.engine:keys(keys.access_key_id, keys.access_key_secret, keys.security_token)
end

---Does one operation beside others; `done(result, err)` is called when it has ended.
---@param op eirun.OssOp
---@param done fun(result: eirun.OssResult|nil, err: eirun.Error|nil)
function Lane:submit(op, done)
  renew_keys(self)
  self.tag = self.tag + 1
  errors.check(self.engine:submit(self.tag, op))
  self.pending[self.tag] = { op = op, done = done }
  self.count = self.count + 1
  if not self.dispatching then
    self.dispatching = true
    self.spawn(dispatch, self)
  end
end

---Does one operation and answers its result.
---@param op eirun.OssOp
---@return eirun.OssResult
function Lane:run(op)
  local ended, result, err = task.event(), nil, nil
  self:submit(op, function(a, b)
    result, err = a, b
    ended:set()
  end)
  ended:wait()
  return errors.check(result, err)
end

local function busy_with(lane, key)
  for _, waiting in pairs(lane.pending) do
    if waiting.op.key == key then return true end
  end
  return false
end

---Waits until no operation on that key is under way: those whose tasks were ended go on in their threads.
---@param key string
function Lane:quiet(key)
  while self.engine and busy_with(self, key) do
    self.quieter = self.quieter or task.event()
    self.quieter:clear()
    self.quieter:wait()
  end
end

---Bytes that went over the wire so far.
---@return integer
function Lane:bytes()
  if self.engine then self.moved = self.engine:moved() end
  return self.moved
end

function Lane:close()
  if not self.engine then return end
  self:bytes()
  self.engine:close()
  self.engine = nil
end
Lane.__close = Lane.close

local function port_of(url) return url.scheme == "https" and 443 or 80 end

---@param bucket eirun.Bucket
---@param opts {connections: integer, bandwidth: number|nil, spawn: fun(fn: function)}
---@return eirun.OssLane
function M.open(bucket, opts)
  local url, base, region = service.where { bucket = bucket.name, key = "", region = bucket.region, place = bucket.place }
  local host, port = url.host:match "^%[?([^%]]-)%]?:?(%d*)$"
  local place = errors.check(core_load.resolve(host, math.tointeger(tonumber(port)) or port_of(url)))
  local lane = setmetatable({ bucket = bucket, spawn = opts.spawn, pending = {}, count = 0, tag = 0, moved = 0 }, Lane)
  lane.engine = errors.check(engine.start { unix = place.unix, address = place.address, port = place.port, host = url.host, base = base,
    bucket = bucket.name, region = region, agent = "eirun/" .. require("eirun.core.build").version, connections = opts.connections,
    bandwidth = opts.bandwidth, tls = url.scheme == "https" and host or nil, ca_file = target.current().ca_file })
  return lane
end

return M
