-- SPDX-License-Identifier: Apache-2.0
-- One pool for each way in which a ratio is lost; the result is what the ratio says of each.
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local kube = require "eirun.kube"
local play = require "eirun.play"
local sandbox = require "eirun.sandbox"
local task = require "eirun.task"

local zones = { "vsw-bp1eirunh", "vsw-bp1eiruni" }

local function pool(name, autoscale, spot, more)
  local given = { name = name, instance_types = { "ecs.gn7i-c8g1.2xlarge" }, vswitch_ids = zones, autoscale = autoscale, spot = spot,
    labels = { pool = name } }
  for key, value in pairs(more or {}) do given[key] = value end
  return (ack.cluster():ensure_node_pool(given))
end

local function ten() return { min = 10, max = 12 } end
local function rule(more)
  local spot = { on_demand_base = 1, on_demand_percent = 30 }
  for key, value in pairs(more or {}) do spot[key] = value end
  return spot
end

local function spot_stock(left)
  sandbox.fault { kind = "stock_out", market = "spot", left = left }
end

local ways = {}

function ways.kept() return pool("kept", ten(), rule()) end

function ways.attached()
  local made = pool("attached", ten(), rule())
  for _ = 1, 3 do sandbox.fault { kind = "attach", pool = "attached", type = "ecs.gn7i-c8g1.2xlarge" } end
  return made
end

function ways.compensation()
  spot_stock(1)
  local made = pool("compensation", ten(), rule())
  spot_stock(60)
  return made
end

function ways.stock_out()
  spot_stock(0)
  pcall(pool, "stock-out", ten(), rule { compensate = false })
  spot_stock(60)
  return ack.cluster():node_pool "stock-out"
end

function ways.reclaim()
  local made = pool("reclaim", ten(), rule { remedy = false })
  pool("reclaim", { min = 0, max = 12 }, rule { remedy = false })
  for _, instance in ipairs(made:instances()) do
    if instance.billing == "spot" then sandbox.fault { kind = "reclaim", id = instance.id } end
  end
  task.sleep(600)
  return made
end

function ways.changed_percentage()
  pool("changed", ten(), rule())
  task.sleep(120)
  return pool("changed", ten(), rule { on_demand_percent = 100 })
end

function ways.scale_in()
  pool("scale-in", ten(), rule())
  return pool("scale-in", { min = 0, max = 5 }, rule())
end

local function deployment(name, replicas)
  return { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = name }, spec = { replicas = replicas,
    selector = { matchLabels = { app = name } }, template = { metadata = { labels = { app = name } }, spec = {
      nodeSelector = { pool = name },
      containers = { { name = "main", image = "nginx", resources = { limits = { ["nvidia.com/gpu"] = "1" } } } } } } } }
end

function ways.scaler()
  ack.cluster():ensure_autoscaling { scaler = "goatscaler", scan_interval = 15 }
  sandbox.fault { kind = "goatscaler_quirk" }
  local made = pool("scaler", { min = 0, max = 10 }, rule())
  kube.connect(ack.cluster()):ensure(deployment("scaler", 6))
  task.sleep(400)
  return made
end

local order = { "kept", "attached", "compensation", "stock_out", "reclaim", "changed_percentage", "scale_in", "scaler" }

local function in_short(found)
  local reasons = {}
  for i, reason in ipairs(found.reasons) do reasons[i] = reason.reason end
  return { kept = found.kept, total = found.total, on_demand = found.observed.on_demand, reasons = table.concat(reasons, " "),
    disagree = found.disagree, differences = table.concat(found.differences, "; ") }
end

return play.book {
  name = "drift",
  args = { way = play.string { default = "all" } },
  run = function(p, arg)
    local result = {}
    ack.cluster():ensure_autoscaling { scaler = "cluster-autoscaler", scale_down = false }
    for _, way in ipairs(order) do
      if arg.way == "all" or arg.way == way then
        p:step(way, function()
          result[way] = in_short(cloud.ratio(ways[way](), { k8s = kube.connect(ack.cluster()) }))
        end)
      end
    end
    p:report { ways = result }
  end,
}
