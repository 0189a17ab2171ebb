-- SPDX-License-Identifier: Apache-2.0
-- The cloud's control plane: what it sells, the cluster it runs, and what a fresh one contains.
local json = require "eirun.core.json"
local addons = require "sandbox.cloud.cs.addons"
local autoscaler = require "sandbox.cloud.autoscaler"
local catalog = require "sandbox.cloud.catalog"
local clusterops = require "sandbox.cloud.clusterops"
local groups = require "sandbox.cloud.groups"
local instances = require "sandbox.cloud.instances"
local mishaps = require "sandbox.cloud.mishaps"
local pools = require "sandbox.cloud.pools"
local ram = require "sandbox.cloud.ram"
local spot = require "sandbox.cloud.spot"
local tasks = require "sandbox.cloud.tasks"

local cloud = {}

local services = { "sandbox.cloud.cs", "sandbox.cloud.ess", "sandbox.cloud.ecs", "sandbox.cloud.sts", "sandbox.cloud.vpc",
  "sandbox.cloud.ram", "sandbox.cloud.metadata" }

local system_type = "ecs.g7.xlarge"

-- Two on-demand nodes in two zones, running since before the world began.
local function add_system_nodes(ctx, pool, group)
  for _, zone in ipairs { catalog.zones[1], catalog.zones[2] } do
    local instance = instances.create(ctx, pool, group, { type = system_type, zone = zone, spot = false,
      price = catalog.on_demand_price(system_type) })
    instance.ess, instance.ecs, instance.joined = "InService", "Running", ctx.now()
    ctx.store:put("instance", instance.id, instance)
  end
  group.desired = 2
  ctx.store:put("group", group.id, group)
end

local function add_system_pool(ctx)
  local spec = pools.new_spec {
    nodepool_info = { name = "default" },
    auto_scaling = { enable = false },
    scaling_group = { instance_types = json.array { system_type }, vswitch_ids = json.array { "vsw-bp1eirunh", "vsw-bp1eiruni" },
      multi_az_policy = "BALANCE", desired_size = 2, system_disk_category = "cloud_essd" },
  }
  local pool = pools.create(ctx, spec, { is_default = true })
  add_system_nodes(ctx, pool, groups.of_pool(ctx, pool))
end

local function fill(ctx)
  if ctx.store:get("meta", "created") then return end
  ctx.store:tx(function()
    ctx.store:put("meta", "created", ctx.now())
    addons.fill(ctx)
    ram.fill(ctx)
    add_system_pool(ctx)
  end)
end

function cloud.start(ctx)
  tasks.start_engine(ctx)
  instances.start(ctx)
  groups.start(ctx)
  mishaps.start(ctx)
  spot.start(ctx)
  pools.start()
  for _, name in ipairs(services) do require(name).start(ctx) end
  fill(ctx)
  clusterops.start(ctx)
  autoscaler.start(ctx)
  function ctx.addon_active(name) return addons.active(ctx, name) end
end

return cloud
