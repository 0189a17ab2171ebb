-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local lag = require "eirun.lag"

t.test("every_delay_has_a_value_a_unit_and_a_source", function()
  for name, fact in pairs(lag.facts) do
    t.ok(type(fact.value) == "number" and fact.value > 0, name)
    t.eq(fact.unit, "s")
    t.match(fact.source, "^[%w/]+: ?%S")
  end
end)

t.test("scaling_leaves_the_table_alone", function()
  local fast = lag.scaled(0.5, { node_boot = 2 })
  t.eq({ fast.hpa_sync, fast.node_boot, lag.value "hpa_sync", lag.value "node_boot" }, { 7.5, 2, 15, 40 })
end)

t.test("unknown_delays_are_a_callers_mistake", function()
  t.match(tostring(select(2, pcall(lag.value, "nap"))), "no delay is called 'nap'")
  t.match(tostring(select(2, pcall(lag.scaled, 1, { nap = 2 }))), "nap")
  t.match(tostring(select(2, pcall(lag.scaled, -1))), "negative")
end)

t.test("lag_on_the_command_line_is_a_factor_and_seconds_by_name", function()
  t.eq({ lag.parse "0.1,hpa_sync=2,mount=0.5" }, { 0.1, { hpa_sync = 2, mount = 0.5 } })
  t.eq({ lag.parse "node_boot=3" }, { nil, { node_boot = 3 } })
end)

t.test("lag_on_the_command_line_refuses_what_it_does_not_know", function()
  local err = t.err("invalid", function() lag.parse "0.1,hpa_sink=2" end)
  t.match(err.message, "no delay is called 'hpa_sink', did you mean 'hpa_sync'")
  t.err("invalid", function() lag.parse "soon" end)
end)
