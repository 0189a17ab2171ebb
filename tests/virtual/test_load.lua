-- SPDX-License-Identifier: Apache-2.0
-- Load runs against our own HTTP server under the virtual clock: every figure can be known beforehand.
local clock = require "eirun.core.clock"
local httpd = require "eirun.core.httpd"
local load = require "eirun.load"
local t = require "eirun.test"
local task = require "eirun.task"


local sockets = 0

-- Runs `body(path)` while a server on the socket answers with `handler`.
local function with_server(handler, body)
  sockets = sockets + 1
  local path = ("/tmp/eirun-test-load-%s-%d.sock"):format(tostring(clock.monotonic()), sockets)
  local server <close> = assert(httpd.listen { unix = path })
  task.race {
    function() httpd.serve(server, handler) end,
    function() body(path) end,
  }
end

local function options(path, extra)
  local opts = { url = "http://model.example.com/predict", connect_to = "unix:" .. path }
  for key, value in pairs(extra) do opts[key] = value end
  return opts
end

local function hold(rate, duration) return { kind = "hold", rate = rate, duration = duration } end

local function answer_after(seconds)
  return function(req)
    task.sleep(seconds)
    req:respond(200, {}, "ok")
  end
end

local function near(actual, expected, what)
  local error_share = math.abs(actual - expected) / expected
  if error_share > 0.001 then t.eq(actual, expected, what) end
end

