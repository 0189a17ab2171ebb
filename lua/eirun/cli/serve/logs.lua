-- SPDX-License-Identifier: Apache-2.0
-- eirun serve logs
local errors = require "eirun.errors"
local face = require "eirun.cli.serve.face"
local serve = require "eirun.serve"

local function names_of(pods)
  local names = {}
  for i, pod in ipairs(pods) do names[i] = pod.metadata.name end
  return table.concat(names, ", ")
end

-- Those that are ending are meant only by their name.
local function living(pods)
  local list = {}
  for _, pod in ipairs(pods) do if not pod.metadata.deletionTimestamp then list[#list + 1] = pod end end
  return list
end

local function chosen(job, wanted)
  for _, pod in ipairs(job.pods) do if pod.metadata.name == wanted then return pod end end
  local pods = living(job.pods)
  if not wanted and #pods == 1 then return pods[1] end
  if #pods == 0 then
    errors.raise("not_found", ("job '%s' has no instance"):format(job.name), { hint = ("see `eirun serve get %s`"):format(job.name) })
  end
  local problem = wanted and ("job '%s' has no instance '%s'"):format(job.name, wanted)
    or ("job '%s' has %d instances"):format(job.name, #pods)
  face.usage(("%s; say which by --instance: %s"):format(problem, names_of(pods)))
end

local function container_of(job, pod, wanted)
  if wanted then return wanted end
  for _, container in ipairs(pod.spec.containers) do
    if container.name == job.type.container then return container.name end
  end
  return pod.spec.containers[1].name
end

return face.verb(function(k8s, options, words)
  local job = serve.get(k8s, face.name(words), face.which(options))
  local pod = chosen(job, options.instance)
  local opts = { container = container_of(job, pod, options.container), tail = options.tail, since = options.since,
    timestamps = options.timestamps, previous = options.previous }
  k8s = k8s:namespace(job.namespace)
  if not options.follow then
    face.out(k8s:logs(pod.metadata.name, opts))
    return 0
  end
  for text in k8s:follow_logs(pod.metadata.name, opts) do face.flow(text) end
end)
