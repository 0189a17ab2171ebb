-- SPDX-License-Identifier: Apache-2.0
-- One model on the nodes that are there, without a GPU: what arena sees of it is the test's matter.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local play = require "eirun.play"
local serve = require "eirun.serve"

return play.book {
  name = "serving",
  args = {
    namespace = play.string { required = true },
    name = play.string { default = "ours" },
    version = play.string { default = "1" },
    image = play.string { default = "tensorflow/serving:2.14.1" },
    istio = play.boolean { default = false, help = "behind an Istio gateway" },
    custom = play.boolean { default = false, help = "a second job, of a server of its own" },
  },
  run = function(p, arg)
    local k8s = kube.connect(ack.cluster()):namespace(arg.namespace)
    p:step("model", function()
      oss.bucket("eirun-sandbox-models"):ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "serving/1623831335" }
    end)
    p:step("volume", function()
      k8s:ensure_oss_volume { name = arg.namespace .. "-models", claim = "models", bucket = "eirun-sandbox-models" }
    end)
    p:step("job", function()
      serve.ensure_tensorflow(k8s, { name = arg.name, version = arg.version, model_name = "chnsenticorp", model_path = "/models/serving",
        image = arg.image, data = { models = "/models" }, env = { A = "b" }, labels = { team = "nlp" }, memory = "1Gi", cpu = "500m",
        istio = arg.istio, expose = arg.istio, user = "kubecfg:certauth:admin" }) -- arena 0.15.5 calls everybody with a certificate so
    end)
    if arg.custom then
      p:step("custom job", function()
        serve.ensure_custom(k8s, { name = "own", version = "1", image = "nginx:1.27", rest_port = 80, health = "/" })
      end)
    end
  end,
}
