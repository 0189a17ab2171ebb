-- SPDX-License-Identifier: Apache-2.0
-- Findings: what the rules say of a look, and of what the driver told.
local errors = require "eirun.errors"
local rules = require "eirun.gpu.rules"

local M = {}

---@class eirun.gpu.Finding
---@field severity "fatal"|"warning"|"notice"
---@field rule string "xid", "lost", "ecc_growth" ...
---@field text string in words, with the GPU
---@field advice string what to do
---@field drain boolean nothing should run on that node until it was seen to
---@field node? string
---@field gpu? integer index; nil: not known which
---@field uuid? string
---@field xid? integer
---@field at? number seconds since the epoch, of an event
---@field pods string[] uids of the pods, or namespace/name where the source knows them

local function pods_of(device)
  local list, seen = {}, {}
  for _, process in ipairs(device and device.processes or {}) do
    if process.pod and not seen[process.pod] then list[#list + 1] = process.pod end
    seen[process.pod or ""] = true
  end
  return list
end

local function finding(node, device, row)
  local where = row.gpu and ("GPU %d"):format(row.gpu) or "some GPU"
  return { severity = row.severity, rule = row.rule, text = where .. ": " .. row.text, advice = row.advice, drain = row.severity == "fatal",
    node = node, gpu = row.gpu, uuid = device and device.uuid or row.uuid, xid = row.xid, at = row.at, pods = row.pods or pods_of(device) }
end

---What the rules say of one device.
---@param device table as of gpu.snapshot
---@param before? table the same device earlier: what grew is told only then
---@param node? string
---@return eirun.gpu.Finding[]
---Example: `health.of_device(gpu.snapshot().devices[1])`. Raises nothing.
function M.of_device(device, before, node)
  local list = {}
  for _, rule in ipairs(rules.looks) do
    local name, severity, found, text, advice = table.unpack(rule)
    if found(device, before) then
      text = type(text) == "function" and text(device, before) or text
      list[#list + 1] = finding(node, device, { severity = severity, rule = name, text = text, advice = advice, gpu = device.index })
    end
  end
  return list
end

---What the rules say of a node of the cluster.
---@param node eirun.gpu.Node
---@return eirun.gpu.Finding[]
---Example: `health.of_node(view.nodes[1])`. Raises nothing.
function M.of_node(node)
  local list = {}
  for _, rule in ipairs(rules.nodes) do
    local name, severity, found, text, advice = table.unpack(rule)
    if found(node) then
      list[#list + 1] = { severity = severity, rule = name, text = text(node), advice = advice, drain = severity == "fatal",
        node = node.name, pods = table.move(node.pods, 1, #node.pods, 1, {}) }
    end
  end
  return list
end

---What the rules say of an XID that somebody saw.
---@param number integer
---@param where {gpu?: integer, uuid?: string, node?: string, pods?: string[], at?: number, device?: table}
---@return eirun.gpu.Finding
---Example: `health.of_xid(79, { gpu = 0, node = "node-1" }).advice`. Raises nothing.
function M.of_xid(number, where)
  local rule = rules.xid(number)
  return finding(where.node, where.device, { severity = rule.severity, rule = "xid", text = ("XID %d, %s"):format(number, rule.text),
    advice = rule.advice, gpu = where.gpu, uuid = where.uuid, xid = number, at = where.at, pods = where.pods })
end

local function of_event(event, device, node)
  if event.xid then
    return M.of_xid(event.xid, { gpu = event.index, uuid = event.uuid, node = node, at = event.at, device = device })
  end
  local rule = rules.events[event.kind]
  return rule and finding(node, device, { severity = rule[1], rule = event.kind, text = rule[2], advice = rule[3], gpu = event.index,
    uuid = event.uuid, at = event.at })
end

-- One finding a rule, a GPU and an XID: a storm of the same event is one thing to do.
local function add(list, seen, one)
  local key = ("%s %s %s"):format(one.rule, one.gpu or "?", one.xid or "")
  local known = seen[key]
  if known then
    known.times = (known.times or 1) + 1
    return
  end
  seen[key] = one
  list[#list + 1] = one
end

---Worst first, then by node and GPU.
---@param list eirun.gpu.Finding[]
---@return eirun.gpu.Finding[] the same table
---Example: `health.sort(findings)`. Raises nothing.
function M.sort(list)
  table.sort(list, function(a, b)
    if a.severity ~= b.severity then return rules.order[a.severity] < rules.order[b.severity] end
    if a.node ~= b.node then return (a.node or "") < (b.node or "") end
    if a.gpu ~= b.gpu then return (a.gpu or -1) < (b.gpu or -1) end
    if a.rule ~= b.rule then return a.rule < b.rule end
    return (a.xid or 0) < (b.xid or 0)
  end)
  return list
end

local function by_index(look)
  local map = {}
  for _, device in ipairs(look and look.devices or {}) do map[device.index] = device end
  return map
end

---Judges; see gpu.health.
---@param opts? {events?: table[], before?: table, look?: table, node?: string, timeout?: number}
---@return eirun.gpu.Finding[]
---Example: `health.judge { look = look, events = events }`. Raises what gpu.snapshot raises.
function M.judge(opts)
  opts = opts or {}
  local look = opts.look or require("eirun.gpu").snapshot { timeout = opts.timeout, processes = true }
  local now, before, list, seen = by_index(look), by_index(opts.before), {}, {}
  for _, event in ipairs(opts.events or {}) do
    local one = of_event(event, now[event.index or -1], opts.node)
    if one then add(list, seen, one) end
  end
  for _, device in ipairs(look.devices) do
    for _, one in ipairs(M.of_device(device, before[device.index], opts.node)) do add(list, seen, one) end
  end
  return M.sort(list)
end

-- Acting ----------------------------------------------------------------------------------------------------------------

local function nodes_to_drain(findings)
  local list, reasons = {}, {}
  for _, one in ipairs(findings) do
    if one.drain and one.node then
      if not reasons[one.node] then list[#list + 1] = one.node end
      reasons[one.node] = reasons[one.node] or one.text
    end
  end
  table.sort(list)
  return list, reasons
end

local function taken(node)
  return node ~= nil and node.spec ~= nil and node.spec.unschedulable == true
end

-- Is it cordoned, and has nothing left to evict? A drain that ended early goes on the next time.
local function is_out(k8s, node, drain)
  return taken(node) and (not drain or #k8s:list_drainable(node.metadata.name, drain) == 0)
end

-- Those that are still to be taken out of service, and how many of them are in service.
local function choose(k8s, names, limit, drain)
  local wanted, fresh = {}, {}
  for _, name in ipairs(names) do
    local node = k8s:get("Node", name)
    if taken(node) then limit = limit - 1 end
    if node and not taken(node) then fresh[#fresh + 1] = name end
    if node and not is_out(k8s, node, drain) then wanted[#wanted + 1] = name end
  end
  if #fresh > limit then
    errors.raise("denied", ("%d nodes would be taken out of service (%s), %d more may be"):format(#fresh, table.concat(fresh, ", "),
      math.max(0, limit)), { code = "guard", hint = "look at them by hand, or raise the limit" })
  end
  return wanted
end

local function changes(k8s, node, drain, reason)
  if is_out(k8s, node, drain) then return {} end
  if taken(node) then return { { field = "pods", from = #k8s:list_drainable(node.metadata.name, drain), to = 0 } } end
  return { { field = "spec.unschedulable", from = false, to = reason } }
end

---Takes the nodes of fatal findings out of service: cordons and drains them as their disruption budgets allow. Guards are asked, and
---there is one built in: no more than `limit` nodes are out of service for this at a time. Cordoned nodes that still have pods, as after
---a drain that took too long, are drained on.
---@param k8s eirun.KubeClient
---@param findings eirun.gpu.Finding[] each with its node
---@param opts? {limit?: integer, timeout?: number, drain?: boolean, force?: boolean} default 1 node, 600 s, and to drain
---@return string[] nodes that were taken out now
---Example:
---```lua
---health.isolate(k8s, gpu.cluster(k8s).findings, { limit = 1 })
---```
---Raises "denied" (code "guard") when a guard or the limit refuses, and what cordoning and draining raise.
function M.isolate(k8s, findings, opts)
  opts = opts or {}
  require "eirun.kube.pods"
  local drain = opts.drain ~= false
    and { ignore_daemonsets = true, delete_emptydir_data = true, force = opts.force, timeout = opts.timeout or 600 } or nil
  local names, reasons = nodes_to_drain(findings)
  local wanted = choose(k8s, names, opts.limit or 1, drain)
  for _, name in ipairs(wanted) do
    require("eirun.resource").ensure {
      kind = "Node out of service", name = name,
      observe = function() return k8s:get("Node", name) end,
      compare = function(node) return changes(k8s, node, drain, reasons[name]) end,
      act = function()
        k8s:cordon(name)
        if drain then k8s:drain(name, drain) end
      end,
    }
  end
  return wanted
end

return M
