-- SPDX-License-Identifier: Apache-2.0
-- The HTTP client against the program's own server, over TCP, TLS and Unix sockets.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local secret = require "eirun.core.secret"
local t = require "eirun.test"
local task = require "eirun.task"

-- A handler that only waits for its client to go away has nobody to answer.
local function report(err, req)
  if not req:closed() then
    error(err, 0)
  end
end

-- Calls fn(client, base url, server) while `handler` serves; everything is closed afterwards.
local function serving(handler, fn, options)
  options = options or {}
  local server = assert(httpd.listen { host = "127.0.0.1", port = 0, tls = options.tls })
  local base = (options.tls and "https" or "http") .. "://127.0.0.1:" .. server.port
  task.race {
    function()
      httpd.serve(server, handler, { on_error = report })
    end,
    function()
      local client <close> = assert(http.client(options.client))
      fn(client, base, server)
    end,
  }
  server:abort()
end

local function with_dir(fn)
  local dir = assert(fs.mkdtemp("/tmp/eirun-http-"))
  local ok, err = pcall(fn, dir)
  fs.remove(dir, { recursive = true })
  if not ok then
    error(err, 0)
  end
end

local function routed(routes, fn)
  http.routes(routes)
  local ok, err = pcall(fn)
  http.routes {}
  if not ok then
    error(err, 0)
  end
end

