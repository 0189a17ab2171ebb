-- SPDX-License-Identifier: Apache-2.0
-- eirun kube logs: of a pod, or of the pods behind a workload or a selector.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local task = require "eirun.task"

local DEFAULT = "kubectl.kubernetes.io/default-container"

local function containers_of(pod)
  local names = {}
  for _, list in ipairs { "containers", "initContainers" } do
    for _, container in ipairs(pod.spec[list] or {}) do names[#names + 1] = container.name end
  end
  return names
end

-- The container that is meant; kubectl says so when it had to choose.
local function choose(pod, options)
  if options.container then return { options.container } end
  local names = containers_of(pod)
  if options.all_containers then return names end
  local wanted = (pod.metadata.annotations or {})[DEFAULT] or names[1]
  if #names > 1 and not (pod.metadata.annotations or {})[DEFAULT] then
    local list = table.move(names, 1, #names, 1, {})
    for i = #(pod.spec.containers or {}) + 1, #list do list[i] = list[i] .. " (init)" end
    face.note(('Defaulted container "%s" out of: %s'):format(wanted, table.concat(list, ", ")))
  end
  return { wanted }
end

local function pods_by_selector(k8s, labels)
  local pods = k8s:list("Pod", { labels = labels })
  if #pods == 0 then face.note(("No resources found in %s namespace."):format(k8s.ns)) end
  return pods
end

local function pods_of(k8s, options, words)
  if options.selector then return pods_by_selector(k8s, options.selector) end
  local word = words[1] or face.usage "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'."
  local kind, name = word:match "^([^/]+)/(.+)$"
  local info = k8s:resource(kind or "pods")
  local object = k8s:get(info.api_version .. "/" .. info.kind, name or word)
  if not object then
    errors.raise("not_found", ('error from server (NotFound): %s "%s" not found in namespace "%s"'):format(
      require("eirun.kube.kinds").resource(info), name or word, k8s.ns))
  end
  if info.kind == "Pod" then return { object } end
  local selector = ((object.spec or {}).selector or {}).matchLabels or (object.spec or {}).selector
  if type(selector) ~= "table" then face.usage(("cannot get the logs from *%s: it has no selector"):format(info.kind)) end
  local pods = k8s:list("Pod", { labels = selector })
  if #pods > 1 then
    table.sort(pods, function(a, b) return a.metadata.name < b.metadata.name end)
    face.note(("Found %d pods, using pod/%s"):format(#pods, pods[1].metadata.name))
  end
  return { pods[1] }
end

local function prefixed(text, pod, container)
  local head = ("[pod/%s/%s] "):format(pod.metadata.name, container)
  return head .. (text:gsub("\n(.)", function(c) return "\n" .. head .. c end))
end

local function show(k8s, pod, container, options)
  local wanted = { container = container, tail = options.tail, previous = options.previous, timestamps = options.timestamps,
    limit_bytes = options.limit_bytes, since_time = options.since_time,
    since = options.since and math.ceil(face.seconds(options.since, nil, "since")) }
  local function out(text)
    if text ~= "" then face.flow(options.prefix and prefixed(text, pod, container) or text) end
  end
  if not options.follow then return out(k8s:logs(pod.metadata.name, wanted)) end
  for text in k8s:follow_logs(pod.metadata.name, wanted) do out(text) end
end

return face.verb(function(k8s, options, words)
  if options.selector and not options.tail then options.tail = 10 end
  if words[2] and not options.container then options.container = words[2] end
  local jobs = {}
  for _, pod in ipairs(pods_of(k8s, options, words)) do
    for _, container in ipairs(choose(pod, options)) do jobs[#jobs + 1] = { pod, container } end
  end
  task.map(jobs, function(job) show(k8s, job[1], job[2], options) end, options.follow and 5 or 1)
  return 0
end)
