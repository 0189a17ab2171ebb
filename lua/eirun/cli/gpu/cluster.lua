-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu cluster: what the cluster's GPUs are, whom they were given to, and whether they are used.
local gpu_cli = require "eirun.cli.gpu"

local M = {}

local function shown(value, format)
  return value and (format or "%s"):format(value) or "n/a"
end

local function gpus(value)
  return value and (value % 1 == 0 and ("%d"):format(value // 1 | 0) or ("%.2f"):format(value)) or "n/a"
end

local function gib(bytes)
  return bytes and ("%.1f"):format(bytes / (1 << 30)) or "n/a"
end

local function memory(used)
  return used and used.memory_used and gib(used.memory_used) .. (used.memory_total and "/" .. gib(used.memory_total) or "") or "n/a"
end

local function percent(used)
  return used and used.utilization and ("%.0f"):format(used.utilization) or "n/a"
end

-- Given and in all: of shared memory, or of MIG instances.
local function share(node)
  local part = node.share or node.mig
  return part and ("%s/%d%s"):format(shown(part.allocated), part.total, node.mig and " MIG" or "") or "-"
end

local node_columns = {
  { "NODE", function(n) return n.name end },
  { "STATE", function(n) return n.state end },
  { "MODEL", function(n) return shown(n.model) end },
  { "ZONE", function(n) return shown(n.zone) end },
  { "BILLING", function(n) return shown(n.billing) end },
  { "GPUS", function(n) return gpus(n.gpus) end },
  { "ALLOCATABLE", function(n) return gpus(n.allocatable) end },
  { "ALLOCATED", function(n) return gpus(n.allocated) end },
  { "SHARE", share },
  { "USED%", function(n) return percent(n.used) end },
  { "MEMORY GiB", function(n) return memory(n.used) end },
  { "PRICE/h", function(n) return shown(n.price, "%.2f") end },
  { "IDLE/h", function(n) return shown(n.idle_cost, "%.2f") end },
}

-- The same for programs: a number a column.
local csv_columns = {
  { "node", function(n) return n.name end },
  { "state", function(n) return n.state end },
  { "model", function(n) return shown(n.model) end },
  { "zone", function(n) return shown(n.zone) end },
  { "billing", function(n) return shown(n.billing) end },
  { "total", function(n) return gpus(n.gpus) end },
  { "allocatable", function(n) return gpus(n.allocatable) end },
  { "allocated", function(n) return gpus(n.allocated) end },
  { "gpu_mem_total", function(n) return shown(n.share and n.share.total) end },
  { "gpu_mem_allocated", function(n) return shown(n.share and n.share.allocated) end },
  { "utilization_percent", function(n) return percent(n.used) end },
  { "memory_used_gib", function(n) return gib(n.used and n.used.memory_used) end },
  { "memory_total_gib", function(n) return gib(n.used and n.used.memory_total) end },
  { "price_hour", function(n) return shown(n.price, "%.2f") end },
  { "idle_cost_hour", function(n) return shown(n.idle_cost, "%.2f") end },
  { "mig_total", function(n) return shown(n.mig and n.mig.total) end },
  { "mig_allocated", function(n) return shown(n.mig and n.mig.allocated) end },
}

local function given(job)
  return gpus(job.allocated) .. (job.mig > 0 and (" + %d MIG"):format(job.mig) or "")
end

local function places(list)
  return #list > 0 and table.concat(list, ",") or "n/a"
end

local job_columns = {
  { "JOB", function(j) return j.namespace .. "/" .. j.name .. (j.version and ":" .. j.version or "") end },
  { "KIND", function(j) return j.kind end },
  { "PODS", function(j) return tostring(j.pods) .. (j.pending > 0 and (" (%d waiting)"):format(j.pending) or "") end },
  { "ALLOCATED", given },
  { "USED%", function(j) return percent(j.used) end },
  { "MEMORY GiB", function(j) return memory(j.used) end },
  { "NODES", function(j) return tostring(j.nodes) end },
  { "ZONE", function(j) return places(j.zones) end },
  { "MODEL", function(j) return places(j.models) end },
  { "SPOT", function(j) return tostring(j.spot) end },
  { "ON-DEMAND", function(j) return tostring(j.on_demand) end },
  { "PRICE/h", function(j) return shown(j.price, "%.2f") end },
  { "IDLE/h", function(j) return shown(j.idle_cost, "%.2f") end },
}

local device_columns = {
  { "NODE", function(d) return d.node end },
  { "GPU", function(d) return shown(d.index) .. (d.gpu_instance and ":" .. d.gpu_instance or "") end },
  { "MODEL", function(d) return shown(d.model) end },
  { "USED%", function(d) return shown(d.utilization, "%.0f") end },
  { "MEMORY GiB", function(d) return memory(d) end },
  { "TEMP", function(d) return shown(d.temperature, "%.0f") end },
  { "POWER W", function(d) return shown(d.power, "%.0f") end },
  { "XID", function(d) return shown(d.xid) end },
  { "POD", function(d) return d.pod and (d.namespace or "default") .. "/" .. d.pod or "-" end },
  { "READ FROM", function(d) return d.via end },
}

local function rows_of(columns, list)
  local rows = { {} }
  for i, column in ipairs(columns) do rows[1][i] = column[1] end
  for _, item in ipairs(list) do
    local row = {}
    for i, column in ipairs(columns) do row[i] = column[2](item) end
    rows[#rows + 1] = row
  end
  return require("eirun.cli.gpu.views").columns(rows)
end

local function total_line(view)
  local total = view.total
  local parts = { ("%d GPU%s, %d allocatable, %s allocated, %s free"):format(total.gpus, total.gpus == 1 and "" or "s", total.allocatable,
    gpus(total.allocated), gpus(total.free)) }
  if total.mig then parts[#parts + 1] = ("%s of %d MIG instances allocated"):format(shown(total.mig.allocated), total.mig.total) end
  if total.utilization then parts[#parts + 1] = ("%.0f%% used, %s GiB"):format(total.utilization, memory(total)) end
  if total.price then
    parts[#parts + 1] = ("%.2f %s an hour, %.2f of it idle"):format(total.price, view.currency or "", total.idle_cost or 0)
  end
  if total.waiting > 0 then parts[#parts + 1] = ("%d pod%s for GPUs"):format(total.waiting, total.waiting == 1 and " waits" or "s wait") end
  return table.concat(parts, "; ") .. "\n"
end

local function devices_of(view)
  local list = {}
  for _, node in ipairs(view.nodes) do
    for _, device in ipairs(node.devices) do
      device.node, device.via = node.name, node.via
      list[#list + 1] = device
    end
  end
  return list
end

local function as_text(view, wide)
  if #view.nodes == 0 then return "no node has GPUs\n" end
  local parts = { rows_of(node_columns, view.nodes) }
  if #view.jobs > 0 then parts[#parts + 1] = rows_of(job_columns, view.jobs) end
  if wide then parts[#parts + 1] = rows_of(device_columns, devices_of(view)) end
  parts[#parts + 1] = total_line(view) .. view.fragmentation .. "\n"
  for _, one in ipairs(view.findings) do
    parts[#parts + 1] = ("%s: %s, %s%s\n  %s\n"):format(one.severity, one.node, one.text,
      one.pods[1] and " (" .. table.concat(one.pods, ", ") .. ")" or "", one.advice)
  end
  return table.concat(parts, "\n")
end

local function as_csv(view, with_head)
  local lines, head = {}, {}
  for i, column in ipairs(csv_columns) do head[i] = column[1] end
  lines[1] = with_head and table.concat(head, ",") or nil
  for _, node in ipairs(view.nodes) do
    local row = {}
    for i, column in ipairs(csv_columns) do
      local cell = column[2](node)
      row[i] = cell == "n/a" and "" or cell:find(",", 1, true) and '"' .. cell .. '"' or cell
    end
    lines[#lines + 1] = table.concat(row, ",")
  end
  return table.concat(lines, "\n") .. (#lines > 0 and "\n" or "")
end

local function as_json(view)
  local json = require "eirun.core.json"
  for _, list in ipairs { view.nodes, view.jobs, view.findings, view.notes } do json.array(list) end
  for _, node in ipairs(view.nodes) do
    json.array(node.devices)
    json.array(node.pods)
    for _, device in ipairs(node.devices) do device.processes = nil end
  end
  for _, job in ipairs(view.jobs) do
    json.array(job.zones)
    json.array(job.models)
  end
  for _, one in ipairs(view.findings) do json.array(one.pods) end
  return json.encode(view) .. "\n"
end

local function show(view, options, round, live)
  if options.output == "json" then return gpu_cli.say(as_json(view)) end
  local text, notes = options.output == "csv" and as_csv(view, round == 1) or as_text(view, options.output == "wide"), {}
  for i, note in ipairs(view.notes) do notes[i] = "eirun: " .. note .. "\n" end
  if live then return gpu_cli.draw(text .. "\n" .. table.concat(notes), true) end
  gpu_cli.say(text)
  require("eirun.core.term").write(2, table.concat(notes))
end

local function check(options)
  local source = options.source
  local known = { auto = true, proxy = true, direct = true, none = true }
  if source and not known[source] and not source:find "^https?://[^/]" then
    require("eirun.errors").raise("invalid", ("--source is auto, proxy, direct, none or a URL, not '%s'"):format(source),
      { code = "usage" })
  end
  if options.port and (options.port < 1 or options.port > 65535) then
    require("eirun.errors").raise("invalid", "--port wants a number from 1 to 65535", { code = "usage" })
  end
  if options.parallel and options.parallel < 1 then
    require("eirun.errors").raise("invalid", "--parallel wants a number from 1 on", { code = "usage" })
  end
end

local function keep_jobs_of(view, namespace)
  for i = namespace and #view.jobs or 0, 1, -1 do
    if view.jobs[i].namespace ~= namespace then table.remove(view.jobs, i) end
  end
end

-- For prices; whatever is wrong with it, the GPUs are shown.
local function add_account()
  local ok, err = pcall(require("eirun.target").add_account)
  local errors = require "eirun.errors"
  if not ok then require("eirun.core.term").write(2, "eirun: prices: " .. errors.text(errors.from(err)) .. "\n") end
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  gpu_cli.check(options, words, 0)
  gpu_cli.check_count(options)
  check(options)
  local pause, deadline = gpu_cli.seconds(options, "watch", 1), gpu_cli.seconds(options, "deadline", 5)
  local k8s, session <close> = require("eirun.cli.kube.face").connect(options) -- luacheck: ignore 211 (it is closed)
  if not options.sandbox then add_account() end
  local again, round = options.watch and (options.count or math.huge) or 1, 0
  local data = options.output == "json" or options.output == "csv"
  local live = again > 1 and not data and require("eirun.core.term").isatty(1)
  local view
  repeat
    if round > 0 then require("eirun.task").sleep(pause) end
    round = round + 1
    view = require("eirun.gpu").cluster(k8s, { source = options.source ~= "auto" and options.source or nil, port = options.port,
      deadline = deadline, parallel = options.parallel })
    keep_jobs_of(view, options.namespace)
    show(view, options, round, live)
  until round >= again
  return options.check and gpu_cli.verdict(view.findings) or 0
end

return M
