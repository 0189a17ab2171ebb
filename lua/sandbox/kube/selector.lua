-- SPDX-License-Identifier: Apache-2.0
-- Label and field selectors. A parsed selector is a list of {key, op, values}; the empty list selects everything.
local selector = {}

local TESTS = {
  ["in"] = function(have, want) return have ~= nil and want[have] == true end,
  notin = function(have, want) return have == nil or not want[have] end,
  exists = function(have) return have ~= nil end,
  ["!"] = function(have) return have == nil end,
  gt = function(have, want) return tonumber(have) ~= nil and tonumber(have) > tonumber(next(want)) end,
  lt = function(have, want) return tonumber(have) ~= nil and tonumber(have) < tonumber(next(want)) end,
}

function selector.matches(parsed, labels)
  for _, term in ipairs(parsed) do
    if not TESTS[term.op](labels and labels[term.key], term.values) then return false end
  end
  return true
end

local function set_of(list)
  local set = {}
  for _, v in ipairs(list) do set[v] = true end
  return set
end

-- The words of the selector language, after k8s.io/apimachinery/pkg/labels: a list of {kind, text}, "end" the last.
local SYMBOLS = { [")"] = true, [","] = true, ["!"] = true, ["=="] = true, ["="] = true, [">"] = true, ["<"] = true, ["!="] = true,
  ["("] = true }

local function symbol_at(text, pos)
  local two = text:sub(pos, pos + 1)
  return #two == 2 and SYMBOLS[two] and two or text:sub(pos, pos)
end

