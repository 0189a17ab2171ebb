-- SPDX-License-Identifier: Apache-2.0
-- eirun kube cordon, uncordon, drain.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"

local M = {}

local function names_of(k8s, options, words)
  local names = {}
  for i, word in ipairs(words) do names[i] = word:gsub("^nodes?/", "") end
  if options.selector then
    for _, node in ipairs(k8s:list("Node", { labels = options.selector })) do names[#names + 1] = node.metadata.name end
  end
  if #names == 0 and not options.selector then face.usage "which node? NODE ... or -l LABELS" end
  return names
end

local function as_server(err)
  err = errors.from(err)
  if err.code == "NotFound" and not err.server_message then err.server_message, err.status = err.message, 404 end
  error(err, 0)
end

local function marker(method, word)
  return face.verb(function(k8s, options, words)
    return face.each(names_of(k8s, options, words), function(node)
      local ok, changed = pcall(k8s[method], k8s, node)
      if not ok then as_server(changed) end
      face.out(("node/%s %s%s\n"):format(node, changed and "" or "already ", word))
    end)
  end)
end

M.cordon = marker("cordon", "cordoned")
M.uncordon = marker("uncordon", "uncordoned")

local function tell(what, pod, err)
  local name = pod.metadata.namespace .. "/" .. pod.metadata.name
  if what == "evicting" then
    face.out(("evicting pod %s\n"):format(name))
  elseif what == "refused" then
    face.note(('error when evicting pods/"%s" -n "%s" (will retry after 5s): %s'):format(pod.metadata.name, pod.metadata.namespace,
      err.server_message or err.message))
  else
    face.out(("pod/%s evicted\n"):format(pod.metadata.name))
  end
end

local function left_alone(k8s, node, wanted)
  local names = {}
  local _, left = k8s:list_drainable(node, wanted)
  for i, pod in ipairs(left) do names[i] = pod.metadata.namespace .. "/" .. pod.metadata.name end
  table.sort(names)
  if #names > 0 then face.note("Warning: ignoring DaemonSet-managed Pods: " .. table.concat(names, ", ")) end
end

local function drain(k8s, node, options)
  local ok, changed = pcall(k8s.cordon, k8s, node)
  if not ok then as_server(changed) end
  face.out(("node/%s %scordoned\n"):format(node, changed and "" or "already "))
  local wanted = { ignore_daemonsets = options.ignore_daemonsets, delete_emptydir_data = options.delete_emptydir_data,
    force = options.force, timeout = face.seconds(options.timeout, 0, "timeout"), each = tell,
    grace = options.grace_period and options.grace_period >= 0 and options.grace_period or nil }
  left_alone(k8s, node, wanted)
  k8s:drain(node, wanted)
  face.out(("node/%s drained\n"):format(node))
end

M.drain = face.verb(function(k8s, options, words)
  return face.each(names_of(k8s, options, words), function(node) drain(k8s, node, options) end)
end)

return M
