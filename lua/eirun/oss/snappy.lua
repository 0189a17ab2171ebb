-- SPDX-License-Identifier: Apache-2.0
-- Snappy blocks, unpacked: literals and copies of what was written already.
local M = {}

local MOST = 64 << 20

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
local function repeated(out, distance, length)
  local from = #out - distance + 1
  if distance == 0 or from < 1 then return nil end
  local piece = out:sub(from, math.min(from + length - 1, #out))
  return piece:rep(length // #piece + 1):sub(1, length)
end

---@param text string
---@return string|nil data nil when it is no Snappy block
---Example: `snappy.unpack "\5\16hello"` is `hello`. Raises nothing.
function M.unpack(text)
  local ok, data = pcall(function()
    local length, at = preamble(text)
    if length > MOST then return nil end
    local out = ""
    while at <= #text do
      local tag = text:byte(at)
      if tag & 3 == 0 then
        local size, from = literal(text, at + 1, tag)
        if from + size - 1 > #text then return nil end
        out, at = out .. text:sub(from, from + size - 1), from + size
      else
        local size, distance, past = copy(text, at + 1, tag)
        out, at = out .. repeated(out, distance, size), past
      end
    end
    return #out == length and out or nil
  end)
  return ok and data or nil
end

return M
