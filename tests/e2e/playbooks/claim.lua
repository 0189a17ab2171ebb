-- SPDX-License-Identifier: Apache-2.0
-- A claim whose selector no volume has.
local ack = require "eirun.ack"
local json = require "eirun.json"
local kube = require "eirun.kube"
local play = require "eirun.play"

return play.book {
  name = "claim",
  run = function(p)
    local k8s = kube.connect(ack.cluster())
    p:step("claim", function()
      k8s:ensure {
        apiVersion = "v1", kind = "PersistentVolumeClaim", metadata = { name = "lonely", namespace = "default" },
        spec = { accessModes = json.array { "ReadOnlyMany" }, storageClassName = "", resources = { requests = { storage = "5Gi" } },
          selector = { matchLabels = { ["alicloud-pvname"] = "nobody" } } },
      }
      k8s:wait_claim "lonely"
    end)
  end,
}
