-- SPDX-License-Identifier: Apache-2.0
-- A node pool as a playbook says it, and as Container Service says it. Pure: nothing here talks to anybody.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local spec = require "eirun.spec"

local M = {}

M.OWNER_TAG = { key = "managed-by", value = "eirun" }

local strategies = { SpotAsPriceGo = true, SpotWithPriceLimit = true }
local policies = { COST_OPTIMIZED = true, PRIORITY = true, BALANCE = true }
local effects = { NoSchedule = true, NoExecute = true, PreferNoSchedule = true }

local autoscale_rules = {
  min = { type = "integer", required = true, min = 0, max = 2000 },
  max = { type = "integer", required = true, min = 0, max = 2000 },
  type = { type = "string", one_of = { cpu = true, gpu = true, gpushare = true, spot = true } },
}

local spot_rules = {
  strategy = { type = "string", one_of = strategies },
  price_limit = { type = "table" },
  on_demand_base = { type = "integer", min = 0, max = 1000 },
  on_demand_percent = { type = "integer", min = 0, max = 100 },
  pools = { type = "integer", min = 1, max = 10 },
  compensate = { type = "boolean" },
  remedy = { type = "boolean" },
}

local disk_rules = {
  category = { type = "string" }, size = { type = "integer", min = 20, max = 32768 }, performance_level = { type = "string" },
}
local data_disk_rules = { category = disk_rules.category, size = { type = "integer", min = 40, max = 32768 },
  performance_level = disk_rules.performance_level, encrypted = { type = "boolean" } }

-- Digits, letters, Han characters and "-", not starting with "-"; bytes over 127 stand for the Han characters.
local NAME = "^[%w\128-\255][%w\128-\255-]*$"

local function check_name(name)
  if #name > 189 or utf8.len(name) == nil or utf8.len(name) > 63 then return "is longer than 63 characters" end
end

local function check_types(types)
  if #types < 1 or #types > 10 then return "must name 1 to 10 instance types" end
  local gpu = 0
  for _, name in ipairs(types) do if M.is_gpu(name) then gpu = gpu + 1 end end
  if gpu > 0 and gpu < #types then return "mixes types with and without a GPU" end
end

local function check_taints(taints)
  for _, taint in ipairs(taints) do
    if not taint.key or not effects[taint.effect] then
      return "wants { key, value, effect }, effect one of NoSchedule, NoExecute, PreferNoSchedule"
    end
  end
end

-- A table of options, or false: named, and not wanted.
local function table_or_false(what, fields)
  return { type = "any", check = function(value)
    if value == false then return nil end
    spec.check("ensure_node_pool." .. what, value, fields)
  end }
end

local function check_disks(disks)
  for i, disk in ipairs(disks) do spec.check(("ensure_node_pool.data_disks[%d]"):format(i), disk, data_disk_rules) end
end

-- Node labels of Kubernetes' own domains belong to it, but for those of the kubelet and of nodes.
local function check_labels(labels)
  for _, key in ipairs(resource.sorted_keys(labels)) do
    local domain = tostring(key):match("^([^/]+)/")
    local reserved = domain and (domain:find("kubernetes%.io$") or domain:find("k8s%.io$"))
    if reserved and not domain:find("^kubelet%.") and not domain:find("^node%.") then
      return ("has '%s': keys under kubernetes.io and k8s.io are reserved"):format(key)
    end
  end
end

