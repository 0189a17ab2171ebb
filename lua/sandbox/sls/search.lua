-- SPDX-License-Identifier: Apache-2.0
-- The search part of a query, left of the bar: terms joined by and, or, not; `key: value`, `key: "phrase"`, `key > 5`.
-- A value is a word of the field's text (words end at the index's delimiters); `*` and `?` stand for characters.
local search = {}

local delimiters = ", '\";=()[]{}?@&<>/:\n\t\r"
local delimiter_set = {}
for c in delimiters:gmatch "." do delimiter_set[c] = true end

local function fail(message) error({ code = "ParameterInvalid", message = message }, 0) end

-- Splits "search | SQL" outside quotes.
function search.split(text)
  local quote
  for i = 1, #text do
    local c = text:sub(i, i)
    if c == quote then quote = nil elseif not quote and (c == '"') then quote = c end
    if c == "|" and not quote then return text:sub(1, i - 1), text:sub(i + 1) end
  end
  return text, nil
end

local function words(text)
  local list, current = {}, {}
  for i = 1, #text + 1 do
    local c = text:sub(i, i)
    if c == "" or delimiter_set[c] then
      if #current > 0 then list[#list + 1], current = table.concat(current):lower(), {} end
    else
      current[#current + 1] = c
    end
  end
  return list
end

local function word_pattern(text)
  return "^" .. text:lower():gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$"
end

local function has_sequence(list, wanted)
  for start = 1, #list - #wanted + 1 do
    local same = true
    for i, word in ipairs(wanted) do same = same and list[start + i - 1] == word end
    if same then return true end
  end
  return #wanted == 0
end

-- function(text) -> bool for one value of a term.
local function matcher(value, phrase)
  if phrase then
    local wanted = words(value)
    return function(text) return has_sequence(words(text), wanted) end
  end
  if value:find "^%*+$" then return function(text) return text ~= "" end end
  local pattern, plain = word_pattern(value), not value:find "[%*%?]" and value:lower()
  return function(text)
    if plain and text:lower() == plain then return true end
    for _, word in ipairs(words(text)) do
      if plain and word == plain or not plain and word:find(pattern) then return true end
    end
    return false
  end
end

local function lex(text)
  local list, at = {}, text:find "%S"
  while at do
    local c = text:sub(at, at)
    if c == '"' then
      local close = text:find('"', at + 1, true) or fail("unfinished quote in the search: " .. text:sub(at))
      list[#list + 1], at = { phrase = text:sub(at + 1, close - 1) }, close + 1
    elseif c:find "[():]" then
      list[#list + 1], at = { symbol = c }, at + 1
    elseif c:find "[<>=]" then
      local op = text:match("^[<>]=?", at) or "="
      list[#list + 1], at = { symbol = op }, at + #op
    else
      local word = text:match('^[^%s():"<>=]+', at)
      list[#list + 1], at = { word = word }, at + #word
    end
    at = text:find("%S", at)
  end
  return list
end

local function any_field(match)
  return function(record)
    for _, value in pairs(record) do -- order does not matter: one match is enough
      if match(tostring(value)) then return true end
    end
    return false
  end
end

local compare = {
  [">"] = function(a, b) return a > b end,
  ["<"] = function(a, b) return a < b end,
  [">="] = function(a, b) return a >= b end,
  ["<="] = function(a, b) return a <= b end,
  ["="] = function(a, b) return a == b end,
}

local function numeric(name, op, token)
  local number = tonumber(token and token.word) or fail("a number is expected after " .. op)
  return function(record)
    local value = tonumber(record[name])
    return value ~= nil and compare[op](value, number)
  end
end

-- Most fields have few values: each is looked at once.
local function remembered(match)
  local answers, count = {}, 0
  return function(text)
    local answer = answers[text]
    if answer == nil then
      if count > 1000 then answers, count = {}, 0 end
      answer = match(text)
      answers[text], count = answer, count + 1
    end
    return answer
  end
end

local function field_term(name, token, known)
  if not known(name) then fail(("key (%s) is not config as key value config"):format(name)) end
  local match = remembered(matcher(token.word or token.phrase, token.phrase ~= nil))
  return function(record)
    local value = record[name]
    return value ~= nil and match(tostring(value))
  end
end

local either

local function term(s)
  local token = s.list[s.at] or fail "the search ends too early"
  s.at = s.at + 1
  if token.symbol == "(" then
    local inner = either(s)
    if not (s.list[s.at] and s.list[s.at].symbol == ")") then fail "')' is missing in the search" end
    s.at = s.at + 1
    return inner
  end
  if token.symbol then fail(("unexpected '%s' in the search"):format(token.symbol)) end
  if token.word and token.word:lower() == "not" then
    local inner = term(s)
    return function(record) return not inner(record) end
  end
  local after = s.list[s.at]
  if after and after.symbol == ":" then
    local value = s.list[s.at + 1]
    if not value or value.symbol then fail "a value is expected after ':'" end
    s.at = s.at + 2
    return field_term(token.word or token.phrase, value, s.known)
  end
  if after and compare[after.symbol or ""] then
    s.at = s.at + 2
    return numeric(token.word or token.phrase, after.symbol, s.list[s.at - 1])
  end
  if token.word == "*" then return function() return true end end
  return any_field(matcher(token.word or token.phrase, token.phrase ~= nil))
end

local function next_word(s)
  local token = s.list[s.at]
  return token and token.word and token.word:lower()
end

-- Terms side by side mean "and" too.
local function all(s)
  local left = term(s)
  while s.list[s.at] and s.list[s.at].symbol ~= ")" and next_word(s) ~= "or" do
    if next_word(s) == "and" then s.at = s.at + 1 end
    local first, second = left, term(s)
    left = function(record) return first(record) and second(record) end
  end
  return left
end

function either(s)
  local left = all(s)
  while next_word(s) == "or" do
    s.at = s.at + 1
    local first, second = left, all(s)
    left = function(record) return first(record) or second(record) end
  end
  return left
end

-- Search text -> function(record) -> bool. Raises { code, message }.
function search.compile(text, known)
  local list = lex(text)
  if #list == 0 or (#list == 1 and list[1].word == "*") then return function() return true end end
  local s = { list = list, at = 1, known = known }
  local predicate = either(s)
  if s.list[s.at] then fail "the search has a ')' too many" end
  return predicate
end

return search
