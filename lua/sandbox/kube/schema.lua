-- SPDX-License-Identifier: Apache-2.0
-- The fields of every served kind, read on first use from the generated table.
--
-- A field is {name, kind, ref, elem, keys, set, atomic, merge, merge_key, retain, required}; kind is one of
-- s string, y bytes in base64, i integer, b boolean, n number, q quantity, o int-or-string, t time, x anything, ref, list, map.
local data = require "sandbox.kube.schema_data"

local schema = {}

local cache = {}
-- Lists that Go writes even when they are empty, which the published schema does not tell.
local NEVER_LEFT_OUT = { ["rbac.v1.Role"] = { "rules" }, ["rbac.v1.ClusterRole"] = { "rules" } }

-- A key of a list that is left out counts as this (the only defaulted list key of the served kinds).
schema.key_defaults = { protocol = "TCP" }

local parse_type

local function parse_list(text, pos)
  local node = { kind = "list" }
  node.elem, pos = parse_type(text, pos)
  local mark = text:sub(pos, pos)
  if mark == "=" then
    local keys, stop = text:match("^([%w,]+)()", pos + 1)
    node.keys = {}
    for key in keys:gmatch("%w+") do node.keys[#node.keys + 1] = key end
    return node, stop
  elseif mark == "*" then
    node.set = true
    return node, pos + 1
  end
  node.atomic = true
  return node, pos
end

function parse_type(text, pos)
  local mark = text:sub(pos, pos)
  if mark == "@" then
    local ref, stop = text:match("^([%w.]+)()", pos + 1)
    return { kind = "ref", ref = ref }, stop
  elseif mark == "[" then
    return parse_list(text, pos + 1)
  elseif mark == "{" then
    local elem, stop = parse_type(text, pos + 1)
    local atomic = text:sub(stop, stop) == "!"
    return { kind = "map", elem = elem, atomic = atomic }, atomic and stop + 1 or stop
  end
  return { kind = mark }, pos + 1
end

local function parse_field(word)
  local name, pos = word:match("^([^:]+):()")
  local field, stop = parse_type(word, pos)
  local tail = word:sub(stop)
  field.name = name
  field.merge_key = tail:match("%%(%w+)")
  field.merge = tail:find("%", 1, true) ~= nil
  field.retain = tail:find("~", 1, true) ~= nil
  field.required = tail:find("^", 1, true) ~= nil
  return field
end

-- The struct of that name: {name, atomic, fields = {name -> field}, order = {names}, times = {names}}; nil when there is none.
function schema.struct(name)
  local struct = cache[name]
  if struct or not data[name] then return struct end
  struct = { name = name, fields = {}, order = {}, atomic = data[name]:sub(1, 1) == "!" }
  for word in data[name]:gmatch("[^! ]%S*") do
    local field = parse_field(word)
    struct.fields[field.name] = field
    struct.order[#struct.order + 1] = field.name
  end
  struct.times = {}
  for _, field_name in ipairs(struct.order) do
    if struct.fields[field_name].kind == "t" then table.insert(struct.times, field_name) end
  end
  for _, field_name in ipairs(NEVER_LEFT_OUT[name] or {}) do struct.fields[field_name].required = true end
  cache[name] = struct
  return struct
end

-- The type of a whole object, for walkers that take a field.
function schema.root(name)
  return { kind = "ref", ref = name }
end

-- The field's own shape resolved: struct for refs, nil for everything else.
function schema.struct_of(field)
  return field.kind == "ref" and schema.struct(field.ref) or nil
end

-- The type of member `key` of a value of that type; nil when it is not declared.
function schema.member(field, key)
  if field.kind == "map" then return field.elem end
  local struct = schema.struct_of(field)
  return struct and struct.fields[key]
end

return schema
