-- SPDX-License-Identifier: Apache-2.0
-- List and watch without end: resumes where it broke off, lists again when the server forgot, and hands each change on once.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local task = require "eirun.task"

local M = {}

local FIRST_PAUSE, LONGEST_PAUSE = 0.8, 30

---@class eirun.WatchEvent
---@field type "added"|"modified"|"deleted"
---@field object table

---@class eirun.Watch
local Watch = {}
Watch.__index = Watch

local function key_of(object)
  return (object.metadata.namespace or "") .. "/" .. object.metadata.name
end

---@param k8s eirun.KubeClient
---@param kind string
---@param opts? {labels?: table|string, fields?: table|string, all?: boolean, timeout?: integer}
---@return eirun.Watch
function M.new(k8s, kind, opts)
  return setmetatable({ k8s = k8s, kind = kind, opts = opts or {}, known = {}, queue = {}, pause = FIRST_PAUSE, buffer = "" }, Watch)
end

local function push(self, kind, object)
  self.queue[#self.queue + 1] = { type = kind, object = object }
end

-- One object's news: the same version twice is no news.
local function note(self, object, gone)
  local key = key_of(object)
  local old = self.known[key]
  if gone then
    if old then push(self, "deleted", object) end
    self.known[key] = nil
    return
  end
  if old and old.metadata.resourceVersion == object.metadata.resourceVersion then return end
  self.known[key] = object
  push(self, old and "modified" or "added", object)
end

-- After a list, what is no longer in it was deleted while nobody looked.
local function relist(self)
  local items, version = self.k8s:list(self.kind, self.opts)
  local present = {}
  for _, item in ipairs(items) do present[key_of(item)] = true end
  local gone = {}
  for key in pairs(self.known) do if not present[key] then gone[#gone + 1] = key end end
  table.sort(gone)
  for _, key in ipairs(gone) do note(self, self.known[key], true) end
  for _, item in ipairs(items) do note(self, item) end
  self.version = version
end

local function close(self)
  if self.stream then self.stream:close() end
  self.stream, self.buffer = nil, ""
end

local function connect(self)
  if not self.version then relist(self) end
  local opts = self.opts
  self.stream = self.k8s:open_watch(self.kind, { resource_version = self.version, labels = opts.labels, fields = opts.fields,
    all = opts.all, timeout = opts.timeout })
  if self.stream.status == 410 then self.version = nil end
  if self.stream.status >= 400 then
    local status = self.stream.status
    close(self)
    local kind = (status == 401 or status == 403) and "denied" or "internal"
    error(errors.new(kind, ("cannot watch %s: the server answered %d"):format(self.kind, status), { status = status }), 0)
  end
end

local changes = { ADDED = false, MODIFIED = false, DELETED = true }

local function handle(self, line)
  local event = json.decode(line)
  if type(event) ~= "table" or event.type == "ERROR" or type(event.object) ~= "table" then
    local code = type(event) == "table" and type(event.object) == "table" and event.object.code
    if code == 410 or not code then self.version = nil end
    return close(self)
  end
  local version = (event.object.metadata or {}).resourceVersion
  if version then self.version = version end
  if changes[event.type] ~= nil then note(self, event.object, changes[event.type]) end
  self.pause = FIRST_PAUSE
end

-- Frames do not align with lines.
local function feed(self, chunk)
  self.buffer = self.buffer .. chunk
  while self.stream do
    local line, rest = self.buffer:match("^([^\n]*)\n(.*)$")
    if not line then return end
    self.buffer = rest
    if line ~= "" then handle(self, line) end
  end
end

local function wait_and_grow(self)
  task.sleep(self.pause)
  self.pause = math.min(self.pause * 2, LONGEST_PAUSE)
end

local fatal = { cancelled = true, denied = true, invalid = true, not_found = true }

-- One turn: connect, or read a chunk. A failure that may pass is slept over.
local function turn(self)
  local ok, err = pcall(function()
    if not self.stream then return connect(self) end
    local chunk, failed = self.stream:read()
    if chunk then return feed(self, chunk) end
    close(self)
    if failed then error(failed, 0) end
  end)
  if ok then return end
  close(self)
  if fatal[errors.from(err).kind] then error(err, 0) end
  wait_and_grow(self)
end

---The next change; waits for it. At first every object that is there comes as "added".
---@return eirun.WatchEvent
---Example: `for event in k8s:watch("Pod") do print(event.type, event.object.metadata.name) end`.
---Raises "denied" when the right is missing; broken connections and expired versions are nobody's business but its own.
function Watch:next()
  while #self.queue == 0 do turn(self) end
  return table.remove(self.queue, 1)
end

---Ends the stream.
---Example: `local pods <close> = k8s:watch "Pod"` closes it by itself. Raises nothing.
function Watch:close()
  close(self)
end

Watch.__close = close
Watch.__call = Watch.next

return M
