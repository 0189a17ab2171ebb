-- SPDX-License-Identifier: Apache-2.0
-- JMESPath text to a tree: a Pratt parser after the language's own grammar.
local errors = require "eirun.errors"
local json = require "eirun.core.json"

local M = {}

local symbols = { "||", "&&", "==", "!=", "<=", ">=", "[?", "[]", "<", ">", "!", ".", "*", "[", "]", "{", "}", "(", ")", ",", ":", "|",
  "@", "&" }

local function fail(text, at, what)
  errors.raise("invalid", ("--query '%s': %s at character %d"):format(text, what, at), { code = "usage" })
end

local function quoted(text, at, mark)
  local from = at + 1
  local to = from
  while true do
    local c = text:sub(to, to)
    if c == "" then fail(text, at, "no closing " .. mark) end
    if c == mark then return text:sub(from, to - 1), to + 1 end
    to = to + (c == "\\" and 2 or 1)
  end
end

-- `json`, or bare words that are no JSON, as older writers have it.
local function literal(text, at)
  local inner, after = quoted(text, at, "`")
  inner = inner:gsub("\\`", "`")
  local value = json.decode(inner)
  if value == nil then value = json.decode('"' .. inner:match("^%s*(.-)%s*$") .. '"') end
  if value == nil then fail(text, at, "what stands between ` is no JSON") end
  return { kind = "literal", value = value, at = at }, after
end

local function name_in_quotes(text, at)
  local inner, after = quoted(text, at, '"')
  local value = json.decode('"' .. inner .. '"')
  if type(value) ~= "string" then fail(text, at, "this is no string") end
  return { kind = "name", value = value, at = at, quoted = true }, after
end

local function raw_string(text, at)
  local inner, after = quoted(text, at, "'")
  return { kind = "literal", value = (inner:gsub("\\'", "'")), at = at }, after
end

local openers = { ["`"] = literal, ['"'] = name_in_quotes, ["'"] = raw_string }