local rules = {
  name = { type = "string", required = true, match = NAME, says = "made of letters, digits and '-'", check = check_name },
  instance_types = { type = "list", required = true, check = check_types },
  vswitch_ids = { type = "list", check = function(list) return (#list < 1 or #list > 8) and "must name 1 to 8 vSwitches" or nil end },
  autoscale = table_or_false("autoscale", autoscale_rules),
  size = { type = "integer", min = 0, max = 2000 },
  spot = table_or_false("spot", spot_rules),
  policy = { type = "string", one_of = policies },
  labels = { type = "table", check = check_labels },
  taints = { type = "list", check = check_taints },
  tags = { type = "table" },
  key_pair = { type = "string" },
  image_type = { type = "string" },
  system_disk = { type = "table", fields = disk_rules },
  data_disks = { type = "list", check = check_disks },
  security_group_ids = { type = "list" },
  runtime = { type = "string" },
  adopt = { type = "boolean" },
  wait_nodes = { type = "integer", min = 0 },
  timeout = { type = "number", min = 0 },
}

---Does this ECS type carry a GPU? By its family: gn, vgn, ebmgn, sgn.
---@param instance_type string
---@return boolean
function M.is_gpu(instance_type)
  return instance_type:find("^ecs%.[a-z]*gn%d") ~= nil
end

local function check_prices(given, fail)
  local named = {}
  for _, name in ipairs(given.instance_types) do named[name] = true end
  for _, name in ipairs(resource.sorted_keys(given.spot.price_limit or {})) do
    if not named[name] then fail(("spot.price_limit names '%s', which is not in instance_types"):format(name)) end
    local price = given.spot.price_limit[name]
    if (tonumber(price) or 0) <= 0 then fail(("spot.price_limit['%s'] is no price: %s"):format(name, tostring(price))) end
  end
end

local function check_scaling(given, fail)
  local scale = given.autoscale
  if not scale then return end
  if given.size then fail("size and autoscale exclude each other") end
  if scale.min > scale.max then fail(("autoscale.min is %d, above autoscale.max, %d"):format(scale.min, scale.max)) end
  local wants_gpu = scale.type == "gpu" or scale.type == "gpushare"
  if wants_gpu and not M.is_gpu(given.instance_types[1]) then
    fail(("autoscale.type is '%s', but none of instance_types has a GPU: %s"):format(scale.type, table.concat(given.instance_types, ", ")))
  end
end

local function check_together(given)
  local fail = function(text) spec.fail("ensure_node_pool", text) end
  local spot = given.spot
  check_scaling(given, fail)
  if spot then check_prices(given, fail) end
  if spot and spot.pools and spot.pools > #given.instance_types then
    fail(("spot.pools is %d, but only %d instance types are named"):format(spot.pools, #given.instance_types))
  end
  if spot and spot.strategy == "SpotWithPriceLimit" and not spot.price_limit then fail("spot.price_limit is missing") end
  if spot and (given.policy or "COST_OPTIMIZED") ~= "COST_OPTIMIZED" then
    for _, field in ipairs { "on_demand_base", "on_demand_percent", "pools", "compensate" } do
      if spot[field] ~= nil then fail(("spot.%s works with policy COST_OPTIMIZED only"):format(field)) end
    end
  end
end

---Checks a pool's specification before anything is written. Raises kind "invalid" with the playbook's line.
---@param given table
---@return table given
function M.check(given)
  spec.check("ensure_node_pool", given, rules)
  check_together(given)
  return given
end

local function pairs_list(map)
  local list = {}
  for _, key in ipairs(resource.sorted_keys(map)) do list[#list + 1] = { key = key, value = tostring(map[key]) } end
  return json.array(list)
end

local function tags_of(given)
  local tags = { [M.OWNER_TAG.key] = M.OWNER_TAG.value }
  for key, value in pairs(given.tags or {}) do tags[key] = value end
  return tags
end

local function array(list)
  return list and json.array(table.move(list, 1, #list, 1, {}))
end

local function price_limits(group, spot)
  if not spot.price_limit then return end
  group.spot_price_limit = json.array {}
  for i, name in ipairs(resource.sorted_keys(spot.price_limit)) do
    group.spot_price_limit[i] = { instance_type = name, price_limit = tostring(spot.price_limit[name]) }
  end
end

local ratio_words = { "on_demand_base", "on_demand_percent", "pools", "compensate" }

local function names_ratio(spot)
  for _, word in ipairs(ratio_words) do if spot[word] ~= nil then return true end end
  return false
end

-- What is named, else what the pool has, else what is good for a new one.
local function first(named, present, default)
  if named ~= nil then return named end
  if present ~= nil and present ~= json.null then return present end
  return default
end

-- All three numbers or none: with one missing, the scaling group just buys the cheapest.
local function spot_fields(group, given, has)
  local spot = given.spot
  if not spot then
    group.spot_strategy = (spot == false or not has.spot_strategy) and "NoSpot" or nil
    return
  end
  local present = names_ratio(spot) and "COST_OPTIMIZED" or has.multi_az_policy
  group.spot_strategy = first(spot.strategy, has.spot_strategy ~= "NoSpot" and has.spot_strategy or nil, "SpotAsPriceGo")
  group.spot_instance_remedy = first(spot.remedy, has.spot_instance_remedy, true)
  group.multi_az_policy = first(given.policy, present, "COST_OPTIMIZED")
  price_limits(group, spot)
  if group.multi_az_policy ~= "COST_OPTIMIZED" then return end
  group.on_demand_base_capacity = first(spot.on_demand_base, has.on_demand_base_capacity, 0)
  group.on_demand_percentage_above_base_capacity = first(spot.on_demand_percent, has.on_demand_percentage_above_base_capacity, 0)
  group.spot_instance_pools = first(spot.pools, has.spot_instance_pools, math.min(#given.instance_types, 10))
  group.compensate_with_on_demand = first(spot.compensate, has.compensate_with_on_demand, true)
end

local function disk_fields(group, given)
  local disk = given.system_disk or {}
  group.system_disk_category, group.system_disk_size = disk.category, disk.size
  group.system_disk_performance_level = disk.performance_level
  if not given.data_disks then return end
  group.data_disks = json.array {}
  for i, one in ipairs(given.data_disks) do
    group.data_disks[i] = { category = one.category, size = one.size, performance_level = one.performance_level,
      encrypted = one.encrypted ~= nil and tostring(one.encrypted) or nil } -- a string there, and only there
  end
end

local function group_of(given, has)
  local group = {
    instance_types = array(given.instance_types), vswitch_ids = array(given.vswitch_ids), multi_az_policy = given.policy,
    key_pair = given.key_pair, image_type = given.image_type, security_group_ids = array(given.security_group_ids),
    tags = pairs_list(tags_of(given)), desired_size = not given.autoscale and given.size or nil,
  }
  spot_fields(group, given, has)
  disk_fields(group, given)
  return group
end

-- Nothing of it named, nothing of it said: an update must not switch scaling off because somebody added a label.
local function scaling_of(given, observed)
  local scale, has = given.autoscale, observed and observed.auto_scaling or {}
  if not scale then
    if observed and scale == nil and given.size == nil then return nil end
    return { enable = false }
  end
  local kind = first(scale.type, has.type, M.is_gpu(given.instance_types[1]) and "gpu" or "cpu")
  return { enable = true, type = kind, min_instances = scale.min, max_instances = scale.max }
end

local function kubernetes_of(given)
  if not (given.labels or given.taints or given.runtime) then return nil end
  return { labels = given.labels and pairs_list(given.labels), taints = array(given.taints), runtime = given.runtime }
end

---What the pool should be, in Container Service's own words; only what the specification says. Of a pool that exists, what is
---not named stays as it is; a new one gets our defaults.
---@param given table a checked specification
---@param observed? table the pool's detail
---@return table
---Example: `pool_spec.wanted({ name = "gpu", instance_types = types }).nodepool_info.name` is `gpu`. Raises nothing.
function M.wanted(given, observed)
  return { nodepool_info = { name = given.name, type = "ess" }, auto_scaling = scaling_of(given, observed),
    scaling_group = group_of(given, observed and observed.scaling_group or {}), kubernetes_config = kubernetes_of(given) }
end

---The body of CreateClusterNodePool.
---@param given table a checked specification with its vswitch_ids
---@return table
function M.create_body(given)
  local body = M.wanted(given)
  body.scaling_group.instance_charge_type = "PostPaid"
  -- The type can never change, also of a pool whose scaler comes later.
  if not body.auto_scaling.enable and M.is_gpu(given.instance_types[1]) then body.auto_scaling.type = "gpu" end
  body.management = { enable = false }
  return body
end

-- Lists of {key, value} as maps, so that what the vendor added is not a difference.
local function as_map(list)
  local map = {}
  for _, item in ipairs(list or {}) do map[item.key] = item.value end
  return map
end

local function taint_map(list)
  local map = {}
  for _, item in ipairs(list or {}) do map[item.key .. ":" .. item.effect] = item.value or "" end
  return map
end

local function comparable(pool)
  local copy = {}
  for section, fields in pairs(pool) do
    copy[section] = {}
    if type(fields) == "table" then for key, value in pairs(fields) do copy[section][key] = value end end
  end
  if copy.scaling_group and copy.scaling_group.tags then copy.scaling_group.tags = as_map(copy.scaling_group.tags) end
  local kubernetes = copy.kubernetes_config
  if kubernetes and kubernetes.labels then kubernetes.labels = as_map(kubernetes.labels) end
  if kubernetes and kubernetes.taints then kubernetes.taints = taint_map(kubernetes.taints) end
  return copy
end

local order_means_nothing = {
  ["scaling_group.instance_types"] = true, ["scaling_group.security_group_ids"] = true, ["scaling_group.vswitch_ids"] = true,
}

local function without(set, key)
  local copy = {}
  for name in pairs(set) do if name ~= key then copy[name] = true end end
  return copy
end

---How an existing pool differs from what is wanted.
---@param observed table|nil the pool's detail
---@param wanted table
---@return eirun.Change[]
function M.compare(observed, wanted)
  local sets = order_means_nothing
  if wanted.scaling_group.multi_az_policy == "PRIORITY" then sets = without(sets, "scaling_group.vswitch_ids") end
  return resource.differences(observed and comparable(observed), comparable(wanted), { named_only = true, sets = sets })
end

local immutable = { "auto_scaling.type", "nodepool_info.type", "scaling_group.security_group_ids" }

---Raises kind "conflict" when a change cannot be made on an existing pool.
---@param given table
---@param changes eirun.Change[]
function M.check_changes(given, changes)
  local name = given.name
  local function refuse(change, why)
    errors.raise("conflict", ("node pool '%s': %s is '%s' and cannot become '%s'%s"):format(name, change.field,
      tostring(change.from), tostring(change.to), why or ""), { object = ("node pool '%s'"):format(name),
      hint = "make a new pool under another name, then delete this one" })
  end
  for _, change in ipairs(changes) do
    for _, field in ipairs(immutable) do if change.field == field then refuse(change) end end
    if change.field == "auto_scaling.enable" and change.from == true and change.to == false and given.size then
      refuse(change, ": a fixed size and the autoscaler exclude each other; autoscale = { min = n, max = n } freezes it at n")
    end
    local to_or_from_spot = change.field == "scaling_group.spot_strategy" and (change.from == "NoSpot" or change.to == "NoSpot")
    if to_or_from_spot then refuse(change, ": a spot pool stays one") end
  end
end

local function touches(changes, section)
  for _, change in ipairs(changes) do
    if change.field == section or change.field:sub(1, #section + 1) == section .. "." then return true end
  end
  return false
end

-- Labels, taints and tags that others put there go along: the section replaces the old one.
local function merged(observed, wanted, key_of)
  local list, seen = json.array {}, {}
  for _, item in ipairs(wanted or {}) do
    list[#list + 1] = item
    seen[key_of(item)] = true
  end
  for _, item in ipairs(observed or {}) do
    if not seen[key_of(item)] then list[#list + 1] = item end
  end
  return list
end

local function by_name(item) return item.key end
local function by_effect(item) return item.key .. ":" .. item.effect end

---The body of ModifyClusterNodePool: whole sections, and only those that change.
---@param observed table
---@param wanted table
---@param changes eirun.Change[]
---@return table
function M.modify_body(observed, wanted, changes)
  local body = {}
  if touches(changes, "auto_scaling") then body.auto_scaling = wanted.auto_scaling end
  if touches(changes, "scaling_group") then
    body.scaling_group = {}
    for key, value in pairs(wanted.scaling_group) do body.scaling_group[key] = value end
    body.scaling_group.security_group_ids = nil
    body.scaling_group.tags = merged(observed.scaling_group.tags, wanted.scaling_group.tags, by_name)
  end
  if touches(changes, "kubernetes_config") then
    local old, new = observed.kubernetes_config or {}, wanted.kubernetes_config
    body.kubernetes_config = { runtime = new.runtime, labels = new.labels and merged(old.labels, new.labels, by_name),
      taints = new.taints and merged(old.taints, new.taints, by_effect) }
    body.update_nodes = true
  end
  return body
end

---Whose the pool is, when it is not ours.
---@param observed table
---@return string|nil
function M.foreign(observed)
  local tags = as_map((observed.scaling_group or {}).tags)
  if tags[M.OWNER_TAG.key] == M.OWNER_TAG.value then return nil end
  return ("has no tag %s=%s: eirun did not make it"):format(M.OWNER_TAG.key, M.OWNER_TAG.value)
end

return M
