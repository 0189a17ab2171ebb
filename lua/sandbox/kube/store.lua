-- SPDX-License-Identifier: Apache-2.0
-- Objects by resource, with one resourceVersion counter for all, and the recent past of each resource for its watches.
--
-- A record is {r, ns, name, key, rv, text, obj}: `text` is the object's JSON without kind and apiVersion, `obj` the same
-- decoded. Neither is ever changed; a write makes a new record. What is written is committed when the call returns.
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local Store = {}
Store.__index = Store

local KIND = "kube"
-- resourceVersions are handed out from blocks, so that a restart need not know the last one used.
local BLOCK = 10000
-- A late watch can catch up with the events of the last five minutes, as far as these are not too many.
local RING_SECONDS, RING_LEAST, RING_MAX = 300, 200, 4000

local function new_table()
  return { by_key = {}, keys = {}, ring = {}, ring_limit = 2 * RING_LEAST, floor = 0, watchers = {}, subscribers = {} }
end

local function place(keys, key)
  local low, high = 1, #keys + 1
  while low < high do
    local middle = (low + high) // 2
    if keys[middle] < key then low = middle + 1 else high = middle end
  end
  return low
end

local function set_record(t, key, rec)
  local known = t.by_key[key] ~= nil
  t.by_key[key] = rec
  if rec and not known then
    table.insert(t.keys, place(t.keys, key), key)
  elseif not rec and known then
    table.remove(t.keys, place(t.keys, key))
  end
end

local function object_key(ns, name)
  return (ns or "") .. "/" .. name
end

local function record_of(r, obj, text)
  local meta = obj.metadata
  return { r = r, ns = meta.namespace, name = meta.name, key = object_key(meta.namespace, meta.name), uid = meta.uid,
    rv = math.tointeger(tonumber(meta.resourceVersion)), text = text, obj = obj }
end

local function load(self)
  for key, text in self.base:each(KIND) do
    local id = key:match("^[^/]+")
    local r = resources.by_id[id]
    local rec = record_of(r, assert(json.decode(text)), text)
    set_record(self.tables[id], rec.key, rec)
  end
end

local function next_rv(self)
  self.rv = self.rv + 1
  if self.rv > self.limit then
    self.limit = self.rv + BLOCK
    self.base:put("kube.meta", "rv", self.limit)
  end
  return self.rv
end

-- The store on the sandbox's own: `base` has get, put, delete, each, tx; now() answers seconds.
function Store.new(base, now)
  local self = setmetatable({ base = base, now = now, tables = {}, open = nil }, Store)
  for id in pairs(resources.by_id) do self.tables[id] = new_table() end
  load(self)
  self.rv = base:get("kube.meta", "rv") or 1
  self.limit = self.rv
  for _, t in pairs(self.tables) do t.floor = self.rv end
  return self
end

local function table_of(self, r)
  return self.tables[(r.storage or r).id]
end

function Store:get(r, ns, name)
  return table_of(self, r).by_key[object_key(r.namespaced and ns or nil, name)]
end

-- The object itself or nil; controllers read with this.
function Store:object(r, ns, name)
  local rec = self:get(r, ns, name)
  return rec and rec.obj
end

