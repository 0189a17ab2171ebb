-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local threshold = require "eirun.threshold"

t.test("thresholds_are_read_in_the_units_that_people_write", function()
  local cases = {
    { "p95<250ms", "p95", "<", 0.25 }, { "p99.9 <= 1.5s", "p99.9", "<=", 1.5 }, { " max<2m ", "max", "<", 120 },
    { "mean>100us", "mean", ">", 1e-4 }, { "errors<0.1%", "errors", "<", 0.001 }, { "errors<=0.002", "errors", "<=", 0.002 },
    { "rate>=0.99", "rate", ">=", 0.99 }, { "rate>=99%", "rate", ">=", 0.99 }, { "throughput>=55/s", "throughput", ">=", 55 },
    { "p50<1e3us", "p50", "<", 1e-3 },
  }
  for _, case in ipairs(cases) do
    local parsed = threshold.parse(case[1])
    t.eq({ parsed.metric, parsed.op }, { case[2], case[3] }, case[1])
    t.ok(math.abs(parsed.value - case[4]) < 1e-12, case[1])
  end
end)

t.test("a_mistake_in_a_threshold_is_shown_under_a_caret", function()
  local cases = { -- text, column, what was expected
    { "p95<250", 8, "a time with its unit" }, { "p95=3ms", 4, "expected <, <=, > or >=" }, { "foo<3", 1, "expected one of" },
    { "p95<3ms x", 9, "nothing more" }, { "errors<-1", 8, "expected a number" }, { "p95<.ms", 5, "expected a number" },
    { "errors<1ms", 9, "a share" }, { "", 1, "expected one of" }, { "  p95 <", 8, "expected a number" }, { "rate>=5/s", 8, "a share" },
    { "p95<1e999ms", 5, "expected a number" }, { "throughput>5", 13, "unit /s" },
  }
  for _, case in ipairs(cases) do
    local err = t.err("invalid", threshold.parse, case[1])
    t.eq(err.column, case[2], case[1])
    t.match(err.message, case[3])
    t.eq(err.excerpt, case[1] .. "\n" .. (" "):rep(case[2] - 1) .. "^")
  end
  t.err("invalid", threshold.parse, 5)
end)

t.test("a_threshold_judges_its_figure", function()
  local figures = { latency = { p95 = 0.25 }, errors = 0.001, rate = 0.99, throughput = 60 }
  local function ok(text) return threshold.judge(threshold.parse(text), figures).ok end
  t.eq({ ok "p95<250ms", ok "p95<=250ms", ok "p95<251ms" }, { false, true, true })
  t.eq({ ok "errors<0.1%", ok "errors<=0.1%", ok "rate>0.99", ok "rate>=0.99" }, { false, true, false, true })
  t.eq(ok "throughput>59/s", true)
  t.eq(ok "p99<1s", false) -- nothing was measured: that is no success
end)

t.test("figures_are_shown_in_readable_units", function()
  t.eq(threshold.show("p95", 0.0123), "12.3 ms")
  t.eq(threshold.show("errors", 0.001), "0.1 %")
  t.eq(threshold.show_seconds(2e-5), "20 us")
  t.eq({ threshold.show_seconds(0.99964), threshold.show_seconds(0.00099964), threshold.show_seconds(90) }, { "1 s", "1 ms", "1.5 min" })
  t.eq(threshold.show("p95", nil), "no figure")
end)
