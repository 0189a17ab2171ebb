-- SPDX-License-Identifier: Apache-2.0
-- The fields of `nvidia-smi --query-gpu`, by its names and in its units, and some that only eirun has.
local M = {}

-- A field: name, unit, key (of a device), get (from the device, the whole look), format. `key` also says what the driver is asked for.
local function plain(name, unit, key, format)
  return { name = name, unit = unit, keys = { key }, get = function(device) return device[key] end, format = format }
end

-- nvidia-smi rounds up.
local function mib(name, key)
  return { name = name, unit = "MiB", keys = { key }, get = function(device)
    return device[key] and (device[key] + (1 << 20) - 1) >> 20
  end }
end

local function switch(name, key, on, off)
  return { name = name, keys = { key }, get = function(device) return device[key] and (device[key] == 0 and off or on) end }
end

local function hex(name, key, digits)
  local format = ("0x%%0%dX"):format(digits)
  return { name = name, keys = { key }, get = function(device) return device[key] and format:format(device[key]) end }
end

local function from_look(name, get)
  return { name = name, keys = {}, get = function(_, look) return get(look) end }
end

local function reason(name, bit)
  return { name = "clocks_event_reasons." .. name, keys = { "clock_reason_bits" }, get = function(device)
    return device.clock_reason_bits and (device.clock_reason_bits & bit ~= 0 and "Active" or "Not Active")
  end }
end

-- Of what the driver measured by itself in the last seconds.
local function sampled(name, unit, series, of, format)
  return { name = name, unit = unit, keys = {}, samples = true, format = format, get = function(device)
    local list = device.samples[series]
    return list and of(list)
  end }
end

local function mean(list)
  local sum = 0
  for _, sample in ipairs(list) do sum = sum + sample[2] end
  return sum / #list
end

local function peak(list)
  local high = list[1][2]
  for _, sample in ipairs(list) do high = math.max(high, sample[2]) end
  return high
end

