-- SPDX-License-Identifier: Apache-2.0
-- The small part of the analysis language that is spoken here: SELECT items [FROM log] [WHERE] [GROUP BY] [HAVING]
-- [ORDER BY] [LIMIT]. Whatever else is asked for is refused by name: a wrong answer would be worse.
local lexer = require "sandbox.sls.lexer"

local parser = {}

local State = {}
State.__index = State

function State:peek() return self.tokens[self.at] or self.tokens[#self.tokens] end

function State:fail(why)
  local t = self:peek()
  error({ code = "ParameterInvalid", message = ("%s, found '%s' at position %d"):format(why, tostring(t.value), t.at) }, 0)
end

function State:next()
  local t = self:peek()
  self.at = self.at + 1
  return t
end

-- Eats the word or symbol when it is next.
function State:accept(text)
  local t = self:peek()
  if t.kind == "symbol" and t.value == text or t.kind == "word" and t.value:lower() == text then return self:next() end
end

function State:expect(text) return self:accept(text) or self:fail(("expected '%s'"):format(text)) end

local expression

local aggregates = { count = true, sum = true, avg = true, min = true, max = true, approx_percentile = true,
  approx_distinct = true, count_if = true }
local scalars = { abs = true, round = true, floor = true, ceil = true, coalesce = true, cast = true,
  to_unixtime = true, lower = true, upper = true }
local reserved = { select = true, from = true, where = true, group = true, by = true, order = true, limit = true, having = true,
  as = true, case = true, when = true, ["then"] = true, ["else"] = true, ["end"] = true, ["and"] = true, ["or"] = true, ["not"] = true,
  between = true, like = true, is = true, null = true, asc = true, desc = true, ["in"] = true, union = true, join = true, over = true,
  distinct = true, with = true }

local function case(s)
  local node = { op = "case", whens = {} }
  if not (s:peek().kind == "word" and s:peek().value:lower() == "when") then s:fail "only CASE WHEN is supported" end
  while s:accept "when" do
    local condition = expression(s, 0)
    s:expect "then"
    table.insert(node.whens, { condition, expression(s, 0) })
  end
  if s:accept "else" then node.otherwise = expression(s, 0) end
  s:expect "end"
  return node
end

local types = { double = true, bigint = true, varchar = true, integer = true }

local function cast(s)
  local node = { op = "cast", args = { expression(s, 0) } }
  s:expect "as"
  local t = s:next()
  if t.kind ~= "word" or not types[t.value:lower()] then s:fail "a cast to this type is not supported" end
  node.to = t.value:lower()
  s:expect ")"
  return node
end

local function arguments(s)
  local args = {}
  if s:accept ")" then return args end
  repeat
    if s:accept "*" then args[#args + 1] = { op = "literal", value = 1 } else args[#args + 1] = expression(s, 0) end
  until not s:accept ","
  s:expect ")"
  return args
end

local function call(s, word)
  local name = word.value:lower()
  if not aggregates[name] and not scalars[name] then
    s.at = s.at - 2
    s:fail(("the function %s is not supported"):format(name))
  end
  if name == "cast" then return cast(s) end
  if s:accept "distinct" then s:fail "DISTINCT is not supported, use approx_distinct" end
  return { op = aggregates[name] and "aggregate" or "call", name = name, args = arguments(s) }
end

local function primary(s)
  local t = s:next()
  if t.kind == "number" or t.kind == "string" then return { op = "literal", value = t.value } end
  if t.kind == "name" then return { op = "field", name = t.value } end
  if t.kind == "symbol" and t.value == "(" then
    local inner = expression(s, 0)
    s:expect ")"
    return inner
  end
  if t.kind == "symbol" and t.value == "-" then return { op = "negate", expression(s, 70) } end
  if t.kind ~= "word" then s.at = s.at - 1 return s:fail "expected an expression" end
  local word = t.value:lower()
  if word == "case" then return case(s) end
  if word == "not" then return { op = "not", expression(s, 30) } end
  if word == "null" then return { op = "literal" } end
  if s:accept "(" then return call(s, t) end
  if reserved[word] then s.at = s.at - 1 return s:fail "expected an expression" end
  return { op = "field", name = t.value }
end

local binding = { ["or"] = 10, ["and"] = 20, ["="] = 40, ["<>"] = 40, ["!="] = 40, ["<"] = 40, [">"] = 40, ["<="] = 40, [">="] = 40,
  ["in"] = 40, ["is"] = 40, ["between"] = 40, ["like"] = 40, ["not"] = 40, ["+"] = 50, ["-"] = 50, ["*"] = 60, ["/"] = 60, ["%"] = 60 }

local function in_list(s, left)
  s:expect "("
  local node = { op = "in", left, list = {} }
  repeat table.insert(node.list, expression(s, 0)) until not s:accept ","
  s:expect ")"
  return node
end

local function is_null(s, left)
  local negated = s:accept "not" ~= nil
  s:expect "null"
  local node = { op = "is_null", left }
  return negated and { op = "not", node } or node
end

local function between(s, left)
  local low = expression(s, 41)
  s:expect "and"
  return { op = "and", { op = ">=", left, low }, { op = "<=", left, expression(s, 41) } }
end

local special = { ["in"] = in_list, ["is"] = is_null, between = between,
  like = function(s, left) return { op = "like", left, expression(s, 41) } end }

local function negated(s, left)
  for word, parse in pairs(special) do
    if word ~= "is" and s:accept(word) then return { op = "not", parse(s, left) } end
  end
  s:fail "expected IN, LIKE or BETWEEN after NOT"
end

local function operator(t)
  if t.kind ~= "symbol" and t.kind ~= "word" then return nil end
  return t.kind == "word" and t.value:lower() or t.value
end

function expression(s, least)
  local left = primary(s)
  while true do
    local op = operator(s:peek())
    local power = op and binding[op]
    if not power or power < least then return left end
    s:next()
    if op == "not" then left = negated(s, left)
    elseif special[op] then left = special[op](s, left)
    else left = { op = op == "!=" and "<>" or op, left, expression(s, power + 1) } end
  end
end

local function source_between(s, from) return s.text:sub(from, s:peek().at - 1):match "^%s*(.-)%s*$" end

local function select_item(s)
  local from = s:peek().at
  if s:accept "*" then return { star = true } end
  local item = { expression = expression(s, 0) }
  item.text = source_between(s, from)
  local t = s:peek()
  if s:accept "as" then t = s:next() item.alias = t.value
  elseif t.kind == "name" or (t.kind == "word" and not reserved[t.value:lower()]) then item.alias = s:next().value end
  return item
end

local function list_of(s, parse)
  local list = {}
  repeat list[#list + 1] = parse(s) until not s:accept ","
  return list
end

local function order_item(s)
  local item = { expression = expression(s, 0) }
  if s:accept "desc" then item.descending = true else s:accept "asc" end
  return item
end

local function integer(s)
  local t = s:next()
  if t.kind ~= "number" or math.type(t.value) ~= "integer" then s:fail "expected a whole number" end
  return t.value
end

local function limit(s, query)
  query.limit = integer(s)
  if s:accept "," then query.offset, query.limit = query.limit, integer(s) end
end

local function group_item(s) return expression(s, 0) end

-- SQL text -> { items, where, group, having, order, limit, offset }; raises { code, message }.
function parser.parse(text)
  local s = setmetatable({ tokens = lexer.tokens(text), at = 1, text = text }, State)
  local query = {}
  s:expect "select"
  query.items = list_of(s, select_item)
  if s:accept "from" then
    if not s:accept "log" then s:fail "only FROM log is supported" end
  end
  if s:accept "where" then query.where = expression(s, 0) end
  if s:accept "group" then s:expect "by" query.group = list_of(s, group_item) end
  if s:accept "having" then query.having = expression(s, 0) end
  if s:accept "order" then s:expect "by" query.order = list_of(s, order_item) end
  if s:accept "limit" then limit(s, query) end
  if s:peek().kind ~= "end" then s:fail "this part of the language is not supported" end
  return query
end

return parser
