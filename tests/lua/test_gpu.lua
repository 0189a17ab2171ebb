-- SPDX-License-Identifier: Apache-2.0
-- eirun.gpu and `eirun gpu` against drivers that answer by script (tests/fake_nvml), in processes of their own: the driver's library
-- belongs to the process.
local fs = require "eirun.core.fs"
local gpu = require "eirun.gpu"
local json = require "eirun.core.json"
local lib = require "lib_gpu"
local os_core = require "eirun.core.os"
local process = require "eirun.core.process"
local t = require "eirun.test"

local program, fakes, run = lib.program, lib.fakes, lib.run

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
    "index, temperature.gpu\n0, 40\n1, [GPU is lost]\n2, 40\n")
  t.match(answered("devices=2 lost=1", {}), "\n1    lost ")
end)

t.test("gpu_json_has_every_field", function()
  local object = json.decode(answered("devices=16", { "-o", "json" }))
  t.eq(#object.gpus, 16)
  for _, name in ipairs(require("eirun.gpu.fields").usual) do
    t.ok(object.gpus[16][name] ~= nil and object.gpus[16][name] ~= json.null, name)
  end
  t.eq(object.gpus[16].serial, nil)
  t.eq(object.gpus[16].index, 15)
  t.eq(object.cuda, "13.0")
end)

t.test("gpu_query_all_shows_what_nvidia_smi_calls_so_and_more", function()
  local gpu0 = json.decode(answered("devices=1", { "-o", "json", "--query", "all" })).gpus[1]
  for _, name in ipairs(require("eirun.gpu.fields").names) do
    t.ok(gpu0[name] ~= nil, name)
    if name ~= "numa.node" then t.ok(gpu0[name] ~= json.null, name) end
  end
  t.eq({ gpu0["power.draw.instant"], gpu0["power.limit"], gpu0["temperature.gpu.tlimit"], gpu0["fan.speed"] }, { 186.0, 650.0, 52, 30 })
  t.eq({ gpu0["remapped_rows.pending"], gpu0["remapped_rows.histogram.none"], gpu0["energy"] }, { "Yes", 5, 5000000.0 })
  t.eq({ gpu0["utilization.gpu.average"], gpu0["utilization.gpu.peak"], gpu0["power.draw.peak"] }, { 20.0, 30, 100.03 })
  t.eq({ gpu0["clocks_event_reasons.sw_power_cap"], gpu0["clocks_event_reasons.hw_slowdown"] }, { "Active", "Not Active" })
  t.eq({ gpu0["pci.device_id"], gpu0["pci.bus"], gpu0.compute_cap, gpu0.serial }, { "0x233010DE", "0x10", "9.0", "1000" })
end)

t.test("gpu_mig_instances_are_shown_under_their_gpu", function()
  t.match(answered("devices=2 mig=2", {}), "\n  MIG 0:7  NVIDIA Fake 80GB MIG 1g%.10gb  19%.0/80%.0 GiB  MIG%-00000000[^\n]*\n  MIG 0:8 ")
  local gpus = json.decode(answered("devices=2 mig=2", { "-o", "json", "--query", "temperature.gpu" })).gpus
  t.eq({ #gpus[1].mig, #gpus[2].mig, gpus[1].mig[2].gpu_instance, gpus[1].mig[2].name, gpus[1].mig[2]["memory.total"] },
    { 2, 0, 8, "NVIDIA Fake 80GB MIG 1g.10gb", 81920 })
end)

t.test("gpu_query_alone_is_csv_and_takes_older_names", function()
  t.eq(answered("devices=1", { "--query", "clocks_throttle_reasons.hw_slowdown,remapped_rows.sbe" }),
    "clocks_throttle_reasons.hw_slowdown, remapped_rows.sbe\nNot Active, 1\n")
end)

t.test("gpu_memory_is_rounded_up_as_nvidia_smi_does", function()
  local field = require("eirun.gpu.fields").by_name["memory.used"]
  t.eq({ field.get { memory_used = 1 }, field.get { memory_used = 1 << 20 }, field.get { memory_used = (1 << 20) + 1 }, field.get {} },
    { 1, 1, 2 })
end)

t.test("gpu_asks_the_driver_only_for_what_is_shown", function()
  t.eq(answered("devices=1 hang=nvmlDeviceGetTotalEnergyConsumption", { "--query", "name,pstate" }), "name, pstate\nNVIDIA Fake 80GB, P2\n")
  t.eq(run("devices=1 hang=nvmlDeviceGetTotalEnergyConsumption", { "--query", "energy", "--timeout", "0.2" }).code, 1)
  for _, slow in ipairs { "MemoryAffinity", "PcieThroughput", "TotalEnergyConsumption" } do
    for _, words in ipairs { { "-o", "csv" }, {}, { "processes" } } do
      t.eq(run("devices=1 hang=nvmlDeviceGet" .. slow, words).code, 0, slow)
    end
  end
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
      local look = gpu.snapshot { processes = true, topology = true, instances = true, samples = true, fields = gpu.fields() }
      local device = look.devices[1]
      t.eq({ device.power, device.energy, device.performance_state, device.memory_total }, { 123.456, 5000000.0, "P2", 80 << 30 })
      t.eq(device.clock_reasons, { "power cap" })
      t.eq({ device.samples.gpu[3], device.samples.power[1][2] }, { { 1.000003, 30 }, 100.01 })
      t.eq({ gpu.snapshot().devices[1].energy, gpu.snapshot().devices[1].power }, { nil, 123.456 })
      t.eq(gpu.snapshot({ fields = { "power_instant" } }).devices[1].power_instant, 186.0)
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
      t.ok(not pcall(gpu.snapshot, { fields = { "nmae" } }))
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

t.test("gpu_metrics_of_pcie_and_nvlink_are_sums_over_the_links", function()
  local text = answered("devices=1", { "metrics" })
  local function value(name) return tonumber(text:match("\n" .. name .. "{[^}]*} (%d+)\n")) end
  t.eq({ value "DCGM_FI_PROF_PCIE_TX_BYTES", value "DCGM_FI_PROF_PCIE_RX_BYTES" }, { 1500000, 1501000 })
  t.eq(value "DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", 18 * (5000000000 << 10))
  t.eq(value "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", 10 * 17 * 18 // 2)
  t.eq(value "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", 10 * 17 * 18 // 2 + 3 * 18)
  t.eq(value "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", nil) -- one look knows no rate
  t.eq(answered("devices=1", { "metrics" }, "old"):find("NVLINK", 1, true), nil)
end)

t.test("gpu_bandwidth_of_nvlinks_is_what_went_through_since_the_last_look", function()
  local metrics = require "eirun.gpu.metrics"
  local function look(tx) return { devices = { { index = 0, nvlinks = { { tx = tx, rx = 1000000 }, { tx = tx, rx = 0 }, {} } } } } end
  local known = metrics.note_bandwidth(look(0), 10, {})
  local second = look(50000000)
  known = metrics.note_bandwidth(second, 12, known)
  t.eq(second.devices[1].nvlink_bandwidth, 50) -- 100 MB in 2 s
  t.match(metrics.write(second, "h"), "\nDCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL{[^}]*} 50\n")
  local reloaded = look(0)
  metrics.note_bandwidth(reloaded, 14, known)
  t.eq(reloaded.devices[1].nvlink_bandwidth, nil)
end)

t.test("gpu_metrics_escape_labels", function()
  local text = require("eirun.gpu.metrics").write({ devices = { { index = 0, name = 'a"b\\c\nd', temperature = 1 } } }, "h")
  t.match(text, 'modelName="a\\"b\\\\c\\nd"')
end)

t.test("gpu_processes_as_csv_are_those_of_query_compute_apps", function()
  local text = answered("devices=1", { "processes", "-o", "csv" })
  t.match(text, "^gpu, gpu_uuid, pid, process_name, used_gpu_memory %[MiB%], sm %[%%%], mem %[%%%], container, pod\n"
    .. "0, GPU%-00000000%S+, %d+, /usr/bin/fake, 1 MiB, 33 %%, 4 %%, , \n")
  t.match(text, ", %[N/A%], %[N/A%], %[N/A%], , \n$")
end)

t.test("gpu_top_and_watch_end_after_their_count", function()
  local _, frames = answered("devices=1", { "top", "--count", "3", "--watch=0.01" }):gsub("CUDA", "")
  t.eq(frames, 3)
  local _, lists = answered("devices=1", { "--count", "2", "--watch=0.01" }):gsub("CUDA", "")
  t.eq(lists, 2)
end)

t.test("gpu_that_goes_on_ends_when_nobody_reads_it", function()
  for _, words in ipairs { "--watch=0.01 -o csv --query pstate", "top --watch=0.01", "topo --watch=0.01" } do
    local result = assert(process.run { "/bin/sh", "-c", '"$0" gpu ' .. words .. " | head -n 1 >/dev/null", program, timeout = 10,
      env = { EIRUN_FAKE_NVML = "devices=1", LD_LIBRARY_PATH = fakes .. "new" } })
    t.match(result.stderr, "broken pipe", words)
  end
  local full = assert(process.run { "/bin/sh", "-c", '"$0" gpu -o csv > /dev/full', program, timeout = 10,
    env = { EIRUN_FAKE_NVML = "devices=1", LD_LIBRARY_PATH = fakes .. "new" } })
  t.eq(full.code, 1)
  t.match(full.stderr, "no space left on device")
end)

t.test("gpu_takes_the_words_of_scripts_for_nvidia_smi", function()
  t.eq(answered("devices=1", { "--query-gpu=name,memory.used,power.draw,fan.speed", "--format=csv,noheader,nounits" }),
    "NVIDIA Fake 80GB, 19456, 123.46, 30\n")
  t.eq(answered("devices=1", { "--query-gpu=memory.used", "--format=csv,nounits" }), "memory.used [MiB]\n19456\n")
  t.eq(answered("devices=1", { "--query-gpu=memory.reserved", "--format=csv,noheader" }, "old"), "[N/A]\n")
  t.match(answered("devices=1", { "processes", "--format=csv,noheader,nounits" }), "^0, GPU%-%S+, %d+, /usr/bin/fake, 1, 33, 4, , \n")
  t.match(run("", { "--format=xml" }).stderr, "%-%-format is csv, noheader or nounits")
end)

t.test("gpu_csv_that_goes_on_has_its_head_once", function()
  t.eq(answered("devices=1", { "-o", "csv", "--query", "pstate", "--watch=0.01", "--count", "3" }), "pstate\nP2\nP2\nP2\n")
  t.eq(answered("devices=1", { "top", "-o", "csv", "--query", "pstate", "--watch=0.01", "--count", "2" }), "pstate\nP2\nP2\n")
  local _, heads = answered("devices=1", { "processes", "-o", "csv", "--watch=0.01", "--count", "2" }):gsub("gpu_uuid", "")
  t.eq(heads, 1)
end)

-- In a terminal, as somebody who looks at it has one.
t.test("gpu_frames_are_drawn_over_each_other_where_somebody_looks", function()
  local result = assert(process.run { "script", "-qec", program .. " gpu top --watch=0.01 --count 2", "/dev/null", timeout = 20,
    env = { EIRUN_FAKE_NVML = "devices=1", LD_LIBRARY_PATH = fakes .. "new", TERM = "xterm" } })
  local _, frames = result.stdout:gsub("\27%[H\27%[J", "")
  t.eq(frames, 2, result.stdout)
end)

t.test("gpu_topology_as_json_and_csv", function()
  local look = json.decode(answered("devices=2", { "topo", "-o", "json" }))
  t.eq({ look.links[1][2].path, look.links[1][2].nvlink, look.links[1][1].path }, { "NV12", true, "X" })
  t.eq({ #look.gpus[1].nvlinks, look.gpus[1]["pci.bus_id"] }, { 18, "00000000:10:00.0" })
  t.eq(look.gpus[2].nvlinks[2], { link = 1, active = true, version = "4.0", speed = 26562, remote = "00000000:10:00.0", remote_gpu = 0,
    remote_kind = "GPU", tx = 5000000000 << 10, rx = 6000000000 << 10, replay_errors = 10, recovery_errors = 11, crc_flit_errors = 12,
    crc_data_errors = 13, crc_errors = 7 })
  t.eq({ look.gpus[1].nvlinks[13].active, look.gpus[1].nvlinks[7].remote_kind, look.gpus[1].nvlinks[7].remote_gpu }, { false, "switch" })
  t.eq(answered("devices=2", { "topo", "-o", "csv" }), "gpu, GPU0, GPU1, NUMA\nGPU0, X, NV12, 0\nGPU1, NV12, X, 0\n")
  t.match(answered("devices=2", { "topo", "-o", "wide" }),
    "\nGPU1  5     active    4%.0      26562  GPU0 00000000:10:00%.0    4768%.4    5722%.0        50       51          7\n")
  t.match(answered("devices=1", { "topo", "-o", "wide" }), "\nGPU0  10    active    4%.0      26562  switch  ")
  t.match(answered("devices=1 fail=nvmlDeviceGetFieldValues:3", { "topo", "-o", "wide" }), "  n/a           50       51          105\n")
end)

t.test("gpu_nvlinks_that_the_driver_does_not_know_are_no_failure", function()
  t.eq(json.decode(answered("devices=2", { "topo", "-o", "json" }, "old")).gpus[1].nvlinks, json.array {})
  for _, call in ipairs { "Version", "RemoteDeviceType", "RemotePciInfo_v2", "ErrorCounter" } do
    local look = json.decode(answered("devices=1 fail=nvmlDeviceGetNvLink" .. call .. ":3", { "topo", "-o", "json" }))
    t.eq(#look.gpus[1].nvlinks, 18, call)
  end
  local bare = json.decode(answered("devices=1 fail=nvmlDeviceGetFieldValues:13", { "topo", "-o", "json" })).gpus[1].nvlinks[1]
  t.eq({ bare.tx, bare.speed, bare.active }, { nil, nil, true })
  t.eq(json.decode(answered("devices=1 fail=nvmlDeviceGetNvLinkState:3", { "topo", "-o", "json" })).gpus[1].nvlinks, json.array {})
end)

t.test("gpu_traffic_of_pcie_and_nvlink", function()
  t.eq(answered("devices=1", { "--query", "pcie.tx,pcie.rx,nvlink.speed,nvlink.tx,nvlink.rx" }),
    "pcie.tx [KB/s], pcie.rx [KB/s], nvlink.speed [MB/s], nvlink.tx [MiB], nvlink.rx [MiB]\n"
    .. "1500 KB/s, 1501 KB/s, 26562 MB/s, 58593750 MiB, 70312500 MiB\n")
  t.match(answered("devices=1 fail=nvmlDeviceGetPcieThroughput:3", { "--query", "pcie.tx" }), "\n%[N/A%]\n")
  t.match(answered("devices=1", { "--query", "pcie.tx,nvlink.tx" }, "old"), "\n%[N/A%], %[N/A%]\n")
  t.eq(answered("devices=1 hang=nvmlDeviceGetPcieThroughput", { "-o", "csv", "--query", "pstate" }), "pstate\nP2\n")
end)

t.test("gpu_wrong_words_are_wrong_usage", function()
  for _, words in ipairs { { "lists" }, { "list", "x" }, { "--query", "nam" }, { "--timeout", "no" }, { "--timeout", "nan" },
    { "--count", "0" }, { "-o", "xml" }, { "events", "--kinds", "xids" }, { "events", "x" }, { "metrics", "--listen", "a:b" },
    { "health", "--for", "-1" }, { "health", "-o", "csv" }, { "events", "--query", "name" } } do
    t.eq(run("", words).code, 64, table.concat(words, " "))
  end
  t.match(run("", { "--query", "memory.usd" }).stderr, "did you mean 'memory.used'")
end)

t.test("gpu_loads_neither_libcurl_nor_openssl_nor_sqlite", function()
  local result = assert(process.run { "/bin/sh", "-c",
    [[LD_DEBUG=files "$0" gpu 2>&1 | grep -c "file=lib\(curl\|ssl\|crypto\|sqlite3\|nghttp2\|isal\)"]], program, timeout = 20,
    env = { EIRUN_FAKE_NVML = "devices=1", LD_LIBRARY_PATH = fakes .. "new" } })
  t.eq(result.stdout, "0\n")
end)

-- Events ------------------------------------------------------------------------------------------------------------------

t.test("gpu_events_are_told_with_the_words_of_their_xid", function()
  local result = run("devices=2 events=1:8:79,0:2:0", { "events", "--count", "2", "-o", "json" })
  t.eq(result.code, 0, result.stderr)
  local first, second = result.stdout:match "([^\n]+)\n([^\n]+)\n$"
  first, second = json.decode(first), json.decode(second)
  t.eq({ first.kind, first.xid, first.gpu, first.text, first.uuid },
    { "xid", 79, 1, "GPU 1: XID 79, the GPU has fallen off the bus", "GPU-00000001-0000-0000-0000-000000000000" })
  t.eq({ second.kind, second.gpu, second.xid }, { "ecc_uncorrected", 0 })
end)

t.test("gpu_events_as_csv_and_wide", function()
  local csv = run("devices=2 events=1:8:79", { "events", "--count", "1", "-o", "csv" })
  t.match(csv.stdout,
    "^time, kind, gpu, uuid, xid, text\n%S+, xid, 1, GPU%-00000001%S+, 79, GPU 1: XID 79; the GPU has fallen off the bus\n$")
  local wide = run("devices=2 events=1:8:79", { "events", "--count", "1", "-o", "wide", "--watch" })
  t.match(wide.stdout, "^%S+  xid              GPU%-00000001%S+  GPU 1: XID 79, the GPU has fallen off the bus\n$")
end)

t.test("gpu_events_end_after_their_time", function()
  local result = run("devices=1", { "events", "--for", "0.2" })
  t.eq({ result.code, result.stdout }, { 0, "" })
end)

t.test("gpu_events_without_a_driver_or_by_an_old_one_say_so", function()
  t.match(run("", { "events" }, "none").stderr, "no NVIDIA driver here")
  t.match(run("", { "events" }, "old").stderr, "this GPU driver tells no events")
  t.match(run("devices=1 fail=nvmlDeviceRegisterEvents:3", { "events" }).stderr, "no GPU here tells events")
  t.match(run("devices=1 event_end=999", { "events" }).stderr, "the GPU driver ended its events: unknown error %(code 999%)")
  t.eq(run("devices=1 fail=nvmlEventSetCreate:4", { "events" }).code, 1)
end)

t.test("gpu_events_of_a_lost_gpu_name_it_once", function()
  local result = run("devices=2 lost=1 event_lost=1", { "events", "--for", "1.5" })
  t.match(result.stdout, "^%S+  GPU 1: the GPU is lost\n$")
end)

t.test("gpu_events_yield_and_close", function()
  run_test("devices=2 events=0:8:13", [[
    t.test("others_run_meanwhile", function()
      local events <close> = gpu.events()
      t.eq(events:next().xid, 13)
      local ticks = 0
      task.together(function(all)
        all(function() t.eq(events:next(0.1), nil) end)
        all(function() for _ = 1, 5 do task.sleep(0.01); ticks = ticks + 1 end end)
      end)
      t.eq(ticks, 5)
      t.eq(events:dropped(), 0)
    end)
    t.test("close_wakes_who_waits", function()
      local events = gpu.events()
      events:next()
      task.together(function(all)
        all(function() t.eq(events:next(), nil) end)
        all(function() task.sleep(0.02); events:close(); events:close() end)
      end)
      t.eq(events:next(), nil)
    end)
    t.test("many_watches_may_be_left_to_the_collector", function()
      for _ = 1, 20 do gpu.events() end
      collectgarbage()
    end)]])
end)

-- Health -------------------------------------------------------------------------------------------------------------------

local function rules_of(findings)
  local list = {}
  for i, one in ipairs(findings) do list[i] = one.severity .. " " .. one.rule end
  return list
end

local function device(fields)
  local whole = { index = 0, lost = false, processes = {} }
  for key, value in pairs(fields) do whole[key] = value end
  return whole
end

t.test("gpu_health_finds_nothing_in_a_gpu_that_is_well", function()
  local well = device { ecc_uncorrected = 0, ecc_corrected = 5, remapped_pending = 0, clock_reason_bits = 0x4, pcie_width = 16,
    pcie_width_max = 16 }
  t.eq(gpu.health { look = { devices = { well } }, before = { devices = { well } } }, {})
end)

t.test("gpu_health_judges_by_rules_and_names_node_and_pods", function()
  local before = { devices = { device { ecc_corrected = 5 } } }
  local look = { devices = {
    device { ecc_corrected = 9, remapped_pending = 1, clock_reason_bits = 0x48, temperature = 91,
      processes = { { pod = "uid-1" }, { pod = "uid-1" }, {} } },
    device { index = 1, lost = true }, device { index = 2, remapped_failure = 1, ecc_uncorrected = 2 },
    device { index = 3, clock_reason_bits = 0x88 } } }
  local events = { { kind = "xid", xid = 94, index = 0 }, { kind = "xid", xid = 94, index = 0 }, { kind = "xid", xid = 31, index = 2 },
    { kind = "clock", index = 0 } }
  local findings = gpu.health { look = look, before = before, events = events, node = "n1" }
  t.eq(rules_of(findings), { "fatal lost", "fatal ecc_uncorrected", "fatal remap_failure", "warning ecc_growth", "warning remap_pending",
    "warning thermal_slowdown", "warning xid", "warning power_brake", "notice xid" })
  t.eq({ findings[4].text, findings[4].node, findings[4].pods, findings[4].drain },
    { "GPU 0: 4 more memory errors were corrected", "n1", { "uid-1" }, false })
  t.eq({ findings[7].times, findings[7].xid, findings[1].drain }, { 2, 94, true })
end)

t.test("gpu_health_has_words_for_every_xid", function()
  local rules = require "eirun.gpu.rules"
  for number = 1, 200 do
    local rule = rules.xid(number)
    t.ok(rules.order[rule.severity] and #rule.text > 5 and #rule.advice > 5, tostring(number))
  end
  t.eq({ rules.xid(79).severity, rules.xid(13).severity, rules.xid(9999).severity }, { "fatal", "notice", "warning" })
end)

t.test("gpu_health_exits_with_4_for_a_warning_or_worse", function()
  t.eq(run("devices=1", { "health" }).code, 4)
  local bad = run("devices=1 events=0:8:79", { "health", "--for", "0.2", "--node", "n1", "-o", "json" })
  t.eq(bad.code, 4)
  local object = json.decode(bad.stdout)
  t.eq({ object.gpus, object.findings[1].severity, object.findings[1].node }, { 1, "fatal", "n1" })
  local quiet = "devices=1 fail=all:3"
  t.eq({ run(quiet, { "health" }).code, run(quiet, { "health" }).stdout }, { 0, "1 GPU, nothing wrong\n" })
  t.eq(run("devices=1 fail=all:3 events=0:8:13", { "health", "--for", "0.2" }).code, 0)
  t.eq(run("devices=2 lost=1", { "health" }).code, 4)
  t.eq(run("", { "health" }, "none").code, 0)
end)

t.test("gpu_metrics_are_served", function()
  local env = { EIRUN_FAKE_NVML = "devices=1 events=0:8:79", LD_LIBRARY_PATH = fakes .. "new" }
  local folder = assert(fs.mkdtemp "/tmp/eirun-gpu-")
  local task = require "eirun.task"
  local script = 'exec "$0" gpu metrics --listen 127.0.0.1:0 > "$1/out"'
  task.race { function() process.run { "/bin/sh", "-c", script, program, folder, env = env } end,
    function()
      local port
      for _ = 1, 200 do
        port = (fs.read(folder .. "/out") or ""):match ":(%d+)/metrics"
        if port then break end
        task.sleep(0.02)
      end
      local client <close> = require("eirun.core.http").client()
      local function get(path) return assert(client:request { url = ("http://127.0.0.1:%s%s"):format(port, path), timeout = 10 }) end
      t.match(get("/metrics").body, 'DCGM_FI_DEV_FB_USED{gpu="0",')
      for _ = 1, 100 do
        if get("/metrics").body:find "DCGM_FI_DEV_XID_ERRORS{[^}]*} 79\n" then break end
        task.sleep(0.02)
      end
      t.match(get("/metrics").body, "DCGM_FI_DEV_XID_ERRORS{[^}]*} 79\n")
      t.eq({ get("/nothing").status, get("/").status }, { 404, 200 })
    end }
  assert(fs.remove(folder, { recursive = true }))
end)

-- Recorded on an H100, and on two H200, by tests/gpu/device ---------------------------------------------------------------

local recorded_in = assert(fs.realpath(program:match "^(.*)/" .. "/../../tests/data/gpu")) .. "/"
local recorded = recorded_in .. "h100/"

local function split(line)
  local cells = {}
  for cell in (line .. ", "):gmatch "(.-), " do cells[#cells + 1] = cell end
  return cells
end

-- What moves between two looks; everything else is equal to the letter.
local moving = { ["memory.used"] = true, ["memory.free"] = true, ["temperature.gpu"] = true, ["temperature.memory"] = true,
  ["temperature.gpu.tlimit"] = true, ["power.draw"] = true, ["power.draw.average"] = true, ["power.draw.instant"] = true }

local function compare_recorded(ours, head, row)
  local fields = require "eirun.gpu.fields"
  local names, cells, compared = split(head), split(row), 0
  for i, name in ipairs(names) do
    name = name:gsub(" %[.*%]$", "")
    local field, value = fields.by_name[name], ours[name]
    t.ok(field and value ~= nil, name)
    local text = value == json.null and "[N/A]" or field.format and field.format:format(value) or tostring(value)
    if value ~= json.null and field.unit then text = text .. " " .. field.unit end
    if not moving[name] then
      t.eq(text, cells[i], name)
      compared = compared + 1
    end
  end
  t.ok(compared > 80, compared .. " fields")
end

t.test("gpu_values_recorded_on_real_gpus_are_written_as_nvidia_smi_wrote_them", function()
  for folder, count in pairs { h100 = 1, ["h200-x2"] = 2 } do
    local ours = json.decode(assert(fs.read(recorded_in .. folder .. "/idle.json"))).gpus
    local head, rows = assert(fs.read(recorded_in .. folder .. "/idle.csv")):match "^([^\n]*)\n(.*)"
    local i = 0
    for row in rows:gmatch "[^\n]+" do
      i = i + 1
      compare_recorded(ours[i], head, row)
    end
    t.eq({ i, #ours }, { count, count })
  end
end)

t.test("gpu_nvlink_traffic_recorded_on_two_h200_is_what_was_copied", function()
  local text = assert(fs.read(recorded_in .. "h200-x2/metrics.txt"))
  local function value(name, index) return tonumber(text:match("\n" .. name .. '{gpu="' .. index .. '"[^}]*} (%d+)\n')) end
  -- 201 GiB were copied from GPU 0 to GPU 1; each of 18 links tells whole KiB.
  for i, name in ipairs { "DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", "DCGM_FI_DEV_NVLINK_COUNT_RX_BYTES" } do
    local short = (201 << 30) - value(name, i - 1)
    t.ok(short >= 0 and short < 18 << 10, ("%s: %d bytes short"):format(name, short))
  end
  t.eq({ value("DCGM_FI_DEV_NVLINK_COUNT_TX_BYTES", 1), value("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", 0) }, { 0, 0 })
end)

t.test("gpu_metrics_recorded_on_an_h100_are_read_by_the_cluster_view", function()
  local devices, bad = require("eirun.gpu.sources").devices(assert(fs.read(recorded .. "metrics.txt")))
  t.eq({ #devices, bad, devices[1].model, devices[1].index, devices[1].xid }, { 1, 0, "NVIDIA H100 80GB HBM3", 0, 0 })
  t.ok(devices[1].utilization > 50 and devices[1].memory_used > 2 << 30 and devices[1].power > 200, "it was busy")
  local load = json.decode(assert(fs.read(recorded .. "processes.json")))[1]
  t.eq({ load.name, load.type, load.sm > 50, load.memory }, { "/opt/load", "C", true, 2566 << 20 })
end)
