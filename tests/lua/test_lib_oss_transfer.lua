-- SPDX-License-Identifier: Apache-2.0
-- Batches of transfers against a small OSS of the test's own that misbehaves on demand. Real clock: the threads carry the bytes.
local t = require "eirun.test"
local clock = require "eirun.core.clock"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fake = require "lib_fake"
local fs = require "eirun.core.fs"
local oss = require "eirun.oss"
local progress = require "eirun.oss.progress"
local resume = require "eirun.oss.resume"
local task = require "eirun.task"
local testing = require "eirun.core.testing"

local MIB = 1024 * 1024
local SOURCE = ("0123456789abcdef"):rep(1310720 + 3) -- 20 MiB and a little: three parts

local function refusal(status, code, message)
  return status, ("<Error><Code>%s</Code><Message>%s</Message><RequestId>R1</RequestId></Error>"):format(code, message or code)
end

local function sums_of(data)
  return { etag = '"' .. crypto.hex(crypto.md5(data)):upper() .. '"', ["x-oss-hash-crc64ecma"] = crypto.crc64_text(crypto.crc64(data)) }
end

local function read(world, call, key)
  local data = world.objects[key]
  if not data then return refusal(404, "NoSuchKey") end
  local headers = sums_of(data)
  local first, last = (call.headers:get "range" or ""):match "^bytes=(%d+)-(%d+)$"
  if call.method == "HEAD" then
    headers["content-length"] = #data
    return 200, "", headers
  end
  if not first then return 200, data, headers end
  headers["content-range"] = ("bytes %s-%s/%d"):format(first, last, #data)
  return 206, data:sub(first + 1, last + 1), headers
end

local function write(world, call, key)
  if call.query.partNumber then
    world.parts[tonumber(call.query.partNumber)] = call.body
    return 200, "", sums_of(call.body)
  elseif call.method == "POST" and call.query.uploads then
    return 200, "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>"
  elseif call.method == "POST" then
    world.objects[key] = table.concat(world.parts)
    return 200, "<CompleteMultipartUploadResult/>", sums_of(world.objects[key])
  elseif call.method == "DELETE" then
    world.deleted[#world.deleted + 1] = call.query.uploadId or key
    if not call.query.uploadId then world.objects[key] = nil end
    return 204, ""
  end
  world.objects[key] = call.body
  return 200, "", sums_of(call.body)
end

-- `world.fault(call, n)` may answer instead.
local function with(world, body)
  world.objects, world.parts, world.deleted = world.objects or {}, {}, {}
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  local function handler(call, n)
    local bucket, key = call.path:match "^/([^/]+)/(.*)$"
    key = (key or ""):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end)
    if bucket ~= "models" then return refusal(404, "NoSuchBucket") end
    if world.fault then
      local status, text, headers = world.fault(call, n, key)
      if status then return status, text, headers end
    end
    if call.query.uploads and call.method == "GET" then return 200, "<ListMultipartUploadsResult/>" end
    if call.query.uploadId and call.method == "GET" then
      return 200, "<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"
    end
    return ((call.method == "GET" or call.method == "HEAD") and read or write)(world, call, key)
  end
  fake.with(handler, function(_, seen) body(oss.bucket "models", dir, seen) end)
  fs.remove(dir, { recursive = true })
end

local function file(dir, name, data)
  assert(fs.write(dir .. "/" .. name, data))
  return dir .. "/" .. name
end

local function up(key, path, more)
  local job = { direction = "upload", key = key, path = path }
  for name, value in pairs(more or {}) do job[name] = value end
  return job
end

local function down(key, path, size) return { direction = "download", key = key, path = path, size = size } end

t.test("small_and_large_files_go_up_and_come_down_whole", function()
  local world = {}
  with(world, function(bucket, dir)
    local report = bucket:transfer { up("big", file(dir, "big", SOURCE)), up("small", file(dir, "small", "hello")), up("empty",
      file(dir, "empty", "")) }
    t.eq({ report.files, report.sent, #report.failed, report.resent }, { 3, #SOURCE + 5, 0, 0 })
    t.ok(world.objects.big == SOURCE and world.objects.small == "hello" and world.objects.empty == "", "the objects are the files")
    report = bucket:transfer { down("big", dir .. "/a/big"), down("small", dir .. "/a/small", 5), down("empty", dir .. "/a/empty", 0) }
    t.eq({ report.files, report.bytes, #report.failed }, { 3, #SOURCE + 5, 0 })
    t.ok(fs.read(dir .. "/a/big") == SOURCE and fs.read(dir .. "/a/small") == "hello", "the files are the objects")
    t.eq(fs.list(dir .. "/a"), { "big", "empty", "small" })
  end)
end)

t.test("an_iterator_gives_the_jobs_and_the_total_is_known_when_it_ends", function()
  with({}, function(bucket, dir)
    local path, n, first, last = file(dir, "x", "xyz"), 0, nil, nil
    local report = bucket:transfer(function()
      n = n + 1
      return n <= 50 and up("k" .. n, path) or nil
    end, { jobs = 4, on_progress = function(p) first, last = first or p, p end })
    t.eq({ report.files, report.bytes, last.files, last.files_total, last.bytes_total }, { 50, 150, 50, 50, 150 })
  end)
end)

t.test("a_body_changed_on_the_way_is_sent_again_and_told", function()
  local world, bad = {}, 2
  function world.fault(call, _, key)
    if call.method ~= "PUT" or bad == 0 then return nil end
    bad = bad - 1
    if key == "small" then return refusal(400, "InvalidDigest") end
    return 200, "", sums_of(call.body .. "x")
  end
  with(world, function(bucket, dir)
    local report = bucket:transfer { up("big", file(dir, "big", SOURCE)) }
    t.eq({ report.files, report.resent, report.sent }, { 1, 2, #SOURCE })
    t.match(report.notes[1].text, "arrived changed: the CRC%-64 of part %d differs")
    bad = 1
    report = bucket:transfer { up("small", file(dir, "small", "hello")) }
    t.eq({ report.files, report.resent, world.objects.small }, { 1, 1, "hello" })
  end)
end)

t.test("what_never_arrives_whole_is_not_left_behind", function()
  local world = { fault = function(call, _, key)
    if call.method == "PUT" and key == "small" then return 200, "", { ["x-oss-hash-crc64ecma"] = "1" } end
  end }
  with(world, function(bucket, dir)
    local report = bucket:transfer { up("small", file(dir, "small", "hello")) }
    t.eq({ report.files, #report.failed, report.failed[1].error.code, world.deleted[1] }, { 0, 1, "CrcMismatch", "small" })
  end)
end)

t.test("a_range_changed_on_the_way_is_read_again", function()
  local world, bad = { objects = { big = SOURCE } }, 1
  function world.fault(call, _, key)
    if call.method ~= "GET" or bad == 0 then return nil end
    bad = bad - 1
    local status, data, headers = read(world, call, key)
    return status, "X" .. data:sub(2), headers
  end
  with(world, function(bucket, dir)
    local report = bucket:transfer { down("big", dir .. "/big") }
    t.eq({ report.files, report.bytes, report.resent, #report.notes }, { 1, #SOURCE, 1, 1 })
    t.ok(fs.read(dir .. "/big") == SOURCE, "the file is the object")
  end)
end)

t.test("a_busy_service_and_cut_connections_are_asked_again", function()
  local world, count = {}, 0
  function world.fault(call)
    count = call.method == "PUT" and count + 1 or count
    if count == 1 then return refusal(503, "UploadTrafficRateLimitExceeded") end
    if count == 2 then return "abort" end
  end
  with(world, function(bucket, dir)
    local report = bucket:transfer { up("a", file(dir, "a", "hello")) }
    t.eq({ report.files, world.objects.a, count }, { 1, "hello", 3 })
  end)
end)

t.test("fewer_go_at_once_where_the_service_slows_them_down", function()
  local world, now, most, answered = {}, 0, 0, 0
  function world.fault(call)
    if call.method ~= "PUT" then return nil end
    now = now + 1
    most = answered > 30 and math.max(most, now) or most
    task.sleep(0.005)
    now, answered = now - 1, answered + 1
    local headers = sums_of(call.body)
    headers["x-oss-qos-delay-time"] = answered <= 60 and "100" or nil
    return 200, "", headers
  end
  with(world, function(bucket, dir)
    local jobs, path = {}, file(dir, "x", "x")
    for i = 1, 60 do jobs[i] = up("k" .. i, path) end
    local report = bucket:transfer(jobs, { jobs = 16, parallel = 1 })
    t.eq(report.files, 60)
    t.ok(most <= 8, most .. " at once, of 16, after the service had asked for less")
  end)
end)

t.test("a_download_that_is_cut_goes_on_where_it_stopped", function()
  local world = { objects = { big = SOURCE } }
  local ranges, cut = {}, true
  function world.fault(call, _, key)
    if call.method ~= "GET" then return nil end
    ranges[#ranges + 1] = call.headers:get "range"
    if not cut then return nil end
    cut = false
    local _, data, headers = read(world, call, key)
    call.req:start(206, { { "content-range", headers["content-range"] } })
    call.req:write(data:sub(1, 1000))
    task.sleep(0.05)
    call.req:abort()
    return "handled"
  end
  with(world, function(bucket, dir)
    local report = bucket:transfer({ down("big", dir .. "/big") }, { parallel = 1 })
    t.eq({ report.files, #report.failed }, { 1, 0 })
    t.ok(fs.read(dir .. "/big") == SOURCE, "the file is the object")
    t.eq({ ranges[1], ranges[2], #ranges }, { "bytes=0-8388607", "bytes=1000-8388607", 4 })
  end)
end)

t.test("the_servers_clock_is_followed", function()
  local world, refused = {}, 0
  function world.fault(call)
    local year, month, day, hour, minute, second = call.headers:get("x-oss-date"):match "^(%d%d%d%d)(%d%d)(%d%d)T(%d%d)(%d%d)(%d%d)Z$"
    local sent = os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second }
    local server = os.time(os.date "!*t" --[[@as table]]) + 7200
    if math.abs(server - sent) < 900 then return nil end
    refused = refused + 1
    local _, text = refusal(403, "RequestTimeTooSkewed")
    return 403, text, { date = os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 7200) }
  end
  with(world, function(bucket, dir)
    local jobs = {}
    for i = 1, 5 do jobs[i] = up("k" .. i, file(dir, "k" .. i, "x")) end
    local report = bucket:transfer(jobs, { jobs = 1 })
    t.eq({ report.files, refused }, { 5, 1 })
  end)
end)

t.test("an_error_that_all_would_meet_ends_the_batch", function()
  with({}, function(_, dir)
    local jobs, path = {}, file(dir, "x", "x")
    for i = 1, 200 do jobs[i] = up("k" .. i, path) end
    local report = oss.bucket("nobody"):transfer(jobs, { jobs = 2 })
    t.ok(#report.failed <= 8, "not all were tried")
    t.eq({ report.files, report.not_tried, report.failed[1].error.code }, { 0, 200 - #report.failed, "NoSuchBucket" })
  end)
end)

t.test("what_is_wrong_with_one_file_is_said_and_the_rest_goes_on", function()
  local world = { objects = { x = "x" } }
  with(world, function(bucket, dir)
    local report = bucket:transfer { up("dir", dir), up("none", dir .. "/none"), up("", file(dir, "a", "a")), up("/b", dir .. "/a"),
      up(("k"):rep(1024), dir .. "/a"), up("nul\0", dir .. "/a"), up("\xff", dir .. "/a"), up("../up", dir .. "/a"), up("line\nend",
        dir .. "/a"),
      up("😀", dir .. "/a"), up(("k"):rep(1023), dir .. "/a"), down("none", dir .. "/x"), down("x", dir), down("x", dir, 1) }
    local kinds = {}
    for _, failure in ipairs(report.failed) do kinds[#kinds + 1] = failure.key:sub(1, 4) .. ":" .. failure.error.kind end
    table.sort(kinds)
    t.eq(kinds, { "../u:invalid", "/b:invalid", ":invalid", "dir:invalid", "kkkk:invalid", "none:not_found", "none:not_found",
      "nul\0:invalid",
      "x:invalid", "x:invalid", "\xff:invalid" })
    t.eq({ report.files, world.objects["line\nend"], world.objects["😀"] }, { 3, "a", "a" })
    t.eq(fs.list(dir), { "a" })
  end)
end)

t.test("an_object_that_changes_while_it_is_read_is_not_mixed", function()
  local world = { objects = { big = SOURCE } }
  function world.fault(call)
    if call.method == "GET" and call.headers:get "range" ~= nil and not call.headers:get("range"):find "^bytes=0%-" then
      return refusal(412, "PreconditionFailed")
    end
  end
  with(world, function(bucket, dir)
    local report = bucket:transfer { down("big", dir .. "/big") }
    t.eq({ report.files, report.failed[1].error.kind, fs.list(dir)[1] }, { 0, "conflict", nil })
  end)
end)

t.test("a_bandwidth_limit_is_kept", function()
  with({}, function(bucket, dir)
    local from = clock.monotonic()
    bucket:transfer({ up("a", file(dir, "a", ("x"):rep(300000))), up("b", file(dir, "b", ("x"):rep(300000))) }, { bandwidth_limit = 1e6 })
    local seconds = clock.monotonic() - from
    t.ok(seconds > 0.45 and seconds < 3, ("600 KB at 1 MB/s took %.2f s"):format(seconds))
  end)
end)

t.test("a_cancel_ends_everything_at_once_and_leaves_no_handle", function()
  local world = { fault = function(call)
    if call.method == "PUT" then task.sleep(30) end
  end }
  with(world, function(bucket, dir)
    local jobs, before = {}, testing.handles()
    for i = 1, 40 do jobs[i] = up("k" .. i, file(dir, "k" .. i, ("x"):rep(100000))) end
    local from, scope_end = clock.monotonic(), nil
    local err = t.err("timeout", function()
      task.timeout(0.3, function()
        local ok, problem = pcall(bucket.transfer, bucket, jobs)
        scope_end = clock.monotonic()
        if not ok then error(problem, 0) end
      end)
    end)
    t.ok(err ~= nil and scope_end - from < 0.4, ("it took %.3f s after the cancel"):format(scope_end - from - 0.3))
    task.sleep(0.05)
    t.ok(testing.handles() <= before + 80, "only the server's connections may still close")
  end)
end)

t.test("two_runs_at_the_same_transfer_keep_out_of_each_others_way", function()
  with({}, function(bucket, dir)
    local path = file(dir, "big", SOURCE)
    local other <close> = resume.open("upload", bucket, "big", path)
    t.eq(other.data, nil)
    local report = bucket:transfer { up("big", path) }
    t.eq({ report.files, report.failed[1].error.kind }, { 0, "conflict" })
    t.match(report.failed[1].error.message, "another run")
  end)
end)

t.test("state_that_was_cut_in_the_middle_of_a_line_is_read_up_to_it", function()
  with({}, function(bucket, dir)
    local path = file(dir, "big", SOURCE)
    do
      local state <close> = resume.open("download", bucket, "big", path)
      state:save { size = 3 }
      state:add(1, -2)
      errors.check(fs.append(state.file, "2 12"))
    end
    local state <close> = resume.open("download", bucket, "big", path)
    t.eq({ state.data.size, state.data.parts }, { 3, { -2 } })
    t.eq(fs.stat(state.file).mode, tonumber("600", 8))
    state:clear()
  end)
end)

t.test("an_interrupted_download_reads_only_what_is_missing", function()
  local world = { objects = { big = SOURCE } }
  local gets = 0
  function world.fault(call)
    if call.method ~= "GET" or not call.headers:get "range" then return nil end
    gets = gets + 1
    if world.broken and not call.headers:get("range"):find "^bytes=0%-" then return refusal(403, "AccessDenied") end
  end
  with(world, function(bucket, dir)
    world.broken = true
    local report = bucket:transfer({ down("big", dir .. "/big") }, { parallel = 1 })
    t.eq({ report.files, fs.list(dir)[1] }, { 0, ".big.eirun-part" })
    world.broken, gets = false, 0
    report = bucket:transfer { down("big", dir .. "/big") }
    t.eq({ report.files, report.skipped, report.sent, gets }, { 1, 8 * MIB, #SOURCE - 8 * MIB, 2 })
    t.ok(fs.read(dir .. "/big") == SOURCE, "the file is the object")
    t.eq(fs.list(dir), { "big" })
  end)
end)

t.test("a_source_that_was_changed_after_the_interruption_starts_over", function()
  local world = {}
  function world.fault(call)
    if world.broken and call.query.partNumber == "3" then return refusal(403, "AccessDenied") end
    if call.method == "GET" and call.query.uploadId then
      local lines = {}
      for number, data in pairs(world.parts) do
        local sums = sums_of(data)
        local row = "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag><Size>%d</Size><HashCrc64ecma>%s</HashCrc64ecma></Part>"
        lines[#lines + 1] = row:format(number, sums.etag, #data, sums["x-oss-hash-crc64ecma"])
      end
      return 200, "<ListPartsResult>" .. table.concat(lines) .. "</ListPartsResult>"
    end
  end
  with(world, function(bucket, dir)
    local path = file(dir, "big", SOURCE)
    world.broken = true
    t.eq(bucket:transfer({ up("big", path) }, { parallel = 1 }).files, 0)
    assert(fs.write(path, "X" .. SOURCE:sub(2)))
    world.broken = false
    local report = bucket:transfer { up("big", path) }
    t.eq({ report.files, report.skipped, world.deleted[1] }, { 1, 0, "U1" })
    t.ok(world.objects.big == "X" .. SOURCE:sub(2), "the object is the new file")
  end)
end)

t.test("what_the_interrupted_run_completed_after_all_is_not_sent_again", function()
  local world = { objects = { big = SOURCE } }
  function world.fault(call)
    if call.method == "GET" and call.query.uploadId then return refusal(404, "NoSuchUpload") end
  end
  with(world, function(bucket, dir, seen)
    local path = file(dir, "big", SOURCE)
    local stat = errors.check(fs.stat(path))
    do
      local state <close> = resume.open("upload", bucket, "big", path)
      state:save { upload_id = "U0", part_size = 8 * MIB, size = stat.size, mtime = stat.mtime, ino = stat.ino, headers = "{}" }
    end
    local report = bucket:transfer { up("big", path) }
    t.eq({ report.files, report.skipped, report.sent, #seen }, { 1, #SOURCE, 0, 2 })
  end)
end)

t.test("a_picture_of_the_progress_reads_as_one_line", function()
  t.eq(progress.line { files = 2, files_total = 4, bytes = 1536, bytes_total = 3072, failed = 1, rate = 512, eta = 3 },
    "2 of 4 files, 1.5 KB of 3.0 KB (50 %), 1 failed, 512 B/s, 3 s left")
  t.eq(progress.line { files = 7, bytes = 0, failed = 0, rate = 0 }, "7 files, 0 B, 0 B/s")
end)
