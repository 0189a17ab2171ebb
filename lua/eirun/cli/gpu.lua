-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu: the GPUs of this machine, who uses them and how they are wired.
local M = {}

M.verb = {
  name = "gpu", args = "[list|processes|top|topo|metrics]", module = "eirun.cli.gpu",
  summary = "show the GPUs of this machine and their use",
  text = { "Asks the NVIDIA driver itself; what it does not tell is n/a. Without a driver the list is empty and the exit code 0." },
  words = {
    { "list", "one line a GPU (the default)" },
    { "processes", "who uses them, with container and pod" },
    { "top", "a live view with the last minute's use" },
    { "topo", "how they are wired: NV (NVLink), PIX, PXB, PHB, NODE, SYS, as nvidia-smi topo says it" },
    { "metrics", "Prometheus text under dcgm-exporter's names" },
  },
  options = {
    { name = "output", short = "o", arg = "FORMAT", values = { "text", "wide", "csv", "json" }, help = "of list and processes" },
    { name = "query", arg = "FIELDS", help = "of list: fields of `nvidia-smi --query-gpu`, as name,memory.used; for csv and json" },
    { name = "watch", arg = "SECONDS", optional = true, help = "look again and again (default: each second)" },
    { name = "count", arg = "N", type = "integer", help = "with --watch and top: end after N looks" },
    { name = "timeout", arg = "SECONDS", help = "how long the driver may take (default 5)" },
    { name = "require", help = "exit code 1 where there is no driver or no GPU" },
  },
}

local function usage(text)
  require("eirun.errors").raise("invalid", text, { code = "usage" })
end

local function seconds(options, key, otherwise)
  local text = options[key]
  if text == nil or text == true then return otherwise end
  local value = tonumber(text)
  if not value or not (value > 0 and value < 1e6) then usage(("--%s wants seconds, not '%s'"):format(key, text)) end
  return value
end

local function write(text)
  require("eirun.core.term").write(1, text)
end

local function shown(value, format)
  return value and (format or "%s"):format(value) or "n/a"
end

local function gib(bytes)
  return bytes and ("%.1f"):format(bytes / (1 << 30)) or "n/a"
end

-- Columns as wide as their widest cell.
local function columns(rows)
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

local function memory(device)
  return gib(device.memory_used) .. "/" .. gib(device.memory_total)
end

local function power(device)
  return shown(device.power, "%.0f") .. "/" .. shown(device.power_limit, "%.0f")
end

