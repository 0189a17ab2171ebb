-- SPDX-License-Identifier: Apache-2.0
-- The HTTP client: streams, deadlines, cancels and failures.
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local lib = require "lib_http"
local t = require "eirun.test"
local task = require "eirun.task"

local echo, serving = lib.echo, lib.serving

-- Streams

t.test("stream_gives_chunks_as_they_come_and_nil_at_the_end", function()
  local go = task.event()
  serving(function(req)
    req:start(200, { { "X-A", "1" } })
    req:write("first")
    go:wait()
    req:write("second")
    req:finish()
  end, function(client, base)
    local stream <close> = assert(client:open { url = base })
    t.eq(stream.status, 200)
    t.eq(stream.headers:get("x-a"), "1")
    t.eq(stream:read(), "first")
    local chunk, err = stream:read(0.01)
    t.eq(chunk, nil)
    t.eq(err.kind, "timeout")
    go:set()
    t.eq(stream:read(), "second")
    t.eq(table.pack(stream:read()).n, 0)
    t.eq(stream:read(), nil)
  end)
end)

t.test("slow_reader_stops_the_sender", function()
  local written = 0
  serving(function(req)
    req:start(200, {})
    for _ = 1, 400 do
      req:write(("x"):rep(64 << 10))
      written = written + 1
    end
    req:finish()
  end, function(client, base)
    local stream <close> = assert(client:open { url = base })
    task.sleep(0.2)
    t.ok(written < 300, written)
    local size = 0
    for chunk in function() return stream:read() end do
      size = size + #chunk
    end
    t.eq(size, 400 * (64 << 10))
  end)
end)

t.test("closing_a_stream_closes_its_connection", function()
  local closed = task.event()
  serving(function(req)
    req:start(200, {})
    req:write("x")
    req:wait_closed()
    closed:set()
  end, function(client, base)
    do
      local stream <close> = assert(client:open { url = base })
      t.eq(stream:read(), "x")
    end
    t.ok(closed:wait(5))
  end)
end)

t.test("cut_stream_gives_its_bytes_and_then_the_error", function()
  serving(function(req)
    req:start(200, {})
    req:write("some")
    task.sleep(0.02)
    req:abort()
  end, function(client, base)
    local stream <close> = assert(client:open { url = base })
    t.eq(stream:read(), "some")
    local chunk, err = stream:read()
    t.eq(chunk, nil)
    t.eq(err.kind, "network")
  end)
end)

t.test("cancelled_read_leaves_the_stream_usable", function()
  local go = task.event()
  serving(function(req)
    req:start(200, {})
    req:write("a")
    go:wait()
    req:write("b")
    req:finish()
  end, function(client, base)
    local stream <close> = assert(client:open { url = base })
    t.eq(stream:read(), "a")
    t.err("timeout", task.timeout, 0.02, function()
      stream:read()
    end)
    go:set()
    t.eq(stream:read(), "b")
  end)
end)

t.test("closed_stream_cannot_be_read", function()
  serving(echo, function(client, base)
    local stream = assert(client:open { url = base })
    stream:close()
    stream:close()
    t.err("closed", stream.read, stream)
  end)
end)

-- Deadlines and cancel

t.test("time_out_names_host_and_limit", function()
  serving(function(req)
    if req.path == "/half" then
      req:start(200, {})
      req:write("x")
    end
    req:wait_closed()
  end, function(client, base)
    local host = base:sub(8):gsub("%.", "%%.")
    local _, err = client:request { url = base, timeout = 0.05 }
    t.eq(err.kind, "timeout")
    t.match(err.message, "^" .. host .. " did not answer within 0%.05 s$")
    _, err = client:request { url = base .. "/half", timeout = 0.05 }
    t.match(err.message, "did not finish its answer within 0%.05 s$")
    _, err = client:request { url = base .. "/half", stall_timeout = 0.05 }
    t.match(err.message, "neither took nor sent a byte within 0%.05 s$")
  end)
end)

