-- SPDX-License-Identifier: Apache-2.0
-- Kubernetes objects made so: read, ask the server what its own dry run would change, apply. Nothing that was read is ever
-- written back.
local diff = require "eirun.kube.diff"
local resource = require "eirun.resource"

local M = {}

M.OWNER_LABEL, M.OWNER = "app.kubernetes.io/managed-by", "eirun"

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
      return diff.changes(observed, k8s:apply(manifest, { dry_run = true, force = opts.force }))
    end,
    act = function() return k8s:apply(manifest, { force = opts.force }) end,
    wait = opts.wait and function(plan) return opts.wait(plan.result or plan.observed) end or nil,
  }
end

return M
