-- SPDX-License-Identifier: Apache-2.0
-- Fifty calls at once against a server that bears ten a second: they get through without a storm.
local t = require "eirun.test"
local client = require "sandbox_client"
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local target = require "eirun.target"
local task = require "eirun.task"
local throttle = require "eirun.cloud.throttle"

local HOST = "ecs.cn-hangzhou.aliyuncs.com"

-- A gateway with a quota of `rate` calls a second; notes when each request came and whether it passed.
local function gateway(rate, headers)
  local seen, window = {}, {}
  return seen, function(req)
    local second = math.floor(task.now())
    window[second] = (window[second] or 0) + 1
    local passed = window[second] <= rate
    seen[#seen + 1] = { at = task.now(), passed = passed }
    task.sleep(0.05)
    if passed then return req:respond(200, {}, '{"ok":true}') end
    req:respond(400, headers or {}, '{"Code":"Throttling.User","Message":"denied due to user flow control","RequestId":"R"}')
  end
end

local function with(handler, body)
  throttle.reset()
  local folder = assert(fs.mkdtemp "/tmp/eirun-test-")
  local server = assert(httpd.listen { unix = folder .. "/socket" })
  http.routes { { host = HOST, unix = folder .. "/socket" }, closed = true }
  local undo = target.use { sandbox = true, region = "cn-hangzhou", account = "1", endpoints = { ECS = "http://" .. HOST },
    credentials = credentials.static { access_key_id = "id", access_key_secret = "s" } }
  local ok, err = pcall(task.race, {
    function() httpd.serve(server, handler) end,
    body,
  })
  undo()
  server:close()
  http.routes {}
  fs.remove(folder, { recursive = true })
  if not ok then error(err, 0) end
end

local function call() return cloud.call { product = "ecs", action = "DescribeRegions" } end

local function fifty()
  local list = {}
  for i = 1, 50 do list[i] = i end
  return task.map(list, call)
end

local function busiest_second_after(seen, from)
  local most = 0
  for _, first in ipairs(seen) do
    local count = 0
    for _, other in ipairs(seen) do
      if first.at > from and other.at >= first.at and other.at < first.at + 1 then count = count + 1 end
    end
    most = math.max(most, count)
  end
  return most
end

t.test("fifty_calls_get_through_a_quota_of_ten_a_second_without_a_storm", function()
  local seen, handler = gateway(10)
  with(handler, function()
    local began = task.now()
    t.eq(#fifty(), 50)
    local took = task.now() - began
    t.ok(#seen <= 120, "requests sent: " .. #seen)
    t.ok(busiest_second_after(seen, began + 0.2) <= 16, "in one second: " .. busiest_second_after(seen, began + 0.2))
    t.ok(took < 30, "seconds: " .. took)
    t.ok(throttle.rate("ecs@" .. HOST) > 0, "a rate was learned")
  end)
end)

t.test("the_pause_that_the_server_names_is_kept", function()
  local seen, handler = gateway(1, { ["x-acs-retry-after"] = "5000" })
  with(handler, function()
    task.sleep_until(math.ceil(task.now()) + 0.1)
    call()
    local began = task.now()
    task.sleep(0.1)
    call()
    t.eq(#seen, 3)
    t.ok(task.now() - began >= 5, "it came back after " .. (task.now() - began) .. " s")
  end)
end)

t.test("the_older_headers_of_the_quota_are_understood", function()
  local seen, handler = gateway(1, { ["x-ratelimit-user-api"] = "Limit:1,Remain:0,TimeLeft:3000" })
  with(handler, function()
    task.sleep_until(math.ceil(task.now()) + 0.1)
    call()
    local began = task.now()
    call()
    t.eq(#seen, 3)
    t.ok(task.now() - began >= 3, "it came back after " .. (task.now() - began) .. " s")
  end)
end)

t.test("a_limit_is_forgotten_after_a_quiet_minute", function()
  local _, handler = gateway(2)
  with(handler, function()
    task.map({ 1, 2, 3, 4 }, call)
    local key = "ecs@" .. HOST
    t.ok(throttle.rate(key) ~= nil)
    task.sleep(61)
    call()
    t.eq(throttle.rate(key), nil)
  end)
end)

t.test("a_call_gives_up_at_its_deadline_and_says_what_happened", function()
  local _, handler = gateway(0)
  with(handler, function()
    local began = task.now()
    local err = t.err("throttled", function() cloud.call { product = "ecs", action = "DescribeRegions", timeout = 20 } end)
    t.ok(task.now() - began <= 25, "it took " .. (task.now() - began) .. " s")
    t.eq({ err.code, err.request_id }, { "Throttling.User", "R" })
    t.match(err.hint, "Quota Center")
  end)
end)

t.test("against_a_sandbox_that_throttles_for_ever_fifty_calls_send_little_more_than_their_first_try", function()
  throttle.reset()
  local box <close> = client.start { parts = { "sandbox.control", "sandbox.cloud" } }
  local undo = target.use { sandbox = true, region = "cn-hangzhou", account = box.info.account, ca_file = box.info.ca_file, endpoints = {},
    credentials = credentials.static { access_key_id = box.key.id, access_key_secret = box.key.secret } }
  local function left()
    local _, status = box:control("GET", "/status")
    return status.faults[1].times
  end
  local ok, err = pcall(function()
    box:control("POST", "/faults", { kind = "throttle", service = "ECS", times = 1000 })
    local failed = 0
    local list = {}
    for i = 1, 50 do list[i] = i end
    task.map(list, function()
      local good, why = pcall(cloud.call, { product = "ecs", action = "DescribeRegions", timeout = 30 })
      if not good and why.kind == "throttled" then failed = failed + 1 end
    end)
    t.eq(failed, 50)
    local sent = 1000 - left()
    t.ok(sent >= 50 and sent <= 100, "requests sent within 30 s: " .. sent)
    box:control("DELETE", "/faults")
    t.ok(cloud.call { product = "ecs", action = "DescribeRegions" }.Regions)
  end)
  undo()
  http.routes {}
  if not ok then error(err, 0) end
end)
