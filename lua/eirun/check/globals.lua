-- SPDX-License-Identifier: Apache-2.0
-- The globals that a chunk uses, read from its own bytecode (Lua 5.4's dump): also those on paths that no run takes.
local M = {}

local OP_GETTABUP, OP_SETTABUP = 11, 15

local Reader = {}
Reader.__index = Reader

function Reader:byte()
  local value = self.data:byte(self.at)
  self.at = self.at + 1
  return value
end

-- Sizes are written seven bits at a time, the last one marked.
function Reader:size()
  local value = 0
  while true do
    local byte = self:byte()
    value = value << 7 | byte & 0x7f
    if byte & 0x80 ~= 0 then
      return value
    end
  end
end

function Reader:text()
  local length = self:size()
  if length == 0 then
    return nil
  end
  local text = self.data:sub(self.at, self.at + length - 2)
  self.at = self.at + length - 1
  return text
end

function Reader:list(read)
  local list = {}
  for i = 1, self:size() do
    list[i] = read(self)
  end
  return list
end

local constants = {
  [0x00] = function() end,
  [0x01] = function() end,
  [0x11] = function() end,
  [0x03] = function(reader)
    reader.at = reader.at + 8
  end,
  [0x13] = function(reader)
    reader.at = reader.at + 8
  end,
  [0x04] = Reader.text,
  [0x14] = Reader.text,
}

local function constant(reader)
  return constants[reader:byte()](reader) or false
end

local function instruction(reader)
  local value = string.unpack("<I4", reader.data, reader.at)
  reader.at = reader.at + 4
  return value
end

local function upvalue(reader)
  reader.at = reader.at + 3
  return true
end

local function line_step(reader)
  local value = reader:byte()
  return value > 127 and value - 256 or value
end

local function absolute_line(reader)
  return { pc = reader:size(), line = reader:size() }
end

local function local_variable(reader)
  reader:text()
  reader:size()
  reader:size()
  return true
end

local ABSOLUTE = -128

local function lines_of(first, steps, absolutes)
  local lines, line, next_absolute = {}, first, 1
  for pc, step in ipairs(steps) do
    if step == ABSOLUTE then
      line = absolutes[next_absolute].line
      next_absolute = next_absolute + 1
    else
      line = line + step
    end
    lines[pc] = line
  end
  return lines
end

local read_function

local function note_globals(found, code, names, upvalues, lines)
  for pc, word in ipairs(code) do
    local op, a, b, c = word & 0x7f, word >> 7 & 0xff, word >> 16 & 0xff, word >> 24 & 0xff
    if op == OP_GETTABUP and upvalues[b + 1] == "_ENV" then
      found[#found + 1] = { name = names[c + 1], line = lines[pc] }
    elseif op == OP_SETTABUP and upvalues[a + 1] == "_ENV" then
      found[#found + 1] = { name = names[b + 1], line = lines[pc], assigned = true }
    end
  end
end

function read_function(reader, found)
  reader:text()
  local first = reader:size()
  reader:size()
  reader.at = reader.at + 3
  local code = reader:list(instruction)
  local names = reader:list(constant)
  reader:list(upvalue)
  reader:list(function(inner)
    return read_function(inner, found)
  end)
  local steps, absolutes = reader:list(line_step), reader:list(absolute_line)
  reader:list(local_variable)
  local upvalues = reader:list(Reader.text)
  note_globals(found, code, names, upvalues, lines_of(first, steps, absolutes))
  return true
end

local HEADER = 4 + 1 + 1 + 6 + 3 + 8 + 8 -- signature, version, format, data check, sizes, an integer, a number

--- The globals of a loaded chunk.
---@param chunk function
---@return {name: string, line: integer, assigned?: boolean}[] in the order of their lines
function M.of(chunk)
  local reader = setmetatable({ data = string.dump(chunk), at = HEADER + 2 }, Reader)
  local found = {}
  read_function(reader, found)
  table.sort(found, function(a, b)
    return a.line < b.line
  end)
  return found
end

return M
