-- SPDX-License-Identifier: Apache-2.0
-- Protobuf bodies of built-in kinds, as kubectl's generators and client-go send them: read only, answers are JSON.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local data = require "sandbox.kube.proto_data"
local schema = require "sandbox.kube.schema"
local status = require "sandbox.kube.status"

local protobuf = {}

local MAGIC = "k8s\0"
-- Pointers in the API types, whose zero is not the same as nothing.
local ZERO_MATTERS = { replicas = true, minReplicas = true, gracePeriodSeconds = true, terminationGracePeriodSeconds = true,
  revisionHistoryLimit = true, backoffLimit = true, completions = true, parallelism = true, stabilizationWindowSeconds = true }

local numbers = {}

-- Field names of a message by number: "name", or {inline = type}.
local function numbers_of(type_name)
  local of = numbers[type_name]
  if of or not data[type_name] then return of end
  of = {}
  for number, name in data[type_name]:gmatch("(%d+):(%S+)") do
    of[math.tointeger(number)] = name:sub(1, 1) == "+" and { inline = name:sub(2) } or name
  end
  numbers[type_name] = of
  return of
end

local function varint(bytes, at)
  local v, shift = 0, 0
  while true do
    local b = bytes:byte(at) or error "cut"
    v = v | (b & 0x7f) << shift
    at = at + 1
    if b < 0x80 then return v, at end
    shift = shift + 7
  end
end

-- Calls take(number, wire type, value) for each field.
local function each_field(bytes, take)
  local at = 1
  while at <= #bytes do
    local tag
    tag, at = varint(bytes, at)
    local wire, v = tag & 7, nil
    if wire == 0 then
      v, at = varint(bytes, at)
    elseif wire == 2 then
      local n
      n, at = varint(bytes, at)
      if at + n - 1 > #bytes then error "cut" end
      v, at = bytes:sub(at, at + n - 1), at + n
    elseif wire == 1 then
      v, at = string.unpack("<d", bytes, at)
    elseif wire == 5 then
      v, at = string.unpack("<i4", bytes, at)
    else
      error "unknown wire type"
    end
    take(tag >> 3, wire, v)
  end
end

local function fields_of(bytes)
  local map = {}
  each_field(bytes, function(number, _, v) map[number] = v end)
  return map
end

local read_message

local function read_time(bytes)
  local f = fields_of(bytes)
  if not f[1] then return nil end
  local text = os.date("!%Y-%m-%dT%H:%M:%S", f[1])
  return f[2] and f[2] > 0 and ("%s.%06dZ"):format(text, f[2] // 1000) or text .. "Z"
end

local function read_int_or_string(bytes)
  local f = fields_of(bytes)
  if f[1] == 1 then return f[3] or "" end
  return f[2] or 0
end

local SCALARS = {
  s = function(v) return v end,
  y = function(v) return crypto.base64(v) end,
  i = function(v) return v end,
  n = function(v) return v end,
  b = function(v) return v ~= 0 end,
  t = read_time,
  q = function(v) return fields_of(v)[1] or "0" end,
  o = read_int_or_string,
  x = function(v) return json.decode(fields_of(v)[1] or "null") end,
}

local function read_value(v, field)
  local scalar = SCALARS[field.kind]
  if scalar then return scalar(v) end
  return read_message(field.ref, v, schema.struct(field.ref))
end

local function is_zero(v)
  return v == "" or v == 0 or v == false
end

local function store(into, field, v)
  if field.kind == "list" then
    into[field.name] = into[field.name] or json.array {}
    table.insert(into[field.name], read_value(v, field.elem))
  elseif field.kind == "map" then
    local entry = fields_of(v)
    into[field.name] = into[field.name] or {}
    into[field.name][entry[1] or ""] = entry[2] and read_value(entry[2], field.elem) or ""
  else
    local value = read_value(v, field)
    if not is_zero(value) or ZERO_MATTERS[field.name] then into[field.name] = value end
  end
end

-- Reads into a table; an inlined message's fields belong to the message around it.
function read_message(type_name, bytes, struct, into)
  into = into or {}
  local known = numbers_of(type_name) or error("no field numbers of " .. type_name)
  each_field(bytes, function(number, _, v)
    local name = known[number]
    if type(name) == "table" then
      read_message(name.inline, v, struct, into)
    elseif name and struct.fields[name] then
      store(into, struct.fields[name], v)
    end
  end)
  return into
end

local function unwrap(bytes)
  if bytes:sub(1, 4) ~= MAGIC then error "no magic" end
  local unknown = fields_of(bytes:sub(5))
  local meta = fields_of(unknown[1] or "")
  return unknown[2] or "", meta[1], meta[2]
end

-- The object in a body: raw is a message of that type.
function protobuf.decode_message(type_name, bytes)
  local ok, result = pcall(function()
    local raw, api_version, kind = unwrap(bytes)
    local obj = read_message(type_name, raw, schema.struct(type_name))
    obj.apiVersion, obj.kind = api_version, kind
    return obj
  end)
  if not ok then status.bad_request("the protobuf body cannot be read") end
  return result
end

function protobuf.decode(r, bytes)
  return protobuf.decode_message(r.schema, bytes)
end

return protobuf