local function words_of(text)
  local list, pos = {}, 1
  while true do
    pos = text:match("^[ \t\r\n]*()", pos)
    if pos > #text then
      list[#list + 1] = { kind = "end", text = "" }
      return list
    end
    local word = text:match("^[^ \t\r\n=!(),><]+", pos)
    local symbol = not word and symbol_at(text, pos)
    list[#list + 1] = { kind = symbol or (word == "in" or word == "notin") and word or "name", text = symbol or word }
    pos = pos + #(word or symbol)
  end
end

local Parser = {}
Parser.__index = Parser

local function fail(format, ...) error({ selector = format:format(...) }, 0) end

-- "in" and "notin" are names wherever no operator may stand.
function Parser:look(operator)
  local word = self.words[self.at]
  local kind = word.kind
  if not operator and (kind == "in" or kind == "notin") then kind = "name" end
  return kind, word.text
end

function Parser:take(operator)
  local kind, text = self:look(operator)
  if kind ~= "end" then self.at = self.at + 1 end
  return kind, text
end

function Parser:value_list()
  local kind, text = self:take()
  if kind ~= "(" then fail("found '%s' expected: '('", text) end
  local set = {}
  kind, text = self:look()
  if kind == ")" then set[""] = true end
  if kind ~= ")" and kind ~= "name" and kind ~= "," then fail("found '%s', expected: ',', ')' or identifier", text) end
  while self:look() ~= ")" do
    kind, text = self:take()
    if kind == "name" then
      set[text] = true
      kind, text = self:look()
      if kind ~= "," and kind ~= ")" then fail("found '%s', expected: ',' or ')'", text) end
      if kind == "," and self.words[self.at + 1].kind ~= ")" then self:take() end
    elseif kind == "," then
      set[""] = true
    else
      fail("found '%s', expected: ',', or identifier", text)
    end
  end
  self:take()
  return set
end

function Parser:one_value()
  local kind = self:look()
  if kind == "end" or kind == "," then return { [""] = true } end
  local text
  kind, text = self:take()
  if kind ~= "name" then fail("found '%s', expected: identifier", text) end
  return { [text] = true }
end

local BINARY = { ["in"] = "in", notin = "notin", ["="] = "in", ["=="] = "in", ["!="] = "notin", [">"] = "gt", ["<"] = "lt" }

function Parser:requirement()
  local kind, key = self:take()
  local absent = kind == "!"
  if absent then kind, key = self:take() end
  if kind ~= "name" then fail("found '%s', expected: identifier", key) end
  kind = self:look()
  if absent or kind == "end" or kind == "," then return { key = key, op = absent and "!" or "exists" } end
  local text
  kind, text = self:take(true)
  if not BINARY[kind] then fail("found '%s', expected: in, notin, =, ==, !=, gt, lt", text) end
  local several = kind == "in" or kind == "notin"
  return { key = key, op = BINARY[kind], values = several and self:value_list() or self:one_value() }
end

local function prefixed(self)
  local fine, one = pcall(self.requirement, self)
  if fine then return one end
  if type(one) == "table" and one.selector then fail("unable to parse requirement: %s", one.selector) end
  error(one, 0)
end

local function parse(text)
  local self, parsed = setmetatable({ words = words_of(text), at = 1 }, Parser), {}
  while true do
    local kind, word = self:look()
    if kind == "end" then return parsed end
    if kind ~= "name" and kind ~= "!" then fail("found '%s', expected: !, identifier, or 'end of string'", word) end
    parsed[#parsed + 1] = prefixed(self)
    kind, word = self:take()
    if kind == "end" then return parsed end
    if kind ~= "," then fail("found '%s', expected: ',' or 'end of string'", word) end
    kind, word = self:look()
    if kind ~= "name" and kind ~= "!" then fail("found '%s', expected: identifier after ','", word) end
  end
end

-- The text of ?labelSelector=; nil and the API server's message when it cannot be read.
function selector.parse(text)
  local fine, parsed = pcall(parse, text or "")
  if fine then return parsed end
  if type(parsed) == "table" and parsed.selector then return nil, parsed.selector end
  error(parsed, 0)
end

local OPERATORS = { In = "in", NotIn = "notin", Exists = "exists", DoesNotExist = "!", Gt = "gt", Lt = "lt" }

local function by_key(a, b)
  return a.key < b.key
end

-- A LabelSelector object; nil selects nothing (answers nil).
function selector.from_object(object)
  if type(object) ~= "table" then return nil end
  local parsed = {}
  for key, v in pairs(object.matchLabels or {}) do
    parsed[#parsed + 1] = { key = key, op = "in", values = { [v] = true } }
  end
  table.sort(parsed, by_key)
  for _, e in ipairs(object.matchExpressions or {}) do
    parsed[#parsed + 1] = { key = e.key, op = OPERATORS[e.operator] or "exists", values = set_of(e.values or {}) }
  end
  return parsed
end

-- A plain map of labels (Service, nodeSelector).
function selector.from_map(map)
  return selector.from_object({ matchLabels = map })
end

-- Node selector requirements have the same operators.
function selector.from_requirements(list)
  return selector.from_object({ matchExpressions = list })
end

local WORDS = { ["in"] = " in ", notin = " notin " }

local function term_text(term)
  if term.op == "exists" then return term.key end
  if term.op == "!" then return "!" .. term.key end
  local values = {}
  for v in pairs(term.values) do values[#values + 1] = v end
  table.sort(values)
  if #values == 1 and term.op == "in" then return term.key .. "=" .. values[1] end
  return term.key .. (WORDS[term.op] or term.op) .. "(" .. table.concat(values, ",") .. ")"
end

-- The selector as Kubernetes writes it (scale status, Table columns): terms by key, joined by commas.
function selector.text(parsed)
  local list = {}
  for i, term in ipairs(parsed or {}) do list[i] = term_text(term) end
  table.sort(list)
  return table.concat(list, ",")
end

-- ?fieldSelector=: a list of {path, value, negate}; nil and a message.
function selector.parse_fields(text)
  local list = {}
  for part in ((text or "") .. ","):gmatch("([^,]*),") do
    if part ~= "" then
      local path, sign, v = part:match("^([%w._%-/]+)(!?==?)(.*)$")
      if not path then return nil, "invalid selector: '" .. text .. "'; can't understand '" .. part .. "'" end
      list[#list + 1] = { path = path, value = v, negate = sign == "!=" }
    end
  end
  return list
end

-- get(path) answers the object's text of that field ("" when unset).
function selector.matches_fields(list, get)
  for _, term in ipairs(list) do
    if (get(term.path) == term.value) == term.negate then return false end
  end
  return true
end

return selector
