-- SPDX-License-Identifier: Apache-2.0
-- Faults that befall the world and not a call: no stock, dear spot, reclaims alone or together, full vSwitches, clocks that are off,
-- and what other people do by hand.
local catalog = require "sandbox.cloud.catalog"
local groups = require "sandbox.cloud.groups"
local instances = require "sandbox.cloud.instances"
local market = require "sandbox.cloud.market"

local mishaps = {}

local play = {}

function play.stock_out(ctx, fault)
  market.limit(ctx, fault.type, fault.zone, fault.market or "spot", fault.left or 0)
end

function play.price(ctx, fault) market.reprice(ctx, fault.type, fault.zone, fault.factor) end

function play.goatscaler_quirk(ctx, fault) ctx.store:put("meta", "goatscaler_quirk", fault.on ~= false) end

-- Of the on-demand percentage, which no document states: half_up, up or down.
function play.rounding(ctx, fault) ctx.store:put("meta", "rounding", fault.how) end

function play.clock_skew(ctx, fault) ctx.store:put("meta", "clock_skew", fault.seconds or 3600) end

local function is_meant(fault, instance)
  return instance.spot and instance.ess == "InService" and not instance.lock and (fault.id == nil or fault.id == instance.id)
    and (fault.node == nil or fault.node == instance.node_name) and (fault.zone == nil or fault.zone == instance.zone)
end

-- A share of them, drawn the same way each time; at least one.
local function some(ctx, list, share)
  if not share then return list end
  local draw = ctx.rng "reclaim"
  for i = #list, 2, -1 do
    local j = draw(1, i)
    list[i], list[j] = list[j], list[i]
  end
  return table.move(list, 1, math.max(math.min(1, #list), math.floor(#list * share + 0.5)), 1, {})
end

-- One node, a zone or all spot at once. With `seconds` the market stays empty that long, as after a real wave.
function play.reclaim(ctx, fault)
  ctx.store:tx(function()
    local list = {}
    for _, instance in ctx.store:each "instance" do
      if is_meant(fault, instance) then list[#list + 1] = instance end
    end
    for _, instance in ipairs(some(ctx, list, fault.share)) do instances.notice(ctx, instance) end
    if not fault.seconds then return end
    market.limit(ctx, nil, fault.zone, "spot", 0)
    ctx.jobs:after(fault.seconds, "market.recover", { zone = fault.zone })
  end)
end

local function pool_named(ctx, name)
  for _, pool in ctx.store:each "pool" do
    if pool.spec.nodepool_info.name == name or pool.id == name then return pool end
  end
end

-- Somebody adds an instance by hand; the group counts it and did not buy it.
function play.attach(ctx, fault)
  local pool = pool_named(ctx, fault.pool)
  local group = pool and groups.of_pool(ctx, pool)
  if not group then return end
  ctx.store:tx(function()
    local type = fault.type or group.instance_types[1]
    local zone = fault.zone or groups.settings(group).zones[1]
    local instance = instances.create(ctx, pool, group, { type = type, zone = zone, spot = fault.spot == true,
      price = catalog.on_demand_price(type) })
    instance.creation_type = "Attached"
    instances.join(ctx, instance)
    group.desired = #groups.members(ctx, group)
    ctx.store:put("group", group.id, group)
  end)
end

function play.protect(ctx, fault)
  local instance = ctx.store:get("instance", fault.id or "")
  if not instance then return end
  instance.protected = true
  ctx.store:put("instance", instance.id, instance)
end

function play.no_addresses(ctx, fault)
  for id in pairs(catalog.vswitches) do
    if fault.vswitch == nil or fault.vswitch == id then
      local record = ctx.store:get("vswitch", id) or { handed_out = 0 }
      record.full = fault.on ~= false or nil
      ctx.store:put("vswitch", id, record)
    end
  end
end

function mishaps.start(ctx)
  ctx.jobs:handle("market.recover", function(data) market.limit(ctx, nil, data.zone, "spot", nil) end)
  ctx.on("fault", function(fault)
    if play[fault.kind] then play[fault.kind](ctx, fault) end
  end)
end

return mishaps