-- Records by key: all, or one namespace's.
function Store:list(r, ns)
  local t, out = table_of(self, r), {}
  if not ns or not r.namespaced then
    for i, key in ipairs(t.keys) do out[i] = t.by_key[key] end
    return out
  end
  local prefix = ns .. "/"
  local i = place(t.keys, prefix)
  while t.keys[i] and t.keys[i]:sub(1, #prefix) == prefix do
    out[#out + 1] = t.by_key[t.keys[i]]
    i = i + 1
  end
  return out
end

function Store:count(r)
  return #table_of(self, r).keys
end

-- Looked at only when the ring has doubled, so that an event costs nothing on average.
local function trim(t, now)
  local ring, n = t.ring, #t.ring
  local first = math.max(1, n - RING_MAX)
  while n - first > RING_LEAST and ring[first].at < now - RING_SECONDS do first = first + 1 end
  if first > 1 then
    t.floor = ring[first - 1].rv
    t.ring = table.move(ring, first, n, 1, {})
  end
  t.ring_limit = 2 * math.max(#t.ring, RING_LEAST)
end

local function publish(self, events)
  for _, event in ipairs(events) do
    local t = self.tables[event.r.id]
    event.at = self.now()
    t.ring[#t.ring + 1] = event
    if #t.ring >= t.ring_limit then trim(t, event.at) end
    for _, watcher in ipairs(t.watchers) do watcher(event) end
    for _, fn in ipairs(t.subscribers) do fn(event) end
  end
end

local function undo(self, changes)
  for i = #changes, 1, -1 do
    local change = changes[i]
    set_record(self.tables[change.r.id], change.key, change.old)
  end
end

-- Runs fn; its writes are one commit, and their events are told after it. An error undoes them. fn must not block.
function Store:tx(fn)
  if self.open then return fn() end
  local open = { events = {}, undo = {} }
  self.open = open
  local results = table.pack(pcall(self.base.tx, self.base, fn))
  self.open = nil
  if not results[1] then
    undo(self, open.undo)
    error(results[2], 0)
  end
  publish(self, open.events)
  return table.unpack(results, 2, results.n)
end

local function change(self, r, key, old, rec)
  table.insert(self.open.undo, { r = r, key = key, old = old })
  set_record(self.tables[r.id], key, rec)
  if rec then
    self.base:put(KIND, r.id .. "/" .. key, rec.text)
  else
    self.base:delete(KIND, r.id .. "/" .. key)
  end
end

local function with_rv(obj, rv)
  local new = value.shallow(obj)
  new.metadata = value.shallow(obj.metadata)
  new.metadata.resourceVersion = tostring(rv)
  return new
end

-- Stores obj (complete but for its resourceVersion) in place of what has its name; answers the new record.
function Store:put(r, obj)
  r = r.storage or r
  return self:tx(function()
    local rv = next_rv(self)
    obj = with_rv(obj, rv)
    local rec = record_of(r, obj, assert(json.encode(obj)))
    local old = self.tables[r.id].by_key[rec.key]
    change(self, r, rec.key, old, rec)
    table.insert(self.open.events, { r = r, type = old and "MODIFIED" or "ADDED", rv = rv, new = rec, old = old })
    return rec
  end)
end

-- Removes a record; its last state (or the one given) carries the resourceVersion of the removal.
function Store:delete(rec, last_state)
  local r = rec.r
  return self:tx(function()
    local rv = next_rv(self)
    change(self, r, rec.key, rec, nil)
    local last = with_rv(last_state or rec.obj, rv)
    local gone = record_of(r, last, assert(json.encode(last)))
    table.insert(self.open.events, { r = r, type = "DELETED", rv = rv, new = gone, old = rec })
    return gone
  end)
end

-- fn(event) after each commit: {r, type, rv, new, old}; for DELETED `new` is the last state.
function Store:subscribe(r, fn)
  table.insert(table_of(self, r).subscribers, fn)
end

-- A watcher is called like a subscriber until the function that this answers is called.
function Store:watch(r, fn)
  local list = table_of(self, r).watchers
  list[#list + 1] = fn
  return function()
    for i, other in ipairs(list) do
      if other == fn then
        table.remove(list, i)
        return
      end
    end
  end
end

-- Events after rv, oldest first; nil when they are no longer known.
function Store:since(r, rv)
  local t = table_of(self, r)
  if rv < t.floor then return nil, t.floor end
  local low, high = 1, #t.ring + 1
  while low < high do
    local middle = (low + high) // 2
    if t.ring[middle].rv <= rv then low = middle + 1 else high = middle end
  end
  return table.move(t.ring, low, #t.ring, 1, {})
end

-- Forgets the past, as a compaction does: every older watch gets 410.
function Store:compact()
  for _, t in pairs(self.tables) do
    t.ring, t.floor = {}, self.rv
  end
end

-- The record's whole JSON in its own or another group-version's words.
function Store.full_text(rec)
  return rec.r.head .. rec.text:sub(2)
end

return Store
