-- SPDX-License-Identifier: Apache-2.0
-- A model read with a key of the playbook's own choice, in a namespace of its choice.
local ack = require "eirun.ack"
local crypto = require "eirun.crypto"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local play = require "eirun.play"
local serve = require "eirun.serve"

return play.book {
  name = "keys",
  args = {
    namespace = play.string { default = "default" },
    key_id = play.string { default = "LTAI5tNobodyHasThisKey00" },
    key_secret = play.string { default = "nobody-has-this-secret-00000" },
    volume = play.string { default = "models" },
    serve = play.boolean { default = true },
    check = play.boolean { default = true, help = "look first whether the bucket can be read" },
  },

  run = function(p, arg)
    local cluster, bucket = ack.cluster(), oss.bucket "eirun-sandbox-models"
    local k8s = kube.connect(cluster):namespace(arg.namespace)
    if arg.serve then
      p:step("pool", function()
        cluster:ensure_node_pool { name = "gpu", instance_types = { "ecs.gn6i-c4g1.xlarge" }, size = 1, labels = { pool = "gpu" } }
      end)
      p:step("model", function()
        bucket:ensure_tree { from = "playbooks/models/chnsenticorp/1623831335", to = "keys/1623831335" }
      end)
    end
    p:step("volume", function()
      k8s:ensure_namespace(arg.namespace)
      k8s:ensure { apiVersion = "v1", kind = "Secret", type = "Opaque", metadata = { name = "own-key", namespace = arg.namespace },
        data = { akId = crypto.base64(arg.key_id), akSecret = crypto.base64(arg.key_secret) } }
      k8s:ensure_oss_volume { name = arg.volume, bucket = bucket.name, secret = "own-key", check = arg.check }
    end)
    if not arg.serve then return end
    p:step("job", function()
      serve.ensure_tensorflow(k8s, { name = "keys", version = "1", model_name = "chnsenticorp", model_path = "/models/keys", gpus = 1,
        image = "tensorflow/serving:1.15.0-gpu", data = { [arg.volume] = "/models" }, selector = { pool = "gpu" } })
    end)
  end,
}
