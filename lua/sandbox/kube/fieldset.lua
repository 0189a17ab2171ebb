-- SPDX-License-Identifier: Apache-2.0
-- Sets of field paths, kept in the shape in which managedFields stores them (FieldsV1): a leaf is a member, "." marks an
-- inner path that is one. Sets are never changed once made; nil is the empty set.
local fieldset = {}

local MEMBER = {}

local function is_member(node)
  return node["."] ~= nil or next(node) == nil
end

-- A node from its membership and its children (a fresh table that this takes over).
local function node_of(member, children)
  if next(children) == nil then return member and MEMBER or nil end
  if member then children["."] = MEMBER end
  return children
end

fieldset.MEMBER = MEMBER
fieldset.is_member = is_member
fieldset.node = node_of

local function union(a, b)
  if a == b then return a end
  local children = {}
  for k, child in pairs(a) do
    if k ~= "." then children[k] = b[k] and union(child, b[k]) or child end
  end
  for k, child in pairs(b) do
    if k ~= "." and not children[k] then children[k] = child end
  end
  return node_of(is_member(a) or is_member(b), children)
end

function fieldset.union(a, b)
  if not a or not b then return a or b end
  local set = union(a, b)
  return set ~= MEMBER and set or nil
end

local function difference(a, b)
  if a == b then return nil end
  local children = {}
  for k, child in pairs(a) do
    if k ~= "." then
      if b[k] then child = difference(child, b[k]) end
      children[k] = child
    end
  end
  return node_of(is_member(a) and not is_member(b), children)
end

-- The paths of a that are not in b.
function fieldset.difference(a, b)
  if not a or not b then return a end
  local set = difference(a, b)
  return set ~= MEMBER and set or nil
end

local function intersection(a, b)
  local children = {}
  for k, child in pairs(a) do
    if k ~= "." and b[k] then children[k] = intersection(child, b[k]) end
  end
  return node_of(is_member(a) and is_member(b), children)
end

function fieldset.intersection(a, b)
  if not a or not b then return nil end
  local set = intersection(a, b)
  return set ~= MEMBER and set or nil
end

local function equal(a, b)
  if a == b then return true end
  for k, child in pairs(a) do
    if not b[k] or not equal(child, b[k]) then return false end
  end
  for k in pairs(b) do
    if not a[k] then return false end
  end
  return true
end

function fieldset.equal(a, b)
  if not a or not b then return a == b end
  return equal(a, b)
end

-- The set without these top-level paths and below; names like {"metadata", "uid"}.
function fieldset.without(set, path, from)
  from = from or 1
  local key = "f:" .. path[from]
  if not set or not set[key] then return set end
  local children = {}
  for k, child in pairs(set) do
    if k ~= "." then children[k] = child end
  end
  if from == #path then
    children[key] = nil
  else
    children[key] = fieldset.without(set[key], path, from + 1)
  end
  return node_of(set["."] ~= nil, children)
end

-- Every member path as a printable string (".spec.containers[name=\"c\"].image"), sorted.
function fieldset.paths(set)
  local out = {}
  local function key_text(key)
    local mark, rest = key:sub(1, 2), key:sub(3)
    if mark == "f:" then return "." .. rest end
    if mark == "i:" then return "[" .. rest .. "]" end
    if mark == "v:" then return "[=" .. rest .. "]" end
    local pairs_text = rest:gsub("^{", ""):gsub("}$", "")
    return "[" .. pairs_text:gsub('"([%w]+)":', "%1=") .. "]"
  end
  local function walk(node, prefix)
    for k, child in pairs(node) do
      if k ~= "." then
        local path = prefix .. key_text(k)
        if is_member(child) then out[#out + 1] = path end
        walk(child, path)
      end
    end
  end
  if set then walk(set, "") end
  table.sort(out)
  return out
end

return fieldset
