-- SPDX-License-Identifier: Apache-2.0
-- Events: the recorder of the control plane's components, and the two API versions of one object.
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local events = {}

-- core/v1 words -> events.k8s.io/v1 words.
local NEW = { involvedObject = "regarding", message = "note", source = "deprecatedSource", firstTimestamp = "deprecatedFirstTimestamp",
  lastTimestamp = "deprecatedLastTimestamp", count = "deprecatedCount", reportingComponent = "reportingController" }
local OLD = {}
for old, new in pairs(NEW) do OLD[new] = old end

function events.to_new(obj)
  local new = { kind = "Event", apiVersion = "events.k8s.io/v1" }
  for key, v in pairs(obj) do new[NEW[key] or key] = v end
  return new
end

function events.to_old(body)
  local old = {}
  for key, v in pairs(body) do old[OLD[key] or key] = v end
  old.kind, old.apiVersion = "Event", "v1"
  return old
end

-- An event that was written in the new words is managed in them.
function events.managed_anew(obj)
  for _, entry in ipairs(obj.metadata.managedFields or {}) do
    if entry.apiVersion == "v1" then
      local set = {}
      for key, v in pairs(entry.fieldsV1) do
        local name = key:match("^f:(.*)$")
        set[name and NEW[name] and "f:" .. NEW[name] or key] = v
      end
      entry.apiVersion, entry.fieldsV1 = "events.k8s.io/v1", set
    end
  end
  return obj
end

function events.reference(r, obj)
  return { kind = r.kind, apiVersion = r.api_version, namespace = obj.metadata.namespace, name = obj.metadata.name, uid = obj.metadata.uid,
    resourceVersion = obj.metadata.resourceVersion }
end

local Recorder = {}
Recorder.__index = Recorder

-- A component's recorder: like messages about one object become one event with a count.
function events.recorder(reg, component)
  return setmetatable({ reg = reg, component = component, known = {} }, Recorder)
end

local function add(self, key, r, obj, kind, reason, message)
  local now = self.reg:time()
  local ns = obj.metadata.namespace or "default"
  if not self.reg.store:get(resources.namespaces, nil, ns) then return end
  local name = ("%s.%016x"):format(obj.metadata.name, math.floor(self.reg.now() * 1e9) + self.reg.random(0, 999999))
  local rec = self.reg:create(resources.events, ns, {
    metadata = { name = name, namespace = ns }, involvedObject = events.reference(r, obj), reason = reason, message = message,
    source = { component = self.component }, firstTimestamp = now, lastTimestamp = now, count = 1, type = kind,
    reportingComponent = self.component, reportingInstance = "",
  }, { manager = "kube-controller-manager" })
  self.known[key] = { ns = ns, name = rec.name }
end

local function again(self, known)
  return self.reg:modify(resources.events, known.ns, known.name, function(old)
    local new = value.shallow(old)
    new.count, new.lastTimestamp = (old.count or 1) + 1, self.reg:time()
    return new
  end, { manager = "kube-controller-manager" })
end

-- kind: "Normal" or "Warning".
function Recorder:event(r, obj, kind, reason, message)
  local key = table.concat({ r.id, obj.metadata.uid or obj.metadata.name, reason, message }, "\0")
  local known = self.known[key]
  if known and again(self, known) then return end
  local ok, err = pcall(add, self, key, r, obj, kind, reason, message)
  -- An event in a namespace that is being terminated is refused; nobody misses it.
  if not ok and getmetatable(err) == nil then error(err, 0) end
end

return events
