-- SPDX-License-Identifier: Apache-2.0
-- Prices and what is left in stock, seen from the instances that exist and from the scarcity that a test declared.
local catalog = require "sandbox.cloud.catalog"

local market = {}

local function stock_key(type, zone, kind) return type .. "/" .. zone .. "/" .. kind end

local function taken(ctx, type, zone, spot)
  local count = 0
  for _, instance in ctx.store:each "instance" do
    if instance.type == type and instance.zone == zone and instance.spot == spot then count = count + 1 end
  end
  return count
end

-- Declares what a zone can still sell of a type ("*" for any type or zone); kind is "spot" or "on_demand". nil undoes.
function market.limit(ctx, type, zone, kind, left)
  local key = stock_key(type or "*", zone or "*", kind or "spot")
  if left == nil then return ctx.store:delete("stock", key) end
  ctx.store:put("stock", key, { left = left })
end

-- Makes spot dearer (or cheaper) by a factor, in a zone or everywhere, for a type or all. nil undoes.
function market.reprice(ctx, type, zone, factor)
  local key = stock_key(type or "*", zone or "*", "price")
  if factor == nil or factor == 1 then return ctx.store:delete("stock", key) end
  ctx.store:put("stock", key, { factor = factor })
end

-- CNY an hour, or nil where spot is not offered.
function market.spot_price(ctx, type, zone, time)
  local price = catalog.spot_price(type, zone, time)
  for _, key in ipairs { stock_key(type, zone, "price"), stock_key(type, "*", "price"), stock_key("*", zone, "price"),
    stock_key("*", "*", "price") } do
    local record = ctx.store:get("stock", key)
    if price and record then return math.floor(math.min(price * record.factor, catalog.on_demand_price(type)) * 1000 + 0.5) / 1000 end
  end
  return price
end

local function declared(ctx, type, zone, kind)
  for _, key in ipairs { stock_key(type, zone, kind), stock_key(type, "*", kind), stock_key("*", zone, kind), stock_key("*", "*", kind) } do
    local record = ctx.store:get("stock", key)
    if record then return record.left end
  end
end

function market.left(ctx, type, zone, spot)
  local kind = spot and "spot" or "on_demand"
  local said = declared(ctx, type, zone, kind)
  if said then return said end
  return math.max(0, catalog.stock(type, zone, kind) - taken(ctx, type, zone, spot))
end

-- The market as the ratio engine wants it.
function market.view(ctx)
  return {
    price = function(type, zone, spot)
      if spot then return market.spot_price(ctx, type, zone, ctx.now()) end
      return catalog.on_demand_price(type)
    end,
    stock = function(type, zone, spot) return market.left(ctx, type, zone, spot) end,
    cpus = function(type) return catalog.type(type).cpu end,
  }
end

return market
