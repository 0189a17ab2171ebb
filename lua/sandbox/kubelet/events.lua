-- SPDX-License-Identifier: Apache-2.0
-- Events of one component: the same thing said again counts up the first one.
local times = require "sandbox.times"

local Recorder = {}
Recorder.__index = Recorder
local M = {}

local longest_message = 1024

---@param options table { kube, now, component, host?, log, boot? } `boot` numbers the starts of the sandbox: names stay unique
function M.new(options)
  local self = setmetatable({ seen = {}, sequence = (options.boot or 0) << 16 }, Recorder)
  for name, value in pairs(options) do self[name] = value end
  return self
end

local function reference(object)
  local meta = object.metadata
  return { kind = object.kind, apiVersion = object.apiVersion or "v1", namespace = meta.namespace, name = meta.name, uid = meta.uid,
    resourceVersion = object.kind == "Pod" and meta.resourceVersion or nil, fieldPath = object.fieldPath }
end

local function make(self, object, type, reason, message)
  self.sequence = self.sequence + 1
  local now = self.now()
  local meta = object.metadata
  return { kind = "Event", apiVersion = "v1", type = type, reason = reason, message = message, count = 1,
    metadata = { namespace = meta.namespace or "default", name = ("%s.%x%04x"):format(meta.name, math.floor(now * 1e6), self.sequence) },
    involvedObject = reference(object), firstTimestamp = times.iso(now), lastTimestamp = times.iso(now),
    source = { component = self.component, host = self.host }, reportingComponent = self.component, reportingInstance = self.host or "" }
end

local function again(self, known)
  known.count = known.count + 1
  local patch = { count = known.count, lastTimestamp = times.iso(self.now()) }
  return self.kube:patch("events", known.namespace, known.name, patch)
end

---Records an event; `field` narrows it to a container: "spec.containers{serving}".
function Recorder:say(object, type, reason, message, field)
  message = message:sub(1, longest_message)
  local key = table.concat({ object.metadata.uid or object.metadata.name, field or "", reason, message }, "\0")
  local known = self.seen[key]
  if known and again(self, known) then return end
  local event = make(self, { kind = object.kind, apiVersion = object.apiVersion, metadata = object.metadata, fieldPath = field }, type,
    reason, message)
  self.seen[key] = { namespace = event.metadata.namespace, name = event.metadata.name, count = 1 }
  local ok, err = self.kube:create("events", event)
  if not ok then self.log("warn", "cannot record event %s of %s: %s", reason, object.metadata.name, tostring(err)) end
end

---Forgets what was said about an object that is gone.
function Recorder:forget(uid)
  for key in pairs(self.seen) do
    if key:sub(1, #uid + 1) == uid .. "\0" then self.seen[key] = nil end
  end
end

return M
