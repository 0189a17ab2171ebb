-- SPDX-License-Identifier: Apache-2.0
local crypto = require "eirun.core.crypto"
local hdrlog = require "eirun.load.hdrlog"
local output = require "eirun.load.output"
local plantext = require "eirun.load.plantext"
local t = require "eirun.test"

t.test("durations_are_read_as_people_write_them", function()
  local cases = { ["90"] = 90, ["90s"] = 90, ["1m30s"] = 90, ["250ms"] = 0.25, ["2h"] = 7200, ["1.5m"] = 90, [".5s"] = 0.5 }
  for text, seconds in pairs(cases) do t.ok(math.abs(plantext.duration(text) - seconds) < 1e-12, text) end
  for _, bad in ipairs { { "", 1 }, { "5x", 2 }, { "-5s", 1 }, { "5s,", 3 }, { "0", 1 }, { "1e3", 2 } } do
    t.eq(t.err("invalid", plantext.duration, bad[1]).column, bad[2], bad[1])
  end
end)

t.test("a_plan_is_read_from_one_line", function()
  t.eq(plantext.plan " 0..60:2m, 60:12m,pause:10s , 60..0.5:1m ", {
    { kind = "ramp", from = 0, to = 60, duration = 120 }, { kind = "hold", rate = 60, duration = 720 },
    { kind = "pause", duration = 10 }, { kind = "ramp", from = 60, to = 0.5, duration = 60 },
  })
  t.eq(plantext.plan "10..50/5:1m,sine:5..50/30s:2m,spike:0..90:30s", {
    { kind = "steps", from = 10, to = 50, steps = 5, duration = 60 }, { kind = "sine", rate = 5, peak = 50, period = 30, duration = 120 },
    { kind = "spike", rate = 0, peak = 90, duration = 30 },
  })
  local bad = { { "sine:5:1m", 7, "expected .. and the peak" }, { "sine:5..9:1m", 10, "the time of one wave" },
    { "60", 3, "expected .. or :" },
    { "60:2m 5:1m", 7, "expected a comma" }, { "x:1m", 1, "expected a number" },
    { "0..:1m", 4, "expected a number" }, { "60:2d", 5, "expected ms, s, m or h" }, { "60:1m,", 7, "expected a number" } }
  for _, case in ipairs(bad) do
    local err = t.err("invalid", plantext.plan, case[1])
    t.eq(err.column, case[2], case[1])
    t.ok(err.message:find(case[3], 1, true), err.message)
  end
  t.eq(plantext.window "10m..14m", { from = 600, to = 840 })
  t.eq(plantext.window "5s..", { from = 5 })
  t.eq({ plantext.window "0..1m", plantext.window "0s..1m" }, { { from = 0, to = 60 }, { from = 0, to = 60 } })
  t.eq(t.err("invalid", plantext.window, "1m..0").column, 1)
end)

-- What PyPI's hdrhistogram 0.10 writes, decompressed, for 1 (twice), 500, 3000 (10 times), 1 s (300 times) and 3500 s.
local reference = "1c849313000000110000000000000003000000000000000100000000d693a4003ff0000000000000"
  .. "0104e30702cd1f14878701d804c3bb0102"

