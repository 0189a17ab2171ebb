-- SPDX-License-Identifier: Apache-2.0
-- The GPUs of a cluster side by side: what there is, what was given to whom, and what is really used.
local allocation = require "eirun.gpu.allocation"
local errors = require "eirun.errors"
local health = require "eirun.gpu.health"
local printable = require "eirun.gpu.printable"
local sources = require "eirun.gpu.sources"
local task = require "eirun.task"

local M = {}

---@class eirun.gpu.ClusterOptions
---@field source? string "auto" (the default), "proxy", "direct", "none", or the URL of a Prometheus
---@field port? integer of the exporters
---@field deadline? number seconds for one node, default 5
---@field parallel? integer nodes asked at a time, default 16
---@field prices? boolean|fun(node: eirun.gpu.Node): number|nil false: no prices; or what a node costs an hour

---@class eirun.gpu.Node
---@field name string
---@field mode "exclusive"|"share"|"mig"
---@field state string "Ready", "NotReady", "SchedulingDisabled"
---@field gpus integer in all, as the node's capacity says
---@field allocatable integer that may be given to pods
---@field allocated? number given to pods that have not finished; of shared GPUs a fraction; nil: pods may not be listed
---@field free? number
---@field share? {total: integer, allocated: integer} of aliyun.com/gpu-mem
---@field mig? {total: integer, allocated: integer} instances of MIG, by nvidia.com/mig-*
---@field zone? string
---@field type? string of the instance
---@field billing? "spot"|"on-demand"
---@field model? string
---@field price? number an hour
---@field idle_cost? number an hour, of what nobody was given
---@field used? {utilization?: number, memory_used?: integer, memory_total?: integer, busy: integer} percent, bytes, GPUs at work
---@field devices table[]
---@field via? string where its use was read
---@field pods string[] namespace/name of those that hold GPUs

---@class eirun.gpu.Job
---@field name string
---@field namespace string
---@field version? string
---@field kind string
---@field pods integer that hold GPUs
---@field pending integer that wait for a node
---@field allocated number
---@field share integer of aliyun.com/gpu-mem
---@field mig integer instances
---@field nodes integer
---@field zones string[] of its nodes
---@field models string[]
---@field spot integer pods on spot nodes
---@field on_demand integer
---@field price? number an hour, by its part of each node
---@field idle_cost? number an hour, of the part of the time in which its GPUs did nothing
---@field used? {utilization?: number, memory_used?: integer, gpus: integer}

---@class eirun.gpu.Total
---@field gpus integer
---@field allocatable integer
---@field allocated? number
---@field free? number
---@field waiting integer pods that want GPUs and have no node
---@field mig? {total: integer, allocated: integer}
---@field utilization? number percent
---@field memory_used? integer
---@field memory_total? integer
---@field price? number an hour
---@field idle_cost? number an hour

---@class eirun.gpu.Cluster
---@field at number
---@field nodes eirun.gpu.Node[] those with GPUs, by name
---@field jobs eirun.gpu.Job[] those that hold or want GPUs, the largest first
---@field total eirun.gpu.Total
---@field fragmentation string in words
---@field fits table<string, integer> how many pods of 1, 2, 4 and 8 GPUs still fit
---@field findings eirun.gpu.Finding[]
---@field notes string[] what could not be learned, and why
---@field currency? string

-- Nodes -------------------------------------------------------------------------------------------------------------------

local function state_of(node)
  local ready = "NotReady"
  for _, condition in ipairs((node.status or {}).conditions or {}) do
    if condition.type == "Ready" and condition.status == "True" then ready = "Ready" end
  end
  return (node.spec or {}).unschedulable and ready .. ",SchedulingDisabled" or ready
end

local function address_of(node)
  for _, address in ipairs((node.status or {}).addresses or {}) do
    if address.type == "InternalIP" then return address.address end
  end
end

