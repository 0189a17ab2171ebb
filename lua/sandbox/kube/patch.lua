-- SPDX-License-Identifier: Apache-2.0
-- Merge patch (RFC 7396) and JSON patch (RFC 6902). Both give a new value and leave the old one alone.
local json = require "eirun.core.json"
local value = require "sandbox.kube.value"

local patch = {}

local null = json.null

function patch.merge(target, change)
  if not value.is_map(change) then return change end
  local new = value.is_map(target) and value.shallow(target) or {}
  for key, v in pairs(change) do
    if v == null then
      new[key] = nil
    else
      new[key] = patch.merge(new[key], v)
    end
  end
  return new
end

local function parse_pointer(text)
  local path = {}
  for part in text:gmatch("/([^/]*)") do
    path[#path + 1] = part:gsub("~1", "/"):gsub("~0", "~")
  end
  return path
end

local function index_of(list, token, inserting)
  if token == "-" and inserting then return #list + 1 end
  local i = math.tointeger(tonumber(token))
  if not i or i < 0 or i > #list or (i == #list and not inserting) then return nil end
  return i + 1
end

local function lookup(doc, path)
  for _, token in ipairs(path) do
    if type(doc) ~= "table" then return nil end
    if value.is_list(doc) then
      local i = index_of(doc, token)
      doc = i and doc[i]
    else
      doc = doc[token]
    end
    if doc == nil then return nil end
  end
  return doc
end

-- A copy of doc in which change(container copy, token) was done at the end of the path; nil, message otherwise.
local function at(doc, path, from, change)
  if type(doc) ~= "table" or doc == null then return nil, "path does not exist" end
  local new = value.shallow(doc)
  if from == #path then
    local problem = change(new, path[from])
    if problem then return nil, problem end
    return new
  end
  local key = path[from]
  if value.is_list(doc) then key = index_of(doc, key) end
  if key == nil or new[key] == nil then return nil, "path does not exist" end
  local inner, problem = at(new[key], path, from + 1, change)
  if not inner then return nil, problem end
  new[key] = inner
  return new
end

local function add(v)
  return function(container, token)
    if not value.is_list(container) then
      container[token] = v
      return
    end
    local i = index_of(container, token, true)
    if not i then return "index out of range" end
    table.insert(container, i, v)
  end
end

local function remove(container, token)
  if value.is_list(container) then
    local i = index_of(container, token)
    if not i then return "index out of range" end
    table.remove(container, i)
  elseif container[token] == nil then
    return "Unable to remove nonexistent key: " .. token
  else
    container[token] = nil
  end
end

local function replace(v)
  return function(container, token)
    local key = token
    if value.is_list(container) then key = index_of(container, token) end
    if key == nil or container[key] == nil then return "missing key: " .. token end
    container[key] = v
  end
end

local OPS = {}

function OPS.add(doc, op, path)
  if #path == 0 then return op.value end
  return at(doc, path, 1, add(op.value))
end

function OPS.remove(doc, _, path)
  return at(doc, path, 1, remove)
end

function OPS.replace(doc, op, path)
  if #path == 0 then return op.value end
  return at(doc, path, 1, replace(op.value))
end

function OPS.test(doc, op, path)
  local have = lookup(doc, path)
  if have == nil then have = null end
  if value.equal(have, op.value == nil and null or op.value) then return doc end
  return nil, "testing value " .. op.path .. " failed: test failed", "test"
end

function OPS.copy(doc, op, path)
  local v = lookup(doc, parse_pointer(op.from or ""))
  if v == nil then return nil, "path does not exist: " .. tostring(op.from) end
  return at(doc, path, 1, add(v))
end

function OPS.move(doc, op, path)
  local from = parse_pointer(op.from or "")
  local v = lookup(doc, from)
  if v == nil then return nil, "path does not exist: " .. tostring(op.from) end
  local without, problem = at(doc, from, 1, remove)
  if not without then return nil, problem end
  return at(without, path, 1, add(v))
end

-- The document after all operations; nil, message, "test" when a test operation failed.
function patch.json(doc, operations)
  for _, op in ipairs(operations) do
    local act = OPS[op.op]
    if not act or type(op.path) ~= "string" then return nil, "Unexpected kind: " .. tostring(op.op) end
    local problem, why
    doc, problem, why = act(doc, op, parse_pointer(op.path))
    if doc == nil then return nil, problem, why end
  end
  return doc
end

return patch