-- Answers with what came: method, target, header lines, body.
local function echo(req)
  local lines = { req.method .. " " .. req.target }
  for _, header in ipairs(req.headers) do
    lines[#lines + 1] = header[1] .. "=" .. header[2]
  end
  req:respond(200, { { "X-A", "1" }, { "x-a", "2" } }, table.concat(lines, "\n") .. "\n\n" .. assert(req:body()))
end

t.test("answer_has_status_headers_and_body", function()
  serving(echo, function(client, base)
    local answer = assert(client:request { url = base .. "/a/../b?c=%20d" })
    t.eq(answer.status, 200)
    t.eq(answer.version, "1.1")
    t.eq(answer.headers:get("X-a"), "1")
    t.eq(answer.headers:list("x-A"), { "1", "2" })
    t.eq(answer.headers:get("nothing"), nil)
    t.match(answer.body, "^GET /a/%.%./b%?c=%%20d\n")
    t.eq(answer.remote, base:sub(8))
    t.ok(answer.seconds >= 0)
  end)
end)

t.test("connection_is_used_again_unless_the_call_says_no", function()
  serving(echo, function(client, base)
    t.eq(assert(client:request { url = base, expect_close = true }).reused, false)
    t.eq(assert(client:request { url = base }).reused, false)
    t.eq(assert(client:request { url = base }).reused, true)
  end)
end)

t.test("headers_of_a_map_are_sent_in_the_order_of_their_names", function()
  serving(echo, function(client, base)
    local answer = assert(client:request { url = base, headers = { c = "3", A = "1", b = "2" } })
    t.match(answer.body, "A=1\nb=2\nc=3\n")
  end)
end)

t.test("headers_of_a_list_keep_their_order_and_repeat", function()
  serving(echo, function(client, base)
    local answer = assert(client:request { url = base, headers = { { "z", "1" }, { "a", "" }, { "z", "2" } } })
    t.match(answer.body, "z=1\na=\nz=2\n")
  end)
end)

t.test("secrets_travel_in_headers_and_bodies", function()
  serving(echo, function(client, base)
    local answer = assert(client:request {
      url = base,
      method = "PUT",
      headers = { Authorization = secret.concat("Bearer ", secret.new("token")) },
      body = secret.new("hidden"),
    })
    t.match(answer.body, "Authorization=Bearer token")
    t.match(answer.body, "\n\nhidden$")
  end)
end)

t.test("line_break_in_a_header_is_refused", function()
  serving(echo, function(client, base)
    local _, err = client:request { url = base, headers = { a = "1\r\nb: 2" } }
    t.eq(err.kind, "invalid")
    t.eq(err.sent, false)
    _, err = client:request { url = base, headers = { ["a b"] = "1" } }
    t.eq(err.kind, "invalid")
  end)
end)

t.test("every_method_sends_what_it_was_given_and_nothing_else", function()
  serving(echo, function(client, base)
    for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS" } do
      local answer = assert(client:request { url = base, method = method, body = "bytes" })
      t.match(answer.body, "^" .. method .. " /\n")
      t.match(answer.body, "Content%-Length=5\n")
      t.match(answer.body, "\n\nbytes$")
      t.eq(answer.body:find("Expect"), nil)
      t.eq(answer.body:find("Content%-Type"), nil)
    end
    t.match(assert(client:request { url = base, method = "POST" }).body, "Content%-Length=0")
    t.eq(assert(client:request { url = base, method = "DELETE" }).body:find("Content%-Length"), nil)
  end)
end)

t.test("large_body_is_sent_at_once", function()
  serving(function(req)
    req:respond(200, {}, #assert(req:body(8 << 20)) .. " " .. tostring((req.headers:get("expect"))))
  end, function(client, base)
    local answer = assert(client:request { url = base, method = "POST", body = ("x"):rep(3 << 20) })
    t.eq(answer.body, (3 << 20) .. " nil")
  end)
end)

t.test("answers_without_a_body_end_at_their_header", function()
  serving(function(req)
    if req.method == "HEAD" then
      req:respond(200, {}, "body of a get")
    else
      req:respond(tonumber(req.path:sub(2)), {})
    end
  end, function(client, base)
    local head = assert(client:request { url = base, method = "HEAD" })
    t.eq(head.headers:get("content-length"), "13")
    t.eq(head.body, "")
    local _, err = client:request { url = base, method = "HEAD", body = "x" }
    t.eq(err.kind, "invalid")
    t.eq(assert(client:request { url = base .. "/204" }).status, 204)
    t.eq(assert(client:request { url = base .. "/304" }).status, 304)
    t.eq(assert(client:request { url = base .. "/304" }).reused, true)
  end)
end)

t.test("range_of_a_file_is_sent", function()
  with_dir(function(dir)
    local path = dir .. "/in"
    local bytes = crypto.random(300000)
    assert(fs.write(path, bytes))
    serving(function(req)
      req:respond(200, {}, crypto.sha256(assert(req:body())))
    end, function(client, base)
      local answer = assert(client:request { url = base, method = "PUT", body = { file = path, offset = 1000, length = 200000 } })
      t.eq(answer.body, crypto.sha256(bytes:sub(1001, 201000)))
      answer = assert(client:request { url = base, method = "PUT", body = { file = path, offset = 299999 } })
      t.eq(answer.body, crypto.sha256(bytes:sub(-1)))
      local _, err = client:request { url = base, method = "PUT", body = { file = path, offset = 1, length = 300000 } }
      t.eq(err.kind, "invalid")
      _, err = client:request { url = base, method = "PUT", body = { file = dir .. "/none" } }
      t.eq(err.kind, "not_found")
      t.eq(err.sent, false)
    end)
  end)
end)

t.test("a_body_is_sent_as_it_is_written", function()
  serving(function(req)
    t.eq(req.headers:get("transfer-encoding"), "chunked")
    local body = assert(req:body(64 << 20))
    req:respond(200, {}, #body .. " " .. crypto.hex(crypto.sha256(body)))
  end, function(client, base)
    local digest, pieces = crypto.digest("sha256"), 40
    local upload <close> = assert(client:upload { url = base, method = "PUT" })
    for i = 1, pieces do
      local piece = string.char(64 + i):rep(100000)
      digest:update(piece)
      t.eq(upload:write(piece), true)
      if i % 10 == 0 then
        task.sleep(0.002) -- a writer that is slow stops nothing
      end
    end
    local answer = assert(upload:finish())
    t.eq(answer.body, pieces * 100000 .. " " .. crypto.hex(digest:final()))
  end)
end)

t.test("an_upload_waits_while_the_server_does_not_read", function()
  local go = task.event()
  serving(function(req)
    go:wait(5)
    req:respond(200, {}, tostring(#assert(req:body(64 << 20))))
  end, function(client, base)
    local upload <close> = assert(client:upload { url = base, method = "POST" })
    local written = 0
    local ok, err = pcall(task.timeout, 0.3, function()
      while true do
        upload:write(("x"):rep(1 << 20))
        written = written + 1
      end
    end)
    t.eq(ok, false)
    t.eq(err.kind, "timeout")
    t.ok(written < 40, "written: " .. written)
    go:set()
    local answer = assert(upload:finish())
    t.eq(math.tointeger(tonumber(answer.body)) >= written << 20, true)
  end)
end)

t.test("an_answer_that_comes_early_ends_the_writing", function()
  serving(function(req)
    req:respond(413, { { "Connection", "close" } }, "too much")
  end, function(client, base)
    local upload <close> = assert(client:upload { url = base, method = "POST" })
    local going = true
    for _ = 1, 200 do
      going = upload:write(("x"):rep(100000))
      if not going then
        break
      end
    end
    t.ok(not going)
  end)
end)

t.test("an_empty_upload_is_an_empty_body", function()
  serving(echo, function(client, base)
    local upload <close> = assert(client:upload { url = base, method = "POST" })
    local answer = assert(upload:finish())
    t.match(answer.body, "^POST /")
    t.err("closed", upload.write, upload, "x")
  end)
end)

t.test("answer_goes_to_a_file_with_its_digests", function()
  with_dir(function(dir)
    local bytes = crypto.random(500000)
    serving(function(req)
      req:respond(200, {}, bytes)
    end, function(client, base)
      local path = dir .. "/out"
      local answer = assert(client:request { url = base, sink = { file = path, digest = { "crc64", "md5", "sha256" } } })
      t.eq(answer.body, nil)
      t.eq(answer.digests, { crc64 = crypto.crc64(bytes), md5 = crypto.md5(bytes), sha256 = crypto.sha256(bytes) })
      t.ok(fs.read(path) == bytes)
      assert(client:request { url = base, sink = { file = path, offset = 10 } })
      t.ok(fs.read(path) == bytes:sub(1, 10) .. bytes)
      assert(client:request { url = base, sink = { file = path } })
      t.ok(fs.read(path) == bytes)
    end)
  end)
end)

t.test("error_answer_does_not_reach_the_file", function()
  with_dir(function(dir)
    serving(function(req)
      req:respond(404, {}, "<Code>NoSuchKey</Code>")
    end, function(client, base)
      local answer = assert(client:request { url = base, sink = { file = dir .. "/out", digest = { "md5" } } })
      t.eq(answer.body, "<Code>NoSuchKey</Code>")
      t.eq(answer.digests, nil)
      t.eq(fs.stat(dir .. "/out"), nil)
    end)
  end)
end)

t.test("empty_answer_makes_an_empty_file", function()
  with_dir(function(dir)
    serving(function(req)
      req:respond(200, {}, "")
    end, function(client, base)
      assert(client:request { url = base, sink = { file = dir .. "/out" } })
      t.eq(assert(fs.stat(dir .. "/out")).size, 0)
    end)
  end)
end)

t.test("file_that_cannot_be_written_is_an_error_with_its_name", function()
  serving(echo, function(client, base)
    local _, err = client:request { url = base, sink = { file = "/nowhere/out" } }
    t.match(err.message, "^cannot open '/nowhere/out': no such file or directory$")
  end)
end)

t.test("answer_larger_than_allowed_is_refused", function()
  serving(function(req)
    req:respond(200, {}, ("x"):rep(1001))
  end, function(client, base)
    t.eq(#assert(client:request { url = base, max_body = 1001 }).body, 1001)
    local _, err = client:request { url = base, max_body = 1000 }
    t.eq(err.kind, "quota")
    t.eq(err.retryable, false)
  end)
end)

t.test("gzip_is_undone_where_asked", function()
  -- printf 'hello hello hello' | gzip -n9
  local packed = crypto.unhex "1f8b0800000000000203cb48cdc9c957c84090008088f9e511000000"
  serving(function(req)
    t.eq(req.headers:get("accept-encoding"), req.path == "/packed" and "gzip" or nil)
    req:respond(200, { { "Content-Encoding", "gzip" } }, packed)
  end, function(client, base)
    t.eq(assert(client:request { url = base .. "/packed", decompress = true }).body, "hello hello hello")
    t.eq(assert(client:request { url = base .. "/raw" }).body, packed)
  end)
end)

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

-- Routes and proxies

t.test("routed_host_keeps_its_name", function()
  with_dir(function(dir)
    local server = assert(httpd.listen { unix = dir .. "/s" })
    task.race {
      function()
        httpd.serve(server, echo)
      end,
      function()
        routed({ { host = "*.aliyuncs.com", port = 80, unix = dir .. "/s" }, closed = true }, function()
          local client <close> = assert(http.client { proxy = "http://127.0.0.1:1" })
          local answer = assert(client:request { url = "http://cs.cn-hangzhou.aliyuncs.com/clusters" })
          t.match(answer.body, "^GET /clusters\n")
          t.match(answer.body, "Host=cs%.cn%-hangzhou%.aliyuncs%.com\n")
          t.eq(answer.remote, dir .. "/s")
        end)
      end,
    }
    server:abort()
  end)
end)

-- A Unix socket holds less than one block of the server's.
t.test("file_of_many_blocks_arrives_whole_at_a_slow_reader", function()
  with_dir(function(dir)
    local bytes = crypto.random(3 << 20)
    assert(fs.write(dir .. "/in", bytes))
    local server = assert(httpd.listen { unix = dir .. "/s" })
    task.race {
      function()
        httpd.serve(server, function(req)
          req:respond_file(200, {}, dir .. "/in", 0, #bytes)
        end)
      end,
      function()
        routed({ { host = "a.test", unix = dir .. "/s" } }, function()
          local client <close> = assert(http.client())
          local stream <close> = assert(client:open { url = "http://a.test/" })
          local digest = crypto.digest "sha256"
          for chunk in function() return stream:read() end do
            digest:update(chunk)
            task.sleep(0.002)
          end
          t.ok(digest:final() == crypto.sha256(bytes))
        end)
      end,
    }
    server:abort()
  end)
end)

t.test("route_to_an_address_keeps_the_name_too", function()
  serving(echo, function(client, base)
    routed({ { host = "a.test", address = base:sub(8) }, closed = true }, function()
      t.match(assert(client:request { url = "http://a.test:8080/" }).body, "Host=a%.test:8080\n")
    end)
  end)
end)

t.test("closed_table_refuses_every_other_host_and_port", function()
  serving(echo, function(client, base)
    routed({ { host = "a.test", port = 80, address = base:sub(8) }, closed = true }, function()
      assert(client:request { url = "http://a.test/" })
      for _, url in ipairs { "http://a.test:81/", "https://a.test/", "http://b.test/", base, "http://a.test.evil.test/" } do
        local _, err = client:request { url = url }
        t.eq(err.kind, "denied", url)
        t.eq(err.sent, false)
      end
    end)
  end)
end)

t.test("redirect_does_not_leave_a_closed_table", function()
  serving(function(req)
    req:respond(302, { { "Location", "http://outside.test/" } }, "")
  end, function(client, base)
    routed({ { host = "a.test", address = base:sub(8) }, closed = true }, function()
      t.eq(assert(client:request { url = "http://a.test/" }).status, 302)
      local _, err = client:request { url = "http://a.test/", follow = true }
      t.eq(err.kind, "denied")
    end)
  end)
end)

t.test("wrong_routes_are_misuse", function()
  t.err("either 'unix' or 'address'", http.routes, { { host = "a" } })
  t.err("not an ip address with a port", http.routes, { { host = "a", address = "localhost:80" } })
  t.err("option 'host' is missing", http.routes, { { unix = "/x" } })
  t.err("port must be", http.routes, { { host = "a", unix = "/x", port = 70000 } })
end)

t.test("proxy_of_the_client_is_asked_for_hosts_without_a_route", function()
  serving(echo, function(_, base)
    local client <close> = assert(http.client { proxy = base })
    t.match(assert(client:request { url = "http://far.test/x" }).body, "^GET http://far%.test/x\n")
  end)
end)

t.test("redirects_are_followed_where_asked", function()
  serving(function(req)
    local hop = tonumber(req.path:sub(2)) or 0
    if hop > 0 then
      req:respond(302, { { "Location", "/" .. hop - 1 .. "#part" } }, "")
    else
      echo(req)
    end
  end, function(client, base)
    t.eq(assert(client:request { url = base .. "/1" }).status, 302)
    local answer = assert(client:request { url = base .. "/10", follow = true, headers = { Authorization = "a" } })
    t.match(answer.body, "^GET /0\n")
    t.match(answer.body, "Authorization=a")
    t.eq(assert(client:request { url = base .. "/11", follow = true }).status, 302)
    t.eq(assert(client:request { url = base .. "/1", follow = true, method = "POST" }).status, 302)
  end)
end)

t.test("redirect_to_another_host_gets_no_credentials", function()
  serving(function(req)
    if req.headers:get("host") == "a.test" then
      req:respond(302, { { "Location", "http://b.test/" } }, "")
    else
      echo(req)
    end
  end, function(client, base)
    routed({ { host = "*.test", address = base:sub(8) } }, function()
      local answer = assert(client:request {
        url = "http://a.test/",
        follow = true,
        headers = { Authorization = "a", Cookie = "b", ["X-Other"] = "c" },
      })
      t.match(answer.body, "Host=b%.test")
      t.match(answer.body, "X%-Other=c")
      t.eq(answer.body:find("Authorization"), nil)
      t.eq(answer.body:find("Cookie"), nil)
    end)
  end)
end)

-- TLS

local hour = 3600

local function authority()
  return assert(crypto.ca_create { name = "test ca", not_before = task.now() - hour, not_after = task.now() + hour })
end

local function certificate(ca, names, shift, client)
  return assert(crypto.cert_issue {
    ca = ca,
    client = client,
    names = names,
    cn = names[1],
    not_before = task.now() - hour + (shift or 0),
    not_after = task.now() + hour / 2 + (shift or 0),
  })
end

local function serving_tls(ca, cert, client, fn, more)
  local tls = { cert_pem = cert.cert_pem, key_pem = cert.key_pem }
  for key, value in pairs(more or {}) do
    tls[key] = value
  end
  client.ca_pem = client.ca_pem or ca.cert_pem
  serving(echo, fn, { tls = tls, client = client })
end

t.test("tls_is_verified_against_the_given_authority", function()
  local ca = authority()
  serving_tls(ca, certificate(ca, { "127.0.0.1" }), {}, function(client, base)
    t.eq(assert(client:request { url = base }).status, 200)
    local other <close> = assert(http.client { ca_pem = authority().cert_pem })
    local _, err = other:request { url = base }
    t.eq(err.kind, "network")
    t.eq(err.retryable, false)
    t.eq(err.sent, false)
    t.match(err.message, "^cannot connect to 127%.0%.0%.1:%d+: .*certificate")
    local careless <close> = assert(http.client { verify = false })
    t.eq(assert(careless:request { url = base }).status, 200)
  end)
end)

t.test("server_without_version_2_answers_by_version_1", function()
  local ca = authority()
  serving_tls(ca, certificate(ca, { "127.0.0.1" }), {}, function(client, base)
    task.map({ 1, 2, 3, 4, 5, 6, 7, 8 }, function()
      t.eq(assert(client:request { url = base, http_version = "2", timeout = 20 }).version, "1.1")
    end)
  end)
end)

t.test("certificate_for_another_name_is_refused", function()
  local ca = authority()
  serving_tls(ca, certificate(ca, { "a.test" }), {}, function(client, base)
    local _, err = client:request { url = base }
    t.match(err.message, "127%.0%.0%.1")
    t.eq(err.retryable, false)
    local named <close> = assert(http.client { ca_pem = ca.cert_pem, tls_server_name = "a.test" })
    local answer = assert(named:request { url = base .. "/x" })
    t.match(answer.body, "Host=127%.0%.0%.1:%d+\n")
  end)
end)

t.test("certificate_of_another_time_is_refused", function()
  local ca = authority()
  serving_tls(ca, certificate(ca, { "127.0.0.1" }, -hour), {}, function(client, base)
    local _, err = client:request { url = base }
    t.match(err.message, "certificate has expired")
  end)
end)

t.test("client_shows_its_certificate", function()
  local ca = authority()
  local mine = certificate(ca, { "eirun" }, 0, true)
  serving_tls(ca, certificate(ca, { "127.0.0.1" }), {}, function(client, base)
    local _, err = client:request { url = base }
    t.eq(err.kind, "network")
    local known <close> = assert(http.client { ca_pem = ca.cert_pem, cert_pem = mine.cert_pem, key_pem = mine.key_pem })
    t.eq(assert(known:request { url = base }).status, 200)
  end, { client_ca_pem = ca.cert_pem, client_required = true })
end)

-- Many at once

t.test("no_more_requests_run_at_once_than_allowed", function()
  local now, most = 0, 0
  serving(function(req)
    now = now + 1
    most = math.max(most, now)
    task.sleep(0.005)
    now = now - 1
    req:respond(200, {}, req.path)
  end, function(client, base)
    local list = {}
    for i = 1, 40 do
      list[i] = i
    end
    local bodies = task.map(list, function(i)
      return assert(client:request { url = base .. "/" .. i }).body
    end)
    for i = 1, 40 do
      t.eq(bodies[i], "/" .. i)
    end
    t.eq(most, 4)
  end, { client = { max_connections = 4 } })
end)
