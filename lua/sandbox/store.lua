-- SPDX-License-Identifier: Apache-2.0
-- What the sandbox has said yes to: values by kind and key, decoded in memory, as JSON text in SQLite. Every write is
-- committed when the call (or the outermost tx) returns; only then may anybody be told.
local db = require "eirun.core.db"
local json = require "eirun.core.json"

local Store = {}
Store.__index = Store

local schema = [[
create table if not exists object (kind text not null, key text not null, value text not null,
  primary key (kind, key)) without rowid;
]]

local function load_kind(self, kind)
  local table_of = { values = {}, keys = {} }
  for _, row in ipairs(self.db:rows("select key, value from object where kind = ? order by key", kind)) do
    table_of.keys[#table_of.keys + 1] = row[1]
    table_of.values[row[1]] = assert(json.decode(row[2]))
  end
  self.kinds[kind] = table_of
  return table_of
end

local function kind_of(self, kind) return self.kinds[kind] or load_kind(self, kind) end

-- Index of the first key that is not below `key`.
local function place(keys, key)
  local low, high = 1, #keys + 1
  while low < high do
    local middle = (low + high) // 2
    if keys[middle] < key then low = middle + 1 else high = middle end
  end
  return low
end

local function set_in_memory(of, key, value)
  local known = of.values[key] ~= nil
  of.values[key] = value
  if value ~= nil and not known then
    table.insert(of.keys, place(of.keys, key), key)
  elseif value == nil and known then
    table.remove(of.keys, place(of.keys, key))
  end
end

local function write_one(self, kind, key)
  local value = self.kinds[kind].values[key]
  if value == nil then
    assert(self.db:run("delete from object where kind = ? and key = ?", kind, key))
  else
    assert(self.db:run("insert or replace into object (kind, key, value) values (?, ?, ?)", kind, key,
      assert(json.encode(value))))
  end
end

-- One SQLite transaction for everything that the open tx touched, in the order in which it was touched.
local function commit(self, dirty)
  if #dirty == 0 then return end
  assert(self.db:exec "begin immediate")
  local ok, err = pcall(function()
    for _, entry in ipairs(dirty) do write_one(self, entry.kind, entry.key) end
    assert(self.db:run("insert or replace into object (kind, key, value) values ('meta', 'clock', ?)",
      json.encode(self.now())))
  end)
  if ok then ok, err = self.db:exec "commit" end
  if ok then return end
  self.db:exec "rollback"
  error(err, 0)
end

-- Memory goes back to what is on disk for every key that the failed tx touched.
local function forget(self, dirty)
  for _, entry in ipairs(dirty) do
    local text = self.db:row("select value from object where kind = ? and key = ?", entry.kind, entry.key)
    set_in_memory(self.kinds[entry.kind], entry.key, text and json.decode(text) or nil)
  end
end

local function touch(self, kind, key)
  local open = self.open or error("the store is written outside a transaction", 3)
  if open.owner ~= coroutine.running() then error("another task's transaction is open: a tx must not block", 3) end
  local mark = kind .. "\0" .. key
  if open.seen[mark] then return end
  open.seen[mark] = true
  open.dirty[#open.dirty + 1] = { kind = kind, key = key }
end

-- The live value: whoever changes it must put it back in the same tx.
function Store:get(kind, key) return kind_of(self, kind).values[key] end

function Store:put(kind, key, value)
  if not self.open then return self:tx(function() return self:put(kind, key, value) end) end
  local of = kind_of(self, kind)
  touch(self, kind, key)
  set_in_memory(of, key, value)
  return value
end

function Store:delete(kind, key)
  if kind_of(self, kind).values[key] == nil then return false end
  if not self.open then return self:tx(function() return self:delete(kind, key) end) end
  touch(self, kind, key)
  set_in_memory(kind_of(self, kind), key, nil)
  return true
end

-- Pairs of a kind, sorted by key. Deleting or adding while walking is allowed; what is added is not visited.
function Store:each(kind)
  local of = kind_of(self, kind)
  local keys, at = table.move(of.keys, 1, #of.keys, 1, {}), 0
  return function()
    repeat at = at + 1 until keys[at] == nil or of.values[keys[at]] ~= nil
    return keys[at], of.values[keys[at]]
  end
end

function Store:count(kind) return #kind_of(self, kind).keys end

-- The live list of a kind's keys, sorted, to search in; whoever gets it must not change it.
function Store:sorted_keys(kind) return kind_of(self, kind).keys end

local function finish(self, open, ok, ...)
  self.open = nil
  local failure = ...
  if ok then ok, failure = pcall(commit, self, open.dirty) end
  if not ok then
    forget(self, open.dirty)
    error(failure, 0)
  end
  for _, fn in ipairs(open.after) do fn() end
  return ...
end

-- Runs fn with its writes in one commit and returns what it returns. An error undoes them all. fn must not block.
-- Inside an open tx it simply joins.
function Store:tx(fn)
  if self.open then
    if self.open.owner ~= coroutine.running() then error("another task's transaction is open: a tx must not block", 2) end
    return fn()
  end
  local open = { owner = coroutine.running(), dirty = {}, seen = {}, after = {} }
  self.open = open
  return finish(self, open, pcall(fn))
end

-- Runs fn after the commit of the open tx, or now when there is none.
function Store:after_commit(fn)
  if not self.open then return fn() end
  table.insert(self.open.after, fn)
end

function Store:close() self.db:close() end

local store = {}

-- `now` gives the run's time; the last committed one is kept as meta/clock.
function store.open(path, now)
  local base, err = db.open(path, { durable = false })
  if not base then return nil, err end
  local ok, failure = base:exec(schema)
  if not ok then return nil, failure end
  return setmetatable({ db = base, kinds = {}, now = now, open = nil }, Store)
end

return store
