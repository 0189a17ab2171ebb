-- SPDX-License-Identifier: Apache-2.0
-- Controllers and scheduler of the sandbox's control plane, event by event on a clock of its own.
local t = require "eirun.test"
local json = require "eirun.core.json"
local lib = require "lib_kube"
local rollout = require "sandbox.kube.rollout"

local DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
local PODS = "/api/v1/namespaces/default/pods"
local GPU = { limits = { ["nvidia.com/gpu"] = "1" } }

local function pods(plane)
  return plane:ok("GET", PODS).items
end

local function condition(obj, type)
  for _, c in ipairs(obj.status.conditions or {}) do
    if c.type == type then return c end
  end
end

local function pods_of(plane, app)
  return plane:ok("GET", PODS .. "?labelSelector=app%3D" .. app).items
end

local function deploy(plane, name, replicas, more)
  plane:ok("POST", DEPLOYMENTS, lib.deployment(name, replicas, more))
  plane:becomes(replicas, function() return #pods_of(plane, name) end)
  plane:settle()
end

-- The scheduler's last word on a pod that found no node.
local function refusal(pod)
  local c = condition(pod, "PodScheduled")
  return c and c.message or ""
end

t.test("a_deployment_becomes_pods_that_run_and_are_counted", function()
  local plane = lib.new()
  plane:node("n1")
  deploy(plane, "web", 2)
  t.eq(#pods(plane), 2)
  plane:run_all "default"
  plane:becomes({ 2, 2, 2, 2 }, function()
    local s = plane:ok("GET", DEPLOYMENTS .. "/web").status
    return { s.replicas, s.updatedReplicas, s.readyReplicas, s.availableReplicas, s.unavailableReplicas }
  end)
  local d = plane:ok("GET", DEPLOYMENTS .. "/web")
  t.eq(condition(d, "Progressing").reason, "NewReplicaSetAvailable")
  t.eq(condition(d, "Available").reason, "MinimumReplicasAvailable")
  t.eq({ d.metadata.generation, d.status.observedGeneration }, { 1, 1 })
  t.eq(d.metadata.annotations["deployment.kubernetes.io/revision"], "1")
end)

-- Nobody renews leases here.
local PATIENT = { lag = { node_lease = 1e6 } }

t.test("a_new_template_rolls_over_without_losing_capacity", function()
  local plane = lib.new(PATIENT)
  plane:node("n1")
  deploy(plane, "web", 4)
  plane:run_all "default"
  local function status() return plane:ok("GET", DEPLOYMENTS .. "/web").status end
  plane:becomes(4, function() return status().availableReplicas end)
  plane:patch("strategic", DEPLOYMENTS .. "/web", { spec = { template = { spec = { containers = { { name = "c", image = "img:2" } } } } } })
  for _ = 1, 40 do
    plane:settle()
    if status().updatedReplicas == 4 and #pods(plane) == 4 then break end
    local ready = 0
    for _, pod in ipairs(pods(plane)) do
      local c = condition(pod, "Ready")
      if c and c.status == "True" and not pod.metadata.deletionTimestamp then ready = ready + 1 end
      if pod.metadata.deletionTimestamp then plane:ok("DELETE", PODS .. "/" .. pod.metadata.name, { gracePeriodSeconds = 0 }) end
    end
    t.ok(ready >= 3, "25 % of 4 may be missing, not more")
    plane:run_all "default"
  end
  plane:run_all "default"
  plane:becomes({ 4, 4, 4 }, function() return { status().updatedReplicas, status().availableReplicas, #pods(plane) } end)
  local d = plane:ok("GET", DEPLOYMENTS .. "/web")
  t.eq(d.metadata.annotations["deployment.kubernetes.io/revision"], "2")
end)

t.test("rolling_update_arithmetic", function()
  local spec = { replicas = 10, strategy = { type = "RollingUpdate", rollingUpdate = { maxSurge = "25%", maxUnavailable = "25%" } } }
  t.eq({ rollout.limits(spec) }, { 3, 2 })
  t.eq(rollout.new_size(spec, 10, 0), 3)
  t.eq(rollout.old_sizes(spec, { { replicas = 10, available = 10 } }, { replicas = 3, available = 0 }), { 8 })
  t.eq(rollout.old_sizes(spec, { { replicas = 10, available = 4 } }, { replicas = 0, available = 0 }), { 8 })
  spec.strategy.rollingUpdate = { maxSurge = 0, maxUnavailable = 0 }
  t.eq({ rollout.limits(spec) }, { 0, 1 })
end)

t.test("a_rollout_that_stands_still_times_out", function()
  local plane = lib.new()
  local d = lib.deployment("web", 1)
  d.spec.progressDeadlineSeconds = 15
  plane:ok("POST", DEPLOYMENTS, d)
  local function progressing() return condition(plane:ok("GET", DEPLOYMENTS .. "/web"), "Progressing") or {} end
  plane:becomes("True", function() return progressing().status end)
  plane:becomes({ "False", "ProgressDeadlineExceeded" }, function()
    local c = progressing()
    return { c.status, c.reason }
  end)
  local set = plane:ok("GET", "/apis/apps/v1/namespaces/default/replicasets").items[1]
  local c = progressing()
  t.ok(lib.seconds(c.lastTransitionTime) - lib.seconds(set.metadata.creationTimestamp) >= 14, "not before its time")
end)

t.test("the_scheduler_says_why_no_node_fits", function()
  local plane = lib.new()
  deploy(plane, "web", 1, { resources = GPU, nodeSelector = { inference = "tensorflow" } })
  plane:becomes({ "no nodes available to schedule pods" }, function() return plane:events "FailedScheduling" end)
  plane:node("plain")
  plane:node("a", { labels = { inference = "tensorflow" } })
  plane:node("b", { labels = { inference = "tensorflow" } })
  plane:becomes("0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 2 Insufficient nvidia.com/gpu. "
    .. "no new claims to deallocate, preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
    function() return refusal(pods(plane)[1]) end)
  plane:node("gpu", { labels = { inference = "tensorflow" }, gpu = 1 })
  t.eq(plane:until_(function() return pods(plane)[1].spec.nodeName end), "gpu")
end)

t.test("a_gpu_is_given_once_and_again_when_it_is_free", function()
  local plane = lib.new()
  plane:node("gpu", { gpu = 1 })
  deploy(plane, "web", 2, { resources = GPU })
  local placed, waiting
  t.ok(plane:until_(function()
    placed, waiting = nil, nil
    for _, pod in ipairs(pods(plane)) do
      if pod.spec.nodeName then placed = pod elseif refusal(pod) ~= "" then waiting = pod end
    end
    return placed and waiting
  end), "one of two finds the GPU")
  plane:ok("DELETE", PODS .. "/" .. placed.metadata.name, { gracePeriodSeconds = 0 })
  -- Its successor may be quicker than the one that waits.
  plane:becomes("gpu", function()
    local other = pods(plane)
    return other[1].spec.nodeName or other[2] and other[2].spec.nodeName
  end)
end)

t.test("taints_keep_pods_away_that_do_not_tolerate_them", function()
  local plane = lib.new()
  plane:node("spot", { taints = json.array { { key = "spot", value = "true", effect = "NoSchedule" } } })
  deploy(plane, "web", 1)
  t.ok(plane:until_(function() return refusal(pods(plane)[1]):find "1 node%(s%) had untolerated taint%(s%)" end), "the taint is named")
  deploy(plane, "ok", 1, { tolerations = json.array { { key = "spot", operator = "Exists" } } })
  plane:becomes("spot", function() return pods_of(plane, "ok")[1].spec.nodeName end)
  t.eq(pods_of(plane, "web")[1].spec.nodeName, nil)
end)

t.test("replicas_spread_over_zones", function()
  local plane = lib.new()
  for i, zone in ipairs { "h", "h", "i", "j" } do
    plane:node("n" .. i, { labels = { ["topology.kubernetes.io/zone"] = zone } })
  end
  deploy(plane, "web", 3)
  plane:becomes({ h = true, i = true, j = true }, function()
    local zones = {}
    for _, pod in ipairs(pods(plane)) do
      local node = plane:ok("GET", "/api/v1/nodes/" .. (pod.spec.nodeName or "n1"))
      zones[node.metadata.labels["topology.kubernetes.io/zone"]] = true
    end
    return zones
  end)
end)

local function volume(name, size, more)
  more = more or {}
  return { metadata = { name = name, labels = { ["alicloud-pvname"] = name } }, spec = { capacity = { storage = size },
    accessModes = json.array { more.mode or "ReadOnlyMany" }, storageClassName = more.class,
    csi = { driver = "ossplugin.csi.alibabacloud.com", volumeHandle = name } } }
end

local function claim(name, size, more)
  more = more or {}
  return { metadata = { name = name }, spec = { accessModes = json.array { "ReadOnlyMany" }, storageClassName = more.class or "",
    resources = { requests = { storage = size } }, volumeName = more.volume,
    selector = more.selects and { matchLabels = { ["alicloud-pvname"] = more.selects } } } }
end

local CLAIMS, VOLUMES = "/api/v1/namespaces/default/persistentvolumeclaims", "/api/v1/persistentvolumes"

local function phases(plane, name, volume_name)
  return function()
    local pv = plane:ok("GET", VOLUMES .. "/" .. volume_name)
    return { plane:ok("GET", CLAIMS .. "/" .. name).status.phase, pv.status.phase }
  end
end

local function add_volume(plane, pv)
  plane:ok("POST", VOLUMES, pv)
  plane:becomes("Available", function() return plane:ok("GET", VOLUMES .. "/" .. pv.metadata.name).status.phase end)
end

t.test("a_claim_is_bound_to_the_smallest_volume_that_fits", function()
  local plane = lib.new()
  for _, pv in ipairs { volume("big", "50Gi"), volume("small", "5Gi"), volume("right", "20Gi"),
    volume("other", "20Gi", { class = "x" }), volume("rwo", "20Gi", { mode = "ReadWriteOnce" }) } do
    add_volume(plane, pv)
  end
  plane:ok("POST", CLAIMS, claim("c", "10Gi"))
  plane:becomes({ "Bound", "Bound" }, phases(plane, "c", "right"))
  local pvc = plane:ok("GET", CLAIMS .. "/c")
  t.eq({ pvc.status.phase, pvc.spec.volumeName, pvc.status.capacity.storage }, { "Bound", "right", "20Gi" })
  local pv = plane:ok("GET", "/api/v1/persistentvolumes/right")
  t.eq({ pv.status.phase, pv.spec.claimRef.name, pv.spec.claimRef.uid }, { "Bound", "c", pvc.metadata.uid })
end)

t.test("a_claim_waits_for_the_volume_that_its_selector_names", function()
  local plane = lib.new()
  add_volume(plane, volume("a", "20Gi"))
  plane:ok("POST", CLAIMS, claim("c", "10Gi", { selects = "b" }))
  plane:becomes({ "no persistent volumes available for this claim and no storage class is set" },
    function() return plane:events "FailedBinding" end)
  t.eq(plane:ok("GET", CLAIMS .. "/c").status.phase, "Pending")
  plane:ok("POST", VOLUMES, volume("b", "20Gi"))
  plane:becomes("b", function() return plane:ok("GET", CLAIMS .. "/c").spec.volumeName end)
end)

t.test("a_named_volume_that_does_not_fit_is_told", function()
  local plane = lib.new()
  add_volume(plane, volume("a", "5Gi"))
  plane:ok("POST", CLAIMS, claim("c", "10Gi", { volume = "a" }))
  plane:becomes({ 'Cannot bind to requested volume "a": requested PV is too small' }, function() return plane:events "VolumeMismatch" end)
end)

t.test("volumes_are_protected_and_released_in_order", function()
  local plane = lib.new()
  add_volume(plane, volume("a", "20Gi"))
  plane:ok("POST", CLAIMS, claim("c", "10Gi"))
  plane:becomes({ "Bound", "Bound" }, phases(plane, "c", "a"))
  plane:ok("DELETE", VOLUMES .. "/a")
  plane:settle()
  t.ok(plane:ok("GET", VOLUMES .. "/a").metadata.deletionTimestamp, "a bound volume stays")
  plane:ok("DELETE", CLAIMS .. "/c")
  plane:becomes({ 404, 404 }, function() return { (plane:call("GET", CLAIMS .. "/c")), (plane:call("GET", VOLUMES .. "/a")) } end)
end)

t.test("a_pod_with_an_unbound_claim_is_not_scheduled", function()
  local plane = lib.new()
  plane:node("n1")
  plane:ok("POST", CLAIMS, claim("c", "10Gi"))
  plane:ok("POST", PODS, { metadata = { name = "p" }, spec = { containers = json.array { { name = "c", image = "i" } },
    volumes = json.array { { name = "v", persistentVolumeClaim = { claimName = "c" } } } } })
  t.ok(plane:until_(function()
    return refusal(pods(plane)[1]):find "^0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims%."
  end), "the claim is named")
  plane:ok("POST", VOLUMES, volume("a", "20Gi"))
  plane:becomes("n1", function() return pods(plane)[1].spec.nodeName end)
end)

t.test("dependents_go_with_their_owner", function()
  local plane = lib.new()
  deploy(plane, "web", 2)
  plane:ok("DELETE", DEPLOYMENTS .. "/web", { propagationPolicy = "Background" })
  plane:becomes({ 0, 0 }, function() return { #pods(plane), #plane:ok("GET", "/apis/apps/v1/namespaces/default/replicasets").items } end)
end)

t.test("orphans_stay_without_owner", function()
  local plane = lib.new()
  deploy(plane, "web", 1)
  plane:ok("DELETE", DEPLOYMENTS .. "/web", { propagationPolicy = "Orphan" })
  plane:becomes({ 1, nil, 1 }, function()
    local sets = plane:ok("GET", "/apis/apps/v1/namespaces/default/replicasets").items
    return { #sets, sets[1].metadata.ownerReferences, #pods(plane) }
  end)
end)

t.test("foreground_deletion_keeps_the_owner_until_the_last_pod_is_gone", function()
  local plane = lib.new()
  plane:node("n1")
  deploy(plane, "web", 1)
  plane:run_all "default"
  plane:ok("DELETE", DEPLOYMENTS .. "/web", { propagationPolicy = "Foreground" })
  plane:settle()
  t.ok(plane:ok("GET", DEPLOYMENTS .. "/web").metadata.deletionTimestamp)
  plane:ok("DELETE", PODS .. "/" .. pods(plane)[1].metadata.name, { gracePeriodSeconds = 0 })
  plane:becomes(404, function() return (plane:call("GET", DEPLOYMENTS .. "/web")) end)
end)

t.test("a_namespace_is_emptied_before_it_goes", function()
  local plane = lib.new()
  -- One of a test before this may still be going.
  t.ok(plane:until_(function() return plane:call("POST", "/api/v1/namespaces", { metadata = { name = "x" } }) == 201 end))
  plane:becomes(200, function() return (plane:call("GET", "/api/v1/namespaces/x/serviceaccounts/default")) end)
  plane:ok("POST", "/api/v1/namespaces/x/configmaps", { metadata = { name = "held", finalizers = json.array { "a.b/c" } } })
  plane:ok("DELETE", "/api/v1/namespaces/x")
  plane:settle()
  t.eq(plane:ok("GET", "/api/v1/namespaces/x").status.phase, "Terminating")
  local status, body = plane:call("POST", "/api/v1/namespaces/x/configmaps", { metadata = { name = "zz" } })
  t.eq({ status, body.message }, { 403,
    'configmaps "zz" is forbidden: unable to create new content in namespace x because it is being terminated' })
  t.eq(body.details.causes[1].reason, "NamespaceTerminating")
  plane:patch("merge", "/api/v1/namespaces/x/configmaps/held", { metadata = { finalizers = json.null } })
  t.ok(plane:until_(function() return plane:call("GET", "/api/v1/namespaces/x") == 404 end), "the namespace goes")
end)

local LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"

local function renew(plane, name)
  local status, lease = plane:call("GET", LEASES .. "/" .. name)
  local at = ("%s.%06dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", math.floor(plane:now())), plane:version() % 1000000)
  if status == 404 then
    plane:ok("POST", LEASES, { metadata = { name = name }, spec = { holderIdentity = name, renewTime = at } })
  else
    lease.spec.renewTime = at
    plane:ok("PUT", LEASES .. "/" .. name, lease)
  end
end

t.test("a_silent_node_is_tainted_and_its_pods_leave_after_their_tolerance", function()
  local plane = lib.new { lag = { node_lease = 16 } }
  plane:node("n1")
  -- Where every node is silent nobody is evicted: one goes on.
  plane:node("other", { taints = json.array { { key = "own", effect = "NoSchedule" } } })
  local function renewed(...)
    for _, name in ipairs { ... } do renew(plane, name) end
  end
  renewed("n1", "other")
  deploy(plane, "web", 1, { tolerations = json.array { { key = "node.kubernetes.io/unreachable", operator = "Exists", effect = "NoExecute",
    tolerationSeconds = 6 } } })
  renewed("n1", "other")
  plane:run_all "default"
  for _ = 1, 6 do
    renewed("n1", "other")
    plane:advance(4)
  end
  local function node() return plane:ok("GET", "/api/v1/nodes/n1") end
  t.eq(condition(node(), "Ready").status, "True")
  -- Two workers of the real controller add one each.
  local function unreachable(effect)
    for _, taint in ipairs(node().spec.taints or {}) do
      if taint.key == "node.kubernetes.io/unreachable" and taint.effect == effect then return taint end
    end
  end
  plane:becomes({ "Unknown", true, true, "False" }, function()
    renewed "other"
    return { condition(node(), "Ready").status, unreachable "NoSchedule" ~= nil, unreachable "NoExecute" ~= nil,
      (condition(pods(plane)[1], "Ready") or {}).status }
  end)
  local going
  plane:becomes(2, function()
    renewed "other"
    for _, pod in ipairs(pods(plane)) do going = pod.metadata.deletionTimestamp and pod or going end
    return #pods(plane)
  end)
  local left = lib.seconds(going.metadata.deletionTimestamp) - going.metadata.deletionGracePeriodSeconds
  t.ok(left - lib.seconds(unreachable("NoExecute").timeAdded) >= 5, "not before its tolerance ends")
  plane:becomes(1, function() return #plane:events "TaintManagerEviction" end)
end)

t.test("pods_of_a_node_that_is_gone_are_removed", function()
  local plane = lib.new()
  plane:node("n1")
  deploy(plane, "web", 1)
  plane:run_all "default"
  plane:ok("DELETE", "/api/v1/nodes/n1")
  plane:becomes({ 1, nil }, function() return { #pods(plane), pods(plane)[1].spec.nodeName } end)
end)

t.test("a_node_loses_the_taint_that_it_was_born_with_unless_it_says_that_it_is_not_ready", function()
  local plane = lib.new()
  local born = plane:ok("POST", "/api/v1/nodes", { metadata = { name = "n" } })
  t.eq(born.spec.taints, { { key = "node.kubernetes.io/not-ready", effect = "NoSchedule" } })
  t.ok(plane:until_(function() return plane:ok("GET", "/api/v1/nodes/n").spec.taints == nil end), "the taint goes")
  local no = json.array { { type = "Ready", status = "False", reason = "KubeletNotReady" } }
  plane:ok("POST", "/api/v1/nodes", { metadata = { name = "no" }, status = { conditions = no } })
  local taint = plane:until_(function() return (plane:ok("GET", "/api/v1/nodes/no").spec.taints or {})[1] end)
  t.eq({ taint.key, taint.effect }, { "node.kubernetes.io/not-ready", "NoSchedule" })
end)

t.test("endpoints_follow_ready_pods", function()
  local plane = lib.new()
  plane:node("n1")
  plane:ok("POST", "/api/v1/namespaces/default/services", { metadata = { name = "web" },
    spec = { selector = { app = "web" }, ports = json.array { { port = 80, targetPort = 8501 } } } })
  deploy(plane, "web", 1)
  plane:run_all "default"
  plane:becomes({ 1, 8501, { "10.0.0.1" }, true }, function()
    local slices = plane:ok("GET",
      "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dweb")
    local slice = slices.items[1]
    return { #slices.items, slice.ports[1].port, slice.endpoints[1].addresses, slice.endpoints[1].conditions.ready }
  end)
end)

t.test("an_eviction_asks_the_budget", function()
  local plane = lib.new()
  plane:node("n1")
  deploy(plane, "web", 1)
  plane:run_all "default"
  plane:ok("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", { metadata = { name = "pd3" },
    spec = { minAvailable = 1, selector = { matchLabels = { app = "web" } } } })
  plane:becomes({ 1, 1 }, function()
    local status = plane:ok("GET", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/pd3").status
    return { status.observedGeneration, status.currentHealthy }
  end)
  local name = pods(plane)[1].metadata.name
  local status, body = plane:call("POST", PODS .. "/" .. name .. "/eviction",
    { apiVersion = "policy/v1", kind = "Eviction", metadata = { name = name } })
  t.eq(status, 429)
  t.eq(body, json.decode [[{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":
    "Cannot evict pod as it would violate the pod's disruption budget.","reason":"TooManyRequests","details":{"causes":[{"reason":
    "DisruptionBudget","message":"The disruption budget pd3 needs 1 healthy pods and has 1 currently"}]},"code":429}]])
  plane:patch("merge", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/pd3", { spec = { minAvailable = 0 } })
  t.ok(plane:until_(function() return plane:call("POST", PODS .. "/" .. name .. "/eviction", { metadata = { name = name } }) == 201 end))
end)

-- An external metric that answers what the test says; nil is an empty list.
local function metric_source(source)
  return function(req)
    source.asked = req.query_string
    local items = json.array {}
    if source.value then items[1] = { metricName = "q", timestamp = "2026-01-05T08:00:00Z", value = source.value } end
    req:respond(200, { ["Content-Type"] = "application/json" },
      json.encode { kind = "ExternalMetricValueList", metadata = json.decode "{}", items = items })
  end
end

local HPAS = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers"

local function autoscaler(max)
  return { metadata = { name = "h" }, spec = { scaleTargetRef = { apiVersion = "apps/v1", kind = "Deployment", name = "web" },
    minReplicas = 1, maxReplicas = max, metrics = json.array { { type = "External", external = { metric = { name = "sls_ingress_qps",
      selector = { matchLabels = { ["sls.project"] = "p", ["sls.ingress.route"] = "default-web-8501" } } },
      target = { type = "AverageValue", averageValue = "10" } } } } } }
end

local QUICK = { lag = { hpa_sync = 2, hpa_downscale_window = 14 } }

t.test("an_autoscaler_follows_its_external_metric", function()
  local source = { value = "45" }
  lib.with_metrics(metric_source(source), QUICK, function(plane)
    local function replicas() return plane:ok("GET", DEPLOYMENTS .. "/web").spec.replicas end
    deploy(plane, "web", 1)
    plane:ok("POST", HPAS, autoscaler(10))
    t.eq(replicas(), 1, "nothing before the first round")
    plane:becomes(5, replicas)
    plane:becomes({ 5, "11250m" }, function()
      local status = plane:ok("GET", HPAS .. "/h").status
      local current = (status.currentMetrics or {})[1]
      return { status.desiredReplicas, current and current.external.current.averageValue }
    end)
    local hpa = plane:ok("GET", HPAS .. "/h")
    t.eq(source.asked, "labelSelector=sls.ingress.route%3Ddefault-web-8501%2Csls.project%3Dp")
    t.eq({ condition(hpa, "ScalingActive").reason, condition(hpa, "AbleToScale").reason, condition(hpa, "ScalingLimited").reason },
      { "ValidMetricFound", "SucceededRescale", "DesiredWithinRange" })
    plane:becomes({ "New size: 4", "New size: 5" }, function()
      local sizes = {}
      for i, text in ipairs(plane:events "SuccessfulRescale") do
        sizes[i] = text:match "^(New size: %d); reason: external metric sls_ingress_qps%(&LabelSelector{.*}%) above target$"
      end
      table.sort(sizes)
      return sizes
    end)
    source.value = "0"
    local from = plane:now()
    plane:becomes(1, replicas)
    t.ok(plane:now() - from >= 10, "not before its window ends")
  end)
end)

t.test("a_lost_metric_keeps_the_size_and_says_so", function()
  lib.with_metrics(metric_source {}, QUICK, function(plane)
    deploy(plane, "web", 3)
    plane:ok("POST", HPAS, autoscaler(10))
    plane:becomes({ "unable to get external metric default/sls_ingress_qps/&LabelSelector{MatchLabels:"
      .. "map[string]string{sls.ingress.route: default-web-8501,sls.project: p,},MatchExpressions:[]LabelSelectorRequirement{},}: "
      .. "no metrics returned from external metrics API" }, function() return plane:events "FailedGetExternalMetric" end)
    plane:becomes("FailedGetExternalMetric", function()
      return (condition(plane:ok("GET", HPAS .. "/h"), "ScalingActive") or {}).reason
    end)
    t.eq(plane:ok("GET", DEPLOYMENTS .. "/web").spec.replicas, 3)
  end)
end)

t.test("the_controllers_never_fail_on_their_own", function()
  local plane = lib.new { external_metrics = metric_source { value = "30" } }
  local problems = plane.problems
  plane:node("n1")
  deploy(plane, "web", 2)
  plane:ok("POST", HPAS, autoscaler(3))
  plane:advance(600)
  t.eq(problems, {})
end)

t.test("the_metrics_adapter_shows_as_an_api_service", function()
  lib.with_metrics(metric_source { value = "1" }, {}, function(plane)
    plane:becomes(200, function() return (plane:call("GET", "/apis/external.metrics.k8s.io")) end)
    t.eq(plane:ok("GET", "/apis/external.metrics.k8s.io").name, "external.metrics.k8s.io")
    local service = plane:ok("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1beta1.external.metrics.k8s.io")
    t.eq(condition(service, "Available").status, "True")
  end)
  local without = lib.new()
  without:becomes(404, function()
    return (without:call("GET", "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/x"))
  end)
end)

t.test("orphans_are_adopted_by_who_selects_them", function()
  local plane = lib.new()
  deploy(plane, "web", 2)
  local before = {}
  for i, pod in ipairs(pods(plane)) do before[i] = pod.metadata.uid end
  plane:ok("DELETE", DEPLOYMENTS .. "/web", { propagationPolicy = "Orphan" })
  plane:becomes(404, function() return (plane:call("GET", DEPLOYMENTS .. "/web")) end)
  deploy(plane, "web", 2)
  plane:becomes({ 1, "web" }, function()
    local sets = plane:ok("GET", "/apis/apps/v1/namespaces/default/replicasets").items
    return { #sets, ((sets[1].metadata.ownerReferences or {})[1] or {}).name }
  end)
  local after = {}
  for i, pod in ipairs(pods(plane)) do after[i] = pod.metadata.uid end
  t.eq(after, before)
end)

t.test("a_pod_that_no_longer_matches_is_let_go_and_replaced", function()
  local plane = lib.new()
  deploy(plane, "web", 1)
  local name = pods(plane)[1].metadata.name
  plane:patch("merge", PODS .. "/" .. name, { metadata = { labels = { app = "aside" } } })
  plane:becomes({ 2, nil }, function() return { #pods(plane), plane:ok("GET", PODS .. "/" .. name).metadata.ownerReferences } end)
end)

t.test("system_namespaces_cannot_be_deleted_and_what_every_namespace_has_comes_back", function()
  local plane = lib.new()
  local status, body = plane:call("DELETE", "/api/v1/namespaces/default")
  t.eq({ status, body.message }, { 403, 'namespaces "default" is forbidden: this namespace may not be deleted' })
  local account = "/api/v1/namespaces/default/serviceaccounts/default"
  local before = plane:ok("GET", account).metadata.uid
  plane:ok("DELETE", account)
  t.ok(plane:until_(function() return plane:call("GET", account) == 200 end), "an account comes back")
  t.ok(plane:ok("GET", account).metadata.uid ~= before, "a new account stands in its place")
  local root = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"
  before = plane:until_(function()
    local code, map = plane:call("GET", root)
    return code == 200 and map.metadata.uid
  end)
  plane:ok("DELETE", root)
  t.ok(plane:until_(function()
    local code, map = plane:call("GET", root)
    return code == 200 and map.metadata.uid ~= before
  end), "the CA's certificate comes back, too")
end)

t.test("events_expire_after_their_life", function()
  local plane = lib.new { event_life = 20 }
  deploy(plane, "web", 1)
  local from = plane:now()
  plane:becomes(1, function() return #plane:events "SuccessfulCreate" end)
  plane:becomes(0, function() return #plane:events "SuccessfulCreate" end)
  t.ok(plane:now() - from >= 10, "not before their time")
end)
