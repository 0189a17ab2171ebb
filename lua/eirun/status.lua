-- SPDX-License-Identifier: Apache-2.0
-- The inference job as the AI operations console shows it: replicas, pods by node, nodes by zone and billing, the promise about
-- on-demand instances against what is there, traffic, latency, cost.
local errors = require "eirun.errors"
local price = require "eirun.price"
local resource = require "eirun.resource"
local sls = require "eirun.sls"
local spec = require "eirun.spec"
local task = require "eirun.task"
local wait = require "eirun.kube.wait"
local wire = require "eirun.wire"

local M = {}

---@class eirun.Status
---@field at number
---@field job string
---@field version string
---@field model string
---@field replicas {wanted: integer, ready: integer, min: integer|nil, max: integer|nil}
---@field pods {name: string, node: string|nil, zone: string|nil, billing: string|nil, phase: string, ready: boolean, age: number}[]
---@field nodes {id: string, name: string|nil, type: string, zone: string, billing: string, reclaiming: boolean}[]
---@field ratio eirun.Ratio
---@field traffic {qps: number, p95: number|nil, error_rate: number|nil}|nil
---@field cost {hour: number, currency: string, per_1000: number|nil, without_spot: number}|nil
---@field missing string[] what could not be learned, and why

local rules = {
  app = { type = "table", required = true }, pool = { type = "table", required = true },
  hpa = { type = "table" }, selector = { type = "table" }, window = { type = "integer", min = 15 },
}