-- The fields that `-o csv` and `-o json` show when none are named.
local usual = {
  plain("index", nil, "index"),
  plain("name", nil, "name"),
  plain("uuid", nil, "uuid"),
  plain("pci.bus_id", nil, "pci_bus_id"),
  from_look("driver_version", function(look) return look.driver end),
  from_look("count", function(look) return #look.devices end),
  mib("memory.total", "memory_total"),
  mib("memory.reserved", "memory_reserved"),
  mib("memory.used", "memory_used"),
  mib("memory.free", "memory_free"),
  plain("utilization.gpu", "%", "utilization_gpu"),
  plain("utilization.memory", "%", "utilization_memory"),
  plain("utilization.encoder", "%", "utilization_encoder"),
  plain("utilization.decoder", "%", "utilization_decoder"),
  plain("temperature.gpu", nil, "temperature"),
  plain("temperature.memory", nil, "temperature_memory"),
  plain("power.draw", "W", "power", "%.2f"),
  plain("enforced.power.limit", "W", "power_limit", "%.2f"),
  plain("power.default_limit", "W", "power_default_limit", "%.2f"),
  plain("power.min_limit", "W", "power_min_limit", "%.2f"),
  plain("power.max_limit", "W", "power_max_limit", "%.2f"),
  plain("clocks.current.graphics", "MHz", "clock_graphics"),
  plain("clocks.current.sm", "MHz", "clock_sm"),
  plain("clocks.current.memory", "MHz", "clock_memory"),
  plain("clocks.current.video", "MHz", "clock_video"),
  plain("clocks.max.graphics", "MHz", "clock_max_graphics"),
  plain("clocks.max.sm", "MHz", "clock_max_sm"),
  plain("clocks.max.memory", "MHz", "clock_max_memory"),
  hex("clocks_event_reasons.active", "clock_reason_bits", 16),
  plain("pstate", nil, "performance_state"),
  switch("ecc.mode.current", "ecc_mode", "Enabled", "Disabled"),
  plain("ecc.errors.corrected.volatile.total", nil, "ecc_corrected"),
  plain("ecc.errors.uncorrected.volatile.total", nil, "ecc_uncorrected"),
  plain("ecc.errors.corrected.aggregate.total", nil, "ecc_corrected_aggregate"),
  plain("ecc.errors.uncorrected.aggregate.total", nil, "ecc_uncorrected_aggregate"),
  plain("retired_pages.single_bit_ecc.count", nil, "retired_single_bit"),
  plain("retired_pages.double_bit.count", nil, "retired_double_bit"),
  switch("retired_pages.pending", "retired_pending", "Yes", "No"),
  plain("pcie.link.gen.current", nil, "pcie_generation"),
  plain("pcie.link.gen.max", nil, "pcie_generation_max"),
  plain("pcie.link.width.current", nil, "pcie_width"),
  plain("pcie.link.width.max", nil, "pcie_width_max"),
  switch("persistence_mode", "persistence_mode", "Enabled", "Disabled"),
  plain("compute_mode", nil, "compute_mode"),
  switch("mig.mode.current", "mig_mode", "Enabled", "Disabled"),
}

-- Those that one has to name, or `--query all`.
local more = {
  plain("serial", nil, "serial"),
  plain("vbios_version", nil, "vbios_version"),
  plain("compute_cap", nil, "compute_capability"),
  hex("pci.domain", "pci_domain", 4),
  hex("pci.bus", "pci_bus", 2),
  hex("pci.device", "pci_device", 2),
  hex("pci.device_id", "pci_device_id", 8),
  hex("pci.sub_device_id", "pci_sub_device_id", 8),
  plain("fan.speed", "%", "fan_speed"),
  plain("utilization.jpeg", "%", "utilization_jpeg"),
  plain("utilization.ofa", "%", "utilization_ofa"),
  plain("temperature.gpu.tlimit", nil, "temperature_margin"),
  switch("power.management", "power_management", "Enabled", "Disabled"),
  plain("power.draw.average", "W", "power_average", "%.2f"),
  plain("power.draw.instant", "W", "power_instant", "%.2f"),
  plain("power.limit", "W", "power_requested_limit", "%.2f"),
  plain("clocks.applications.graphics", "MHz", "clock_applications_graphics"),
  plain("clocks.applications.memory", "MHz", "clock_applications_memory"),
  plain("clocks.default_applications.graphics", "MHz", "clock_default_graphics"),
  plain("clocks.default_applications.memory", "MHz", "clock_default_memory"),
  hex("clocks_event_reasons.supported", "clock_reasons_supported", 16),
  reason("gpu_idle", 0x1),
  reason("applications_clocks_setting", 0x2),
  reason("sw_power_cap", 0x4),
  reason("hw_slowdown", 0x8),
  reason("sync_boost", 0x10),
  reason("sw_thermal_slowdown", 0x20),
  reason("hw_thermal_slowdown", 0x40),
  reason("hw_power_brake_slowdown", 0x80),
  switch("ecc.mode.pending", "ecc_mode_pending", "Enabled", "Disabled"),
  plain("ecc.errors.corrected.volatile.dram", nil, "ecc_dram_corrected"),
  plain("ecc.errors.uncorrected.volatile.dram", nil, "ecc_dram_uncorrected"),
  plain("ecc.errors.corrected.aggregate.dram", nil, "ecc_dram_corrected_aggregate"),
  plain("ecc.errors.uncorrected.aggregate.dram", nil, "ecc_dram_uncorrected_aggregate"),
  plain("ecc.errors.corrected.volatile.sram", nil, "ecc_sram_corrected"),
  plain("ecc.errors.uncorrected.volatile.sram", nil, "ecc_sram_uncorrected"),
  plain("ecc.errors.corrected.aggregate.sram", nil, "ecc_sram_corrected_aggregate"),
  plain("ecc.errors.uncorrected.aggregate.sram", nil, "ecc_sram_uncorrected_aggregate"),
  plain("remapped_rows.correctable", nil, "remapped_corrected"),
  plain("remapped_rows.uncorrectable", nil, "remapped_uncorrected"),
  switch("remapped_rows.pending", "remapped_pending", "Yes", "No"),
  switch("remapped_rows.failure", "remapped_failure", "Yes", "No"),
  plain("remapped_rows.histogram.max", nil, "remap_banks_max"),
  plain("remapped_rows.histogram.high", nil, "remap_banks_high"),
  plain("remapped_rows.histogram.partial", nil, "remap_banks_partial"),
  plain("remapped_rows.histogram.low", nil, "remap_banks_low"),
  plain("remapped_rows.histogram.none", nil, "remap_banks_none"),
  plain("pcie.link.gen.gpumax", nil, "pcie_generation_gpu_max"),
  switch("mig.mode.pending", "mig_mode_pending", "Enabled", "Disabled"),
  switch("display_active", "display_active", "Enabled", "Disabled"),
}

-- What nvidia-smi has no name for in --query-gpu.
local own = {
  from_look("cuda_version", function(look) return look.cuda end),
  plain("minor_number", nil, "minor"),
  plain("numa.node", nil, "numa_node"),
  mib("bar1.total", "bar1_total"),
  mib("bar1.used", "bar1_used"),
  plain("temperature.shutdown", nil, "temperature_shutdown"),
  plain("temperature.slowdown", nil, "temperature_slowdown"),
  plain("temperature.max_operating", nil, "temperature_max"),
  plain("energy", "J", "energy", "%.3f"),
  plain("pcie.replays", nil, "pcie_replays"),
  plain("pcie.tx", "KB/s", "pcie_tx"),
  plain("pcie.rx", "KB/s", "pcie_rx"),
  plain("nvlink.active", nil, "nvlinks_active"),
  plain("nvlink.speed", "MB/s", "nvlink_speed"),
  mib("nvlink.tx", "nvlink_tx"),
  mib("nvlink.rx", "nvlink_rx"),
  sampled("utilization.gpu.average", "%", "gpu", mean, "%.1f"),
  sampled("utilization.gpu.peak", "%", "gpu", peak),
  sampled("utilization.memory.average", "%", "memory", mean, "%.1f"),
  sampled("utilization.memory.peak", "%", "memory", peak),
  sampled("power.draw.peak", "W", "power", peak, "%.2f"),
}

-- When nvidia-smi wrote the row, in local time; only by name, for it is of the look and not of the GPU.
local timestamp = from_look("timestamp", function(look)
  if not look.timestamp then
    local now = require("eirun.task").now()
    look.timestamp = os.date("%Y/%m/%d %H:%M:%S", now // 1 | 0) .. (".%03d"):format(now % 1 * 1000 // 1 | 0)
  end
  return look.timestamp
end)

-- Other names that nvidia-smi takes.
local also = {
  gpu_name = "name", gpu_uuid = "uuid", gpu_bus_id = "pci.bus_id", gpu_serial = "serial", ["clocks.gr"] = "clocks.current.graphics",
  ["clocks.sm"] = "clocks.current.sm", ["clocks.mem"] = "clocks.current.memory", ["clocks.video"] = "clocks.current.video",
  ["clocks.max.gr"] = "clocks.max.graphics", ["clocks.max.mem"] = "clocks.max.memory",
  ["clocks.applications.gr"] = "clocks.applications.graphics", ["clocks.applications.mem"] = "clocks.applications.memory",
  ["clocks.default_applications.gr"] = "clocks.default_applications.graphics",
  ["clocks.default_applications.mem"] = "clocks.default_applications.memory",
  ["retired_pages.sbe"] = "retired_pages.single_bit_ecc.count", ["retired_pages.dbe"] = "retired_pages.double_bit.count",
  ["remapped_rows.sbe"] = "remapped_rows.correctable", ["remapped_rows.dbe"] = "remapped_rows.uncorrectable",
  ["gpu.power.draw.average"] = "power.draw.average", ["gpu.power.draw.instant"] = "power.draw.instant",
  ["gpu.power.requested_limit"] = "power.limit", ["gpu.power.current_limit"] = "enforced.power.limit",
  ["gpu.power.default_limit"] = "power.default_limit", ["gpu.power.min_limit"] = "power.min_limit",
  ["gpu.power.max_limit"] = "power.max_limit", ["pcie.link.gen.gpucurrent"] = "pcie.link.gen.current",
}

M.names, M.usual, M.by_name = {}, {}, { timestamp = timestamp }
for _, list in ipairs { usual, more, own } do
  for _, field in ipairs(list) do
    M.names[#M.names + 1] = field.name
    M.by_name[field.name] = field
    local throttle, found = field.name:gsub("^clocks_event_reasons", "clocks_throttle_reasons")
    if found > 0 then also[throttle] = field.name end
  end
end
for i, field in ipairs(usual) do M.usual[i] = field.name end

---The fields of a list as "name,memory.used"; "all" is every one, nil those that are usual. Nil and the word where one is unknown.
---@param text string|nil
---@return table[]|nil fields
---@return string|nil unknown
function M.pick(text)
  if text == nil or text == "all" then
    text = table.concat(text and M.names or M.usual, ",")
  end
  local list = {}
  for word in text:gmatch("[^,%s]+") do
    local field = M.by_name[also[word] or word]
    if not field then return nil, word end
    list[#list + 1] = { name = word, unit = field.unit, get = field.get, format = field.format, keys = field.keys, samples = field.samples }
  end
  return list
end

---What a look must ask the driver for, to show these fields and nothing else.
---@param list table[] of pick
---@return {fields: string[], samples: boolean}
function M.wish(list)
  local keys, seen, samples = {}, { index = true }, false
  for _, field in ipairs(list) do
    samples = samples or field.samples or false
    for _, key in ipairs(field.keys) do
      if not seen[key] then keys[#keys + 1] = key end
      seen[key] = true
    end
  end
  return { fields = keys, samples = samples }
end

-- "81559 MiB", "[N/A]", as nvidia-smi prints it; with nounits "81559".
function M.show(field, device, look, nounits)
  local value = field.get(device, look)
  if value == nil then return device.lost and "[GPU is lost]" or "[N/A]" end
  local text = field.format and field.format:format(value) or tostring(value)
  return field.unit and not nounits and text .. " " .. field.unit or text
end

return M
