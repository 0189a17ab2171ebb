-- SPDX-License-Identifier: Apache-2.0
-- A look as Prometheus text, under the names of dcgm-exporter, so that dashboards made for it work.
local M = {}

local function plain(key)
  return { key, function(device) return device[key] end }
end

local function mib(key)
  return { key, function(device) return device[key] and device[key] // (1 << 20) end }
end

-- The driver's KB is a thousand bytes, measured over 20 ms.
local function pcie(key)
  return { key, function(device) return device[key] and device[key] * 1000 end }
end

-- Of all NVLinks together; nil where the driver tells it of none.
local function nvlinks(key)
  return { nil, function(device)
    local sum
    for _, link in ipairs(device.nvlinks or {}) do
      if link[key] then sum = (sum or 0) + link[key] end
    end
    return sum
  end }
end

-- { name, kind, help, { what the driver is asked for, value } }
local rows = {
  { "DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).", plain "clock_sm" },
  { "DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).", plain "clock_memory" },
  { "DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).", plain "temperature_memory" },
  { "DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", plain "temperature" },
  { "DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", plain "power" },
  { "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ).",
    { "energy", function(device) return device.energy and math.tointeger(device.energy * 1000 // 1) end } },
  { "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.", plain "pcie_replays" },
  { "DCGM_FI_PROF_PCIE_TX_BYTES", "gauge", "Bytes a second that the GPU sends over PCIe.", pcie "pcie_tx" },
  { "DCGM_FI_PROF_PCIE_RX_BYTES", "gauge", "Bytes a second that the GPU receives over PCIe.", pcie "pcie_rx" },
  { "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "gauge", "What goes through all NVLinks, both ways (in MB/s), since the last look.",
    { nil, function(device) return device.nvlink_bandwidth end } },
  { "DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", "counter", "Bytes sent over all NVLinks.", nvlinks "tx" },
  { "DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES", "counter", "Bytes received over all NVLinks.", nvlinks "rx" },
  { "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "counter", "Total number of NVLink flow-control CRC errors.",
    nvlinks "crc_flit_errors" },
  { "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "counter", "Total number of NVLink data CRC errors.", nvlinks "crc_data_errors" },
  { "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "counter", "Total number of NVLink retries.", nvlinks "replay_errors" },
  { "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "counter", "Total number of NVLink recovery errors.", nvlinks "recovery_errors" },
  { "DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", plain "utilization_gpu" },
  { "DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %).", plain "utilization_memory" },
  { "DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization (in %).", plain "utilization_encoder" },
  { "DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization (in %).", plain "utilization_decoder" },
  { "DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered.", { nil, function(device) return device.xid end } },
  { "DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).", mib "memory_free" },
  { "DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", mib "memory_used" },
  { "DCGM_FI_DEV_FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB).", mib "memory_reserved" },
  { "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "counter", "Total number of single-bit volatile ECC errors.", plain "ecc_corrected" },
  { "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter", "Total number of double-bit volatile ECC errors.", plain "ecc_uncorrected" },
  { "DCGM_FI_DEV_RETIRED_PENDING", "counter", "Total number of pages pending retirement.", plain "retired_pending" },
  { "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for uncorrectable errors",
    plain "remapped_uncorrected" },
  { "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for correctable errors",
    plain "remapped_corrected" },
  { "DCGM_FI_DEV_ROW_REMAP_PENDING", "gauge", "Whether remapping of rows is pending", plain "remapped_pending" },
  { "DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed", plain "remapped_failure" },
  { "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS", "gauge", "Why the clocks are held back, as bits", plain "clock_reason_bits" },
}

-- What a look must ask for to write all this.
M.fields = { "name", "uuid", "pci_bus_id", "minor" }
for _, row in ipairs(rows) do
  if row[4][1] then M.fields[#M.fields + 1] = row[4][1] end
end

---Notes on each device how fast its NVLinks were since the last time.
---@param look eirun.gpu.Snapshot
---@param at number seconds
---@param before table what the last call answered; empty at first
---@return table noted for the next call
function M.note_bandwidth(look, at, before)
  local noted = { at = at }
  for _, device in ipairs(look.devices) do
    local sum, count = 0, 0
    for _, link in ipairs(device.nvlinks or {}) do
      if link.tx and link.rx then sum, count = sum + link.tx + link.rx, count + 1 end
    end
    local last = before[device.uuid or device.index]
    noted[device.uuid or device.index] = count > 0 and sum or nil
    if count > 0 and last and sum >= last and at > before.at then -- a driver that was loaded anew counts from 0
      device.nvlink_bandwidth = math.tointeger((sum - last) / (at - before.at) / 1e6 // 1)
    end
  end
  return noted
end

local escapes = { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }

local function label(name, value)
  return ('%s="%s"'):format(name, tostring(value or ""):gsub('[\\"\n]', escapes))
end

-- The pod on a GPU, where there is one and no other.
local function pod_of(device)
  local uid
  for _, process in ipairs(device.processes or {}) do
    if process.pod and uid and process.pod ~= uid then return nil end
    uid = uid or process.pod
  end
  return uid
end

local function labels(device, look, host)
  local number = device.minor or device.index
  local pod = pod_of(device)
  return table.concat({
    label("gpu", device.index), label("UUID", device.uuid), label("pci_bus_id", device.pci_bus_id), label("device", "nvidia" .. number),
    label("modelName", device.name), label("Hostname", host), label("DCGM_FI_DRIVER_VERSION", look.driver),
    pod and label("pod_uid", pod),
  }, ",")
end

---@param look eirun.gpu.Snapshot
---@param host string name of this machine
---@return string text one block a metric that some device tells
function M.write(look, host)
  local lines = {}
  for _, row in ipairs(rows) do
    local name, kind, help, get, block = row[1], row[2], row[3], row[4][2], {}
    for _, device in ipairs(look.devices) do
      local value = get(device)
      if value then block[#block + 1] = ("%s{%s} %s"):format(name, labels(device, look, host), value) end
    end
    if #block > 0 then
      lines[#lines + 1] = ("# HELP %s %s\n# TYPE %s %s\n%s\n"):format(name, help, name, kind, table.concat(block, "\n"))
    end
  end
  return table.concat(lines)
end

return M
