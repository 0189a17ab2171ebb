-- SPDX-License-Identifier: Apache-2.0
-- Plain values: stored objects are never changed in place, so a change makes new tables along its path and shares the rest.
local json = require "eirun.core.json"

local value = {}

local null = json.null
local is_array = json.is_array

function value.is_list(v)
  return is_array(v) or (type(v) == "table" and v[1] ~= nil)
end

function value.is_map(v)
  return type(v) == "table" and v ~= null and not value.is_list(v)
end

-- A table of the same sort (list or map) with the same members.
function value.shallow(t)
  local new = {}
  for k, v in pairs(t) do new[k] = v end
  return is_array(t) and json.array(new) or new
end

function value.copy(v)
  if type(v) ~= "table" or v == null then return v end
  local new = {}
  for k, item in pairs(v) do new[k] = value.copy(item) end
  return is_array(v) and json.array(new) or new
end

function value.equal(a, b)
  if a == b then return true end
  if type(a) ~= "table" or type(b) ~= "table" then return false end
  for k, v in pairs(a) do
    local other = b[k]
    if v ~= other and (other == nil or not value.equal(v, other)) then return false end
  end
  for k in pairs(b) do
    if a[k] == nil then return false end
  end
  return is_array(a) == is_array(b) or next(a) ~= nil or false
end

-- value.get(pod, "spec", "nodeName"): nil where anything on the way is missing.
function value.get(t, ...)
  for i = 1, select("#", ...) do
    if type(t) ~= "table" then return nil end
    t = t[select(i, ...)]
  end
  return t
end

-- A copy of t where path (a list of keys) holds v; nil removes.
function value.with(t, path, v, from)
  from = from or 1
  local key = path[from]
  local new = t and value.shallow(t) or {}
  if from == #path then
    new[key] = v
  else
    new[key] = value.with(new[key], path, v, from + 1)
  end
  return new
end

-- The same value without nulls: a null field is one that was not said.
function value.without_nulls(v)
  if type(v) ~= "table" or v == null then return v end
  if is_array(v) then
    local new = json.array {}
    for i, item in ipairs(v) do new[i] = value.without_nulls(item) end
    return new
  end
  local new = {}
  for k, item in pairs(v) do
    if item ~= null then new[k] = value.without_nulls(item) end
  end
  return new
end

function value.sorted_keys(t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

-- The members of t in the order of their keys: what is seen from outside never depends on pairs().
function value.sorted(t)
  local keys, i = value.sorted_keys(t), 0
  return function()
    i = i + 1
    return keys[i], t[keys[i]]
  end
end

function value.contains(list, wanted)
  for _, v in ipairs(list or {}) do
    if v == wanted then return true end
  end
  return false
end

function value.filter(list, keep)
  local new = json.array {}
  for _, v in ipairs(list or {}) do
    if keep(v) then new[#new + 1] = v end
  end
  return new
end

function value.map(list, fn)
  local new = json.array {}
  for i, v in ipairs(list or {}) do new[i] = fn(v) end
  return new
end

-- The item of a list whose field `key` is `wanted`, and its index.
function value.find(list, key, wanted)
  for i, item in ipairs(list or {}) do
    if item[key] == wanted then return item, i end
  end
end

return value
