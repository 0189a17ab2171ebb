-- SPDX-License-Identifier: Apache-2.0
-- Evaluates a parsed query over records. Numbers keep their SQL type: bigint / bigint is whole, and a double prints as one.
local analysis = {}

local function fail(message) error({ code = "ParameterInvalid", message = message }, 0) end

local function both_numbers(a, b, op)
  if type(a) ~= "number" or type(b) ~= "number" then
    fail(("'%s' cannot be applied to %s, %s"):format(op, type(a) == "number" and "double" or "varchar",
      type(b) == "number" and "double" or "varchar"))
  end
end

-- Truncates toward zero, as SQL does.
local function divide(a, b)
  if math.type(a) == "integer" and math.type(b) == "integer" then
    if b == 0 then fail "Division by zero" end
    local q = a // b
    return (q < 0 and q * b ~= a) and q + 1 or q
  end
  return a / b
end

local arithmetic = {
  ["+"] = function(a, b) return a + b end,
  ["-"] = function(a, b) return a - b end,
  ["*"] = function(a, b) return a * b end,
  ["/"] = divide,
  ["%"] = function(a, b)
    if b == 0 then fail "Division by zero" end
    return math.fmod(a, b)
  end,
}

local comparison = {
  ["="] = function(a, b) return a == b end,
  ["<>"] = function(a, b) return a ~= b end,
  ["<"] = function(a, b) return a < b end,
  [">"] = function(a, b) return a > b end,
  ["<="] = function(a, b) return a <= b end,
  [">="] = function(a, b) return a >= b end,
}

local compile

-- Each compiler: (node, env) -> function(record) -> value; nil is SQL's null.
local nodes = {}

function nodes.literal(node)
  return function() return node.value end
end

function nodes.field(node, env)
  if env.aliases[node.name] and not env.known(node.name) then return env.alias_value(node.name) end
  if not env.known(node.name) then
    fail(("key (%s) is not config as key value config,if symbol : is in your log,please wrap : with quotation mark \""):format(node.name))
  end
  if env.aggregating then
    fail(("'%s' must be an aggregate expression or appear in GROUP BY clause"):format(node.name))
  end
  return function(record) return record[node.name] end
end

local function binary(node, env, apply, op)
  local left, right = compile(node[1], env), compile(node[2], env)
  return function(record)
    local a, b = left(record), right(record)
    if a == nil or b == nil then return nil end
    return apply(a, b, op)
  end
end

for op, fn in pairs(arithmetic) do
  nodes[op] = function(node, env)
    return binary(node, env, function(a, b)
      both_numbers(a, b, op)
      return fn(a, b)
    end)
  end
end

for op, fn in pairs(comparison) do
  nodes[op] = function(node, env)
    return binary(node, env, function(a, b)
      if type(a) ~= type(b) then fail(("'%s' cannot be applied to values of different types"):format(op)) end
      return fn(a, b)
    end)
  end
end

nodes["and"] = function(node, env)
  local left, right = compile(node[1], env), compile(node[2], env)
  return function(record) return left(record) and right(record) end
end

nodes["or"] = function(node, env)
  local left, right = compile(node[1], env), compile(node[2], env)
  return function(record) return left(record) or right(record) end
end

nodes["not"] = function(node, env)
  local inner = compile(node[1], env)
  return function(record)
    local value = inner(record)
    if value == nil then return nil end
    return not value
  end
end

function nodes.negate(node, env)
  local inner = compile(node[1], env)
  return function(record)
    local value = inner(record)
    return value ~= nil and -value or nil
  end
end

function nodes.is_null(node, env)
  local inner = compile(node[1], env)
  return function(record) return inner(record) == nil end
end

nodes["in"] = function(node, env)
  local left, list = compile(node[1], env), {}
  for i, item in ipairs(node.list) do list[i] = compile(item, env) end
  return function(record)
    local value = left(record)
    for _, item in ipairs(list) do
      if value ~= nil and item(record) == value then return true end
    end
    return false
  end
