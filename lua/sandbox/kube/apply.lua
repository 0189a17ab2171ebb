-- SPDX-License-Identifier: Apache-2.0
-- Field managers: who owns which field of an object, and server-side apply.
--
-- A managers list is metadata.managedFields itself. Functions take and give objects and never change them.
local json = require "eirun.core.json"
local fieldset = require "sandbox.kube.fieldset"
local typed = require "sandbox.kube.typed"
local value = require "sandbox.kube.value"

local apply = {}

-- Fields that belong to nobody.
local STRIPPED = {
  { "apiVersion" }, { "kind" }, { "metadata", "name" }, { "metadata", "namespace" }, { "metadata", "creationTimestamp" },
  { "metadata", "selfLink" }, { "metadata", "uid" }, { "metadata", "generation" }, { "metadata", "managedFields" },
  { "metadata", "resourceVersion" }, { "metadata", "deletionTimestamp" }, { "metadata", "deletionGracePeriodSeconds" },
}
-- These are there from the beginning (structs of the API types without a pointer), so nobody adds them.
local ALWAYS = {
  { "metadata" }, { "spec" }, { "status" }, { "spec", "template" }, { "spec", "template", "metadata" },
  { "spec", "template", "spec" }, { "spec", "strategy" }, { "spec", "updateStrategy" }, { "spec", "scaleTargetRef" },
  { "spec", "template", "spec", "containers" }, { "spec", "containers" }, { "spec", "resources" },
  { "spec", "jobTemplate" }, { "spec", "jobTemplate", "metadata" }, { "spec", "jobTemplate", "spec" },
  { "spec", "jobTemplate", "spec", "template" }, { "spec", "jobTemplate", "spec", "template", "metadata" },
  { "spec", "jobTemplate", "spec", "template", "spec" }, { "spec", "jobTemplate", "spec", "template", "spec", "containers" },
}

local function without_membership(set, path, from)
  local key = "f:" .. path[from]
  if not set or not set[key] then return set end
  local copy, inner = {}, nil
  for k, v in pairs(set) do copy[k] = v end
  if from == #path then
    for k, v in pairs(set[key]) do
      inner = inner or {}
      if k ~= "." then inner[k] = v end
    end
  else
    inner = without_membership(set[key], path, from + 1)
  end
  copy[key] = inner
  return next(copy) and copy or nil
end

local function strip(set)
  if not set then return nil end
  for _, path in ipairs(STRIPPED) do set = fieldset.without(set, path) end
  for _, path in ipairs(ALWAYS) do set = without_membership(set, path, 1) end
  return set
end

-- Only the status endpoint writes status.
local function own(set, who)
  set = strip(set)
  return who.without_status and fieldset.without(set, { "status" }) or set
end

local function same_manager(entry, who)
  return entry.manager == who.manager and entry.operation == who.operation and entry.apiVersion == who.api_version
    and (entry.subresource or "") == (who.subresource or "")
end

local function entry_of(who, set, time)
  return {
    manager = who.manager, operation = who.operation, apiVersion = who.api_version, time = time,
    fieldsType = "FieldsV1", fieldsV1 = set, subresource = who.subresource ~= "" and who.subresource or nil,
  }
end

local function order(a, b)
  for _, key in ipairs { "operation", "time", "manager", "apiVersion", "subresource" } do
    local x, y = a[key] or "", b[key] or ""
    if x ~= y then return x < y end
  end
  return false
end

local function sorted(entries)
  local list = json.array {}
  for i, entry in ipairs(entries) do list[i] = entry end
  table.sort(list, order)
  return #list > 0 and list or nil
end

local function with_managers(obj, entries)
  return value.with(obj, { "metadata", "managedFields" }, sorted(entries))
end

local function with_set(entry, set)
  local copy = value.shallow(entry)
  copy.fieldsV1 = set
  return copy
end

