-- SPDX-License-Identifier: Apache-2.0
-- Instance types, zones, prices and stock of the emulated region.
--
-- vCPU, memory and GPU are those of the public instance-family pages. Prices are CNY an hour and only of the right
-- order: no price list was at hand, so nothing may be concluded from them about a real bill. Spot discounts vary by
-- zone because they do in reality; the figures are made up.
local rng = require "sandbox.rng"

local catalog = {}

catalog.zones = { "cn-hangzhou-h", "cn-hangzhou-i", "cn-hangzhou-j" }

catalog.vpc = { id = "vpc-bp1eirun", cidr = "192.168.0.0/16", name = "eirun-sandbox" }
catalog.vswitches = {
  ["vsw-bp1eirunh"] = { zone = "cn-hangzhou-h", cidr = "192.168.0.0/20", prefix = 0, free = 4092 },
  ["vsw-bp1eiruni"] = { zone = "cn-hangzhou-i", cidr = "192.168.16.0/20", prefix = 16, free = 4092 },
  ["vsw-bp1eirunj"] = { zone = "cn-hangzhou-j", cidr = "192.168.32.0/20", prefix = 32, free = 4092 },
}
catalog.security_group = "sg-bp1eirun"

local t4 = { model = "NVIDIA T4", label = "Tesla-T4", memory = "15360MiB" }
local a10 = { model = "NVIDIA A10", label = "NVIDIA-A10", memory = "23028MiB" }
local v100 = { model = "NVIDIA V100", label = "Tesla-V100-SXM2-32GB", memory = "32510MiB" }

-- price: on-demand; spot: mean discount by zone (absent: never offered there); stock: instances that can be had
-- in each zone, on-demand and spot.
catalog.types = {
  ["ecs.g7.large"] = { cpu = 2, memory = 8, price = 0.49, spot = { h = 0.25, i = 0.25, j = 0.3 } },
  ["ecs.g7.xlarge"] = { cpu = 4, memory = 16, price = 0.98, spot = { h = 0.25, i = 0.25, j = 0.3 } },
  ["ecs.g7.2xlarge"] = { cpu = 8, memory = 32, price = 1.96, spot = { h = 0.25, i = 0.25, j = 0.3 } },
  ["ecs.g7.4xlarge"] = { cpu = 16, memory = 64, price = 3.92, spot = { h = 0.25, i = 0.25, j = 0.3 } },
  ["ecs.c7.xlarge"] = { cpu = 4, memory = 8, price = 0.78, spot = { h = 0.25, i = 0.25, j = 0.3 } },
  ["ecs.c7.2xlarge"] = { cpu = 8, memory = 16, price = 1.56, spot = { h = 0.25, i = 0.25, j = 0.3 } },
  ["ecs.gn6i-c4g1.xlarge"] = { cpu = 4, memory = 15, gpus = 1, gpu = t4, price = 8.68,
    spot = { h = 0.28, i = 0.31, j = 0.35 } },
  ["ecs.gn6i-c8g1.2xlarge"] = { cpu = 8, memory = 31, gpus = 1, gpu = t4, price = 10.43,
    spot = { h = 0.30, i = 0.29, j = 0.36 } },
  ["ecs.gn6i-c16g1.4xlarge"] = { cpu = 16, memory = 62, gpus = 1, gpu = t4, price = 12.48,
    spot = { h = 0.33, i = 0.34 } },
  ["ecs.gn6i-c24g1.12xlarge"] = { cpu = 48, memory = 186, gpus = 2, gpu = t4, price = 29.85,
    spot = { h = 0.4 } },
  ["ecs.gn7i-c8g1.2xlarge"] = { cpu = 8, memory = 30, gpus = 1, gpu = a10, price = 9.51,
    spot = { h = 0.42, i = 0.38 } },
  ["ecs.gn7i-c16g1.4xlarge"] = { cpu = 16, memory = 60, gpus = 1, gpu = a10, price = 10.08,
    spot = { h = 0.45, i = 0.41 } },
  ["ecs.gn6e-c12g1.3xlarge"] = { cpu = 12, memory = 92, gpus = 1, gpu = v100, price = 17.75,
    spot = { i = 0.45 } },
}

local stock = { on_demand = 200, spot = 60 }
local gpu_stock = { on_demand = 40, spot = 20 }

function catalog.type(name) return catalog.types[name] end

function catalog.known_zone(zone)
  for _, known in ipairs(catalog.zones) do
    if known == zone then return true end
  end
  return false
end

-- "ecs.gn6i-c4g1.xlarge" -> "ecs.gn6i"
function catalog.family(name) return name:match "^(ecs%.[%w]+)" end

function catalog.on_demand_price(name)
  local of = catalog.types[name]
  return of and of.price
end

-- Hourly wave of at most 4 % around the mean discount: the same at the same time, whoever asks.
local function wave(name, zone, time)
  local draw = rng.stream(("%s/%s/%d"):format(name, zone, math.floor(time) // 3600))
  return 1 + (draw() - 0.5) * 0.08
end

-- CNY an hour, or nil where spot is not offered.
function catalog.spot_price(name, zone, time)
  local of = catalog.types[name]
  local mean = of and of.spot and of.spot[zone:sub(-1)]
  if not mean then return nil end
  return math.floor(of.price * mean * wave(name, zone, time) * 1000 + 0.5) / 1000
end

-- How many instances of a kind ("on_demand" or "spot") exist in a zone before anybody buys.
function catalog.stock(name, zone, kind)
  local of = catalog.types[name]
  if not of or not catalog.known_zone(zone) then return 0 end
  if kind == "spot" and not (of.spot and of.spot[zone:sub(-1)]) then return 0 end
  return (of.gpus and gpu_stock or stock)[kind]
end

return catalog
