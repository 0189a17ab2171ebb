-- SPDX-License-Identifier: Apache-2.0
-- May the sandbox drive this control plane? Only one on loopback, all of whose nodes carry the sandbox's mark.
local client = require "eirun.kube.client"
local config = require "eirun.kube.config"
local errors = require "eirun.errors"

local M = {}

---The label that the sandbox's kubelet puts on the nodes it makes.
M.LABEL, M.VALUE = "eirun.io/sandbox", "true"

local function refuse(path, why)
  errors.raise("denied", ("the sandbox will not touch the cluster of '%s': %s"):format(path, why), {
    code = "guard", object = path,
    hint = "--kubeconfig with --sandbox is for a throw-away control plane on this machine that the sandbox fills with nodes",
  })
end

M.is_loopback = config.is_loopback

---Raises kind "denied" unless the kubeconfig's server is on loopback and every node of it is the sandbox's own.
---@param path string
---@param context? string
---Example: `marked.check("/tmp/kubeconfig")`.
function M.check(path, context)
  local resolved = config.read(path, context)
  if not M.is_loopback(resolved.server) then refuse(path, "its server " .. resolved.server .. " is not on this machine") end
  if resolved.proxy then refuse(path, "it is reached through a proxy") end
  for _, node in ipairs(client.new(resolved):list "Node") do
    if (node.metadata.labels or {})[M.LABEL] ~= M.VALUE then
      refuse(path, ("its node '%s' is not the sandbox's own"):format(node.metadata.name))
    end
  end
end

return M
