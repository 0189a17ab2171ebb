-- SPDX-License-Identifier: Apache-2.0
-- One model served from one pool, each part of it an argument: tests get one of them wrong.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local play = require "eirun.play"
local serve = require "eirun.serve"

return play.book {
  name = "small",
  args = {
    name = play.string { default = "small" },
    version = play.string { default = "1" },
    types = play.list { default = "ecs.gn6i-c4g1.xlarge" },
    vswitches = play.list {},
    nodes_min = play.integer { default = 1 },
    nodes_max = play.integer { default = 3 },
    compensate = play.boolean { default = true },
    bucket = play.string { default = "eirun-sandbox-models" },
    volume = play.string { default = "small-models" },
    volume_bucket = play.string { default = "eirun-sandbox-models" },
    volume_url = play.string {},
    volume_secret = play.string {},
    volume_check = play.boolean { default = true, help = "look first whether the bucket can be read" },
    label = play.string { default = "small" },
    selector = play.string { default = "small" },
    policy = play.string { default = "specific:1623831335" },
    model_path = play.string { default = "/models/small" },
    image = play.string { default = "tensorflow/serving:1.15.0-gpu" },
    gpus = play.integer { default = 1 },
    replicas = play.integer {},
    route = play.string { help = "another Service's name in the HPA's selector" },
    host = play.string { default = "small.example.com" },
    wait = play.integer { default = 900 },
  },

  run = function(p, arg)
    local cluster = ack.cluster()
    local k8s = kube.connect(cluster)

    p:step("pool", function()
      cluster:ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = 15 }
      cluster:ensure_node_pool {
        name = arg.name,
        instance_types = arg.types,
        vswitch_ids = arg.vswitches,
        autoscale = { min = arg.nodes_min, max = arg.nodes_max },
        spot = { on_demand_percent = 0, compensate = arg.compensate },
        labels = { pool = arg.label },
      }
    end)
    p:step("model", function()
      oss.bucket(arg.bucket):ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "small/1623831335" }
    end)
    p:step("volume", function()
      k8s:ensure_oss_volume { name = arg.volume, bucket = arg.volume_bucket, url = arg.volume_url, secret = arg.volume_secret,
        check = arg.volume_check }
    end)
    local app = p:step("job", function()
      return serve.ensure_tensorflow(k8s, {
        name = arg.name,
        version = arg.version,
        model_name = "chnsenticorp",
        model_path = arg.model_path,
        version_policy = arg.policy,
        image = arg.image,
        data = { [arg.volume] = "/models" },
        selector = { pool = arg.selector },
        gpus = arg.gpus,
        replicas = arg.replicas,
        timeout = arg.wait,
      })
    end)
    local hpa = p:step("autoscaler", function()
      return k8s:ensure_hpa {
        name = arg.name,
        target = app,
        max = 3,
        external = { metric = "sls_ingress_qps", average = 10, selector = cluster:ingress_log(arg.route or app, app.port) },
      }
    end)
    local web = p:step("ingress", function()
      return k8s:ensure_ingress { name = arg.name, host = arg.host, service = app, port = app.port }
    end)
    p:step("answer", function()
      local request = serve.sample "playbooks/models/chnsenticorp/sample.json"
      app:wait_answer(web, request)
      hpa:wait_metric { ask = function() app:wait_answer(web, request) end }
    end)
    p:report { replicas = app:replicas() }
  end,
}
