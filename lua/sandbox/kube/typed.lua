-- SPDX-License-Identifier: Apache-2.0
-- Values with a schema, after sigs.k8s.io/structured-merge-diff: which fields a value sets, how two values merge,
-- what changed between two values, and a value without some of its fields.
local json = require "eirun.core.json"
local fieldset = require "sandbox.kube.fieldset"
local schema = require "sandbox.kube.schema"
local value = require "sandbox.kube.value"

local typed = {}

local null = json.null
local MEMBER = fieldset.MEMBER

-- "leaf", "fields" (struct or granular map) or "items" (keyed list or set): how a value of that type is walked.
local function shape(field)
  if not field then return "leaf" end
  if field.kind == "map" then return field.atomic and "leaf" or "fields" end
  if field.kind == "list" then return field.atomic and "leaf" or "items" end
  local struct = schema.struct_of(field)
  return struct and not struct.atomic and "fields" or "leaf"
end

local function item_key(field, item)
  if field.set then return "v:" .. json.encode(item) end
  local keys = {}
  for _, name in ipairs(field.keys) do
    keys[name] = type(item) == "table" and item[name] or nil
    if keys[name] == nil then keys[name] = schema.key_defaults[name] end
  end
  return "k:" .. json.encode(keys)
end

-- The items of a list by their path element, and the elements in order.
local function items_of(field, list)
  local by_key, order = {}, {}
  for _, item in ipairs(list or {}) do
    local key = item_key(field, item)
    if not by_key[key] then order[#order + 1] = key end
    by_key[key] = item
  end
  return by_key, order
end

local function empty(v)
  return v == nil or v == null or (type(v) == "table" and next(v) == nil)
end

local set_of

local function set_of_fields(v, field, path, problems)
  local children = {}
  for key, member in pairs(v) do
    local inner = schema.member(field, key)
    if not inner then
      problems[#problems + 1] = path .. "." .. key .. ": field not declared in schema"
    elseif member ~= null or field.kind == "map" then
      local child = set_of(member, inner, path .. "." .. key, problems)
      local declared = field.kind ~= "map"
      local bare = member == null or (value.is_map(member) and next(member) == nil)
      if bare or not declared then
        child = child and child ~= MEMBER and fieldset.union(child, MEMBER) or MEMBER
      end
      children["f:" .. key] = child
    end
  end
  return fieldset.node(false, children)
end

local function set_of_items(v, field, path, problems)
  local children = {}
  for _, item in ipairs(v) do
    local key = item_key(field, item)
    local item_path = path .. fieldset.paths({ [key] = MEMBER })[1]
    if children[key] then
      problems[#problems + 1] = path .. ": duplicate entries for key " .. item_path:sub(#path + 1)
    end
    local child = set_of(item, field.elem, item_path, problems)
    children[key] = child and child ~= MEMBER and fieldset.union(child, MEMBER) or MEMBER
  end
  return fieldset.node(false, children)
end

function set_of(v, field, path, problems)
  local how = shape(field)
  if how == "fields" and value.is_map(v) then return set_of_fields(v, field, path, problems) end
  if how == "items" and type(v) == "table" and v ~= null then return set_of_items(v, field, path, problems) end
  if how ~= "leaf" then return nil end
  return MEMBER
end

-- The paths that v sets (nil when none), or nil and the list of what the schema does not allow.
function typed.set_of(v, field)
  local problems = {}
  local set = set_of(v, field, "", problems)
  if #problems > 0 then
    table.sort(problems)
    return nil, problems
  end
  return set
end

local merge

local function merge_fields(old, new, field)
  local out = value.shallow(old)
  for key, member in pairs(new) do
    out[key] = merge(old[key], member, schema.member(field, key))
  end
  return out
end

-- Keeps the order of both lists as far as they agree, new items where the new list has them.
local function merge_items(old, new, field)
  local old_by, old_order = items_of(field, old)
  local new_by, new_order = items_of(field, new)
  local out, done, l, r = json.array {}, {}, 1, 1
  local function emit(key)
    if done[key] then return end
    done[key] = true
    out[#out + 1] = new_by[key] == nil and old_by[key] or merge(old_by[key], new_by[key], field.elem)
  end
  while l <= #old_order or r <= #new_order do
    local left, right = old_order[l], new_order[r]
    if left and (not new_by[left] or done[left] or left == right) then
      emit(left)
      l = l + 1
    elseif right then
      emit(right)
      r = r + 1
    else
      l = l + 1
    end
  end
  return out
end

function merge(old, new, field)
  if old == nil or old == null then return new end
  if new == nil then return old end
  local how = shape(field)
  if how == "fields" and value.is_map(old) and value.is_map(new) then return merge_fields(old, new, field) end
  if how == "items" and type(old) == "table" and type(new) == "table" then return merge_items(old, new, field) end
  return new
end

-- old with everything that new says.
typed.merge = merge

local compare

-- Go writes the times of a condition even where there are none: who adds the condition owns them.
local function with_times(added, item, field)
  local struct = schema.struct_of(field)
  if not struct or not added or not value.is_map(item) then return added end
  local missing
  for _, name in ipairs(struct.times) do
    if item[name] == nil then
      missing = missing or {}
      missing["f:" .. name] = MEMBER
    end
  end
  return missing and fieldset.union(added, missing) or added
end

local function gather(target, key, a, r, m)
  if a then target.a[key] = a end
  if r then target.r[key] = r end
  if m then target.m[key] = m end
end

local function compare_fields(l, r, field, out)
  for key, right in pairs(r or {}) do
    local left = l and l[key]
    if left ~= right then gather(out, "f:" .. key, compare(left, right, schema.member(field, key))) end
  end
  for key, left in pairs(l or {}) do
    if not r or r[key] == nil then
      gather(out, "f:" .. key, compare(left, nil, schema.member(field, key)))
    end
  end
end

local function compare_items(l, r, field, out)
  local left_by, left_order = items_of(field, l)
  local right_by, right_order = items_of(field, r)
  for _, key in ipairs(right_order) do
    local left, right = left_by[key], right_by[key]
    if left ~= right then
      local added, removed, modified = compare(left, right, field.elem)
      if left == nil then added = with_times(added, right, field.elem) end
      gather(out, key, added, removed, modified)
    end
  end
  for _, key in ipairs(left_order) do
    if right_by[key] == nil then gather(out, key, compare(left_by[key], nil, field.elem)) end
  end
end

-- Answers the nodes added, removed, modified (each nil when empty).
function compare(l, r, field)
  if l == null then l = nil end
  if r == null then r = nil end
  if l == nil and r == nil then return nil end
  local how = shape(field)
  local bad = (l ~= nil and type(l) ~= "table") or (r ~= nil and type(r) ~= "table")
  if how == "leaf" or bad or (empty(l) and empty(r)) then
    if l == nil then return MEMBER end
    if r == nil then return nil, MEMBER end
    if not value.equal(l, r) then return nil, nil, MEMBER end
    return nil
  end
  local out = { a = {}, r = {}, m = {} }
  if how == "fields" then compare_fields(l, r, field, out) else compare_items(l, r, field, out) end
  return fieldset.node(l == nil, out.a), fieldset.node(r == nil, out.r), fieldset.node(false, out.m)
end

-- {added, removed, modified} as sets; each nil when empty.
function typed.compare(old, new, field)
  if old == new then return {} end
  local a, r, m = compare(old, new, field)
  return { added = a, removed = r, modified = m }
end

local remove

local function remove_fields(v, field, set)
  local out = value.shallow(v)
  for key, node in pairs(set) do
    local name = key:sub(1, 2) == "f:" and key:sub(3)
    if name and out[name] ~= nil then
      out[name] = remove(out[name], schema.member(field, name), node)
    end
  end
  return next(out) ~= nil and out or nil
end

local function remove_items(v, field, set)
  local out = json.array {}
  for _, item in ipairs(v) do
    local node = set[item_key(field, item)]
    if node then item = remove(item, field.elem, node) end
    out[#out + 1] = item
  end
  return #out > 0 and out or nil
end

-- v without the members of the set (a member takes all below it along); nil when nothing is left.
function remove(v, field, set)
  if fieldset.is_member(set) then return nil end
  local how = shape(field)
  if type(v) ~= "table" or how == "leaf" then return v end
  if how == "fields" then return remove_fields(v, field, set) end
  return remove_items(v, field, set)
end

function typed.remove(v, field, set)
  if not set then return v end
  return remove(v, field, set)
end

-- The set with the inner struct fields on the way to its members added ("named fields").
function typed.with_structs(set, field)
  if not set then return nil end
  local children = {}
  local struct = field and schema.struct_of(field)
  for key, child in pairs(set) do
    if key ~= "." then
      local mark, name = key:sub(1, 2), key:sub(3)
      local inner = field and (mark == "f:" and schema.member(field, name) or mark ~= "f:" and field.elem) or nil
      local below = next(child) and typed.with_structs(child, inner) or child
      if mark == "f:" and struct and struct.fields[name] and not fieldset.is_member(below) then
        below = fieldset.union(below, MEMBER)
      end
      children[key] = below
    end
  end
  return fieldset.node(set["."] ~= nil, children)
end

return typed