-- A status is told as far as it is known: one source that fails leaves its part out, with the reason.
local function try(missing, what, fn, ...)
  local ok, value = pcall(fn, ...)
  if ok then return value end
  if errors.is(value, "cancelled") or errors.is(value, "timeout") then error(value, 0) end
  missing[#missing + 1] = what .. ": " .. errors.text(value)
end

local function node_name(instance, nodes_by_ip)
  return instance.ip and nodes_by_ip[instance.ip]
end

local function addresses(k8s)
  local map = {}
  for _, node in ipairs(k8s:list "Node") do
    for _, address in ipairs((node.status or {}).addresses or {}) do
      if address.type == "InternalIP" then map[address.address] = node.metadata.name end
    end
  end
  return map
end

local function nodes_of(instances, by_ip)
  local list = {}
  for i, instance in ipairs(instances) do
    list[i] = { id = instance.id, name = node_name(instance, by_ip), type = instance.type, zone = instance.zone, billing = instance.billing,
      reclaiming = instance.reclaiming }
  end
  table.sort(list, function(a, b)
    if a.zone ~= b.zone then return a.zone < b.zone end
    if a.billing ~= b.billing then return a.billing < b.billing end
    return a.id < b.id
  end)
  return list
end

local function age_of(pod)
  local since = wire.parse_time(pod.metadata.creationTimestamp or "")
  return since and math.max(0, task.now() - since) or 0
end

local function pods_of(app, nodes)
  local by_name, list = {}, {}
  for _, node in ipairs(nodes) do if node.name then by_name[node.name] = node end end
  local labels = { servingName = app.job, servingVersion = app.version, servingType = "tf-serving" }
  for _, pod in ipairs(app.k8s:list("Pod", { labels = labels })) do
    local node = by_name[(pod.spec or {}).nodeName or ""] or {}
    list[#list + 1] = { name = pod.metadata.name, node = (pod.spec or {}).nodeName, zone = node.zone, billing = node.billing,
      phase = (pod.status or {}).phase or "Unknown", ready = wait.pod_is_ready(pod), age = age_of(pod) }
  end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

-- Only nodes that carry the job's pods: what the job costs.
local function cost_of(instances, traffic)
  local sum = price.of(instances)
  local qps = traffic and traffic.qps or 0
  return { hour = sum.hour, currency = sum.currency, without_spot = sum.without_spot,
    per_1000 = qps > 0 and sum.hour / (qps * 3600) * 1000 or nil }
end

---Looks at a job from all sides.
---@param given {app: eirun.App, pool: eirun.NodePool, hpa?: table, selector?: table<string, string>, window?: integer}
--- `selector` is what `cluster:ingress_log` gave; `window` the seconds of traffic to look at, default 60
---@return eirun.Status
---Example: `local now = status.of { app = app, pool = pool, hpa = hpa, selector = route }; print(status.text(now))`.
---What cannot be learned is left out and named in `missing`; only a wrong call raises.
function M.of(given)
  spec.check("status.of", given, rules)
  local app, missing = given.app, {}
  local instances = try(missing, "instances", given.pool.instances, given.pool) or {}
  local nodes = nodes_of(instances, try(missing, "nodes", addresses, app.k8s) or {})
  local replicas = try(missing, "replicas", app.replicas, app) or { wanted = 0, ready = 0 }
  if given.hpa then replicas.min, replicas.max = given.hpa.min, given.hpa.max end
  local traffic = given.selector and try(missing, "traffic", sls.traffic, given.selector, given.window)
  return {
    at = task.now(), job = app.job, version = app.version, model = app.model, replicas = replicas, nodes = nodes,
    pods = try(missing, "pods", pods_of, app, nodes) or {}, traffic = traffic, missing = missing,
    ratio = try(missing, "ratio", given.pool.ratio, given.pool, { k8s = app.k8s }),
    cost = try(missing, "cost", cost_of, instances, traffic),
  }
end

-- Text ------------------------------------------------------------------------------------------------------------------

local function width(text)
  return utf8.len(text) or #text
end

---Rows of cells as aligned lines.
---@param rows string[][]
---@return string
---Example: `print(status.table { { "POD", "NODE" }, { "web-1", "node-a" } })`. Raises nothing.
function M.table(rows)
  local widths, lines = {}, {}
  for _, row in ipairs(rows) do
    for i, cell in ipairs(row) do widths[i] = math.max(widths[i] or 0, width(cell)) end
  end
  for _, row in ipairs(rows) do
    local cells = {}
    for i, cell in ipairs(row) do cells[i] = cell .. (i < #row and (" "):rep(widths[i] - width(cell)) or "") end
    lines[#lines + 1] = table.concat(cells, "  ")
  end
  return table.concat(lines, "\n")
end

local function duration(seconds)
  if seconds < 120 then return ("%ds"):format(seconds // 1 | 0) end
  if seconds < 7200 then return ("%dm"):format(seconds // 60 | 0) end
  return ("%dh"):format(seconds // 3600 | 0)
end

local function ratio_line(ratio)
  if not ratio then return "unknown" end
  local asked = ratio.asked
  local promise = asked and ("asked %d + %d%%, so %.1f"):format(asked.base, asked.percent, ratio.expected.on_demand) or "no spot asked for"
  return ("%d on-demand and %d spot, %.0f%% on-demand (%s)%s%s"):format(ratio.observed.on_demand, ratio.observed.spot,
    ratio.observed.percent, promise, ratio.kept and "" or ", NOT KEPT", ratio.disagree and ", sources disagree" or "")
end

local function traffic_line(traffic)
  if not traffic then return "unknown" end
  local p95 = traffic.p95 and ("p95 %.0f ms"):format(traffic.p95 * 1000) or "no p95"
  return ("%.1f requests/s, %s"):format(traffic.qps, p95)
end

local function cost_line(cost)
  if not cost then return "unknown" end
  local each = cost.per_1000 and (", %.4f per 1,000 requests"):format(cost.per_1000) or ""
  return ("%.2f %s an hour%s (%.2f without spot)"):format(cost.hour, cost.currency, each, cost.without_spot)
end

local function replicas_line(replicas)
  local bounds = replicas.max and (", %d to %d allowed"):format(replicas.min, replicas.max) or ""
  return ("%d wanted, %d ready%s"):format(replicas.wanted, replicas.ready, bounds)
end

local function zone_rows(ratio)
  local rows = { { "ZONE", "ON-DEMAND", "SPOT" } }
  for _, zone in ipairs(resource.sorted_keys(ratio and ratio.zones or {})) do
    local counts = ratio.zones[zone]
    rows[#rows + 1] = { zone, tostring(counts.on_demand), tostring(counts.spot) }
  end
  return rows
end

local function pod_rows(pods)
  local rows = { { "POD", "STATE", "READY", "AGE", "NODE", "ZONE", "BILLING" } }
  for _, pod in ipairs(pods) do
    rows[#rows + 1] = { pod.name, pod.phase, pod.ready and "yes" or "no", duration(pod.age), pod.node or "-", pod.zone or "-",
      pod.billing or "-" }
  end
  return rows
end

---A status as text for people.
---@param now eirun.Status
---@return string
---Example: `print(status.text(status.of { app = app, pool = pool }))`.
---Raises nothing: what is not known is written so.
function M.text(now)
  local head = M.table {
    { "job", ("%s, version %s, model %s"):format(now.job, now.version, now.model) },
    { "replicas", replicas_line(now.replicas) }, { "instances", ratio_line(now.ratio) },
    { "traffic", traffic_line(now.traffic) }, { "cost", cost_line(now.cost) },
  }
  local parts = { head, M.table(pod_rows(now.pods)), M.table(zone_rows(now.ratio)) }
  if #now.missing > 0 then parts[#parts + 1] = "not known: " .. table.concat(now.missing, "; ") end
  return table.concat(parts, "\n\n")
end

return M
