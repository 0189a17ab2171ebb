-- SPDX-License-Identifier: Apache-2.0
-- What CreateClusterNodePool and ModifyClusterNodePool accept, and which combinations they refuse.
local catalog = require "sandbox.cloud.catalog"
local errors = require "sandbox.cloud.errors"
local schema = require "sandbox.cloud.schema"

local pool_schema = {}

local text, bool = { type = "string" }, { type = "boolean" }
local function int(low, high) return { type = "integer", low = low, high = high } end
local function one_of(...) return { type = "string", enum = { ... } } end
local function list(of, low, high) return { type = "array", of = of, low = low, high = high } end
local function object(fields) return { type = "object", fields = fields } end
local function required(field)
  local copy = { required = true }
  for k, v in pairs(field) do copy[k] = v end
  return copy
end

local key_value = object { key = required(text), value = text }
local taint = object { key = required(text), value = text, effect = one_of("NoSchedule", "NoExecute", "PreferNoSchedule") }
local disk_category = one_of("cloud_efficiency", "cloud_ssd", "cloud_essd", "cloud_auto", "cloud_essd_entry", "cloud")

local scaling_group = {
  instance_types = list(text, 1, 10), vswitch_ids = list(text, 1, 8), instance_charge_type = one_of("PostPaid", "PrePaid"),
  spot_strategy = one_of("NoSpot", "SpotWithPriceLimit", "SpotAsPriceGo"),
  spot_price_limit = list(object { instance_type = required(text), price_limit = required(text) }),
  multi_az_policy = one_of("PRIORITY", "COST_OPTIMIZED", "BALANCE"), on_demand_base_capacity = int(0, 1000),
  on_demand_percentage_above_base_capacity = int(0, 100), spot_instance_pools = int(1, 10), spot_instance_remedy = bool,
  compensate_with_on_demand = bool, desired_size = int(0, 1000), system_disk_category = disk_category,
  system_disk_categories = list(disk_category), system_disk_size = int(20, 2048),
  system_disk_performance_level = one_of("PL0", "PL1", "PL2", "PL3"), system_disk_encrypted = bool,
  data_disks = list(object { category = disk_category, size = int(20, 32768), encrypted = one_of("true", "false", ""),
    performance_level = one_of("PL0", "PL1", "PL2", "PL3", "") }),
  key_pair = text, login_password = text, login_as_non_root = bool, image_type = text, image_id = text,
  security_group_ids = list(text), security_group_id = text, scaling_policy = one_of("release", "recycle"),
  internet_charge_type = one_of("PayByTraffic", "PayByBandwidth"), internet_max_bandwidth_out = int(0, 100),
  tags = list(key_value), ram_role_name = text, security_hardening_os = bool, soc_enabled = bool,
}

local fields = {
  nodepool_info = object { name = text, type = one_of("ess", "edge", "lingjun", "hybrid"), resource_group_id = text },
  auto_scaling = object { enable = bool, min_instances = int(0, 2000), max_instances = int(0, 2000),
    type = one_of("cpu", "gpu", "gpushare", "spot") },
  scaling_group = object(scaling_group),
  kubernetes_config = object { labels = list(key_value), taints = list(taint), runtime = text, runtime_version = text,
    cpu_policy = one_of("none", "static", ""), cms_enabled = bool, unschedulable = bool, node_name_mode = text, user_data = text,
    pre_user_data = text },
  management = object { enable = bool, auto_repair = bool, auto_upgrade = bool, auto_vul_fix = bool },
  update_nodes = bool, concurrency = bool, count = int(0, 500), max_nodes = int(0, 2000),
}

local function refuse(code, message) errors.raise(400, code, message) end

-- Letters of any script stay allowed: the rule names Han characters, and those are bytes above 127 here.
local function check_name(name)
  if not name or name == "" then refuse("MissingParameter", "nodepool_info.name is required") end
  if utf8.len(name) == nil or utf8.len(name) > 63 or name:find "^%-" or name:find "[^%w%-\128-\255]" then
    refuse("InvalidParameter.NodePoolName",
      "nodepool_info.name must have 1 to 63 digits, letters, Han characters or '-', and not start with '-'")
  end
end

