-- SPDX-License-Identifier: Apache-2.0
-- Load runs in real time, on threads of their own. Counts are exact; times are not judged here, machines differ.
local core_clock = require "eirun.core.clock"
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local load = require "eirun.load"
local t = require "eirun.test"
local task = require "eirun.task"

local function with_server(handler, body)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-load-")
  local server <close> = assert(httpd.listen { unix = dir .. "/socket" })
  task.race {
    function() httpd.serve(server, handler) end,
    function() body("unix:" .. dir .. "/socket") end,
  }
  fs.remove(dir, { recursive = true })
end

local function ok(req) req:respond(200, {}, "ok") end

t.test("threads_send_every_request_of_the_plan_once", function()
  local seen = {}
  with_server(function(req)
    local body = req:body()
    seen[body] = (seen[body] or 0) + 1
    ok(req)
  end, function(place)
    local bodies = {}
    for i = 1, 300 do bodies[i] = "request " .. i end
    local result = load.run {
      url = "http://x/", connect_to = place, bodies = bodies, threads = 3, timeout = 20, max_lateness = 20,
      plan = { { kind = "hold", rate = 300, duration = 1 } }, window = { from = 0.5 },
    }
    t.eq({ result.requests, result.planned, result.errors.total, result.window.requests }, { 300, 300, 0, 150 })
    t.eq(result.latency.count, 300)
    t.eq(result.series[1].planned, 300)
    for i = 1, 300 do t.eq(seen["request " .. i], 1) end
  end)
end)

t.test("threads_take_made_requests_in_their_order", function()
  local seen = {}
  with_server(function(req)
    seen[req.target] = (seen[req.target] or 0) + 1
    ok(req)
  end, function(place)
    local result = load.run {
      url = "http://x/", connect_to = place, threads = 3, timeout = 20, max_lateness = 20,
      plan = { { kind = "hold", rate = 1500, duration = 1 } }, request = function(i) return { path = "/" .. i } end,
    }
    t.eq({ result.requests, result.errors.total }, { 1500, 0 })
    for i = 1, 1500 do t.eq(seen["/" .. i], 1) end
  end)
end)

t.test("figures_of_threads_are_seen_while_they_run", function()
  with_server(ok, function(place)
    local most = 0
    load.run {
      url = "http://x/", connect_to = place, threads = 2, plan = { { kind = "hold", rate = 200, duration = 1.2 } }, timeout = 20,
      progress_every = 0.3, progress = function(now) most = math.max(most, now.requests) end,
    }
    t.ok(most > 20 and most <= 240, "progress said " .. most)
  end)
end)

t.test("a_closed_loop_keeps_its_connections_busy", function()
  with_server(function(req)
    task.sleep(0.01)
    ok(req)
  end, function(place)
    local result = load.run { url = "http://x/", connect_to = place, connections = 5, duration = 0.5, threads = 2, timeout = 20 }
    t.eq(result.errors.total, 0)
    t.ok(result.requests >= 10 and result.requests <= 255, result.requests .. " requests")
    t.eq(result.connections, 5)
    t.eq(result.series[1].in_flight, 5)
    t.ok(result.latency.p50 >= 0.01)
  end)
end)

t.test("a_closed_loop_of_several_threads_ends_with_its_requests", function()
  with_server(ok, function(place)
    local opts = { url = "http://x/", connect_to = place, connections = 6, duration = 20, max_requests = 101, threads = 3, timeout = 20 }
    local result = load.run(opts)
    t.eq({ result.requests, result.errors.total }, { 101, 0 })
    t.ok(result.seconds < 20)
    opts.max_requests = 2
    t.eq(load.run(opts).requests, 2)
  end)
end)

t.test("cancel_stops_threads_at_once_and_reports", function()
  with_server(ok, function(place)
    local partial
    local began = core_clock.monotonic()
    t.err("timeout", function()
      task.timeout(0.5, function()
        load.run {
          url = "http://x/", connect_to = place, threads = 2, plan = { { kind = "hold", rate = 100, duration = 60 } },
          on_cancel = function(result) partial = result end,
        }
      end)
    end)
    t.ok(core_clock.monotonic() - began < 2)
    t.ok(partial.planned > 10 and partial.planned <= 200, partial.planned .. " requests were planned")
    t.eq(partial.requests + partial.aborted, partial.planned)
  end)
end)

