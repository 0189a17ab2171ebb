-- SPDX-License-Identifier: Apache-2.0
-- What eirun makes and the official packages read back.
local ack = require "eirun.ack"
local play = require "eirun.play"

return play.book {
  name = "made",
  run = function(p)
    p:step("pool", function()
      return ack.cluster():ensure_node_pool {
        name = "made-by-eirun", instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn7i-c8g1.2xlarge" },
        vswitch_ids = { "vsw-bp1eirunh", "vsw-bp1eiruni" }, autoscale = { min = 0, max = 4 },
        spot = { on_demand_base = 1, on_demand_percent = 30 }, labels = { inference = "tensorflow" },
        taints = { { key = "gpu", value = "yes", effect = "NoSchedule" } }, tags = { team = "search" },
        system_disk = { category = "cloud_essd", size = 200 }, data_disks = { { category = "cloud_essd", size = 300, encrypted = false } },
      }
    end)
  end,
}
