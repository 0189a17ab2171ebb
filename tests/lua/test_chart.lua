-- SPDX-License-Identifier: Apache-2.0
local axis = require "eirun.chart.axis"
local chart = require "eirun.chart"
local report = require "eirun.report"
local t = require "eirun.test"

local function lines_of(text)
  local lines = {}
  for line in text:gmatch "(.-)\n" do lines[#lines + 1] = line end
  return lines
end

local function ramp(count, slope)
  local points = {}
  for i = 0, count do points[#points + 1] = { i, i * slope } end
  return points
end

t.test("a_scale_is_round_and_holds_its_values", function()
  for _, high in ipairs { 0.0003, 0.7, 1, 3, 9.9, 42, 61, 99999 } do
    local scale = axis.scale { high = high, count = 4 }
    t.ok(scale.high >= high and scale.high <= high * 2.5, "high of " .. high)
    t.ok(#scale.ticks >= 3 and #scale.ticks <= 6, "ticks of " .. high)
    t.ok(scale.place(0) == 0 and scale.place(scale.high) == 1, "ends of " .. high)
  end
  t.eq(axis.scale({ high = 2, count = 6, whole = true }).ticks, { 0, 1, 2 })
end)

t.test("a_logarithmic_scale_keeps_ratios", function()
  local scale = axis.scale { low = 0.04, high = 28, log = true }
  local step = scale.place(10) - scale.place(1)
  t.ok(math.abs(scale.place(1) - scale.place(0.1) - step) < 1e-9)
  t.eq(scale.place(0), 0)
  t.ok(scale.low <= 0.04 and scale.high >= 28)
end)

t.test("counted_things_have_whole_ticks", function()
  local panel = axis.panels({ { name = "n", unit = "nodes", points = { { 0, 7 } } } }, nil, 3)[1]
  for _, tick in ipairs(panel.scale.ticks) do t.eq(tick % 1 == 0, true) end
end)

t.test("values_are_written_with_their_units", function()
  local cases = {
    { 0.25, "s", "250 ms" }, { 0, "s", "0 s" }, { 12.5, "s", "12.5 s" }, { 90, "s", "90 s" }, { 300, "s", "5 min" }, { 2e-5, "s", "20 us" },
    { 60, "/s", "60/s" }, { 12500, "/s", "12.5k/s" }, { 0.301, "share", "30.1 %" }, { 3, "", "3" }, { 4.5, "CNY", "4.5 CNY" },
  }
  for _, case in ipairs(cases) do t.eq(axis.value(case[1], case[2]), case[3]) end
  t.eq({ axis.tick(3, "nodes"), axis.tick(0.5, "s"), axis.tick(7, "/s") }, { "3", "500 ms", "7/s" })
  t.eq(axis.time(65), "1:05")
  t.eq(axis.time(3905), "1:05:05")
end)

t.test("a_plain_chart_is_ascii_and_keeps_to_its_width", function()
  local series = { { name = "QPS", unit = "/s", points = ramp(900, 1) } }
  local text = chart.draw({ series = series }, { width = 60, unicode = false, height = 5 })
  for _, line in ipairs(lines_of(text)) do
    t.ok(#line <= 60, "'" .. line .. "' is too long")
    t.ok(not line:find "[\128-\255\27]", "'" .. line .. "' is not plain")
  end
  local lines = lines_of(text)
  t.match(lines[1], "QPS max 900/s, last 900/s")
  t.ok(#lines[2] > 50 and #lines[6] < 20, "the ramp ends at the top")
  t.match(lines[6], "0/s %+%*")
end)

t.test("a_short_peak_is_never_averaged_away", function()
  local points = {}
  for i = 0, 8999 do points[#points + 1] = { i, i == 4500 and 100 or 1 } end
  local lines = lines_of(chart.draw({ series = { { name = "p95", unit = "", points = points } } }, { width = 60, unicode = false }))
  t.ok(lines[2]:find("*", 1, true), "the peak is missing in the top row")
end)

t.test("colour_and_braille_come_when_asked", function()
  local series = { { name = "a", unit = "", points = ramp(10, 1) }, { name = "b", unit = "", points = ramp(10, 2), group = "a" } }
  series[1].group = "a"
  local text = chart.draw({ series = series }, { width = 60, color = true })
  t.match(text, "\27%[34m")
  t.match(text, "\27%[33m")
  t.ok(text:find "\xe2[\xa0-\xa3]", "no braille")
  t.ok(not chart.draw({ series = series }, { width = 60 }):find "\27", "escapes without colour")
end)

t.test("steps_hold_their_value", function()
  local series = { name = "nodes", unit = "", kind = "step", points = { { 0, 1 }, { 50, 2 }, { 100, 2 } } }
  local lines = lines_of(chart.draw({ series = { series } }, { width = 60, unicode = false, height = 5 }))
  t.match(lines[2], "^ *2 %+ +%*+$")
  t.match(lines[4], "^ *1 %+%*+$")
end)

t.test("empty_series_are_drawn_as_such", function()
  t.match(chart.draw({ series = {} }, { width = 40 }), "no data")
  t.match(chart.draw({ series = { { name = "x", unit = "/s", points = {} } } }, { width = 40 }), "x no data")
  t.match(report.html { title = "t", series = { { name = "x", unit = "/s", points = {} } } }, "no data")
end)

t.test("a_sparkline_shows_the_last_values", function()
  t.eq(chart.sparkline({ 1, 2, 4, 8 }), "▁▂▄█")
  t.eq(chart.sparkline({ 9, 9, 0, 8 }, 2), "▁█")
  t.eq(chart.sparkline({ 0, 8 }, 5, { unicode = false }), "_#")
end)

local function sample()
  return {
    title = "a <b> & \"c\"", ok = false, facts = { { "p95", "120 ms" } },
    thresholds = { { text = "p95<100ms", metric = "p95", value = 0.12, ok = false } },
    series = {
      { name = "QPS", unit = "/s", points = ramp(100, 1), group = "Traffic" },
      { name = "</script><x>", unit = "", points = { { 0, 1 }, { 60, 3 } }, kind = "step", group = "Nodes" },
    },
    bands = { { from = 40, to = 80, label = "window" } }, marks = { { t = 20, label = "node <1> joined" } },
    limits = { { group = "Traffic", value = 60, label = "60/s" } },
    tables = { { title = "Pods", columns = { "Pod", "Ready" }, rows = { { "<i>", 1 } } } },
  }
end

t.test("a_report_stands_alone_and_escapes_what_it_is_given", function()
  local html = report.html(sample())
  t.ok(not html:find "https?://", "it reaches out")
  t.ok(not html:find "{{", "a place was not filled")
  t.match(html, "a &lt;b&gt; &amp; &quot;c&quot;")
  t.ok(not html:find("<x>", 1, true) and not html:find("<i>", 1, true), "markup of the caller came through")
  local _, scripts = html:gsub("</script>", "")
  t.eq(scripts, 2)
  t.match(html, "missed")
  t.match(html, "120 ms")
  t.match(html, "0:20 node &lt;1&gt; joined")
end)

t.test("a_report_draws_steps_as_steps", function()
  local html = report.html(sample())
  t.match(html, 'class="curve c1" d="M[%d.]+ [%d.]+H[%d.]+V[%d.]+H[%d.]+"')
end)

t.test("a_long_series_is_thinned_but_keeps_its_peak", function()
  local points = {}
  for i = 0, 199999 do points[#points + 1] = { i, i == 77777 and 500 or 1 } end
  local html = report.html { title = "t", series = { { name = "x", unit = "", points = points } } }
  t.ok(#html < 400000, #html .. " bytes")
  t.match(html, '%[77777,"500"%]')
end)
