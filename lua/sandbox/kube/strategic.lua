-- SPDX-License-Identifier: Apache-2.0
-- Strategic merge patch: lists with a merge key merge by it; $patch, $retainKeys, $setElementOrder and
-- $deleteFromPrimitiveList steer it.
local json = require "eirun.core.json"
local schema = require "sandbox.kube.schema"
local value = require "sandbox.kube.value"

local strategic = {}

local null = json.null
local merge_map

local function directive(key)
  return key:match("^%$(setElementOrder)/(.*)$")
end

local function find_index(list, key, wanted)
  for i, item in ipairs(list) do
    if item[key] == wanted then return i end
  end
end

local function merge_item(out, item, key, elem)
  local i = find_index(out, key, item[key])
  if item["$patch"] == "delete" then
    if i then table.remove(out, i) end
  elseif not i then
    out[#out + 1] = merge_map({}, item, elem)
  elseif item["$patch"] == "replace" then
    out[i] = merge_map({}, item, elem)
  else
    out[i] = merge_map(out[i], item, elem)
  end
end

local function ranks(list, key)
  local rank = {}
  for i, item in ipairs(list) do rank[key and item[key] or item] = rank[key and item[key] or item] or i end
  return rank
end

local function by_rank(list, rank, id)
  local order = {}
  for i, item in ipairs(list) do order[item] = i end
  table.sort(list, function(a, b)
    local x, y = rank[id(a)] or math.huge, rank[id(b)] or math.huge
    if x ~= y then return x < y end
    return order[a] < order[b]
  end)
  return list
end

-- The order of a merged list, as apimachinery's mergeSortedSlice has it: what `order` names stands as there; the rest, as
-- before, comes in front of a named item only where it stood in front of it already.
local function arrange(merged, order, before, key)
  local function id(item) return key and item[key] or item end
  local wanted, was = ranks(order, key), ranks(before, key)
  local named, rest = {}, {}
  for _, item in ipairs(merged) do table.insert(wanted[id(item)] and named or rest, item) end
  by_rank(named, wanted, id)
  by_rank(rest, was, id)
  local out, i, j = json.array {}, 1, 1
  while rest[i] or named[j] do
    local x, y = rest[i] and was[id(rest[i])], named[j] and was[id(named[j])]
    if rest[i] and (not named[j] or x and y and x < y) then
      out[#out + 1], i = rest[i], i + 1
    else
      out[#out + 1], j = named[j], j + 1
    end
  end
  return out
end

local function merge_keyed(old, change, key, elem)
  local out = json.array {}
  for _, item in ipairs(change) do
    if item["$patch"] == "replace" and item[key] == nil then
      for _, other in ipairs(change) do
        if other ~= item then out[#out + 1] = merge_map({}, other, elem) end
      end
      return out
    end
  end
  old = type(old) == "table" and old or {}
  for i, item in ipairs(old) do out[i] = item end
  for _, item in ipairs(change) do merge_item(out, item, key, elem) end
  return arrange(out, value.filter(change, function(item) return item["$patch"] == nil end), old, key)
end

local function merge_primitives(old, change)
  local out = json.array {}
  for i, item in ipairs(type(old) == "table" and old or {}) do out[i] = item end
  for _, item in ipairs(change) do
    if not value.contains(out, item) then out[#out + 1] = item end
  end
  return out
end

local function merge_value(old, change, field)
  if value.is_list(change) then
    if field and field.merge and field.merge_key then return merge_keyed(old, change, field.merge_key, field.elem) end
    if field and field.merge then return merge_primitives(old, change) end
    return change
  end
  if value.is_map(change) then return merge_map(value.is_map(old) and old or {}, change, field) end
  return change
end

local function delete_primitives(list, gone)
  return value.filter(list, function(v) return not value.contains(gone, v) end)
end

local function retain(new, keys)
  for key in pairs(new) do
    if not value.contains(keys, key) then new[key] = nil end
  end
end

local function apply_directives(new, old, change, field)
  for key, v in pairs(change) do
    local name = select(2, directive(key))
    if name and value.is_list(new[name]) then
      local inner = schema.member(field, name)
      new[name] = arrange(new[name], v, value.is_list(old[name]) and old[name] or {}, inner and inner.merge_key)
    end
  end
end

function merge_map(old, change, field)
  if change["$patch"] == "delete" then return {} end
  local new = change["$patch"] == "replace" and {} or value.shallow(old)
  if change["$retainKeys"] then retain(new, change["$retainKeys"]) end
  for key, v in pairs(change) do
    local primitive = key:match("^%$deleteFromPrimitiveList/(.*)$")
    if primitive then
      new[primitive] = delete_primitives(new[primitive], v)
    elseif key:sub(1, 1) ~= "$" then
      local inner = field and schema.member(field, key)
      if v == null then
        new[key] = nil
      else
        new[key] = merge_value(new[key], v, inner)
      end
    end
  end
  if field then apply_directives(new, old, change, field) end
  return new
end

-- The object after the patch; `field` is the object's type (schema.root).
function strategic.merge(object, change, field)
  return merge_map(object, change, field)
end

return strategic
