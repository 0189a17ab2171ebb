-- SPDX-License-Identifier: Apache-2.0
-- What Go's encoding/json says about a text that is no JSON, in its words: clients show them, and tests compare them.
local gojson = {}

local SPACE = "^[ \t\r\n]*()"
local LITERALS = { t = "true", f = "false", n = "null" }
local INSIDE = { ["in literal"] = true, ["in numeric"] = true, ["in exponent"] = true, ["after decimal"] = true,
  ["in \\u"] = true, ["in string"] = true }
local ESCAPES = { ["\n"] = "\\n", ["\t"] = "\\t", ["\r"] = "\\r", ["\\"] = "\\\\", ["'"] = "\\'" }

-- Go takes the byte for a code point.
local function quoted(byte)
  local c = string.char(byte)
  local shown = ESCAPES[c] or byte < 32 and ("\\x%02x"):format(byte) or byte == 127 and "\\x7f" or byte > 127 and utf8.char(byte) or c
  return "'" .. shown .. "'"
end

-- Go reads a blank behind the end, which is an error of its own inside of words and numbers.
local function fail(text, pos, where)
  local byte = text:byte(pos) or INSIDE[where:match "^%a+ %S+"] and 32
  error({ gojson = byte and ("invalid character %s %s"):format(quoted(byte), where) or "unexpected end of JSON input" }, 0)
end

local function skip(text, pos) return text:match(SPACE, pos) end

local scan_value

local function scan_string(text, pos)
  pos = pos + 1
  while true do
    pos = text:match('^[^"\\%c]*()', pos)
    local c = text:sub(pos, pos)
    if c == '"' then return pos + 1 end
    if c ~= "\\" then fail(text, pos, pos <= #text and "in string literal" or "") end
    local escape = text:match("^u%x%x%x%x()", pos + 1) or text:match('^["\\/bfnrt]()', pos + 1)
    if not escape and text:sub(pos + 1, pos + 1) == "u" then
      fail(text, text:match("^%x*()", pos + 2), "in \\u hexadecimal character escape")
    end
    pos = escape or fail(text, pos + 1, "in string escape code")
  end
end

local function scan_literal(text, pos)
  local word = LITERALS[text:sub(pos, pos)]
  for i = 2, #word do
    if text:sub(pos + i - 1, pos + i - 1) ~= word:sub(i, i) then
      fail(text, pos + i - 1, ("in literal %s (expecting %s)"):format(word, quoted(word:byte(i))))
    end
  end
  return pos + #word
end

local function scan_number(text, pos)
  if text:sub(pos, pos) == "-" then
    pos = pos + 1
    if not text:find("^%d", pos) then fail(text, pos, "in numeric literal") end
  end
  pos = text:match("^0()", pos) or text:match("^%d+()", pos)
  if text:sub(pos, pos) == "." then
    pos = text:match("^%.%d+()", pos) or fail(text, pos + 1, "after decimal point in numeric literal")
  end
  local exponent = text:match("^[eE][+-]?()", pos)
  return exponent and (text:match("^%d+()", exponent) or fail(text, exponent, "in exponent of numeric literal")) or pos
end

local function scan_member(text, pos, first)
  pos = skip(text, pos)
  if first and text:sub(pos, pos) == "}" then return pos, true end
  if text:sub(pos, pos) ~= '"' then fail(text, pos, "looking for beginning of object key string") end
  pos = skip(text, scan_string(text, pos))
  if text:sub(pos, pos) ~= ":" then fail(text, pos, "after object key") end
  return skip(text, scan_value(text, pos + 1))
end

local function scan_element(text, pos, first)
  pos = skip(text, pos)
  if first and text:sub(pos, pos) == "]" then return pos, true end
  return skip(text, scan_value(text, pos))
end

local function scan_group(text, pos, scan, close, where)
  local first = true
  while true do
    pos = scan(text, pos + 1, first)
    local c = text:sub(pos, pos)
    if c == close then return pos + 1 end
    if c ~= "," then fail(text, pos, where) end
    first = false
  end
end

function scan_value(text, pos)
  pos = skip(text, pos)
  local c = text:sub(pos, pos)
  if c == "{" then return scan_group(text, pos, scan_member, "}", "after object key:value pair") end
  if c == "[" then return scan_group(text, pos, scan_element, "]", "after array element") end
  if c == '"' then return scan_string(text, pos) end
  if LITERALS[c] then return scan_literal(text, pos) end
  if c:find "[%d-]" then return scan_number(text, pos) end
  fail(text, pos, "looking for beginning of value")
end

local function whole(text)
  local pos = skip(text, scan_value(text, 1))
  if pos <= #text then fail(text, pos, "after top-level value") end
end

-- The message for a text that is no JSON; nil for one that is.
function gojson.problem(text)
  local fine, why = pcall(whole, text)
  if fine then return nil end
  if type(why) == "table" and why.gojson then return why.gojson end
  error(why, 0)
end

-- What a decoder says that expects an object of type `wanted` and finds another value.
function gojson.mismatch(value, wanted)
  local kind = type(value) == "boolean" and "bool" or type(value) == "table" and "array" or type(value)
  return ("json: cannot unmarshal %s into Go value of type %s"):format(kind, wanted)
end

return gojson
