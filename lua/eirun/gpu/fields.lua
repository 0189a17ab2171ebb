-- SPDX-License-Identifier: Apache-2.0
-- The fields of `nvidia-smi --query-gpu`, by its names and in its units.
local M = {}

local function mib(key)
  return function(device) return device[key] and device[key] // (1 << 20) end
end

local function plain(key)
  return function(device) return device[key] end
end

local function switch(key, on, off)
  return function(device) return device[key] and (device[key] == 0 and off or on) end
end

local function reasons(device)
  return device.clock_reason_bits and ("0x%016X"):format(device.clock_reason_bits)
end

-- { name, unit, how to get it from a device (and the whole look), format }
local rows = {
  { "index", nil, plain "index" },
  { "name", nil, plain "name" },
  { "uuid", nil, plain "uuid" },
  { "pci.bus_id", nil, plain "pci_bus_id" },
  { "driver_version", nil, function(_, look) return look.driver end },
  { "count", nil, function(_, look) return #look.devices end },
  { "memory.total", "MiB", mib "memory_total" },
  { "memory.reserved", "MiB", mib "memory_reserved" },
  { "memory.used", "MiB", mib "memory_used" },
  { "memory.free", "MiB", mib "memory_free" },
  { "utilization.gpu", "%", plain "utilization_gpu" },
  { "utilization.memory", "%", plain "utilization_memory" },
  { "utilization.encoder", "%", plain "utilization_encoder" },
  { "utilization.decoder", "%", plain "utilization_decoder" },
  { "temperature.gpu", nil, plain "temperature" },
  { "temperature.memory", nil, plain "temperature_memory" },
  { "power.draw", "W", plain "power", "%.2f" },
  { "enforced.power.limit", "W", plain "power_limit", "%.2f" },
  { "power.default_limit", "W", plain "power_default_limit", "%.2f" },
  { "power.min_limit", "W", plain "power_min_limit", "%.2f" },
  { "power.max_limit", "W", plain "power_max_limit", "%.2f" },
  { "clocks.current.graphics", "MHz", plain "clock_graphics" },
  { "clocks.current.sm", "MHz", plain "clock_sm" },
  { "clocks.current.memory", "MHz", plain "clock_memory" },
  { "clocks.current.video", "MHz", plain "clock_video" },
  { "clocks.max.graphics", "MHz", plain "clock_max_graphics" },
  { "clocks.max.sm", "MHz", plain "clock_max_sm" },
  { "clocks.max.memory", "MHz", plain "clock_max_memory" },
  { "clocks_event_reasons.active", nil, reasons },
  { "pstate", nil, plain "performance_state" },
  { "ecc.mode.current", nil, switch("ecc_mode", "Enabled", "Disabled") },
  { "ecc.errors.corrected.volatile.total", nil, plain "ecc_corrected" },
  { "ecc.errors.uncorrected.volatile.total", nil, plain "ecc_uncorrected" },
  { "ecc.errors.corrected.aggregate.total", nil, plain "ecc_corrected_aggregate" },
  { "ecc.errors.uncorrected.aggregate.total", nil, plain "ecc_uncorrected_aggregate" },
  { "retired_pages.single_bit_ecc.count", nil, plain "retired_single_bit" },
  { "retired_pages.double_bit.count", nil, plain "retired_double_bit" },
  { "retired_pages.pending", nil, switch("retired_pending", "Yes", "No") },
  { "pcie.link.gen.current", nil, plain "pcie_generation" },
  { "pcie.link.gen.max", nil, plain "pcie_generation_max" },
  { "pcie.link.width.current", nil, plain "pcie_width" },
  { "pcie.link.width.max", nil, plain "pcie_width_max" },
  { "persistence_mode", nil, switch("persistence_mode", "Enabled", "Disabled") },
  { "compute_mode", nil, plain "compute_mode" },
  { "mig.mode.current", nil, switch("mig_mode", "Enabled", "Disabled") },
}

-- Shorter names that nvidia-smi takes too.
local also = {
  gpu_name = "name", gpu_uuid = "uuid", gpu_bus_id = "pci.bus_id", ["clocks.gr"] = "clocks.current.graphics",
  ["clocks.sm"] = "clocks.current.sm", ["clocks.mem"] = "clocks.current.memory", ["clocks.video"] = "clocks.current.video",
  ["clocks.max.gr"] = "clocks.max.graphics", ["clocks.max.mem"] = "clocks.max.memory",
  ["clocks_throttle_reasons.active"] = "clocks_event_reasons.active",
}

M.names, M.by_name = {}, {}
for _, row in ipairs(rows) do
  M.names[#M.names + 1] = row[1]
  M.by_name[row[1]] = { name = row[1], unit = row[2], get = row[3], format = row[4] }
end

---The fields of a list as "name,memory.used"; nil and the word where one is unknown.
---@param text string
---@return table[]|nil fields
---@return string|nil unknown
function M.pick(text)
  local list = {}
  for word in text:gmatch("[^,%s]+") do
    local field = M.by_name[also[word] or word]
    if not field then return nil, word end
    list[#list + 1] = { name = word, unit = field.unit, get = field.get, format = field.format }
  end
  return list
end

-- "81559 MiB", "[N/A]", as nvidia-smi prints it.
function M.show(field, device, look)
  local value = field.get(device, look)
  if value == nil then return device.lost and "[GPU is lost]" or "[N/A]" end
  local text = field.format and field.format:format(value) or tostring(value)
  return field.unit and text .. " " .. field.unit or text
end

return M
