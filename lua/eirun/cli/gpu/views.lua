-- SPDX-License-Identifier: Apache-2.0
-- What `eirun gpu` shows of this machine: tables for people, csv and json for programs.
local M = {}

local function shown(value, format)
  return value and (format or "%s"):format(value) or "n/a"
end

local function mib(bytes)
  return (bytes + (1 << 20) - 1) >> 20 -- as nvidia-smi rounds
end

local function gib(bytes)
  return bytes and ("%.1f"):format(bytes / (1 << 30)) or "n/a"
end

---Columns as wide as their widest cell.
---@param rows string[][]
---@return string
function M.columns(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, #cell) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = cell .. (" "):rep(widths[i] - #cell) end
    lines[#lines + 1] = table.concat(cells, "  "):gsub("%s+$", "") .. "\n"
  end
  return table.concat(lines)
end

-- Comma and blank between the cells, as nvidia-smi writes csv.
local function lines_of(rows)
  local lines = {}
  for i, row in ipairs(rows) do lines[i] = table.concat(row, ", ") .. "\n" end
  return table.concat(lines)
end

local function memory(device)
  return gib(device.memory_used) .. "/" .. gib(device.memory_total)
end

local function power(device)
  return shown(device.power, "%.0f") .. "/" .. shown(device.power_limit, "%.0f")
end

local function name_of(device)
  if device.lost then return device.name and "lost: " .. device.name or "lost" end
  return device.name or device.unreadable or "n/a"
end

local list_columns = {
  { "GPU", function(device) return tostring(device.index) end },
  { "NAME", name_of },
  { "UTIL%", function(device) return shown(device.utilization_gpu) end },
  { "MEMORY GiB", memory },
  { "TEMP", function(device) return shown(device.temperature) end },
  { "POWER W", power },
  { "PROCESSES", function(device) return tostring(#device.processes) end },
}

local wide_columns = {
  { "STATE", function(device) return device.lost and "lost" or device.performance_state or "n/a" end },
  { "SM MHz", function(device) return shown(device.clock_sm) end },
  { "HELD BACK BY", function(device)
    if not device.clock_reasons then return "n/a" end
    return #device.clock_reasons > 0 and table.concat(device.clock_reasons, ", ") or "-"
  end },
  { "ECC", function(device) return shown(device.ecc_corrected) .. "/" .. shown(device.ecc_uncorrected) end },
  { "MIG", function(device) return tostring(#device.mig) end },
  { "BUS", function(device) return shown(device.pci_bus_id) end },
  { "UUID", function(device) return shown(device.uuid) end },
}

local function device_rows(look, wide)
  local chosen = table.move(list_columns, 1, #list_columns, 1, {})
  if wide then table.move(wide_columns, 1, #wide_columns, #chosen + 1, chosen) end
  local rows = { {} }
  for i, column in ipairs(chosen) do rows[1][i] = column[1] end
  for _, device in ipairs(look.devices) do
    local row = {}
    for i, column in ipairs(chosen) do row[i] = column[2](device) end
    rows[#rows + 1] = row
  end
  return rows
end

-- "  MIG 0:7  1g.10gb ...", a line for each instance.
local function instance_rows(look)
  local rows = {}
  for _, device in ipairs(look.devices) do
    for _, instance in ipairs(device.mig) do
      rows[#rows + 1] = { ("  MIG %d:%s"):format(device.index, instance.gpu_instance or "?"), instance.name or "n/a",
        memory(instance) .. " GiB", instance.uuid or "n/a" }
    end
  end
  return rows
end

local function heading(look)
  return ("driver %s, CUDA %s\n"):format(look.driver or "n/a", look.cuda or "n/a")
end

-- "memory.used [MiB]", as nvidia-smi heads its columns.
local function csv_head(fields)
  local head = {}
  for i, field in ipairs(fields) do head[i] = field.unit and ("%s [%s]"):format(field.name, field.unit) or field.name end
  return head
end

local function csv(look, options, with_head)
  local module, fields = require "eirun.gpu.fields", options.fields
  local rows = { with_head and csv_head(fields) or nil }
  for _, device in ipairs(look.devices) do
    local row = {}
    for i, field in ipairs(fields) do row[i] = module.show(field, device, look, options.nounits) end
    rows[#rows + 1] = row
  end
  return lines_of(rows)
end

local function json_device(look, device, fields, json)
  local object = { lost = device.lost }
  for _, field in ipairs(fields) do
    local value = field.get(device, look)
    object[field.name] = value == nil and json.null or value
  end
  object.mig = json.array {}
  for i, instance in ipairs(device.mig) do
    object.mig[i] = { name = instance.name, uuid = instance.uuid, gpu_instance = instance.gpu_instance,
      compute_instance = instance.compute_instance, ["memory.total"] = instance.memory_total and mib(instance.memory_total),
      ["memory.used"] = instance.memory_used and mib(instance.memory_used) }
  end
  return object
end

local function as_json(look, fields)
  local json = require "eirun.core.json"
  local list = json.array {}
  for i, device in ipairs(look.devices) do list[i] = json_device(look, device, fields, json) end
  return json.encode { driver = look.driver, cuda = look.cuda, missing = look.missing, gpus = list } .. "\n"
end

-- Which look this is counts for csv: it has its head once, as nvidia-smi's loop.
local function wants_head(options, round)
  return round == 1 and not options.noheader
end

local function show_list(look, options, round)
  if options.output == "csv" then return csv(look, options, wants_head(options, round)) end
  if options.output == "json" then return as_json(look, options.fields) end
  return heading(look) .. M.columns(device_rows(look, options.output == "wide")) .. M.columns(instance_rows(look))
end

local process_fields = { "gpu", "uuid", "pid", "type", "memory", "sm", "memory_utilization", "gpu_instance", "name", "container", "pod" }

local function processes_of(look)
  local list = {}
  for _, device in ipairs(look.devices) do
    for _, process in ipairs(device.processes) do
      list[#list + 1] = { gpu = device.index, uuid = device.uuid, pid = process.pid, type = process.type, memory = process.memory,
        sm = process.utilization_sm, memory_utilization = process.utilization_memory, gpu_instance = process.gpu_instance,
        gpu_name = device.name, bus = device.pci_bus_id, name = process.name, container = process.container, pod = process.pod }
    end
  end
  return list
end

-- The columns of nvidia-smi --query-compute-apps, then ours.
local process_columns = {
  { "gpu", function(p) return p.gpu end },
  { "gpu_uuid", function(p) return shown(p.uuid) end },
  { "pid", function(p) return p.pid end },
  { "process_name", function(p) return p.name end },
  { "used_gpu_memory [MiB]", function(p) return p.memory and mib(p.memory) .. " MiB" or "[N/A]" end },
  { "sm [%]", function(p) return p.sm and p.sm .. " %" or "[N/A]" end },
  { "mem [%]", function(p) return p.memory_utilization and p.memory_utilization .. " %" or "[N/A]" end },
  { "container", function(p) return p.container or "" end },
  { "pod", function(p) return p.pod or "" end },
}

local function process_csv(list, options, round)
  local rows = { wants_head(options, round) and {} or nil }
  for i, column in ipairs(rows[1] and process_columns or {}) do rows[1][i] = column[1] end
  for _, process in ipairs(list) do
    local row = {}
    for i, column in ipairs(process_columns) do
      local cell = tostring(column[2](process))
      row[i] = options.nounits and cell:match "^(%d+) [%a%%]+$" or cell
    end
    rows[#rows + 1] = row
  end
  return lines_of(rows)
end

local function process_row(process, wide)
  local function id(text) return text and (wide and text or text:sub(1, 12)) or "-" end
  return { tostring(process.gpu), tostring(process.pid), process.type, shown(process.memory and mib(process.memory)),
    shown(process.sm), shown(process.memory_utilization), id(process.container), process.pod or "-", process.name }
end

local function show_processes(look, options, round)
  local list = processes_of(look)
  if options.output == "csv" then return process_csv(list, options, round) end
  if options.output == "json" then
    local json = require "eirun.core.json"
    for _, process in ipairs(list) do
      for _, key in ipairs(process_fields) do
        if process[key] == nil then process[key] = json.null end
      end
    end
    return json.encode(json.array(list)) .. "\n"
  end
  local rows = { { "GPU", "PID", "TYPE", "MEMORY MiB", "SM%", "MEM%", "CONTAINER", "POD", "NAME" } }
  for _, process in ipairs(list) do rows[#rows + 1] = process_row(process, options.output == "wide") end
  return M.columns(rows)
end

-- NVML's levels of a common ancestor.
local levels = { [0] = "X", [10] = "PIX", [20] = "PXB", [30] = "PHB", [40] = "NODE", [50] = "SYS" }

local function link_text(look, i, j)
  if i == j then return "X" end
  local link = look.links[i][j]
  if link.nvlink then return "NV" .. (look.devices[i].nvlinks_active or "") end
  return levels[link.ancestor] or "n/a"
end

local function topology_rows(look)
  local rows = { { "" } }
  for i, device in ipairs(look.devices) do
    rows[1][i + 1] = "GPU" .. device.index
    rows[i + 1] = { "GPU" .. device.index }
    for j = 1, #look.devices do rows[i + 1][j + 1] = link_text(look, i, j) end
    table.insert(rows[i + 1], shown(device.numa_node))
  end
  table.insert(rows[1], "NUMA")
  return rows
end

-- The device at the other end of an NVLink, where it is one of this look.
local function remote_gpu(look, link)
  for _, device in ipairs(look.devices) do
    if link.remote and device.pci_bus_id == link.remote then return device.index end
  end
end

local function nvlink_row(look, device, link)
  local gpu = remote_gpu(look, link)
  local to = gpu and "GPU" .. gpu or link.remote_kind
  local crc = link.crc_errors or link.crc_flit_errors and link.crc_data_errors and link.crc_flit_errors + link.crc_data_errors
  return { "GPU" .. device.index, tostring(link.link), link.active and "active" or "inactive", shown(link.version), shown(link.speed),
    (to or "n/a") .. (link.remote and " " .. link.remote or ""), gib(link.tx), gib(link.rx),
    shown(link.replay_errors), shown(link.recovery_errors), shown(crc) }
end

local function nvlink_rows(look)
  local rows = { { "", "LINK", "STATE", "VERSION", "MB/s", "TO", "SENT GiB", "RECEIVED GiB", "REPLAYS", "RECOVERIES", "CRC ERRORS" } }
  for _, device in ipairs(look.devices) do
    for _, link in ipairs(device.nvlinks) do rows[#rows + 1] = nvlink_row(look, device, link) end
  end
  return rows
end

local function topology_json(look)
  local json = require "eirun.core.json"
  local gpus, links = json.array {}, json.array {}
  for i, device in ipairs(look.devices) do
    for _, link in ipairs(device.nvlinks) do link.remote_gpu = remote_gpu(look, link) end
    gpus[i] = { index = device.index, name = device.name or json.null, ["pci.bus_id"] = device.pci_bus_id or json.null,
      ["numa.node"] = device.numa_node or json.null, nvlinks = json.array(device.nvlinks) }
    links[i] = json.array {}
    for j = 1, #look.devices do
      links[i][j] = { path = link_text(look, i, j), nvlink = look.links[i][j].nvlink }
    end
  end
  return json.encode { driver = look.driver, missing = look.missing, gpus = gpus, links = links } .. "\n"
end

local function show_topology(look, options)
  if options.output == "json" then return topology_json(look) end
  local rows = topology_rows(look)
  if options.output == "csv" then
    rows[1][1] = "gpu"
    if options.noheader then table.remove(rows, 1) end
    return lines_of(rows)
  end
  local links = options.output == "wide" and nvlink_rows(look) or {}
  return M.columns(rows) .. (#links > 1 and "\n" .. M.columns(links) or "")
end

local HISTORY = 60

-- What stands beside the curve takes some 60 columns.
local function curve(device, chart, show)
  local width = math.max(8, math.min(30, show.width - 62))
  local past = device.history
  return (" "):rep(width - #past) .. chart.sparkline(past, width, { unicode = show.unicode, high = 100 })
end

local function top_line(device, chart, show)
  return ("GPU %-2d  %s  %3s%%  %s  %s GiB  %s C  %s W\n"):format(device.index, curve(device, chart, show),
    shown(device.utilization_gpu), name_of(device), memory(device), shown(device.temperature), power(device))
end

local function top_view(options)
  if options.output == "csv" or options.output == "json" then return show_list end
  local chart = require "eirun.chart"
  local past = {}
  return function(look)
    local text, show = { heading(look) }, chart.terminal(1) -- its size may have changed
    for _, device in ipairs(look.devices) do
      local key = device.uuid or device.index
      past[key] = past[key] or {}
      table.insert(past[key], device.utilization_gpu or 0)
      if #past[key] > HISTORY then table.remove(past[key], 1) end
      device.history = past[key]
      text[#text + 1] = top_line(device, chart, show)
    end
    return table.concat(text) .. "\n" .. show_processes(look, options)
  end
end

M.views = {
  list = function() return show_list end,
  processes = function() return show_processes end,
  topo = function() return show_topology end,
  top = top_view,
}

return M
