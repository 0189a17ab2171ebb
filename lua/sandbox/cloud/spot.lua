-- SPDX-License-Identifier: Apache-2.0
-- Spot instances with a price limit are looked at every few minutes: whoever is past the protected first hour and now costs
-- more than its limit gets its notice. Losses for lack of stock come from faults only.
local instances = require "sandbox.cloud.instances"
local market = require "sandbox.cloud.market"

local spot = {}

local function limit_of(ctx, instance)
  local group = ctx.store:get("group", instance.group_id)
  for _, entry in ipairs(group and group.spot_price_limit or {}) do
    if entry.instance_type == instance.type then return tonumber(entry.price_limit) end
  end
end

local function limited(instance) return instance.spot_strategy == "SpotWithPriceLimit" and not instance.lock end

local function too_dear(ctx, instance)
  if ctx.now() - instance.created < ctx.lag.spot_protection then return false end
  local limit, price = limit_of(ctx, instance), market.spot_price(ctx, instance.type, instance.zone, ctx.now())
  return limit ~= nil and price ~= nil and price > limit
end

local function plan(ctx) ctx.jobs:after(ctx.lag.spot_evaluate, "spot.evaluate", {}) end

-- Goes on while there is anybody to look at.
local function evaluate(ctx)
  local any = false
  for _, instance in ctx.store:each "instance" do
    if limited(instance) then
      any = true
      if too_dear(ctx, instance) then instances.notice(ctx, instance) end
    end
  end
  ctx.store:put("meta", "spot_evaluation", any)
  if any then plan(ctx) end
end

function spot.start(ctx)
  ctx.jobs:handle("spot.evaluate", function() evaluate(ctx) end)
  ctx.on("instance.running", function(data)
    local instance = ctx.store:get("instance", data.id)
    if not instance or not limited(instance) or ctx.store:get("meta", "spot_evaluation") then return end
    ctx.store:tx(function()
      ctx.store:put("meta", "spot_evaluation", true)
      plan(ctx)
    end)
  end)
end

return spot
