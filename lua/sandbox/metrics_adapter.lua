-- SPDX-License-Identifier: Apache-2.0
-- external.metrics.k8s.io as alibaba-cloud-metrics-adapter 0.2.9 serves it from the ingress log, with its
-- habits: whole numbers twice, a window that ends some seconds ago, an empty list where there is no row.
local json = require "eirun.core.json"
local encoding = require "sandbox.encoding"
local times = require "sandbox.times"

local adapter = {}

local group = "/apis/external.metrics.k8s.io"
local look_back = 100 -- seconds: `from` is fixed at now - 100

local selects = {
  sls_ingress_qps = "count(1) / %d",
  sls_alb_ingress_qps = "count(1) / %d",
  sls_ingress_latency_avg = "avg(request_time) * 1000",
  sls_ingress_latency_p50 = "approx_percentile(request_time, 0.50) * 1000",
  sls_ingress_latency_p95 = "approx_percentile(request_time, 0.95) * 1000",
  sls_ingress_latency_p99 = "approx_percentile(request_time, 0.99) * 1000",
  sls_ingress_latency_p9999 = "approx_percentile(request_time, 0.9999) * 1000",
  sls_ingress_inflow = "sum(request_length) / %d",
}

local function status(code, reason, message)
  return code, { kind = "Status", apiVersion = "v1", metadata = {}, status = "Failure", message = message, reason = reason, code = code }
end

local function internal(message) return status(500, "InternalError", "Internal error occurred: " .. message) end

-- "a=b,c==d" -> map; anything but equality is not understood by the adapter.
local function selector(text)
  local labels = {}
  for part in (text or ""):gmatch "[^,]+" do
    local key, value = part:match "^%s*([%w%./_%-]+)%s*==?%s*([%w%._%-]*)%s*$"
    if not key then return nil, "unable to parse requirement: " .. part end
    labels[key] = value
  end
  return labels
end

local function number_label(labels, name, default)
  local value = math.tointeger(tonumber(labels[name] or ""))
  return value or default
end

-- The query text of one evaluation, word for word the adapter's (the double blank included).
function adapter.query(metric, labels, now)
  local interval = math.max(15, number_label(labels, "sls.query.interval", 15))
  local delay = number_label(labels, "sls.query.delay", 10)
  local field = metric == "sls_alb_ingress_qps" and "slb_pool_name" or "proxy_upstream_name"
  local item = selects[metric]:find("%d", 1, true) and selects[metric]:format(interval) or selects[metric]
  return ("* and %s: %s | SELECT %s as value from log WHERE __time__ >= %d  and __time__ < %d"):format(field,
    labels["sls.ingress.route"] or "*", item, now - delay - interval, now - delay), now - look_back, now - delay
end

-- The value's text is filtered to digits and dots, then cut to a whole number.
function adapter.value(text)
  return math.floor(tonumber((text:gsub("[^%d%.]", ""))) or 0)
end

local function item(ctx, metric, value)
  return { metricName = metric, metricLabels = json.null, timestamp = times.iso(ctx.now()), value = tostring(value) }
end

local function evaluate(ctx, metric, labels)
  local sls = require "sandbox.sls"
  local text, from, to = adapter.query(metric, labels, math.floor(ctx.now()))
  local result = sls.get_logs(ctx, labels["sls.project"], labels["sls.logstore"], { from = from, to = to, query = text, line = 100,
    offset = 0 })
  local items = json.array {}
  if result.rows[1] then items[1] = item(ctx, metric, adapter.value(result.rows[1].value)) end
  return items
end

local function resource_list()
  local resources = json.array {}
  for name in pairs(selects) do
    resources[#resources + 1] = { name = name, singularName = "", namespaced = true, kind = "ExternalMetricValueList",
      verbs = json.array { "get" } }
  end
  table.sort(resources, function(a, b) return a.name < b.name end)
  return { kind = "APIResourceList", apiVersion = "v1", groupVersion = "external.metrics.k8s.io/v1beta1", resources = resources }
end

local function api_group()
  local version = { groupVersion = "external.metrics.k8s.io/v1beta1", version = "v1beta1" }
  return { kind = "APIGroup", apiVersion = "v1", name = "external.metrics.k8s.io", versions = json.array { version },
    preferredVersion = version }
end

local function metric_values(ctx, metric, selector_text)
  if not selects[metric] then
    return status(404, "NotFound", ("the server could not find the metric %s for external metrics"):format(metric))
  end
  local labels, why = selector(selector_text)
  if not labels then return status(400, "BadRequest", why) end
  for _, name in ipairs { "sls.project", "sls.logstore" } do
    if (labels[name] or "") == "" then return internal(("unable to fetch metric %s: %s must be provided"):format(metric, name)) end
  end
  local ok, items = pcall(evaluate, ctx, metric, labels)
  if ok then
    return 200, { kind = "ExternalMetricValueList", apiVersion = "external.metrics.k8s.io/v1beta1", metadata = {}, items = items }
  end
  if type(items) ~= "table" or not items.code then error(items, 0) end
  return internal(("%s: %s"):format(items.code, items.message))
end

-- path and query of an external.metrics.k8s.io request -> status, object. The API server calls it after its own checks.
function adapter.answer(ctx, path, query)
  if not ctx.addon_active "ack-alibaba-cloud-metrics-adapter" then
    return status(404, "NotFound", "the server could not find the requested resource")
  end
  if path == group then return 200, api_group() end
  if path == group .. "/v1beta1" then return 200, resource_list() end
  local metric = path:match("^" .. group:gsub("[%.%-]", "%%%0") .. "/v1beta1/namespaces/[^/]+/([^/]+)$")
  if not metric then return status(404, "NotFound", "the server could not find the requested resource") end
  return metric_values(ctx, encoding.decode(metric), query.labelSelector)
end

function adapter.start(ctx)
  -- Answers a request under /apis/external.metrics.k8s.io by itself.
  function ctx.external_metrics(req)
    local code, object = adapter.answer(ctx, req.path, encoding.map_of(encoding.pairs_of(req.query_string, true)))
    req:respond(code, { ["Content-Type"] = "application/json" }, assert(json.encode(object)))
  end
end

return adapter
