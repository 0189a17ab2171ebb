-- SPDX-License-Identifier: Apache-2.0
-- What several controllers ask about objects.
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local common = {}

local LETTERS = "bcdfghjklmnpqrstvwxz2456789"

function common.split(key)
  local ns, name = key:match("^([^/]*)/(.*)$")
  return ns ~= "" and ns or nil, name
end

function common.condition(obj, type)
  return value.find(value.get(obj, "status", "conditions"), "type", type)
end

function common.pod_ready(pod)
  local c = common.condition(pod, "Ready")
  return c ~= nil and c.status == "True"
end

-- Ready for at least so many seconds; the second result says in how many seconds it will be.
function common.pod_available(pod, min_ready, now)
  local c = common.condition(pod, "Ready")
  if not c or c.status ~= "True" then return false end
  if (min_ready or 0) == 0 then return true end
  local since = tables.seconds_of(c.lastTransitionTime) or now
  if since + min_ready <= now then return true end
  return false, since + min_ready - now
end

function common.pod_finished(pod)
  local phase = value.get(pod, "status", "phase")
  return phase == "Succeeded" or phase == "Failed"
end

function common.pod_active(pod)
  return not common.pod_finished(pod) and not pod.metadata.deletionTimestamp
end

-- The controlling owner's reference.
function common.controller_of(obj)
  return value.find(obj.metadata.ownerReferences, "controller", true)
end

function common.owner_reference(r, obj)
  return { apiVersion = r.api_version, kind = r.kind, name = obj.metadata.name, uid = obj.metadata.uid, controller = true,
    blockOwnerDeletion = true }
end

-- A pod of a controller's object; when it is refused, an event begins with `words` before the refusal is raised.
function common.make_pod(self, r, obj, pod, options, words)
  local ok, made = pcall(self.reg.create, self.reg, resources.pods, obj.metadata.namespace, pod, options)
  if ok then return made end
  if status.is(made) then self.recorder:event(r, obj, "Warning", "FailedCreate", words .. made.message) end
  error(made, 0)
end

-- A copy of the list with that condition set. A condition of the same status keeps its transition time.
function common.with_condition(list, condition, now)
  local new, placed = json.array {}, false
  for _, c in ipairs(list or {}) do
    if c.type == condition.type then
      condition.lastTransitionTime = c.status == condition.status and c.lastTransitionTime or now
      new[#new + 1] = condition
      placed = true
    else
      new[#new + 1] = c
    end
  end
  if not placed then
    condition.lastTransitionTime = now
    new[#new + 1] = condition
  end
  return new
end

function common.created(obj)
  return tables.seconds_of(obj.metadata.creationTimestamp) or 0
end

function common.oldest_first(a, b)
  local x, y = a.metadata.creationTimestamp or "", b.metadata.creationTimestamp or ""
  if x ~= y then return x < y end
  return a.metadata.name < b.metadata.name
end

-- A pod (not yet created) from a template.
function common.pod_from(template, owner_resource, owner)
  local meta = template.metadata or {}
  return {
    metadata = { generateName = owner.metadata.name .. "-", namespace = owner.metadata.namespace, labels = value.copy(meta.labels),
      annotations = value.copy(meta.annotations), finalizers = value.copy(meta.finalizers),
      ownerReferences = json.array { common.owner_reference(owner_resource, owner) } },
    spec = value.copy(template.spec),
  }
end

-- FNV-1a of a text in Kubernetes' safe letters.
function common.hash(text)
  local h = 2166136261
  for i = 1, #text do h = ((h ~ text:byte(i)) * 16777619) & 0xffffffff end
  return (tostring(h):gsub("%d", function(d)
    local at = (d:byte() % #LETTERS) + 1
    return LETTERS:sub(at, at)
  end))
end

return common
