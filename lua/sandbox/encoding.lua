-- SPDX-License-Identifier: Apache-2.0
-- Percent encoding and flat parameter lists, as the RPC products and the signatures want them.
local encoding = {}

-- RFC 3986: only unreserved characters stay.
function encoding.encode(text)
  return (text:gsub("[^%w%-_%.~]", function(c) return ("%%%02X"):format(c:byte()) end))
end

-- "+" is a blank in forms and in the queries of older SDKs only when `plus` says so.
function encoding.decode(text, plus)
  if plus then text = text:gsub("+", " ") end
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- "a=1&b" -> { {"a","1"}, {"b",""} }, decoded, in order.
function encoding.pairs_of(text, plus)
  local list = {}
  for part in (text or ""):gmatch "[^&]+" do
    local key, value = part:match "^(.-)=(.*)$"
    list[#list + 1] = { encoding.decode(key or part, plus), encoding.decode(value or "", plus) }
  end
  return list
end

-- The last one wins.
function encoding.map_of(list)
  local map = {}
  for _, pair in ipairs(list) do map[pair[1]] = pair[2] end
  return map
end

local function by_key_then_value(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end

-- Sorted and encoded again, whatever the wire looked like.
function encoding.canonical_query(list)
  local sorted = table.move(list, 1, #list, 1, {})
  table.sort(sorted, by_key_then_value)
  local parts = {}
  for i, pair in ipairs(sorted) do parts[i] = encoding.encode(pair[1]) .. "=" .. encoding.encode(pair[2]) end
  return table.concat(parts, "&")
end

-- Values of Name.1, Name.2 ... (also Name.1.Key when `field` is given) until the first gap.
function encoding.numbered(params, name, field)
  local list, i = {}, 1
  while true do
    local value = params[name .. "." .. i .. (field and "." .. field or "")]
    if value == nil then return list end
    list[i], i = value, i + 1
  end
end

return encoding
