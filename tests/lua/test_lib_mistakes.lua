-- SPDX-License-Identifier: Apache-2.0
-- Whole runs of tests/playbooks/small.lua in a process of their own, under the virtual clock: once right, and once for each
-- mistake, which must end with an error that names the object, quotes the event and says what to do.
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local process = require "eirun.core.process"
local sandbox_client = require "sandbox_client"

local function run(dir, ...)
  local argv = { "/proc/self/exe", "--sandbox=" .. dir, "--output", "jsonl", "tests/playbooks/small.lua", ... }
  argv.timeout = 100
  local done = assert(process.run(argv))
  local events = {}
  for line in done.stdout:gmatch("[^\n]+") do events[#events + 1] = assert(json.decode(line)) end
  return { code = done.code, events = events, last = events[#events] or {}, stderr = done.stderr }
end

local function in_sandbox(body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(body, dir)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

local function outcomes(result)
  local list = {}
  for _, event in ipairs(result.events) do
    if event.event == "step" then list[#list + 1] = event.name .. " " .. event.outcome end
  end
  return list
end

t.test("a_model_is_served_and_a_second_run_changes_nothing", function()
  in_sandbox(function(dir)
    local first = run(dir)
    t.eq(first.code, 0, first.stderr .. json.encode(first.last))
    t.eq(outcomes(first), { "pool created", "model created", "volume created", "job created", "autoscaler created", "ingress created",
      "answer done" })
    t.eq(first.last.result.replicas, { wanted = 1, ready = 1, available = 1 })
    local second = run(dir)
    t.eq(outcomes(second), { "pool unchanged", "model unchanged", "volume unchanged", "job unchanged", "autoscaler unchanged",
      "ingress unchanged", "answer done" })
  end)
end)

t.test("replicas_belong_to_the_autoscaler_once_there_is_one", function()
  in_sandbox(function(dir)
    local first = run(dir, "replicas=2", "nodes_min=2")
    t.eq({ first.code, first.last.result.replicas }, { 0, { wanted = 2, ready = 2, available = 2 } }, json.encode(first.last))
    local again = run(dir, "replicas=3", "nodes_min=2")
    t.eq(outcomes(again)[4], "job unchanged", json.encode(again.events))
  end)
end)

t.test("two_services_with_pools_of_their_own_live_side_by_side", function()
  in_sandbox(function(dir)
    t.eq(run(dir).code, 0)
    local other = run(dir, "name=other", "volume=other-models", "label=other", "selector=other", "host=other.example.com",
      "types=ecs.gn7i-c8g1.2xlarge")
    t.eq(other.code, 0, json.encode(other.last))
    t.eq(outcomes(other), { "pool created", "model unchanged", "volume created", "job created", "autoscaler created", "ingress created",
      "answer done" })
    t.eq(run(dir).last.unchanged, 6)
  end)
end)

local mistakes = {
  { "a_selector_that_no_node_has", "selector=other", "job", "FailedScheduling: \".*node affinity/selector", "labels" },
  { "more_gpus_than_a_node_has", "gpus=4", "job", "FailedScheduling: \".*Insufficient nvidia.com/gpu", "fewer" },
  { "a_bucket_that_does_not_exist", "volume_bucket=no-such-bucket", "volume", "cannot list oss://no%-such%-bucket/", "make the bucket" },
  { "a_mount_of_no_bucket", { "volume_bucket=no-such-bucket", "volume_check=no" }, "job", "FailedMount: \".*Bucket not found",
    "bucket does not exist" },
  { "an_endpoint_of_nowhere", "volume_url=oss-cn-nowhere-internal.aliyuncs.com", "job", "FailedMount: \"", "url" },
  { "a_secret_that_does_not_exist", "volume_secret=nobody", "volume", "Secret 'default/nobody' does not exist", "akId" },
  { "a_version_that_is_not_there", "policy=specific:7", "job", "its log says: \".*was not found in the file system",
    "upload that version" },
  { "a_model_path_that_is_not_there", "model_path=/models/none", "job", "its log says: \".*Could not find base path", "model_path" },
  { "a_route_that_nobody_takes", "route=somebody-else", "answer", "gets no metric: FailedGetExternalMetric: \"", "compare the selector" },
  { "a_gpu_type_that_is_none", "types=ecs.g7.xlarge", "job", "Insufficient nvidia.com/gpu", "GPUs" },
}

for _, row in ipairs(mistakes) do
  local name, argument, step, pattern, hint = table.unpack(row)
  t.test(name .. "_is_named_and_explained", function()
    in_sandbox(function(dir)
      local result = run(dir, table.unpack(type(argument) == "table" and argument or { argument }))
      local err = result.last.error or {}
      t.eq({ result.code, err.step }, { 1, step }, json.encode(result.last))
      t.match(err.message, pattern)
      t.match(err.hint, hint)
    end)
  end)
end

-- A sandbox whose zones have sold out of spot instances.
local function sell_out(dir)
  local box = sandbox_client.start { dir = dir, keep = true }
  local status = box:control("POST", "/faults", { kind = "stock_out", market = "spot" })
  box:stop()
  http.routes {} -- as it was: other tests have servers of their own
  t.eq(status, 200)
end

t.test("a_pod_that_waits_for_a_node_that_cannot_be_had_is_explained", function()
  in_sandbox(function(dir)
    sell_out(dir)
    local result = run(dir, "compensate=no", "nodes_min=0")
    local err = result.last.error or {}
    t.eq({ result.code, err.step, err.code }, { 1, "job", "FailedToScaleUpGroup" }, json.encode(result.last))
    t.match(err.message, "NoStock")
    t.match(err.hint, "add types or zones")
  end)
end)

t.test("a_market_without_stock_is_quoted_from_the_scaling_group", function()
  in_sandbox(function(dir)
    sell_out(dir)
    local result = run(dir, "compensate=no")
    local err = result.last.error or {}
    t.eq({ result.code, err.step, err.kind, err.object }, { 1, "pool", "quota", "node pool 'small'" }, json.encode(result.last))
    t.match(err.code, "NoStock")
    t.match(err.hint, "add instance types or zones")
  end)
end)
