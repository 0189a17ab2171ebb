-- SPDX-License-Identifier: Apache-2.0
-- What a scaling group buys and what it lets go. Pure: settings, present instances and a market of offers in, a list of
-- purchases or removals out.
--
--   settings: { policy=, spot_strategy=, base=, percent=, pools=, compensate=, types={...}, zones={...}, limits={type->max price} }
--   instance: { id=, type=, zone=, spot=bool, price=, created= }
--   market:   { price(type, zone, spot) -> number|nil, stock(type, zone, spot) -> n, cpus(type) -> n }
local ratio = {}

-- With all three figures and COST_OPTIMIZED the group keeps base + percent; otherwise it buys one kind only.
function ratio.mixed(settings)
  return settings.policy == "COST_OPTIMIZED" and settings.base ~= nil and settings.percent ~= nil
    and settings.pools ~= nil and settings.spot_strategy ~= "NoSpot"
end

local rounding = {
  half_up = function(x) return math.floor(x + 0.5) end,
  up = function(x) return math.ceil(x - 1e-9) end,
  down = function(x) return math.floor(x + 1e-9) end,
}

-- On-demand and spot instances out of n. How ESS rounds is not documented; half up is the default here.
function ratio.targets(n, base, percent, how)
  if n <= base then return n, 0 end
  local on_demand = base + (rounding[how or "half_up"] or rounding.half_up)(percent * (n - base) / 100)
  return on_demand, n - on_demand
end

function ratio.count(instances)
  local on_demand, spot = 0, 0
  for _, instance in ipairs(instances) do
    if instance.spot then spot = spot + 1 else on_demand = on_demand + 1 end
  end
  return on_demand, spot
end

-- How many of `add` new instances shall be on-demand.
local function share(settings, instances, add)
  if settings.spot_strategy == nil or settings.spot_strategy == "NoSpot" then return add end
  if not ratio.mixed(settings) then return 0 end
  local on_demand = ratio.count(instances)
  local wanted = ratio.targets(#instances + add, settings.base, settings.percent, settings.rounding)
  return math.max(0, math.min(add, wanted - on_demand))
end

local function within_limit(settings, type, spot, price)
  if not spot or settings.spot_strategy ~= "SpotWithPriceLimit" then return true end
  local limit = settings.limits and settings.limits[type]
  return limit == nil or price <= limit
end

-- Every (type, zone) that is offered, with its price a vCPU.
local function offers(settings, market, spot)
  local list = {}
  for type_order, type in ipairs(settings.types) do
    for zone_order, zone in ipairs(settings.zones) do
      local price = market.price(type, zone, spot)
      if price and within_limit(settings, type, spot, price) then
        list[#list + 1] = { type = type, zone = zone, price = price, unit = price / market.cpus(type),
          type_order = type_order, zone_order = zone_order, left = market.stock(type, zone, spot) }
      end
    end
  end
  return list
end

local function lexical(...)
  local fields = { ... }
  return function(a, b)
    for _, field in ipairs(fields) do
      if a[field] ~= b[field] then return a[field] < b[field] end
    end
    return false
  end
end

local by_unit = lexical("unit", "type_order", "zone_order")
local by_zone = lexical("zone_order", "type_order")

local function tally(instances, field)
  local counts = {}
  for _, instance in ipairs(instances) do counts[instance[field]] = (counts[instance[field]] or 0) + 1 end
  return counts
end

-- Cheapest types first, at most `pools` of them while they have stock; among these the one with fewest spot instances.
local function pick_spread(list, pools, counts)
  local best, kinds, seen = nil, 0, {}
  for _, offer in ipairs(list) do
    if offer.left > 0 and not seen[offer.type] then
      seen[offer.type], kinds = true, kinds + 1
      if kinds > pools then break end
      if not best or (counts[offer.type] or 0) < (counts[best.type] or 0) then best = offer end
    end
  end
  return best
end

local function pick_first(list)
  for _, offer in ipairs(list) do
    if offer.left > 0 then return offer end
  end
end

local function pick_balanced(list, counts)
  local best
  for _, offer in ipairs(list) do
    if offer.left > 0 and (not best or (counts[offer.zone] or 0) < (counts[best.zone] or 0)) then best = offer end
  end
  return best
end

local function sorted_offers(settings, market, spot)
  local list = offers(settings, market, spot)
  table.sort(list, settings.policy == "COST_OPTIMIZED" and by_unit or by_zone)
  return list
end

local function pick(settings, list, spot, counts)
  if settings.policy == "BALANCE" then return pick_balanced(list, counts.zone) end
  if settings.policy == "COST_OPTIMIZED" and spot then return pick_spread(list, settings.pools or 1, counts.type) end
  return pick_first(list)
end

local function buy(settings, list, spot, counts, compensation)
  local offer = pick(settings, list, spot, counts)
  if not offer then return nil end
  offer.left = offer.left - 1
  counts.zone[offer.zone] = (counts.zone[offer.zone] or 0) + 1
  if spot then counts.type[offer.type] = (counts.type[offer.type] or 0) + 1 end
  return { type = offer.type, zone = offer.zone, spot = spot, price = offer.price, compensation = compensation or nil }
end

local function only_spot(instances)
  local list = {}
  for _, instance in ipairs(instances) do
    if instance.spot then list[#list + 1] = instance end
  end
  return list
end

local function buy_spot(settings, lists, counts)
  local bought = buy(settings, lists.spot, true, counts)
  if bought or not settings.compensate then return bought end
  return buy(settings, lists.on_demand, false, counts, true)
end

-- What is bought for `add` more instances: the list of purchases, and how many found no stock.
function ratio.purchase(settings, instances, add, market)
  local on_demand = share(settings, instances, add)
  local lists = { on_demand = sorted_offers(settings, market, false), spot = sorted_offers(settings, market, true) }
  local counts = { zone = tally(instances, "zone"), type = tally(only_spot(instances), "type") }
  local bought = {}
  for i = 1, add do
    local one
    if i <= on_demand then one = buy(settings, lists.on_demand, false, counts) else one = buy_spot(settings, lists, counts) end
    bought[#bought + 1] = one
  end
  return bought, add - #bought
end

local function most_expensive_first(market)
  return function(a, b)
    local unit_a, unit_b = a.price / market.cpus(a.type), b.price / market.cpus(b.type)
    if unit_a ~= unit_b then return unit_a > unit_b end
    if a.created ~= b.created then return a.created < b.created end
    return a.id < b.id
  end
end

local function oldest_first(a, b)
  if a.created ~= b.created then return a.created < b.created end
  return a.id < b.id
end

-- Takes one of the fullest zone each time.
local function remove_balanced(instances, count)
  local rest, gone = table.move(instances, 1, #instances, 1, {}), {}
  table.sort(rest, oldest_first)
  while #gone < count and #rest > 0 do
    local counts, at = tally(rest, "zone"), 1
    for i, instance in ipairs(rest) do
      if counts[instance.zone] > counts[rest[at].zone] then at = i end
    end
    gone[#gone + 1] = table.remove(rest, at)
  end
  return gone
end

-- Which `count` instances go when the group itself scales in.
function ratio.scale_in(settings, instances, count, market)
  if settings.policy == "BALANCE" then return remove_balanced(instances, count) end
  local sorted = table.move(instances, 1, #instances, 1, {})
  table.sort(sorted, settings.policy == "COST_OPTIMIZED" and most_expensive_first(market) or oldest_first)
  return table.move(sorted, 1, math.min(count, #sorted), 1, {})
end

return ratio
