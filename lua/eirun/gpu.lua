-- SPDX-License-Identifier: Apache-2.0
-- The GPUs of this machine as its driver tells them. The driver's library is opened at the first look.
local errors = require "eirun.errors"

local M = {}

---@class eirun.gpu.Process
---@field pid integer
---@field name string
---@field type "C"|"G"|"C+G" computes, draws, or both
---@field memory? integer bytes
---@field utilization_sm? integer percent, of the driver's last sample
---@field utilization_memory? integer percent
---@field gpu_instance? integer of MIG
---@field container? string id
---@field pod? string uid

---@class eirun.gpu.Device what the driver does not tell is nil; memory in bytes, clocks in MHz, temperatures in degrees Celsius
---@field index integer from 0
---@field name? string
---@field uuid? string
---@field pci_bus_id? string
---@field memory_total? integer
---@field memory_used? integer
---@field memory_free? integer
---@field memory_reserved? integer
---@field utilization_gpu? integer percent of the time in which a kernel ran
---@field utilization_memory? integer percent
---@field temperature? integer
---@field power? number watts
---@field power_limit? number watts
---@field energy? number joules since the driver was loaded
---@field clock_sm? integer
---@field clock_reasons? string[] why the clocks are held back
---@field performance_state? string "P0" is the fastest
---@field lost boolean it fell off the bus: drain the node
---@field mig eirun.gpu.Device[] its instances
---@field processes eirun.gpu.Process[] empty unless asked for

---@class eirun.gpu.Snapshot
---@field missing? string why there is no driver to ask
---@field driver? string version
---@field cuda? string version that the driver can run
---@field devices eirun.gpu.Device[]
---@field links? {ancestor?: integer, nvlink: boolean}[][] one row a device, with topology = true

-- Bits of nvmlDeviceGetCurrentClocksEventReasons.
local reasons = {
  { 0x1, "idle" }, { 0x2, "application clocks" }, { 0x4, "power cap" }, { 0x8, "hardware slowdown" }, { 0x10, "sync boost" },
  { 0x20, "software thermal slowdown" }, { 0x40, "hardware thermal slowdown" }, { 0x80, "power brake" }, { 0x100, "display clocks" },
}

local compute_modes = { [0] = "Default", [1] = "Exclusive_Thread", [2] = "Prohibited", [3] = "Exclusive_Process" }

local milli = {
  power_mw = "power", power_limit_mw = "power_limit", power_default_limit_mw = "power_default_limit",
  power_min_limit_mw = "power_min_limit", power_max_limit_mw = "power_max_limit", energy_mj = "energy",
}

local function names_of(bits)
  local list = {}
  for _, reason in ipairs(reasons) do
    if bits & reason[1] ~= 0 then list[#list + 1] = reason[2] end
  end
  return list
end

---Finds the container and the pod in the text of /proc/PID/cgroup, of containerd, CRI-O and Docker, cgroup v1 and v2.
---@param cgroup string
---@return string|nil container id
---@return string|nil pod uid
---Example: `local container, pod = gpu.owner("0::/kubepods.slice/kubepods-pod1_2.slice/cri-containerd-" .. id .. ".scope")`.
---Raises nothing; a process outside containers has neither.
function M.owner(cgroup)
  local container = cgroup:match("%f[%x](" .. ("%x"):rep(64) .. ")%f[%X]")
  local pod = cgroup:match("pod(%x+[-_]%x+[-_]%x+[-_]%x+[-_]%x+)") or cgroup:match("pod(" .. ("%x"):rep(32) .. ")%f[%X]")
  return container, pod and (pod:gsub("_", "-"))
end

local function finish_process(process)
  process.container, process.pod = M.owner(process.cgroup)
  process.cgroup = nil
end

local function finish(device)
  for raw, name in pairs(milli) do
    device[name] = device[raw] and device[raw] / 1000
    device[raw] = nil
  end
  device.clock_reason_bits = device.clock_reasons
  device.clock_reasons = device.clock_reasons and names_of(device.clock_reasons)
  device.performance_state = device.performance_state and device.performance_state < 16 and "P" .. device.performance_state or nil
  device.compute_mode = device.compute_mode and compute_modes[device.compute_mode]
  for _, process in ipairs(device.processes or {}) do finish_process(process) end
  for _, instance in ipairs(device.mig or {}) do finish(instance) end
end

---Looks once at all GPUs of this machine. The driver is asked on a thread of its own: one that hangs blocks only the caller, until the
---time-out.
---@param opts? {timeout?: number, processes?: boolean, topology?: boolean, required?: boolean} timeout in seconds, default 5
---@return eirun.gpu.Snapshot
---Example: `for _, device in ipairs(gpu.snapshot().devices) do print(device.name, device.memory_used) end`.
---Raises "timeout" when the driver does not answer, "internal" when it is broken, and with `required` "not_found" where there is no
---driver or no GPU; without `required` the list is then empty.
function M.snapshot(opts)
  opts = opts or {}
  local look = errors.check(require("eirun.core.gpu").snapshot {
    timeout = opts.timeout, processes = opts.processes, topology = opts.topology,
  })
  look.cuda = look.cuda and ("%d.%d"):format(look.cuda // 1000, look.cuda % 1000 // 10)
  if opts.required and #look.devices == 0 then
    errors.raise("not_found", look.missing or "the driver finds no GPU")
  end
  for _, device in ipairs(look.devices) do finish(device) end
  return look
end

return M
