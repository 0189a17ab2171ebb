-- SPDX-License-Identifier: Apache-2.0
-- Access logs in blocks of columns: a column that is the same in a whole block is one value. Blocks are committed every few
-- seconds, not by record, and old ones are read back from disk when a query asks for them.
local db = require "eirun.core.db"
local json = require "eirun.core.json"

local Logs = {}
Logs.__index = Logs
local logs = {}

local most_records, kept_blocks = 1024, 512

local schema = [[
create table if not exists block (id integer primary key, store text not null, first real not null, last real not null,
  count integer not null, data text not null);
create index if not exists block_time on block (store, last);
]]

local function new_block(store) return { store = store, count = 0, names = 0, same = {}, columns = {} } end

local function spread(block, name, value)
  local column, old = {}, block.same[name]
  for i = 1, block.count - 1 do column[i] = old end
  column[block.count] = value
  block.columns[name], block.same[name] = column, nil
end

local function put(block, name, value)
  local column, old = block.columns[name], block.same[name]
  if column then column[block.count] = value return end
  if old == value then return end
  if old == nil then block.names = block.names + 1 end
  if block.count == 1 then block.same[name] = value else spread(block, name, value) end
end

local function append(block, record)
  block.count = block.count + 1
  local names = 0
  for name, value in pairs(record) do -- order does not matter: each field has its own column
    put(block, name, value)
    names = names + 1
  end
  if names == block.names then return end
  for name in pairs(block.same) do
    if record[name] == nil then spread(block, name, nil) end
  end
end

local function fields_of(block, i)
  local fields = {}
  for name, value in pairs(block.same) do fields[name] = value end
  for name, column in pairs(block.columns) do fields[name] = column[i] end
  return fields
end

-- A record is a view: its place, and the block behind it. Fields are looked up when asked for; pairs gives them all.
local function view_of(block)
  if block.view then return block.view end
  local columns, same = block.columns, block.same
  block.view = {
    __index = function(record, name)
      local column = columns[name]
      if column then return column[record[1]] end
      return same[name]
    end,
    __pairs = function(record) return next, fields_of({ columns = columns, same = same }, record[1]) end,
  }
  return block.view
end

local function with_gaps_filled(block)
  local columns = {}
  for name, column in pairs(block.columns) do
    local full = {}
    for i = 1, block.count do
      local value = column[i]
      if value == nil then value = json.null end
      full[i] = value
    end
    columns[name] = json.array(full)
  end
  return { same = block.same, columns = columns }
end

local function without_nulls(data)
  for _, column in pairs(data.columns) do
    for i, value in ipairs(column) do
      if value == json.null then column[i] = nil end
    end
  end
  return data
end

-- Adds one record of a logstore; time is when it was collected. The record's table is taken over.
function Logs:append(store, record, time)
  local block = self.open[store]
  if not block then
    block = new_block(store)
    block.first = time
    self.open[store] = block
    self.wake:set()
  end
  record.__time__ = math.floor(time)
  record["@"] = time
  append(block, record)
  block.last = time
  if block.count >= most_records then self:seal(store) end
end

local function evict(self)
  while #self.loaded > kept_blocks do
    local old = table.remove(self.loaded, 1)
    old.same, old.columns, old.view = nil, nil, nil
  end
end

-- Commits the open block of a store.
function Logs:seal(store)
  local block = self.open[store]
  if not block then return end
  self.open[store] = nil
  assert(self.db:run("insert into block (store, first, last, count, data) values (?, ?, ?, ?, ?)", store, block.first, block.last,
    block.count, assert(json.encode(with_gaps_filled(block)))))
  block.id = self.db:row "select last_insert_rowid()"
  self.index[store] = self.index[store] or {}
  table.insert(self.index[store], block)
  table.insert(self.loaded, block)
  evict(self)
end

function Logs:flush()
  local stores = {}
  for store in pairs(self.open) do stores[#stores + 1] = store end
  table.sort(stores)
  for _, store in ipairs(stores) do self:seal(store) end
end

local function ensure_loaded(self, block)
  if block.columns then return block end
  local data = without_nulls(assert(json.decode((self.db:row("select data from block where id = ?", block.id)))))
  block.same, block.columns = data.same, data.columns
  table.insert(self.loaded, block)
  return block
end

local function add_matching(found, block, from, to)
  local times, view = block.columns["@"], view_of(block)
  for i = 1, block.count do
    local time = times and times[i] or block.same["@"]
    if time >= from and time < to then found[#found + 1] = setmetatable({ i }, view) end
  end
end

-- Records of [from, to), oldest first; views that stay good while they are held.
function Logs:between(store, from, to)
  local found = {}
  for _, block in ipairs(self.index[store] or {}) do
    if block.last >= from and block.first < to then add_matching(found, ensure_loaded(self, block), from, to) end
  end
  local open = self.open[store]
  if open then add_matching(found, open, from, to) end
  evict(self)
  return found
end

-- Has any record up to `to` ever fitted? Asked for the same text again, only what is new is looked at.
function Logs:ever(store, text, predicate, to)
  local mark = store .. "\0" .. text
  local memory = self.asked[mark] or { upto = -math.huge, found = false }
  self.asked[mark] = memory
  if memory.found then return true end
  for _, record in ipairs(self:between(store, memory.upto, to)) do
    if predicate(record) then
      memory.found = true
      return true
    end
  end
  memory.upto = to
  return false
end

function Logs:count(store)
  local count = self.open[store] and self.open[store].count or 0
  for _, block in ipairs(self.index[store] or {}) do count = count + block.count end
  return count
end

local function read_index(base)
  local index = {}
  for _, row in ipairs(base:rows "select id, store, first, last, count from block order by id") do
    index[row[2]] = index[row[2]] or {}
    table.insert(index[row[2]], { id = row[1], store = row[2], first = row[3], last = row[4], count = row[5] })
  end
  return index
end

function Logs:close()
  self:flush()
  self.db:close()
end

-- wake is set whenever a block is begun.
function logs.open(path, wake)
  local base = assert(db.open(path, { durable = false }))
  assert(base:exec(schema))
  return setmetatable({ db = base, index = read_index(base), open = {}, loaded = {}, asked = {}, wake = wake }, Logs)
end

return logs
