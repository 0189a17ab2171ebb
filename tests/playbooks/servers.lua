-- SPDX-License-Identifier: Apache-2.0
-- Jobs of every type on the nodes that are there, each an argument.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local play = require "eirun.play"
local serve = require "eirun.serve"

return play.book {
  name = "servers",
  args = {
    job = play.string { required = true, help = "tensorflow, warm, triton, vllm or own" },
    publish = play.boolean { default = false, help = "a second version of the model, once the first is served" },
    budget = play.boolean { default = true },
  },
  run = function(p, arg)
    local k8s = kube.connect(ack.cluster())
    if arg.job == "tensorflow" or arg.job == "warm" then
      p:step("model", function()
        oss.bucket("eirun-sandbox-models"):ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "servers/1623831335" }
        k8s:ensure_oss_volume { name = "models", bucket = "eirun-sandbox-models" }
      end)
    end
    local jobs = {
      tensorflow = function()
        return serve.ensure_tensorflow(k8s, { name = "tf", version = "1", model_name = "m", model_path = "/models/servers",
          image = "tensorflow/serving:2.14.1", data = { models = "/models" }, disruption_budget = arg.budget and "25%" })
      end,
      warm = function()
        return serve.ensure_tensorflow(k8s, { name = "tf", version = "1", model_name = "m", model_path = "/models/servers",
          image = "tensorflow/serving:2.14.1", data = { models = "/models" }, version_policy = "latest",
          warm_up = serve.sample "playbooks/models/chnsenticorp/sample.json" })
      end,
      triton = function()
        return serve.ensure_triton(k8s, { name = "triton", version = "1", model_repository = "/models", model_name = "m" })
      end,
      vllm = function()
        return serve.ensure_custom(k8s, { name = "llm", version = "1", server = "vllm", image = "vllm/vllm-openai:v0.6.3",
          model_path = "/models/qwen", model_name = "qwen" })
      end,
      own = function() return serve.ensure_custom(k8s, { name = "own", version = "1", image = "nginx:1.27", rest_port = 80 }) end,
    }
    local app = p:step("job", jobs[arg.job])
    local reload, proxied, refused
    if arg.publish then
      oss.bucket("eirun-sandbox-models"):ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "servers/1700000000" }
      reload = app:wait_version "1700000000"
      proxied = k8s:raw(("/api/v1/namespaces/default/services/%s:http-serving/proxy/v1/models/m"):format(app.service))
      local _, err = pcall(k8s.raw, k8s, ("/api/v1/namespaces/default/services/%s:9/proxy/"):format(app.service))
      refused = err.message
    end
    p:report { reload = reload, models = reload and app:models()[1].versions, proxied = proxied, refused = refused,
      name = app.name, service = app.service, path = app:path(), predict = app:path "predict", replicas = app:replicas() }
  end,
}
