-- SPDX-License-Identifier: Apache-2.0
-- Elastic inference on ECS: BERT on TensorFlow Serving, on spot GPU nodes, scaled by the requests that arrive.
--
--   eirun --sandbox playbooks/bert.lua                 the whole procedure on this machine
--   eirun --env production playbooks/bert.lua          the same in a real account
--   eirun --sandbox playbooks/bert.lua on_demand=50    changes the node pool, and nothing else
--
-- Run it again at any time: what is as it should be is left alone.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local loadtest = require "eirun.loadtest"
local oss = require "eirun.oss"
local play = require "eirun.play"
local serve = require "eirun.serve"
local status = require "eirun.status"

return play.book {
  name = "bert",
  about = "BERT on spot GPU nodes of an ACK cluster, scaled on ingress requests a second",

  args = {
    cluster = play.string { help = "ACK cluster id (default: the one the run is for)" },
    namespace = play.string { default = "default", help = "namespace of everything in the cluster" },

    pool = play.string { default = "inference-gpu", help = "name of the elastic node pool" },
    types = play.list { required = true, help = "GPU instance types that nodes may have, the cheapest is bought first" },
    vswitches = play.list { help = "vSwitches, one a zone (default: the cluster's own)" },
    nodes_min = play.integer { default = 1, min = 0, help = "nodes that are always there" },
    nodes_max = play.integer { default = 10, min = 1, help = "nodes at most" },
    on_demand = play.integer { default = 30, min = 0, max = 100, help = "per cent of the nodes that are not spot" },

    bucket = play.string { required = true, help = "OSS bucket for the model" },
    model = play.path { default = "models/chnsenticorp", help = "folder with the model's version folders" },
    model_name = play.string { default = "chnsenticorp", help = "what clients call the model" },
    model_version = play.string { default = "1623831335", match = "^%d+$", help = "the version that is served" },
    oss_secret = play.string { help = "Secret with a key that reads the bucket (default: made from the keys of this run)" },

    name = play.string { default = "bert-tfserving", help = "the inference job's name" },
    version = play.string { help = "the job's version (default: the one it has, else a time stamp)" },
    image = play.string { default = "tensorflow/serving:1.15.0-gpu", help = "image of the model server" },
    gpus = play.integer { default = 1, min = 1, help = "GPUs of one replica" },

    qps = play.number { default = 10, min = 0.001, help = "requests a second that one replica should get" },
    replicas_min = play.integer { default = 1, min = 1, help = "replicas at least" },
    replicas_max = play.integer { default = 10, min = 1, help = "replicas at most" },
    host = play.string { default = "test.example.com", help = "host name of the public address" },

    load = play.boolean { default = true, help = "run the load test" },
    sample = play.path { default = "models/chnsenticorp/sample.json", help = "body of one request" },
    peak = play.number { default = 60, min = 1, help = "requests a second at the peak" },
    load_minutes = play.number { default = 15, min = 0.5, help = "how long the load test takes, ramps included" },
    thresholds = play.list { default = "p95<250ms,errors<0.1%", help = "what the end of the peak (4 of 15 minutes) must keep" },
    report = play.string { default = "bert-report.html", help = "where the load test's report goes" },
  },

  run = function(p, arg)
    local cluster = ack.cluster(arg.cluster)
    local k8s = kube.connect(cluster):namespace(arg.namespace)
    local bucket = oss.bucket(arg.bucket)
    local request = serve.sample(arg.sample)
    local pool

    p:together(function(all)
      all:step("elastic node pool", function()
        cluster:ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = 15 }
        pool = cluster:ensure_node_pool {
          name = arg.pool,
          instance_types = arg.types,
          vswitch_ids = arg.vswitches,
          autoscale = { min = arg.nodes_min, max = arg.nodes_max },
          spot = { on_demand_base = 0, on_demand_percent = arg.on_demand, compensate = true },
          labels = { inference = "tensorflow" },
        }
      end)
      all:step("model to OSS", function()
        bucket:ensure_tree { from = arg.model .. "/" .. arg.model_version, to = "tensorflow/" .. arg.model_version }
      end)
    end)

    p:step("volume for the model", function()
      k8s:ensure_namespace(arg.namespace)
      k8s:ensure_oss_volume { name = "model-csi-pv", claim = "model-pvc", bucket = arg.bucket, size = "5Gi", secret = arg.oss_secret }
    end)

    local app = p:step("inference job", function()
      return serve.ensure_tensorflow(k8s, {
        name = arg.name,
        version = arg.version,
        model_name = arg.model_name,
        model_path = "/models/tensorflow",
        version_policy = "specific:" .. arg.model_version,
        image = arg.image,
        data = { ["model-pvc"] = "/models" },
        selector = { inference = "tensorflow" },
        gpus = arg.gpus,
      })
    end)

    local route = cluster:ingress_log(app, app.port)

    local hpa = p:step("scale on requests", function()
      return k8s:ensure_hpa {
        name = arg.name .. "-hpa",
        target = app,
        min = arg.replicas_min,
        max = arg.replicas_max,
        external = { metric = "sls_ingress_qps", average = arg.qps, selector = route },
      }
    end)

    local web = p:step("public ingress", function()
      return k8s:ensure_ingress { name = arg.name, host = arg.host, service = app, port = app.port }
    end)

    p:wait("the model answers", { timeout = 600 }, function()
      app:wait_answer(web, request)
      hpa:wait_metric { ask = function() app:wait_answer(web, request) end }
    end)

    local result
    if arg.load then
      local part = arg.load_minutes * 60 / 15 -- seconds
      result = p:probe("load test", function()
        return loadtest.run {
          app = app,
          web = web,
          pool = pool,
          body = request,
          plan = {
            { kind = "ramp", name = "up", to = arg.peak, duration = 2 * part },
            { kind = "hold", name = "peak", rate = arg.peak, duration = 12 * part },
            { kind = "ramp", name = "down", from = arg.peak, to = 0, duration = part },
          },
          window = { from = 10 * part, to = 14 * part },
          thresholds = arg.thresholds,
          report = arg.report,
        }
      end)
    else
      p:skip("load test", "load=no")
    end

    local now = p:probe("status", function()
      return status.of { app = app, pool = pool, hpa = hpa, selector = route }
    end)

    p:report { address = web:url(), host = web.host, status = now, load = result, text = status.text(now) }
  end,
}
