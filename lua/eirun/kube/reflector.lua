-- SPDX-License-Identifier: Apache-2.0
-- A collection kept right in a sink: list (or the server's own watch-list), then watch; resumed where it broke off, listed again when
-- the server forgot, woken when the line went silent.
local client = require "eirun.kube.client"
local connection = require "eirun.kube.connection"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local task = require "eirun.task"

local M = {}

local FIRST_PAUSE, LONGEST_PAUSE = 0.8, 30
-- A server sends a bookmark about once a minute: one that says nothing for so long has gone, whatever the connection looks like.
local STALL, INITIAL_STALL = 150, 10
local WATCH_SECONDS = 300

---@class eirun.kube.Sink
---@field begin fun() a list begins
---@field page fun(text: string): string|nil continue of a page; raises for what is no list
---@field finish fun() the list is whole
---@field feed fun(chunk: string): integer, boolean, table|nil events, whether the first objects are whole, the object of an ERROR event
---@field forget fun() a new stream begins
---@field version fun(): string to go on from

---@class eirun.kube.Reflector
---@field synced userdata event: the first list is whole
local Reflector = {}
Reflector.__index = Reflector

---@param k8s eirun.KubeClient
---@param kind string
---@param opts {labels?: table|string, fields?: table|string, all?: boolean, timeout?: integer, stall?: number, watch_list?: boolean}
---@param sink eirun.kube.Sink
---@return eirun.kube.Reflector
function M.new(k8s, kind, opts, sink)
  return setmetatable({ k8s = k8s, kind = kind, opts = opts, sink = sink, pause = FIRST_PAUSE, synced = task.event(), lists = 0,
    watches = 0, stalls = 0 }, Reflector)
end

function Reflector:close()
  if self.stream then self.stream:close() end
  self.stream = nil
end

local function is_synced(self)
  self.listing, self.stale = false, false
  self.synced:set()
end

local function list(self)
  local sink = self.sink
  sink.begin()
  self.k8s:pages(self.k8s:kind(self.kind), self.opts, sink.page, sink.begin)
  sink.finish()
  self.lists = self.lists + 1
  is_synced(self)
end

local function open(self, initial)
  local opts, sink = self.opts, self.sink
  local info = self.k8s:kind(self.kind)
  local namespace, seconds = not opts.all and self.k8s.ns or nil, opts.timeout or WATCH_SECONDS
  local call = { path = kinds.path(info, namespace), verb = "watch", object = client.where(info, namespace), timeout = seconds + 30,
    query = { watch = true, allowWatchBookmarks = true, timeoutSeconds = seconds, labelSelector = client.selector(opts.labels),
      fieldSelector = client.selector(opts.fields), resourceVersion = not initial and sink.version() or nil,
      sendInitialEvents = initial, resourceVersionMatch = initial and "NotOlderThan" or nil } }
  sink.forget()
  self.watches, self.opened, self.heard = self.watches + 1, task.now(), 0
  local stream = self.k8s:stream(call)
  if stream.status < 300 then
    self.stream = stream
    return
  end
  error(connection.stream_failure(call, stream), 0)
end

-- What servers say that know no watch-list.
local refusals = { [400] = true, [405] = true, [415] = true, [422] = true, [500] = true }

local function no_watch_list(self)
  self.k8s.shared.no_watch_list = true
  self.listing = false
  self:close()
end

local function begin(self)
  if not self.opts.watch_list or self.k8s.shared.no_watch_list then return list(self) end
  self.sink.begin()
  local ok, err = pcall(open, self, true)
  if ok then
    self.listing = true
    return
  end
  if not refusals[errors.from(err).status or 0] then error(err, 0) end
  no_watch_list(self)
  list(self)
end

local function connect(self)
  if self.sink.version() == "" or self.stale then begin(self) end
  if not self.stream then open(self) end
end

-- The server forgot what we know, or speaks nonsense: list again.
local function forget(self, err)
  self.stale = true
  if self.listing then no_watch_list(self) end
  self:close()
  if err then error(err, 0) end
end

local function server_error(self, status)
  local code = type(status) == "table" and status.code
  if code == 410 then return forget(self) end
  local after = type(status) == "table" and type(status.details) == "table" and status.details.retryAfterSeconds
  self:close()
  if code ~= 500 and code ~= 504 and code ~= 429 then self.stale = true end
  if self.listing then no_watch_list(self) end
  local words = type(status) == "table" and tostring(status.message) or "an error event"
  error(errors.new("internal", ("cannot watch %s: %s"):format(self.kind, words), { retry_after = after }), 0)
end

local function take(self, chunk)
  local ok, events, listed, failed = pcall(self.sink.feed, chunk)
  if not ok then return forget(self, events) end
  self.heard = self.heard + events
  if events > 0 then self.pause = FIRST_PAUSE end
  if listed and self.listing then
    self.sink.finish()
    is_synced(self)
  end
  if failed ~= nil then server_error(self, failed) end
end

-- A clean end is no failure, unless the stream was of no use at all.
local function ended(self)
  self:close()
  if self.listing then return no_watch_list(self) end
  if self.heard == 0 and task.now() - self.opened < 1 then
    errors.raise("network", ("the watch of %s ended at once"):format(self.kind))
  end
end

local function read(self)
  local chunk, err = self.stream:read(self.listing and INITIAL_STALL or self.opts.stall or STALL)
  if chunk then return take(self, chunk) end
  if not err then return ended(self) end
  local silent = errors.is(err, "timeout")
  self:close()
  if self.listing then return no_watch_list(self) end
  if not silent then error(err, 0) end
  self.stalls = self.stalls + 1
end

local fatal = { cancelled = true, denied = true, invalid = true, not_found = true }

local function wait_and_grow(self, after)
  local jitter = string.unpack("<I4", crypto.random(4)) / 0x100000000
  task.sleep(math.max(after or 0, self.pause * (0.5 + jitter / 2)))
  self.pause = math.min(self.pause * 2, LONGEST_PAUSE)
end

---One turn: connect, or take what came. A failure that may pass is slept over.
---Raises "denied", "not_found" and "invalid": waiting would not help.
function Reflector:turn()
  local ok, err = pcall(function()
    if not self.stream then return connect(self) end
    return read(self)
  end)
  if ok then return end
  self:close()
  err = errors.from(err)
  self.last_error = err
  if err.status == 410 then
    self.stale = true
  elseif err.decoding then
    self.stale = true
  elseif fatal[err.kind] then
    error(err, 0)
  end
  wait_and_grow(self, err.retry_after)
end

---What came over the wire and is no JSON.
---@param err eirun.Error
---@return eirun.Error
function M.nonsense(err)
  return errors.new("internal", err.message, { decoding = true })
end

---Decodes a line of a watch: its type and object; raises for what is no event.
---@param line string
---@return table event
function M.decode(line)
  local event, err = json.decode(line)
  if type(event) ~= "table" or type(event.object) ~= "table" then
    error(M.nonsense(err or errors.new("internal", "a watch event without an object")), 0)
  end
  return event
end

return M
