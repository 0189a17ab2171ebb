-- SPDX-License-Identifier: Apache-2.0
-- 300 MB into the sandbox's OSS by runs of their own: once, again, and after a kill in the middle.
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local process = require "eirun.core.process"

local MB = 1000000

local function run(dir, env, ...)
  local argv = { "/proc/self/exe", "--sandbox=" .. dir .. "/sandbox", "--output", "jsonl", "tests/playbooks/tree.lua",
    "from=" .. dir .. "/model", ... }
  argv.timeout, argv.env = 100, env
  local done = assert(process.run(argv))
  local last, outcome = nil, nil
  for line in done.stdout:gmatch("[^\n]+") do
    last = assert(json.decode(line))
    if last.event == "step" and last.name == "tree" then outcome = last.outcome end
  end
  return { code = done.code, signal = done.signal, outcome = outcome, result = (last or {}).result or {},
    text = done.stdout .. done.stderr }
end

-- Two shards large enough for many parts, and a crowd of middling and small files.
local function make_model(dir)
  assert(fs.mkdir(dir .. "/model/variables", { parents = true }))
  assert(fs.write(dir .. "/model/saved_model.pb", "the graph"))
  for i = 1, 2 do
    local shard = ("%s/model/variables/variables.data-0000%d-of-00002"):format(dir, i)
    for piece = 1, 10 do assert(fs.append(shard, (("shard %d piece %04d."):format(i, piece)):rep(10 * MB // 19))) end
  end
  for i = 1, 20 do
    assert(fs.write(("%s/model/variables/table-%02d"):format(dir, i), (("table %02d."):format(i)):rep(5 * MB // 9)))
  end
end

local function with_model(body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local ok, err = pcall(function()
    make_model(dir)
    body(dir)
  end)
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

t.test("300_megabytes_arrive_whole_and_are_not_sent_twice", function()
  with_model(function(dir)
    local shard = "variables/variables.data-00002-of-00002"
    local first = run(dir, nil, "fetch=" .. shard, "into=" .. dir .. "/back")
    t.eq({ first.code, first.outcome, first.result.files }, { 0, "created", 23 }, first.text)
    t.ok(first.result.bytes > 295 * MB, first.result.bytes)
    local sums = { assert(fs.digest(dir .. "/back", { "md5" })).md5, assert(fs.digest(dir .. "/model/" .. shard, { "md5" })).md5 }
    t.eq(sums[1] == sums[2], true)
    t.eq(run(dir).outcome, "unchanged")
  end)
end)

t.test("an_upload_that_is_killed_is_finished_by_the_next_run", function()
  with_model(function(dir)
    local killed = run(dir, { EIRUN_KILL_AT = "150" })
    t.eq(killed.signal, 9, killed.text)
    local again = run(dir)
    t.eq({ again.code, again.outcome }, { 0, "updated" }, again.text)
    t.eq(run(dir).outcome, "unchanged")
  end)
end)