t.test("a_histogram_is_written_as_the_public_libraries_write_it", function()
  local histogram = { -- {lowest, highest, count, index}: the index of HdrHistogram's own counters
    { 1, 1, 2, 1 }, { 500, 500, 1, 500 }, { 3000, 3001, 10, 2524 }, { 999936, 1000447, 300, 11169 },
    { 3498049536, 3500146687, 1, 23172 },
  }
  local bytes = crypto.unbase64(hdrlog.encode(histogram))
  local cookie, length = string.unpack(">I4I4", bytes)
  t.eq({ cookie, length }, { 0x1c849314, #bytes - 8 })
  t.eq(bytes:sub(9, 10), "\x78\x01")
  local last, size = string.unpack("<BI2", bytes, 11)
  t.eq(last, 1)
  t.eq(crypto.hex(bytes:sub(16, 15 + size)), reference)
  t.eq(#bytes, 8 + 2 + 5 + size + 4)
end)

local function result()
  local latency = { count = 100, mean = 0.02, min = 0.01, p50 = 0.02, p75 = 0.02, p90 = 0.03, p95 = 0.04, p99 = 0.05, p99_9 = 0.06,
    p99_99 = 0.06, max = 0.06 }
  local errors = { total = 2, by_kind = { timeout = 1, status_5xx = 1 }, share = 0.02 }
  local figures = { requests = 100, planned = 100, good = 98, errors = errors, rate = 0.99, throughput = 9.9, seconds = 10,
    latency = latency }
  local whole = { window = figures, phases = { figures }, url = "http://x/?a=1&b", started_at = 1767600000, connections = 3, resent = 0,
    aborted = 0, targets = {},
    lateness = { p99 = 0.0001 }, examples = { { kind = "status_5xx", at = 1.5, status = 503, text = "busy\n<now>" } }, ok = false,
    valid = true, inconclusive = false, bytes_in = 1, bytes_out = 2, histogram = { { 20000, 20015, 100, 5000 } },
    thresholds = { { text = "p95<30ms", metric = "p95", value = 0.04, limit = 0.03, ok = false },
      { text = "rate>=0.9", metric = "rate", value = 0.99, limit = 0.9, ok = true } },
    series = { { t = 0, planned = 50, sent = 50, ok = 50, errors = 0, in_flight = 2, p50 = 0.02, p95 = 0.04, p99 = 0.05 },
      { t = 1, planned = 50, sent = 50, ok = 48, errors = 2, in_flight = 2, p50 = 0.02, p95 = 0.04, p99 = 0.05 } } }
  for key, value in pairs(figures) do whole[key] = value end
  figures.name, figures.from, figures.to, figures.histogram = "hold 10/s, all", 0, 10, whole.histogram
  return whole
end

t.test("text_tells_figures_failures_and_verdicts", function()
  local text = output.text(result())
  t.match(text, "errors      2, 2 %% %(status_5xx 1, timeout 1%)")
  t.match(text, "p50 20 ms  p90 30 ms  p95 40 ms")
  t.match(text, "MISSED  p95<30ms             40 ms\n")
  t.match(text, "kept    rate>=0.9            99 %%\n")
  t.match(text, "status_5xx at 1.5 s: 503 busy <now>\n")
  t.match(text, "missed\n$")
end)

t.test("a_run_that_is_not_valid_says_why_before_anything_else_is_believed", function()
  local invalid = result()
  invalid.valid, invalid.reason = false, "requests were sent late"
  t.match(output.text(invalid), "not valid: requests were sent late\n$")
  t.match(output.junit(invalid), '<failure message="not valid: requests were sent late"/>')
end)

t.test("json_holds_the_promised_fields", function()
  local json = require "eirun.core.json"
  local object = assert(json.decode(json.encode(output.object(result()))))
  for _, key in ipairs { "requests", "errors", "throughput", "seconds", "latency", "thresholds", "valid" } do
    t.ok(object[key] ~= nil, key)
  end
  for _, key in ipairs { "mean", "p50", "p90", "p95", "p99", "p99.9", "max" } do t.ok(object.latency[key], key) end
  t.eq(object.errors, { timeout = 1, status_5xx = 1 })
end)

t.test("junit_counts_the_missed_and_escapes", function()
  local xml = output.junit(result())
  t.match(xml, 'name="load http://x/%?a=1&amp;b" tests="2" failures="1"')
  t.match(xml, 'name="p95&lt;30ms"')
end)

t.test("the_log_has_an_interval_a_phase", function()
  local log = hdrlog.write(result())
  t.match(log, "^#%[Histogram log format version 1.3%]\n")
  t.match(log, "\nTag=hold_10/s__all,0.000,10.000,20.015,HIST")
end)

t.test("the_page_shows_its_verdict_beside_the_title", function()
  local missed, passed, measured = result(), result(), result()
  passed.ok, passed.thresholds = true, { passed.thresholds[2] }
  measured.ok, measured.thresholds = true, {}
  t.match(output.html(missed), '<span class="verdict bad">missed</span>')
  t.match(output.html(passed), '<span class="verdict good">passed</span>')
  t.ok(not output.html(measured):find('class="verdict ', 1, true))
end)

t.test("a_run_that_was_interrupted_has_not_passed", function()
  local stopped = result()
  stopped.thresholds, stopped.stopped = { stopped.thresholds[2] }, "it was interrupted after 3 s"
  t.match(output.text(stopped), "stopped: it was interrupted after 3 s\n$")
  t.match(output.junit(stopped), 'tests="2" failures="1"')
  stopped.thresholds = {}
  t.match(output.text(stopped), "stopped: it was interrupted after 3 s\n$")
end)

t.test("the_page_has_charts_distribution_and_tables", function()
  local html = output.html(result())
  for _, text in ipairs { "Requests", "Latency distribution", 'class="bar"', "First failures", "busy\n&lt;now&gt;", "p95&lt;30ms" } do
    t.ok(html:find(text, 1, true), text)
  end
  t.ok(not html:find("http://x/?a=1&b", 1, true), "the URL was not escaped")
end)
