-- SPDX-License-Identifier: Apache-2.0
--- The delays of elastic serving, one table with the source of each figure. The sandbox acts them out, the
--- simulator reckons with them, and a measured run may replace them.
---
--- Sources in short: `adapter` is alibaba-cloud-metrics-adapter 0.2.9, `sls` the log service's own pages (2021),
--- `kubernetes` the defaults of 1.36, `ack` the container service's API text, `field` public reports of real
--- clusters (one source each), `gentd26` Alibaba's cluster-trace-v2026-GenAI. `assumed` is our own guess: measure it.
local lag = {}

---@class eirun.lag.fact
---@field value number in `unit`
---@field unit string "s" for everything that is a time
---@field source string where the figure comes from

---@type table<string, eirun.lag.fact>
lag.facts = {
  -- from a request at the ingress to a decision
  log_collect = { value = 3, unit = "s", source = "sls: collection to queryable within 3 s, normally" },
  metric_delay = { value = 10, unit = "s", source = "adapter: sls.query.delay, the window ends this long ago" },
  metric_window = { value = 15, unit = "s", source = "adapter: sls.query.interval, also its minimum" },
  hpa_sync = { value = 15, unit = "s", source = "kubernetes: horizontal-pod-autoscaler-sync-period" },
  hpa_downscale_window = { value = 300, unit = "s", source = "kubernetes: scaleDown.stabilizationWindowSeconds" },
  scheduler = { value = 0.1, unit = "s", source = "assumed: one scheduling cycle with its bind" },
  controller_sync = { value = 0.2, unit = "s", source = "assumed: a controller's turn after a watch event" },

  -- from a pending pod to a node
  scan_interval = { value = 60, unit = "s", source = "ack: scan_interval of CreateAutoscalingConfig" },
  scale_down_unneeded = { value = 600, unit = "s", source = "ack: cool_down_duration, 10 minutes" },
  scale_down_delay = { value = 600, unit = "s", source = "ack: unneeded_duration, quiet time after a scale-out" },
  ess_activity = { value = 5, unit = "s", source = "assumed: a scaling activity until its instances exist" },
  node_boot = { value = 40, unit = "s", source = "field: 67 s for a scale from 1 to 2 nodes, less node_join" },
  node_join = { value = 27, unit = "s", source = "field: the rest of those 67 s: bootstrap script, kubelet, CNI, driver" },
  node_remove = { value = 47, unit = "s", source = "field: 107 s for 2 to 1 nodes, less one scan interval" },
  node_drain_limit = { value = 1800, unit = "s", source = "field: draining can take up to 30 minutes" },
  pool_create = { value = 12, unit = "s", source = "assumed: pool and scaling group, without nodes" },
  pool_update = { value = 6, unit = "s", source = "assumed: a change without new instances" },
  pool_delete = { value = 20, unit = "s", source = "assumed: an empty pool" },
  addon_install = { value = 20, unit = "s", source = "assumed: a chart and its first pod" },
  autoscaling_config = { value = 10, unit = "s", source = "assumed: the scaler restarts with it" },

  -- from a node to a replica that answers
  kubelet_sync = { value = 1, unit = "s", source = "kubernetes: kubelet acts on a bound pod within a second" },
  node_status = { value = 10, unit = "s", source = "kubernetes: nodeStatusUpdateFrequency" },
  node_lease = { value = 40, unit = "s", source = "kubernetes: leaseDurationSeconds of the node lease" },
  image_pull = { value = 50, unit = "s", source = "assumed: 2.6 GiB of tensorflow/serving GPU image at 55 MB/s" },
  image_cached = { value = 0.5, unit = "s", source = "assumed: the image is on the node already" },
  mount = { value = 3, unit = "s", source = "assumed: ossfs start and its first listing" },
  container_start = { value = 2, unit = "s", source = "assumed: runtime and GPU set-up" },
  model_load = { value = 22.7, unit = "s", source = "gentd26: base model load, p50 (p95 45 s, max 79 s)" },
  probe_period = { value = 10, unit = "s", source = "kubernetes: default periodSeconds of a probe" },
  endpoint_update = { value = 1, unit = "s", source = "assumed: ready pod to ingress upstream" },
  lb_address = { value = 15, unit = "s", source = "assumed: ingress controller publishes its balancer's address" },

  -- losing a spot node
  spot_notice = { value = 300, unit = "s", source = "ack/ecs: about 5 minutes ahead" },
  spot_evaluate = { value = 300, unit = "s", source = "ecs: price and stock are looked at about every 5 minutes" },
  spot_protection = { value = 3600, unit = "s", source = "ecs: SpotDuration 1 protects the first hour" },
}

--- Seconds of one delay.
---@param name string
---@return number seconds
--- Example: `lag.value "node_boot"` is 40.
--- Raises a plain error for an unknown name: that is a bug of the caller.
function lag.value(name)
  local fact = lag.facts[name] or error("no delay is called '" .. tostring(name) .. "'", 2)
  return fact.value
end

--- All delays as `name -> seconds`, times `factor`, with some replaced. Tests use a small factor.
---@param factor? number default 1
---@param replace? table<string, number> seconds by name, taken as they are
---@return table<string, number>
--- Example: `lag.scaled(0.01, { node_boot = 2 }).node_join` is 0.27.
--- Raises for a factor below 0 and for an unknown name.
function lag.scaled(factor, replace)
  factor = factor or 1
  if factor < 0 then error("a factor of delays cannot be negative", 2) end
  local seconds = {}
  for name, fact in pairs(lag.facts) do seconds[name] = fact.value * factor end
  for name, value in pairs(replace or {}) do
    if not seconds[name] then error("no delay is called '" .. tostring(name) .. "'", 2) end
    seconds[name] = value
  end
  return seconds
end

local function bad(text, why)
  local errors = require "eirun.errors"
  errors.raise("invalid", ("--lag %s: %s"):format(text, why), { code = "usage",
    hint = "as in 0.1,hpa_sync=2: a factor for all, seconds by name" })
end

--- Reads what `--lag` says: a factor for all delays, and single ones in seconds.
---@param text string as in `0.1,hpa_sync=2`
---@return number|nil factor
---@return table<string, number> seconds by name
--- Example: `lag.parse "0.1,node_boot=2"` gives 0.1 and `{ node_boot = 2 }`.
--- Raises kind "invalid" for text that is neither, naming the nearest delay.
function lag.parse(text)
  local factor, seconds = nil, {}
  for part in text:gmatch "[^,]+" do
    local name, number = part:match "^%s*([%a_]+)=([%d.]+)%s*$"
    local value = tonumber(number or part)
    if not value or value < 0 then bad(text, ("'%s' is neither a factor nor name=seconds"):format(part)) end
    if not name then
      factor = value
    elseif lag.facts[name] then
      seconds[name] = value
    else
      bad(text, ("no delay is called '%s'%s"):format(name, require("eirun.spec").advice(name, lag.facts)))
    end
  end
  return factor, seconds
end

return lag
