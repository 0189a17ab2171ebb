-- SPDX-License-Identifier: Apache-2.0
-- Reads a body as the typed API does: nulls go, types are checked, unknown fields are told and dropped, quantities get
-- their stored spelling. The result is a fresh table that may be changed.
local json = require "eirun.core.json"
local quantity = require "sandbox.kube.quantity"
local schema = require "sandbox.kube.schema"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local normalise = {}

local null = json.null
local QUANTITY = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
local GO_TYPES = { s = "string", y = "[]uint8", i = "int32", b = "bool", n = "float64", t = "string", list = "[]", map = "map[string]" }

local function json_type(v)
  if type(v) ~= "table" then return type(v) == "boolean" and "bool" or type(v) end
  return value.is_list(v) and "array" or "object"
end

-- The path that is being read, as in "spec.containers[0].name"; only made when something is wrong.
local function path_of(state)
  local out = {}
  for i = 1, state.depth do
    local key = state.stack[i]
    if math.type(key) == "integer" then
      out[#out] = ("%s[%d]"):format(out[#out], key - 1)
    else
      out[#out + 1] = key
    end
  end
  return table.concat(out, ".")
end

local function mismatch(state, v, field)
  if state.wrong then return end
  local wanted = GO_TYPES[field.kind] or field.ref or "string"
  local path = path_of(state):gsub("%[%d+%]", "")
  state.wrong = ("json: cannot unmarshal %s into Go struct field %s.%s of type %s"):format(json_type(v),
    (state.owner or ""):match("[^.]*$"), path, wanted)
end

local read

local function read_member(state, key, v, field, known)
  local depth = state.depth + 1
  state.depth, state.stack[depth] = depth, key
  local result = read(v, field, state, known)
  state.depth = depth - 1
  return result
end

local function tell_unknown(state, key)
  local path = path_of(state)
  state.unknown[#state.unknown + 1] = ('unknown field "%s%s"'):format(path == "" and "" or path .. ".", key)
end

-- An empty list or map is nothing, except where the type must have it.
local function kept(field, v)
  if (field.kind == "list" or field.kind == "map") and not field.required and v ~= nil and next(v) == nil then return nil end
  return v
end

-- known: the stored object's value at this place; a part of it that came through untouched is fine as it is.
local function read_struct(v, struct, state, known)
  local new = {}
  for key, member in pairs(v) do
    local field = struct.fields[key]
    if not field then
      tell_unknown(state, key)
    elseif member ~= null then
      local was = known and known[key]
      if was == member then
        new[key] = member
      else
        state.owner = struct.name
        new[key] = kept(field, read_member(state, key, member, field, was))
      end
    end
  end
  return new
end

local function read_list(v, field, state)
  local new = json.array {}
  for i, item in ipairs(v) do
    if item ~= null then new[#new + 1] = read_member(state, i, item, field.elem) end
  end
  return new
end

local function read_map(v, field, state)
  local new = {}
  for key, item in pairs(v) do
    new[key] = item == null and "" or read_member(state, key, item, field.elem)
  end
  return new
end

local SCALARS = {
  s = function(v) return type(v) == "string" end,
  y = function(v) return type(v) == "string" end,
  t = function(v) return type(v) == "string" end,
  i = function(v) return type(v) == "number" and math.tointeger(v) ~= nil end,
  n = function(v) return type(v) == "number" end,
  b = function(v) return type(v) == "boolean" end,
  o = function(v) return type(v) == "string" or math.tointeger(v) ~= nil end,
}

local function read_quantity(v, state)
  if not quantity.valid(v) then
    state.wrong = state.wrong or QUANTITY
    return v
  end
  return quantity.canonical(v)
end

local function check_base64(v, state)
  local bad = v:find("[^%w+/=\r\n]")
  if not bad and #v:gsub("[\r\n]", "") % 4 ~= 0 then bad = #v end
  if bad then state.wrong = state.wrong or ("illegal base64 data at input byte %d"):format(bad - 1) end
end

function read(v, field, state, known)
  local kind = field.kind
  local fits = SCALARS[kind]
  if fits then
    if not fits(v) then mismatch(state, v, field) elseif kind == "y" then check_base64(v, state) end
    return v
  end
  if kind == "q" then return read_quantity(v, state) end
  if kind == "x" then return value.without_nulls(v) end
  local list = kind == "list"
  if type(v) ~= "table" or (list and next(v) ~= nil and not value.is_list(v)) or (not list and value.is_list(v)) then
    mismatch(state, v, field)
    return nil
  end
  if list then return read_list(v, field, state) end
  if kind == "map" then return read_map(v, field, state) end
  return read_struct(v, schema.struct(field.ref), state, type(known) == "table" and known or nil)
end

local function report(r, state, mode, warnings)
  local prefix = ('%s in version "%s" cannot be handled as a %s: '):format(r.kind, r.version, r.kind)
  if state.wrong then status.bad_request(prefix .. state.wrong) end
  table.sort(state.unknown)
  if #state.unknown == 0 or mode == "Ignore" then return end
  if mode == "Strict" then status.bad_request(prefix .. "strict decoding error: " .. table.concat(state.unknown, ", ")) end
  for _, text in ipairs(state.unknown) do warnings[#warnings + 1] = text end
end

-- The object as r's type without kind and apiVersion. mode: Ignore, Warn (default) or Strict; warnings: a list to fill.
-- known: the stored object that the body was patched out of, if any; what both share is taken over unread.
function normalise.object(r, body, mode, warnings, known)
  local state = { unknown = {}, stack = {}, depth = 0 }
  local new = read_struct(body, schema.struct(r.schema), state, known)
  report(r, state, mode, warnings or {})
  new.kind, new.apiVersion = nil, nil
  new.metadata = new.metadata and value.shallow(new.metadata) or {}
  return new
end

return normalise