t.test("a_run_that_is_dropped_takes_its_threads_with_it", function()
  with_server(ok, function(place)
    for _ = 1, 5 do
      load.start { url = "http://x/", connect_to = place, threads = 2, plan = { { kind = "hold", rate = 100, duration = 60 } } }
      task.sleep(0.02)
      collectgarbage()
    end
  end)
end)

t.test("a_refused_port_is_told_before_any_thread_begins", function()
  local err = t.err("network", load.run, { url = "http://127.0.0.1:1/", threads = 2, plan = { { kind = "hold", rate = 1, duration = 1 } } })
  t.match(tostring(err), "connection refused")
end)

t.test("plan_and_connections_exclude_each_other", function()
  local plan = { { kind = "hold", rate = 1, duration = 1 } }
  t.match(tostring(t.err("invalid", load.run, { url = "http://127.0.0.1:1/", plan = plan, connections = 2 })), "not both")
  t.match(tostring(t.err("invalid", load.run, { url = "http://127.0.0.1:1/", connections = 2 })), "connections and a duration")
  t.match(tostring(t.err("invalid", load.run, { url = "http://127.0.0.1:1/", plan = plan, duration = 2 })), "durations of their own")
end)

local function with_tls_server(cert_names, body)
  local now = task.now()
  local ca = assert(crypto.ca_create { name = "test", not_before = now - 1000, not_after = now + 1000 })
  local leaf = assert(crypto.cert_issue { ca = ca, names = cert_names, cn = cert_names[1], not_before = now - 900, not_after = now + 900 })
  local server <close> = assert(httpd.listen { host = "127.0.0.1", tls = { cert_pem = leaf.cert_pem, key_pem = leaf.key_pem } })
  local snis = {}
  task.race {
    function()
      httpd.serve(server, function(req)
        snis[#snis + 1] = tostring(req.sni)
        req:respond(200, {}, ("x"):rep(40000)) -- several records
      end)
    end,
    function() body("127.0.0.1:" .. server.port, ca.cert_pem, snis) end,
  }
end

for _, threads in ipairs { 0, 2 } do
  t.test("tls_targets_are_loaded_on_" .. threads .. "_threads", function()
    with_tls_server({ "model.test" }, function(place, ca_pem, snis)
      local result = load.run {
        url = "https://model.test/", connect_to = place, ca_pem = ca_pem, threads = threads, timeout = 20,
        plan = { { kind = "hold", rate = 100, duration = 0.5 } },
      }
      t.eq({ result.requests, result.errors.total }, { 50, 0 })
      t.ok(result.bytes_in > 50 * 40000)
      t.eq({ #snis, snis[1] }, { 50, "model.test" })
      local closing = load.run {
        url = "https://model.test/", connect_to = place, ca_pem = ca_pem, threads = threads, timeout = 20, keep_alive = false,
        plan = { { kind = "hold", rate = 50, duration = 0.5 } },
      }
      t.eq({ closing.requests, closing.errors.total }, { 25, 0 })
      t.ok(closing.connections >= 25)
    end)
  end)
end

t.test("a_certificate_that_does_not_verify_ends_the_run_before_the_first_request", function()
  local plan = { { kind = "hold", rate = 10, duration = 0.3 } }
  with_tls_server({ "other.test" }, function(place, ca_pem)
    local opts = { url = "https://model.test/", connect_to = place, ca_pem = ca_pem, plan = plan, timeout = 20 }
    t.match(tostring(t.err("network", load.run, opts)), "cannot connect: the certificate does not verify: hostname mismatch")
    opts.ca_pem = nil
    t.match(tostring(t.err("network", load.run, opts)), "the certificate does not verify: unable to get local issuer")
    opts.verify = false
    t.eq(load.run(opts).errors.total, 0)
    opts.ca_file, opts.verify = "/nowhere.pem", nil
    t.match(tostring(t.err("invalid", load.run, opts)), "'/nowhere.pem' holds no certificate")
  end)
end)

t.test("a_server_that_speaks_no_tls_is_told", function()
  with_server(ok, function(place)
    local opts = { url = "https://model.test/", connect_to = place, plan = { { kind = "hold", rate = 10, duration = 0.3 } }, timeout = 20 }
    t.match(tostring(t.err("network", load.run, opts)), "cannot connect: ")
  end)
end)
