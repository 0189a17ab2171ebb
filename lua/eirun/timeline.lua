-- SPDX-License-Identifier: Apache-2.0
-- What a job consists of, over time: replicas wanted and ready, nodes by billing.
local errors = require "eirun.errors"
local is_ready = require("eirun.kube.node").is_ready
local task = require "eirun.task"

local M = {}

---@class eirun.Sample
---@field at number
---@field wanted integer
---@field ready integer
---@field spot integer Ready nodes of the pool
---@field on_demand integer

---@class eirun.Timeline
---@field samples eirun.Sample[]
local Timeline = {}
Timeline.__index = Timeline

local spot_strategies = { SpotAsPriceGo = true, SpotWithPriceLimit = true }

---A time line of a job that has no samples yet.
---@param app eirun.App
---@param pool? eirun.NodePool whose nodes are counted
---@return eirun.Timeline
---Example: `local line = timeline.new(app, pool); line:look()`. Raises nothing.
function M.new(app, pool)
  return setmetatable({ app = app, pool = pool, samples = {} }, Timeline)
end

local function count_nodes(self)
  local counts = { spot = 0, on_demand = 0 }
  if not self.pool then return counts end
  for _, node in ipairs(self.app.k8s:list("Node", { labels = { ["alibabacloud.com/nodepool-id"] = self.pool.id } })) do
    if is_ready(node) then
      local strategy = (node.metadata.labels or {})["node.alibabacloud.com/spot-strategy"]
      local key = spot_strategies[strategy] and "spot" or "on_demand"
      counts[key] = counts[key] + 1
    end
  end
  return counts
end

local function sample(self)
  local replicas, nodes = self.app:replicas(), count_nodes(self)
  return { at = task.now(), wanted = replicas.wanted, ready = replicas.ready, spot = nodes.spot, on_demand = nodes.on_demand }
end

---Takes a sample. A look that fails leaves a gap: the load test goes on.
---Example: `while true do line:look() task.sleep(5) end`. Raises only `cancelled`.
function Timeline:look()
  local ok, seen = pcall(sample, self)
  if ok then
    self.samples[#self.samples + 1] = seen
  elseif errors.is(seen, "cancelled") then
    error(seen, 0)
  end
end

local curves = { { "wanted", "replicas wanted", "replicas" }, { "ready", "replicas ready", "replicas" },
  { "on_demand", "on-demand nodes", "nodes" }, { "spot", "spot nodes", "nodes" } }

---The samples as series for a chart, in seconds since `start`.
---@param start number
---@return table[]
---Example: `chart.draw { series = line:series(result.started_at) }`. Raises nothing.
function Timeline:series(start)
  local list = {}
  for _, curve in ipairs(curves) do
    local points = {}
    for i, seen in ipairs(self.samples) do points[i] = { math.max(0, seen.at - start), seen[curve[1]] } end
    list[#list + 1] = { name = curve[2], unit = curve[3], kind = "step", points = points }
  end
  return list
end

local firsts = { { "wanted", "more replicas are wanted" }, { "ready", "the first of them is ready" } }

local function first_rise(samples, field)
  for i = 2, #samples do
    if samples[i][field] > samples[1][field] then return samples[i].at end
  end
end

local function first_node(samples)
  for i = 2, #samples do
    if samples[i].spot + samples[i].on_demand > samples[1].spot + samples[1].on_demand then return samples[i].at end
  end
end

---The moments of the chain: more wanted, the first new node, the first new replica.
---@param start number
---@return {t: number, label: string}[]
---Example: `for _, mark in ipairs(line:marks(started)) do print(mark.t, mark.label) end`. Raises nothing.
function Timeline:marks(start)
  local marks = {}
  for _, row in ipairs(firsts) do
    local at = first_rise(self.samples, row[1])
    if at then marks[#marks + 1] = { t = at - start, label = row[2] } end
  end
  local node = first_node(self.samples)
  if node then marks[#marks + 1] = { t = node - start, label = "the first new node is ready" } end
  table.sort(marks, function(a, b) return a.t < b.t end)
  return marks
end

return M
