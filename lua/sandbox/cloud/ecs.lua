-- SPDX-License-Identifier: Apache-2.0
-- ECS 2014-05-26: instances, spot prices, prices, advice, stock. Lists are nested as X.Y[] there.
local json = require "eirun.core.json"
local catalog = require "sandbox.cloud.catalog"
local encoding = require "sandbox.encoding"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local market = require "sandbox.cloud.market"
local times = require "sandbox.times"

local ecs = {}

local function need_region(call)
  local region = gateway.need(call, "RegionId")
  if region ~= call.ctx.region then errors.raise(404, "InvalidRegionId.NotFound", "The specified RegionId does not exist.") end
end

local function tags_of(ctx, instance)
  local pool = ctx.store:get("pool", instance.pool_id)
  local tags = json.array {}
  local function add(key, value) tags[#tags + 1] = { TagKey = key, TagValue = value } end
  add("ack.aliyun.com", ctx.cluster_id)
  add("ack.alibabacloud.com/nodepool-id", instance.pool_id)
  add("acs:autoscaling:scalingGroupId", instance.group_id)
  if pool and pool.spec.auto_scaling.enable then
    add("k8s.io/cluster-autoscaler", "true")
    add("k8s.aliyun.com", "true")
  end
  for _, tag in ipairs(pool and pool.spec.scaling_group.tags or {}) do add(tag.key, tag.value or "") end
  return tags
end

local function view(ctx, instance)
  local kind, locks = catalog.type(instance.type), json.array {}
  if instance.lock then locks[1] = { LockReason = instance.lock } end
  return { InstanceId = instance.id, InstanceName = "worker-k8s-for-cs-" .. ctx.cluster_id, HostName = instance.id,
    InstanceType = instance.type, InstanceTypeFamily = catalog.family(instance.type), Status = instance.ecs,
    InstanceChargeType = "PostPaid", SpotStrategy = instance.spot_strategy, SpotPriceLimit = 0.0, SpotDuration = 1,
    SpotInterruptionBehavior = "Terminate", ZoneId = instance.zone, RegionId = ctx.region, Cpu = kind.cpu,
    Memory = kind.memory * 1024, GPUAmount = kind.gpus or 0, GPUSpec = kind.gpu and kind.gpu.model or "",
    CreationTime = times.iso_minute(instance.created), StartTime = times.iso_minute(instance.created), ExpiredTime = "2099-12-31T15:59Z",
    OperationLocks = { LockReason = locks }, ImageId = "aliyun_3_x64_20G_alibase_sandbox.vhd", OSType = "linux",
    VpcAttributes = { VpcId = catalog.vpc.id, VSwitchId = instance.vswitch_id, NatIpAddress = "",
      PrivateIpAddress = { IpAddress = json.array { instance.ip } } },
    SecurityGroupIds = { SecurityGroupId = json.array { catalog.security_group } },
    PublicIpAddress = { IpAddress = json.array {} }, InstanceNetworkType = "vpc", Tags = { Tag = tags_of(ctx, instance) } }
end

local function tag_filter(params)
  local keys, wanted = encoding.numbered(params, "Tag", "Key"), {}
  for i, key in ipairs(keys) do wanted[i] = { key = key, value = params["Tag." .. i .. ".Value"] } end
  return function(tags)
    for _, tag in ipairs(wanted) do
      local found = false
      for _, has in ipairs(tags) do
        found = found or (has.TagKey == tag.key and (tag.value == nil or tag.value == "" or has.TagValue == tag.value))
      end
      if not found then return false end
    end
    return true
  end
end

local function id_filter(params)
  if params.InstanceIds == nil or params.InstanceIds == "" then return function() return true end end
  local list, set = json.decode(params.InstanceIds), {}
  if type(list) ~= "table" or #list > 100 then
    errors.raise(400, "InvalidInstanceIds.Malformed", "The specified InstanceIds is malformed.")
  end
  for _, id in ipairs(list) do set[id] = true end
  return function(id) return set[id] ~= nil end
end

local function wanted(params, one)
  local function same(param, value) return params[param] == nil or params[param] == "" or params[param] == value end
  return same("Status", one.Status) and same("ZoneId", one.ZoneId) and same("InstanceType", one.InstanceType)
    and same("InstanceChargeType", one.InstanceChargeType) and same("VSwitchId", one.VpcAttributes.VSwitchId)
    and (params.LockReason == nil or (one.OperationLocks.LockReason[1] or {}).LockReason == params.LockReason)
end

local function matching(call)
  local has_tags, has_id, list = tag_filter(call.params), id_filter(call.params), {}
  if call.fault and call.fault.kind == "empty_list" then return list end
  for _, instance in call.ctx.store:each "instance" do
    local one = view(call.ctx, instance)
    if has_id(one.InstanceId) and has_tags(one.Tags.Tag) and wanted(call.params, one) then list[#list + 1] = one end
  end
  return list
end

-- Tokens are the number of the next item, in a shape that nobody takes for one.
local function by_token(call, list)
  local size, first = gateway.integer(call, "MaxResults", 10, 1, 100), 1
  if call.params.NextToken and call.params.NextToken ~= "" then
    first = tonumber((call.params.NextToken):match "^t0k(%d+)$")
    if not first then errors.raise(400, "InvalidParameter.NextToken", "The specified NextToken is invalid.") end
  end
  local page = json.array(table.move(list, first, math.min(#list, first + size - 1), 1, {}))
  return { Instances = { Instance = page }, TotalCount = 0, PageSize = 0, PageNumber = 0,
    NextToken = first + size <= #list and "t0k" .. (first + size) or "" }
end

local function describe_instances(call)
  need_region(call)
  local list = matching(call)
  if call.params.MaxResults or call.params.NextToken then return by_token(call, list) end
  local number, size = gateway.integer(call, "PageNumber", 1, 1, 100000), gateway.integer(call, "PageSize", 10, 1, 100)
  return { Instances = { Instance = gateway.page(list, number, size) }, TotalCount = #list, PageNumber = number, PageSize = size,
    NextToken = "" }
end

local function need_type(call)
  local name = gateway.need(call, "InstanceType")
  if not catalog.type(name) then
    errors.raise(404, "InvalidInstanceType.ValueNotSupported", "The specified InstanceType does not exist or beyond the permitted range.")
  end
  return name
end

local function bounds(call)
  local now = call.ctx.now()
  local from = call.params.StartTime and times.parse(call.params.StartTime) or now - 3 * 3600
  local to = call.params.EndTime and times.parse(call.params.EndTime) or now
  if from < now - 30 * 86400 then errors.raise(400, "InvalidStartTime.ValueNotSupported", "StartTime is more than 30 days ago.") end
  return from, to
end

-- One price an hour and zone, oldest first.
local function describe_spot_price_history(call)
  need_region(call)
  local name, list = need_type(call), json.array {}
  local from, to = bounds(call)
  for hour = math.ceil(from / 3600) * 3600, to // 1, 3600 do
    for _, zone in ipairs(catalog.zones) do
      local price = market.spot_price(call.ctx, name, zone, hour)
      if price and (not call.params.ZoneId or call.params.ZoneId == zone) then
        list[#list + 1] = { InstanceType = name, ZoneId = zone, SpotPrice = price, OriginPrice = catalog.on_demand_price(name),
          Timestamp = times.iso(hour), NetworkType = "vpc", IoOptimized = "optimized" }
      end
    end
  end
  local offset = gateway.integer(call, "Offset", 0, 0, 1000000)
  local page = json.array(table.move(list, offset + 1, math.min(#list, offset + 1000), 1, {}))
  return { SpotPrices = { SpotPriceType = page }, Currency = "CNY", NextOffset = offset + 1000 < #list and offset + 1000 or 0 }
end

local function hourly(call, name)
  local spot = (call.params.SpotStrategy or "NoSpot") ~= "NoSpot"
  if not spot then return catalog.on_demand_price(name) end
  local price = market.spot_price(call.ctx, name, call.params.ZoneId or catalog.zones[1], call.ctx.now())
  if price then return price end
  errors.raise(400, "InvalidSpotStrategy.NotSupported", "The instance type is not sold as preemptible in the zone.")
end

local function describe_price(call)
  need_region(call)
  local name = need_type(call)
  local amount = gateway.integer(call, "Amount", 1, 1, 1000)
  local original, trade = catalog.on_demand_price(name) * amount, hourly(call, name) * amount
  return { PriceInfo = { Price = { OriginalPrice = original, DiscountPrice = original - trade, TradePrice = trade, Currency = "CNY",
    DetailInfos = { DetailInfo = json.array {} } }, Rules = { Rule = json.array {} } } }
end

local function advice_of(call, zone, names)
  local list = json.array {}
  for _, name in ipairs(names) do
    local price = catalog.type(name) and market.spot_price(call.ctx, name, zone, call.ctx.now())
    if price and market.left(call.ctx, name, zone, true) > 0 then
      list[#list + 1] = { InstanceType = name, InterruptionRate = 3, InterruptRateDesc = "0-3%",
        AverageSpotDiscount = math.floor(price / catalog.on_demand_price(name) * 100 + 0.5) }
    end
  end
  return list
end

local function names_asked(call)
  local names = encoding.numbered(call.params, "InstanceTypes")
  if #names > 10 then errors.raise(400, "InvalidInstanceTypes.LimitExceeded", "At most 10 instance types can be asked for.") end
  if #names > 0 then return names end
  for name in pairs(catalog.types) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function describe_spot_advice(call)
  need_region(call)
  local zones, names = json.array {}, names_asked(call)
  for _, zone in ipairs(catalog.zones) do
    zones[#zones + 1] = { ZoneId = zone, AvailableSpotResources = { AvailableSpotResource = advice_of(call, zone, names) } }
  end
  return { RegionId = call.ctx.region, AvailableSpotZones = { AvailableSpotZone = zones } }
end

local function resources_of(call, zone, spot)
  local list = json.array {}
  for _, name in ipairs(names_asked(call)) do
    local asked = call.params.InstanceType == nil or call.params.InstanceType == name
    if asked and catalog.stock(name, zone, spot and "spot" or "on_demand") > 0 then
      local left = market.left(call.ctx, name, zone, spot) > 0
      list[#list + 1] = { Value = name, Status = left and "Available" or "SoldOut",
        StatusCategory = left and "WithStock" or "WithoutStock" }
    end
  end
  return list
end

local function describe_available_resource(call)
  need_region(call)
  gateway.need(call, "DestinationResource")
  local spot, zones = (call.params.SpotStrategy or "NoSpot") ~= "NoSpot", json.array {}
  for _, zone in ipairs(catalog.zones) do
    if call.params.ZoneId == nil or call.params.ZoneId == zone then
      zones[#zones + 1] = { ZoneId = zone, RegionId = call.ctx.region, Status = "Available", StatusCategory = "WithStock",
        AvailableResources = { AvailableResource = json.array { { Type = "InstanceType",
          SupportedResources = { SupportedResource = resources_of(call, zone, spot) } } } } }
    end
  end
  return { AvailableZones = { AvailableZone = zones } }
end

local function describe_instance_types(call)
  local list = json.array {}
  for _, name in ipairs(names_asked(call)) do
    local kind = catalog.type(name)
    if kind then
      list[#list + 1] = { InstanceTypeId = name, InstanceTypeFamily = catalog.family(name), CpuCoreCount = kind.cpu,
        MemorySize = kind.memory + 0.0, GPUAmount = kind.gpus or 0, GPUSpec = kind.gpu and kind.gpu.model or "",
        CpuArchitecture = "X86" }
    end
  end
  return { InstanceTypes = { InstanceType = list }, NextToken = "" }
end

local function describe_regions(call)
  return { Regions = { Region = json.array { { RegionId = call.ctx.region, LocalName = call.ctx.region,
    RegionEndpoint = ("ecs.%s.aliyuncs.com"):format(call.ctx.region) } } } }
end

local function describe_zones(call)
  need_region(call)
  local zones = json.array {}
  for i, zone in ipairs(catalog.zones) do zones[i] = { ZoneId = zone, LocalName = zone } end
  return { Zones = { Zone = zones } }
end

function ecs.start(ctx)
  local product = { name = "ECS", ram = "ecs", versions = { ["2014-05-26"] = true }, actions = { DescribeInstances = describe_instances,
    DescribeSpotPriceHistory = describe_spot_price_history, DescribePrice = describe_price, DescribeSpotAdvice = describe_spot_advice,
    DescribeAvailableResource = describe_available_resource, DescribeInstanceTypes = describe_instance_types,
    DescribeRegions = describe_regions, DescribeZones = describe_zones } }
  local region = ctx.region
  ctx.service { name = "ECS", env = "ECS", handle = gateway.rpc(ctx, product), hosts = { "ecs.aliyuncs.com",
    ("ecs.%s.aliyuncs.com"):format(region), ("ecs-%s.aliyuncs.com"):format(region), ("ecs-vpc.%s.aliyuncs.com"):format(region) } }
end

return ecs
