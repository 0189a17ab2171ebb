-- SPDX-License-Identifier: Apache-2.0
-- Node pools, add-ons and kubeconfigs against the whole sandbox, in its own time: what the library does and what it refuses to do.
local t = require "eirun.test"
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local fs = require "eirun.core.fs"
local kube = require "eirun.kube"
local resource = require "eirun.resource"
local sandbox = require "eirun.sandbox"
local spot = require "eirun.spot"
local target = require "eirun.target"
local task = require "eirun.task"
local client = require "sandbox_client"

-- A cluster of a fresh sandbox, which is this run's target while `body(cluster, box)` runs.
local function with(options, body)
  options.lag_scale = 1
  local box <close> = client.start(options)
  local undo = target.use { sandbox = true, dir = box.dir, region = box.info.region, account = box.info.account, namespace = "default",
    cluster = box.info.cluster_id, ca_file = box.info.ca_file, endpoints = {},
    credentials = credentials.static { access_key_id = box.key.id, access_key_secret = box.key.secret } }
  local ok, err = pcall(body, ack.cluster(), box)
  undo()
  if not ok then error(err, 0) end
end

local function given(more)
  local made = { name = "gpu", instance_types = { "ecs.gn7i-c8g1.2xlarge" }, vswitch_ids = { "vsw-bp1eirunh", "vsw-bp1eiruni" } }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

local function modifications(since)
  local list = cloud.cs("DescribeClusterTasks", { ClusterId = ack.cluster().id }, { query = { page_size = 100 } }).tasks
  local n = 0
  for _, one in ipairs(list) do if one.task_type == "nodepool_update" then n = n + 1 end end
  return n - (since or 0)
end

t.test("what_is_not_named_stays_as_it_is", function()
  with({}, function(cluster)
    cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 }, labels = { a = "1" },
      spot = { on_demand_base = 1, on_demand_percent = 30, compensate = false, remedy = false } })
    local pool, outcome = cluster:ensure_node_pool { name = "gpu", instance_types = { "ecs.gn7i-c8g1.2xlarge" }, labels = { b = "2" } }
    t.eq(outcome, "updated")
    local scaling, group = pool.detail.auto_scaling, pool.detail.scaling_group
    t.eq({ scaling.enable, scaling.min_instances, scaling.max_instances }, { true, 1, 3 })
    t.eq({ group.spot_strategy, group.on_demand_base_capacity, group.on_demand_percentage_above_base_capacity,
      group.compensate_with_on_demand, group.spot_instance_remedy, #group.vswitch_ids }, { "SpotAsPriceGo", 1, 30, false, false, 2 })
    t.eq(#pool.detail.kubernetes_config.labels, 2)
    pool = cluster:ensure_node_pool(given { spot = { on_demand_percent = 50 } })
    group = pool.detail.scaling_group
    t.eq({ group.on_demand_base_capacity, group.on_demand_percentage_above_base_capacity, group.compensate_with_on_demand,
      group.spot_instance_remedy, pool.detail.auto_scaling.enable }, { 1, 50, false, false, true })
  end)
end)

t.test("scaling_goes_in_a_call_of_its_own_and_its_count_is_waited_for", function()
  with({}, function(cluster)
    cluster:ensure_node_pool(given { size = 1 })
    local before, began = modifications(), task.now()
    local pool = cluster:ensure_node_pool(given { autoscale = { min = 2, max = 4 }, tags = { team = "search" } })
    t.eq(modifications(before), 2)
    t.eq({ pool.detail.auto_scaling.enable, pool:status().healthy }, { true, 2 })
    t.ok(task.now() - began > 45, "the count was looked at for a while")
    t.eq(select(2, cluster:ensure_node_pool(given { autoscale = { min = 2, max = 4 }, tags = { team = "search" } })), "unchanged")
  end)
end)

t.test("a_fixed_size_does_not_switch_a_scaler_off", function()
  with({}, function(cluster)
    cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 } })
    t.match(t.err("conflict", function() cluster:ensure_node_pool(given { size = 2 }) end).message, "min = n, max = n")
    t.match(t.err("denied", function() cluster:ensure_node_pool(given { autoscale = { min = 0, max = 0 } }) end).message, "all 1 nodes")
    cluster:ensure_node_pool(given { autoscale = false })
    t.eq(cluster:node_pool("gpu"):status().healthy, 1)
    t.match(t.err("denied", function() cluster:ensure_node_pool(given { size = 0 }) end).message, "size = 0 would remove all 1 nodes")
  end)
end)

