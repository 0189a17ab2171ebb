-- SPDX-License-Identifier: Apache-2.0
-- Load runs with several targets, think time, checks and connections that the server drops, under the virtual clock.
local clock = require "eirun.core.clock"
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local load = require "eirun.load"
local predict = require "eirun.load.predict"
local t = require "eirun.test"
local task = require "eirun.task"

local sockets = 0

local function with_server(handler, body, limits)
  sockets = sockets + 1
  local path = ("/tmp/eirun-test-more-%s-%d.sock"):format(tostring(clock.monotonic()), sockets)
  local opts = { unix = path }
  for key, value in pairs(limits or {}) do opts[key] = value end
  local server <close> = assert(httpd.listen(opts))
  task.race { function() httpd.serve(server, handler) end, function() body("unix:" .. path) end }
end

local function hold(rate, duration) return { { kind = "hold", rate = rate, duration = duration } } end
local function ok(req) req:respond(200, {}, "ok") end

t.test("targets_share_the_requests_by_weight_and_have_figures_of_their_own", function()
  with_server(function(req)
    if req.path == "/slow" then task.sleep(0.5) else task.sleep(0.02) end
    req:respond(req.path == "/slow" and 503 or 200, {}, "ok")
  end, function(place)
    local result = load.run {
      connect_to = place, plan = hold(40, 10),
      targets = { { url = "http://a/fast", name = "fast", weight = 3 }, { url = "http://b/slow", name = "slow" } },
    }
    t.eq({ result.requests, result.errors.total }, { 400, 100 })
    local fast, slow = result.targets[1], result.targets[2]
    t.eq({ fast.name, fast.requests, fast.errors.total, slow.name, slow.requests, slow.errors.total }, { "fast", 300, 0, "slow", 100, 100 })
    t.ok(math.abs(fast.latency.p99 - 0.02) < 1e-4 and math.abs(slow.latency.p50 - 0.5) < 1e-3)
    t.eq({ fast.series[1].planned, slow.series[1].planned, slow.series[1].errors }, { 30, 10, 10 })
    t.ok(math.abs(slow.series[1].p99_9 - 0.5) < 0.005)
    t.eq({ slow.series[3].in_flight <= 6, fast.series[3].in_flight <= 2 }, { true, true })
    t.eq(fast.bytes + slow.bytes, result.bytes_in)
    t.eq(result.examples[1].target, 2)
  end)
end)

