-- SPDX-License-Identifier: Apache-2.0
-- The JSONPath templates of kubectl: `{.items[*].metadata.name}`, `{range .items[*]}{.metadata.name}{"\n"}{end}`, filters, slices,
-- unions and `..`.
local errors = require "eirun.errors"
local json = require "eirun.core.json"

local M = {}

local function fail(template, text)
  errors.raise("invalid", ("error parsing jsonpath %s, %s"):format(template, text), { code = "jsonpath" })
end

-- Reading -------------------------------------------------------------------------------------------------------------

local escapes = { n = "\n", t = "\t", r = "\r" }

-- A quoted string at `at`; answers its text and the place behind it.
local function quoted(s, at)
  local quote, out, i = s:sub(at, at), {}, at + 1
  while i <= #s do
    local c = s:sub(i, i)
    if c == quote then return table.concat(out), i + 1 end
    if c == "\\" then
      i = i + 1
      c = escapes[s:sub(i, i)] or s:sub(i, i)
    end
    out[#out + 1], i = c, i + 1
  end
  fail(s, "unterminated quoted string")
end

-- The place behind the bracket that closes the one at `at`.
local function closing(s, at, open, close)
  local depth, i = 0, at
  while i <= #s do
    local c = s:sub(i, i)
    if c == '"' or c == "'" then
      i = select(2, quoted(s, i))
    else
      depth = depth + (c == open and 1 or c == close and -1 or 0)
      i = i + 1
      if depth == 0 then return i end
    end
  end
  fail(s, "unterminated " .. (open == "{" and "action" or "array"))
end

local parse_path

local function literal(text)
  local first = text:sub(1, 1)
  if first == '"' or first == "'" then return { value = (quoted(text, 1)) } end
  if text == "true" or text == "false" then return { value = text == "true" } end
  if tonumber(text) then return { value = math.tointeger(tonumber(text)) or tonumber(text) } end
  return { path = parse_path((text:gsub("^@", ""))) }
end

local function trim(text)
  return text:match "^%s*(.-)%s*$"
end

-- `@.a == "b"`: the operator outside of quotes and brackets.
local function filter(text)
  local i, depth = 1, 0
  while i <= #text do
    local c = text:sub(i, i)
    if c == '"' or c == "'" then
      i = select(2, quoted(text, i))
    else
      depth = depth + ((c == "[" or c == "(") and 1 or (c == "]" or c == ")") and -1 or 0)
      local operator = depth == 0 and (text:match("^[=!<>]=", i) or text:match("^[<>]", i))
      if operator then
        return { op = operator, left = literal(trim(text:sub(1, i - 1))), right = literal(trim(text:sub(i + #operator))) }
      end
      i = i + 1
    end
  end
  return { left = literal(trim(text)) }
end

local function split_commas(text)
  local list, from, i = {}, 1, 1
  while i <= #text do
    local c = text:sub(i, i)
    if c == '"' or c == "'" then
      i = select(2, quoted(text, i))
    else
      if c == "," then list[#list + 1], from = trim(text:sub(from, i - 1)), i + 1 end
      i = i + 1
    end
  end
  list[#list + 1] = trim(text:sub(from))
  return list
end

local function subscript(text)
  local inner = trim(text)
  if inner == "*" then return { kind = "all" } end
  local condition = inner:match "^%?%((.*)%)$"
  if condition then return { kind = "filter", filter = filter(condition) } end
  local from, to, stride = inner:match "^(%-?%d*):(%-?%d*):?(%-?%d*)$"
  if from then return { kind = "slice", from = tonumber(from), to = tonumber(to), step = tonumber(stride) } end
  local parts = {}
  for _, part in ipairs(split_commas(inner)) do
    local first = part:sub(1, 1)
    if first == '"' or first == "'" then
      parts[#parts + 1] = { kind = "field", name = (quoted(part, 1)) }
    elseif math.tointeger(tonumber(part)) then
      parts[#parts + 1] = { kind = "index", at = math.tointeger(tonumber(part)) }
    else
      fail(text, "invalid array index " .. part)
    end
  end
  return #parts == 1 and parts[1] or { kind = "union", parts = parts }
end

-- A dot may stand in a name behind a backslash: `.metadata.labels.app\.kubernetes\.io/name`.
local function name_at(s, at)
  local out, i = {}, at
  while i <= #s do
    local c = s:sub(i, i)
    if c == "\\" then
      i = i + 1
      out[#out + 1] = s:sub(i, i)
    elseif c:find "[%.%[%s]" then
      break
    else
      out[#out + 1] = c
    end
    i = i + 1
  end
  return table.concat(out), i
end

function parse_path(s)
  local nodes, i = {}, 1
  if s:sub(1, 1) == "$" then i = 2 end
  while i <= #s do
    local c = s:sub(i, i)
    if s:sub(i, i + 1) == ".." then
      nodes[#nodes + 1] = { kind = "descend" }
      i = i + 1
      if s:sub(i + 1, i + 1) == "[" then i = i + 1 end
    elseif c == "[" then
      local next_at = closing(s, i, "[", "]")
      nodes[#nodes + 1] = subscript(s:sub(i + 1, next_at - 2))
      i = next_at
    else
      if c == "." then i = i + 1 end
      local name, next_at = name_at(s, i)
      if name == "*" then
        nodes[#nodes + 1] = { kind = "all" }
      elseif name ~= "" then
        nodes[#nodes + 1] = { kind = "field", name = name }
      elseif next_at == i and s:sub(i, i) ~= "[" and i <= #s then
        fail(s, ("unrecognized character in action: '%s'"):format(s:sub(i, i)))
      end
      i = next_at
    end
  end
  return nodes
end

local function action(text, template)
  text = trim(text)
  if text == "end" then return { kind = "end" } end
  local range = text:match "^range%s+(.*)$"
  if range then return { kind = "range", path = parse_path(range), body = {} } end
  local first = text:sub(1, 1)
  if first == '"' or first == "'" then return { kind = "text", text = (quoted(text, 1)) } end
  if not first:find "[%.%[%$@]" and first ~= "" then
    if text:find "^[%w_%-]+" then return { kind = "path", path = parse_path("." .. text) } end
    fail(template, "unrecognized character in action: U+" .. ("%04X"):format(first:byte()))
  end
  return { kind = "path", path = parse_path((text:gsub("^@", ""))) }
end

---Reads a template.
---@param template string
---@return table compiled
---Raises "invalid" with kubectl's words.
function M.compile(template)
  local root = { body = {} }
  local stack, i = { root }, 1
  while i <= #template do
    local open = template:find("{", i, true)
    if not open or open > i then
      table.insert(stack[#stack].body, { kind = "text", text = template:sub(i, (open or #template + 1) - 1) })
    end
    if not open then break end
    i = closing(template, open, "{", "}")
    local node = action(template:sub(open + 1, i - 2), template)
    if node.kind == "end" then
      if #stack == 1 then fail(template, "not in range, nothing to end") end
      stack[#stack] = nil
    else
      table.insert(stack[#stack].body, node)
      if node.kind == "range" then stack[#stack + 1] = node end
    end
  end
  if #stack > 1 then fail(template, "unterminated range") end
  return root.body
end

---The template that `-o jsonpath=` and `--for=jsonpath=` mean: braces and the first dot may be left out.
---@param text string
---@return table compiled
function M.relaxed(text)
  if not text:find "^%s*{" and not text:find "{" then
    if not text:find "^[%.%[%$]" then text = "." .. text end
    text = "{" .. text .. "}"
  end
  return M.compile(text)
end

-- Looking up ----------------------------------------------------------------------------------------------------------

local lookup

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
  if type(value) ~= "table" then return into end
  into[#into + 1] = value
  for _, child in ipairs(children(value, {})) do everything(child, into) end
  return into
end

local function slice(value, node, into)
  if not json.is_array(value) then return into end
  local count, step = #value, node.step or 1
  local from, to = node.from or 0, node.to or count
  if from < 0 then from = from + count end
  if to < 0 then to = to + count end
  for i = from, math.min(to, count) - 1, math.max(step, 1) do into[#into + 1] = value[i + 1] end
  return into
end

local function operand(side, item)
  if side.path then return lookup(side.path, { item })[1] end
  return side.value
end

local compare = {
  ["=="] = function(a, b) return a == b end, ["!="] = function(a, b) return a ~= b end,
  ["<"] = function(a, b) return a < b end, [">"] = function(a, b) return a > b end,
  ["<="] = function(a, b) return a <= b end, [">="] = function(a, b) return a >= b end,
}

local function passes(condition, item)
  local left = operand(condition.left, item)
  if not condition.op then return left ~= nil end
  local right = operand(condition.right, item)
  if left == nil or right == nil then return false end
  if type(left) ~= type(right) then return condition.op == "!=" end
  if type(left) == "boolean" and condition.op ~= "==" and condition.op ~= "!=" then return false end
  return compare[condition.op](left, right)
end

local walk = {
  all = function(_, value, into) return children(value, into) end,
  descend = function(_, value, into) return everything(value, into) end,
  slice = function(node, value, into) return slice(value, node, into) end,
  field = function(node, value, into)
    if type(value) == "table" and not json.is_array(value) then into[#into + 1] = value[node.name] end
    return into
  end,
  index = function(node, value, into)
    if json.is_array(value) then into[#into + 1] = value[(node.at < 0 and node.at + #value or node.at) + 1] end
    return into
  end,
  filter = function(node, value, into)
    for _, item in ipairs(json.is_array(value) and value or {}) do
      if passes(node.filter, item) then into[#into + 1] = item end
    end
    return into
  end,
}

function walk.union(node, value, into)
  for _, part in ipairs(node.parts) do walk[part.kind](part, value, into) end
  return into
end

function lookup(path, values)
  for _, node in ipairs(path) do
    local found = {}
    for _, value in ipairs(values) do walk[node.kind](node, value, found) end
    values = found
  end
  return values
end

---The values that a compiled template of one path finds.
---@param compiled table
---@param object any
---@return any[]
function M.values(compiled, object)
  local list = {}
  for _, node in ipairs(compiled) do
    if node.kind == "path" then
      for _, value in ipairs(lookup(node.path, { object })) do list[#list + 1] = value end
    end
  end
  return list
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

local function render(nodes, object, out)
  for _, node in ipairs(nodes) do
    if node.kind == "text" then
      out[#out + 1] = node.text
    elseif node.kind == "range" then
      for _, item in ipairs(lookup(node.path, { object })) do render(node.body, item, out) end
    else
      local words = {}
      for i, value in ipairs(lookup(node.path, { object })) do words[i] = M.text(value) end
      out[#out + 1] = table.concat(words, " ")
    end
  end
  return out
end

---What a template makes of an object.
---@param compiled table
---@param object any
---@return string
function M.render(compiled, object)
  return table.concat(render(compiled, object, {}))
end

return M
