-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.gpu
-- What the C module modules/gpu/bind_gpu.c offers; a test compares the names. Playbooks use eirun.gpu.
local gpu = {}

---@class eirun.core.gpu.Options
---@field timeout? number seconds, default 5
---@field processes? boolean default false
---@field topology? boolean default false

---Asks the driver once, on a thread of its own. A field that the driver does not tell is nil. Numbers are the driver's own: bytes,
---milliwatts, millijoules, megahertz, degrees Celsius, percent. Without a driver `missing` says why and `devices` is empty.
---Errors: timeout (the driver hangs; nothing else waits for it), internal.
---Example: `local look = assert(gpu.snapshot { timeout = 2 })`
---@param options? eirun.core.gpu.Options
---@return {missing?: string, driver?: string, cuda?: integer, devices: table[], links?: table[][]}|nil
---@return eirun.Error|nil
function gpu.snapshot(options) end

return gpu
