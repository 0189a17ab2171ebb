-- SPDX-License-Identifier: Apache-2.0
-- Trees and uploads against a small OSS of the test's own.
local t = require "eirun.test"
local crypto = require "eirun.core.crypto"
local fake = require "lib_fake"
local folder = require "lib_folder"
local fs = require "eirun.core.fs"
local oss = require "eirun.oss"
local upload = require "eirun.oss.upload"

local function unsigned(value)
  return ("%d"):format(value):gsub("^-%d+$", function()
    local high = math.ult(value, 0) and 0 or value >> 1
    return ("%d%d"):format(high // 5, value - high // 5 * 10)
  end)
end

local function error_xml(code, message)
  return ("<Error><Code>%s</Code><Message>%s</Message><RequestId>R1</RequestId><EC>0001</EC></Error>"):format(code, message)
end

local function listing(world, prefix)
  local keys, lines = {}, {}
  for key in pairs(world.objects) do if key:sub(1, #prefix) == prefix then keys[#keys + 1] = key end end
  table.sort(keys)
  for _, key in ipairs(keys) do
    local object = world.objects[key]
    lines[#lines + 1] = ("<Contents><Key>%s</Key><Size>%d</Size><ETag>\"%s\"</ETag></Contents>"):format(key, #object.data, object.etag)
  end
  return "<ListBucketResult><IsTruncated>false</IsTruncated>" .. table.concat(lines) .. "</ListBucketResult>"
end

local function store(world, key, data, etag)
  world.objects[key] = { data = data, etag = etag or crypto.hex(crypto.md5(data)):upper() }
  world.order[#world.order + 1] = key
end

local function put_part(world, call)
  local number = tonumber(call.query.partNumber)
  world.parts[number] = call.body
  world.part_puts = (world.part_puts or 0) + 1
  local crc = crypto.crc64(call.body)
  if world.corrupt_part == number then
    world.corrupt_part, crc = nil, crc ~ 1
  end
  return 200, "", { etag = '"' .. crypto.hex(crypto.md5(call.body)):upper() .. '"', ["x-oss-hash-crc64ecma"] = unsigned(crc) }
end

local function list_parts(world, upload_id)
  if upload_id ~= "OLD" then return 404, error_xml("NoSuchUpload", "no such upload") end
  local lines = {}
  for number, data in pairs(world.parts) do
    lines[#lines + 1] = ("<Part><PartNumber>%d</PartNumber><ETag>\"%s\"</ETag>"
      .. "<Size>%d</Size><HashCrc64ecma>%s</HashCrc64ecma></Part>"):format(
      number, crypto.hex(crypto.md5(data)):upper(), #data, unsigned(crypto.crc64(data)))
  end
  return 200, "<ListPartsResult><IsTruncated>false</IsTruncated>" .. table.concat(lines) .. "</ListPartsResult>"
end

local function complete(world, key)
  local md5s = {}
  for i, part in ipairs(world.parts) do md5s[i] = crypto.hex(crypto.md5(part)):upper() end
  store(world, key, table.concat(world.parts), upload.multipart_etag(md5s))
  world.parts = {}
  return 200, "<CompleteMultipartUploadResult/>", { ["x-oss-hash-crc64ecma"] = unsigned(crypto.crc64(world.objects[key].data)) }
end

local function server(world)
  world.objects, world.order, world.parts = world.objects or {}, {}, {}
  return function(call)
    local bucket, key = call.path:match("^/([^/]+)/(.*)$")
    world.calls = (world.calls or 0) + 1
    if bucket ~= "models" then return 404, error_xml("NoSuchBucket", "no such bucket") end
    if call.method == "GET" and call.query.uploads then
      local open = world.stale and ("<Upload><Key>%s</Key><UploadId>OLD</UploadId></Upload>"):format(world.stale) or ""
      return 200, "<ListMultipartUploadsResult>" .. open .. "</ListMultipartUploadsResult>"
    end
    if call.method == "GET" and call.query.uploadId then return list_parts(world, call.query.uploadId) end
    if call.method == "GET" then return 200, listing(world, call.query.prefix or "") end
    if call.query.uploads then
      world.multipart = (world.multipart or 0) + 1
      return 200, "<InitiateMultipartUploadResult><UploadId>U1</UploadId></InitiateMultipartUploadResult>"
    end
    if call.query.partNumber then return put_part(world, call) end
    if call.method == "DELETE" then
      world.aborted = call.query.uploadId
      return 204, ""
    end
    if call.query.uploadId then return complete(world, key) end
    if world.busy then
      world.busy = nil
      return 503, error_xml("UploadTrafficRateLimitExceeded", "slow down")
    end
    store(world, key, call.body)
    return 200, "", { ["x-oss-hash-crc64ecma"] = unsigned(crypto.crc64(call.body)) }
  end
end

local model = { ["saved_model.pb"] = "graph", ["variables/variables.index"] = "index", ["variables/variables.data"] = ("x"):rep(1000) }

t.test("a_model_is_sent_once_with_saved_model_last", function()
  local world, dir = {}, folder(model)
  fake.with(server(world), function()
    local given = { from = dir, to = "m/1" }
    local seen, first = oss.bucket "models":ensure_tree(given)
    local sent = #world.order
    local _, second = oss.bucket "models":ensure_tree(given)
    t.eq({ first, second, seen.files, seen.bytes, sent, #world.order }, { "created", "unchanged", 3, 1010, 3, 3 })
    t.eq(world.order[3], "m/1/saved_model.pb")
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("only_what_differs_in_content_is_sent_again", function()
  local world, dir = {}, folder(model)
  fake.with(server(world), function()
    local bucket = oss.bucket "models"
    bucket:ensure_tree { from = dir, to = "m/1" }
    assert(fs.write(dir .. "/variables/variables.index", "xedni")) -- as long as before
    local _, outcome = bucket:ensure_tree { from = dir, to = "m/1" }
    t.eq({ outcome, #world.order, world.order[4] }, { "updated", 4, "m/1/variables/variables.index" })
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("a_large_file_goes_in_parts_and_is_recognised_by_its_etag", function()
  local world, dir = {}, folder { ["big.bin"] = ("0123456789abcdef"):rep(1250000) } -- 20 MB: three parts
  fake.with(server(world), function()
    local bucket = oss.bucket "models"
    bucket:ensure_tree { from = dir, to = "big" }
    local calls = world.calls
    local _, second = bucket:ensure_tree { from = dir, to = "big" }
    t.eq({ world.multipart, second, world.calls - calls, #world.objects["big/big.bin"].data }, { 1, "unchanged", 1, 20000000 })
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("a_part_that_arrives_changed_is_sent_again", function()
  local world, dir = { corrupt_part = 2 }, folder { ["big.bin"] = ("0123456789abcdef"):rep(1250000) }
  fake.with(server(world), function()
    oss.bucket "models":put("big.bin", { file = dir .. "/big.bin" })
    t.eq({ world.corrupt_part, #world.objects["big.bin"].data }, { nil, 20000000 })
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("what_a_killed_upload_left_is_gone_on_with", function()
  local data = ("0123456789abcdef"):rep(1250000)
  local part = 8 * 1024 * 1024
  local world, dir = { stale = "big.bin" }, folder { ["big.bin"] = data }
  fake.with(server(world), function()
    world.parts = { [1] = data:sub(1, part), [3] = data:sub(2 * part + 1) } -- a hole in the middle
    local report = oss.bucket "models":put("big.bin", { file = dir .. "/big.bin" })
    t.eq({ world.part_puts, world.multipart, report.sent, report.skipped }, { 1, nil, part, 20000000 - part })
    t.ok(world.objects["big.bin"].data == data, "the object is the file")
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("a_part_of_another_content_is_sent_again", function()
  local data = ("0123456789abcdef"):rep(1250000)
  local part = 8 * 1024 * 1024
  local world, dir = { stale = "big.bin" }, folder { ["big.bin"] = data }
  fake.with(server(world), function()
    world.parts = { [1] = data:sub(1, part), [2] = ("x"):rep(part) }
    oss.bucket "models":put("big.bin", { file = dir .. "/big.bin" })
    t.eq(world.part_puts, 2)
    t.ok(world.objects["big.bin"].data == data, "the object is the file")
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("one_file_that_fails_does_not_stop_the_others", function()
  local world, dir = {}, folder { ["a.bin"] = "a", ["b.bin"] = "b" }
  fake.with(server(world), function()
    local seen
    local report = oss.bucket "models":transfer({
      { direction = "upload", key = "a", path = dir .. "/a.bin", size = 1 }, { direction = "upload", key = "no", path = dir .. "/nothing" },
      { direction = "upload", key = "dir", path = dir }, { direction = "upload", key = "b", path = dir .. "/b.bin", size = 1 },
      { direction = "upload", key = "grown", path = dir .. "/b.bin", size = 9 },
    }, { on_progress = function(p) seen = p end })
    t.eq({ report.files, report.bytes, report.sent, #report.failed, world.objects.a.data, world.objects.b.data }, { 2, 2, 2, 3, "a", "b" })
    local kinds = {}
    for _, failure in ipairs(report.failed) do kinds[failure.key] = failure.error.kind end
    t.eq(kinds, { no = "not_found", dir = "invalid", grown = "conflict" })
    t.eq({ seen.files, seen.files_total, seen.failed }, { 2, 5, 3 })
  end)
  fs.remove(dir, { recursive = true })
end)

t.test("a_busy_service_is_asked_again", function()
  local world = { busy = true }
  fake.with(server(world), function()
    oss.bucket "models":put("a.txt", "hello")
    t.eq(world.objects["a.txt"].data, "hello")
  end)
end)

t.test("a_missing_bucket_and_an_empty_folder_say_what_to_do", function()
  local dir = folder {}
  fake.with(server {}, function()
    local err = t.err("not_found", function() oss.bucket "nobody":list() end)
    t.eq({ err.code, err.request_id }, { "NoSuchBucket", "R1" })
    t.match(err.hint, "check its name and region")
    t.match(t.err("invalid", function() oss.bucket "models":ensure_tree { from = dir, to = "m" } end).message, "is empty")
    t.err("not_found", function() oss.bucket "models":ensure_tree { from = dir .. "/nothing", to = "m" } end)
    t.err("invalid", function() oss.bucket "Not_A_Bucket" end)
  end)
  fs.remove(dir, { recursive = true })
end)
