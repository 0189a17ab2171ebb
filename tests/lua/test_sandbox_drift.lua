-- SPDX-License-Identifier: Apache-2.0
-- Histories of the ratio engine as the APIs would tell them, and the reasons that are read from them. What each cause does to the counts is
-- worked out here, from the order in which instances come and go.
local t = require "eirun.test"
local drift = require "eirun.ack.drift"
local rng = require "sandbox.rng"
local ratio = require "sandbox.cloud.ratio"
local rule = require "eirun.ack.ratio"

local prices = { small = 4, middle = 6 }
local zones = { "h", "i" }

local World = {}
World.__index = World

-- A group that has bought nothing yet. spot_left: how many spot instances can be had in all.
local function world(base, percent, settings)
  local self = setmetatable({ time = 0, serial = 0, instances = {}, activities = {}, spot_left = math.huge, base = base, percent = percent,
    settings = { compensate = false, remedy = true, created = 0, changed = 0 } }, World)
  for key, value in pairs(settings or {}) do self.settings[key] = value end
  return self
end

function World:market()
  return { cpus = function() return 4 end, price = function(type, _, spot) return prices[type] * (spot and 0.3 or 1) end,
    -- All of it is in one place, so that what is left is not offered twice.
    stock = function(type, zone, spot)
      if not spot then return 1000 end
      return type == "small" and zone == "h" and self.spot_left or 0
    end }
end

function World:engine(more)
  local made = { policy = "COST_OPTIMIZED", spot_strategy = "SpotAsPriceGo", base = self.base, percent = self.percent, pools = 1,
    types = { "small", "middle" }, zones = zones, compensate = self.settings.compensate }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

function World:activity(more)
  self.time = self.time + 120
  local one = { start = self.time, cause = "the group", created = {}, removed = {}, missing = false, goatscaler = false }
  for key, value in pairs(more) do one[key] = value end
  table.insert(self.activities, 1, one)
  return one
end

function World:add(one, activity)
  self.serial = self.serial + 1
  one.id, one.created = ("i-%04d"):format(self.serial), self.time
  table.insert(self.instances, one)
  if activity then table.insert(activity.created, one.id) end
end

function World:buy(n, more, activity)
  local one = self:activity(activity or {})
  local bought, missing = ratio.purchase(self:engine(more), self.instances, n, self:market())
  for _, instance in ipairs(bought) do self:add(instance, one) end
  if missing > 0 then one.missing, one.code = true, "OperationDenied.NoStock" end
  return missing
end

