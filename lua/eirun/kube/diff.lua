-- SPDX-License-Identifier: Apache-2.0
-- What applying a manifest would change: the server's own dry run against what is there. Values of Secrets never leave here.
local json = require "eirun.core.json"
local resource = require "eirun.resource"

local M = {}

local LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

-- What moves without anybody having asked for it.
local ignored = {
  ["metadata.managedFields"] = true, ["metadata.resourceVersion"] = true, ["metadata.generation"] = true,
  ["metadata.creationTimestamp"] = true, ["metadata.uid"] = true, status = true,
}

-- As fields, for people ------------------------------------------------------------------------------------------------

local function is_secret_field(field)
  return field:find "^data" or field:find "^stringData" or field:find(LAST_APPLIED, 1, true)
end

local function masked(changes)
  for _, change in ipairs(changes) do
    if is_secret_field(change.field) then
      change.from, change.to = change.from and "<secret>", change.to and "<secret>"
    elseif change.field == "metadata" or change.field == "metadata.annotations" then
      for _, side in ipairs { "from", "to" } do
        local annotations = type(change[side]) == "table" and (change[side].annotations or change[side])
        if type(annotations) == "table" and annotations[LAST_APPLIED] then annotations[LAST_APPLIED] = "<secret>" end
      end
    end
  end
  return changes
end

local function lines_of(text)
  local set = {}
  for line in text:gmatch("[^\n]+") do set[line] = true end
  return set
end

local function lines_without(text, others)
  local list = {}
  for line in text:gmatch("[^\n]+") do if not others[line] then list[#list + 1] = line end end
  return #list > 0 and table.concat(list, ", ") or nil
end

-- Of a text of many lines only those that come and go are told.
local function shortened(changes)
  for _, change in ipairs(changes) do
    local from, to = change.from, change.to
    if type(from) == "string" and type(to) == "string" and (from:find("\n", 1, true) or to:find("\n", 1, true)) then
      change.from, change.to = lines_without(from, lines_of(to)), lines_without(to, lines_of(from))
    end
  end
  return changes
end

---The differences between an object and what a dry run would make of it; values of Secrets are masked.
---@param live table|nil
---@param dry table
---@return eirun.Change[]
---Example: `diff.changes(k8s:get("ConfigMap", "a"), k8s:apply(manifest, { dry_run = true }))`. Raises nothing.
function M.changes(live, dry)
  local changes = resource.differences(live, dry, { ignore = ignored })
  return dry.kind == "Secret" and masked(changes) or shortened(changes)
end

-- As two documents -----------------------------------------------------------------------------------------------------

-- kubectl's own words: equal values stay hidden, those that change say which is which.
local function mask_data(before, after)
  for key, value in pairs(after) do
    local old = before[key]
    if old ~= nil and old ~= value then
      before[key], after[key] = "*** (before)", "*** (after)"
    else
      if old ~= nil then before[key] = "***" end
      after[key] = "***"
    end
  end
  for key, value in pairs(before) do
    if after[key] == nil and not value:find "^%*%*%*" then before[key] = "***" end
  end
end

local function mask(live, merged)
  mask_data(live and live.data or {}, merged.data or {})
  for _, object in ipairs { live or {}, merged } do
    local annotations = (object.metadata or {}).annotations
    if annotations and annotations[LAST_APPLIED] then annotations[LAST_APPLIED] = "***" end
  end
end

-- A dry run counts a generation and nothing else: that is no difference.
local function comparable(object)
  if not object then return "" end
  local metadata = object.metadata
  local generation, version = metadata.generation, metadata.resourceVersion
  metadata.generation, metadata.resourceVersion = nil, nil
  local text = json.encode(object)
  metadata.generation, metadata.resourceVersion = generation, version
  return text
end

---@class eirun.kube.Diff
---@field differs boolean
---@field changes eirun.Change[] field by field; values of Secrets are `<secret>`
---@field live table|nil the object that is there, without managedFields; values of Secrets are `***`
---@field merged table what applying would make of it, in the same way

---Asks the server what applying a manifest would change; nothing is stored.
---@param k8s eirun.KubeClient
---@param manifest table
---@param opts? {force?: boolean, manager?: string, validate?: "Strict"|"Warn"|"Ignore"} as of `apply`
---@return eirun.kube.Diff
---Raises as `apply`: "conflict" with each field and its owner, "invalid" with the server's words.
function M.of(k8s, manifest, opts)
  opts = opts or {}
  local scoped = manifest.metadata.namespace and k8s:namespace(manifest.metadata.namespace) or k8s
  local live = scoped:get(manifest.apiVersion .. "/" .. manifest.kind, manifest.metadata.name)
  local merged = scoped:apply(manifest, { dry_run = true, force = opts.force, manager = opts.manager, validate = opts.validate })
  for _, object in ipairs { merged, live } do object.metadata.managedFields = nil end
  local found = { differs = comparable(live) ~= comparable(merged), changes = M.changes(live, merged), live = live, merged = merged }
  if merged.kind == "Secret" then mask(live, merged) end
  return found
end

return M
