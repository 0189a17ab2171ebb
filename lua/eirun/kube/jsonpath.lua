-- SPDX-License-Identifier: Apache-2.0
-- The JSONPath templates of kubectl: `{.items[*].metadata.name}`, `{range .items[*]}{.metadata.name}{"\n"}{end}`, filters, slices,
-- unions and `..`. Read as client-go's util/jsonpath reads them, with its oddities.
local errors = require "eirun.errors"
local json = require "eirun.core.json"

local M = {}

-- Reading -------------------------------------------------------------------------------------------------------------
-- A reader is { text, at, whole }: what is left to read begins at `at`; `whole` is the template that mistakes are told of.

local function fail(reader, text, ...)
  errors.raise("invalid", ("error parsing jsonpath %s, %s"):format(reader.whole, text:format(...)), { code = "jsonpath" })
end

local simple_escapes = { n = "\n", t = "\t", r = "\r", a = "\a", b = "\b", f = "\f", v = "\v", ["\\"] = "\\" }
local digits_of = { x = 2, u = 4, U = 8 }

-- The escapes of a Go string.
local function unquoted(reader, inner, quote)
  local out, i = {}, 1
  while i <= #inner do
    local c = inner:sub(i, i)
    if c ~= "\\" then
      out[#out + 1], i = c, i + 1
    else
      local letter = inner:sub(i + 1, i + 1)
      local hex = digits_of[letter] and inner:match("^" .. ("%x"):rep(digits_of[letter]), i + 2)
      local octal = inner:match("^[0-3][0-7][0-7]", i + 1)
      if hex then
        out[#out + 1] = letter == "x" and string.char(tonumber(hex, 16)) or utf8.char(tonumber(hex, 16))
        i = i + 2 + #hex
      elseif octal then
        out[#out + 1], i = string.char(tonumber(octal, 8)), i + 4
      else
        out[#out + 1] = simple_escapes[letter] or letter == quote and quote
          or fail(reader, "unquote string %s%s%s error invalid syntax", quote, inner, quote)
        i = i + 2
      end
    end
  end
  return table.concat(out)
end

local parse_action

-- `"text"`, `'text'`: up to the next quote without a backslash before it.
local function read_quote(reader)
  local quote, from = reader.text:sub(reader.at, reader.at), reader.at + 1
  local to = from
  while true do
    local c = reader.text:sub(to, to)
    if c == "" or c == "\n" then fail(reader, "unterminated quoted string") end
    if c == quote and reader.text:sub(to - 1, to - 1) ~= "\\" then break end
    to = to + 1
  end
  reader.at = to + 1
  return { kind = "text", text = unquoted(reader, reader.text:sub(from, to - 1), quote) }
end

-- A name ends where another step may begin; a backslash takes the next character into it.
local function read_field(reader)
  local from, i = reader.at, reader.at
  while i <= #reader.text do
    local c = reader.text:sub(i, i)
    if c:find "[%s%.,%[%]%$@{}]" then break end
    i = i + (c == "\\" and 2 or 1)
  end
  reader.at = i
  local name = reader.text:sub(from, i - 1)
  return name == "*" and { kind = "wildcard" } or { kind = "field", name = (name:gsub("\\", "")) }
end

local function read_word(reader)
  local word = reader.text:match("^[^%s%.,%[%]%$@{}]+", reader.at)
  reader.at = reader.at + #word
  if word == "true" or word == "false" then return { kind = "value", value = word == "true" } end
  if word == "range" or word == "end" then return { kind = word } end
  return { kind = "identifier", name = word }
end

local function read_number(reader)
  local word = reader.text:match("^[+-]?[%d.]*", reader.at)
  reader.at = reader.at + #word
  local plain = word:gsub("^%+", "")
  local value = math.tointeger(plain) or tonumber(plain)
  if value == nil or word == "" then fail(reader, "cannot parse number %s", word) end
  return { kind = "value", value = value }
end

local function slice_of(reader, text)
  local from, to, step = text:match "^(%-?%d*):?(%-?%d*):?(%-?%d*)$"
  local first_colon = text:match "^%-?%d*(:?)"
  if not from or from == "-" or to == "-" or step == "-" then fail(reader, "invalid array index %s", text) end
  if first_colon == "" and (to ~= "" or text:find ":") then fail(reader, "invalid array index %s", text) end
  local node = { kind = "array", from = math.tointeger(from) or nil, step = math.tointeger(step) or nil }
  if first_colon == "" then
    node.to, node.derived = (node.from or 0) + 1, true
  else
    node.to = math.tointeger(to) or nil
  end
  return node
end

-- What stands between brackets: `*`, an index, a slice, 'a.path', or several of them.
local function read_array(reader)
  local close = reader.text:find("]", reader.at, true)
  if not close then fail(reader, "unterminated array") end
  local inner = reader.text:sub(reader.at + 1, close - 1)
  reader.at = close + 1
  if inner == "*" then inner = ":" end
  if inner:find(",", 1, true) then
    local union = { kind = "union", lists = {} }
    for part in (inner .. ","):gmatch "([^,]*)," do
      union.lists[#union.lists + 1] = parse_action("[" .. part:match "^ *(.-) *$" .. "]", reader.whole)
    end
    return { union }
  end
  local path = inner:match "^'([^']*)'$"
  if path then return parse_action("." .. path, reader.whole) end
  return { slice_of(reader, inner) }
end

-- The place of the `)` that ends a filter: quotes stand in it in one pair at most.
local function filter_end(reader, from)
  local quote, closed, i = nil, false, from
  while true do
    local c = reader.text:sub(i, i)
    if c == "" or c == "\n" then fail(reader, "unterminated filter") end
    if c == '"' or c == "'" then
      if not quote then
        quote = c
      elseif c == quote and reader.text:sub(i - 1, i - 1) ~= "\\" then
        closed = true
      end
    elseif c == ")" and (quote ~= nil) == closed then
      return i
    end
    i = i + 1
  end
end

local function read_filter(reader)
  local from = reader.at + 3
  local close = filter_end(reader, from)
  if reader.text:sub(close + 1, close + 1) ~= "]" then fail(reader, "unclosed array expect ]") end
  reader.at = close + 2
  local text = reader.text:sub(from, close - 1)
  local left, operator, right = text:match "^([^!<>=]+)([!<>=]+)(.+)$"
  if not left then return { kind = "filter", operator = "exists", left = parse_action(text, reader.whole) } end
  return { kind = "filter", operator = operator, left = parse_action(left, reader.whole), right = parse_action(right, reader.whole) }
end

local function read_recursive(reader, nodes)
  if #nodes > 0 and nodes[#nodes].kind == "recursive" then fail(reader, "invalid multiple recursive descent") end
  reader.at = reader.at + 2
  nodes[#nodes + 1] = { kind = "recursive" }
  if reader.text:find("^[%w_\128-\255]", reader.at) then nodes[#nodes + 1] = read_field(reader) end
end

local function read_dotted(reader)
  reader.at = reader.at + 1
  return read_field(reader)
end

-- By its first character, what a step is.
local readers = {
  { "^[ @%$]", function(reader) reader.at = reader.at + 1 end },
  { "^%[", read_array, many = true }, { "^[\"']", read_quote }, { "^%.", read_dotted }, { "^[+%-%d]", read_number },
  { "^[%a_\128-\255]", read_word },
}

local function read_step(reader, nodes)
  for _, row in ipairs(readers) do
    if reader.text:find(row[1], reader.at) then
      local read = row[2](reader)
      if row.many then
        table.move(read, 1, #read, #nodes + 1, nodes)
      else
        nodes[#nodes + 1] = read
      end
      return
    end
  end
  local c = reader.text:match("^" .. utf8.charpattern, reader.at) or "?"
  fail(reader, "unrecognized character in action: U+%04X '%s'", utf8.len(c) and utf8.codepoint(c) or c:byte(), c)
end

-- The steps of one action, from behind its `{` to behind its `}`.
local function read_action(reader)
  local nodes = {}
  while true do
    if reader.text:find("^}", reader.at) then
      reader.at = reader.at + 1
      return nodes
    elseif reader.at > #reader.text or reader.text:find("^[\r\n]", reader.at) then
      fail(reader, "unclosed action")
    elseif reader.text:find("^%[%?%(", reader.at) then
      nodes[#nodes + 1] = read_filter(reader)
    elseif reader.text:find("^%.%.", reader.at) then
      read_recursive(reader, nodes)
    else
      read_step(reader, nodes)
    end
  end
end

function parse_action(text, whole)
  return read_action { text = text .. "}", at = 1, whole = whole }
end

---Reads a template.
---@param template string
---@return table compiled
---Raises "invalid" with kubectl's words.
function M.compile(template)
  local reader, list = { text = template, at = 1, whole = template }, { template = template }
  while reader.at <= #template do
    local open = template:find("{", reader.at, true)
    if open ~= reader.at then
      list[#list + 1] = { { kind = "text", text = template:sub(reader.at, (open or 0) - 1) } }
    end
    if not open then break end
    reader.at = open + 1
    list[#list + 1] = read_action(reader)
  end
  return list
end

---The template that custom columns, `--sort-by` and `--for=jsonpath=` mean: braces and the first dot may be left out.
---@param text string
---@return table compiled
function M.relaxed(text)
  if not text:find "{" then
    if not text:find "^[%.%[%$]" then text = "." .. text end
    text = "{" .. text .. "}"
  end
  return M.compile(text)
end

-- Looking up ----------------------------------------------------------------------------------------------------------

local function stop(text, ...)
  errors.raise("invalid", text:format(...), { code = "jsonpath" })
end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function children(value, into)
  if json.is_array(value) then
    for _, item in ipairs(value) do into[#into + 1] = item end
  elseif type(value) == "table" then
    for _, key in ipairs(sorted_keys(value)) do into[#into + 1] = value[key] end
  end
  return into
end

local function everything(value, into)
  local below = children(value, {})
  if #below == 0 then return end
  into[#into + 1] = value
  for _, child in ipairs(below) do everything(child, into) end
end

local go_kinds = { string = "string", boolean = "bool", table = "map[string]interface {}" }

local function go_kind(value)
  return go_kinds[type(value)] or math.type(value) == "integer" and "int64" or "float64"
end

local function slice(node, value, into)
  local count = #value
  local from, to = node.from or 0, node.to or count
  if from < 0 then from = from + count end
  if to < 0 or to == 0 and node.derived then to = to + count end
  if from == to then return end
  if from >= count or from < 0 then stop("array index out of bounds: index %d, length %d", from, count) end
  if to > count or to < 0 then stop("array index out of bounds: index %d, length %d", to - 1, count) end
  if from > to then stop("starting index %d is greater than ending index %d", from, to) end
  if node.step and node.step <= 0 then stop "step must be > 0" end
  for i = from + 1, to, node.step or 1 do into[#into + 1] = value[i] end
end

local lookup

local compare = {
  ["=="] = function(a, b) return a == b end, ["!="] = function(a, b) return a ~= b end,
  ["<"] = function(a, b) return a < b end, [">"] = function(a, b) return a > b end,
  ["<="] = function(a, b) return a <= b end, [">="] = function(a, b) return a >= b end,
}

local function one_of(values)
  if #values > 1 then stop "can only compare one element at a time" end
  return values[1]
end

local function passes(node, item)
  if node.operator == "exists" then
    local ok, found = pcall(lookup, node.left, { item })
    return ok and #found > 0
  end
  local left = one_of(lookup(node.left, { item }))
  if left == nil then return false end
  local right = one_of(lookup(node.right, { item }))
  if right == nil then return false end
  if not compare[node.operator] then stop("unrecognized filter operator %s", node.operator) end
  if type(left) == "table" or type(right) == "table" then stop "invalid type for comparison" end
  if type(left) ~= type(right) then stop "incompatible types for comparison" end
  if type(left) == "boolean" and not node.operator:find "^[=!]=" then stop "invalid type for comparison" end
  return compare[node.operator](left, right)
end

local walk = {
  wildcard = function(_, value, into) children(value, into) end,
  recursive = function(_, value, into) everything(value, into) end,
  value = function(node, _, into) into[#into + 1] = node.value end,
  field = function(node, value, into)
    if type(value) == "table" and not json.is_array(value) then into[#into + 1] = value[node.name] end
  end,
  array = function(node, value, into)
    if not json.is_array(value) then stop("%s is not array or slice", go_kind(value)) end
    slice(node, value, into)
  end,
  filter = function(node, value, into)
    if not json.is_array(value) then stop("%s is not array or slice and cannot be filtered", M.text(value)) end
    for _, item in ipairs(value) do
      if passes(node, item) then into[#into + 1] = item end
    end
  end,
}

-- Steps that look at all values at once.
local walk_all = {
  text = function(node) return { node.text } end,
  union = function(node, values)
    local found = {}
    for _, list in ipairs(node.lists) do
      local part = lookup(list, values)
      table.move(part, 1, #part, #found + 1, found)
    end
    return found
  end,
  range = function(_, values) return values end,
  ["end"] = function() return {} end,
  identifier = function(node) stop("unrecognized identifier %s", node.name) end,
}

function lookup(path, values)
  for _, node in ipairs(path) do
    local found = {}
    if walk_all[node.kind] then
      found = walk_all[node.kind](node, values)
    else
      for _, value in ipairs(values) do
        if value ~= json.null or node.kind == "value" then walk[node.kind](node, value, found) end
      end
    end
    values = found
  end
  return values
end

local function is(action, kind)
  return action[1] ~= nil and action[1].kind == kind
end

-- Runs the actions from `at` on and hands each one's values to `take`; answers the place behind the end of this range, nil where it has
-- none: then what follows is done once more, with the object that the range was of.
local function execute(list, at, object, take, depth)
  while at <= #list do
    local action = list[at]
    at = at + 1
    if is(action, "end") then
      if depth == 0 then stop "not in range, nothing to end" end
      return at
    elseif is(action, "range") then
      local items, behind = object ~= nil and lookup(action, { object }) or {}, nil
      for _, item in ipairs(items) do behind = execute(list, at, item, take, depth + 1) end
      if #items == 0 then behind = execute(list, at, nil, function() end, depth + 1) end
      at = behind or at
    elseif object ~= nil then
      take(lookup(action, { object }))
    end
  end
  return nil
end

-- Each action's values, in order.
local function results(compiled, object)
  local list = {}
  local ok, err = pcall(execute, compiled, 1, object, function(values) list[#list + 1] = values end, 0)
  if ok then return list end
  err = errors.from(err)
  if err.code ~= "jsonpath" then error(err, 0) end
  errors.raise("invalid", ('error executing jsonpath "%s": Error executing template: %s'):format(
    compiled.template:gsub('["\\]', "\\%0"), err.message), { code = "jsonpath" })
end

---The values that a compiled template of one path finds.
---@param compiled table
---@param object any
---@return any[]
---Raises "invalid" for a place that is not there in a list, and for what cannot be compared.
function M.values(compiled, object)
  local all = {}
  for _, values in ipairs(results(compiled, object)) do table.move(values, 1, #values, #all + 1, all) end
  return all
end

---The values of each action, as `-o jsonpath-as-json` shows them.
---@param compiled table
---@param object any
---@return any[][]
function M.lists(compiled, object)
  return results(compiled, object)
end

---What Go's JSON writes instead of the characters that HTML minds.
M.html = { ["<"] = "\\u003c", [">"] = "\\u003e", ["&"] = "\\u0026", ["\u{2028}"] = "\\u2028", ["\u{2029}"] = "\\u2029" }

---A value as kubectl prints it: text bare, the rest as JSON.
---@param value any
---@return string
function M.text(value)
  if type(value) == "string" then return value end
  if value == json.null then return "" end
  if type(value) == "table" then return (json.encode(value):gsub("[<>&]", M.html)) end
  return json.encode(value)
end

---What a template makes of an object.
---@param compiled table
---@param object any
---@return string
---Raises as `values` does.
function M.render(compiled, object)
  local out = {}
  for _, values in ipairs(results(compiled, object)) do
    local words = {}
    for i, value in ipairs(values) do words[i] = M.text(value) end
    out[#out + 1] = table.concat(words, " ")
  end
  return table.concat(out)
end

return M
