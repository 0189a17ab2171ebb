-- SPDX-License-Identifier: Apache-2.0
-- `eirun gpu` as somebody types it: words that contradict each other, terminals of any size, drivers that end in the middle.
local fs = require "eirun.core.fs"
local gpu_cli = require "eirun.cli.gpu"
local json = require "eirun.core.json"
local lib = require "lib_gpu"
local printable = require "eirun.gpu.printable"
local process = require "eirun.core.process"
local t = require "eirun.test"

local program, fakes, run = lib.program, lib.fakes, lib.run

t.test("gpu_words_that_would_do_nothing_are_wrong_usage", function()
  for _, words in ipairs { { "--count", "2" }, { "--query", "" }, { "--query", "," }, { "processes", "--query", "name" },
    { "topo", "--query-gpu=name" }, { "--format=noheader" }, { "--format=csv", "-o", "json" } } do
    t.eq(run("devices=1", words).code, 64, table.concat(words, " "))
  end
  t.eq(run("devices=1", { "topo", "--format=csv,noheader" }).stdout, "GPU0, X, 0\n")
end)

t.test("gpu_query_takes_timestamp_as_nvidia_smi_does", function()
  local text = run("devices=2", { "--query-gpu=timestamp,index,pcie.link.gen.gpucurrent", "--format=csv" }).stdout
  t.match(text, "^timestamp, index, pcie.link.gen.gpucurrent\n%d%d%d%d/%d%d/%d%d %d%d:%d%d:%d%d%.%d%d%d, 0, 4\n")
end)

t.test("gpu_events_without_a_driver_are_none_unless_it_is_required", function()
  for _, case in ipairs { { "", "none" }, { "devices=0" }, { "devices=1", "old" } } do
    local result = run(case[1], { "events", "-o", "csv" }, case[2])
    t.eq({ result.code, result.stdout }, { 0, "time, kind, gpu, uuid, xid, text\n" })
    t.ok(result.stderr ~= "", "it says why")
    t.eq(run(case[1], { "events", "--require" }, case[2]).code, 1)
  end
end)

t.test("gpu_driver_that_ends_its_events_costs_neither_verdict_nor_metrics", function()
  local result = run("devices=1 events=0:8:79 event_end=999", { "health", "--for", "0.2" })
  t.eq(result.code, 4)
  t.match(result.stderr, "no events are told here: the GPU driver ended its events")
  t.match(result.stdout, "XID 79, the GPU has fallen off the bus\n.*memory rows wait to be remapped")
  local folder, task = assert(fs.mkdtemp "/tmp/eirun-gpu-"), require "eirun.task"
  local function read(name) return fs.read(folder .. "/" .. name) or "" end
  local function await(name, pattern)
    for _ = 1, 300 do
      if read(name):find(pattern) then return read(name):match(pattern) end
      task.sleep(0.02)
    end
    error(name .. ": " .. read(name))
  end
  task.race { function()
      process.run { "/bin/sh", "-c", 'exec "$0" gpu metrics --listen 127.0.0.1:0 > "$1/out" 2> "$1/err"', program, folder,
        env = { EIRUN_FAKE_NVML = "devices=1 event_end=999", LD_LIBRARY_PATH = fakes .. "new" } }
    end, function()
      local port = await("out", ":(%d+)/metrics")
      await("err", "no XIDs are told here: the GPU driver ended its events")
      local client <close> = require("eirun.core.http").client()
      local answer = assert(client:request { url = ("http://127.0.0.1:%s/metrics"):format(port), timeout = 10 })
      t.match(answer.body, 'DCGM_FI_DEV_FB_USED{gpu="0",')
    end }
  assert(fs.remove(folder, { recursive = true }))
end)

t.test("gpu_names_of_programs_are_printable", function()
  for _, words in ipairs { { "processes" }, { "processes", "-o", "csv" }, { "processes", "-o", "json" }, { "top", "--count", "1" } } do
    local result = run("devices=1 odd_name=1", words)
    t.eq(result.code, 0)
    t.match(result.stdout, "/usr/bin/fake%?%?%[2J")
  end
  t.eq(printable.text "a\xc3\xa9\xff\0\xc2\x85", "a\xc3\xa9???")
end)

t.test("gpu_top_says_that_a_gpu_is_lost", function()
  t.match(run("devices=2 lost=1", { "top", "--count", "1" }).stdout, "\nGPU 1 [^\n]*  lost  ")
end)

t.test("gpu_frames_fit_the_terminal", function()
  t.eq(gpu_cli.frame("a\nb\nc\nd\n", 80, 3), "a\n... 3 more lines\n")
  t.eq(gpu_cli.frame("a\nb\n", 80, 3), "a\nb\n")
  t.eq(gpu_cli.frame("\xe2\x96\x81\xe2\x96\x82\xe2\x96\x83\nx\n", 2), "\xe2\x96\x81\xe2\x96\x82\nx\n")
  t.eq(gpu_cli.frame("a\nb\n", 5, 1), "... 2\n")
  local command = "stty rows 6 cols 30; " .. program .. " gpu top --watch=0.01 --count 2"
  local result = assert(process.run { "script", "-qec", command, "/dev/null",
    timeout = 20, env = { EIRUN_FAKE_NVML = "devices=16", LD_LIBRARY_PATH = fakes .. "new", TERM = "xterm" } })
  local frame = result.stdout:match "^\27%[H\27%[J(.-)\27%[H"
  local lines = {}
  for line in frame:gmatch "([^\r\n]+)\r?\n" do lines[#lines + 1] = line end
  t.eq({ #lines, lines[5] }, { 5, "... 47 more lines" })
  for _, line in ipairs(lines) do t.ok(utf8.len(line) <= 30, line) end
end)

t.test("gpu_json_of_processes_is_json", function()
  t.eq(json.decode(run("devices=1 odd_name=1", { "processes", "-o", "json" }).stdout)[1].name, "/usr/bin/fake??[2J")
end)
