-- SPDX-License-Identifier: Apache-2.0
-- List, then watch from there; on 410 list again and tell the differences; otherwise go on where the stream ended.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local task = require "eirun.core.task"

local M = {}
local Informer = {}
Informer.__index = Informer

local function nothing() end

function M.new(client, resource, options)
  return setmetatable({
    client = client, resource = resource, options = options, objects = {}, synced = task.event(), stopped = false,
    on_add = options.on_add or nothing, on_update = options.on_update or nothing, on_delete = options.on_delete or nothing,
  }, Informer)
end

local function key_of(object)
  local meta = object.metadata
  return (meta.namespace or "") .. "/" .. meta.name
end

---@param namespace string|nil nil for cluster-scoped kinds
function Informer:get(namespace, name)
  return self.objects[(namespace or "") .. "/" .. name]
end

---Objects by name, so that what follows from the list is the same in every run.
function Informer:list(namespace)
  local keys, list = {}, {}
  for key, object in pairs(self.objects) do
    if not namespace or object.metadata.namespace == namespace then keys[#keys + 1] = key end
  end
  table.sort(keys)
  for i, key in ipairs(keys) do list[i] = self.objects[key] end
  return list
end

---@return boolean false when the first list has not arrived in time
function Informer:wait_synced(seconds)
  return self.synced:wait(seconds)
end

function Informer:stop()
  self.stopped = true
  if self.stream then self.stream:close() end
end

local function store(self, object)
  local key = key_of(object)
  local old = self.objects[key]
  self.objects[key] = object
  if not old then return self.on_add(object) end
  if old.metadata.uid ~= object.metadata.uid then
    self.on_delete(old)
    return self.on_add(object)
  end
  if old.metadata.resourceVersion ~= object.metadata.resourceVersion then self.on_update(old, object) end
end

local function drop(self, object)
  local key = key_of(object)
  if not self.objects[key] then return end
  self.objects[key] = nil
  self.on_delete(object)
end

local function relist(self)
  local list, err = self.client:list(self.resource, self.options)
  if not list then return nil, err end
  local seen = {}
  for _, object in ipairs(list.items) do seen[key_of(object)] = true end
  for _, object in ipairs(self:list()) do
    if not seen[key_of(object)] then drop(self, object) end
  end
  for _, object in ipairs(list.items) do store(self, object) end
  self.version = list.metadata and list.metadata.resourceVersion
  self.synced:set()
  return true
end

local apply = {
  ADDED = store,
  MODIFIED = store,
  DELETED = drop,
  BOOKMARK = nothing,
}

-- One line of the stream. Answers "relist" when the state can no longer be followed.
function Informer:take(line)
  local event = json.decode(line)
  local object = type(event) == "table" and event.object
  if not object then return "relist" end
  local act = apply[event.type]
  if not act or not object.metadata or not object.metadata.resourceVersion then return "relist" end
  self.version = object.metadata.resourceVersion
  act(self, object)
end

-- Frames do not align with lines. Calls `take` for each whole line.
local function each_line(stream, take)
  local rest = ""
  while true do
    local chunk, err = stream:read()
    if not chunk then return err and "broken" or "ended" end
    rest = rest .. chunk
    local from = 1
    while true do
      local stop = rest:find("\n", from, true)
      if not stop then break end
      if take(rest:sub(from, stop - 1)) == "relist" then return "relist" end
      from = stop + 1
    end
    rest = rest:sub(from)
  end
end

local function follow(self)
  local options = self.options
  local stream, err = self.client:watch(self.resource, { namespace = options.namespace, label_selector = options.label_selector,
    field_selector = options.field_selector, resource_version = self.version })
  if not stream then return "broken", err end
  if stream.status >= 400 then
    local status = stream.status
    stream:close()
    return status == 410 and "relist" or "broken", errors.new("network", "watch answered " .. status)
  end
  self.stream = stream
  local why = each_line(stream, function(line) return self:take(line) end)
  stream:close()
  self.stream = nil
  return why
end

---Runs until `stop`. Failures are tried again with growing pauses, never raised.
function Informer:run()
  local pause, fresh = 0.8, false
  while not self.stopped do
    local began = task.now()
    local why = fresh and follow(self) or (not fresh and relist(self) and "listed") or "broken"
    if why == "listed" then fresh = true elseif why == "relist" then fresh = false end
    local healthy = why == "listed" or why == "relist" or (why == "ended" and task.now() - began > 1)
    if healthy then
      pause = 0.8
    elseif not self.stopped then
      task.sleep(pause)
      pause = math.min(pause * 2, 30)
    end
  end
end

return M
