-- SPDX-License-Identifier: Apache-2.0
-- Reads protobuf wire format: enough to walk a SavedModel without its schema compiled in.
local M = {}

local function varint(data, at)
  local value, shift = 0, 0
  while true do
    local byte = data:byte(at)
    if not byte or shift > 63 then error("truncated varint", 0) end
    value = value | ((byte & 0x7F) << shift)
    at, shift = at + 1, shift + 7
    if byte < 0x80 then return value, at end
  end
end

local readers = {
  [0] = varint,
  [1] = function(data, at) return data:sub(at, at + 7), at + 8 end,
  [2] = function(data, at)
    local length
    length, at = varint(data, at)
    if length < 0 or at + length - 1 > #data then error("truncated field", 0) end
    return data:sub(at, at + length - 1), at + length
  end,
  [5] = function(data, at) return data:sub(at, at + 3), at + 4 end,
}

---Iterates over the fields of a message: number, value (integer or string), wire type.
---Raises a string when the bytes are not a message.
function M.fields(data)
  local at = 1
  return function()
    if at > #data then return nil end
    local key, value
    key, at = varint(data, at)
    local read = readers[key & 7] or error("unknown wire type " .. (key & 7), 0)
    value, at = read(data, at)
    return key >> 3, value, key & 7
  end
end

---All values of one field.
function M.all(data, wanted)
  local list = {}
  for number, value in M.fields(data) do
    if number == wanted then list[#list + 1] = value end
  end
  return list
end

---The last value of one field, as protobuf has it, or `default`.
function M.one(data, wanted, default)
  local list = M.all(data, wanted)
  if #list == 0 then return default end
  return list[#list]
end

---A map field as key -> value bytes.
function M.map(data, wanted)
  local map = {}
  for _, entry in ipairs(M.all(data, wanted)) do map[M.one(entry, 1, "")] = M.one(entry, 2, "") end
  return map
end

return M
