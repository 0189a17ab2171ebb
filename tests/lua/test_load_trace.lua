-- SPDX-License-Identifier: Apache-2.0
local fs = require "eirun.core.fs"
local phases = require "eirun.load.phases"
local t = require "eirun.test"
local trace = require "eirun.load.trace"

local dir

-- A trace file with this text.
local function file(text)
  dir = dir or assert(fs.mkdtemp "/tmp/eirun-test-trace-")
  local path = dir .. "/trace.csv"
  assert(fs.write(path, text))
  return path
end

local function read(text, opts)
  opts = opts or {}
  opts.file = file(text)
  return trace.read(opts)
end

local function round(list)
  local out = {}
  for i, value in ipairs(list) do out[i] = math.floor(value * 1e6 + 0.5) / 1e6 end
  return out
end

t.test("stamps_with_seven_digits_cr_lf_and_no_last_line_end_are_read", function()
  local text = "TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-11-16 23:59:59.9799600,4808,10\r\n2023-11-17 00:00:00.0319600,3180,8\r\n"
    .. "2023-11-17 00:01:00.4799600,1,1"
  local plan = read(text)
  t.eq(round(plan.instants), { 0.0, 0.052, 60.5 })
  t.eq(plan.pieces, nil)
end)

t.test("milliseconds_are_known_by_the_columns_name", function()
  t.eq(round(read("timestamp_ms,input_tokens\n0,1\n250,2\n250,2\n1500,3\n").instants), { 0.0, 0.25, 0.25, 1.5 })
end)

t.test("rates_by_interval_become_pieces", function()
  local plan = read("time_s,rate_rps,active_clients\n0,10.5,3\n600,0,1\n1200,20,2\n")
  for i, expected in ipairs { { 10.5, 10.5, 600.0 }, { 0.0, 0.0, 600.0 }, { 20.0, 20.0, 600.0 } } do
    t.eq(round(plan.pieces[i]), expected)
  end
  t.eq(plan.seconds, 1800.0)
end)

t.test("counts_by_interval_become_rates_and_gaps_stay_silent", function()
  local text = "timestamp,value\n2014-04-10 00:00:00,30.0\n2014-04-10 00:05:00,60\n2014-04-10 00:20:00,90\n2014-04-10 00:25:00,0\n"
  local plan = read(text)
  t.eq(round(plan.pieces[1]), { 0.1, 0.1, 300.0 })
  t.eq(round(plan.pieces[2]), { 0.2, 0.2, 300.0 })
  t.eq(round(plan.pieces[3]), { 0.0, 0.0, 600.0 })
  t.eq(round(plan.pieces[4]), { 0.3, 0.3, 300.0 })
  local requests = phases.expand({ { kind = "trace", file = file(text) } }).requests
  t.ok(math.abs(requests - 180) < 1e-9, requests)
end)

t.test("speed_scale_and_window_shape_the_replay", function()
  local plan = read("time_s,rate_rps\n0,10\n600,20\n1200,30\n", { speed = 10, scale = 0.5, from = 300, to = 1300 })
  t.eq(plan.pieces, { { 50.0, 50.0, 30.0 }, { 100.0, 100.0, 60.0 }, { 150.0, 150.0, 10.0 } })
  t.eq(plan.seconds, 100.0)
  local stamps = "timestamp_ms\n0\n1000\n2000\n3000\n"
  t.eq(round(read(stamps, { scale = 2 }).instants), { 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.0 })
  t.eq(round(read(stamps, { scale = 0.5, speed = 2 }).instants), { 0.0, 1.0 })
  t.eq(round(read(stamps, { from = 0.5, to = 2.5 }).instants), { 0.5, 1.5 })
end)

t.test("columns_may_be_named_and_quoted", function()
  local text = '"when","how, many"\n0,"4"\n10,"6"\n'
  local plan = read(text, { time = "when", count = "how, many" })
  t.eq(round(plan.pieces[1]), { 0.4, 0.4, 10.0 })
  t.match(t.err("invalid", read, text, { time = "whn" }).message, "no column 'whn': its columns are when, how, many")
  t.match(t.err("invalid", read, text).message, "no column looks like a time")
end)

t.test("blanks_around_a_columns_name_are_none_of_it", function()
  t.eq(round(read("time_s , qps\n0, 4\n10, 6\n").pieces[2]), { 6.0, 6.0, 10.0 })
end)

t.test("a_malformed_line_is_named_by_file_line_and_column", function()
  local cases = {
    { "time_s,rate_rps\n0,10\n600,abc\n", 3, 5, "'abc' is not a number" }, { "time_s,rate_rps\n0,-1\n", 2, 3, "not a number from 0" },
    { "time_s,rate_rps\n0,nan\n", 2, 3, "not a number" }, { "time_s,rate_rps\n0,10\n\n600\n", 4, 1, "1 fields where the header has 2" },
    { "time_s,rate_rps\n10,1\n5,1\n", 3, 1, "before that of the line above" }, { "timestamp\n2014-13\n", 2, 1, "'2014%-13' is not a time" },
    { "timestamp\n2023-02-29 10:00:00\n", 2, 1, "'2023%-02%-29 10:00:00' is not a time" },
    { "timestamp\n2024-02-29 10:00:00\n2024-02-29 24:00:01\n", 3, 1, "is not a time" },
    { "time_s,qps\n0,1\n10,1\n10,2\n", 4, 1, "its time is that of the line above" },
    { "time_s,size\n0,67108865\n", 2, 3, "more than 64 MiB", { size = "size" } },
    { "time_s,weight\n0,1\n1,1e11\n", 3, 3, "over 50000000 requests", { weight = "weight" } },
    { 'time_s,rate_rps\n0,"1\n', 2, 3, "has no end" }, { 'time_s,rate_rps\n0,"1"2\n', 2, 6, "expected a comma" },
  }
  for _, case in ipairs(cases) do
    local err = t.err("invalid", read, case[1], case[5])
    t.match(err.message, "trace.csv:" .. case[2] .. ":" .. case[3] .. ": ")
    t.match(err.message, case[4])
  end
  t.match(t.err("invalid", read, "time_s,rate_rps\n").message, "holds no row")
  t.match(t.err("invalid", read, "time_s,rate_rps\n0,1\n10,1\n", { from = 50 }).message, "nothing lies between")
  t.match(t.err("invalid", read, "time_s\n0\n10\n", { speed = 0 }).message, "speed must be")
  t.err("not_found", trace.read, { file = "/nowhere/trace.csv" })
end)

t.test("a_trace_of_requests_stands_alone_in_its_plan", function()
  local path = file "timestamp_ms\n0\n1000\n"
  t.eq(phases.expand({ { kind = "trace", file = path } }).requests, 2)
  local both = { { kind = "trace", file = path }, { kind = "hold", rate = 1, duration = 1 } }
  t.match(t.err("invalid", phases.expand, both).message, "only phase")
  t.match(t.err("invalid", phases.expand, { { kind = "trace", file = path, duration = 5 } }).message, "duration of its own")
  assert(fs.remove(dir, { recursive = true }))
end)
