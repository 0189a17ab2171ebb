-- SPDX-License-Identifier: Apache-2.0
-- VPC 2016-04-28: the vSwitches that pre-flight looks at.
local json = require "eirun.core.json"
local catalog = require "sandbox.cloud.catalog"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"

local vpc = {}

local function view(ctx, id, record)
  local used = 0
  for _, instance in ctx.store:each "instance" do
    if instance.vswitch_id == id then used = used + 1 end
  end
  return { VSwitchId = id, VSwitchName = id, VpcId = catalog.vpc.id, ZoneId = record.zone, CidrBlock = record.cidr,
    AvailableIpAddressCount = (ctx.store:get("vswitch", id) or {}).full and 0 or record.free - used, Status = "Available",
    RegionId = ctx.region, IsDefault = false, Description = "" }
end

local function sorted_ids()
  local ids = {}
  for id in pairs(catalog.vswitches) do ids[#ids + 1] = id end
  table.sort(ids)
  return ids
end

local function list_call(call)
  local list = {}
  for _, id in ipairs(sorted_ids()) do
    local one = view(call.ctx, id, catalog.vswitches[id])
    local fits = true
    for _, name in ipairs { "VSwitchId", "VpcId", "ZoneId" } do
      fits = fits and (call.params[name] == nil or call.params[name] == one[name])
    end
    if fits then list[#list + 1] = one end
  end
  local number, size = gateway.integer(call, "PageNumber", 1, 1, 100000), gateway.integer(call, "PageSize", 10, 1, 50)
  return { VSwitches = { VSwitch = gateway.page(list, number, size) }, TotalCount = #list, PageNumber = number, PageSize = size }
end

local function one_call(call)
  local id = gateway.need(call, "VSwitchId")
  if not catalog.vswitches[id] then
    errors.raise(404, "InvalidVSwitchId.NotFound", "Specified virtual switch does not exist.")
  end
  return view(call.ctx, id, catalog.vswitches[id])
end

local function vpcs_call(call)
  local one = { VpcId = catalog.vpc.id, VpcName = catalog.vpc.name, CidrBlock = catalog.vpc.cidr, RegionId = call.ctx.region,
    Status = "Available", VSwitchIds = { VSwitchId = json.array(sorted_ids()) } }
  return { Vpcs = { Vpc = json.array { one } }, TotalCount = 1, PageNumber = 1, PageSize = 10 }
end

function vpc.start(ctx)
  local product = { name = "VPC", ram = "vpc", versions = { ["2016-04-28"] = true }, actions = { DescribeVSwitches = list_call,
    DescribeVSwitchAttributes = one_call, DescribeVpcs = vpcs_call } }
  ctx.service { name = "VPC", env = "VPC", handle = gateway.rpc(ctx, product), hosts = { "vpc.aliyuncs.com",
    ("vpc.%s.aliyuncs.com"):format(ctx.region), ("vpc-vpc.%s.aliyuncs.com"):format(ctx.region) } }
end

return vpc