end

function nodes.like(node, env)
  return binary(node, env, function(value, pattern)
    local lua_pattern = pattern:gsub("[%^%$%(%)%.%[%]%*%+%-%?]", "%%%0"):gsub("%%%%", "%%"):gsub("%%([^%^%$%(%)%.%[%]%*%+%-%?])", ".*%1")
      :gsub("%%$", ".*"):gsub("_", ".")
    return tostring(value):find("^" .. lua_pattern .. "$") ~= nil
  end)
end

nodes["case"] = function(node, env)
  local whens, otherwise = {}, node.otherwise and compile(node.otherwise, env)
  for i, when in ipairs(node.whens) do whens[i] = { compile(when[1], env), compile(when[2], env) } end
  return function(record)
    for _, when in ipairs(whens) do
      if when[1](record) then return when[2](record) end
    end
    return otherwise and otherwise(record)
  end
end

local casts = { double = function(v) return tonumber(v) and tonumber(v) + 0.0 end, varchar = tostring,
  bigint = function(v) return tonumber(v) and math.tointeger(tonumber(v) // 1) end }
casts.integer = casts.bigint

function nodes.cast(node, env)
  local inner = compile(node.args[1], env)
  return function(record)
    local value = inner(record)
    return value ~= nil and casts[node.to](value) or nil
  end
end

local function half_up(x, digits)
  local scale = 10.0 ^ (digits or 0)
  return math.floor(x * scale + 0.5) / scale
end

local functions = {
  abs = math.abs, floor = function(x) return math.floor(x) + 0.0 end, ceil = function(x) return math.ceil(x) + 0.0 end, round = half_up,
  lower = string.lower, upper = string.upper, to_unixtime = function(x) return x + 0.0 end,
  coalesce = function(...)
    for i = 1, select("#", ...) do
      local value = select(i, ...)
      if value ~= nil then return value end
    end
  end,
}

function nodes.call(node, env)
  local args, fn = {}, functions[node.name]
  for i, arg in ipairs(node.args) do args[i] = compile(arg, env) end
  return function(record)
    local values = {}
    for i, arg in ipairs(args) do values[i] = arg(record) end
    if values[1] == nil and node.name ~= "coalesce" then return nil end
    return fn(table.unpack(values, 1, #args))
  end
end

-- Aggregates: start() -> state; step(state, value...); finish(state) -> value
local aggregators = {
  count = { start = function() return { n = 0 } end, step = function(s, v) if v ~= nil then s.n = s.n + 1 end end,
    finish = function(s) return s.n end },
  count_if = { start = function() return { n = 0 } end, step = function(s, v) if v then s.n = s.n + 1 end end,
    finish = function(s) return s.n end },
  sum = { start = function() return {} end, step = function(s, v) if v ~= nil then s.v = (s.v or 0) + v end end,
    finish = function(s) return s.v end },
  avg = { start = function() return { n = 0, v = 0.0 } end,
    step = function(s, v) if v ~= nil then s.n, s.v = s.n + 1, s.v + v end end,
    finish = function(s) return s.n > 0 and s.v / s.n or nil end },
  min = { start = function() return {} end, step = function(s, v) if v ~= nil and (s.v == nil or v < s.v) then s.v = v end end,
    finish = function(s) return s.v end },
  max = { start = function() return {} end, step = function(s, v) if v ~= nil and (s.v == nil or v > s.v) then s.v = v end end,
    finish = function(s) return s.v end },
  approx_distinct = { start = function() return { n = 0, seen = {} } end,
    step = function(s, v) if v ~= nil and not s.seen[v] then s.seen[v], s.n = true, s.n + 1 end end,
    finish = function(s) return s.n end },
  approx_percentile = { start = function() return { list = {} } end,
    step = function(s, v, p) if v ~= nil then s.list[#s.list + 1], s.p = v, p end end,
    finish = function(s)
      table.sort(s.list)
      return s.list[math.max(1, math.ceil((s.p or 0) * #s.list))]
    end },
}

-- In the finished row an aggregate is a value found by its node.
function nodes.aggregate(node, env)
  if not env.aggregating then fail(("the aggregate %s is not allowed here"):format(node.name)) end
  if #node.args ~= (node.name == "approx_percentile" and 2 or 1) then
    fail(("wrong number of arguments for %s"):format(node.name))
  end
  local inner = { aggregating = false, aliases = {}, known = env.known }
  local slot = { node = node, of = aggregators[node.name], args = {} }
  for i, arg in ipairs(node.args) do slot.args[i] = compile(arg, inner) end
  table.insert(env.slots, slot)
  return function() return env.current[slot] end
end

-- In a grouped query whatever GROUP BY names is a key of the bucket, not an expression of a record.
function compile(node, env)
  local key = env.key_of and env.key_of(node)
  if key then return function() return env.current_keys[key] end end
  return nodes[node.op](node, env)
end

local function contains_aggregate(node)
  if type(node) ~= "table" then return false end
  if node.op == "aggregate" then return true end
  for _, child in pairs(node) do
    if contains_aggregate(child) then return true end
  end
  return false
end

local function is_aggregation(query)
  if query.group or query.having then return true end
  for _, item in ipairs(query.items) do
    if item.expression and contains_aggregate(item.expression) then return true end
  end
  return false
end

-- What two nodes have in common when they mean the same.
local function signature(node)
  if type(node) ~= "table" then return tostring(node) end
  local keys, parts = {}, {}
  for key in pairs(node) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  for i, key in ipairs(keys) do parts[i] = key .. "=" .. signature(node[key] == nil and node[tonumber(key)] or node[key]) end
  return "{" .. table.concat(parts, ",") .. "}"
end

local function column_name(item, index)
  if item.alias then return item.alias end
  if item.expression.op == "field" then return item.expression.name end
  return "_col" .. (index - 1)
end

local function filtered(query, records, known)
  if not query.where then return records end
  local where, kept = compile(query.where, { aggregating = false, aliases = {}, known = known }), {}
  for _, record in ipairs(records) do
    if where(record) then kept[#kept + 1] = record end
  end
  return kept
end

-- Expressions of GROUP BY, aliases and positions resolved.
local function group_expressions(query)
  local list = {}
  for i, node in ipairs(query.group or {}) do
    list[i] = node
    if node.op == "literal" and math.type(node.value) == "integer" then
      local item = query.items[node.value] or fail "GROUP BY position is not in select list"
      list[i] = item.expression
    end
    for _, item in ipairs(query.items) do
      if node.op == "field" and item.alias == node.name then list[i] = item.expression end
    end
  end
  return list
end

local function new_bucket(keys, slots)
  local bucket = { keys = keys, state = {} }
  for _, slot in ipairs(slots) do bucket.state[slot] = slot.of.start() end
  return bucket
end

local function feed(bucket, slots, record)
  for _, slot in ipairs(slots) do
    local first, second = slot.args[1](record), slot.args[2] and slot.args[2](record)
    slot.of.step(bucket.state[slot], first, second)
  end
end

local function group_records(records, getters, slots)
  local buckets, order = {}, {}
  for _, record in ipairs(records) do
    local keys, parts = {}, {}
    for i, get in ipairs(getters) do
      keys[i] = get(record)
      parts[i] = math.type(keys[i]) == "float" and ("%.17g"):format(keys[i]) or type(keys[i]) .. tostring(keys[i])
    end
    local mark = table.concat(parts, "\0")
    if not buckets[mark] then
      buckets[mark] = new_bucket(keys, slots)
      order[#order + 1] = buckets[mark]
    end
    feed(buckets[mark], slots, record)
  end
  if #order == 0 and #getters == 0 then order[1] = new_bucket({}, slots) end
  return order
end

-- The environment of a grouped query's outputs. `current` and `current_keys` are those of the bucket that is written.
local function output_env(groups, known)
  local marks = {}
  for i, node in ipairs(groups) do marks[signature(node)] = i end
  local env = { aggregating = true, slots = {}, aliases = {}, known = known }
  function env.key_of(node) return marks[signature(node)] end
  function env.alias_value(name) return env.aliases[name] end
  return env
end

local function null_last(a, b, descending)
  if a == b then return nil end
  if a == nil then return false end
  if b == nil then return true end
  if type(a) ~= type(b) then a, b = tostring(a), tostring(b) end
  if descending then return a > b end
  return a < b
end

local function sort_rows(rows, order)
  table.sort(rows, function(a, b)
    for i, item in ipairs(order) do
      local less = null_last(a.order[i], b.order[i], item.descending)
      if less ~= nil then return less end
    end
    return a.index < b.index
  end)
end

local function aggregate_rows(query, records, known)
  local groups, getters = group_expressions(query), {}
  for i, node in ipairs(groups) do getters[i] = compile(node, { aggregating = false, aliases = {}, known = known }) end
  local env, outputs, orders, rows = output_env(groups, known), {}, {}, {}
  for i, item in ipairs(query.items) do
    if item.star then fail "SELECT * cannot be combined with aggregates" end
    outputs[i] = compile(item.expression, env)
    if item.alias then env.aliases[item.alias] = outputs[i] end
  end
  local having = query.having and compile(query.having, env)
  for i, item in ipairs(query.order or {}) do orders[i] = compile(item.expression, env) end
  for _, bucket in ipairs(group_records(records, getters, env.slots)) do
    env.current, env.current_keys = {}, bucket.keys
    for _, slot in ipairs(env.slots) do env.current[slot] = slot.of.finish(bucket.state[slot]) end
    if not having or having() then
      local row = { index = #rows, values = {}, order = {} }
      for i, output in ipairs(outputs) do row.values[i] = output() end
      for i, output in ipairs(orders) do row.order[i] = output() end
      rows[#rows + 1] = row
    end
  end
  return rows
end

local function plain_rows(query, records, known)
  local env = { aggregating = false, aliases = {}, known = known }
  local outputs, orders, rows = {}, {}, {}
  for i, item in ipairs(query.items) do
    if item.star then fail "SELECT * is not supported, name the fields" end
    outputs[i] = compile(item.expression, env)
    if item.alias then env.aliases[item.alias] = outputs[i] end
  end
  function env.alias_value(name) return env.aliases[name] end
  for i, item in ipairs(query.order or {}) do orders[i] = compile(item.expression, env) end
  for index, record in ipairs(records) do
    local row = { index = index, values = {}, order = {} }
    for i, output in ipairs(outputs) do row.values[i] = output(record) end
    for i, output in ipairs(orders) do row.order[i] = output(record) end
    rows[index] = row
  end
  return rows
end

local function text_of_float(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "Infinity" end
  if value == -math.huge then return "-Infinity" end
  local text = ("%.15g"):format(value)
  if tonumber(text) ~= value then text = ("%.17g"):format(value) end
  if not text:find "[%.eE]" then text = text .. ".0" end
  return text
end

-- All values of an answer are strings.
function analysis.text(value)
  if value == nil then return "null" end
  if math.type(value) == "float" then return text_of_float(value) end
  return tostring(value)
end

-- records: list of tables name -> value; known(name) says whether a field is indexed. Returns rows (name -> string) and columns.
function analysis.run(query, records, known)
  local kept = filtered(query, records, known)
  local rows = is_aggregation(query) and aggregate_rows(query, kept, known) or plain_rows(query, kept, known)
  if query.order then sort_rows(rows, query.order) end
  local names, result, offset = {}, {}, query.offset or 0
  for i, item in ipairs(query.items) do names[i] = column_name(item, i) end
  for i = offset + 1, math.min(#rows, offset + (query.limit or 100)) do
    local row = {}
    for j, name in ipairs(names) do row[name] = analysis.text(rows[i].values[j]) end
    result[#result + 1] = row
  end
  return result, names
end

return analysis
