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
