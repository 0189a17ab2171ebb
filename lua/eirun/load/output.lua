-- SPDX-License-Identifier: Apache-2.0
-- A load run's result for people and for programs: text, JSON, JUnit, and the page of a report.
local axis = require "eirun.chart.axis"
local chart = require "eirun.chart"
local report = require "eirun.report"
local threshold = require "eirun.threshold"

local M = {}

local percentiles = { { "p50", "p50" }, { "p90", "p90" }, { "p95", "p95" }, { "p99", "p99" }, { "p99_9", "p99.9" }, { "max", "max" } }

local function points_of(series, field, length)
  local points = {}
  for _, second in ipairs(series) do
    if second[field] and second.t < length then points[#points + 1] = { second.t, second[field] } end
  end
  return points
end

---The curves of a run over its plan's seconds.
---@param result eirun.LoadResult
---@return eirun.Series[]
---Never raises.
function M.series(result)
  local list, length = {}, #result.phases > 0 and result.phases[#result.phases].to or math.huge
  local function add(field, name, unit, group, log)
    list[#list + 1] = { name = name, unit = unit, group = group, log = log, points = points_of(result.series, field, length) }
  end
  add("sent", "sent", "/s", "Requests")
  add("planned", "planned", "/s", "Requests")
  if result.errors.total > 0 then add("errors", "failed", "/s", "Requests") end
  add("p50", "p50", "s", "Latency", true)
  add("p95", "p95", "s", "Latency", true)
  add("p99", "p99", "s", "Latency", true)
  add("in_flight", "in flight", "", "In flight")
  return list
end

local function sorted_kinds(errors)
  local kinds = {}
  for kind in pairs(errors.by_kind) do kinds[#kinds + 1] = kind end
  table.sort(kinds)
  return kinds
end

local function error_text(errors)
  if errors.total == 0 then return "none" end
  local parts = {}
  for _, kind in ipairs(sorted_kinds(errors)) do parts[#parts + 1] = ("%s %d"):format(kind, errors.by_kind[kind]) end
  return ("%d, %.3g %% (%s)"):format(errors.total, errors.share * 100, table.concat(parts, ", "))
end

local function row_text(figures)
  local latency, parts = figures.latency, {}
  for _, key in ipairs { "p50", "p95", "p99", "max" } do
    parts[#parts + 1] = ("%s %-8s"):format(key, latency.count > 0 and threshold.show_seconds(latency[key]) or "none")
  end
  return ("  %-28s %8d requests %8.4g/s  %s errors %d"):format(figures.name, figures.requests, figures.throughput,
    table.concat(parts, " "), figures.errors.total)
end

local function latency_text(latency)
  if latency.count == 0 then return "no answer" end
  local parts = {}
  for _, row in ipairs(percentiles) do parts[#parts + 1] = row[2] .. " " .. threshold.show_seconds(latency[row[1]]) end
  return ("%s  (mean %s)"):format(table.concat(parts, "  "), threshold.show_seconds(latency.mean))
end

---What became of the run, in one word, and why.
---@param result eirun.LoadResult
---@return string
---@return string|nil
function M.verdict(result)
  if not result.valid then return "not valid", result.reason end
  if result.inconclusive then return "inconclusive", ("%d answers are too few to judge, %d are wanted"):format(
    math.min(result.window.requests, result.window.latency.count), result.needed) end
  local kept = true
  for _, verdict in ipairs(result.thresholds) do kept = kept and verdict.ok end
  if result.stopped and kept then return "stopped", result.stopped end
  if #result.thresholds == 0 then return "measured" end
  return kept and "passed" or "missed", result.stopped
end

---The run in lines of text.
---@param result eirun.LoadResult
---@param opts? {width?: integer, unicode?: boolean, color?: boolean} with it, a chart comes first
---@return string
---Never raises.
function M.text(result, opts)
  local lines = { result.url }
  local function add(format, ...) lines[#lines + 1] = format:format(...) end
  if opts and #result.series > 1 then
    lines[#lines + 1] = chart.draw({ series = M.series(result) }, opts)
  end
  add("requests    %d of %d planned, %.4g answered a second, %.1f s", result.requests, result.planned, result.throughput, result.seconds)
  add("errors      %s", error_text(result.errors))
  add("latency     %s", latency_text(result.latency))
  add("connections %d opened, sent late by p99 %s", result.connections, threshold.show_seconds(result.lateness.p99))
  add("bytes       %d in, %d out", result.bytes_in, result.bytes_out)
  for _, list in ipairs { #result.phases > 1 and result.phases or {}, result.targets } do
    for _, figures in ipairs(list) do lines[#lines + 1] = row_text(figures) end
  end
  if result.resent > 0 then add("resent      %d requests met a connection that the server had closed", result.resent) end
  if result.aborted > 0 then add("aborted     %d requests were in flight when the run was stopped", result.aborted) end
  for _, example in ipairs(result.examples) do
    local status = example.status and " " .. example.status or ""
    add("  %s at %.1f s:%s %s", example.kind, example.at, status, (example.text:gsub("%c", " ")))
  end
  for _, verdict in ipairs(result.thresholds) do
    add("%s  %-20s %s", verdict.ok and "kept  " or "MISSED", verdict.text, threshold.show(verdict.metric, verdict.value))
  end
  local word, why = M.verdict(result)
  add("%s%s", word, why and ": " .. why or "")
  return table.concat(lines, "\n") .. "\n"
end

local latency_keys = { "count", "mean", "min", "p50", "p75", "p90", "p95", "p99", "max" }

local function latency_object(latency)
  local out = {}
  for _, key in ipairs(latency_keys) do out[key] = latency[key] end
  out["p99.9"], out["p99.99"] = latency.p99_9, latency.p99_99
  return out
end

-- Figures of a whole run, a window, a phase or a target: errors by kind, and their sum and share beside them.
local function figures_object(figures)
  return {
    requests = figures.requests, planned = figures.planned, errors = figures.errors.by_kind, error_total = figures.errors.total,
    error_share = figures.errors.share, throughput = figures.throughput, rate = figures.rate, seconds = figures.seconds,
    bytes = figures.bytes, latency = latency_object(figures.latency), from = figures.from, to = figures.to, name = figures.name,
    url = figures.url, weight = figures.weight, series = figures.series, window = figures.window and figures_object(figures.window),
  }
end

local copied = { "url", "valid", "ok", "inconclusive", "reason", "stopped", "started_at", "connections", "resent", "aborted", "lateness",
  "bytes_in", "bytes_out" }

local function array_of(list, make)
  local array = require("eirun.core.json").array {}
  for i, value in ipairs(list) do array[i] = make and make(value) or value end
  return array
end

---The run as one plain table for JSON: seconds and shares, no picture.
---@param result eirun.LoadResult
---@return table
---Never raises.
function M.object(result)
  local object = figures_object(result)
  for _, key in ipairs(copied) do object[key] = result[key] end
  object.thresholds, object.examples = array_of(result.thresholds), array_of(result.examples)
  object.phases, object.targets = array_of(result.phases, figures_object), array_of(result.targets, figures_object)
  return object
end

local function xml(text)
  local printable = tostring(text):gsub("[%z\1-\8\11\12\14-\31]", "?")
  return (printable:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\""] = "&quot;" }))
end

local function test_case(verdict, result)
  local open = ('  <testcase classname="eirun.load" name="%s" time="%.3f"'):format(xml(verdict.text), result.seconds)
  if verdict.ok then return open .. "/>" end
  return ('%s>\n    <failure message="%s"/>\n  </testcase>'):format(open, xml(threshold.show(verdict.metric, verdict.value)))
end

---Thresholds as a JUnit test suite; a run that is not valid is one failed case more.
---@param result eirun.LoadResult
---@return string
---Never raises.
function M.junit(result)
  local cases, failed = {}, 0
  for _, verdict in ipairs(result.thresholds) do
    cases[#cases + 1] = test_case(verdict, result)
    failed = failed + (verdict.ok and 0 or 1)
  end
  local word, why = M.verdict(result)
  if why and word ~= "missed" then
    cases[#cases + 1] = ('  <testcase classname="eirun.load" name="valid">\n    <failure message="%s"/>\n  </testcase>'):format(
      xml(word .. ": " .. why))
    failed = failed + 1
  end
  local open = ('<testsuite name="load %s" tests="%d" failures="%d" time="%.3f">'):format(xml(result.url), #cases, failed, result.seconds)
  return '<?xml version="1.0" encoding="UTF-8"?>\n' .. open .. "\n" .. table.concat(cases, "\n") .. "\n</testsuite>\n"
end

local function figures_table(title, list)
  local rows = {}
  for i, phase in ipairs(list) do
    rows[i] = { phase.name, phase.requests, phase.errors.total }
    for _, key in ipairs { "p50", "p95", "p99", "max" } do
      rows[i][#rows[i] + 1] = phase.latency.count > 0 and axis.value(phase.latency[key], "s") or "none"
    end
  end
  return { title = title .. "s", columns = { title, "Requests", "Errors", "p50", "p95", "p99", "max" }, rows = rows }
end

local function example_table(result)
  local rows = {}
  for i, example in ipairs(result.examples) do
    rows[i] = { axis.time(example.at), example.kind, example.status and tostring(example.status) or "", example.text }
  end
  return { title = "First failures", columns = { "At", "Kind", "Status", "What was said" }, rows = rows }
end

-- Limits of latency thresholds, drawn into its panel.
local function limits_of(result)
  local limits = {}
  for _, verdict in ipairs(result.thresholds) do
    if verdict.metric:find "^p%d" or verdict.metric == "max" then
      limits[#limits + 1] = { group = "Latency", value = verdict.limit, label = verdict.text }
    end
  end
  return limits
end

local function facts_of(result)
  local window = result.window.latency
  local facts = {
    { "Requests", ("%d"):format(result.requests) },
    { "Errors", result.errors.total == 0 and "none" or ("%.3g %%"):format(result.errors.share * 100) },
    { "Answered a second", ("%.4g"):format(result.throughput) },
  }
  for _, row in ipairs(percentiles) do
    facts[#facts + 1] = { row[2] .. " in the window", window.count > 0 and axis.value(window[row[1]], "s") or "no answer" }
  end
  return facts
end

-- Counters gathered into twenty bins a decade.
local function bins_of(histogram)
  local bins, by_index = {}, {}
  for _, counter in ipairs(histogram) do
    local index = math.floor(math.log(math.max(counter[1], 1), 10) * 20)
    local bin = by_index[index]
    if not bin then
      bin = { from = 10.0 ^ (index / 20) / 1e6, to = 10.0 ^ ((index + 1) / 20) / 1e6, count = 0 }
      by_index[index], bins[#bins + 1] = bin, bin
    end
    bin.count = bin.count + counter[3]
  end
  return bins
end

---The run as an HTML page.
---@param result eirun.LoadResult
---@param title? string
---@return string html
---Never raises.
function M.html(result, title)
  local word, why = M.verdict(result)
  local good
  if word ~= "measured" then good = result.ok end
  local tables = { figures_table("Phase", result.phases) }
  if #result.targets > 0 then tables[2] = figures_table("Target", result.targets) end
  if #result.examples > 0 then tables[#tables + 1] = example_table(result) end
  local window = result.window
  local partial = window.from > 0 or #result.phases > 0 and window.to < result.phases[#result.phases].to
  return report.html {
    title = title or "Load test", subtitle = result.url, ok = good, verdict = word,
    facts = facts_of(result), thresholds = result.thresholds, series = M.series(result), limits = limits_of(result),
    bands = partial and { { from = window.from, to = window.to, label = "judged by the thresholds" } } or nil,
    distribution = { title = "Latency distribution", unit = "s", bins = bins_of(result.histogram) },
    tables = tables,
    notes = { why, "Latency counts from the time at which a request was planned to be sent, so waiting for a slow server is part of it." },
  }
end

return M
