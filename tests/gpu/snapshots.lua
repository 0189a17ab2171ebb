-- SPDX-License-Identifier: Apache-2.0
-- Run by tests/gpu/device on a machine with a GPU: what snapshots cost inside a process that goes on.
local fs = require "eirun.core.fs"
local gpu = require "eirun.gpu"
local os_core = require "eirun.core.os"
local t = require "eirun.test"
local task = require "eirun.task"
local term = require "eirun.core.term"

local function say(format, ...)
  term.write(1, format:format(...) .. "\n")
end

local function timed(opts)
  local from = os_core.monotonic()
  gpu.snapshot(opts)
  return (os_core.monotonic() - from) * 1000
end

-- Resident bytes as the kernel counts them page by page: statm's sum is out by up to 32 pages a processor.
local function rss()
  local kib = (fs.read "/proc/self/smaps_rollup" or ""):match "\nRss:%s+(%d+) kB"
  return kib and math.tointeger(kib) * 1024 or os_core.rss()
end

local function median(list)
  table.sort(list)
  return list[(#list + 1) // 2]
end

t.test("snapshots_in_a_process_that_goes_on", function()
  say("first_ms %.2f", timed())
  for _, case in ipairs { { "usual" }, { "three", { fields = { "name", "memory_used", "utilization_gpu" } } },
    { "utilization", { fields = { "utilization_gpu", "memory_used", "power", "temperature" } } },
    { "processes", { processes = true } }, { "everything", { fields = gpu.fields(), processes = true, samples = true } } } do
    local list = {}
    for i = 1, 8 do
      task.sleep(0.3) -- the driver keeps its own values for a moment: back to back would flatter
      list[i] = timed(case[2])
    end
    say("%s_ms %.2f", case[1], median(list))
  end
end)

t.test("ten_thousand_snapshots_do_not_grow", function()
  for _ = 1, 3000 do gpu.snapshot { processes = true } end -- until the collector, which a young state goes without, has been round
  collectgarbage()
  local before, rough, from = rss(), os_core.rss(), os_core.monotonic()
  for _ = 1, 10000 do gpu.snapshot { processes = true } end
  collectgarbage()
  local growth = rss() - before
  say("ten_thousand_s %.1f", os_core.monotonic() - from)
  say("growth_bytes %d", growth)
  say("growth_by_statm_bytes %d", os_core.rss() - rough)
  t.ok(growth < 1 << 20, ("grew by %d bytes"):format(growth))
end)
