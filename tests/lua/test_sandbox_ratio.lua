-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local ratio = require "sandbox.cloud.ratio"
local rng = require "sandbox.rng"

local zones = { "h", "i", "j" }
local prices = { small = 4, middle = 6, large = 9 }

-- A market with a price a type (spot at 30 %) and stock by "type/zone/kind", endless where not said.
local function market_of(stock)
  return { cpus = function() return 4 end,
    price = function(type, _, spot) return prices[type] * (spot and 0.3 or 1) end,
    stock = function(type, zone, spot) return stock and stock[type .. "/" .. zone .. "/" .. (spot and "spot" or "od")] or 1000 end }
end

local function settings_of(base, percent, change)
  local settings = { policy = "COST_OPTIMIZED", spot_strategy = "SpotAsPriceGo", base = base, percent = percent, pools = 2,
    types = { "small", "middle", "large" }, zones = zones, compensate = false }
  for k, v in pairs(change or {}) do settings[k] = v end
  return settings
end

local function add_all(instances, bought)
  for _, one in ipairs(bought) do
    one.id, one.created = ("i-%04d"):format(#instances + 1), #instances
    instances[#instances + 1] = one
  end
end

local function buy(instances, settings, n, market)
  local bought, missing = ratio.purchase(settings, instances, n, market or market_of())
  add_all(instances, bought)
  return bought, missing
end

t.test("thirty_percent_of_ten_is_three_on_demand", function()
  t.eq({ ratio.targets(10, 0, 30) }, { 3, 7 })
  t.eq({ ratio.targets(2, 5, 30) }, { 2, 0 })
  t.eq({ ratio.targets(10, 1, 30) }, { 4, 6 })
  t.eq({ ratio.targets(10, 1, 30, "down") }, { 3, 7 })
end)

-- The rule itself, not our rounding: on-demand is within one of base + percent of the rest.
local function near_rule(instances, base, percent)
  local on_demand = ratio.count(instances)
  local exact = #instances <= base and #instances or base + (#instances - base) * percent / 100
  return math.abs(on_demand - exact) <= 1, on_demand, exact
end

t.test("each_purchase_keeps_within_one_of_the_rule", function()
  local draw = rng.stream "purchase steps"
  for base = 0, 10 do
    for percent = 0, 100 do
      local instances, settings = {}, settings_of(base, percent)
      while #instances < 50 do
        local _, missing = buy(instances, settings, draw(1, 6))
        t.eq(missing, 0)
        local ok, got, exact = near_rule(instances, base, percent)
        t.ok(ok, ("N=%d base=%d percent=%d: %d on-demand, rule says %.1f"):format(#instances, base, percent, got, exact))
      end
    end
  end
end)

-- One at a time, as an autoscaler often asks: the counts are the rule's own at each step, for every rounding.
t.test("growing_by_one_follows_the_rule_exactly", function()
  for _, rounding in ipairs { "half_up", "up", "down" } do
    for base = 0, 10 do
      for percent = 0, 100, 7 do
        local instances, settings = {}, settings_of(base, percent, { rounding = rounding })
        for n = 1, 50 do
          buy(instances, settings, 1)
          t.eq({ ratio.count(instances) }, { ratio.targets(n, base, percent, rounding) })
        end
      end
    end
  end
end)

t.test("spot_spreads_over_the_cheapest_pools", function()
  local instances = {}
  buy(instances, settings_of(0, 0), 10)
  local counts = {}
  for _, one in ipairs(instances) do counts[one.type] = (counts[one.type] or 0) + 1 end
  t.eq(counts, { small = 5, middle = 5 })
end)

t.test("without_the_three_figures_only_spot_is_bought", function()
  local instances = {}
  buy(instances, settings_of(nil, 30), 4)
  t.eq({ ratio.count(instances) }, { 0, 4 })
end)

t.test("no_spot_strategy_buys_on_demand", function()
  local instances = {}
  buy(instances, settings_of(0, 0, { spot_strategy = "NoSpot" }), 3)
  t.eq({ ratio.count(instances) }, { 3, 0 })
end)

local function no_spot_stock(left)
  local stock = {}
  for type in pairs(prices) do
    for _, zone in ipairs(zones) do stock[type .. "/" .. zone .. "/spot"] = 0 end
  end
  stock["small/h/spot"] = left
  return stock
end

t.test("spot_stock_out_leaves_instances_missing", function()
  local instances = {}
  local bought, missing = buy(instances, settings_of(0, 30), 10, market_of(no_spot_stock(4)))
  t.eq({ #bought, missing }, { 7, 3 })
  t.eq({ ratio.count(instances) }, { 3, 4 })
end)

t.test("compensation_buys_on_demand_for_missing_spot", function()
  local instances = {}
  local bought, missing = buy(instances, settings_of(0, 30, { compensate = true }), 10, market_of(no_spot_stock(4)))
  t.eq({ #bought, missing }, { 10, 0 })
  t.eq({ ratio.count(instances) }, { 6, 4 })
  local compensated = 0
  for _, one in ipairs(bought) do compensated = compensated + (one.compensation and 1 or 0) end
  t.eq(compensated, 3)
end)

t.test("after_compensation_the_next_purchases_are_spot_until_the_rule_holds", function()
  local instances, settings = {}, settings_of(0, 30, { compensate = true })
  buy(instances, settings, 10, market_of(no_spot_stock(4)))
  buy(instances, settings, 10)
  t.eq({ ratio.count(instances) }, { 6, 14 })
end)

t.test("a_price_limit_shuts_dear_types_out", function()
  local instances = {}
  local settings = settings_of(0, 0, { spot_strategy = "SpotWithPriceLimit", limits = { small = 1.0, middle = 2.0, large = 2.0 } })
  buy(instances, settings, 3)
  for _, one in ipairs(instances) do t.eq(one.type, "middle") end
end)

t.test("balance_fills_zones_evenly_and_empties_them_evenly", function()
  local instances, settings = {}, settings_of(nil, nil, { policy = "BALANCE", spot_strategy = "NoSpot" })
  buy(instances, settings, 7)
  local per_zone = {}
  for _, one in ipairs(instances) do per_zone[one.zone] = (per_zone[one.zone] or 0) + 1 end
  t.eq(per_zone, { h = 3, i = 2, j = 2 })
  local gone = ratio.scale_in(settings, instances, 1, market_of())
  t.eq(gone[1].zone, "h")
end)

t.test("priority_takes_the_first_zone_until_its_stock_ends", function()
  local instances, settings = {}, settings_of(nil, nil, { policy = "PRIORITY", spot_strategy = "NoSpot" })
  buy(instances, settings, 3, market_of { ["small/h/od"] = 1, ["middle/h/od"] = 1, ["large/h/od"] = 0 })
  t.eq({ instances[1].zone, instances[2].zone, instances[3].zone }, { "h", "h", "i" })
end)

-- The drift of scale-in follows from its order alone: on-demand vCPUs cost more, so they go first.
t.test("scale_in_removes_the_dearest_first", function()
  local draw = rng.stream "scale in"
  for _ = 1, 200 do
    local instances, settings = {}, settings_of(draw(0, 4), draw(0, 10) * 10)
    buy(instances, settings, draw(1, 30))
    local count = draw(0, #instances)
    local before = ratio.count(instances)
    local gone = ratio.scale_in(settings, instances, count, market_of())
    t.eq(#gone, count)
    t.eq((ratio.count(gone)), math.min(before, count))
  end
end)

t.test("nothing_doubles_and_nothing_is_lost_over_random_histories", function()
  local draw = rng.stream "histories"
  for _ = 1, 60 do
    local instances = {}
    local settings = settings_of(draw(0, 3), draw(0, 10) * 10, { compensate = draw(2) == 1 })
    for _ = 1, 12 do
      local before, stock = #instances, no_spot_stock(draw(0, 3))
      local bought, missing = buy(instances, settings, draw(0, 5), market_of(draw(3) == 1 and stock or nil))
      t.eq(#instances, before + #bought)
      t.ok(missing >= 0 and (missing == 0 or not settings.compensate))
      local gone = {}
      for _, one in ipairs(ratio.scale_in(settings, instances, draw(0, 2), market_of())) do gone[one] = true end
      local rest = {}
      for _, one in ipairs(instances) do if not gone[one] then rest[#rest + 1] = one end end
      instances = rest
    end
  end
end)