local function check_types(scaling)
  local gpu, plain = 0, 0
  for _, name in ipairs(scaling.instance_types) do
    local known = catalog.type(name)
    if not known then refuse("InvalidInstanceType.NotFound", ("the instance type %s does not exist in this region"):format(name)) end
    if known.gpus then gpu = gpu + 1 else plain = plain + 1 end
  end
  if gpu > 0 and plain > 0 then
    refuse("InvalidParameter.InstanceTypes", "GPU and non-GPU instance types cannot be mixed in a node pool")
  end
end

local function check_network(scaling)
  for _, id in ipairs(scaling.vswitch_ids) do
    if not catalog.vswitches[id] then refuse("InvalidVSwitchId.NotFound", ("the vSwitch %s does not exist"):format(id)) end
  end
end

local ratio_fields = { "on_demand_base_capacity", "on_demand_percentage_above_base_capacity", "spot_instance_pools" }

local function check_spot(scaling)
  local policy = scaling.multi_az_policy
  local spot = scaling.spot_strategy ~= nil and scaling.spot_strategy ~= "NoSpot"
  for _, name in ipairs(ratio_fields) do
    if scaling[name] ~= nil and policy ~= "COST_OPTIMIZED" then
      refuse("InvalidParameter.MultiAZPolicy", name .. " needs multi_az_policy COST_OPTIMIZED")
    end
  end
  if scaling.compensate_with_on_demand and policy ~= "COST_OPTIMIZED" then
    refuse("InvalidParameter.MultiAZPolicy", "compensate_with_on_demand needs multi_az_policy COST_OPTIMIZED")
  end
  if spot and scaling.instance_charge_type == "PrePaid" then
    refuse("InvalidParameter.SpotStrategy", "PrePaid instances cannot be preemptible")
  end
  if scaling.spot_strategy == "SpotWithPriceLimit" and (scaling.spot_price_limit == nil or #scaling.spot_price_limit == 0) then
    refuse("InvalidParameter.SpotPriceLimit", "SpotWithPriceLimit needs spot_price_limit")
  end
end

local function check_login(scaling)
  if scaling.key_pair and scaling.key_pair ~= "" and scaling.login_password and scaling.login_password ~= "" then
    refuse("InvalidParameter.LoginPassword", "key_pair and login_password exclude each other")
  end
end

-- Reserved prefixes of node labels.
local function check_labels(config)
  for _, label in ipairs(config.labels or {}) do
    local prefix = label.key:match "^(.-)/"
    local reserved = prefix and (prefix:find "kubernetes%.io$" or prefix:find "k8s%.io$")
    if reserved and not prefix:find "^kubelet%." and not prefix:find "^node%." then
      refuse("InvalidParameter.Labels", ("the label key %s is reserved"):format(label.key))
    end
  end
end

local function check_size(auto, scaling)
  if auto.enable and scaling.desired_size ~= nil then
    refuse("InvalidDesiredSizeOrCount.NotNull", "desired_size or count must be empty when auto scaling is enabled")
  end
  if auto.enable and (auto.min_instances or 0) > (auto.max_instances or 0) then
    refuse("InvalidParameter.AutoScaling", "auto_scaling.min_instances is greater than auto_scaling.max_instances")
  end
end

-- Types and ranges of whatever the body names.
function pool_schema.check_body(body)
  local why = schema.check(fields, body)
  if why then refuse("InvalidParameter", why) end
end

-- A whole spec (sections filled in): combinations and references.
function pool_schema.check_spec(ctx, spec)
  local scaling = spec.scaling_group
  for _, name in ipairs { "instance_types", "vswitch_ids" } do
    if scaling[name] == nil then refuse("MissingParameter", "scaling_group." .. name .. " is required") end
  end
  check_types(scaling)
  check_network(scaling)
  check_spot(scaling)
  check_login(scaling)
  check_labels(spec.kubernetes_config)
  check_size(spec.auto_scaling, scaling)
  if spec.management.enable and not ctx.store:get("addon", "ack-node-problem-detector") then
    refuse("InvalidParameter.Management", "managed node pools need the component ack-node-problem-detector")
  end
end

function pool_schema.check_new(body)
  check_name(body.nodepool_info and body.nodepool_info.name)
  if not body.scaling_group then refuse("MissingParameter", "scaling_group is required") end
  if body.scaling_group.instance_charge_type == nil then
    refuse("MissingParameter", "scaling_group.instance_charge_type is required")
  end
end

pool_schema.check_name = check_name

return pool_schema
