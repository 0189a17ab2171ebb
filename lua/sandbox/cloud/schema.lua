-- SPDX-License-Identifier: Apache-2.0
-- Checks a JSON body against a table of fields, as strict about types as the container service is.
--
--   field: { type="string"|"integer"|"boolean"|"object"|"array", enum={...}, low=, high=, of=field, fields={...}, required=true }
local json = require "eirun.core.json"

local schema = {}

local function type_of(value)
  if value == json.null then return "null" end
  local kind = type(value)
  if kind == "number" then return math.type(value) == "integer" and "integer" or "number" end
  if kind == "table" then return json.is_array(value) and "array" or "object" end
  return kind == "boolean" and "boolean" or kind
end

local spelled = { integer = "int", boolean = "bool", number = "number" }

local function wrong_type(path, expected, got)
  return ("Unmarshal type error: expected=%s, got=%s, field=%s"):format(spelled[expected] or expected, spelled[got] or got, path)
end

local check

local function check_list(field, value, path)
  if field.low and #value < field.low or field.high and #value > field.high then
    return ("%s must have %d to %d entries"):format(path, field.low or 0, field.high or 1000)
  end
  for i, item in ipairs(value) do
    local why = field.of and check(field.of, item, ("%s[%d]"):format(path, i - 1))
    if why then return why end
  end
end

local function check_range(field, value, path)
  if (field.low and value < field.low) or (field.high and value > field.high) then
    return ("%s is %d, it must be between %d and %d"):format(path, value, field.low, field.high)
  end
end

local function check_enum(field, value, path)
  for _, allowed in ipairs(field.enum) do
    if value == allowed then return nil end
  end
  return ("%s is \"%s\", it must be one of %s"):format(path, value, table.concat(field.enum, ", "))
end

-- The field's complaint, or nil. Unknown fields of an object pass: the service ignores most of them.
function check(field, value, path)
  local got = type_of(value)
  if got == "null" then return nil end
  if got ~= field.type then return wrong_type(path, field.type, got) end
  if got == "object" then return schema.check(field.fields or {}, value, path) end
  if got == "array" then return check_list(field, value, path) end
  if got == "integer" then return check_range(field, value, path) end
  if field.enum then return check_enum(field, value, path) end
end

-- fields: name -> field. Checks in name order, so that the first complaint is always the same one.
function schema.check(fields, object, path)
  local names = {}
  for name in pairs(fields) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local value, where = object[name], path and path .. "." .. name or name
    if value == nil and fields[name].required then return where .. " is required" end
    local why = value ~= nil and check(fields[name], value, where)
    if why then return why end
  end
end

return schema
