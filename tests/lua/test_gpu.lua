-- SPDX-License-Identifier: Apache-2.0
-- eirun.gpu and `eirun gpu` against drivers that answer by script (tests/fake_nvml), in processes of their own: the driver's library
-- belongs to the process.
local fs = require "eirun.core.fs"
local gpu = require "eirun.gpu"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"
local process = require "eirun.core.process"
local t = require "eirun.test"

local program = assert(fs.realpath("/proc/self/exe"))
local fakes = program:match("^(.*)/") .. "/tests/fake_nvml/"

local function run(script, words, age)
  local call = { program, "gpu", timeout = 20, env = { EIRUN_FAKE_NVML = script, LD_LIBRARY_PATH = fakes .. (age or "new") } }
  table.move(words, 1, #words, 3, call)
  return assert(process.run(call))
end

local function answered(script, words, age)
  local result = run(script, words, age)
  t.eq(result.stderr, "")
  t.eq(result.code, 0)
  return result.stdout
end

t.test("gpu_csv_speaks_as_nvidia_smi_does", function()
  local text = answered("devices=1", { "-o", "csv", "--query",
    "index,name,pci.bus_id,memory.total,memory.used,utilization.gpu,power.draw,clocks.sm,pstate,compute_mode,ecc.mode.current" })
  t.eq(text, "index, name, pci.bus_id, memory.total [MiB], memory.used [MiB], utilization.gpu [%], power.draw [W], clocks.sm [MHz], "
    .. "pstate, compute_mode, ecc.mode.current\n"
    .. "0, NVIDIA Fake 80GB, 00000000:10:00.0, 81920 MiB, 19456 MiB, 37 %, 123.46 W, 1001 MHz, P2, Exclusive_Process, Enabled\n")
end)

t.test("gpu_fields_that_an_old_driver_lacks_are_not_available", function()
  t.eq(answered("devices=1", { "-o", "csv", "--query", "memory.used,memory.reserved,mig.mode.current" }, "old"),
    "memory.used [MiB], memory.reserved [MiB], mig.mode.current\n20480 MiB, [N/A], [N/A]\n")
  local object = json.decode(answered("devices=1", { "-o", "json" }, "old"))
  t.eq(object.gpus[1]["memory.reserved"], json.null)
  t.eq(object.gpus[1]["memory.used"], 20480)
end)

t.test("gpu_that_is_lost_is_said_and_the_others_are_shown", function()
  t.eq(answered("devices=3 lost=1", { "-o", "csv", "--query", "index,temperature.gpu" }),
    "index, temperature.gpu\n0, 41\n1, [GPU is lost]\n2, 41\n")
  t.match(answered("devices=2 lost=1", {}), "\n1    lost ")
end)

t.test("gpu_json_has_every_field", function()
  local object = json.decode(answered("devices=16", { "-o", "json" }))
  t.eq(#object.gpus, 16)
  for _, name in ipairs(require("eirun.gpu.fields").names) do t.ok(object.gpus[16][name] ~= json.null, name) end
  t.eq(object.gpus[16].index, 15)
  t.eq(object.cuda, "13.0")
end)

t.test("gpu_without_a_driver_is_an_empty_list", function()
  local plain = run("", {}, "none")
  t.eq(plain.code, 0)
  t.eq(plain.stdout, "")
  t.match(plain.stderr, "^eirun: no NVIDIA driver here")
  t.eq(json.decode(run("", { "-o", "json" }, "none").stdout).gpus, json.array {})
  t.eq(run("", { "-o", "csv", "--query", "name" }, "none").stdout, "name\n")
  t.eq(run("", { "--require" }, "none").code, 1)
  t.eq(run("devices=0", { "--require" }).code, 1)
  t.eq(run("fail=nvmlInit_v2:9", {}).code, 0)
end)

t.test("gpu_driver_that_is_broken_is_an_error", function()
  local result = run("fail=nvmlInit_v2:18", {})
  t.eq(result.code, 1)
  t.match(result.stderr, "driver and library differ in version")
end)

t.test("gpu_driver_that_hangs_is_given_up", function()
  for _, call in ipairs { "nvmlInit_v2", "nvmlDeviceGetCount_v2", "nvmlDeviceGetMemoryInfo_v2" } do
    local started = os_core.monotonic()
    local result = run("hang=" .. call, { "--timeout", "0.2" })
    t.eq(result.code, 1)
    t.match(result.stderr, "did not answer within 0.2 s")
    t.ok(os_core.monotonic() - started < 5, call)
  end
end)

-- A script for `eirun test` in a process that sees the fake driver.
local function run_test(script, body)
  local folder = assert(fs.mkdtemp "/tmp/eirun-gpu-")
  local head = 'local gpu, t, task = require "eirun.gpu", require "eirun.test", require "eirun.task"\n'
  assert(fs.write(folder .. "/test_x.lua", head .. body))
  local result = assert(process.run { program, "test", folder .. "/test_x.lua", timeout = 30,
    env = { EIRUN_FAKE_NVML = script, LD_LIBRARY_PATH = fakes .. "new" } })
  assert(fs.remove(folder, { recursive = true }))
  t.eq(result.code, 0, result.stdout .. result.stderr)
end

t.test("gpu_driver_that_hangs_blocks_nobody_else", function()
  run_test("hang=nvmlDeviceGetName", [[
    t.test("others_run", function()
      local ticks = 0
      task.together(function(all)
        all(function() t.err("timeout", function() gpu.snapshot { timeout = 0.2 } end) end)
        all(function() for _ = 1, 10 do task.sleep(0.01); ticks = ticks + 1 end end)
      end)
      t.eq(ticks, 10)
    end)
    t.test("a_cancel_ends_the_wait", function()
      t.err("timeout", function() task.timeout(0.05, function() gpu.snapshot { timeout = 60 } end) end)
    end)
    t.test("no_thread_is_started_once_four_hang", function()
      for _ = 1, 2 do pcall(gpu.snapshot, { timeout = 0.01 }) end
      local started = require("eirun.core.os").monotonic()
      t.err("timeout", function() gpu.snapshot { timeout = 60 } end)
      t.ok(require("eirun.core.os").monotonic() - started < 5)
    end)]])
end)

t.test("gpu_snapshot_has_units_that_people_use", function()
  run_test("devices=2 mig=2", [[
    t.test("units", function()
      local look = gpu.snapshot { processes = true, topology = true }
      local device = look.devices[1]
      t.eq({ device.power, device.energy, device.performance_state, device.memory_total }, { 123.456, 5000000.0, "P2", 80 << 30 })
      t.eq(device.clock_reasons, { "power cap" })
      t.eq({ look.cuda, #device.mig, device.mig[2].gpu_instance }, { "13.0", 2, 8 })
      t.eq({ device.processes[1].type, device.processes[1].utilization_sm, device.processes[2].memory }, { "C+G", 33, nil })
      t.eq(look.links[1][2], { ancestor = 40, nvlink = true })
    end)
    t.test("many_looks_in_a_row_and_at_once", function()
      for _ = 1, 100 do gpu.snapshot() end
      task.together(function(all) for _ = 1, 8 do all(gpu.snapshot) end end)
    end)
    t.test("unknown_options_are_misuse", function()
      t.ok(not pcall(require("eirun.core.gpu").snapshot, { time = 1 }))
    end)]])
end)

t.test("gpu_owner_of_a_process_is_read_from_its_cgroup", function()
  local id = ("0123456789abcdef"):rep(4)
  local uid = "1c2d3e4f-0000-4a5b-8c6d-0123456789ab"
  local function owner(text) return { gpu.owner(text) } end
  t.eq(owner("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" .. uid:gsub("-", "_") .. ".slice/cri-containerd-" .. id
    .. ".scope\n"), { id, uid })
  t.eq(owner("12:devices:/kubepods/besteffort/pod" .. uid .. "/" .. id .. "\n11:cpu:/x\n"), { id, uid })
  t.eq(owner("0::/system.slice/docker-" .. id .. ".scope\n"), { id })
  t.eq(owner("0::/user.slice/user-1000.slice/session-3.scope\n"), {})
  t.eq(owner(""), {})
end)

t.test("gpu_topology_names_the_nearest_link", function()
  local lines = answered("devices=16", { "topo" })
  t.match(lines, "GPU0   X%s+NV12%s+NODE")
  t.match(lines, "\nGPU15%s+SYS")
end)

t.test("gpu_metrics_carry_dcgm_exporters_names", function()
  local text = answered("devices=2", { "metrics" })
  t.match(text, '\nDCGM_FI_DEV_FB_USED{gpu="1",UUID="GPU%-00000001[^"]*",pci_bus_id="00000000:11:00.0",device="nvidia1",'
    .. 'modelName="NVIDIA Fake 80GB",Hostname="[^"]*",DCGM_FI_DRIVER_VERSION="580.95.05"} 19456\n')
  t.match(text, "# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter\n[^\n]* 5000000000\n")
  t.eq(answered("devices=1 fail=all:3", { "metrics" }), "")
end)

t.test("gpu_metrics_escape_labels", function()
  local text = require("eirun.gpu.metrics").write({ devices = { { index = 0, name = 'a"b\\c\nd', temperature = 1 } } }, "h")
  t.match(text, 'modelName="a\\"b\\\\c\\nd"')
end)

t.test("gpu_processes_as_csv_are_those_of_query_compute_apps", function()
  local text = answered("devices=1", { "processes", "-o", "csv" })
  t.match(text, "^gpu, gpu_uuid, pid, process_name, used_gpu_memory %[MiB%]\n0, GPU%-00000000%S+, %d+, /usr/bin/fake, 1 MiB\n")
  t.match(text, ", %[N/A%]\n$")
end)

t.test("gpu_top_and_watch_end_after_their_count", function()
  local _, frames = answered("devices=1", { "top", "--count", "3", "--watch=0.01" }):gsub("CUDA", "")
  t.eq(frames, 3)
  local _, lists = answered("devices=1", { "--count", "2", "--watch=0.01" }):gsub("CUDA", "")
  t.eq(lists, 2)
end)

t.test("gpu_wrong_words_are_wrong_usage", function()
  for _, words in ipairs { { "lists" }, { "list", "x" }, { "--query", "nam" }, { "--timeout", "no" }, { "--timeout", "nan" },
    { "--count", "0" }, { "-o", "xml" } } do
    t.eq(run("", words).code, 64, table.concat(words, " "))
  end
  t.match(run("", { "--query", "memory.usd" }).stderr, "did you mean 'memory.used'")
end)

t.test("gpu_does_not_load_libcurl", function()
  local result = assert(process.run { "/bin/sh", "-c", 'LD_DEBUG=files "$0" gpu 2>&1 | grep -c "file=libcurl"', program, timeout = 20,
    env = { EIRUN_FAKE_NVML = "devices=1", LD_LIBRARY_PATH = fakes .. "new" } })
  t.eq(result.stdout, "0\n")
end)
