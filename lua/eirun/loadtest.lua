-- SPDX-License-Identifier: Apache-2.0
-- A load test that also watches what answers: replicas and nodes on the time line of the requests, so that the chain from traffic
-- to replicas to nodes to latency can be seen in one picture.
local axis = require "eirun.chart.axis"
local chart = require "eirun.chart"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local load = require "eirun.load"
local report = require "eirun.report"
local spec = require "eirun.spec"
local step = require "eirun.step"
local task = require "eirun.task"
local timeline = require "eirun.timeline"

local M = {}

local rules = {
  app = { type = "table", required = true }, pool = { type = "table" }, web = { type = "table", required = true },
  body = { type = "string", required = true }, plan = { type = "list", required = true }, window = { type = "table" },
  thresholds = { type = "list" }, every = { type = "number", min = 0.1 }, report = { type = "string" },
  timeout = { type = "number" }, arrivals = { type = "string" }, seed = { type = "integer" }, max_connections = { type = "integer" },
}

local passed_on = { "body", "plan", "window", "thresholds", "timeout", "arrivals", "seed", "max_connections" }

local function load_options(given)
  local opts = { url = given.web:url(given.app:path "predict"), method = "POST", status = 200 }
  opts.headers = { { "Content-Type", "application/json" } }
  for _, header in ipairs(given.web.headers) do table.insert(opts.headers, header) end
  for _, key in ipairs(passed_on) do opts[key] = given[key] end
  opts.allow = { given.web.address }
  opts.progress = function(now)
    local p95 = now.p95 and (", p95 %.0f ms"):format(now.p95 * 1000) or ""
    step.progress { done = now.elapsed // 1, total = now.seconds // 1, unit = "s", text = ("%d requests/s%s"):format(now.rate, p95) }
  end
  return opts
end

-- The race ends with the load: the watcher has no end of its own.
local function run_watched(given, line)
  return task.race {
    function() return load.run(load_options(given)) end,
    function()
      while true do
        line:look()
        task.sleep(given.every or 5)
      end
    end,
  }
end

local function points_of(series, field)
  local points = {}
  for _, second in ipairs(series) do
    if second[field] then points[#points + 1] = { second.t, second[field] } end
  end
  return points
end

local function series_of(result, line)
  local series = {
    { name = "requests", unit = "/s", points = points_of(result.series, "sent") },
    { name = "p95", unit = "s", log = true, points = points_of(result.series, "p95") },
  }
  for _, each in ipairs(line:series(result.started_at)) do series[#series + 1] = each end
  return series
end

local function bands_of(result)
  local window = result.window
  return { { from = window.from, to = window.to, label = "judged by the thresholds" } }
end

local function facts_of(result)
  local latency, window = result.latency, result.window
  return {
    { "requests", result.requests }, { "errors", result.errors.total },
    { "p95 in the window", axis.value(window.latency.p95, "s") },
    { "p95 over all", axis.value(latency.p95, "s") }, { "p99 over all", axis.value(latency.p99, "s") },
  }
end

local function phase_rows(result)
  local rows = {}
  for i, phase in ipairs(result.phases) do
    local latency = phase.latency
    rows[i] = { phase.name, phase.requests, phase.errors.total }
    for _, key in ipairs { "p50", "p95", "p99" } do table.insert(rows[i], axis.value(latency[key], "s")) end
  end
  return { title = "Phases", columns = { "phase", "requests", "errors", "p50", "p95", "p99" }, rows = rows }
end

local function write_html(given, result, drawn)
  local html = report.html {
    title = "Load test of " .. given.app.job, subtitle = result.url, ok = result.ok, facts = facts_of(result),
    thresholds = result.thresholds, series = drawn.series, bands = drawn.bands, marks = drawn.marks, tables = { phase_rows(result) },
    notes = result.reason and { result.reason } or nil,
  }
  errors.check(fs.write(given.report, html))
  step.note("report: " .. given.report)
end

---Runs an open-loop load test against a job through its way in, and watches replicas and nodes meanwhile.
---@param given {app: eirun.App, web: eirun.Web, body: string, plan: table[], pool?: eirun.NodePool, thresholds?: string[], window?: table,
--- every?: number, report?: string, timeout?: number} `report` names an HTML file to write; the rest is as `load.run` takes it
---@return table result as load.run answers, with `timeline` (samples) and `marks`
---Example:
---```lua
---local result = loadtest.run { app = app, web = web, pool = pool, body = sample, report = "report.html",
---  plan = { { kind = "hold", rate = 50, duration = 300 } }, thresholds = { "p95<250ms" } }
---```
---A missed threshold is no error: `result.ok` is false. Raises what load.run raises, and "denied" or "not_found" for the report's file.
function M.run(given)
  spec.check("loadtest.run", given, rules)
  local line = timeline.new(given.app, given.pool)
  local result = run_watched(given, line)
  line:look()
  result.timeline, result.marks = line.samples, line:marks(result.started_at)
  local drawn = { series = series_of(result, line), bands = bands_of(result), marks = result.marks }
  step.note(chart.draw({ series = drawn.series }, chart.terminal(1)))
  if (given.report or "") ~= "" then write_html(given, result, drawn) end
  return result
end

return M
