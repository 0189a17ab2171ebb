-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.gpu
-- What the C module modules/gpu/bind_gpu.c offers; a test compares the names. Playbooks use eirun.gpu.
local gpu = {}

---@class eirun.core.gpu.Options
---@field timeout? number seconds, default 5
---@field processes? boolean default false
---@field topology? boolean default false
---@field instances? boolean of MIG; default false with `fields`, else true
---@field samples? boolean default false
---@field nvlinks? boolean default false
---@field fields? string[] as fields() names them; default: the usual ones

---Asks the driver once, on a thread of its own. A field that the driver does not tell is nil. Numbers are the driver's own: bytes,
---milliwatts, millijoules, megahertz, degrees Celsius, percent. Without a driver `missing` says why and `devices` is empty.
---Errors: timeout (the driver hangs; nothing else waits for it), internal.
---Example: `local look = assert(gpu.snapshot { timeout = 2 })`
---@param options? eirun.core.gpu.Options
---@return {missing?: string, driver?: string, cuda?: integer, devices: table[], links?: table[][]}|nil
---@return eirun.Error|nil
function gpu.snapshot(options) end

---The names of all fields, in order.
---@return string[]
function gpu.fields() end

---Ends the process at once, with nothing tidied up but what was written; in a sanitizer's build it answers the code instead.
---@param code integer
---@return integer code
function gpu.leave(code) end

---@class eirun.core.gpu.Watch
local watch = {}

---Waits until the driver was asked to tell events. Errors: not_found (no driver, no events), internal.
---@return integer|nil devices how many GPUs tell events
---@return eirun.Error|nil
function watch:started() end

---Waits for the next event; nil when the watch was closed. Errors: as started, and internal when the driver ends it.
---@return {kind: string, data: integer, at: number, index?: integer, gpu_instance?: integer}|nil
---@return eirun.Error|nil
function watch:next() end

---How many events came for which there was no room.
---@return integer
function watch:dropped() end

---Ends the listening; who waits gets nil.
function watch:close() end

---Listens to the driver's events. Misuse of a name raises.
---@param kinds string[] "xid", "ecc_corrected", "ecc_uncorrected", "clock" ...
---@return eirun.core.gpu.Watch|nil
---@return eirun.Error|nil
function gpu.watch(kinds) end

return gpu
