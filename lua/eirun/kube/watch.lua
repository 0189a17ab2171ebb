-- SPDX-License-Identifier: Apache-2.0
-- List and watch without end, whole objects: each change is handed on once. Who needs a few fields of many objects takes a store.
local core = require "eirun.core.kube"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local reflector = require "eirun.kube.reflector"

local M = {}

---@class eirun.WatchEvent
---@field type "added"|"modified"|"deleted"
---@field object table

---@class eirun.Watch
local Watch = {}
Watch.__index = Watch

local function key_of(object)
  return (object.metadata.namespace or "") .. "/" .. object.metadata.name
end

local function push(self, kind, object)
  self.last = self.last + 1
  self.queue[self.last] = { type = kind, object = object }
end

local function gone(self, key, object)
  local old = self.known[key]
  self.known[key] = nil
  if old then push(self, "deleted", object or old) end
end

-- One object's news: the same version twice is no news; another uid is another object.
local function note(self, object)
  local key = key_of(object)
  local old = self.known[key]
  if old and old.metadata.uid ~= object.metadata.uid then
    gone(self, key)
    old = nil
  end
  if old and old.metadata.resourceVersion == object.metadata.resourceVersion then return end
  self.known[key] = object
  push(self, old and "modified" or "added", object)
end

local function page(self, info, text)
  local list, err = json.decode(text)
  if type(list) ~= "table" then error(reflector.nonsense(err or errors.new("internal", "the list is no object")), 0) end
  for _, item in ipairs(type(list.items) == "table" and list.items or {}) do
    item.kind, item.apiVersion = info.kind, info.api_version
    self.listed[key_of(item)] = item
    self.order[#self.order + 1] = item
  end
  local metadata = list.metadata or {}
  self.version = metadata.resourceVersion or self.version
  return metadata.continue
end

-- What is no longer in the list was deleted while nobody looked.
local function finish(self)
  local missing = {}
  for key in pairs(self.known) do if not self.listed[key] then missing[#missing + 1] = key end end
  table.sort(missing)
  for _, key in ipairs(missing) do gone(self, key) end
  for _, item in ipairs(self.order) do note(self, item) end
end

local changes = { ADDED = true, MODIFIED = true, DELETED = true, BOOKMARK = true, ERROR = true }

-- Answers whether it was a change, and the object of an ERROR event.
local function handle(self, line)
  local event = reflector.decode(line)
  if not changes[event.type] then error(reflector.nonsense(errors.new("internal", "an event of an unknown type")), 0) end
  if event.type == "ERROR" then return false, event.object end
  local version = (event.object.metadata or {}).resourceVersion
  if not version then error(reflector.nonsense(errors.new("internal", "an event without a resource version")), 0) end
  self.version = version
  if event.type == "BOOKMARK" then return false end
  if event.type == "DELETED" then
    gone(self, key_of(event.object), event.object)
  else
    note(self, event.object)
  end
  return true
end

local function feed(self, chunk)
  local lines, err = self.lines:feed(chunk)
  if not lines then error(reflector.nonsense(err), 0) end
  local events = 0
  for _, line in ipairs(lines) do
    if line ~= "" then
      local change, failed = handle(self, line)
      if failed then return events, false, failed end
      events = events + (change and 1 or 0)
    end
  end
  return events, false
end

local function sink_of(self, k8s, kind)
  return {
    begin = function() self.listed, self.order = {}, {} end,
    page = function(text) return page(self, k8s:kind(kind), text) end,
    finish = function() finish(self) end,
    feed = function(chunk) return feed(self, chunk) end,
    forget = function() self.lines = core.lines() end,
    version = function() return self.version end,
  }
end

---@param k8s eirun.KubeClient
---@param kind string
---@param opts? {labels?: table|string, fields?: table|string, all?: boolean, timeout?: integer, stall?: number}
---@return eirun.Watch
function M.new(k8s, kind, opts)
  local self = setmetatable({ known = {}, queue = {}, first = 1, last = 0, version = "" }, Watch)
  self.reflector = reflector.new(k8s, kind, opts or {}, sink_of(self, k8s, kind))
  return self
end

---The next change; waits for it. At first every object that is there comes as "added".
---@return eirun.WatchEvent
---Example: `for event in k8s:watch("Pod") do print(event.type, event.object.metadata.name) end`.
---Raises "denied" when the right is missing; broken connections and expired versions are nobody's business but its own.
function Watch:next()
  while self.first > self.last do self.reflector:turn() end
  local event = self.queue[self.first]
  self.queue[self.first] = nil
  self.first = self.first + 1
  return event
end

---Ends the stream.
---Example: `local pods <close> = k8s:watch "Pod"` closes it by itself. Raises nothing.
function Watch:close()
  self.reflector:close()
end

Watch.__close = Watch.close
Watch.__call = Watch.next

return M
