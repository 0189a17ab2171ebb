-- SPDX-License-Identifier: Apache-2.0
-- Kubernetes objects made so: read, ask the server what its own dry run would change, apply. Nothing that was read is ever
-- written back.
local errors = require "eirun.errors"
local resource = require "eirun.resource"

local M = {}

M.OWNER_LABEL, M.OWNER = "app.kubernetes.io/managed-by", "eirun"

-- What moves without anybody having asked for it.
local ignored = {
  ["metadata.managedFields"] = true, ["metadata.resourceVersion"] = true, ["metadata.generation"] = true,
  ["metadata.creationTimestamp"] = true, ["metadata.uid"] = true, status = true,
}

local function masked(changes)
  for _, change in ipairs(changes) do
    if change.field:find("^data") or change.field:find("^stringData") then
      change.from, change.to = change.from and "<secret>", change.to and "<secret>"
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
function M.differences(live, dry)
  local changes = resource.differences(live, dry, { ignore = ignored })
  return dry.kind == "Secret" and masked(changes) or shortened(changes)
end

local function foreign(observed)
  local labels = (observed.metadata or {}).labels or {}
  if labels[M.OWNER_LABEL] == M.OWNER then return nil end
  return ("has no label %s=%s: eirun did not make it"):format(M.OWNER_LABEL, M.OWNER)
end

---Adds the owner's mark to a manifest.
---@param manifest table
---@return table the same manifest
function M.mark(manifest)
  manifest.metadata.labels = manifest.metadata.labels or {}
  manifest.metadata.labels[M.OWNER_LABEL] = M.OWNER
  return manifest
end

local function explain(err, manifest)
  if errors.is(err, "invalid") and tostring(err.message):find("immutable", 1, true) then
    err.hint = ("delete the %s first, or give the new one another name"):format(manifest.kind)
  end
  error(err, 0)
end

local function apply(k8s, manifest, opts)
  local ok, object = pcall(k8s.apply, k8s, manifest, opts)
  return ok and object or explain(object, manifest)
end

---Makes an object as the manifest says; fields it does not name are left alone.
---@param k8s eirun.KubeClient
---@param manifest table
---@param opts? {adopt?: boolean, force?: boolean, wait?: fun(observed: table): table}
---@return table observed
---@return "created"|"updated"|"unchanged"
---Raises "conflict" for an object of somebody else and for fields that another manager owns, "invalid" with the server's words.
function M.ensure(k8s, manifest, opts)
  opts = opts or {}
  M.mark(manifest)
  local name = manifest.metadata.name
  local scoped = manifest.metadata.namespace and k8s:namespace(manifest.metadata.namespace) or k8s
  return resource.ensure {
    kind = manifest.kind, name = name, adopt = opts.adopt, foreign = foreign,
    observe = function() return scoped:get(manifest.apiVersion .. "/" .. manifest.kind, name) end,
    compare = function(observed)
      if not observed then return {} end
      return M.differences(observed, apply(k8s, manifest, { dry_run = true, force = opts.force }))
    end,
    act = function() return apply(k8s, manifest, { force = opts.force }) end,
    wait = opts.wait and function(plan) return opts.wait(plan.result or plan.observed) end or nil,
  }
end

return M