local function node_of(object, has)
  local labels, annotations = object.metadata.labels or {}, object.metadata.annotations or {}
  return { name = object.metadata.name, mode = has.mode, state = state_of(object), gpus = has.gpus, allocatable = has.allocatable,
    mig = has.mig > 0 and { total = has.mig, allocated = 0 } or nil, share = has.share > 0 and { total = has.share, allocated = 0 } or nil,
    zone = labels["topology.kubernetes.io/zone"] or labels["failure-domain.beta.kubernetes.io/zone"],
    type = labels["node.kubernetes.io/instance-type"], billing = allocation.billing(labels), model = allocation.model(labels),
    address = address_of(object), annotation = annotations[sources.ANNOTATION], devices = {}, pods = {}, allocated = 0 }
end

-- Those with GPUs; and the others as the server tells them, by name.
local function list_nodes(k8s)
  local nodes, by_name, others = {}, {}, {}
  for _, object in ipairs(k8s:list "Node") do
    local has = allocation.of_node(object)
    if has.mode ~= "none" then
      local node = node_of(object, has)
      nodes[#nodes + 1], by_name[node.name] = node, node
    else
      others[object.metadata.name] = object
    end
  end
  return nodes, by_name, others
end

-- A node whose driver is gone has no GPUs any more, but the pods that were given some are still there.
local function bring_back(name, nodes, by_name, others)
  local object = others[name]
  if not object then return nil end
  local has = allocation.of_node(object)
  has.mode = "exclusive"
  nodes[#nodes + 1] = node_of(object, has)
  by_name[name] = nodes[#nodes]
  return by_name[name]
end

-- Pods --------------------------------------------------------------------------------------------------------------------

local function try(notes, what, fn, ...)
  local ok, value = pcall(fn, ...)
  if ok then return value end
  if errors.is(value, "cancelled") then error(value, 0) end
  notes[#notes + 1] = what .. ": " .. printable.text(errors.text(errors.from(value)))
end

local function list_pods(k8s)
  return k8s:list("Pod", { all = true, fields = "status.phase!=Succeeded,status.phase!=Failed" })
end

local function job_for(jobs, pod)
  local about = allocation.job_of(pod)
  local key = table.concat({ about.namespace, about.kind, about.name, about.version or "" }, "\0")
  if not jobs[key] then
    about.pods, about.pending, about.allocated, about.share, about.mig, about.spot, about.on_demand, about.on = 0, 0, 0, 0, 0, 0, 0, {}
    jobs[key], jobs[#jobs + 1] = about, about
  end
  return jobs[key]
end

-- What a pod holds of its node, in GPUs: a share is its part of the node's memory.
local function part_of(node, wish)
  if node.share then return wish.share / node.share.total * node.gpus end
  if node.mig and node.gpus == 0 then return 0 end
  return wish.gpus
end

local function give(node, job, pod, wish)
  local part = part_of(node, wish)
  node.allocated = node.allocated + part
  if node.share then node.share.allocated = node.share.allocated + wish.share end
  if node.mig then node.mig.allocated = node.mig.allocated + wish.mig end
  node.pods[#node.pods + 1] = pod.metadata.namespace .. "/" .. pod.metadata.name
  job.pods, job.allocated, job.share, job.mig = job.pods + 1, job.allocated + part, job.share + wish.share, job.mig + wish.mig
  job.on[node.name] = (job.on[node.name] or 0) + part
  if node.billing then
    local key = node.billing == "spot" and "spot" or "on_demand"
    job[key] = job[key] + 1
  end
end

local function wants_gpus(wish)
  return wish.gpus > 0 or wish.share > 0 or wish.mig > 0
end

-- Allocated GPUs of nodes and jobs; the pods that are exporters, and all pods by uid.
local function allocate(pods, nodes, by_name, others)
  local seen = { jobs = {}, exporters = {}, by_uid = {}, owner = {}, waiting = 0 }
  for _, pod in ipairs(pods) do
    local name, wish = (pod.spec or {}).nodeName or "", allocation.wish(pod)
    seen.by_uid[pod.metadata.uid or ""] = pod
    if sources.is_exporter(pod) then seen.exporters[name] = sources.better(seen.exporters[name], pod) end
    if allocation.is_live(pod) and wants_gpus(wish) then
      local node = by_name[name] or bring_back(name, nodes, by_name, others)
      local job = (node or name == "") and job_for(seen.jobs, pod)
      seen.owner[pod.metadata.namespace .. "/" .. pod.metadata.name] = job or nil
      if node then
        give(node, job, pod, wish)
      elseif job then
        job.pending, seen.waiting = job.pending + 1, seen.waiting + 1
      end -- else its node is not there any more, and soon it is not either
    end
  end
  table.sort(nodes, function(a, b) return a.name < b.name end)
  return seen
end

-- Use ---------------------------------------------------------------------------------------------------------------------

local function mean_use(devices)
  local used, with = { busy = 0 }, 0
  for _, device in ipairs(devices) do
    if device.utilization then
      used.utilization, with = (used.utilization or 0) + device.utilization, with + 1
      if device.utilization > 0 then used.busy = used.busy + 1 end
    end
    if device.memory_used then used.memory_used = (used.memory_used or 0) + device.memory_used end
    if device.memory_total then used.memory_total = (used.memory_total or 0) + device.memory_total end
  end
  if used.utilization then used.utilization = used.utilization / with end
  return #devices > 0 and used or nil
end

local function read_use(k8s, nodes, exporters, opts, notes)
  if opts.source == "none" then return {} end
  if opts.source and opts.source:find "^https?://" then
    return try(notes, "Prometheus", sources.from_prometheus, opts.source, nodes, exporters, opts) or {}
  end
  return sources.from_exporters(k8s, nodes, exporters, opts)
end

-- The same words for many nodes are one note.
local function note_nodes(nodes, found, notes)
  local words, order = {}, {}
  for _, node in ipairs(nodes) do
    local text = (found[node.name] or {}).note or not found[node.name] and "nothing is known of its use"
    if text then
      if not words[text] then order[#order + 1], words[text] = text, {} end
      table.insert(words[text], node.name)
    end
  end
  for _, text in ipairs(order) do
    local names = words[text]
    local who = #names <= 3 and table.concat(names, ", ") or ("%s, %s and %d more"):format(names[1], names[2], #names - 2)
    notes[#notes + 1] = ("%s: %s"):format(who, text)
  end
end

local function attach_use(nodes, found, seen)
  local by_job = {}
  for _, node in ipairs(nodes) do
    local from = found[node.name] or {}
    node.devices, node.via = from.devices or {}, from.devices and from.via or nil
    node.used = mean_use(node.devices)
    for _, device in ipairs(node.devices) do
      local pod = device.pod_uid and seen.by_uid[device.pod_uid]
      if pod and not device.pod then device.pod, device.namespace = pod.metadata.name, pod.metadata.namespace end
      local job = device.pod and seen.owner[(device.namespace or "default") .. "/" .. device.pod]
      if not job and not device.pod and #node.pods == 1 and #node.devices == 1 then
        job = seen.owner[node.pods[1]] -- one GPU and one pod that was given it
        device.namespace, device.pod = node.pods[1]:match "^([^/]*)/(.*)$"
      end
      if job then
        by_job[job] = by_job[job] or {}
        table.insert(by_job[job], device)
      end
    end
  end
  for job, devices in pairs(by_job) do
    local used = mean_use(devices)
    job.used = { utilization = used.utilization, memory_used = used.memory_used, gpus = #devices }
  end
end

local function find_trouble(nodes)
  local list = {}
  for _, node in ipairs(nodes) do
    for _, one in ipairs(health.of_node(node)) do list[#list + 1] = one end
    for _, device in ipairs(node.devices) do
      local pods = device.pod and { (device.namespace or "default") .. "/" .. device.pod } or {}
      if (device.xid or 0) ~= 0 then
        list[#list + 1] = health.of_xid(device.xid, { gpu = device.index, uuid = device.uuid, node = node.name, pods = pods })
      end
      for _, one in ipairs(health.of_device(device, nil, node.name)) do
        one.pods = pods
        list[#list + 1] = one
      end
    end
  end
  return health.sort(list)
end

-- Money -------------------------------------------------------------------------------------------------------------------

local function has_account()
  local current = require("eirun.target").current()
  return current.sandbox or (current.region ~= nil and current.credentials ~= nil)
end

-- What a node costs: of the caller, or of the vendor where an account is known.
local function pricer(opts, notes)
  if opts.prices == false then return nil end
  if type(opts.prices) == "function" then return opts.prices end
  if not has_account() then
    notes[#notes + 1] = "prices: no account is known to ask for them (its keys, and ALIBABA_CLOUD_REGION_ID)"
    return nil
  end
  local failed, refused = {}, false
  return function(node)
    if refused or not node.type or not node.zone or failed[node.type] then return nil end
    local ok, found = pcall(require("eirun.price").hour, node.type, node.zone, node.billing or "on-demand")
    if ok then return found.hour, found.currency end
    refused, failed[node.type] = errors.is(found, "denied"), true -- without keys every type would say the same
    try(notes, refused and "prices" or "price of " .. node.type, error, found, 0)
  end
end

local function attach_prices(nodes, jobs, opts, notes)
  local price_of, currency = #nodes > 0 and pricer(opts, notes), nil
  for _, node in ipairs(price_of and nodes or {}) do
    local hour, unit = price_of(node)
    node.price, currency = hour, unit or currency
    if hour and node.free and node.gpus > 0 then node.idle_cost = hour * node.free / node.gpus end
  end
  for _, job in ipairs(jobs) do
    for _, node in ipairs(nodes) do
      local part = job.on[node.name]
      if part and node.price and node.gpus > 0 then job.price = (job.price or 0) + node.price * part / node.gpus end
    end
    local use = job.used and job.used.utilization
    if job.price and use then job.idle_cost = job.price * (1 - math.min(use, 100) / 100) end
  end
  return currency
end

-- Sums --------------------------------------------------------------------------------------------------------------------

local function takes_pods(node)
  return node.state == "Ready"
end

-- Whole GPUs that a pod could still get there.
local function free_whole(node)
  if not takes_pods(node) or not node.allocated or node.mode ~= "exclusive" then return 0 end
  return math.max(0, node.allocatable - node.allocated) // 1 | 0
end

-- What is free, but not as a whole GPU that a pod gets.
local function left_over(nodes)
  local closed, sick, shares, instances = 0, 0, 0, 0
  for _, node in ipairs(nodes) do
    local free = node.free or 0
    if not takes_pods(node) then
      closed = closed + free
    elseif node.mode == "share" then
      shares = shares + free
    else
      sick = sick + free - free_whole(node)
      instances = instances + (node.mig and node.free and node.mig.total - node.mig.allocated or 0)
    end
  end
  local parts = {}
  for _, row in ipairs { { closed, "%s on nodes that take no pods" }, { sick, "%s not allocatable" }, { shares, "%s as shares" },
    { instances, "%s of MIG" } } do
    if row[1] > 0 then parts[#parts + 1] = row[2]:format(("%.2f"):format(row[1]):gsub("%.?0+$", "")) end
  end
  return #parts > 0 and "; not counted: " .. table.concat(parts, ", ") or ""
end

local function words_of(free, on, largest)
  if free == 0 then return "no free GPU" end
  local head = ("%d free GPU%s on %d node%s"):format(free, free == 1 and "" or "s", on, on == 1 and "" or "s")
  if on == 1 or largest + 1 > free then return head end
  return ("%s, none on one node with %d"):format(head, largest + 1)
end

---How free GPUs lie: the pods of each size that still fit, and words for people.
---@param nodes eirun.gpu.Node[]
---@return string
---@return table<string, integer>
---Example: `cluster.fragmentation(view.nodes)` is "3 free GPUs on 3 nodes, none on one node with 2". Raises nothing.
function M.fragmentation(nodes)
  local free, on, largest, fits = 0, 0, 0, {}
  for _, size in ipairs { 1, 2, 4, 8 } do
    fits[tostring(size)] = 0
    for _, node in ipairs(nodes) do fits[tostring(size)] = fits[tostring(size)] + free_whole(node) // size end
  end
  for _, node in ipairs(nodes) do
    local here = free_whole(node)
    free, on, largest = free + here, on + (here > 0 and 1 or 0), math.max(largest, here)
  end
  return words_of(free, on, largest) .. left_over(nodes), fits
end

local function add(into, key, value)
  if value then into[key] = (into[key] or 0) + value end
end

local function sum(nodes, waiting)
  local total, busy, with = { gpus = 0, allocatable = 0, waiting = waiting }, 0, 0
  for _, node in ipairs(nodes) do
    for _, key in ipairs { "gpus", "allocatable", "allocated", "free", "price", "idle_cost" } do add(total, key, node[key]) end
    for key, value in pairs(node.mig or {}) do
      total.mig = total.mig or {}
      add(total.mig, key, value)
    end
    if node.used then
      add(total, "memory_used", node.used.memory_used)
      add(total, "memory_total", node.used.memory_total)
      for _, device in ipairs(node.devices) do
        if device.utilization then busy, with = busy + device.utilization, with + 1 end
      end
    end
  end
  if with > 0 then total.utilization = busy / with end
  return total
end

local function note_places(job, nodes)
  local seen = {}
  job.nodes, job.zones, job.models = 0, {}, {}
  for _, node in ipairs(nodes) do
    if job.on[node.name] then
      job.nodes = job.nodes + 1
      for list, value in pairs { [job.zones] = node.zone, [job.models] = node.model } do
        if not seen[value] then list[#list + 1], seen[value] = value, true end
      end
    end
  end
end

local function settle(nodes, jobs, has_pods)
  for _, node in ipairs(nodes) do
    if has_pods then
      node.free = math.max(0, node.gpus - node.allocated)
    else
      node.allocated, node.share, node.mig = nil, node.share and { total = node.share.total }, node.mig and { total = node.mig.total }
    end
    node.annotation = nil
  end
  for _, job in ipairs(jobs) do note_places(job, nodes) end
  table.sort(jobs, function(a, b)
    if a.allocated ~= b.allocated then return a.allocated > b.allocated end
    if a.namespace ~= b.namespace then return a.namespace < b.namespace end
    if a.name ~= b.name then return a.name < b.name end
    return (a.version or "") < (b.version or "")
  end)
end

---Looks at a cluster; see gpu.cluster.
---@param k8s eirun.KubeClient
---@param opts? eirun.gpu.ClusterOptions
---@return eirun.gpu.Cluster
---Example: `cluster.view(k8s, { source = "direct" })`. Raises "denied" when nodes may not be listed.
function M.view(k8s, opts)
  opts = opts or {}
  local notes, nodes, by_name, others = {}, list_nodes(k8s)
  local pods = try(notes, "allocated GPUs", list_pods, k8s)
  local seen = allocate(pods or {}, nodes, by_name, others)
  local found = read_use(k8s, nodes, seen.exporters, opts, notes)
  if opts.source ~= "none" then note_nodes(nodes, found, notes) end
  attach_use(nodes, found, seen)
  settle(nodes, seen.jobs, pods ~= nil)
  local jobs = table.move(seen.jobs, 1, #seen.jobs, 1, {})
  local currency = attach_prices(nodes, jobs, opts, notes)
  for _, job in ipairs(jobs) do job.on = nil end
  local words, fits = M.fragmentation(nodes)
  return { at = task.now(), nodes = nodes, jobs = jobs, total = sum(nodes, seen.waiting), fragmentation = pods and words or "not known",
    fits = fits, findings = find_trouble(nodes), notes = notes, currency = currency }
end

return M
