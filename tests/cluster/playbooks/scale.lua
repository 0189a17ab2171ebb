-- SPDX-License-Identifier: Apache-2.0
-- One job on the nodes that are there, scaled on requests, under a wave of load: how many replicas it was told to have, and when.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local loadtest = require "eirun.loadtest"
local oss = require "eirun.oss"
local play = require "eirun.play"
local serve = require "eirun.serve"
local task = require "eirun.task"

local AFTER = 110 -- seconds behind the load: the metric's window, the autoscaler's

return play.book {
  name = "scale",
  args = {
    model = play.path { default = "../../../playbooks/models/chnsenticorp" },
  },
  run = function(p, arg)
    local cluster = ack.cluster()
    local k8s = kube.connect(cluster):namespace "default"
    local request = serve.sample(arg.model .. "/sample.json")
    p:step("job", function()
      cluster:ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = 15 }
      oss.bucket("eirun-sandbox-models"):ensure_tree { from = arg.model .. "/1623831335", to = "scale/1623831335" }
      k8s:ensure_oss_volume { name = "scale-models", claim = "models", bucket = "eirun-sandbox-models" }
    end)
    local app = p:step("serving", function()
      return serve.ensure_tensorflow(k8s, { name = "scale", version = "1", model_name = "chnsenticorp", model_path = "/models/scale",
        image = "tensorflow/serving:2.14.1", data = { models = "/models" } })
    end)
    local route = cluster:ingress_log(app, app.port)
    local web = p:step("traffic", function()
      k8s:ensure_hpa { name = "scale", target = app, min = 1, max = 8,
        external = { metric = "sls_ingress_qps", average = 10, selector = route } }
      return k8s:ensure_ingress { name = "scale", host = "scale.example.com", service = app, port = app.port }
    end)
    p:step("answers", function() app:wait_answer(web, request) end)

    local samples, started = {}, task.now()
    local function watch()
      while true do
        local deployment = k8s:get("Deployment", app.deployment)
        samples[#samples + 1] = { t = task.now() - started, replicas = deployment.spec.replicas }
        task.sleep(0.5)
      end
    end
    local function wave()
      loadtest.run { app = app, web = web, body = request, every = 5, plan = {
        { kind = "hold", name = "quiet", rate = 5, duration = 5 }, { kind = "ramp", name = "up", to = 60, duration = 10 },
        { kind = "hold", name = "peak", rate = 60, duration = 30 }, { kind = "ramp", name = "down", from = 60, to = 0, duration = 5 } } }
      task.sleep(AFTER)
    end
    p:probe("wave", function() task.race { wave, watch } end)
    p:report { samples = samples }
  end,
}
