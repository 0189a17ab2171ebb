-- SPDX-License-Identifier: Apache-2.0
-- The life of one ECS instance: bought, booting, running, joined, perhaps noticed for reclaim, gone. Times come from the
-- table of delays; every step is a job, so it survives a kill.
local catalog = require "sandbox.cloud.catalog"
local nodeshape = require "sandbox.cloud.nodeshape"

local instances = {}

local function zone_vswitch(group, zone)
  for _, id in ipairs(group.vswitch_ids) do
    if catalog.vswitches[id] and catalog.vswitches[id].zone == zone then return id end
  end
end

-- Addresses are handed out one after the other in each vSwitch.
local function next_address(ctx, vswitch_id)
  local record = ctx.store:get("vswitch", vswitch_id) or { handed_out = 0 }
  local n, prefix = record.handed_out or 0, catalog.vswitches[vswitch_id].prefix
  record.handed_out = n + 1
  ctx.store:put("vswitch", vswitch_id, record)
  return ("192.168.%d.%d"):format(prefix + n // 240 % 16, 10 + n % 240)
end

local function key_values(list)
  local map = {}
  for _, pair in ipairs(list or {}) do map[pair.key] = pair.value or "" end
  return map
end

local function gpu_labels(labels, type)
  if not type.gpus then return end
  labels["aliyun.accelerator/nvidia_name"] = type.gpu.label
  labels["aliyun.accelerator/nvidia_count"] = tostring(type.gpus)
  labels["aliyun.accelerator/nvidia_mem"] = type.gpu.memory
end

-- Labels of the Kubernetes node, as ACK sets them. Template nodes (autoscaler) have no instance yet.
function instances.labels(ctx, pool, instance)
  local labels = key_values(pool.spec.kubernetes_config.labels)
  local own = { ["alibabacloud.com/nodepool-id"] = pool.id, ["ack.aliyun.com"] = ctx.cluster_id,
    ["node.kubernetes.io/instance-type"] = instance.type, ["beta.kubernetes.io/instance-type"] = instance.type,
    ["topology.kubernetes.io/zone"] = instance.zone, ["failure-domain.beta.kubernetes.io/zone"] = instance.zone,
    ["topology.kubernetes.io/region"] = ctx.region, ["failure-domain.beta.kubernetes.io/region"] = ctx.region,
    ["topology.diskplugin.csi.alibabacloud.com/zone"] = instance.zone,
    ["node.alibabacloud.com/nodepool-id"] = pool.id, ["node.alibabacloud.com/instance-charge-type"] = "PostPaid",
    ["node.alibabacloud.com/spot-strategy"] = instance.spot_strategy,
    ["kubernetes.io/os"] = "linux", ["kubernetes.io/arch"] = "amd64" }
  if instance.id then own["alibabacloud.com/ecs-instance-id"] = instance.id end
  if instance.node_name then own["kubernetes.io/hostname"] = instance.node_name end
  if pool.spec.auto_scaling.enable then own["k8s.aliyun.com"] = "true" end
  gpu_labels(own, catalog.type(instance.type))
  for key, value in pairs(own) do labels[key] = value end
  return labels
end

-- What the topics carry.
function instances.description(ctx, instance)
  local pool = ctx.store:get("pool", instance.pool_id)
  return { id = instance.id, ip = instance.ip, type = instance.type, zone = instance.zone, region = ctx.region,
    spot = instance.spot, pool = instance.pool_id, node_name = instance.node_name,
    labels = instances.labels(ctx, pool, instance), taints = pool.spec.kubernetes_config.taints,
    provider_id = ctx.region .. "." .. instance.id, gpus = catalog.type(instance.type).gpus or 0,
    gpu = catalog.type(instance.type).gpu, created = instance.created, capacity = nodeshape.capacity(instance.type),
    allocatable = nodeshape.allocatable(instance.type) }
end

-- Makes the record of one purchase ({type, zone, spot, price}); it is Pending until its jobs have run.
function instances.create(ctx, pool, group, purchase)
  local id = ctx.id "i-bp1"
  local vswitch = zone_vswitch(group, purchase.zone)
  local ip = next_address(ctx, vswitch)
  local instance = { id = id, group_id = group.id, pool_id = pool.id, type = purchase.type, zone = purchase.zone,
    spot = purchase.spot, spot_strategy = purchase.spot and group.spot_strategy or "NoSpot", price = purchase.price,
    compensation = purchase.compensation, vswitch_id = vswitch, ip = ip, node_name = ctx.region .. "." .. ip,
    created = ctx.now(), ecs = "Pending", ess = "Pending", creation_type = "AutoCreated" }
  return ctx.store:put("instance", id, instance)
end

-- Boots differ by a tenth either way.
local function jittered(ctx, seconds, id)
  return seconds * (0.9 + 0.2 * ctx.rng("boot/" .. id)())
end

function instances.start_boot(ctx, instance)
  ctx.jobs:after(jittered(ctx, ctx.lag.ess_activity + ctx.lag.node_boot, instance.id), "instance.boot", { id = instance.id })
end

local function boot(ctx, data)
  local instance = ctx.store:get("instance", data.id)
  if not instance or instance.ess == "Removing" then return end
  instance.ecs, instance.booted = "Running", ctx.now()
  ctx.store:put("instance", instance.id, instance)
  ctx.jobs:after(jittered(ctx, ctx.lag.node_join, instance.id .. "/join"), "instance.join", { id = instance.id })
end

-- The node has joined; from here on the kubelet side has it.
function instances.join(ctx, instance)
  instance.ess, instance.ecs, instance.joined = "InService", "Running", ctx.now()
  ctx.store:put("instance", instance.id, instance)
  ctx.emit("instance.running", instances.description(ctx, instance))
  ctx.emit("group.changed", { id = instance.group_id })
end

local function join(ctx, data)
  local instance = ctx.store:get("instance", data.id)
  if instance and instance.ess ~= "Removing" then instances.join(ctx, instance) end
end

-- Begins the release; the instance is gone after the removal delay.
function instances.remove(ctx, instance, reason)
  if instance.ess == "Removing" then return end
  instance.ess, instance.ecs, instance.reason = "Removing", "Stopping", reason
  ctx.store:put("instance", instance.id, instance)
  ctx.jobs:after(ctx.lag.node_remove, "instance.release", { id = instance.id, reason = reason })
  ctx.emit("group.changed", { id = instance.group_id })
end

local function release(ctx, data)
  local instance = ctx.store:get("instance", data.id)
  if not instance then return end
  local gone = { id = instance.id, node_name = instance.node_name, reason = data.reason, pool = instance.pool_id,
    group = instance.group_id, spot = instance.spot, zone = instance.zone, type = instance.type }
  ctx.store:delete("instance", instance.id)
  ctx.emit("instance.gone", gone)
  ctx.emit("group.changed", { id = gone.group })
end

-- Starts the reclaim countdown of a spot instance.
function instances.notice(ctx, instance)
  if instance.lock or not instance.spot then return false end
  instance.lock, instance.terminates = "Recycling", ctx.now() + ctx.lag.spot_notice
  ctx.store:put("instance", instance.id, instance)
  ctx.jobs:at(instance.terminates, "instance.release", { id = instance.id, reason = "reclaimed" })
  ctx.emit("instance.notice", { id = instance.id, node_name = instance.node_name, pool = instance.pool_id,
    group = instance.group_id, terminates = instance.terminates })
  return true
end

function instances.each_of_group(ctx, group_id)
  local list = {}
  for _, instance in ctx.store:each "instance" do
    if instance.group_id == group_id then list[#list + 1] = instance end
  end
  table.sort(list, function(a, b)
    if a.created ~= b.created then return a.created < b.created end
    return a.id < b.id
  end)
  return list
end

function instances.start(ctx)
  ctx.jobs:handle("instance.boot", function(data) boot(ctx, data) end)
  ctx.jobs:handle("instance.join", function(data) join(ctx, data) end)
  ctx.jobs:handle("instance.release", function(data) release(ctx, data) end)
  -- Listeners of a new process learn what already runs; for them it is as if it had just joined.
  ctx.on("started", function()
    for _, instance in ctx.store:each "instance" do
      if instance.ess == "InService" then ctx.emit("instance.running", instances.description(ctx, instance)) end
    end
  end)
end

return instances