t.test("no_stock_is_quoted_and_other_types_and_zones_are_suggested", function()
  with({}, function(cluster)
    sandbox.fault { kind = "stock_out", type = "ecs.gn7i-c8g1.2xlarge", market = "spot" }
    local err = t.err("quota", function()
      cluster:ensure_node_pool(given { autoscale = { min = 2, max = 3 }, spot = { on_demand_percent = 0, compensate = false } })
    end)
    t.eq(err.code, "OperationDenied.NoStock")
    t.match(err.hint, "spot capacity now: ecs%.gn%w+%-%w+%.%w+ in cn%-hangzhou%-[hij]")
  end)
end)

-- Activities are dated by the minute: one that began while the pool was made belongs to it in whichever second that was.
t.test("no_stock_is_quoted_at_every_second_of_a_minute", function()
  with({}, function(cluster)
    sandbox.fault { kind = "stock_out", type = "ecs.gn7i-c8g1.2xlarge", market = "spot" }
    for second = 0, 59, 0.4 do
      task.sleep(60 - (task.now() - second) % 60)
      local err = t.err("quota", function()
        cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 }, spot = { on_demand_percent = 0, compensate = false } })
      end)
      t.eq(err.code, "OperationDenied.NoStock")
      t.eq(err.message:find("is not ready after", 1, true), nil, ("asked at second %.1f: %s"):format(second, err.message))
      cluster:node_pool("gpu"):delete()
    end
  end)
end)

t.test("full_vswitches_are_told_from_missing_stock", function()
  with({}, function(cluster)
    sandbox.fault { kind = "no_addresses" }
    local err = t.err("quota", function() cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 } }) end)
    t.eq(err.code, "InvalidVSwitchId.IpNotEnough")
    t.match(err.message, "free IP addresses")
  end)
end)

t.test("deleting_repairs_what_holds_the_pool", function()
  with({}, function(cluster)
    local pool = cluster:ensure_node_pool(given { autoscale = { min = 2, max = 3 } })
    sandbox.fault { kind = "protect", id = pool:instances()[1].id }
    sandbox.fault { kind = "delete_failed", service = "CS", action = "DeleteClusterNodepool" }
    t.eq(pool:delete(), "deleted")
    t.eq(cluster:node_pool "gpu", nil)
    t.eq(#cloud.rpc("ess", "DescribeScalingGroups", { ["ScalingGroupIds.1"] = pool.scaling_group_id }).ScalingGroups, 0)
    t.eq(sandbox.status().counts.instance, 2)
    t.eq(pool:delete(), "unchanged")
  end)
end)

t.test("a_reclaim_is_told_by_ecs_by_the_node_and_by_its_metadata_five_minutes_ahead", function()
  with({}, function(cluster)
    local pool = cluster:ensure_node_pool(given { autoscale = { min = 2, max = 3 }, spot = { on_demand_percent = 0, remedy = false } })
    local k8s, id = kube.connect(cluster), pool:instances()[1].id
    t.eq(spot.notices { pool = pool, k8s = k8s }, {})
    sandbox.fault { kind = "reclaim", id = id }
    task.sleep(5)
    local notices = spot.notices { pool = pool, k8s = k8s }
    t.eq({ #notices, notices[1].id, notices[1].sources }, { 1, id, { "ecs", "node" } })
    t.ok(math.abs(notices[1].by - task.now() - 300) < 30)
    task.sleep(400)
    t.eq(#pool:instances(), 2) -- the minimum is bought again
    t.eq(spot.notices { pool = pool, k8s = k8s }, {})
  end)
end)

t.test("a_guard_may_refuse_a_deletion", function()
  with({}, function(cluster)
    local pool = cluster:ensure_node_pool(given { size = 0 })
    local remove = resource.guard(function(plan) return plan.action ~= "delete", "nothing is deleted on Fridays" end)
    local err = t.err("denied", function() pool:delete() end)
    remove()
    t.match(err.message, "refused to delete node pool 'gpu': nothing is deleted on Fridays")
    t.eq(pool:delete(), "deleted")
  end)
end)

t.test("a_pool_in_a_failed_deletion_says_how_to_go_on", function()
  with({}, function(cluster)
    local pool = cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 } })
    sandbox.fault { kind = "delete_failed", service = "CS", action = "DeleteClusterNodepool" }
    cloud.cs("DeleteClusterNodepool", { ClusterId = cluster.id, NodepoolId = pool.id })
    task.sleep(60)
    local err = t.err("conflict", function() cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 } }) end)
    t.match(err.message, "state delete_failed")
    t.match(err.hint, "delete%(%)")
    t.eq(pool:delete(), "deleted")
  end)
end)

