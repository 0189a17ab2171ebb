-- SPDX-License-Identifier: Apache-2.0
-- The verbs of the cloud, OSS and log libraries against the sandbox, in a process of its own.
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local process = require "eirun.core.process"

local function run()
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local done = process.run { "/proc/self/exe", "--sandbox=" .. dir, "--output", "jsonl", "tests/playbooks/verbs.lua", timeout = 60 }
  fs.remove(dir, { recursive = true })
  local last
  for line in done.stdout:gmatch("[^\n]+") do last = json.decode(line) end
  t.eq(done.code, 0, done.stdout .. done.stderr)
  return last.result
end

t.test("each_verb_speaks_the_services_protocol", function()
  local seen = run()
  t.eq(seen.bucket, json.array { "created", "unchanged" })
  t.eq({ seen.objects.text, seen.objects.signed, seen.objects.gone, #seen.objects.keys, seen.objects.keys[1].key },
    { "hello", "hello", true, 1, "a b+c/é.txt" })
  t.eq({ seen.objects.head.size, seen.objects.head.etag }, { 5, "5D41402ABC4B2A76B9719D911017C592" })
  t.eq({ seen.objects.twice.kind, seen.objects.twice.code }, { "conflict", "FileAlreadyExists" })
  t.eq({ seen.arn, seen.nodes, seen.logs.v1, seen.logs.v4 }, { "acs:ram::1234567890123456:root", 2, 0, 0 })
  t.ok(seen.spot > 0 and seen.spot < seen.on_demand, "spot is cheaper")
end)

t.test("each_service_tells_its_failures_in_one_shape", function()
  local seen = run()
  local expected = {
    unknown_cluster = { "not_found", "ErrorClusterNotFound" }, unknown_action = { "invalid", "InvalidAction.NotFound" },
    unknown_bucket = { "not_found", "NoSuchBucket" }, unknown_project = { "not_found", "ProjectNotExist" },
    bad_query = { "invalid", "ParameterInvalid" },
  }
  for name, row in pairs(expected) do
    t.eq({ seen[name].kind, seen[name].code }, row, name)
    t.ok(seen[name].request_id, name .. " has a request id")
  end
end)
