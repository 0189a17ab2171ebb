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

---@field pcie_tx? integer KB a second that the GPU sent, measured over 20 ms; pcie_rx: that it received. Only by name
---@field nvlink_tx? integer bytes sent over all NVLinks since the driver was loaded; nvlink_rx: received. Only by name
---@field nvlinks eirun.gpu.Nvlink[] empty unless asked for
---@field samples {gpu?: number[][], memory?: number[][], power?: number[][]} {seconds, value} each, oldest first; empty unless asked for

---@class eirun.gpu.Nvlink what the driver does not tell is nil; bytes and errors count from when the driver was loaded
---@field link integer from 0
---@field active boolean
---@field version? string "4.0"
---@field speed? integer MB a second in each direction
---@field remote? string PCI address of the other end
---@field remote_kind? "GPU"|"NPU"|"switch"
---@field tx? integer bytes sent
---@field rx? integer bytes received
---@field replay_errors? integer
---@field recovery_errors? integer
---@field crc_flit_errors? integer
---@field crc_data_errors? integer
---@field crc_errors? integer from Hopper on, as `nvidia-smi nvlink -e` shows them

---@class eirun.gpu.Options
---@field timeout? number seconds, default 5
---@field fields? string[] only these; default: the usual ones, without those that take the driver long (see gpu.fields)
---@field processes? boolean
---@field topology? boolean
---@field instances? boolean of MIG; default true without `fields`
---@field samples? boolean what the driver measured by itself in the last seconds
---@field nvlinks? boolean each NVLink by itself
---@field required? boolean no driver, or no GPU, is an error

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

local nvlink_versions = { "1.0", "2.0", "2.2", "3.0", "3.1", "4.0", "5.0", "6.0" }
local nvlink_ends = { [0] = "GPU", [1] = "NPU", [2] = "switch" }

-- What the driver tells in thousandths.
local milli = { energy_mj = "energy" }
for _, name in ipairs { "power", "power_average", "power_instant", "power_limit", "power_requested_limit", "power_default_limit",
  "power_min_limit", "power_max_limit" } do
  milli[name .. "_mw"] = name
end

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
  process.cgroup, process.name = nil, require("eirun.gpu.printable").text(process.name)
end

local function scale(samples)
  samples.power, samples.power_mw = samples.power_mw, nil
  for _, sample in ipairs(samples.power or {}) do sample[2] = sample[2] / 1000 end
end

local function finish_nvlink(link)
  link.active = link.active == 1
  link.version = nvlink_versions[link.version]
  link.remote_kind = nvlink_ends[link.remote_kind]
  link.tx, link.rx = link.tx and link.tx << 10, link.rx and link.rx << 10
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
  if device.samples then scale(device.samples) end
  device.nvlink_tx, device.nvlink_rx = device.nvlink_tx and device.nvlink_tx << 10, device.nvlink_rx and device.nvlink_rx << 10
  for _, link in ipairs(device.nvlinks or {}) do finish_nvlink(link) end
  for _, process in ipairs(device.processes or {}) do finish_process(process) end
  for _, instance in ipairs(device.mig or {}) do finish(instance) end
end

-- The driver's names of fields, from the names that a device has here.
local function raw_names(names)
  local raw, list = { clock_reason_bits = "clock_reasons" }, {}
  for from, to in pairs(milli) do raw[to] = from end
  for i, name in ipairs(names) do list[i] = raw[name] or name end
  return list
end

---Every field that a device may have, also those that a look asks for only by name: energy, power_instant, serial, temperature_margin,
---ecc_dram_corrected and the like.
---@return string[]
---Example: `local everything = gpu.snapshot { fields = gpu.fields() }`. Raises nothing.
function M.fields()
  local list = require("eirun.core.gpu").fields()
  for i, name in ipairs(list) do list[i] = milli[name] or name end
  return list
end

---Looks once at all GPUs of this machine. The driver is asked on a thread of its own: one that hangs blocks only the caller, until the
---time-out. What never changes (name, limits) is asked once and remembered.
---@param opts? eirun.gpu.Options
---@return eirun.gpu.Snapshot
---Example: `for _, device in ipairs(gpu.snapshot().devices) do print(device.name, device.memory_used) end`.
---Raises "timeout" when the driver does not answer, "internal" when it is broken, and with `required` "not_found" where there is no
---driver or no GPU; without `required` the list is then empty.
function M.snapshot(opts)
  opts = opts or {}
  local look = errors.check(require("eirun.core.gpu").snapshot {
    timeout = opts.timeout, processes = opts.processes, topology = opts.topology, samples = opts.samples, nvlinks = opts.nvlinks,
    instances = opts.instances, fields = opts.fields and raw_names(opts.fields),
  })
  look.cuda = look.cuda and ("%d.%d"):format(look.cuda // 1000, look.cuda % 1000 // 10)
  if opts.required and #look.devices == 0 then
    errors.raise("not_found", look.missing or "the driver finds no GPU")
  end
  for _, device in ipairs(look.devices) do finish(device) end
  return look
end

---Listens to what the driver tells by itself, from now on; a thread of its own waits for it. Close what comes back, or let it go out of a
---`<close>` variable.
---@param opts? {kinds?: string[]} default: everything that speaks of a fault; also known: "clock", "performance_state", "power_source"
---@return eirun.gpu.Events
---Example:
---```lua
---local events <close> = gpu.events()
---for event in events:each() do log.warn(event.text) end
---```
---Raises "not_found" without a driver or a GPU that tells events, "internal" when the driver fails.
function M.events(opts)
  return require("eirun.gpu.events").listen(opts)
end

---Judges the GPUs of this machine, and what happened to them, by rules: XIDs, ECC, remapped rows, heat, power, lost GPUs.
---@param opts? {events?: table[], before?: eirun.gpu.Snapshot, look?: eirun.gpu.Snapshot, node?: string, timeout?: number}
---@return eirun.gpu.Finding[] worst first; empty: all is well
---Example: `for _, finding in ipairs(gpu.health()) do print(finding.severity, finding.text, finding.advice) end`.
---Raises what snapshot raises.
function M.health(opts)
  return require("eirun.gpu.health").judge(opts)
end

---The GPUs of a cluster: what each node and each serving job has, was given and really uses.
---@param k8s eirun.KubeClient
---@param opts? eirun.gpu.ClusterOptions
---@return eirun.gpu.Cluster
---Example: `local view = gpu.cluster(k8s); print(view.total.gpus, view.total.allocated, view.fragmentation)`.
---Raises "denied" when nodes may not be listed; what else is missing is in `notes` and the rest is there.
function M.cluster(k8s, opts)
  return require("eirun.gpu.cluster").view(k8s, opts)
end

return M