t.test("what_must_not_be_deleted_is_refused_before_any_write", function()
  with({}, function(cluster)
    local default = cluster:node_pool "default"
    t.match(t.err("denied", function() default:delete { adopt = true } end).message, "default pool")
    cloud.cs("CreateClusterNodePool", { ClusterId = cluster.id }, { body = { nodepool_info = { name = "theirs" },
      scaling_group = { instance_charge_type = "PostPaid", instance_types = { "ecs.g7.xlarge" }, vswitch_ids = { "vsw-bp1eirunh" } } } })
    t.match(t.err("conflict", function() cluster:node_pool("theirs"):delete() end).hint, "adopt = true")
    t.eq(cluster:node_pool("theirs"):delete { adopt = true }, "deleted")
  end)
end)

local function app(name, pool)
  return { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = name }, spec = { replicas = 1,
    selector = { matchLabels = { app = name } }, template = { metadata = { labels = { app = name } },
      spec = { nodeSelector = { pool = pool }, containers = { { name = "main", image = "nginx" } } } } } }
end

t.test("a_disruption_budget_that_would_block_is_named_before_anything_is_written", function()
  with({}, function(cluster)
    local pool = cluster:ensure_node_pool(given { autoscale = { min = 1, max = 3 }, labels = { pool = "gpu" } })
    local k8s = kube.connect(cluster)
    k8s:ensure(app("web", "gpu"))
    k8s:ensure { apiVersion = "policy/v1", kind = "PodDisruptionBudget", metadata = { name = "web" },
      spec = { minAvailable = 1, selector = { matchLabels = { app = "web" } } } }
    task.sleep(120)
    local before = modifications()
    local err = t.err("conflict", function() pool:delete { k8s = k8s } end)
    t.match(err.message, "PodDisruptionBudget 'default/web' allows no disruption and has 1 pods there")
    t.eq(modifications(before), 0)
    err = t.err("internal", function() pool:delete() end)
    t.match(err.message, "drain%-node job execute timeout; .*; its scaler is off and 1 nodes are left")
    t.match(err.hint, "force = true")
    t.eq(pool:delete { k8s = k8s, force = true }, "deleted")
  end)
end)

t.test("add_ons_are_installed_upgraded_and_configured", function()
  with({ addons = { "metrics-server", "ack-node-problem-detector" } }, function(cluster)
    local addon, outcome = cluster:ensure_addon { name = "arms-prometheus", config = { retention = 7 } }
    t.eq({ outcome, addon.state, addon.config.retention }, { "created", "active", 7 })
    t.eq(select(2, cluster:ensure_addon { name = "arms-prometheus", config = { retention = 7 } }), "unchanged")
    addon, outcome = cluster:ensure_addon { name = "arms-prometheus", config = { replicas = 2 } }
    t.eq({ outcome, addon.config.retention, addon.config.replicas }, { "updated", 7, 2 })
    addon, outcome = cluster:ensure_addon { name = "ack-node-problem-detector", version = "1.2.24" }
    t.eq({ outcome, addon.version, addon.state }, { "updated", "1.2.24", "active" })
    t.eq(select(2, cluster:ensure_addon { name = "ack-node-problem-detector" }), "unchanged")
    local err = t.err("not_found", function() cluster:ensure_addon { name = "metric-server" } end)
    t.match(err.hint, "did you mean 'metrics%-server'")
    t.err("invalid", function() cluster:ensure_addon { name = "ack-node-problem-detector", version = "9" } end)
  end)
end)