t.test("load_reports_the_servers_own_latency_to_three_digits", function()
  with_server(answer_after(0.05), function(path)
    local result = load.run(options(path, { plan = { hold(50, 20) } }))
    t.eq(result.requests, 1000)
    t.eq(result.ok, true)
    t.eq(result.errors.total, 0)
    for _, key in ipairs { "mean", "p50", "p90", "p95", "p99", "p99_9", "max" } do near(result.latency[key], 0.05, key) end
    near(result.seconds, 19.98 + 0.05, "seconds")
    t.eq(#result.series, 21)
    t.eq(result.series[1].planned, 50)
    t.eq(result.series[1].sent, 50)
    t.ok(result.series[1].in_flight <= 3)
    near(result.series[7].p95, 0.05, "p95 of a second")
    t.ok(result.connections <= 4, "connections: " .. result.connections)
    t.eq(result.lateness.max, 0.0)
    t.eq(result.valid, true)
  end)
end)

-- The server stops for a second of each ten, then answers those who waited at once.
local function pausing(req)
  local phase = task.now() % 10
  if phase < 1 then task.sleep(1 - phase) end
  req:respond(200, {}, "ok")
end

-- What a closed loop with one connection would say of the same server: it meets each pause with one request.
local function closed_loop_p99(path, count)
  local http = require "eirun.core.http"
  http.routes { { host = "model.example.com", unix = path }, closed = true }
  local client <close> = http.client {}
  local latencies = {}
  for i = 1, count do
    local sent = task.now()
    assert(client:request { url = "http://model.example.com/predict" })
    latencies[i] = task.now() - sent
    task.sleep(0.01)
  end
  http.routes {}
  table.sort(latencies)
  return latencies[math.ceil(count * 0.99)]
end

t.test("load_sees_a_pause_with_every_request_that_fell_into_it", function()
  with_server(pausing, function(path)
    task.sleep(10 - task.now() % 10 + 0.005) -- well off the edges of the pause, which floats would blur
    local result = load.run(options(path, { plan = { hold(100, 20) } }))
    t.eq(result.requests, 2000)
    near(result.latency.max, 0.995, "max")
    -- 200 of them waited, two each 0.005, 0.015 ... 0.995 s; rank 1900 of 2000 is the 100th of these, rank 1980 the 180th.
    near(result.latency.p95, 0.495, "p95")
    near(result.latency.p99, 0.895, "p99")
    t.ok(result.latency.p50 < 0.001)
    t.ok(result.series[1].in_flight >= 99)
    t.ok(math.abs(result.series[1].p50 - 0.495) < 0.005, "p50 of the pause")
    t.ok(result.series[3].p99 < 0.001)
  end)
end)

if pcall(require, "eirun.core.http") then
  t.test("a_closed_loop_hides_the_same_pause", function()
    with_server(pausing, function(path)
      task.sleep(10 - task.now() % 10)
      t.ok(closed_loop_p99(path, 1000) < 0.001)
    end)
  end)
else
  t.skip("a_closed_loop_hides_the_same_pause", "no HTTP client in this build")
end

t.test("load_judges_thresholds_in_the_window_alone", function()
  local started
  local function breaking(req) -- slow in the first ten seconds
    if task.now() - started < 10 then task.sleep(2) end
    req:respond(200, {}, "ok")
  end
  with_server(breaking, function(path)
    started = task.now()
    local extra = { plan = { hold(20, 30) }, thresholds = { "p95<250ms", "errors<0.1%", "rate>=0.99" } }
    local whole = load.run(options(path, extra))
    t.eq(whole.ok, false)
    t.eq(whole.thresholds[1].ok, false)
    t.eq(whole.thresholds[2].ok, true)
    started = task.now()
    extra.window = { from = 10, to = 30 }
    local windowed = load.run(options(path, extra))
    t.eq(windowed.ok, true)
    t.eq(windowed.window.requests, 400)
    t.eq(windowed.requests, 600)
    near(windowed.latency.max, 2.0, "max")
    t.ok(windowed.window.latency.max < 0.001)
  end)
end)

t.test("load_counts_errors_by_kind_and_keeps_examples", function()
  local n = 0
  local function sick(req)
    n = n + 1
    if n % 5 == 1 then return req:respond(503, {}, "busy") end
    if n % 5 == 2 then return req:respond(404, {}, "no such model") end
    if n % 5 == 3 then return req:abort() end
    if n % 5 == 4 then task.sleep(60) end
    req:respond(200, {}, "fine")
  end
  with_server(sick, function(path)
    local result = load.run(options(path, { plan = { hold(10, 10) }, timeout = 3, thresholds = { "errors<50%" } }))
    t.eq(result.requests, 100)
    t.eq(result.errors.by_kind, { status_5xx = 20, status_4xx = 20, reset = 20, timeout = 20 })
    t.eq(result.errors.total, 80)
    t.eq(result.latency.count, 80) -- resets have no latency; time-outs count as their time-out
    near(result.latency.max, 3.0, "max")
    t.eq(result.thresholds[1], { text = "errors<50%", metric = "errors", value = 0.8, limit = 0.5, ok = false })
    t.eq(#result.examples, 12) -- three of each kind
    t.eq(result.examples[1].kind, "status_5xx")
    t.eq(result.examples[1].status, 503)
    t.eq(result.examples[1].text, "busy")
  end)
end)

t.test("load_checks_status_and_body", function()
  with_server(answer_after(0), function(path)
    t.eq(load.run(options(path, { plan = { hold(10, 1) }, contains = "ok" })).errors.total, 0)
    t.eq(load.run(options(path, { plan = { hold(10, 1) }, contains = "predictions" })).errors.by_kind, { check = 10 })
    t.eq(load.run(options(path, { plan = { hold(10, 1) }, status = 201 })).errors.by_kind, { check = 10 })
  end)
end)

t.test("load_sends_what_it_was_given", function()
  local seen = {}
  with_server(function(req)
    seen[#seen + 1] = { req.method, req.target, req.headers:get "host", req.headers:get "x-route", req.headers:get "content-type",
      req:body() }
    req:respond(200, {}, "")
  end, function(path)
    load.run(options(path, {
      url = "http://model.example.com:8501/v1/models/m:predict?a=b", plan = { hold(3, 1) }, bodies = { "one", "two" },
      headers = { ["X-Route"] = "blue", Host = "test.example.com" },
    }))
    local target = "/v1/models/m:predict?a=b"
    t.eq(seen, {
      { "POST", target, "test.example.com", "blue", "application/json", "one" },
      { "POST", target, "test.example.com", "blue", "application/json", "two" },
      { "POST", target, "test.example.com", "blue", "application/json", "one" },
    })
  end)
end)

t.test("load_runs_are_the_same_from_the_same_seed", function()
  local function one(path, seed)
    return load.run(options(path, { plan = { hold(40, 10) }, arrivals = "poisson", seed = seed })).series
  end
  with_server(answer_after(0.02), function(path)
    task.sleep(math.ceil(task.now()) - task.now())
    local first = one(path, 7)
    t.eq(one(path, 7), first)
    t.ok(not pcall(t.eq, one(path, 8), first), "another seed gave the same run")
  end)
end)

t.test("load_reports_progress", function()
  local seen = {}
  with_server(answer_after(0.1), function(path)
    load.run(options(path, {
      plan = { { kind = "ramp", to = 20, duration = 4 }, hold(20, 4) }, progress = function(now) seen[#seen + 1] = now end,
    }))
  end)
  t.eq(#seen, 8)
  near(seen[2].elapsed, 2.0, "elapsed")
  near(seen[2].asked, 10.0, "asked")
  t.eq(seen[8].rate, 20)
  near(seen[8].p95, 0.1, "p95")
end)

t.test("a_cancelled_load_stops_at_once_and_reports", function()
  with_server(answer_after(1), function(path)
    local partial
    local began = task.now()
    t.err("timeout", function()
      task.timeout(2.55, function()
        load.run(options(path, { plan = { hold(10, 60) }, on_cancel = function(result) partial = result end }))
      end)
    end)
    t.ok(task.now() - began < 2.6)
    t.eq(partial.requests, 16) -- planned 0 to 1.5 s, answered a second later
    t.eq(partial.aborted, 10)
  end)
end)

t.test("too_few_answers_are_inconclusive", function()
  with_server(answer_after(0.01), function(path)
    local result = load.run(options(path, { plan = { hold(5, 2) }, thresholds = { "p95<1s" } }))
    t.eq(result.inconclusive, true)
    t.eq(result.ok, false)
    t.eq(load.run(options(path, { plan = { hold(5, 2) }, thresholds = { "p95<1s" }, min_samples = 10 })).ok, true)
  end)
end)

t.test("a_run_that_reached_its_connection_limit_is_not_valid", function()
  with_server(answer_after(1), function(path)
    local result = load.run(options(path, { plan = { hold(10, 5) }, max_connections = 3 }))
    t.eq(result.valid, false)
    t.match(result.reason, "sent late.*waited for one of the 3 connections")
    t.eq(result.ok, false)
  end)
end)

t.test("thousands_in_flight_are_held", function()
  with_server(answer_after(30), function(path)
    local result = load.run(options(path, { plan = { hold(60, 30) }, timeout = 60 }))
    t.eq(result.errors.total, 0)
    t.eq(result.connections, 1800)
    near(result.latency.p50, 30.0, "p50")
  end)
end)

t.test("a_function_makes_each_request_ahead_of_its_time", function()
  local seen, most_ahead, made = {}, 0, 0
  with_server(function(req)
    seen[#seen + 1] = req.target .. " " .. (req:body() or "") .. " " .. tostring(req.headers:get "x-n")
    most_ahead = math.max(most_ahead, made - #seen)
    req:respond(200, {}, "")
  end, function(path)
    local result = load.run(options(path, {
      plan = { hold(100, 30) },
      request = function(i)
        made = i
        return { method = "POST", path = "/" .. i, body = "body " .. i, headers = { ["X-N"] = tostring(i) } }
      end,
    }))
    t.eq({ result.requests, result.errors.total, result.starved }, { 3000, 0, 0 })
    t.eq(result.lateness.max, 0.0)
  end)
  t.eq(made, 3000)
  for i, request in ipairs(seen) do t.eq(request, ("/%d body %d %d"):format(i, i, i)) end
  t.ok(most_ahead <= 1025 and most_ahead > 100, "made ahead: " .. most_ahead)
end)

t.test("a_slow_or_wrong_maker_of_requests_is_told", function()
  with_server(answer_after(0), function(path)
    local slow = load.run(options(path, {
      plan = { hold(200, 20) }, request = function(i)
        if i > 1024 then task.sleep(0.1) end
        return {}
      end, timeout = 60,
    }))
    t.eq(slow.valid, false)
    t.match(slow.reason, "the function that makes them was too slow")
    t.ok(slow.starved > 10)
    local opts = options(path, { plan = { hold(100, 20) }, request = function(i) return i < 1500 and {} or { bdy = "x" } end })
    t.match(tostring(t.err("invalid", load.run, opts)), "request%(1500%): unknown field 'bdy', did you mean 'body'")
    opts.request = function() error("no more words", 0) end
    t.match(tostring(t.err("no more words", load.run, opts)), "no more words")
  end)
end)

-- One server behind a queue: 20 ms a request, so 50 requests a second and not one more.
local function queueing()
  local free_at = 0
  return function(req)
    free_at = math.max(free_at, task.now()) + 0.02
    task.sleep(free_at - task.now())
    req:respond(200, {}, "ok")
  end
end

t.test("the_highest_rate_that_holds_is_found", function()
  with_server(queueing(), function(path)
    local tried = 0
    local found = load.find_max(options(path, {
      thresholds = { "p95<100ms", "errors<1%" }, low = 20, high = 500, seconds = 30, precision = 0.02, pause = 30,
      tried = function() tried = tried + 1 end,
    }))
    t.ok(found.rate >= 48.5 and found.rate <= 50.5, "found " .. found.rate)
    t.eq(found.limited, false)
    t.eq(#found.trials, tried)
    t.ok(tried < 25)
    t.eq(load.find_max(options(path, { thresholds = { "p95<100ms" }, low = 20, high = 30, seconds = 10, pause = 10 })).limited, true)
    t.eq(load.find_max(options(path, { thresholds = { "p95<10ms" }, low = 20, seconds = 10, pause = 10 })).rate, 0)
    local opts = options(path, { thresholds = { "p95<100ms" }, low = 1, seconds = 5 })
    t.match(tostring(t.err("invalid", load.find_max, opts)), "too few requests")
    opts.plan = { hold(1, 1) }
    t.match(tostring(t.err("invalid", load.find_max, opts)), "neither plan nor connections")
  end)
end)

t.test("a_broken_threshold_ends_the_run_when_asked", function()
  with_server(answer_after(0.5), function(path)
    local began = task.now()
    local result = load.run(options(path, { plan = { hold(50, 60) }, thresholds = { "p95<250ms" }, abort_after = 5 }))
    t.ok(task.now() - began < 7)
    t.match(result.stopped, "a threshold was broken after 5 s")
    t.eq(result.ok, false)
    t.ok(result.planned < 360)
    local kept = load.run(options(path, { plan = { hold(50, 10) }, thresholds = { "p95<1s" }, abort_after = 2 }))
    t.eq({ kept.stopped, kept.planned, kept.ok }, { nil, 500, true })
    local shares = { plan = { hold(50, 10) }, thresholds = { "rate>=0.99", "throughput>=40/s" }, abort_after = 4 }
    kept = load.run(options(path, shares)) -- what is in flight has not failed, and what lies ahead is not missing
    t.eq({ kept.stopped, kept.planned, kept.ok }, { nil, 500, true })
  end)
end)

t.test("an_interrupted_run_is_judged_by_the_time_it_had", function()
  with_server(function(req)
    if req.path == "/silent" then task.sleep(1000) end
    req:respond(200, {}, "ok")
  end, function(path)
    local function stopped(url)
      local seen
      task.race {
        function()
          load.run(options(path, { url = url, plan = { hold(50, 60) }, thresholds = { "throughput>=40/s", "rate>=0.99" },
            on_cancel = function(result) seen = result end }))
        end,
        function() task.sleep(10.01) end,
      }
      return seen
    end
    local fast = stopped "http://a/"
    near(fast.window.throughput, 50, "throughput")
    t.eq({ fast.thresholds[1].ok, fast.thresholds[2].ok, fast.ok }, { true, true, false })
    t.match(fast.stopped, "it was interrupted after 10 s")
    local silent = stopped "http://a/silent"
    near(silent.seconds, 10.01, "seconds")
    t.eq(silent.aborted, 501)
  end)
end)

t.test("a_percentile_of_the_few_that_were_answered_is_inconclusive", function()
  local n = 0
  with_server(function(req)
    n = n + 1
    if n % 10 ~= 0 then return req:abort() end
    req:respond(200, {}, "ok")
  end, function(path)
    local few = load.run(options(path, { plan = { hold(50, 10) }, thresholds = { "p99<1s" } }))
    t.eq({ few.requests, few.window.latency.count, few.inconclusive, few.ok }, { 500, 50, true, false })
    t.match(require("eirun.load.output").text(few), "inconclusive: 50 answers are too few to judge, 100 are wanted\n$")
    local many = load.run(options(path, { plan = { hold(50, 10) }, thresholds = { "p99<1s", "errors<1%" } }))
    t.eq({ many.inconclusive, many.ok }, { false, false }) -- what was missed is missed
  end)
end)

local function invalid(extra, pattern)
  local opts = { url = "http://127.0.0.1:1/", plan = { hold(1, 1) } }
  for key, value in pairs(extra) do opts[key] = value end
  local err = t.err("invalid", load.run, opts)
  t.match(tostring(err), pattern)
end

t.test("nonsense_is_refused_before_the_first_request", function()
  invalid({ plan = {} }, "plan has no phase")
  invalid({ plan = { hold(0, 10) } }, "rate is 0")
  invalid({ plan = { hold(-1, 10) } }, "not negative")
  invalid({ plan = { hold(0 / 0, 10) } }, "must be a finite number")
  invalid({ plan = { hold(5, 0) } }, "above 0")
  invalid({ plan = { hold(5, math.huge) } }, "finite")
  invalid({ plan = { { kind = "hodl", rate = 1, duration = 1 } } }, "plan%[1%]: kind must be one of")
  invalid({ plan = { { kind = "hold", rat = 1, duration = 1 } } }, "did you mean 'rate'")
  invalid({ plan = { hold(1e9, 1e3) } }, "more than max_requests")
  invalid({ thresholds = { "p95<250" } }, "expected a time with its unit")
  invalid({ tresholds = {} }, "did you mean 'thresholds'")
  invalid({ url = "ftp://x/" }, "only http")
  invalid({ url = "x" }, "is not like http://")
  invalid({ url = "http://u:p@x/" }, "no readable host")
  invalid({ window = { from = 5, to = 2 } }, "0 <= from < to")
  invalid({ window = { from = 5 } }, "after the plan's end")
  invalid({ timeout = 0.0005 }, "timeout must be a finite number of at least 0.001")
  invalid({ headers = { ["X Y"] = "1" } }, "not a token")
  invalid({ headers = { X = "1\r\nY: 2" } }, "holds a line end")
  invalid({ headers = { X = 1 } }, "header X must have a string or a secret, got number")
  invalid({ headers = { { "X" } } }, "header X must have a string or a secret, got nil")
  invalid({ headers = { "X: 1" } }, "headers%[1%] must be { name, value }")
  invalid({ bodies = { "a", 1 } }, "bodies%[2%] must be a string")
  invalid({ allow = "a.example.com" }, "allow must be true or a list of hosts")
  invalid({ request = function() return { path = "/x\r\nA: b" } end }, "is not a path")
  local many = {}
  for i = 1, 65 do many[i] = { url = "http://127.0.0.1:1/" } end
  t.match(tostring(t.err("invalid", load.run, { targets = many, plan = { hold(1, 1) } })), "65 targets are more than 64")
end)

t.test("nobody_listening_is_told_before_the_first_request", function()
  local err = t.err("network", load.run, { url = "http://x/", connect_to = "unix:/tmp/nobody-listens-here.sock", plan = { hold(1, 1) } })
  t.match(tostring(err), "cannot load http://x/: cannot connect")
  t.err("denied", load.run, { url = "http://203.0.113.9/", plan = { hold(1, 1) } })
  local elsewhere = { url = "http://127.0.0.1/", connect_to = "203.0.113.9:80", plan = { hold(1, 1) } }
  t.match(tostring(t.err("denied", load.run, elsewhere)), "203.0.113.9 is a public address")
  for _, host in ipairs { "0.0.0.0", "[::]", "[::ffff:127.0.0.1]" } do -- this machine, and nobody listens
    t.err("network", load.run, { url = "http://" .. host .. ":1/", plan = { hold(1, 1) } })
  end
end)
