-- SPDX-License-Identifier: Apache-2.0
-- What the driver tells by itself, event by event.
local errors = require "eirun.errors"
local task = require "eirun.task"

local M = {}

-- What speaks of a fault; clocks and states change all the time.
M.faults = { "xid", "ecc_corrected", "ecc_uncorrected", "mig_config", "ecc_corrected_storm", "dram_retirement", "dram_retirement_failure",
  "poison", "poison_fatal", "unavailable", "recovery_action" }

M.known = { "clock", "performance_state", "power_source", table.unpack(M.faults) }

---@class eirun.gpu.Event
---@field kind string "xid", "ecc_uncorrected", "lost" ...
---@field at number seconds since the epoch
---@field index? integer of the GPU
---@field uuid? string
---@field xid? integer
---@field gpu_instance? integer of MIG
---@field text string in words

local words = {
  ecc_corrected = "a memory error was corrected", ecc_uncorrected = "a memory error could not be corrected",
  performance_state = "the performance state changed", clock = "the clocks changed", power_source = "the power source changed",
  mig_config = "the MIG instances changed", ecc_corrected_storm = "memory errors are corrected all the time",
  dram_retirement = "memory was retired", dram_retirement_failure = "memory could not be retired",
  poison = "poisoned data was contained", poison_fatal = "poisoned data spread", unavailable = "the GPU is not available",
  recovery_action = "the driver asks for a recovery action", lost = "the GPU is lost",
}

local function text_of(event)
  local where = event.index and ("GPU %d"):format(event.index) or "some GPU"
  if event.xid then
    local rule = require("eirun.gpu.rules").xid(event.xid)
    return ("%s: XID %d, %s"):format(where, event.xid, rule.text)
  end
  return ("%s: %s"):format(where, words[event.kind] or "event " .. event.kind)
end

-- From what the binding gives.
local function finish(self, raw)
  local event = { kind = raw.kind, at = raw.at, index = raw.index, gpu_instance = raw.gpu_instance, uuid = self.uuids[raw.index or -1],
    xid = raw.kind == "xid" and raw.data or nil, data = raw.data }
  event.text = text_of(event)
  return event
end

---@class eirun.gpu.Events
local Events = {}
Events.__index = Events

---Waits for the next event.
---@param timeout? number seconds; default: for ever
---@return eirun.gpu.Event|nil nil after the time-out, or when it was closed
---Example: `local event = events:next(10)`. Raises "internal" when the driver ends it.
function Events:next(timeout)
  if not self.watch then return nil end
  local function wait() return self.watch:next() end
  local ok, raw, err
  if timeout then
    ok, raw, err = pcall(task.timeout, timeout, wait)
  else
    ok, raw, err = true, wait()
  end
  if not ok then
    if errors.is(raw, "timeout") then return nil end
    error(raw, 0)
  end
  if err then error(err, 0) end
  return raw and finish(self, raw)
end

---All events, one after the other, until it is closed.
---@return fun(): eirun.gpu.Event|nil
---Example: `for event in events:each() do print(event.text) end`. Raises what next raises.
function Events:each()
  return function() return self:next() end
end

---How many events were not taken in time and are gone.
---@return integer
---Example: `assert(events:dropped() == 0)`. Raises nothing.
function Events:dropped()
  return self.watch and self.watch:dropped() or 0
end

---Ends the listening; may be called twice.
---Example: `events:close()`. Raises nothing.
function Events:close()
  if self.watch then self.watch:close() end
  self.watch = nil
end
Events.__close = Events.close

-- The names of the GPUs; a driver that hangs here must not keep the events away.
local function uuids()
  local ok, look = pcall(require("eirun.gpu").snapshot, { fields = { "uuid" }, timeout = 2 })
  if not ok and errors.is(look, "cancelled") then error(look, 0) end
  local list = {}
  for _, device in ipairs(ok and look.devices or {}) do list[device.index] = device.uuid end
  return list
end

---Begins to listen; see `gpu.events`.
---@param opts? {kinds?: string[]}
---@return eirun.gpu.Events
---Example: `local events <close> = listen { kinds = { "xid" } }`. Raises "not_found", "internal".
function M.listen(opts)
  local watch = errors.check(require("eirun.core.gpu").watch(opts and opts.kinds or M.faults))
  local self = setmetatable({ watch = watch }, Events)
  self.devices = errors.check(watch:started())
  self.uuids = uuids()
  return self
end

return M
