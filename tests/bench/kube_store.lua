-- SPDX-License-Identifier: Apache-2.0
-- Run by kube_store.py: a store fed with pods of 3 KB, in this process and from a server; prints one JSON
-- object. Time is the process's own CPU time: what one core can do, whoever else is at work.
local core = require "eirun.core.kube"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"

local PICK = { "spec.nodeName", "status.phase", "status.podIP", "metadata.labels['app']", "metadata.creationTimestamp",
  "status.startTime" }

-- A pod as a real server sends it, managed fields and all.
local function pod(i, version)
  local fields = {}
  for n = 1, 16 do fields["f:field" .. n] = { ["f:type"] = {}, ["f:status"] = {}, ["f:lastTransitionTime"] = {} } end
  local conditions = {}
  for n, kind in ipairs { "Initialized", "Ready", "ContainersReady", "PodScheduled" } do
    conditions[n] = { type = kind, status = "True", lastProbeTime = json.null, lastTransitionTime = "2026-01-05T08:00:00Z" }
  end
  return {
    kind = "Pod", apiVersion = "v1",
    metadata = { name = ("bert-tfserving-7f5c9d%06d"):format(i), namespace = "serving", uid = ("5a1f2e00-bfb8-4cb6-a2b3-%012d"):format(i),
      resourceVersion = tostring(version), creationTimestamp = "2026-01-05T08:00:00Z",
      labels = { app = "bert", ["pod-template-hash"] = "7f5c9d" },
      ownerReferences = json.array { { apiVersion = "apps/v1", kind = "ReplicaSet", name = "bert-tfserving-7f5c9d", controller = true } },
      managedFields = json.array { { manager = "kubelet", operation = "Update", apiVersion = "v1", fieldsType = "FieldsV1",
        fieldsV1 = fields } } },
    spec = { nodeName = ("cn-hangzhou.10.0.%d.%d"):format(i // 250 % 250, i % 250), restartPolicy = "Always",
      containers = json.array { { name = "serving", image = "tensorflow/serving:1.15.0-gpu",
        args = json.array { "--port=8500", "--rest_api_port=8501" }, terminationMessagePath = "/dev/termination-log",
        resources = { limits = { ["nvidia.com/gpu"] = "1", memory = "8Gi" } } } } },
    status = { phase = "Running", podIP = ("10.1.%d.%d"):format(i // 250 % 250, i % 250), startTime = "2026-01-05T08:00:00Z",
      conditions = json.array(conditions) },
  }
end

local function event(kind, i, version)
  return json.encode { type = kind, object = pod(i, version) } .. "\n"
end

local COUNT = 100000

-- Memory of 100,000 pods, and time to take a change of each; texts are made beforehand by changing one line's digits.
local function in_process()
  local store = assert(core.store(PICK, false))
  local line = event("ADDED", 123456, 7654321)
  local function chunk(from, to, version)
    local list = {}
    for i = from, to do list[#list + 1] = line:gsub("123456", ("%06d"):format(i)):gsub("7654321", tostring(version + i)) end
    return table.concat(list)
  end
  local before = os_core.rss()
  for from = 1, COUNT, 1000 do assert(store:feed(chunk(from, from + 999, 1000000))) end
  local memory = os_core.rss() - before
  local seconds = 0
  for from = 1, COUNT, 1000 do
    local text = chunk(from, from + 999, 3000000)
    local started = os.clock()
    assert(store:feed(text))
    seconds = seconds + os.clock() - started
  end
  local started = os.clock()
  for _ = 1, 2000 do json.decode(line) end
  local decode = (os.clock() - started) / 2000
  local facts = store:facts()
  return { bytes_of_a_pod = #line, count = facts.count, store_bytes = facts.bytes // facts.count, rss_bytes = memory // facts.count,
    events_a_second = COUNT / seconds, decode_us = decode * 1e6, pick_us = seconds / COUNT * 1e6 }
end

-- The same over HTTP: the server sends as fast as it is read.
local function from_server(url, events)
  local target = require "eirun.target"
  local undo = target.use { sandbox = false, endpoints = {}, namespace = "default" }
  require "eirun.kube"
  local client = require("eirun.kube.client").new { server = url, verify = true, namespace = "default", context = "bench" }
  local pods = client:store("Pod", { pick = PICK, all = true, watch_list = false })
  local started
  require("eirun.task").race { function() pods:run() end, function()
    pods:wait_synced()
    started = os.clock()
    while pods:facts().events < events do require("eirun.task").sleep(0.01) end
  end }
  local seconds = os.clock() - started
  undo()
  return { events_a_second = pods:facts().events / seconds, count = pods:count() }
end

require("eirun.test").test("store", function()
  local url, events = os_core.getenv "BENCH_URL", tonumber(os_core.getenv "BENCH_EVENTS" or "0")
  local result = url and from_server(url, events) or in_process()
  print("RESULT " .. json.encode(result))
end)