local list_columns = {
  { "GPU", function(device) return tostring(device.index) end },
  { "NAME", function(device) return device.name or device.unreadable or (device.lost and "lost") or "n/a" end },
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

local function heading(look)
  return ("driver %s, CUDA %s\n"):format(look.driver or "n/a", look.cuda or "n/a")
end

-- "memory.used [MiB]", as nvidia-smi heads its columns.
local function csv(look, fields)
  local module, lines, head = require "eirun.gpu.fields", {}, {}
  for i, field in ipairs(fields) do head[i] = field.unit and ("%s [%s]"):format(field.name, field.unit) or field.name end
  lines[1] = table.concat(head, ", ")
  for _, device in ipairs(look.devices) do
    local row = {}
    for i, field in ipairs(fields) do row[i] = module.show(field, device, look) end
    lines[#lines + 1] = table.concat(row, ", ")
  end
  return table.concat(lines, "\n") .. "\n"
end

local function json_device(look, device, fields, json)
  local object = { lost = device.lost }
  for _, field in ipairs(fields) do
    local value = field.get(device, look)
    object[field.name] = value == nil and json.null or value
  end
  return object
end

local function as_json(look, fields)
  local json = require "eirun.core.json"
  local list = json.array {}
  for i, device in ipairs(look.devices) do list[i] = json_device(look, device, fields, json) end
  return json.encode { driver = look.driver, cuda = look.cuda, missing = look.missing, gpus = list } .. "\n"
end

local function chosen_fields(options)
  local fields = require "eirun.gpu.fields"
  local list, unknown = fields.pick(options.query or table.concat(fields.names, ","))
  if not list then
    local near = require("eirun.spec").nearest(unknown, fields.by_name)
    usage(("unknown field '%s'%s"):format(unknown, near and (", did you mean '%s'?"):format(near) or ""))
  end
  return list
end

local function show_list(look, options)
  if options.output == "csv" then return csv(look, chosen_fields(options)) end
  if options.output == "json" then return as_json(look, chosen_fields(options)) end
  return heading(look) .. columns(device_rows(look, options.output == "wide"))
end

local process_fields = { "gpu", "uuid", "pid", "type", "memory", "sm", "name", "container", "pod" }

local function processes_of(look)
  local list = {}
  for _, device in ipairs(look.devices) do
    for _, process in ipairs(device.processes) do
      list[#list + 1] = { gpu = device.index, uuid = device.uuid, pid = process.pid, type = process.type, memory = process.memory,
        sm = process.utilization_sm, name = process.name, container = process.container, pod = process.pod }
    end
  end
  return list
end

local function process_csv(list)
  local lines = { "gpu, gpu_uuid, pid, process_name, used_gpu_memory [MiB]" }
  for _, process in ipairs(list) do
    local used = process.memory and ("%d MiB"):format(process.memory // (1 << 20)) or "[N/A]"
    lines[#lines + 1] = ("%d, %s, %d, %s, %s"):format(process.gpu, shown(process.uuid), process.pid, process.name, used)
  end
  return table.concat(lines, "\n") .. "\n"
end

local function process_row(process, wide)
  local function id(text) return text and (wide and text or text:sub(1, 12)) or "-" end
  return { tostring(process.gpu), tostring(process.pid), process.type, shown(process.memory and process.memory // (1 << 20)),
    shown(process.sm), id(process.container), process.pod or "-", (process.name:gsub("%c", "?")) }
end

local function show_processes(look, options)
  local list = processes_of(look)
  if options.output == "csv" then return process_csv(list) end
  if options.output == "json" then
    local json = require "eirun.core.json"
    for _, process in ipairs(list) do
      for _, key in ipairs(process_fields) do
        if process[key] == nil then process[key] = json.null end
      end
    end
    return json.encode(json.array(list)) .. "\n"
  end
  local rows = { { "GPU", "PID", "TYPE", "MEMORY MiB", "SM%", "CONTAINER", "POD", "NAME" } }
  for _, process in ipairs(list) do rows[#rows + 1] = process_row(process, options.output == "wide") end
  return columns(rows)
end

-- NVML's levels of a common ancestor.
local levels = { [0] = "X", [10] = "PIX", [20] = "PXB", [30] = "PHB", [40] = "NODE", [50] = "SYS" }

local function link_text(look, i, j)
  if i == j then return "X" end
  local link = look.links[i][j]
  if link.nvlink then return "NV" .. (look.devices[i].nvlinks_active or "") end
  return levels[link.ancestor] or "n/a"
end

local function show_topology(look)
  local rows = { { "" } }
  for i, device in ipairs(look.devices) do
    rows[1][i + 1] = "GPU" .. device.index
    rows[i + 1] = { "GPU" .. device.index }
    for j = 1, #look.devices do rows[i + 1][j + 1] = link_text(look, i, j) end
    table.insert(rows[i + 1], shown(device.numa_node))
  end
  table.insert(rows[1], "NUMA")
  return columns(rows)
end

local HISTORY = 60

local function top_line(device, chart, show)
  local past = device.history
  local line = chart.sparkline(past, 30, { unicode = show.unicode, high = 100 })
  return ("GPU %d  %s  %3s%%  %s  %s GiB  %s C  %s W\n"):format(device.index, line,
    shown(device.utilization_gpu), device.name or "n/a", memory(device), shown(device.temperature), power(device))
end

-- Where somebody looks, each frame is drawn over the last one.
local function top_view(options)
  local chart = require "eirun.chart"
  local show, past = chart.terminal(1), {}
  local live = require("eirun.core.term").isatty(1)
  return function(look)
    local text = { live and "\27[H\27[J" or "", heading(look) }
    for _, device in ipairs(look.devices) do
      local key = device.uuid or device.index
      past[key] = past[key] or {}
      table.insert(past[key], device.utilization_gpu or 0)
      if #past[key] > HISTORY then table.remove(past[key], 1) end
      device.history = past[key]
      text[#text + 1] = top_line(device, chart, show)
    end
    return table.concat(text) .. "\n" .. show_processes(look, {})
  end
end

local function show_metrics(look)
  return require("eirun.gpu.metrics").write(look, require("eirun.core.os").hostname())
end

local views = {
  list = function() return show_list end,
  processes = function() return show_processes end,
  topo = function() return show_topology end,
  metrics = function() return show_metrics end,
  top = top_view,
}

-- Nobody need read an empty table to learn that there is no driver; what programs read stays what they know.
local function tell_missing(look)
  if #look.devices > 0 then return end
  require("eirun.core.term").write(2, "eirun: " .. (look.missing or "the driver finds no GPU") .. "\n")
end

local function check_words(words, options)
  local what = words[1] or "list"
  if not views[what] then
    usage(("gpu shows list, processes, top, topo or metrics, not '%s'"):format(what))
  end
  if words[2] then usage(("gpu takes one word; '%s' is one too many"):format(words[2])) end
  if options.count and options.count < 1 then usage "--count wants a number from 1 on" end
  if options.query then chosen_fields(options) end
  return what
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  local what = check_words(words, options)
  local view = views[what](options)
  local opts = { timeout = seconds(options, "timeout", 5), topology = what == "topo", required = options.require,
    processes = what ~= "topo" and what ~= "metrics" and not (what == "list" and (options.output == "csv" or options.output == "json")) }
  local again = (options.watch or what == "top") and (options.count or math.huge) or 1
  local pause, round = seconds(options, "watch", 1), 0
  repeat
    if round > 0 then require("eirun.task").sleep(pause) end
    round = round + 1
    local look = require("eirun.gpu").snapshot(opts)
    if round == 1 then tell_missing(look) end
    if #look.devices > 0 or options.output == "json" or options.output == "csv" then write(view(look, options)) end
  until round >= again or #look.devices == 0
  return 0
end

return M
