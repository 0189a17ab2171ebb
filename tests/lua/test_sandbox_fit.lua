-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local fit = require "sandbox.cloud.fit"
local quantity = require "sandbox.cloud.quantity"

local function pod(resources, spec)
  local made = { metadata = { name = "p" }, spec = { containers = { { resources = resources } } } }
  for key, value in pairs(spec or {}) do made.spec[key] = value end
  return made
end

local function node(free, labels, taints)
  free.pods = free.pods or "110"
  return { labels = labels or {}, taints = taints or {}, free = quantity.map(free) }
end

t.test("quantities_are_read_in_thousandths", function()
  t.eq({ quantity.milli "100m", quantity.milli "1", quantity.milli "1.5", quantity.milli "2Gi", quantity.milli "1k", quantity.milli "1e3" },
    { 100, 1000, 1500, 2147483648000, 1000000, 1000000 })
  t.eq(quantity.milli(2), 2000)
  t.eq({ quantity.milli "x", quantity.milli "1Qi", quantity.milli {} }, {})
end)

t.test("limits_stand_in_for_requests_that_are_not_said", function()
  local asked = fit.requests(pod { limits = { ["nvidia.com/gpu"] = "1", cpu = "2" }, requests = { cpu = "500m" } })
  t.eq({ asked["nvidia.com/gpu"], asked.cpu }, { 1000, 500 })
end)

t.test("init_containers_count_by_the_largest", function()
  local made = pod({ requests = { cpu = "1" } }, { initContainers = { { resources = { requests = { cpu = "3" } } },
    { resources = { requests = { cpu = "2" } } } } })
  t.eq(fit.requests(made).cpu, 3000)
end)

t.test("a_gpu_pod_needs_a_gpu_node", function()
  local asked = pod { limits = { ["nvidia.com/gpu"] = "1" } }
  t.eq(fit.reason(asked, node { cpu = "4" }, fit.requests(asked)), "Insufficient nvidia.com/gpu")
  t.eq(fit.reason(asked, node { cpu = "4", ["nvidia.com/gpu"] = "1" }, fit.requests(asked)), nil)
end)

t.test("selector_and_taints_keep_pods_away", function()
  local wants = pod({}, { nodeSelector = { inference = "tensorflow" } })
  t.match(fit.reason(wants, node { cpu = "1" }, fit.requests(wants)), "affinity/selector")
  t.eq(fit.reason(wants, node({ cpu = "1" }, { inference = "tensorflow" }), fit.requests(wants)), nil)
  local taints = { { key = "spot", value = "true", effect = "NoSchedule" } }
  t.match(fit.reason(pod {}, node({}, {}, taints), {}), "untolerated taint")
  for _, toleration in ipairs { { key = "spot", operator = "Exists" }, { key = "spot", value = "true", effect = "NoSchedule" },
    { operator = "Exists" } } do
    t.eq(fit.reason(pod({}, { tolerations = { toleration } }), node({}, {}, taints), {}), nil)
  end
  t.match(fit.reason(pod({}, { tolerations = { { key = "spot", value = "no" } } }), node({}, {}, taints), {}), "taint")
end)

t.test("required_node_affinity_is_an_or_of_ands", function()
  local function wants(...)
    return pod({}, { affinity = { nodeAffinity = { requiredDuringSchedulingIgnoredDuringExecution = { nodeSelectorTerms = { ... } } } } })
  end
  local zone_h = { matchExpressions = { { key = "zone", operator = "In", values = { "h" } }, { key = "gpu", operator = "Exists" } } }
  local no_spot = { matchExpressions = { { key = "spot", operator = "DoesNotExist" } } }
  t.ok(fit.selects(wants(zone_h), { zone = "h", gpu = "1" }))
  t.ok(not fit.selects(wants(zone_h), { zone = "h" }))
  t.ok(fit.selects(wants(zone_h, no_spot), { zone = "i" }))
  t.ok(not fit.selects(wants { matchExpressions = { { key = "n", operator = "Gt", values = { "5" } } } }, { n = "5" }))
  t.ok(fit.selects(wants { matchExpressions = { { key = "n", operator = "Gt", values = { "5" } } } }, { n = "6" }))
end)

t.test("five_gpu_pods_need_five_nodes_of_one_gpu", function()
  local pods = {}
  for i = 1, 5 do pods[i] = pod { limits = { ["nvidia.com/gpu"] = "1" } } end
  local template = node { cpu = "4", ["nvidia.com/gpu"] = "1" }
  local nodes, placed = fit.estimate(pods, template, 10)
  t.eq({ #nodes, #placed }, { 5, 5 })
  nodes, placed = fit.estimate(pods, template, 3)
  t.eq({ #nodes, #placed }, { 3, 3 })
  t.eq(template.free["nvidia.com/gpu"], 1000)
end)

t.test("pods_that_never_fit_ask_for_nothing", function()
  local nodes, placed = fit.estimate({ pod { limits = { ["nvidia.com/gpu"] = "2" } } }, node { ["nvidia.com/gpu"] = "1" }, 10)
  t.eq({ #nodes, #placed }, { 0, 0 })
end)

t.test("utilization_of_a_gpu_node_is_its_gpus", function()
  local allocatable = quantity.map { cpu = "4", memory = "8Gi", ["nvidia.com/gpu"] = "2" }
  t.eq({ fit.utilization(allocatable, quantity.map { cpu = "4", ["nvidia.com/gpu"] = "1" }) }, { 0.5, true })
  t.eq({ fit.utilization(quantity.map { cpu = "4", memory = "8Gi" }, quantity.map { cpu = "1", memory = "6Gi" }) }, { 0.75, false })
end)
