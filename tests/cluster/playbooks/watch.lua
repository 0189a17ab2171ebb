-- SPDX-License-Identifier: Apache-2.0
-- Tells each change of a namespace's config maps until one of a given name comes.
local ack = require "eirun.ack"
local kube = require "eirun.kube"
local play = require "eirun.play"

return play.book {
  name = "watch",
  args = {
    namespace = play.string { required = true },
    last = play.string { required = true },
  },
  run = function(p, arg)
    local k8s = kube.connect(ack.cluster()):namespace(arg.namespace)
    p:probe("watch", function()
      for event in k8s:watch "ConfigMap" do
        local name = event.object.metadata.name
        p:note(event.type .. " " .. name)
        if name == arg.last then return end
      end
    end)
  end,
}
