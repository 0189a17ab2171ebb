-- SPDX-License-Identifier: Apache-2.0
-- What arena lacks, each thing as it works out on the sandbox's cluster.
local ack = require "eirun.ack"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local serve = require "eirun.serve"
local t = require "eirun.test"
local target = require "eirun.target"
local wire = require "eirun.wire"

local root = debug.getinfo(1, "S").source:match "^@(.-)tests/virtual/[^/]*$" or ""
local model = root .. "playbooks/models/chnsenticorp/1623831335"

local function with_cluster(fn)
  return function()
    local dir = assert(fs.mkdtemp "/tmp/eirun-test-serving-")
    local session = target.open({ sandbox = dir, clock = "virtual" }, { target = function() end })
    local ok, err = xpcall(function()
      local cluster = ack.cluster()
      local k8s, bucket = kube.connect(cluster):namespace "default", oss.bucket "eirun-sandbox-models"
      for _, version in ipairs { "1", "2", "3" } do bucket:ensure_tree { from = model, to = "m/" .. version } end
      k8s:ensure_oss_volume { name = "models", bucket = bucket.name }
      fn(k8s, cluster)
    end, function(e) return type(e) == "string" and debug.traceback(e) or e end)
    getmetatable(session).__close(session)
    fs.remove(dir, { recursive = true })
    if not ok then error(err, 0) end
  end
end

local function job(k8s, more)
  local given = { name = "tf", version = "1", model_name = "m", model_path = "/models/m", image = "tensorflow/serving:2.14.1",
    data = { models = "/models" } }
  for key, value in pairs(more or {}) do given[key] = value end
  return serve.ensure_tensorflow(k8s, given)
end

-- What the server itself tells of its models.
local function asked(k8s, app, path)
  return k8s:raw(("/api/v1/namespaces/default/services/%s:http-serving/proxy/v1/models/m%s"):format(app.service, path))
end

local policies = { { "specific:2", { "2" } }, { "specific:1,3", { "1", "3" } }, { "latest", { "3" } }, { "latest:2", { "2", "3" } },
  { "all", { "1", "2", "3" } } }

for _, row in ipairs(policies) do
  local policy, versions = table.unpack(row)
  t.test("the_policy_is_what_the_server_serves_" .. policy:gsub("%W", "_"), with_cluster(function(k8s)
    local app = job(k8s, { version_policy = policy })
    t.eq(wire.sorted_keys(app:models()[1].versions), versions)
    for _, version in ipairs(versions) do t.eq(app:models()[1].versions[version], "AVAILABLE") end
  end))
end

t.test("a_label_leads_to_its_version", with_cluster(function(k8s)
  local app = job(k8s, { version_policy = "all", version_labels = { stable = 1, canary = 3 } })
  t.eq(asked(k8s, app, "/labels/stable").model_version_status[1].version, "1")
  t.eq(asked(k8s, app, "/labels/canary").model_version_status[1].version, "3")
end))

t.test("ready_means_that_the_version_answers", with_cluster(function(k8s)
  local app = job(k8s, { version_policy = "specific:2" })
  local container = k8s:get("Deployment", app.name).spec.template.spec.containers[1]
  for _, probe in ipairs { "startupProbe", "readinessProbe" } do
    t.match(container[probe].httpGet.path, "^/v1/models/m/versions/2$")
  end
  local err = t.err("invalid", function() job(k8s, { name = "none", version_policy = "specific:9" }) end)
  t.match(err.message, "Version 9 of servable")
end))

t.test("selector_tolerations_spread_and_budget_hold", with_cluster(function(k8s, cluster)
  cluster:ensure_node_pool { name = "own", instance_types = { "ecs.g7.xlarge" }, size = 3, policy = "BALANCE",
    labels = { inference = "tensorflow" },
    taints = { { key = "dedicated", value = "serving", effect = "NoSchedule" } } }
  local app = job(k8s, { selector = "inference:tensorflow", tolerations = { "dedicated=serving:NoSchedule" }, replicas = 2,
    disruption_budget = 1, requests = { cpu = "1" }, limits = { cpu = "2", memory = "2Gi" } })
  local pods, zones = k8s:list("Pod", { labels = "servingName=tf" }), {}
  for _, pod in ipairs(pods) do
    local node = k8s:get("Node", pod.spec.nodeName)
    t.eq(node.metadata.labels.inference, "tensorflow")
    zones[node.metadata.labels["topology.kubernetes.io/zone"]] = true
  end
  t.eq({ #pods, #wire.sorted_keys(zones), app:replicas().ready }, { 2, 2, 2 })
  t.eq(pods[1].spec.containers[1].resources, { requests = { cpu = "1", memory = "2Gi" }, limits = { cpu = "2", memory = "2Gi" } })
  t.ok(k8s:evict(pods[1].metadata.name), "one may go")
  local ok, err = pcall(k8s.evict, k8s, pods[2].metadata.name)
  t.eq({ ok, errors.from(err).kind }, { false, "throttled" })
end))

t.test("it_is_warm_before_it_is_ready_and_serves_on_while_it_drains", with_cluster(function(k8s)
  local app = job(k8s, { warm_up = serve.sample(root .. "playbooks/models/chnsenticorp/sample.json"), drain = 30 })
  local spec = k8s:get("Deployment", app.name).spec.template.spec
  t.match(table.concat(spec.containers[1].startupProbe.exec.command, " "), "predict")
  t.match(table.concat(spec.containers[1].lifecycle.preStop.exec.command, " "), "sleep 30")
  t.ok(spec.terminationGracePeriodSeconds > 30, "there is time to drain")
end))

t.test("a_second_run_finds_the_job_of_the_first_by_its_stamp", with_cluster(function(k8s)
  local function again()
    local app = serve.ensure_tensorflow(k8s, { name = "tf", model_name = "m", model_path = "/models/m", image = "tensorflow/serving:2.14.1",
      data = { models = "/models" } })
    return app.name
  end
  local first = again()
  t.match(first, "^tf%-%d%d%d%d%d%d%d%d%d%d%d%d%-tensorflow%-serving$")
  t.eq(again(), first)
end))

t.test("a_route_label_that_is_too_long_is_refused_before_any_write", with_cluster(function(k8s)
  local err = t.err("invalid", function() job(k8s, { name = ("n"):rep(43), version = "1" }) end)
  t.match(err.message, "more than the 63")
  t.eq(#k8s:list("Deployment"), 0)
end))
