-- SPDX-License-Identifier: Apache-2.0
-- The cluster-level autoscaler configuration: without it no pool scales by itself.
local json = require "eirun.core.json"
local errors = require "sandbox.cloud.errors"
local ram = require "sandbox.cloud.ram"
local schema = require "sandbox.cloud.schema"
local tasks = require "sandbox.cloud.tasks"

local autoscale = {}

local text, bool, int = { type = "string" }, { type = "boolean" }, { type = "integer" }

local fields = {
  scaler_type = { type = "string", enum = { "goatscaler", "cluster-autoscaler" } }, scan_interval = text,
  cool_down_duration = text, unneeded_duration = text, utilization_threshold = text, gpu_utilization_threshold = text,
  scale_down_enabled = bool, expander = { type = "string", enum = { "least-waste", "random", "priority" } },
  priorities = { type = "object" }, scale_up_from_zero = bool, daemonset_eviction_for_nodes = bool,
  max_graceful_termination_sec = int, min_replica_count = int, skip_nodes_with_local_storage = bool,
  skip_nodes_with_system_pods = bool, recycle_node_deletion_enabled = bool,
}

local units = { s = 1, m = 60, h = 3600 }

-- "30" in the field's own unit (seconds or minutes), "30s" and "10m" as terraform sends them.
local function duration(value, unit)
  if value == nil then return nil end
  local number, suffix = value:match "^(%d+%.?%d*)([smh]?)$"
  if not number then return nil end
  return tonumber(number) * (suffix == "" and unit or units[suffix])
end

local function refuse(name, value)
  errors.raise(400, "InvalidParameter." .. name, ("%s is \"%s\", which is not accepted"):format(name, tostring(value)))
end

local intervals = { [15] = true, [30] = true, [60] = true, [120] = true, [180] = true, [300] = true }

local function check_times(body)
  local scan = duration(body.scan_interval, 1)
  if body.scan_interval and not intervals[scan] then refuse("scan_interval", body.scan_interval) end
  for _, name in ipairs { "cool_down_duration", "unneeded_duration" } do
    local seconds = duration(body[name], 60)
    if body[name] and (not seconds or seconds < 60 or seconds > 3600) then refuse(name, body[name]) end
  end
  for _, name in ipairs { "utilization_threshold", "gpu_utilization_threshold" } do
    local value = tonumber(body[name])
    if body[name] and (not value or value < 0.1 or value > 1) then refuse(name, body[name]) end
  end
end

-- The scaler's settings in numbers and seconds, or nil while there is no configuration.
function autoscale.settings(ctx)
  local config = ctx.store:get("autoscaling", "config")
  if not config or config.state ~= "active" then return nil end
  local body = config.body
  local scale = ctx.options.lag_scale or 1
  local function seconds(name, unit, default)
    local said = duration(body[name], unit)
    return said and said * scale or default
  end
  return { scaler = body.scaler_type or "goatscaler", expander = body.expander or "least-waste", priorities = body.priorities,
    scan_interval = seconds("scan_interval", 1, ctx.lag.scan_interval),
    unneeded = seconds("cool_down_duration", 60, ctx.lag.scale_down_unneeded),
    quiet = seconds("unneeded_duration", 60, ctx.lag.scale_down_delay), utilization = tonumber(body.utilization_threshold) or 0.5,
    gpu_utilization = tonumber(body.gpu_utilization_threshold) or 0.3, scale_down = body.scale_down_enabled ~= false,
    from_zero = body.scale_up_from_zero ~= false }
end

function autoscale.create(call)
  local ctx, body = call.ctx, call.json()
  local why = schema.check(fields, body)
  if why then errors.raise(400, "InvalidParameter", why) end
  check_times(body)
  ram.need_role(ctx, "AliyunCSManagedAutoScalerRole")
  return ctx.store:tx(function()
    local task = tasks.start(ctx, { type = "cluster_autoscaling_config", target = { id = ctx.cluster_id, type = "cluster" },
      after = ctx.lag.autoscaling_config, data = {} })
    local known = ctx.store:get("autoscaling", "config")
    ctx.store:put("autoscaling", "config", { body = body, state = known and known.state or "initial" })
    return { cluster_id = ctx.cluster_id, task_id = task.id, request_id = call.request_id }
  end)
end

-- The scaler's add-on appears with its configuration, as on ACK.
local function finish(ctx)
  local config = ctx.store:get("autoscaling", "config")
  config.state = "active"
  ctx.store:put("autoscaling", "config", config)
  local name = (config.body.scaler_type or "goatscaler") == "goatscaler" and "ack-goatscaler" or "cluster-autoscaler"
  ctx.store:delete("addon", name == "ack-goatscaler" and "cluster-autoscaler" or "ack-goatscaler") -- one scaler at a time
  ctx.store:put("addon", name, { name = name, version = name == "ack-goatscaler" and "v0.6.1" or "v1.6.0-sandbox",
    state = "active", config = assert(json.encode(config.body)) })
  ctx.emit("autoscaling.changed", {})
end

function autoscale.start() tasks.finisher("cluster_autoscaling_config", finish) end

return autoscale
