-- SPDX-License-Identifier: Apache-2.0
-- Would applying a manifest change anything? By what the server itself noted of the manager's last apply: the same fields, each with the
-- value that the object has now. Whatever is not certain is answered with no; then the server is asked.
local json = require "eirun.core.json"
local resource = require "eirun.resource"

local M = {}

local is_same -- of a node of fieldsV1, the object's value and the manifest's

local function is_leaf(node)
  return next(node) == nil
end

local function is_list(value)
  return json.is_array(value) or #value > 0
end

-- Every key of the manifest is owned, and every owned field is in the manifest.
local function is_same_map(node, live, wanted)
  for key in pairs(wanted) do
    if not node["f:" .. tostring(key)] then return false end
  end
  for name, below in pairs(node) do
    if name ~= "." then
      local key = name:match "^f:(.*)$"
      if not key or wanted[key] == nil or not is_same(below, live[key], wanted[key]) then return false end
    end
  end
  return true
end

-- Where the one item with these keys stands; `partly`: keys that an item does not have were filled in by the server. nil for none or
-- several.
local function place_with(list, keys, partly)
  local found
  for i, item in ipairs(list) do
    local fits = type(item) == "table"
    for key, value in pairs(keys) do
      if fits and not (item[key] == value or partly and item[key] == nil) then fits = false end
    end
    if fits and found then return nil end
    found = fits and i or found
  end
  return found
end

local function place_of(list, value)
  for i, one in ipairs(list) do if one == value then return i end end
end

-- Where an entry of a list stands in the manifest and in the object, where it is the same in both.
local function places(name, below, live, wanted)
  local what, text = name:match "^([kv]):(.*)$"
  local value = what and json.decode(text)
  if what == "v" and value ~= nil then return place_of(wanted, value), place_of(live, value) end
  if what ~= "k" or type(value) ~= "table" then return nil end
  local new, old = place_with(wanted, value) or place_with(wanted, value, true), place_with(live, value)
  if new and old and is_same(below, live[old], wanted[new]) then return new, old end
end

-- The same entries in the same order; others' may stand between.
local function is_same_list(node, live, wanted)
  local at, last = {}, 0
  for name, below in pairs(node) do
    if name ~= "." then
      local new, old = places(name, below, live, wanted)
      if not new or not old or at[new] then return false end
      at[new] = old
    end
  end
  for i = 1, #wanted do
    if not at[i] or at[i] <= last then return false end
    last = at[i]
  end
  return true
end

function is_same(node, live, wanted)
  if is_leaf(node) then return resource.equal(live, wanted) end
  if type(live) ~= "table" or type(wanted) ~= "table" then return false end
  if is_list(wanted) then return is_list(live) and is_same_list(node, live, wanted) end
  return is_same_map(node, live, wanted)
end

-- What the server leaves out of the fields of a manager.
local function body_of(manifest)
  local body, metadata = {}, {}
  for key, value in pairs(manifest) do body[key] = value end
  for key, value in pairs(manifest.metadata) do metadata[key] = value end
  body.apiVersion, body.kind, metadata.name, metadata.namespace = nil, nil, nil, nil
  body.metadata = next(metadata) and metadata or nil
  return body
end

---Is the object as the manager applied it, and would the same manifest be applied again? Then sending it would change nothing.
---@param live table with its managedFields
---@param manifest table
---@param manager string
---@return boolean
---Example: `owned.is_as_applied(k8s:get("ConfigMap", "a"), manifest, "eirun")`. Raises nothing.
function M.is_as_applied(live, manifest, manager)
  if live.metadata.deletionTimestamp or live.kind ~= manifest.kind then return false end
  for _, entry in ipairs(live.metadata.managedFields or {}) do
    if entry.manager == manager and entry.operation == "Apply" and not entry.subresource then
      return entry.apiVersion == manifest.apiVersion and entry.fieldsType == "FieldsV1"
        and is_same_map(entry.fieldsV1, live, body_of(manifest))
    end
  end
  return false
end

return M
