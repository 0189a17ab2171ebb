-- SPDX-License-Identifier: Apache-2.0
-- The cluster-level switch of node autoscaling. The API has no call that reads it back, but the scaler runs as an add-on
-- and the add-on's instance tells its settings.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local tasks = require "eirun.ack.tasks"

local M = {}

local addons = { ["cluster-autoscaler"] = "cluster-autoscaler", goatscaler = "ack-goatscaler" }
local scan_seconds = { [15] = true, [30] = true, [60] = true, [120] = true, [180] = true, [300] = true }

local rules = {
  scaler = { type = "string", one_of = addons },
  scan_interval = { type = "integer", one_of = scan_seconds },
  cool_down = { type = "integer", min = 60, max = 3600, check = function(s) return s % 60 ~= 0 and "must be whole minutes" or nil end },
  unneeded = { type = "integer", min = 60, max = 3600, check = function(s) return s % 60 ~= 0 and "must be whole minutes" or nil end },
  utilization = { type = "number", min = 0.1, max = 1 },
  gpu_utilization = { type = "number", min = 0.1, max = 1 },
  expander = { type = "string", one_of = { ["least-waste"] = true, random = true, priority = true } },
  scale_down = { type = "boolean" },
  from_zero = { type = "boolean" },
  priorities = { type = "table" },
  daemonset_eviction = { type = "boolean" },
  max_graceful_termination = { type = "integer", min = 0 },
  min_replicas = { type = "integer", min = 0 },
  skip_local_storage = { type = "boolean" },
  skip_system_pods = { type = "boolean" },
}

-- What instant scaling does not know; said before it is sent, since the API takes it without a word.
local of_the_autoscaler = { "expander", "scale_down", "from_zero", "priorities", "daemonset_eviction", "max_graceful_termination",
  "min_replicas", "skip_local_storage", "skip_system_pods" }

local function fail(text) spec.fail("ensure_autoscaling", text) end

local function check_priorities(priorities)
  for priority, groups in pairs(priorities) do
    local number = math.tointeger(tonumber(priority))
    if not number or number < 1 or number > 100 then fail(("priorities: '%s' is no number from 1 to 100"):format(tostring(priority))) end
    if type(groups) ~= "table" or #groups == 0 then fail(("priorities[%d] wants a list of node pools"):format(number)) end
  end
end

---Checks what is given. Raises kind "invalid" with the playbook's line.
---@param given table
function M.check(given)
  spec.check("ensure_autoscaling", given, rules)
  for _, name in ipairs(given.scaler == "goatscaler" and of_the_autoscaler or {}) do
    if given[name] ~= nil then fail(name .. " is for scaler = \"cluster-autoscaler\"; instant scaling (goatscaler) has no such setting") end
  end
  if given.priorities then check_priorities(given.priorities) end
  if given.expander == "priority" and not given.priorities then fail("expander = \"priority\" wants priorities") end
  if given.priorities and given.expander ~= "priority" then fail("priorities want expander = \"priority\"") end
end

-- Node pools or ids of scaling groups by priority, as ids of scaling groups.
local function priorities_of(given)
  if not given then return nil end
  local map = {}
  for priority, groups in pairs(given) do
    local ids = json.array {}
    for i, group in ipairs(groups) do ids[i] = type(group) == "table" and group.scaling_group_id or group end
    map[("%d"):format(tonumber(priority))] = ids
  end
  return map
end

local function minutes(seconds)
  return seconds and tostring(seconds // 60)
end

local function text(value)
  return value and tostring(value)
end

---The configuration in the API's own words; only what is named. Numbers are strings there.
---@param given table
---@return table
function M.wanted(given)
  return {
    scaler_type = given.scaler or "cluster-autoscaler", scan_interval = text(given.scan_interval), expander = given.expander,
    cool_down_duration = minutes(given.cool_down), unneeded_duration = minutes(given.unneeded),
    utilization_threshold = text(given.utilization), gpu_utilization_threshold = text(given.gpu_utilization),
    scale_down_enabled = given.scale_down, scale_up_from_zero = given.from_zero, priorities = priorities_of(given.priorities),
    daemonset_eviction_for_nodes = given.daemonset_eviction, max_graceful_termination_sec = given.max_graceful_termination,
    min_replica_count = given.min_replicas, skip_nodes_with_local_storage = given.skip_local_storage,
    skip_nodes_with_system_pods = given.skip_system_pods,
  }
end

local function find(cluster_id)
  local instances = cloud.cs("ListClusterAddonInstances", { ClusterId = cluster_id }).addons or {}
  local installed = {}
  for _, addon in ipairs(instances) do installed[addon.name] = true end
  for _, scaler in ipairs { "cluster-autoscaler", "goatscaler" } do
    if installed[addons[scaler]] then return scaler end
  end
end

local function observe(cluster_id)
  local scaler = find(cluster_id)
  if not scaler then return nil end
  local addon = cloud.cs("GetClusterAddonInstance", { ClusterId = cluster_id, instance_name = addons[scaler] })
  local config = json.decode(addon.config or "") or {}
  config.scaler_type = scaler
  return config
end

-- Does the add-on tell its settings at all? Where it tells none, they are taken as they were sent.
local function is_readable(observed)
  for key in pairs(observed) do if key ~= "scaler_type" then return true end end
  return false
end

---How what is in force differs from what is wanted.
---@param observed table|nil
---@param wanted table
---@return eirun.Change[]
function M.compare(observed, wanted)
  if not observed then return resource.differences(nil, wanted) end
  if not is_readable(observed) then wanted = { scaler_type = wanted.scaler_type } end
  local as_text = {}
  for key, value in pairs(observed) do as_text[key] = type(wanted[key]) == "string" and tostring(value) or value end
  return resource.differences(as_text, wanted, { named_only = true })
end

-- The call replaces the whole configuration, so what was set before and is not named now goes along; not to another scaler, which
-- has settings of its own.
local function body_of(observed, wanted)
  local body = {}
  if observed and observed.scaler_type == wanted.scaler_type then
    for key, value in pairs(observed) do body[key] = value end
  end
  for key, value in pairs(wanted) do body[key] = value end
  return body
end

---Makes the configuration; see `cluster:ensure_autoscaling`.
---@param cluster_id string
---@param given table
---@return table config
---@return string outcome
function M.ensure(cluster_id, given)
  M.check(given)
  local wanted = M.wanted(given)
  local what = "autoscaling of cluster '" .. cluster_id .. "'"
  return resource.ensure {
    kind = "autoscaling", name = cluster_id,
    observe = function() return observe(cluster_id) end,
    compare = function(observed) return M.compare(observed, wanted) end,
    -- Create overwrites, so it is safe to repeat.
    act = function(plan)
      local answer = cloud.cs("CreateAutoscalingConfig", { ClusterId = cluster_id },
        { body = body_of(plan.observed, wanted), object = what, idempotent = true })
      tasks.wait(answer.task_id, what)
      return wanted
    end,
    wait = function()
      local seen = observe(cluster_id)
      if seen then return seen end
      errors.raise("internal", what .. " was set, but no autoscaler is installed",
        { object = what, hint = "grant the service role AliyunCSManagedAutoScalerRole, then run again" })
    end,
  }
end

return M
