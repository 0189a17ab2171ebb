-- SPDX-License-Identifier: Apache-2.0
-- variables.index of a SavedModel: a sorted table (LevelDB's format) from a tensor's name to where it lies. Only what tells whether
-- the shards are whole is read: how many there are, and how many bytes each must have.
local snappy = require "eirun.oss.snappy"

local M = {}

local MAGIC = "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
local FOOTER = 48

-- A variable-length number; its value and the place after it, nil where the text ends in it.
local function varint(text, at)
  local value, shift = 0, 0
  while shift < 64 do
    local byte = text:byte(at)
    if not byte then return nil end
    value, at = value | (byte & 0x7F) << shift, at + 1
    if byte < 0x80 then return value, at end
    shift = shift + 7
  end
end

local fixed = { [1] = 8, [5] = 4 }

-- The fields of a protocol buffer's message: numbers by their tag, the last one wins.
local function message(text)
  local fields, at = {}, 1
  while at <= #text do
    local key, value
    key, at = varint(text, at)
    if not key then return nil end
    local kind = key & 7
    if kind == 0 then
      value, at = varint(text, at)
    elseif kind == 2 then
      local size
      size, at = varint(text, at)
      if not size or at + size - 1 > #text then return nil end
      value, at = text:sub(at, at + size - 1), at + size
    elseif fixed[kind] then
      value, at = text:sub(at, at + fixed[kind] - 1), at + fixed[kind]
    end
    if value == nil then return nil end
    fields[key >> 3] = value
  end
  return fields
end

-- One entry of a block: its key shares a beginning with the one before.
local function entry(block, at, before)
  local shared, own, size
  shared, at = varint(block, at)
  own, at = varint(block, at or #block + 1)
  size, at = varint(block, at or #block + 1)
  if not size or at + own + size - 1 > #block then return nil end
  return before:sub(1, shared) .. block:sub(at, at + own - 1), block:sub(at + own, at + own + size - 1), at + own + size
end

-- A block's bytes; the one behind them tells whether they are compressed.
local function unpacked(text, offset, size)
  local kind, body = text:byte(offset + size + 1), text:sub(offset + 1, offset + size)
  if kind == 0 then return body end
  return kind == 1 and snappy.unpack(body) or nil
end

-- The entries of the block at a handle; nil when it is broken.
local function block(text, offset, size)
  local body = unpacked(text, offset, size)
  if not body then return nil, "is broken" end
  local restarts = #body >= 4 and string.unpack("<I4", body, #body - 3)
  if not restarts or 4 * (restarts + 1) > #body then return nil, "is broken" end
  body = body:sub(1, #body - 4 * (restarts + 1))
  local list, at, key = {}, 1, ""
  while at <= #body do
    local value
    key, value, at = entry(body, at, key)
    if not key then return nil, "is broken" end
    list[#list + 1] = { key, value }
  end
  return list
end

-- Where the block of block handles lies: the second handle of the footer.
local function index_handle(text)
  if #text < FOOTER then return nil, "is too short" end
  if text:sub(-8) ~= MAGIC then return nil, "does not end like a table of tensors" end
  local footer = text:sub(-FOOTER)
  local _, at = varint(footer, 1)
  _, at = varint(footer, at)
  local offset
  offset, at = varint(footer, at)
  return offset, varint(footer, at or FOOTER + 1)
end

local function note_tensor(sizes, value)
  local fields = message(value)
  if not fields then return nil end
  local shard, past = fields[3] or 0, (fields[4] or 0) + (fields[5] or 0)
  sizes[shard] = math.max(sizes[shard] or 0, past)
  return true
end

local function read(text)
  local offset, size = index_handle(text)
  if not offset then return nil, size end
  local handles, why = block(text, offset, size)
  if not handles then return nil, why end
  local found = { shards = 1, sizes = {}, tensors = 0 }
  for _, handle in ipairs(handles) do
    local from, at = varint(handle[2], 1)
    local entries
    entries, why = block(text, from, (varint(handle[2], at)))
    if not entries then return nil, why end
    for _, pair in ipairs(entries) do
      if pair[1] == "" then
        found.shards = (message(pair[2]) or {})[1] or 1
      elseif note_tensor(found.sizes, pair[2]) then
        found.tensors = found.tensors + 1
      else
        return nil, "is broken"
      end
    end
  end
  return found
end

---What a variables.index says of its shards.
---@param text string
---@return {shards: integer, sizes: table<integer, integer>, tensors: integer}|nil
---@return string|nil problem "is broken"
---Example: `bundle.read(fs.read "variables/variables.index").shards`. Raises nothing.
function M.read(text)
  local ok, found, why = pcall(read, text)
  if not ok then return nil, "is broken" end
  return found, why
end

return M
