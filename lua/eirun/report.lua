-- SPDX-License-Identifier: Apache-2.0
-- A report as one HTML file that needs nothing else: styles, pictures (SVG) and the few lines of script for the cross-hair are
-- inside. Light or dark as the reader's system is; without script everything but the cross-hair is there.
local axis = require "eirun.chart.axis"
local distribution = require "eirun.report.distribution"
local page = require "eirun.report.page"

local M = {}

local width, left, right, top, bottom, height = 960, 74, 16, 30, 24, 190

local function escape(text)
  return (tostring(text):gsub("[&<>\"']", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\""] = "&quot;", ["'"] = "&#39;" }))
end

local function number(value)
  local text = ("%.1f"):format(value)
  return (text:gsub("%.0$", ""))
end

-- At most two points for each tenth of a pixel column's worth: the lowest and the highest of a bucket, in their order.
local function thin(points, most)
  if #points <= most then return points end
  local out, size = {}, math.ceil(#points / (most / 2))
  for first = 1, #points, size do
    local low, high = first, first
    for i = first, math.min(first + size - 1, #points) do
      if points[i][2] < points[low][2] then low = i end
      if points[i][2] > points[high][2] then high = i end
    end
    out[#out + 1] = points[math.min(low, high)]
    if low ~= high then out[#out + 1] = points[math.max(low, high)] end
  end
  return out
end

local function path_of(series, x_of, y_of)
  local out, step = {}, series.kind == "step"
  local gap = step and math.huge or axis.gap(series.points)
  local previous
  for _, point in ipairs(thin(series.points, 2 * width)) do
    local x, y = number(x_of(point[1])), number(y_of(point[2]))
    if not previous or point[1] - previous > gap then
      out[#out + 1] = ("M%s %s"):format(x, y)
    elseif step then
      out[#out + 1] = ("H%sV%s"):format(x, y)
    else
      out[#out + 1] = ("L%s %s"):format(x, y)
    end
    previous = point[1]
  end
  return table.concat(out)
end

local function geometry(panel, from, to)
  local inner, tall = width - left - right, height - top - bottom
  return function(t) return left + (t - from) / (to - from) * inner end,
    function(value) return top + (1 - panel.scale.place(value)) * tall end
end

local function grid(panel, x_of, y_of, ticks, out)
  for _, tick in ipairs(panel.scale.ticks) do
    local y = number(y_of(tick))
    out[#out + 1] = ('<line class="grid" x1="%d" x2="%d" y1="%s" y2="%s"/>'):format(left, width - right, y, y)
    out[#out + 1] = ('<text class="tick end" x="%d" y="%s" dy="3.5">%s</text>'):format(left - 8, y, escape(axis.tick(tick, panel.unit)))
  end
  for _, t in ipairs(ticks) do
    local x = number(x_of(t))
    out[#out + 1] = ('<line class="grid faint" x1="%s" x2="%s" y1="%d" y2="%d"/>'):format(x, x, top, height - bottom)
    out[#out + 1] = ('<text class="tick mid" x="%s" y="%d">%s</text>'):format(x, height - bottom + 16, axis.time(t))
  end
end

local function bands(report, x_of, from, to, out)
  for _, band in ipairs(report.bands or {}) do
    local x0, x1 = x_of(math.max(from, band.from)), x_of(math.min(to, band.to))
    out[#out + 1] = ('<rect class="band" x="%s" y="%d" width="%s" height="%d"><title>%s</title></rect>'):format(
      number(x0), top, number(math.max(0, x1 - x0)), height - top - bottom, escape(band.label))
  end
  for _, mark in ipairs(report.marks or {}) do
    local x = number(x_of(mark.t))
    out[#out + 1] = ('<line class="mark" x1="%s" x2="%s" y1="%d" y2="%d"><title>%s %s</title></line>'):format(
      x, x, top - 4, height - bottom, axis.time(mark.t), escape(mark.label))
  end
end

local function limit_lines(report, panel, y_of, out)
  for _, limit in ipairs(report.limits or {}) do
    if limit.group == panel.name then
      local y = y_of(limit.value)
      out[#out + 1] = ('<line class="limit" x1="%d" x2="%d" y1="%s" y2="%s"/>'):format(left, width - right, number(y), number(y))
      out[#out + 1] = ('<text class="tick limit-label end" x="%d" y="%s">%s</text>'):format(
        width - right - 4, number(y - 4), escape(limit.label or ""))
    end
  end
end

local function curves(panel, x_of, y_of, to, out)
  for i = #panel.series, 1, -1 do
    local series = panel.series[i]
    local path = path_of(series, x_of, y_of)
    if series.kind == "step" and #series.points > 0 then path = path .. "H" .. number(x_of(to)) end
    -- Where steps coincide the wider one below stays visible at both sides of the one on top.
    local under = series.kind == "step" and i > 1 and " under" or ""
    out[#out + 1] = ('<path class="curve c%d%s" d="%s"/>'):format((i - 1) % 6 + 1, under, path)
  end
end

local function legend(panel)
  local out = {}
  for i, series in ipairs(panel.series) do
    local most, last = nil, series.points[#series.points]
    for _, point in ipairs(series.points) do most = math.max(most or point[2], point[2]) end
    local figures = most and ("max %s, last %s"):format(axis.tick(most, panel.unit), axis.tick(last[2], panel.unit)) or "no data"
    out[#out + 1] = ('<span class="key"><i class="k%d"></i>%s <small>%s</small></span>'):format(
      (i - 1) % 6 + 1, escape(series.name), escape(figures))
  end
  return table.concat(out)
end

local function panel_html(report, panel, from, to, index)
  local x_of, y_of = geometry(panel, from, to)
  local out = {}
  bands(report, x_of, from, to, out)
  grid(panel, x_of, y_of, axis.time_ticks(from, to, 10), out)
  limit_lines(report, panel, y_of, out)
  curves(panel, x_of, y_of, to, out)
  local title = axis.title(panel)
  local scale = panel.scale.log and ' <small class="note">logarithmic</small>' or ""
  local caption = ('<figcaption><b>%s</b>%s<span class="keys">%s</span></figcaption>'):format(escape(title), scale, legend(panel))
  local open = ('<svg viewBox="0 0 %d %d" data-panel="%d" role="img" aria-label="%s over time">'):format(
    width, height, index, escape(title))
  local hair = ('<line class="hair" y1="%d" y2="%d"/>'):format(top, height - bottom)
  return ("<figure>%s\n%s%s%s</svg></figure>"):format(caption, open, table.concat(out, "\n"), hair)
end

local function json_string(text)
  return '"' .. text:gsub('[%c"\\<>&]', function(c) return ("\\u%04x"):format(c:byte()) end) .. '"'
end

-- What the cross-hair reads: [{name, unit, step, points: [[t, v], ...]}, ...] by panel.
local function data_of(panels, from, to)
  local out = {}
  for _, panel in ipairs(panels) do
    local series_out = {}
    for _, series in ipairs(panel.series) do
      local points = {}
      for _, point in ipairs(thin(series.points, 2 * width)) do
        points[#points + 1] = ("[%s,%s]"):format(("%.10g"):format(point[1]), json_string(axis.value(point[2], panel.unit)))
      end
      series_out[#series_out + 1] = ('{"name":%s,"step":%s,"points":[%s]}'):format(
        json_string(series.name), tostring(series.kind == "step"), table.concat(points, ","))
    end
    out[#out + 1] = "[" .. table.concat(series_out, ",") .. "]"
  end
  return ('{"from":%.10g,"to":%.10g,"left":%d,"right":%d,"width":%d,"panels":[%s]}'):format(
    from, to, left, right, width, table.concat(out, ","))
end

local function pictures(report)
  local series = report.series or {}
  if #series == 0 then return "" end
  local from, to = axis.span(series)
  local panels = axis.panels(series, report.limits, 4)
  local out = {}
  for i, panel in ipairs(panels) do out[i] = panel_html(report, panel, from, to, i - 1) end
  local note = {}
  for _, band in ipairs(report.bands or {}) do
    note[#note + 1] = ('<p class="legend"><i class="swatch"></i>%s (%s to %s)</p>'):format(
      escape(band.label), axis.time(band.from), axis.time(band.to < math.huge and band.to or to))
  end
  for _, mark in ipairs(report.marks or {}) do
    note[#note + 1] = ('<p class="legend"><i class="dotted"></i>%s %s</p>'):format(axis.time(mark.t), escape(mark.label))
  end
  return ('<section class="charts">%s%s<script type="application/json" id="data">%s</script></section>'):format(
    table.concat(out, "\n"), table.concat(note), data_of(panels, from, to))
end

local function facts(report)
  local out = {}
  for _, fact in ipairs(report.facts or {}) do
    out[#out + 1] = ("<div><dt>%s</dt><dd>%s</dd></div>"):format(escape(fact[1]), escape(fact[2]))
  end
  return #out > 0 and '<dl class="facts">' .. table.concat(out) .. "</dl>" or ""
end

local good, bad = { "kept", "good" }, { "missed", "bad" }

local function thresholds(report)
  local threshold = require "eirun.threshold"
  local out = {}
  for _, verdict in ipairs(report.thresholds or {}) do
    local word = verdict.ok and good or bad
    local value = verdict.metric and threshold.show(verdict.metric, verdict.value) or verdict.value
    out[#out + 1] = ('<li class="%s"><code>%s</code><span>%s</span><b>%s</b></li>'):format(
      word[2], escape(verdict.text), escape(value == nil and "no figure" or value), word[1])
  end
  return #out > 0 and '<h2>Thresholds</h2><ul class="verdicts">' .. table.concat(out) .. "</ul>" or ""
end

-- A column is a column of numbers when its first row says so.
local function row_html(row, tag, first)
  local cells = {}
  for i, cell in ipairs(row) do
    local class = type(first[i]) == "number" and ' class="num"' or ""
    cells[i] = ("<%s%s>%s</%s>"):format(tag, class, escape(type(cell) == "number" and axis.value(cell) or cell), tag)
  end
  return "<tr>" .. table.concat(cells) .. "</tr>"
end

local function tables(report)
  local out = {}
  for _, t in ipairs(report.tables or {}) do
    local rows = {}
    for i, row in ipairs(t.rows) do rows[i] = row_html(row, "td", t.rows[1]) end
    out[#out + 1] = ('<h2>%s</h2><div class="scroll"><table><thead>%s</thead><tbody>%s</tbody></table></div>'):format(
      escape(t.title or ""), row_html(t.columns or {}, "th", t.rows[1] or {}), table.concat(rows, "\n"))
  end
  return table.concat(out)
end

local function verdict(report)
  if report.ok == nil then return "" end
  local word = report.verdict or (report.ok and "passed" or "failed")
  return ('<span class="verdict %s">%s</span>'):format(report.ok and "good" or "bad", escape(word))
end

---@class eirun.Report
---@field title string
---@field subtitle? string
---@field ok? boolean the verdict beside the title
---@field verdict? string its word, default passed or failed
---@field facts? {[1]: string, [2]: string|number}[]
---@field thresholds? {text: string, metric?: string, value: any, ok: boolean}[] as load.run answers them
---@field series? eirun.Series[]
---@field limits? {group: string, value: number, label?: string}[] lines across a panel
---@field bands? {from: number, to: number, label: string}[] stretches of time
---@field marks? {t: number, label: string}[] moments
---@field distribution? {title: string, unit?: string, bins: {from: number, to: number, count: integer}[]} a histogram
---@field tables? {title?: string, columns: string[], rows: any[][]}[]
---@field notes? string[]

---Writes a report as HTML.
---@param report eirun.Report
---@return string html
---Example: `fs.write("report.html", report.html { title = "load test", series = series, facts = { { "p95", "120 ms" } } })`.
---Never raises for a well-formed report. Everything from the caller is escaped.
function M.html(report)
  local notes = {}
  for _, note in ipairs(report.notes or {}) do notes[#notes + 1] = ('<p class="note">%s</p>'):format(escape(note)) end
  local parts = {
    title = escape(report.title), subtitle = report.subtitle and '<p class="subtitle">' .. escape(report.subtitle) .. "</p>" or "",
    verdict = verdict(report), facts = facts(report), thresholds = thresholds(report),
    charts = pictures(report) .. distribution(report.distribution, escape),
    tables = tables(report), notes = table.concat(notes),
  }
  return (page:gsub("{{(%w+)}}", parts))
end

return M