t.test("answer_that_keeps_coming_is_no_stall", function()
  serving(function(req)
    req:start(200, {})
    for _ = 1, 6 do
      req:write("x")
      task.sleep(0.03)
    end
    req:finish()
  end, function(client, base)
    t.eq(#assert(client:request { url = base, stall_timeout = 0.1 }).body, 6)
  end)
end)

t.test("connect_time_out_covers_the_handshake", function()
  -- A server without TLS waits for a request line that a TLS hello never brings.
  local server <close> = assert(httpd.listen { host = "127.0.0.1", port = 0, header_timeout = 60 })
  local client <close> = assert(http.client())
  local _, err = client:request { url = "https://127.0.0.1:" .. server.port, connect_timeout = 0.1 }
  t.ok(err.kind == "timeout" or err.kind == "network", err.kind)
  t.eq(err.sent, false)
  t.eq(err.retryable, true)
end)

t.test("cancel_closes_the_connection_at_once", function()
  local closed = task.event()
  serving(function(req)
    req:wait_closed()
    closed:set()
  end, function(client, base)
    t.err("timeout", task.timeout, 0.05, function()
      client:request { url = base }
    end)
    t.ok(closed:wait(5))
  end)
end)

t.test("closing_the_client_fails_its_requests", function()
  serving(function(req)
    req:wait_closed()
  end, function(client, base)
    task.together(function(all)
      all(function()
        local _, err = client:request { url = base }
        t.eq(err.kind, "invalid")
        t.match(err.message, "client was closed")
      end)
      task.sleep(0.05)
      client:close()
    end)
    t.err("closed", client.request, client, { url = base })
  end)
end)

-- Failures

t.test("refused_connection_says_so_and_may_be_tried_again", function()
  local client <close> = assert(http.client())
  local _, err = client:request { url = "http://127.0.0.1:1/", method = "POST" }
  t.eq(err.kind, "network")
  t.eq(err.message, "cannot connect to 127.0.0.1:1: connection refused")
  t.eq(err.retryable, true)
  t.eq(err.sent, false)
end)

t.test("lost_answer_to_a_write_is_left_to_the_caller", function()
  local count = 0
  serving(function(req)
    count = count + 1
    if count == 1 then
      req:respond(200, {}, "")
    else
      req:abort()
    end
  end, function(client, base)
    assert(client:request { url = base })
    local _, err = client:request { url = base, method = "POST", body = "create" }
    t.eq(err.kind, "network")
    t.eq(err.sent, true)
    t.eq(err.retryable, nil)
    t.eq(count, 2)
  end)
end)

t.test("lost_answer_to_a_read_may_be_tried_again", function()
  serving(function(req)
    req:abort()
  end, function(client, base)
    local _, err = client:request { url = base }
    t.eq(err.sent, true)
    t.eq(err.retryable, true)
  end)
end)

t.test("invalid_url_is_an_error_not_a_raise", function()
  local client <close> = assert(http.client())
  for _, url in ipairs { "", "ftp://a/", "http://user@a/", "http://a/b c", "a.test/x" } do
    local _, err = client:request { url = url }
    t.eq(err.kind, "invalid")
  end
end)

t.test("misuse_raises_and_names_the_nearest_option", function()
  local client <close> = assert(http.client())
  t.err("did you mean 'headers'", client.request, client, { url = "http://a/", header = {} })
  t.err("option 'url' is missing", client.request, client, {})
  t.err("option 'body' must be", client.request, client, { url = "http://a/", body = 5 })
  t.err("must be '1.1' or '2'", client.request, client, { url = "http://a/", http_version = "3" })
  t.err("not one of md5", client.request, client, { url = "http://a/", sink = { file = "x", digest = { "md4" } } })
  t.err("max_connections", http.client, { max_connections = 0 })
end)