t.test("a_cluster_starts_with_its_declared_add_ons_and_no_log_without_a_collector", function()
  with({ addons = { "metrics-server" } }, function(cluster)
    local names = {}
    for _, one in ipairs(cloud.cs("ListClusterAddonInstances", { ClusterId = cluster.id }).addons) do names[#names + 1] = one.name end
    t.eq(names, { "coredns", "kube-proxy", "metrics-server", "terway-eniip" })
    local k8s = kube.connect(cluster)
    t.err("not_found", function() k8s:raw "/apis/external.metrics.k8s.io/v1beta1" end)
    cluster:ensure_addon { name = "ack-alibaba-cloud-metrics-adapter" }
    local labels = cluster:ingress_log("web", 80)
    local query = ("?labelSelector=sls.project%%3D%s%%2Csls.logstore%%3D%s"):format(labels["sls.project"], labels["sls.logstore"])
    local path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/sls_ingress_qps" .. query
    t.match(t.err("internal", function() k8s:raw(path) end).message, "ProjectNotExist")
    cluster:ensure_addon { name = "logtail-ds" }
    k8s:raw(path)
  end)
end)

-- What an HPA on an ingress metric says a minute after it was made.
local function verdict_of_hpa(cluster)
  local k8s, labels = kube.connect(cluster), cluster:ingress_log("web", 80)
  local web = app("web", nil)
  web.spec.template.spec.nodeSelector = nil
  web.spec.template.spec.containers[1].image = "registry.k8s.io/pause"
  k8s:ensure(web)
  local metric = { type = "External", external = { metric = { name = "sls_ingress_qps", selector = { matchLabels = labels } },
    target = { type = "AverageValue", averageValue = "10" } } }
  k8s:ensure { apiVersion = "autoscaling/v2", kind = "HorizontalPodAutoscaler", metadata = { name = "web" }, spec = { maxReplicas = 3,
    scaleTargetRef = { apiVersion = "apps/v1", kind = "Deployment", name = "web" }, metrics = { metric } } }
  task.sleep(120)
  for _, condition in ipairs(k8s:get("HorizontalPodAutoscaler", "web").status.conditions or {}) do
    if condition.type == "ScalingActive" then return condition end
  end
end

t.test("without_the_adapter_an_hpa_fails_as_on_ack", function()
  with({ addons = { "logtail-ds" } }, function(cluster)
    local condition = verdict_of_hpa(cluster)
    t.eq({ condition.status, condition.reason }, { "False", "FailedGetExternalMetric" })
    t.match(condition.message, "unable to fetch metrics from external metrics API: the server could not find the requested resource")
  end)
end)

t.test("without_the_log_project_an_hpa_fails_as_on_ack", function()
  with({ addons = { "ack-alibaba-cloud-metrics-adapter" } }, function(cluster)
    local condition = verdict_of_hpa(cluster)
    t.eq({ condition.status, condition.reason }, { "False", "FailedGetExternalMetric" })
    t.match(condition.message, "ProjectNotExist")
  end)
end)

t.test("a_kubeconfig_is_asked_again_before_it_ends_and_its_file_is_the_owners", function()
  with({}, function(cluster, box)
    local text, ends = cluster:kubeconfig { minutes = 60 }
    t.eq(ends - task.now() > 3500 and ends - task.now() <= 3600, true)
    task.sleep(2900)
    t.eq(select(2, cluster:kubeconfig { minutes = 60 }), ends)
    task.sleep(120) -- ten minutes are left
    local later, new_end = cluster:kubeconfig { minutes = 60 }
    t.ok(new_end > ends and later:find "server: https://" and text:find "server: https://")
    local path = box.dir .. "/mine"
    t.eq({ cluster:ensure_kubeconfig { path = path, minutes = 60 } }, { path, "created" })
    t.eq(fs.stat(path).mode & 511, 384)
    t.eq(select(2, cluster:ensure_kubeconfig { path = path, minutes = 60 }), "unchanged")
    t.eq(select(2, cluster:ensure_kubeconfig { path = path, minutes = 60, private = true }), "updated")
    task.sleep(3100)
    t.eq(select(2, cluster:ensure_kubeconfig { path = path, minutes = 60, private = true }), "updated")
    t.ok(#kube.connect { kubeconfig = path }:list "Node" >= 2)
  end)
end)

t.test("the_scaler_is_configured_once_and_changed_where_it_is_named", function()
  with({}, function(cluster)
    local pool = cluster:ensure_node_pool(given { autoscale = { min = 0, max = 2 } })
    local wanted = { scaler = "cluster-autoscaler", scan_interval = 30, expander = "priority", priorities = { [100] = { pool } } }
    t.eq(select(2, cluster:ensure_autoscaling(wanted)), "created")
    t.eq(select(2, cluster:ensure_autoscaling(wanted)), "unchanged")
    local config, outcome = cluster:ensure_autoscaling { scan_interval = 60 }
    t.eq({ outcome, config.expander, config.priorities["100"][1] }, { "updated", "priority", pool.scaling_group_id })
    t.eq(select(2, cluster:ensure_autoscaling { scaler = "goatscaler" }), "updated")
    t.eq(select(2, cluster:ensure_autoscaling { scaler = "goatscaler" }), "unchanged")
  end)
end)

t.test("a_missing_service_role_is_named", function()
  with({}, function(cluster)
    cloud.rpc("ram", "DeleteRole", { RoleName = "AliyunCSManagedAutoScalerRole" })
    local err = t.err("denied", function() cluster:ensure_autoscaling {} end)
    t.match(err.code, "AliyunCSManagedAutoScalerRole")
  end)
end)

t.test("a_clock_that_is_off_is_learned_from_the_answer", function()
  with({}, function(cluster)
    sandbox.fault { kind = "clock_skew", seconds = 7200 }
    t.eq(cluster:describe().state, "running")
    sandbox.fault { kind = "clock_skew", seconds = 0 }
    t.ok(cluster:node_pool "default")
  end)
end)
