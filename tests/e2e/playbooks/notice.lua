-- SPDX-License-Identifier: Apache-2.0
-- Three replicas on spot nodes answer requests while the nodes of one zone get their notice.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local load = require "eirun.load"
local oss = require "eirun.oss"
local play = require "eirun.play"
local sandbox = require "eirun.sandbox"
local serve = require "eirun.serve"
local task = require "eirun.task"

return play.book {
  name = "notice",
  args = { drain = play.integer { default = 15 } },
  run = function(p, arg)
    local cluster = ack.cluster()
    local k8s = kube.connect(cluster)
    p:step("pool", function()
      cluster:ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = 15 }
      cluster:ensure_node_pool { name = "spot", instance_types = { "ecs.gn6i-c4g1.xlarge" }, autoscale = { min = 4, max = 6 },
        spot = { on_demand_percent = 0, compensate = true }, labels = { pool = "spot" } }
    end)
    p:step("model", function()
      oss.bucket("eirun-sandbox-models"):ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "notice/1623831335" }
      k8s:ensure_oss_volume { name = "models", bucket = "eirun-sandbox-models" }
    end)
    local app = p:step("job", function()
      return serve.ensure_tensorflow(k8s, { name = "notice", version = "1", model_name = "m", model_path = "/models/notice", gpus = 1,
        image = "tensorflow/serving:1.15.0-gpu", data = { models = "/models" }, selector = "pool:spot", replicas = 3,
        drain = arg.drain })
    end)
    local web = p:step("ingress", function()
      return k8s:ensure_ingress { name = "notice", host = "notice.example.com", service = app, port = app.port }
    end)
    local request = serve.sample "playbooks/models/chnsenticorp/sample.json"
    app:wait_answer(web, request)

    local pod = k8s:list("Pod", { labels = { servingName = "notice" } })[1]
    local zone = k8s:get("Node", pod.spec.nodeName).metadata.labels["topology.kubernetes.io/zone"]
    local result
    p:probe("load", function()
      task.together(function(all)
        all(function()
          result = load.run { url = web:url(app:path "predict"), method = "POST", body = request,
            headers = { { "Content-Type", "application/json" }, table.unpack(web.headers) }, status = 200, allow = { web.address },
            plan = { { kind = "hold", rate = 20, duration = 480 } } }
        end)
        all(function()
          task.sleep(60)
          sandbox.fault { kind = "reclaim", zone = zone }
        end)
      end)
    end)
    local left = 0
    for _, each in ipairs(k8s:list("Pod", { labels = { servingName = "notice" } })) do
      if each.metadata.name == pod.metadata.name then left = left + 1 end
    end
    p:report { zone = zone, requests = result.requests, errors = result.errors, left = left, replicas = app:replicas() }
  end,
}