local function symbol(text, at)
  for _, one in ipairs(symbols) do
    if text:sub(at, at + #one - 1) == one then return { kind = one, at = at }, at + #one end
  end
  fail(text, at, ("'%s' is not understood"):format(text:sub(at, at)))
end

local function token(text, at)
  local opener = openers[text:sub(at, at)]
  if opener then return opener(text, at) end
  local word = text:match("^[%a_][%w_]*", at)
  if word then return { kind = "name", value = word, at = at }, at + #word end
  local number = text:match("^%-?%d+", at)
  if number then return { kind = "number", value = math.tointeger(tonumber(number)), at = at }, at + #number end
  return symbol(text, at)
end

local function tokens_of(text)
  local list, at = {}, 1
  while true do
    at = text:match("^%s*()", at)
    if at > #text then break end
    list[#list + 1], at = token(text, at)
  end
  list[#list + 1] = { kind = "end", at = #text + 1 }
  return list
end

local power = { ["|"] = 1, ["||"] = 2, ["&&"] = 3, ["=="] = 5, ["!="] = 5, ["<"] = 5, [">"] = 5, ["<="] = 5, [">="] = 5,
  ["[]"] = 9, ["*"] = 20, ["[?"] = 21, ["."] = 40, ["!"] = 45, ["{"] = 50, ["["] = 55, ["("] = 60 }
local PROJECTION_ENDS = 10

local Parser = {}
Parser.__index = Parser

function Parser:now() return self.tokens[self.at] end

function Parser:next()
  local one = self.tokens[self.at]
  self.at = self.at + 1
  return one
end

function Parser:wrong(one)
  local what = one.kind == "end" and "the end comes too early"
    or ("'%s' does not fit"):format(one.value ~= nil and tostring(one.value) or one.kind)
  fail(self.text, one.at, what)
end

function Parser:take(kind)
  local one = self:next()
  if one.kind ~= kind then self:wrong(one) end
  return one
end

function Parser:skip(kind)
  if self:now().kind ~= kind then return false end
  self.at = self.at + 1
  return true
end

-- What follows a projection is applied to each of its items.
function Parser:rest(bind)
  local kind = self:now().kind
  if (power[kind] or 0) < PROJECTION_ENDS then return { type = "current" } end
  if kind == "." then
    self:next()
    return self:after_dot(bind)
  elseif kind == "[" or kind == "[?" then
    return self:expression(bind)
  end
  self:wrong(self:now())
end

function Parser:list(close)
  local items = {}
  repeat items[#items + 1] = self:expression(0) until not self:skip(",")
  self:take(close)
  return items
end

function Parser:hash()
  local pairs_ = {}
  repeat
    local key = self:take("name")
    self:take(":")
    pairs_[#pairs_ + 1] = { key = key.value, value = self:expression(0) }
  until not self:skip(",")
  self:take("}")
  return { type = "hash", pairs = pairs_ }
end

function Parser:after_dot(bind)
  local kind = self:now().kind
  if kind == "[" then
    self:next()
    return { type = "list", items = self:list("]") }
  elseif kind == "{" then
    self:next()
    return self:hash()
  elseif kind == "name" or kind == "*" then
    return self:expression(bind)
  end
  self:wrong(self:now())
end

-- [n] or [a:b:c]
function Parser:index_or_slice(left)
  local parts, colons = {}, 0
  while self:now().kind ~= "]" do
    local one = self:next()
    if one.kind == "number" then parts[colons + 1] = one.value
    elseif one.kind == ":" and colons < 2 then colons = colons + 1
    else self:wrong(one) end
  end
  self:take("]")
  if colons == 0 then return { type = "index", left = left, value = parts[1] } end
  if parts[3] == 0 then fail(self.text, self:now().at, "a step of 0") end
  return { type = "slice_projection", left = left, slice = parts, right = self:rest(power["*"]) }
end

function Parser:bracket(left)
  local kind = self:now().kind
  if kind == "number" or kind == ":" then return self:index_or_slice(left) end
  if kind == "*" and self.tokens[self.at + 1].kind == "]" then
    self.at = self.at + 2
    return { type = "projection", left = left, right = self:rest(power["*"]) }
  end
  return nil
end

function Parser:filter(left)
  local condition = self:expression(0)
  self:take("]")
  local right = self:now().kind == "[]" and { type = "current" } or self:rest(power["[?"])
  return { type = "filter", left = left, condition = condition, right = right }
end

function Parser:flatten(left)
  return { type = "projection", left = { type = "flatten", left = left }, right = self:rest(power["[]"]) }
end

function Parser:call(name)
  local items = {}
  while self:now().kind ~= ")" do
    items[#items + 1] = self:expression(0)
    if not self:skip(",") and self:now().kind ~= ")" then self:wrong(self:now()) end
  end
  self:take(")")
  return { type = "call", name = name.value, items = items, at = name.at }
end

local prefix, infix = {}, {}

function prefix.literal(_, one) return { type = "literal", value = one.value } end

function prefix.name(self, one)
  if self:now().kind == "(" and not one.quoted then
    self:next()
    return self:call(one)
  end
  return { type = "field", name = one.value }
end

prefix["@"] = function() return { type = "current" } end
prefix["!"] = function(self) return { type = "not", left = self:expression(power["!"]) } end
prefix["&"] = function(self) return { type = "reference", left = self:expression(0) } end
prefix["{"] = function(self) return self:hash() end
prefix["[]"] = function(self) return self:flatten({ type = "current" }) end
prefix["[?"] = function(self) return self:filter({ type = "current" }) end
prefix["["] = function(self) return self:bracket({ type = "current" }) or { type = "list", items = self:list("]") } end
prefix["*"] = function(self) return { type = "values", left = { type = "current" }, right = self:rest(power["*"]) } end
prefix["("] = function(self)
  local inner = self:expression(0)
  self:take(")")
  return { type = "group", left = inner }
end

infix["."] = function(self, left)
  if self:skip("*") then return { type = "values", left = left, right = self:rest(power["*"]) } end
  return { type = "sub", left = left, right = self:after_dot(power["."]) }
end
infix["|"] = function(self, left) return { type = "sub", left = left, right = self:expression(power["|"]), pipe = true } end
infix["||"] = function(self, left) return { type = "or", left = left, right = self:expression(power["||"]) } end
infix["&&"] = function(self, left) return { type = "and", left = left, right = self:expression(power["&&"]) } end
infix["[]"] = function(self, left) return self:flatten(left) end
infix["[?"] = function(self, left) return self:filter(left) end
infix["["] = function(self, left) return self:bracket(left) or self:wrong(self:now()) end
for _, kind in ipairs { "==", "!=", "<", ">", "<=", ">=" } do
  infix[kind] = function(self, left) return { type = "compare", how = kind, left = left, right = self:expression(power[kind]) } end
end

function Parser:expression(bind)
  local one = self:next()
  local left = (prefix[one.kind] or self.wrong)(self, one)
  while bind < (power[self:now().kind] or 0) do
    one = self:next()
    left = (infix[one.kind] or self.wrong)(self, infix[one.kind] and left or one)
  end
  return left
end

---The tree of an expression. Raises kind "invalid" with the place.
---@param text string
---@return table
function M.parse(text)
  local parser = setmetatable({ text = text, tokens = tokens_of(text), at = 1 }, Parser)
  local tree = parser:expression(0)
  if parser:now().kind ~= "end" then parser:wrong(parser:now()) end
  return tree
end

return M
