-- SPDX-License-Identifier: Apache-2.0
local t = require "eirun.test"
local status = require "eirun.status"
local timeline = require "eirun.timeline"

local function sample_status()
  return {
    at = 0, job = "bert-tfserving", version = "202601050801", model = "chnsenticorp", missing = {},
    replicas = { wanted = 6, ready = 5, min = 1, max = 10 },
    ratio = { asked = { base = 0, percent = 30 }, expected = { on_demand = 1.8, spot = 4.2 }, total = 6, kept = true, disagree = false,
      observed = { on_demand = 2, spot = 4, percent = 100 / 3 }, zones = { ["cn-hangzhou-i"] = { on_demand = 1, spot = 2 },
        ["cn-hangzhou-h"] = { on_demand = 1, spot = 2 } } },
    traffic = { qps = 60, p95 = 0.0412 }, cost = { hour = 21.6, currency = "CNY", per_1000 = 0.1, without_spot = 60 },
    pods = {
      { name = "bert-1", phase = "Running", ready = true, age = 90, node = "cn-hangzhou.10.0.0.1", zone = "cn-hangzhou-h",
        billing = "spot" },
      { name = "bert-2", phase = "Pending", ready = false, age = 7300 },
    },
  }
end

t.test("a_status_reads_as_the_console_shows_it", function()
  t.eq(status.text(sample_status()), [[
job        bert-tfserving, version 202601050801, model chnsenticorp
replicas   6 wanted, 5 ready, 1 to 10 allowed
instances  2 on-demand and 4 spot, 33% on-demand (asked 0 + 30%, so 1.8)
traffic    60.0 requests/s, p95 41 ms
cost       21.60 CNY an hour, 0.1000 per 1,000 requests (60.00 without spot)

POD     STATE    READY  AGE  NODE                  ZONE           BILLING
bert-1  Running  yes    90s  cn-hangzhou.10.0.0.1  cn-hangzhou-h  spot
bert-2  Pending  no     2h   -                     -              -

ZONE           ON-DEMAND  SPOT
cn-hangzhou-h  1          2
cn-hangzhou-i  1          2]])
end)

t.test("a_broken_promise_and_what_is_not_known_are_said", function()
  local now = sample_status()
  now.ratio.kept, now.ratio.disagree = false, true
  now.cost, now.traffic, now.missing = nil, nil, { "cost: no price" }
  local text = status.text(now)
  t.match(text, "NOT KEPT, sources disagree")
  t.match(text, "cost       unknown")
  t.match(text, "not known: cost: no price$")
end)

-- An app whose replicas are scripted.
local function app_of(script)
  return { replicas = function() return table.remove(script, 1) end, k8s = {} }
end

t.test("the_moments_of_a_scale_up_are_marked", function()
  local line = timeline.new(app_of { { wanted = 1, ready = 1 }, { wanted = 4, ready = 1 }, { wanted = 4, ready = 2 } })
  for _ = 1, 3 do line:look() end
  for i, seen in ipairs(line.samples) do seen.at = 100 + i * 10 end
  t.eq(line:marks(100), { { t = 20, label = "more replicas are wanted" }, { t = 30, label = "the first of them is ready" } })
  t.eq(line:series(100)[1], { name = "replicas wanted", unit = "replicas", kind = "step", points = { { 10, 1 }, { 20, 4 }, { 30, 4 } } })
end)

t.test("a_look_that_fails_leaves_a_gap", function()
  local line = timeline.new(app_of {})
  line:look()
  t.eq(line.samples, {})
end)
