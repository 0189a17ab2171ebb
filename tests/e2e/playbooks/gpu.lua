-- SPDX-License-Identifier: Apache-2.0
-- What the cluster's GPUs do while a job on them answers requests, and what an XID leads to.
local ack = require "eirun.ack"
local gpu = require "eirun.gpu"
local health = require "eirun.gpu.health"
local kube = require "eirun.kube"
local load = require "eirun.load"
local oss = require "eirun.oss"
local play = require "eirun.play"
local sandbox = require "eirun.sandbox"
local serve = require "eirun.serve"
local task = require "eirun.task"

local function numbers(view)
  local rows = {}
  for i, node in ipairs(view.nodes) do
    rows[i] = { node = node.name, gpus = node.gpus, allocated = node.allocated, use = node.used and node.used.utilization,
      busy = node.used and node.used.busy, via = node.via, memory = node.used and node.used.memory_used, price = node.price,
      billing = node.billing, zone = node.zone, model = node.model }
  end
  return { rows = rows, total = view.total, notes = view.notes, job = view.jobs[1], words = view.fragmentation }
end

return play.book {
  name = "gpu",
  run = function(p)
    local cluster = ack.cluster()
    local k8s = kube.connect(cluster)
    p:step("pool", function()
      cluster:ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = 15 }
      cluster:ensure_node_pool { name = "gpus", instance_types = { "ecs.gn6i-c24g1.12xlarge", "ecs.gn6i-c4g1.xlarge" },
        autoscale = { min = 3, max = 4 }, spot = { on_demand_percent = 34, compensate = true }, labels = { pool = "gpus" } }
    end)
    p:step("model", function()
      oss.bucket("eirun-sandbox-models"):ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "gpus/1623831335" }
      k8s:ensure_oss_volume { name = "models", bucket = "eirun-sandbox-models" }
    end)
    local app = p:step("job", function()
      return serve.ensure_tensorflow(k8s, { name = "gpus", version = "1", model_name = "m", model_path = "/models/gpus", gpus = 1,
        image = "tensorflow/serving:1.15.0-gpu", data = { models = "/models" }, selector = "pool:gpus", replicas = 2 })
    end)
    local web = p:step("ingress", function()
      return k8s:ensure_ingress { name = "gpus", host = "gpus.example.com", service = app, port = app.port }
    end)
    local request = serve.sample "playbooks/models/chnsenticorp/sample.json"
    app:wait_answer(web, request)
    task.sleep(30)

    local idle, busy = numbers(gpu.cluster(k8s)), nil
    p:probe("load", function()
      task.together(function(all)
        all(load.run, { url = web:url(app:path "predict"), method = "POST", body = request, status = 200, allow = { web.address },
          headers = { { "Content-Type", "application/json" }, table.unpack(web.headers) },
          plan = { { kind = "hold", rate = 12, duration = 60 } } })
        all(function()
          task.sleep(40)
          busy = numbers(gpu.cluster(k8s))
        end)
      end)
    end)

    sandbox.fault { kind = "html", service = "DCGM", action = idle.rows[1].node }
    sandbox.fault { kind = "slow", service = "DCGM", action = idle.rows[2].node, seconds = 20 }
    local before = task.now()
    local hurt = numbers(gpu.cluster(k8s, { deadline = 2 }))
    local waited = task.now() - before

    sandbox.fault { kind = "xid", xid = 79 }
    local view = gpu.cluster(k8s)
    local isolated = p:step("isolate", function() return health.isolate(k8s, view.findings, { limit = 1 }) end)
    local node = isolated[1] and k8s:get("Node", isolated[1])
    p:report { idle = idle, busy = busy, hurt = hurt, waited = waited, findings = view.findings, isolated = isolated,
      cordoned = node ~= nil and node.spec.unschedulable == true, after = numbers(gpu.cluster(k8s)) }
  end,
}
