-- SPDX-License-Identifier: Apache-2.0
-- A server and a client of one program over TCP, in virtual time: neither holds the clock that the other waits on.
local crypto = require "eirun.core.crypto"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local t = require "eirun.test"
local task = require "eirun.task"

-- Calls body(client, base) while `handler` serves on loopback.
local function serving(handler, body, options)
  options = options or {}
  http.routes {} -- tests before this one may have closed the table
  local server = assert(httpd.listen { host = options.host or "127.0.0.1", tls = options.tls })
  local base = (options.tls and "https" or "http") .. "://127.0.0.1:" .. server.port
  task.race {
    function() httpd.serve(server, handler) end,
    function()
      local client <close> = assert(http.client(options.client))
      body(client, base)
    end,
  }
  server:abort()
end

local function slow(seconds, text)
  return function(req)
    task.sleep(seconds)
    req:respond(200, {}, text)
  end
end

t.test("a_slow_answer_takes_its_time_on_the_clock", function()
  serving(slow(3600, "late"), function(client, base)
    local from = task.now()
    local reply = assert(client:request { url = base .. "/", stall_timeout = 7200 })
    t.eq({ reply.body, task.now() - from, reply.seconds }, { "late", 3600.0, 3600.0 })
  end)
end)

t.test("a_kept_connection_does_the_same", function()
  serving(slow(30, "late"), function(client, base)
    local from = task.now()
    for i = 1, 5 do
      local reply = assert(client:request { url = base .. "/" })
      t.eq(reply.reused, i > 1)
    end
    t.eq(task.now() - from, 150.0)
  end)
end)

t.test("deadlines_count_on_the_clock", function()
  serving(slow(1000, "late"), function(client, base)
    local from = task.now()
    local _, err = client:request { url = base .. "/", timeout = 30 }
    t.eq({ err.kind, task.now() - from }, { "timeout", 30.0 })
    _, err = client:request { url = base .. "/" } -- the default stall limit
    t.eq({ err.kind, task.now() - from }, { "timeout", 90.0 })
  end)
end)

t.test("requests_that_wait_for_a_connection_wait_on_the_clock", function()
  serving(slow(10, "late"), function(client, base)
    local from = task.now()
    local list = {}
    for i = 1, 6 do list[i] = i end
    task.map(list, function() assert(client:request { url = base .. "/" }) end, 6)
    t.eq(task.now() - from, 30.0)
  end, { client = { max_connections = 2 } })
end)

t.test("a_body_of_many_pieces_arrives_before_time_passes", function()
  local body = ("0123456789abcdef"):rep(1 << 18) -- 4 MiB: more than the kernel keeps for a socket
  serving(function(req)
    local text = assert(req:body(8 << 20))
    req:respond(200, {}, text)
  end, function(client, base)
    local from = task.now()
    task.race {
      function()
        task.sleep(0.001)
        error "time passed while bytes were on their way"
      end,
      function()
        for _ = 1, 5 do t.ok(assert(client:request { method = "POST", url = base .. "/", body = body }).body == body, "the body") end
      end,
    }
    t.eq(task.now(), from)
  end)
end)

t.test("a_stream_of_chunks_hours_apart_ends", function()
  serving(function(req)
    req:start(200, {})
    for i = 1, 3 do
      task.sleep(3600)
      req:write(tostring(i))
    end
    req:finish()
  end, function(client, base)
    local from, text = task.now(), ""
    local stream <close> = assert(client:open { url = base .. "/", stall_timeout = 7200 })
    for chunk in function() return stream:read() end do text = text .. chunk end
    t.eq({ text, task.now() - from }, { "123", 10800.0 })
  end)
end)

t.test("the_same_over_tls_and_on_every_address", function()
  local now = task.now()
  local ca = assert(crypto.ca_create { name = "ca", not_before = now - 100, not_after = now + 100000 })
  local cert = assert(crypto.cert_issue { ca = ca, names = { "127.0.0.1" }, cn = "a", not_before = now - 100, not_after = now + 100000 })
  serving(slow(3000, "late"), function(client, base)
    local from = task.now()
    t.eq(assert(client:request { url = base .. "/", stall_timeout = 7200 }).body, "late")
    t.eq(task.now() - from, 3000.0)
  end, { host = "0.0.0.0", tls = { cert_pem = cert.cert_pem, key_pem = cert.key_pem }, client = { ca_pem = ca.cert_pem } })
end)
