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
  for i, item in ipairs(type(old) == "table" and old or {}) do out[i] = item end
  for _, item in ipairs(change) do merge_item(out, item, key, elem) end
  return out
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

local function rank_of(order, key)
  local rank = {}
  for i, item in ipairs(order) do rank[key and item[key] or item] = i end
  return rank
end

-- Items named in the order stand in that order; the others keep their place behind the item they followed.
local function reorder(list, order, key)
  local rank, keyed, last = rank_of(order, key), {}, 0
  for i, item in ipairs(list) do
    local own = rank[key and item[key] or item]
    if own then last = own end
    keyed[i] = { item = item, rank = own or last, own = own and 0 or 1, i = i }
  end
  table.sort(keyed, function(a, b)
    if a.rank ~= b.rank then return a.rank < b.rank end
    if a.own ~= b.own then return a.own < b.own end
    return a.i < b.i
  end)
  return value.map(keyed, function(k) return k.item end)
end

local function delete_primitives(list, gone)
  return value.filter(list, function(v) return not value.contains(gone, v) end)
end

local function retain(new, keys)
  for key in pairs(new) do
    if not value.contains(keys, key) then new[key] = nil end
  end
end

local function apply_directives(new, change, field)
  for key, v in pairs(change) do
    local name = select(2, directive(key))
    if name and value.is_list(new[name]) then
      local inner = schema.member(field, name)
      new[name] = reorder(new[name], v, inner and inner.merge_key)
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
  if field then apply_directives(new, change, field) end
  return new
end

-- The object after the patch; `field` is the object's type (schema.root).
function strategic.merge(object, change, field)
  return merge_map(object, change, field)
end

return strategic
