-- SPDX-License-Identifier: Apache-2.0
-- Events live for an hour (--event-ttl of the API server) unless said otherwise.
local deletion = require "sandbox.kube.deletion"
local resources = require "sandbox.kube.resources"
local tables = require "sandbox.kube.tables"

local expiry = {}

local R = resources.events
local LIFE, SWEEPS = 3600, 12 -- seconds, and looks in so many

local function last_touched(event)
  local meta = event.metadata
  local at = event.lastTimestamp or event.eventTime or meta.creationTimestamp
  return math.max(tables.seconds_of(at) or 0, tables.seconds_of(meta.creationTimestamp) or 0)
end

function expiry.start(m)
  local life = m.event_life or LIFE
  local every, armed = life / SWEEPS, false

  -- Looks again as long as there is anything to expire.
  local function sweep()
    for _, rec in ipairs(m.store:list(R)) do
      if last_touched(rec.obj) + life <= m.now() then deletion.delete(m.registry, R, rec.ns, rec.name, {}) end
    end
    armed = m.store:count(R) > 0
    return armed and every or nil
  end

  local q = m:queue("event-expiry", 0, sweep)
  local function arm()
    if armed then return end
    armed = true
    q:add_after("sweep", every)
  end
  m.store:subscribe(R, function(event)
    if event.type == "ADDED" then arm() end
  end)
  if m.store:count(R) > 0 then q:add "sweep" end
end

return expiry
