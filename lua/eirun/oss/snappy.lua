-- SPDX-License-Identifier: Apache-2.0
-- Snappy blocks, unpacked: literals and copies of what was written already.
local M = {}

local MOST = 16 << 20 -- blocks of an index have 256 KiB

local function preamble(text)
  local length, shift, at = 0, 0, 1
  repeat
    local byte = text:byte(at) or 0
    length, shift, at = length | (byte & 0x7F) << shift, shift + 7, at + 1
  until byte < 0x80 or shift > 28
  return length, at
end

-- A literal's length: in the tag, or in the 1 to 4 bytes after it.
local function literal(text, at, tag)
  local length = tag >> 2
  if length < 60 then return length + 1, at end
  local size = length - 59
  return string.unpack("<I" .. size, text, at) + 1, at + size
end

-- Length and distance of a copy, and the place after its tag.
local function copy(text, at, tag)
  local kind = tag & 3
  if kind == 1 then return (tag >> 2 & 7) + 4, tag >> 5 << 8 | text:byte(at), at + 1 end
  local size = kind == 2 and 2 or 4
  return (tag >> 2) + 1, string.unpack("<I" .. size, text, at), at + size
end

-- A copy may overlap what it writes: then it repeats.
local function repeat_bytes(bytes, n, distance, size)
  if distance < 1 or distance > n then return nil end
  for i = n + 1, n + size do bytes[i] = bytes[i - distance] end
  return n + size
end

local function add_literal(bytes, n, text, from, size)
  if from + size - 1 > #text then return nil end
  for i = 0, size - 1 do bytes[n + i + 1] = text:byte(from + i) end
  return n + size
end

local function as_text(bytes, n)
  local pieces = {}
  for i = 1, n, 4096 do pieces[#pieces + 1] = string.char(table.unpack(bytes, i, math.min(i + 4095, n))) end
  return table.concat(pieces)
end

-- Raises where the text ends too early.
local function unpack_all(text)
  local length, at = preamble(text)
  local bytes, n = {}, 0
  while at <= #text and n <= length and length <= MOST do
    local tag = text:byte(at)
    local size, from, distance
    if tag & 3 == 0 then
      size, from = literal(text, at + 1, tag)
      n, at = add_literal(bytes, n, text, from, size), from + size
    else
      size, distance, at = copy(text, at + 1, tag)
      n = repeat_bytes(bytes, n, distance, size)
    end
  end
  return n == length and as_text(bytes, n) or nil
end

---@param text string
---@return string|nil data nil when it is no Snappy block
---Example: `snappy.unpack "\5\16hello"` is `hello`. Raises nothing.
function M.unpack(text)
  local ok, data = pcall(unpack_all, text)
  return ok and data or nil
end

return M