function World:remove(gone, cause)
  local set, rest, one = {}, {}, self:activity { cause = cause }
  for _, instance in ipairs(gone) do
    set[instance] = true
    table.insert(one.removed, instance.id)
  end
  for _, instance in ipairs(self.instances) do if not set[instance] then rest[#rest + 1] = instance end end
  self.instances = rest
end

function World:reasons(more)
  local on_demand, spot = ratio.count(self.instances)
  local members = {}
  for i, one in ipairs(self.instances) do
    members[i] = { id = one.id, billing = one.spot and "spot" or "on-demand", attached = one.attached == true, created = one.created }
  end
  local facts = { asked = { base = self.base, percent = self.percent }, on_demand = on_demand, spot = spot, tolerance = 1,
    expected = rule.expected, members = members, activities = self.activities, settings = self.settings, spot_to_be_had = true }
  for key, value in pairs(more or {}) do facts[key] = value end
  local list = drift.reasons(facts)
  local over = on_demand - rule.expected(on_demand + spot, facts.asked).on_demand
  return list, over, on_demand, spot
end

-- Named first when the rule is lost, and only then.
local function named(self, cause, more, what)
  local list, over = self:reasons(more)
  local first = list[1] and list[1].reason
  t.eq(first, math.abs(over) > 1 and cause or nil, ("%s: drift %.2f, base %d, percent %d"):format(what, over, self.base, self.percent))
  return math.abs(over) > 1
end

-- Each cause over many worlds; at least some of them must lose the rule, or the test would say nothing.
local function over_worlds(name, fn)
  t.test(name, function()
    local draw, lost = rng.stream(name), 0
    for _ = 1, 400 do
      local base, percent, n = draw(0, 10), draw(0, 100), draw(1, 50)
      if fn(base, percent, n, draw) then lost = lost + 1 end
    end
    t.ok(lost >= 40, ("only %d of 400 worlds lost the rule"):format(lost))
  end)
end

t.test("as_long_as_the_group_buys_what_it_wants_there_is_nothing_to_name", function()
  local draw = rng.stream "kept"
  for base = 0, 10 do
    for percent = 0, 100, 5 do
      local self = world(base, percent)
      while #self.instances < 50 do self:buy(draw(1, 6)) end
      local list, over = self:reasons()
      t.eq({ #list, math.abs(over) <= 1 }, { 0, true })
    end
  end
end)

over_worlds("what_spot_cannot_be_had_is_missing_and_is_a_stock_out", function(base, percent, n, draw)
  local self = world(base, percent)
  local want_on_demand, want_spot = ratio.targets(n, base, percent)
  self.spot_left = draw(0, want_spot)
  local missing = self:buy(n)
  local _, _, on_demand, spot = self:reasons()
  t.eq({ on_demand, spot, missing }, { want_on_demand, self.spot_left, want_spot - self.spot_left })
  return named(self, "stock_out", { spot_to_be_had = false }, "stock-out")
end)

over_worlds("on_demand_stands_in_for_each_missing_spot_instance", function(base, percent, n, draw)
  local self = world(base, percent, { compensate = true })
  local want_on_demand, want_spot = ratio.targets(n, base, percent)
  self.spot_left = draw(0, want_spot)
  t.eq(self:buy(n), 0)
  local _, _, on_demand, spot = self:reasons()
  t.eq({ on_demand, spot }, { want_on_demand + want_spot - self.spot_left, self.spot_left })
  return named(self, "compensation", { spot_to_be_had = false }, "compensation")
end)

over_worlds("the_dearest_go_first_so_scale_in_eats_the_on_demand_share", function(base, percent, n, draw)
  local self = world(base, percent)
  self:buy(n)
  local count = draw(0, n)
  local before, spot_before = ratio.count(self.instances)
  self:remove(ratio.scale_in(self:engine(), self.instances, count, self:market()), "the number was lowered")
  local _, _, on_demand, spot = self:reasons()
  t.eq({ on_demand, spot }, { math.max(0, before - count), spot_before - math.max(0, count - before) })
  return named(self, "scale_in", nil, "scale-in")
end)

over_worlds("a_reclaim_takes_spot_only_and_leaves_too_much_on_demand", function(base, percent, n, draw)
  local self = world(base, percent, { remedy = false, compensate = draw(2) == 1 })
  self:buy(n)
  local on_demand_before, spot_before = ratio.count(self.instances)
  local lost, gone = draw(0, spot_before), {}
  for _, instance in ipairs(self.instances) do if instance.spot and #gone < lost then gone[#gone + 1] = instance end end
  self:remove(gone, "The preemptible instance was reclaimed")
  local _, _, on_demand, spot = self:reasons()
  t.eq({ on_demand, spot }, { on_demand_before, spot_before - lost })
  return named(self, "reclaim", nil, "reclaim")
end)

over_worlds("instances_attached_by_hand_are_told_from_bought_ones", function(base, percent, n, draw)
  local self = world(base, percent)
  self:buy(n)
  local spot = draw(2) == 1
  for _ = 1, draw(0, 6) do self:add { spot = spot, attached = true, type = "small", zone = "h", price = 4 } end
  return named(self, "attached", nil, spot and "attached spot" or "attached on demand")
end)

over_worlds("a_new_percentage_does_not_buy_old_instances_again", function(base, percent, n, draw)
  local self = world(base, percent)
  self:buy(n)
  self.percent, self.settings.changed = draw(0, 100), self.time + 600
  return named(self, "changed_percentage", nil, "changed percentage")
end)

over_worlds("instant_scaling_that_buys_on_demand_beside_spot_is_named", function(base, percent, n)
  local self = world(base, percent, { compensate = true })
  self:buy(n, { spot_strategy = "NoSpot" }, { goatscaler = true })
  return named(self, "scaler", nil, "scaler")
end)

t.test("a_drift_without_any_evidence_is_called_unknown", function()
  local self = world(0, 0)
  for _ = 1, 5 do self:add { spot = false, type = "small", zone = "h", price = 4 } end
  t.eq(self:reasons()[1].reason, "unknown")
end)