-- Every entry but `who`'s, each passed through change(set, entry).
local function others(entries, who, change)
  local kept = {}
  for _, entry in ipairs(entries) do
    if not same_manager(entry, who) then
      local set = change(entry.fieldsV1, entry)
      if set == entry.fieldsV1 then
        kept[#kept + 1] = entry
      elseif set then
        kept[#kept + 1] = with_set(entry, set)
      end
    end
  end
  return kept
end

local function entry_for(entries, who)
  for _, entry in ipairs(entries) do
    if same_manager(entry, who) then return entry end
  end
end

-- The managers that a written object goes on with: its own unless the writer sent none.
local function managers_of(live, new)
  local sent = new.metadata.managedFields
  if sent and #sent == 1 and next(sent[1]) == nil then return {} end
  if sent and #sent > 0 then return sent end
  return live and live.metadata.managedFields or {}
end

-- What nobody manages stays so: an object without managers; for the scale endpoint, whose Scale shows only the entries that
-- own the replicas, an object whose replicas nobody owns.
local function unmanaged(entries, who)
  if who.subresource ~= "scale" then return #entries == 0 end
  for _, entry in ipairs(entries) do
    if value.get(entry.fieldsV1, "f:spec", "f:replicas") then return false end
  end
  return true
end

-- A write that is no apply: `who` {manager, api_version, subresource} owns what it changed.
-- Gives new with its managedFields. blank: what an object of that kind holds before anybody writes it.
function apply.update(live, new, field, who, time, blank)
  who.operation = "Update"
  local entries = managers_of(live, new)
  if live and unmanaged(entries, who) then return with_managers(new, entries) end
  -- The scale endpoint's entries carry no time.
  if who.subresource == "scale" then time = nil end
  local change = typed.compare(live or blank or { metadata = {} }, new, field)
  local written = own(fieldset.union(change.added, change.modified), who)
  local removed = strip(change.removed)
  if not written and not removed then return with_managers(new, entries) end
  local gone = fieldset.union(written, removed)
  local kept = others(entries, who, function(set) return fieldset.difference(set, gone) end)
  local mine = entry_for(entries, who)
  local set = fieldset.union(mine and fieldset.difference(mine.fieldsV1, removed), written)
  if set then kept[#kept + 1] = entry_of(who, set, written and time or mine and mine.time) end
  return with_managers(new, kept)
end

-- The fields that an applied configuration asks for; nil and the problems when it does not fit the schema.
function apply.owned(config, field, who)
  local set, problems = typed.set_of(config, field)
  if problems then return nil, problems end
  return own(set, who)
end

local function conflicts_of(entries, who, changed)
  local list = {}
  for _, entry in ipairs(entries) do
    if not same_manager(entry, who) then
      local both = fieldset.intersection(entry.fieldsV1, changed)
      for _, path in ipairs(fieldset.paths(both)) do
        list[#list + 1] = { manager = entry.manager, operation = entry.operation, api_version = entry.apiVersion,
          subresource = entry.subresource, field = path }
      end
    end
  end
  return list
end

local function all_owned(entries, who, mine)
  local set = mine
  for _, entry in ipairs(entries) do
    if not same_manager(entry, who) then set = fieldset.union(set, entry.fieldsV1) end
  end
  return set
end

-- What `who` applied before, no longer applies and nobody else owns goes away.
local function prune(merged, field, entries, who, mine)
  local last = entry_for(entries, who)
  if not last then return merged end
  local owned = typed.with_structs(all_owned(entries, who, mine), field)
  local gone = fieldset.difference(typed.with_structs(last.fieldsV1, field), owned)
  return typed.remove(merged, field, gone)
end

-- The object that an apply makes out of live (nil: none yet) and the configuration, before it gets its managers:
-- merged object, nil; or nil, problems of the configuration.
function apply.merge(live, config, field, who)
  who.operation = "Apply"
  local mine, problems = apply.owned(config, field, who)
  if problems then return nil, problems end
  local base = live or {}
  local merged = typed.merge(base, config, field)
  return prune(merged, field, live and live.metadata.managedFields or {}, who, mine)
end

-- The managers after the apply: object, nil; or nil, list of conflicts {manager, operation, api_version, field}.
-- `new` is apply.merge's object after defaulting.
function apply.finish(live, new, config, field, who, force, time)
  who.operation = "Apply"
  local entries = live and live.metadata.managedFields or {}
  local mine = apply.owned(config, field, who)
  local change = typed.compare(live or { metadata = {} }, new, field)
  local changed = strip(fieldset.union(change.added, change.modified))
  local conflicts = conflicts_of(entries, who, changed and fieldset.intersection(changed, typed.with_structs(mine, field)))
  if #conflicts > 0 and not force then return nil, conflicts end
  local gone = fieldset.union(changed, strip(change.removed))
  local kept = others(entries, who, function(set) return fieldset.difference(set, gone) end)
  local last = entry_for(entries, who)
  local same = last and fieldset.equal(last.fieldsV1, mine) and not changed and not change.removed
  if mine then kept[#kept + 1] = entry_of(who, mine, same and last.time or time) end
  return with_managers(new, kept)
end

return apply
