-- SPDX-License-Identifier: Apache-2.0
-- Words of the analysis language. Text in, list of { kind, value, at } out; kinds are word, name (quoted), number,
-- string, symbol, end.
local lexer = {}

local symbols = { "<=", ">=", "<>", "!=", "||", "(", ")", ",", "+", "-", "*", "/", "%", "=", "<", ">", "." }

local function fail(text, at, why)
  error({ code = "ParameterInvalid", message = ("%s near position %d: %s"):format(why, at, text:sub(at, at + 20)) }, 0)
end

-- 'it''s' -> it's
local function quoted(text, at, mark)
  local out, i = {}, at + 1
  while true do
    local close = text:find(mark, i, true)
    if not close then fail(text, at, "unfinished quote") end
    out[#out + 1] = text:sub(i, close - 1)
    if text:sub(close + 1, close + 1) ~= mark then return table.concat(out), close + 1 end
    out[#out + 1], i = mark, close + 2
  end
end

local function number(text, at)
  local digits = text:match("^%d+%.%d*[eE][+-]?%d+", at) or text:match("^%d+[eE][+-]?%d+", at) or text:match("^%d+%.%d*", at)
    or text:match("^%d+", at) or text:match("^%.%d+", at)
  return digits and tonumber(digits), digits and at + #digits
end

local function symbol(text, at)
  for _, one in ipairs(symbols) do
    if text:sub(at, at + #one - 1) == one then return one, at + #one end
  end
  fail(text, at, "unexpected character")
end

local function token(text, at)
  local c = text:sub(at, at)
  if c == "'" then
    local value, next_at = quoted(text, at, c)
    return { kind = "string", value = value, at = at }, next_at
  end
  if c == '"' then
    local value, next_at = quoted(text, at, c)
    return { kind = "name", value = value, at = at }, next_at
  end
  local value, next_at = number(text, at)
  if value then return { kind = "number", value = value, at = at }, next_at end
  local word = text:match("^[%a_][%w_]*", at)
  if word then return { kind = "word", value = word, at = at }, at + #word end
  value, next_at = symbol(text, at)
  return { kind = "symbol", value = value, at = at }, next_at
end

function lexer.tokens(text)
  local list, at = {}, text:find "%S"
  while at do
    list[#list + 1], at = token(text, at)
    at = text:find("%S", at)
  end
  list[#list + 1] = { kind = "end", value = "end of query", at = #text + 1 }
  return list
end

return lexer