t.test("turns_of_targets_are_mixed_and_bodies_of_each_are_taken_in_turn", function()
  local seen = {}
  with_server(function(req)
    seen[#seen + 1] = req.path:sub(2) .. (req:body() or "")
    ok(req)
  end, function(place)
    load.run { connect_to = place, plan = hold(8, 1), method = "POST",
      targets = { { url = "http://a/a", weight = 3, bodies = { "1", "2" } }, { url = "http://a/b", body = "x" } } }
    t.eq(table.concat(seen, " "), "a1 a2 bx a1 a2 a1 bx a2")
  end)
end)

t.test("a_file_is_the_body_and_a_form_holds_fields_and_files", function()
  local dir, seen = assert(fs.mkdtemp "/tmp/eirun-test-body-"), {}
  local cat = dir .. '/a "cat".png'
  assert(fs.write(cat, "\x89PNG\r\n\0\n"))
  with_server(function(req)
    seen[#seen + 1] = { body = req:body(), type = req:header "content-type", method = req.method }
    ok(req)
  end, function(place)
    load.run { url = "http://x/", connect_to = place, plan = hold(1, 1), body_file = cat, headers = { ["Content-Type"] = "image/png" } }
    local meta = { name = "meta", value = "{}", type = "application/json" }
    local form = { { name = "top", value = "3" }, { name = "image", file = cat }, meta }
    load.run { url = "http://x/", connect_to = place, plan = hold(1, 1), form = form }
    t.match(tostring(t.err("invalid", load.run, { url = "http://x/", connect_to = place, plan = hold(1, 1), body = "x", form = form })),
      "give one of")
    t.match(tostring(t.err("invalid", load.run, { url = "http://x/", connect_to = place, plan = hold(1, 1), form = { { name = "x" } } })),
      "give value or file")
  end)
  t.eq(seen[1], { body = "\x89PNG\r\n\0\n", type = "image/png", method = "POST" })
  local boundary = seen[2].type:match "^multipart/form%-data; boundary=(eirun%-%x+)$"
  t.eq(seen[2].body, table.concat({
    "--" .. boundary, 'Content-Disposition: form-data; name="top"', "", "3",
    "--" .. boundary, 'Content-Disposition: form-data; name="image"; filename="a %22cat%22.png"', "Content-Type: image/png", "",
    "\x89PNG\r\n\0\n",
    "--" .. boundary, 'Content-Disposition: form-data; name="meta"', "Content-Type: application/json", "", "{}",
    "--" .. boundary .. "--", "" }, "\r\n"))
  fs.remove(dir, { recursive = true })
end)

t.test("a_made_request_may_choose_its_target", function()
  local seen = {}
  with_server(function(req)
    seen[req.path] = (seen[req.path] or 0) + 1
    ok(req)
  end, function(place)
    local result = load.run { connect_to = place, plan = hold(10, 1),
      targets = { { url = "http://a/a", name = "a" }, { url = "http://b/b" } },
      request = function(i) return i % 5 == 0 and { target = 2 } or { target = "a" } end }
    t.eq(seen, { ["/a"] = 8, ["/b"] = 2 })
    t.eq({ result.targets[1].requests, result.targets[2].requests }, { 8, 2 })
  end)
end)

t.test("think_time_lies_between_an_answer_and_the_next_request", function()
  with_server(function(req)
    task.sleep(0.1)
    ok(req)
  end, function(place)
    local result = load.run { url = "http://a/", connect_to = place, connections = 4, duration = 10, think = 0.4 }
    t.eq(result.requests, 80) -- four connections, a request each half second
    t.ok(math.abs(result.latency.max - 0.1) < 1e-3)
    t.eq(result.series[2].sent, 8)
  end)
  t.err("invalid", function() load.run { url = "http://127.0.0.1:1/", plan = hold(1, 1), think = 1 } end)
end)

t.test("a_closed_loop_ends_with_its_requests_where_a_number_is_given", function()
  with_server(function(req)
    task.sleep(0.1)
    ok(req)
  end, function(place)
    local made = 0
    for _, request in ipairs { false, function() made = made + 1 return { path = "/" .. made } end } do
      local result = load.run { url = "http://a/", connect_to = place, connections = 4, duration = 10, max_requests = 10,
        request = request or nil,
        thresholds = { "throughput>30/s", "errors<1%" }, min_samples = 10 }
      t.eq({ result.requests, result.planned, result.ok, result.stopped }, { 10, 10, true, nil })
      t.ok(math.abs(result.seconds - 0.3) < 1e-3 and math.abs(result.window.throughput - 10 / 0.3) < 0.2, result.window.throughput)
    end
    t.eq(made, 10)
  end)
end)

local function checked(body, extra)
  local kinds, example
  with_server(function(req) req:respond(200, {}, body) end, function(place)
    extra.url, extra.connect_to, extra.plan = "http://a/", place, hold(10, 1)
    local result = load.run(extra)
    kinds, example = result.errors.by_kind, result.examples[1] and result.examples[1].text
  end)
  return kinds, example
end

t.test("a_good_answer_has_the_field_and_the_size_that_were_asked_for", function()
  local body = '{"predictions": [{"label": 3, "name": "x", "none": null}]}'
  t.eq(checked(body, { json = "predictions[0].label" }), {})
  t.eq(checked(body, { json = "$.predictions[0].none" }), {})
  t.eq(checked(body, { json = { field = "predictions[0].label", equals = 3.0 } }), {})
  t.eq(checked(body, { json = { field = "predictions[0].name", equals = "x" } }), {})
  for _, case in ipairs {
    { { json = "predictions[1]" }, "the JSON has no such field" },
    { { json = "predictions.label" }, "the JSON has no such field" },
    { { json = { field = "predictions[0].label", equals = "3" } }, "the JSON field has another value" },
    { { size = { min = 100 } }, "the body has 58 bytes" },
    { { size = { max = 57 } }, "the body has 58 bytes" },
  } do
    local kinds, example = checked(body, case[1])
    t.eq({ kinds, example }, { { check = 10 }, case[2] })
  end
  t.eq(select(2, checked("{", { json = "a" })), "the body is not JSON")
  t.eq(checked(body, { size = { min = 58, max = 58 } }), {})
  local wrong = t.err("invalid", function() checked(body, { json = "a[x]" }) end)
  t.eq(wrong.column, 2)
end)

t.test("a_check_in_lua_looks_at_a_sample_of_the_good_answers", function()
  local n, looked = 0, 0
  with_server(function(req)
    n = n + 1
    req:respond(n % 10 == 0 and 500 or 200, {}, n <= 450 and "right" or "wrong")
  end, function(place)
    local result = load.run {
      url = "http://a/", connect_to = place, plan = hold(100, 10), check_every = 9,
      check = function(answer)
        looked = looked + 1
        task.sleep(0.001)
        return answer.status == 200 and answer.body == "right", "it says " .. answer.body
      end,
    }
    t.eq(looked, 100)
    t.eq(result.errors.by_kind, { status_5xx = 100, check = 55 })
    t.eq(result.good, 845)
    t.eq(result.series[10].errors, 20)
    t.eq(result.examples[#result.examples].text, "it says wrong")
  end)
end)

t.test("a_check_looks_at_the_first_answer_of_a_short_run_too", function()
  with_server(ok, function(place)
    local result = load.run { url = "http://a/", connect_to = place, plan = hold(20, 1), check = function() return false, "wrong" end }
    t.eq(result.errors.by_kind, { check = 1 })
  end)
end)

t.test("a_target_or_a_made_request_may_ask_with_HEAD", function()
  with_server(ok, function(place)
    local both = load.run { connect_to = place, plan = hold(10, 1), timeout = 2,
      targets = { { url = "http://a/", method = "HEAD" }, { url = "http://a/" } } }
    t.eq({ both.good, both.connections <= 2 }, { 10, true })
    local made = load.run { url = "http://a/", connect_to = place, plan = hold(10, 1), timeout = 2, method = "HEAD",
      request = function(i) return { method = i % 2 == 0 and "GET" or nil } end }
    t.eq({ made.good, made.connections }, { 10, 1 })
  end)
end)

t.test("a_check_that_fails_itself_makes_the_run_invalid", function()
  with_server(ok, function(place)
    local result = load.run { url = "http://a/", connect_to = place, plan = hold(100, 10), check_every = 1,
      check = function() error "oh" end }
    t.eq(result.valid, false)
    t.match(result.reason, "the check of answers failed: .*oh")
    t.ok(result.requests < 100)
  end)
end)

t.test("warm_connections_stand_before_the_first_request", function()
  local first
  with_server(function(req)
    first = first or task.now()
    ok(req)
  end, function(place)
    local result = load.run { url = "http://a/", connect_to = place, plan = hold(10, 1), warm = 7 }
    t.eq({ result.connections, result.requests, result.errors.total }, { 7, 10, 0 })
    t.eq(result.started_at, first)
  end)
end)

t.test("connections_that_the_server_closes_while_idle_are_no_error", function()
  with_server(ok, function(place)
    local plan = { { kind = "hold", rate = 10, duration = 1 },
      { kind = "pause", duration = 30 }, { kind = "hold", rate = 10, duration = 1 } }
    local result = load.run { url = "http://a/", connect_to = place, plan = plan }
    t.eq({ result.requests, result.errors.total, result.connections }, { 20, 0, 2 })
  end, { idle_timeout = 5 })
end)

t.test("without_keep_alive_each_request_has_a_connection", function()
  local seen
  with_server(function(req)
    seen = req.headers:get "connection"
    ok(req)
  end, function(place)
    local result = load.run { url = "http://a/", connect_to = place, plan = hold(10, 1), keep_alive = false }
    t.eq({ result.connections, result.errors.total, seen }, { 10, 0, "close" })
  end)
end)

t.test("cookies_are_not_kept", function()
  local cookies = 0
  with_server(function(req)
    if req.headers:get "cookie" then cookies = cookies + 1 end
    req:respond(200, { ["Set-Cookie"] = "a=b" }, "ok")
  end, function(place)
    load.run { url = "http://a/", connect_to = place, plan = hold(10, 1) }
    t.eq(cookies, 0)
  end)
end)

t.test("few_answers_are_inconclusive_for_high_percentiles", function()
  with_server(ok, function(place)
    local function run(threshold, min)
      return load.run { url = "http://a/", connect_to = place, plan = hold(50, 10), thresholds = { threshold }, min_samples = min }
    end
    t.eq({ run("p99<1s").inconclusive, run("p99.9<1s").inconclusive, run("p99.9<1s").needed }, { false, true, 1000 })
    t.eq({ run("p99.9<1s", 500).inconclusive, run("p99<1s", 501).inconclusive }, { false, true })
  end)
end)

t.test("warmup_is_not_judged", function()
  local started
  with_server(function(req)
    if task.now() - started < 5 then task.sleep(1) end
    ok(req)
  end, function(place)
    started = task.now()
    local result = load.run { url = "http://a/", connect_to = place, plan = hold(50, 10), thresholds = { "p99<100ms" }, warmup = 5 }
    t.eq({ result.ok, result.window.from, result.window.requests }, { true, 5, 250 })
  end)
end)

t.test("random_predict_bodies_are_the_same_for_the_same_seed", function()
  local ids = { shape = { 4 }, min = 0, max = 21127 }
  local make = predict.random { inputs = { ids = ids, score = { shape = { 1, 2 }, min = 0.0, max = 1.0 } }, instances = 2, seed = 5 }
  local body = make(1).body
  t.eq(make(1).body, body)
  t.ok(make(2).body ~= body)
  local decoded = require("eirun.core.json").decode(body)
  t.eq({ #decoded.instances, #decoded.instances[1].ids, #decoded.instances[1].score[1] }, { 2, 4, 2 })
  for _, id in ipairs(decoded.instances[2].ids) do t.ok(math.type(id) == "integer" and id >= 0 and id <= 21127) end
  t.eq(predict.rows({ { 1.0 } }, "serving"), '{"instances":[[1.0]],"signature_name":"serving"}')
  t.eq(predict.columns { a = { 1 } }, '{"inputs":{"a":[1]}}')
end)

t.test("a_trace_gives_bodies_their_size_and_rows_their_weight", function()
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-trace-")
  assert(fs.write(dir .. "/t.csv", "time_s,tokens,n\n0,10,2\n1,0,1\n2.5,3000,1\n"))
  local sizes = {}
  with_server(function(req)
    sizes[#sizes + 1] = #(req:body() or "")
    ok(req)
  end, function(place)
    local plan = { { kind = "trace", file = dir .. "/t.csv", size = "tokens", weight = "n" } }
    t.eq(load.run({ url = "http://a/", connect_to = place, plan = plan }).requests, 4)
    t.eq(sizes, { 10, 10, 0, 3000 })
  end)
  assert(fs.remove(dir, { recursive = true }))
end)
