-- SPDX-License-Identifier: Apache-2.0
-- JMESPath over decoded JSON: all of its grammar, and the functions of the table below.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local parse = require "eirun.jmespath.parse"
local wire = require "eirun.wire"

local M = {}

local null = json.null

local function fail(text)
  errors.raise("invalid", "--query: " .. text, { code = "usage" })
end

local function is_list(value) return type(value) == "table" and json.is_array(value) end
local function is_map(value) return type(value) == "table" and not json.is_array(value) end

local function type_of(value)
  if value == nil or value == null then return "null" end
  if type(value) == "table" then return json.is_array(value) and "array" or "object" end
  return type(value)
end

local function truth(value)
  if value == nil or value == null or value == false or value == "" then return false end
  return type(value) ~= "table" or next(value) ~= nil
end

local function equal(a, b)
  local kind = type_of(a)
  if kind ~= type_of(b) then return false end
  if kind == "null" then return true end
  if type(a) ~= "table" then return a == b end
  for key, value in pairs(a) do if not equal(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end

local evaluate

-- Items of a list through the right-hand side; what gives nothing is left out.
local function project(list, right)
  local result = json.array {}
  for _, item in ipairs(list) do
    local value = evaluate(right, item)
    if value ~= null then result[#result + 1] = value end
  end
  return result
end

local function values_of(map)
  local list = json.array {}
  for i, key in ipairs(wire.sorted_keys(map)) do list[i] = map[key] end
  return list
end

local function bound(at, length, otherwise, step)
  if not at then return otherwise end
  if at < 0 then at = at + length end
  if step > 0 then return math.max(0, math.min(at, length)) end
  return math.max(-1, math.min(at, length - 1))
end

local function slice(list, parts)
  local step, result = parts[3] or 1, json.array {}
  local from = bound(parts[1], #list, step > 0 and 0 or #list - 1, step)
  local to = bound(parts[2], #list, step > 0 and #list or -1, step)
  for i = from, to + (step > 0 and -1 or 1), step do result[#result + 1] = list[i + 1] end
  return result
end

local function flat(list)
  local result = json.array {}
  for _, item in ipairs(list) do
    if is_list(item) then table.move(item, 1, #item, #result + 1, result) else result[#result + 1] = item end
  end
  return result
end

local comparisons = {
  ["<"] = function(a, b) return a < b end, [">"] = function(a, b) return a > b end,
  ["<="] = function(a, b) return a <= b end, [">="] = function(a, b) return a >= b end,
}

-- Functions -----------------------------------------------------------------------------------------------------------

local function want(name, value, ...)
  local kind = type_of(value)
  for _, allowed in ipairs { ... } do if kind == allowed then return value end end
  fail(("%s() wants %s, not %s"):format(name, table.concat({ ... }, " or "), kind))
end

local function keyed(name, list, reference)
  local rows, kind = {}, nil
  for i, item in ipairs(want(name, list, "array")) do
    local key = evaluate(reference, item)
    kind = kind or type_of(want(name, key, "number", "string"))
    rows[i] = { key = want(name, key, kind), item = item, at = i }
  end
  table.sort(rows, function(a, b)
    if a.key ~= b.key then return a.key < b.key end
    return a.at < b.at
  end)
  return rows
end

local function items_of(rows)
  local list = json.array {}
  for i, row in ipairs(rows) do list[i] = row.item end
  return list
end

local self_reference = { type = "current" }
local functions = {}

function functions.length(value)
  want("length", value, "string", "array", "object")
  if type(value) == "string" then return utf8.len(value) or #value end
  return is_list(value) and #value or #wire.sorted_keys(value)
end

function functions.keys(map) return json.array(wire.sorted_keys(want("keys", map, "object"))) end
function functions.values(map) return values_of(want("values", map, "object")) end
function functions.type(value) return type_of(value) end
function functions.sort(list) return items_of(keyed("sort", list, self_reference)) end
function functions.sort_by(list, by) return items_of(keyed("sort_by", list, by)) end
function functions.max(list) local rows = keyed("max", list, self_reference) return #rows > 0 and rows[#rows].item or null end
function functions.min(list) local rows = keyed("min", list, self_reference) return #rows > 0 and rows[1].item or null end
function functions.max_by(list, by) local rows = keyed("max_by", list, by) return #rows > 0 and rows[#rows].item or null end
function functions.min_by(list, by) local rows = keyed("min_by", list, by) return #rows > 0 and rows[1].item or null end

function functions.sum(list)
  local total = 0
  for _, item in ipairs(want("sum", list, "array")) do total = total + want("sum", item, "number") end
  return total
end

function functions.avg(list) return #want("avg", list, "array") > 0 and functions.sum(list) / #list or null end

function functions.map(by, list)
  local result = json.array {}
  for i, item in ipairs(want("map", list, "array")) do result[i] = evaluate(by, item) end
  return result
end

function functions.reverse(value)
  if type(value) == "string" then return value:reverse() end
  local result = json.array {}
  for i = #want("reverse", value, "array"), 1, -1 do result[#result + 1] = value[i] end
  return result
end

function functions.join(glue, list)
  for _, item in ipairs(want("join", list, "array")) do want("join", item, "string") end
  return table.concat(list, want("join", glue, "string"))
end

function functions.contains(subject, wanted)
  if type(subject) == "string" then return type(wanted) == "string" and subject:find(wanted, 1, true) ~= nil end
  for _, item in ipairs(want("contains", subject, "array", "string")) do if equal(item, wanted) then return true end end
  return false
end

function functions.starts_with(text, start)
  return want("starts_with", text, "string"):sub(1, #want("starts_with", start, "string")) == start
end

function functions.ends_with(text, tail)
  return want("ends_with", tail, "string") == "" or want("ends_with", text, "string"):sub(-#tail) == tail
end

function functions.to_number(value)
  if type(value) == "number" then return value end
  return type(value) == "string" and type(json.decode(value)) == "number" and json.decode(value) or null
end

function functions.to_string(value) return type(value) == "string" and value or json.encode(value) end
function functions.to_array(value) return is_list(value) and value or json.array { value } end
function functions.abs(value) return math.abs(want("abs", value, "number")) end
function functions.floor(value) return math.floor(want("floor", value, "number")) end
function functions.ceil(value) return math.ceil(want("ceil", value, "number")) end

function functions.not_null(...)
  for i = 1, select("#", ...) do
    local value = select(i, ...)
    if value ~= null then return value end
  end
  return null
end

function functions.merge(...)
  local result = {}
  for _, map in ipairs { ... } do
    for key, value in pairs(want("merge", map, "object")) do result[key] = value end
  end
  return result
end

local arity = { length = 1, keys = 1, values = 1, type = 1, sort = 1, sort_by = 2, max = 1, min = 1, max_by = 2, min_by = 2, sum = 1,
  avg = 1,
  map = 2, reverse = 1, join = 2, contains = 2, starts_with = 2, ends_with = 2, to_number = 1, to_string = 1, to_array = 1, abs = 1,
  floor = 1, ceil = 1 }

-- Evaluation ----------------------------------------------------------------------------------------------------------

local nodes = {}

function nodes.literal(node) return node.value end
function nodes.current(_, value) return value end
function nodes.group(node, value) return evaluate(node.left, value) end
function nodes.reference() fail "& stands only before an argument of a function" end
nodes["not"] = function(node, value) return not truth(evaluate(node.left, value)) end

function nodes.field(node, value)
  if not is_map(value) then return null end
  local found = value[node.name]
  return found == nil and null or found
end

function nodes.sub(node, value)
  local left = evaluate(node.left, value)
  if left == null and not node.pipe then return null end
  return evaluate(node.right, left)
end

function nodes.index(node, value)
  local list = evaluate(node.left, value)
  if not is_list(list) then return null end
  local at = node.value < 0 and node.value + #list or node.value
  local found = list[at + 1]
  return found == nil and null or found
end

function nodes.slice_projection(node, value)
  local list = evaluate(node.left, value)
  return is_list(list) and project(slice(list, node.slice), node.right) or null
end

function nodes.projection(node, value)
  local list = evaluate(node.left, value)
  return is_list(list) and project(list, node.right) or null
end

function nodes.values(node, value)
  local map = evaluate(node.left, value)
  return is_map(map) and project(values_of(map), node.right) or null
end

function nodes.flatten(node, value)
  local list = evaluate(node.left, value)
  return is_list(list) and flat(list) or null
end

function nodes.filter(node, value)
  local list, kept = evaluate(node.left, value), json.array {}
  if not is_list(list) then return null end
  for _, item in ipairs(list) do
    if truth(evaluate(node.condition, item)) then kept[#kept + 1] = item end
  end
  return project(kept, node.right)
end

nodes["or"] = function(node, value)
  local left = evaluate(node.left, value)
  if truth(left) then return left end
  return evaluate(node.right, value)
end

nodes["and"] = function(node, value)
  local left = evaluate(node.left, value)
  if not truth(left) then return left end
  return evaluate(node.right, value)
end

function nodes.compare(node, value)
  local a, b = evaluate(node.left, value), evaluate(node.right, value)
  if node.how == "==" then return equal(a, b) elseif node.how == "!=" then return not equal(a, b) end
  if type(a) ~= "number" or type(b) ~= "number" then return null end
  return comparisons[node.how](a, b)
end

function nodes.list(node, value)
  if value == null then return null end
  local result = json.array {}
  for i, item in ipairs(node.items) do result[i] = evaluate(item, value) end
  return result
end

function nodes.hash(node, value)
  if value == null then return null end
  local result = {}
  for _, pair in ipairs(node.pairs) do result[pair.key] = evaluate(pair.value, value) end
  return result
end

function nodes.call(node, value)
  local fn = functions[node.name]
  if not fn then fail(("there is no function %s(); known are %s"):format(node.name, table.concat(wire.sorted_keys(functions), ", "))) end
  if arity[node.name] and #node.items ~= arity[node.name] then
    fail(("%s() takes %d argument%s, not %d"):format(node.name, arity[node.name], arity[node.name] == 1 and "" or "s", #node.items))
  end
  local arguments = {}
  for i, item in ipairs(node.items) do
    arguments[i] = item.type == "reference" and item.left or evaluate(item, value)
  end
  return fn(table.unpack(arguments))
end

function evaluate(node, value)
  return nodes[node.type](node, value)
end

---Raises when the text is no JMESPath.
---@param text string
---Example: `jmespath.check "a[*].b"`. Raises kind "invalid", code "usage".
function M.check(text)
  parse.parse(text)
end

---What an expression finds in a decoded value; `json.null` where it finds nothing.
---@param text string
---@param value any
---@return any
---Example: `jmespath.search("clusters[?state=='running'].cluster_id", answer)`.
---Raises kind "invalid" for what is no JMESPath, with the place.
function M.search(text, value)
  return evaluate(parse.parse(text), value)
end

return M
