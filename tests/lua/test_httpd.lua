-- SPDX-License-Identifier: Apache-2.0
-- The HTTP server as handlers see it, with the program's own client and with curl.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local lib = require "lib_httpd"
local process = require "eirun.core.process"
local t = require "eirun.test"
local task = require "eirun.task"

local serving, with_dir, curl = lib.serving, lib.with_dir, lib.curl

-- A file of that many zeros.
local function sparse(dir, size)
  assert(process.run { "truncate", "-s", tostring(size), dir .. "/zeros" })
  return { file = dir .. "/zeros", length = size }
end

t.test("a_request_shows_what_was_sent", function()
  local seen
  serving(function(req)
    seen = {
      method = req.method, target = req.target, path = req.path, query_string = req.query_string, host = req.host,
      version = req.version, tls = req.tls, sni = req.sni, cn = req.peer_cn, port = req.local_port,
      header = req:header "x-A", missing = req:header "x-none", get = req.headers:get "X-a",
      list = req.headers:list "x-a", first = req.headers[1][1], query = req:query(), pairs = req:query_list(),
    }
    t.match(req.peer, "^127%.0%.0%.1:%d+$")
    req:respond(200, nil, "")
  end, function(client, base, server)
    local target = "/a%2Fb/%E4?x=1&y=%41+b&x=2&flag&=v&z=%zz"
    assert(client:request { url = base .. target, headers = { { "X-A", "1" }, { "x-a", " 2 " } } })
    t.eq(seen, {
      method = "GET", target = target, path = "/a%2Fb/%E4", query_string = "x=1&y=%41+b&x=2&flag&=v&z=%zz",
      host = "127.0.0.1:" .. server.port, version = "1.1", tls = false, port = server.port, header = "1", get = "1",
      list = { "1", "2" }, first = "Host", query = { x = "2", y = "A b", flag = "", [""] = "v", z = "%zz" },
      pairs = { { "x", "1" }, { "y", "A b" }, { "x", "2" }, { "flag", "" }, { "", "v" }, { "z", "%zz" } },
    })
  end)
end)

t.test("headers_of_a_map_are_sent_sorted_and_those_of_a_list_in_order", function()
  serving(function(req)
    if req.path == "/map" then
      req:respond(200, { Zebra = "z", Alpha = 1, Middle = "m" }, "x")
    else
      req:respond(200, { { "Zebra", "z" }, { "Set-Cookie", "a" }, { "Set-Cookie", "b" }, { "Alpha", "a" } }, "x")
    end
  end, function(client, base)
    local function names(path)
      local list = {}
      for i, header in ipairs(assert(client:request { url = base .. path }).headers) do list[i] = header[1] end
      return list
    end
    t.eq(names "/map", { "Alpha", "Middle", "Zebra", "Date", "Content-Length" })
    t.eq(names "/list", { "Zebra", "Set-Cookie", "Set-Cookie", "Alpha", "Date", "Content-Length" })
  end)
end)

t.test("date_comes_from_the_clock_of_the_run_unless_it_is_given", function()
  serving(function(req)
    req:respond(200, req.path == "/given" and { date = "Thu, 01 Jan 1970 00:00:00 GMT" } or nil, "")
  end, function(client, base)
    t.match(client:request { url = base }.headers:get "date", "^%a%a%a, %d%d %a%a%a %d%d%d%d %d%d:%d%d:%d%d GMT$")
    t.eq(client:request { url = base .. "/given" }.headers:list "date", { "Thu, 01 Jan 1970 00:00:00 GMT" })
  end)
end)

t.test("body_may_be_read_twice_but_not_over_its_maximum", function()
  serving(function(req)
    if req.path == "/small" then
      local text, err = req:body(3)
      req:respond(200, nil, tostring(text) .. " " .. err.kind)
    else
      req:respond(200, nil, req:body() .. req:body())
    end
  end, function(client, base)
    t.eq(client:request { url = base, method = "POST", body = "abcd" }.body, "abcdabcd")
    t.eq(client:request { url = base .. "/small", method = "POST", body = "abcd" }.body, "nil quota")
    t.eq(client:request { url = base, method = "GET" }.body, "")
  end)
end)

t.test("body_goes_to_a_file_with_its_digests", function()
  with_dir(function(dir)
    local result
    serving(function(req)
      result = assert(req:body_to_file(dir .. "/in", { digest = { "md5", "sha256", "crc64" } }))
      req:respond(200, nil, "")
    end, function(client, base)
      for _, size in ipairs { 0, 1, 65536, 65537, 262144, 262145, 5 << 20 } do
        local text = crypto.random(size)
        t.eq(client:request { url = base, method = "PUT", body = text }.status, 200)
        t.eq(result, { size = size, md5 = crypto.md5(text), sha256 = crypto.sha256(text), crc64 = crypto.crc64(text) })
        t.ok(fs.read(dir .. "/in") == text, "the file's content")
      end
      t.eq(fs.stat(dir .. "/in").mode, 384) -- 0600
    end)
  end)
end)

t.test("chunked_upload_of_curl_with_expect_continue", function()
  with_dir(function(dir)
    local text = crypto.random(3 << 20)
    assert(fs.write(dir .. "/from", text))
    serving(function(req)
      t.eq(req:header "expect", "100-continue")
      local result = assert(req:body_to_file(dir .. "/in", { digest = { "sha256" } }))
      req:respond(200, nil, crypto.hex(result.sha256) .. " " .. tostring(req:header "transfer-encoding"))
    end, function(_, base)
      local out = assert(process.run { "sh", "-c", "cat " .. dir .. "/from | curl -sS --noproxy '*' -m 20 -T - " ..
        "-H 'Expect: 100-continue' " .. base }).stdout
      t.eq(out, crypto.hex(crypto.sha256(text)) .. " chunked")
      out = curl("-T", dir .. "/from", "-H", "Expect: 100-continue", base)
      t.eq(out, crypto.hex(crypto.sha256(text)) .. " nil")
    end)
  end)
end)

t.test("upload_without_a_place_is_an_error_that_names_it", function()
  serving(function(req)
    local result, err = req:body_to_file "/nowhere/at/all"
    t.eq({ result, err.kind }, { nil, "not_found" })
    t.match(err.message, "^cannot write '/nowhere/at/all': ")
    req:respond(507, nil, "")
  end, function(client, base)
    t.eq(client:request { url = base, method = "PUT", body = "x" }.status, 507)
    t.eq(client:request { url = base, method = "PUT", body = "" }.status, 507)
  end)
end)

t.test("upload_that_breaks_off_leaves_no_file", function()
  with_dir(function(dir)
    local failure = task.event()
    local why
    serving(function(req)
      local result, err = req:body_to_file(dir .. "/in")
      t.eq(result, nil)
      why = err
      failure:set()
    end, function(client, base)
      task.race {
        function() client:request { url = base, method = "PUT", body = sparse(dir, 1 << 40) } end,
        function()
          for _ = 1, 500 do
            local st = fs.stat(dir .. "/in")
            if st and st.size > 1 << 20 then return end
            task.sleep(0.01)
          end
        end,
      }
      t.ok(failure:wait(5))
      t.eq(why.kind, "network")
      t.eq(fs.list(dir), { "zeros" })
    end, { limits = { body = 1 << 41 } })
  end)
end)

t.test("cancelled_upload_leaves_no_file", function()
  with_dir(function(dir)
    local answered = false
    serving(function(req)
      local ok, err = pcall(task.timeout, 0.05, req.body_to_file, req, dir .. "/in")
      t.eq({ ok, err.kind }, { false, "timeout" })
      t.eq(fs.list(dir), { "zeros" })
      answered = req:respond(408, nil, "too slow")
    end, function(client, base, _, errors)
      client:request { url = base, method = "PUT", body = sparse(dir, 1 << 40) } -- the reply, or a cut in the sending
      t.eq(errors, {})
      t.ok(answered)
    end, { limits = { body = 1 << 41 } })
  end)
end)

t.test("file_is_sent_whole_in_part_or_not_at_all", function()
  with_dir(function(dir)
    local text = crypto.random(3 << 20)
    assert(fs.write(dir .. "/f", text))
    serving(function(req)
      local offset, length = req.path:match "^/(%d+)/(%d+)$"
      if offset then
        assert(req:respond_file(206, { ["Content-Type"] = "x/y" }, dir .. "/f", tonumber(offset), tonumber(length)))
        return
      end
      local ok, err = req:respond_file(200, nil, dir .. req.path, 0, 1)
      t.eq(ok, nil)
      req:respond(404, nil, err.kind)
    end, function(client, base)
      for _, range in ipairs { { 0, #text }, { 0, 10 }, { 5, 65536 }, { 1, 65537 }, { 7, 262144 }, { 0, 262145 }, { 0, 0 } } do
        local reply = client:request { url = ("%s/%d/%d"):format(base, range[1], range[2]) }
        t.eq({ reply.status, reply.headers:get "content-length" }, { 206, tostring(range[2]) })
        t.ok(reply.body == text:sub(range[1] + 1, range[1] + range[2]), "bytes of the range")
      end
      local head = client:request { method = "HEAD", url = base .. "/0/1000" }
      t.eq({ head.headers:get "content-length", head.body }, { "1000", "" })
      local missing = client:request { url = base .. "/none" }
      t.eq({ missing.status, missing.body, missing.reused }, { 404, "not_found", true })
    end)
  end)
end)

t.test("file_that_shrinks_while_it_is_sent_is_cut_not_faked", function()
  with_dir(function(dir)
    assert(fs.write(dir .. "/f", ("x"):rep(64 << 20), { durable = false }))
    local ok, err
    serving(function(req)
      ok, err = req:respond_file(200, nil, dir .. "/f", 0, 64 << 20)
    end, function(client, base)
      local stream = assert(client:open { url = base })
      assert(stream:read())
      assert(fs.write(dir .. "/f", "short", { atomic = false }))
      local got, why
      repeat
        got, why = stream:read()
      until not got
      t.ok(why, "the client sees an error")
      t.eq({ ok, err and err.kind }, { nil, "internal" })
    end)
  end)
end)

t.test("stream_of_chunks_arrives_as_it_is_written", function()
  local go = task.event()
  serving(function(req)
    assert(req:start(200, { ["Content-Type"] = "application/json" }))
    assert(req:write "one")
    assert(req:write "")
    go:wait()
    assert(req:write(("two"):rep(100000)))
    assert(req:finish())
  end, function(client, base)
    local stream = assert(client:open { url = base })
    t.eq(stream.headers:get "transfer-encoding", "chunked")
    t.eq(stream:read(), "one")
    go:set()
    local rest = {}
    for chunk in function() return stream:read() end do rest[#rest + 1] = chunk end
    t.ok(table.concat(rest) == ("two"):rep(100000))
  end)
end)

t.test("stream_with_a_length_must_keep_it", function()
  serving(function(req)
    assert(req:start(200, { ["Content-Length"] = 10 }))
    assert(req:write "01234")
    if req.path == "/more" then
      t.err("more bytes", req.write, req, "567890")
    elseif req.path == "/whole" then
      assert(req:write "56789")
      assert(req:finish())
    else
      t.err("5 bytes fewer", req.finish, req)
    end
  end, function(client, base)
    local whole = client:request { url = base .. "/whole" }
    t.eq({ whole.body, whole.headers:get "transfer-encoding" }, { "0123456789" })
    t.eq(select(2, client:request { url = base .. "/less" }).kind, "network")
    t.eq(select(2, client:request { url = base .. "/more" }).kind, "network")
  end)
end)

t.test("old_clients_get_streams_that_end_with_the_connection", function()
  serving(function(req)
    assert(req:start(200))
    assert(req:write "all of it")
    assert(req:finish())
  end, function(_, base)
    local out = curl("-i", "--http1.0", base)
    t.match(out, "Connection: close\r\n\r\nall of it$")
    t.eq(out:find "chunked", nil)
  end)
end)

t.test("handler_that_fails_gives_500_and_is_reported", function()
  serving(function(req)
    if req.path == "/raise" then error("oh no") end
    if req.path == "/object" then error({ kind = "invalid", message = "odd" }) end
    if req.path == "/half" then
      assert(req:start(200))
      assert(req:write "half")
    end
  end, function(client, base, _, errors)
    t.eq(client:request { url = base .. "/raise" }.status, 500)
    t.match(errors[1], "test_httpd.lua:%d+: oh no\nstack traceback:")
    t.eq(client:request { url = base .. "/object" }.status, 500)
    t.eq(errors[2].message, "odd")
    t.eq(client:request { url = base .. "/nothing" }.status, 500)
    t.match(errors[3], "without a complete reply")
    t.eq(select(2, client:request { url = base .. "/half" }).kind, "network")
    t.match(errors[4], "without a complete reply")
    t.eq(client:request { url = base .. "/raise" }.status, 500)
  end)
end)

t.test("unread_body_that_is_too_large_is_413", function()
  serving(function(req) assert(req:body(10)) end, function(client, base)
    t.eq(client:request { url = base, method = "POST", body = ("x"):rep(11) }.status, 413)
  end)
  serving(function(req) req:respond(200, nil, "") end, function(client, base)
    t.eq(client:request { url = base, method = "POST", body = ("x"):rep(11) }.status, 413)
    t.eq(client:request { url = base .. "/" .. ("x"):rep(100) }.status, 414)
    t.eq(client:request { url = base, headers = { X = ("x"):rep(1000) } }.status, 431)
  end, { limits = { body = 10, target = 100, header = 1000 } })
end)

t.test("early_reply_reaches_a_client_that_is_still_sending", function()
  with_dir(function(dir)
    serving(function(req) req:respond(403, nil, "no") end, function(client, base)
      local reply = assert(client:request { url = base, method = "PUT", body = sparse(dir, 1 << 20) })
      t.eq({ reply.status, reply.body }, { 403, "no" })
    end)
  end)
end)

-- As Go's clients do it: they write the end of a chunked body by itself, and the reply may be out before.
t.test("a_body_that_ends_after_its_reply_leaves_the_connection_usable", function()
  serving(function(req) req:respond(200, nil, req.path) end, function(_, base)
    local port = base:match "%d+$"
    local script = "exec 3<>/dev/tcp/127.0.0.1/" .. port .. [[

      printf 'POST /first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n' >&3
      read -r -u 3 line && echo "$line" && sleep 0.05
      printf '3\r\nabc\r\n' >&3 && sleep 0.05
      printf '0\r\n\r\nGET /second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n' >&3
      cat <&3]]
    local done = assert(process.run { "bash", "-c", script, timeout = 20 })
    t.match(done.stdout, "^HTTP/1.1 200 OK\r\n.*/firstHTTP/1.1 200 OK\r\n.*/second$", done.stderr)
  end)
end)

t.test("misuse_raises", function()
  serving(function(req)
    t.err("not a header name", req.respond, req, 200, { ["a b"] = "c" })
    t.err("control character", req.respond, req, 200, { a = "b\r\nc: d" })
    t.err("server's to choose", req.respond, req, 200, { ["Transfer-Encoding"] = "chunked" })
    t.err("not a status", req.respond, req, 99)
    t.err("Content%-Length is 5 but", req.respond, req, 200, { ["content-length"] = 5 }, "abc")
    t.err("a string expected, got boolean", req.respond, req, 200, { a = true })
    t.err("no reply was started", req.write, req, "x")
    assert(req:respond(200, nil, "ok"))
    t.err("has its reply already", req.respond, req, 200, nil, "again")
    t.err("is finished", req.write, req, "x")
  end, function(client, base, _, errors)
    t.eq(client:request { url = base }.body, "ok")
    task.sleep(0.01)
    t.eq(errors, {})
  end)
  t.err("did you mean 'header_timeout'", httpd.listen, { host = "127.0.0.1", heder_timeout = 1 })
  t.err("tls.key_pem", httpd.listen, { host = "127.0.0.1", tls = { cert_pem = "x", key_pem = 1 } })
  local server, err = httpd.listen { host = "127.0.0.1", tls = { cert_pem = "x", key_pem = "y" } }
  t.eq({ server, err.kind }, { nil, "invalid" })
  t.match(err.message, "^cannot use cert_pem: ")
  t.eq(select(2, httpd.listen { host = "not an address" }).kind, "invalid")
  t.eq(select(2, httpd.listen { unix = "/tmp/" .. ("x"):rep(200) }).kind, "network")
end)

t.test("peer_that_leaves_is_noticed", function()
  local started, left = task.event(), task.event()
  serving(function(req)
    t.eq(req:closed(), false)
    started:set()
    req:wait_closed()
    t.eq(req:closed(), true)
    left:set()
  end, function(client, base)
    task.race {
      function() client:request { url = base } end,
      function() started:wait() end,
    }
    t.ok(left:wait(5))
  end)
end)

t.test("abort_cuts_the_connection", function()
  serving(function(req)
    if req.path == "/cut" then req:abort() else req:respond(200, nil, "here") end
  end, function(client, base, _, errors)
    t.eq(client:request { url = base }.body, "here")
    t.eq(select(2, client:request { url = base .. "/cut", method = "POST", body = "" }).kind, "network")
    t.eq(client:request { url = base }.body, "here")
    t.eq(errors, {})
  end)
end)

t.test("close_lets_running_requests_finish", function()
  local server = assert(httpd.listen { host = "127.0.0.1" })
  local url = "http://127.0.0.1:" .. server.port
  local inside, go = task.event(), task.event()
  local client <close> = assert(http.client())
  task.together(function(all)
    all(function()
      httpd.serve(server, function(req)
        inside:set()
        go:wait()
        req:respond(200, nil, "late")
      end)
    end)
    all(function()
      local reply = assert(client:request { url = url })
      t.eq({ reply.body, reply.headers:get "connection" }, { "late", "close" })
    end)
    inside:wait()
    server:close()
    server:close()
    t.eq(select(2, client:request { url = url }).kind, "network")
    go:set()
  end)
  t.eq(server:accept(), nil)
end)

t.test("cancel_of_serve_ends_its_handlers_and_their_connections", function()
  local server = assert(httpd.listen { host = "127.0.0.1" })
  local client <close> = assert(http.client())
  local inside, ended = task.event(), false
  local failure
  task.together(function(all)
    all(function()
      failure = select(2, client:request { url = "http://127.0.0.1:" .. server.port })
    end)
    t.err("timeout", task.timeout, 0.1, httpd.serve, server, function()
      local _ <close> = setmetatable({}, { __close = function() ended = true end })
      inside:set()
      task.sleep(1000)
    end)
    t.ok(inside:wait(0))
    t.ok(ended)
  end)
  t.eq(failure.kind, "network")
  server:abort()
end)

t.test("requests_can_be_accepted_by_hand", function()
  local server = assert(httpd.listen { host = "127.0.0.1" })
  local client <close> = assert(http.client())
  task.together(function(all)
    all(function()
      local req = server:accept()
      req:respond(200, nil, "by hand")
      t.eq(server:accept(), nil)
    end)
    t.eq(client:request { url = "http://127.0.0.1:" .. server.port }.body, "by hand")
    server:close()
  end)
end)

t.test("request_that_is_dropped_cuts_its_connection", function()
  local server = assert(httpd.listen { host = "127.0.0.1" })
  local client <close> = assert(http.client())
  task.together(function(all)
    all(function()
      server:accept()
      collectgarbage()
      collectgarbage()
    end)
    t.eq(select(2, client:request { url = "http://127.0.0.1:" .. server.port, method = "POST" }).kind, "network")
  end)
  server:abort()
end)

t.test("unix_socket_is_private_and_goes_with_its_server", function()
  with_dir(function(dir)
    local server = assert(httpd.listen { unix = dir .. "/s" })
    t.eq({ fs.stat(dir .. "/s").type, fs.stat(dir .. "/s").mode }, { "socket", 384 })
    local second, err = httpd.listen { unix = dir .. "/s" }
    t.eq({ second, err.kind }, { nil, "conflict" })
    task.race {
      function()
        httpd.serve(server, function(req) req:respond(200, nil, req.host .. " " .. req.peer) end)
      end,
      function() t.eq((curl("--unix-socket", dir .. "/s", "http://some.host/")), "some.host unix") end,
    }
    server:close()
    t.eq(fs.list(dir), {})
  end)
end)

t.test("many_connections_stay_open_side_by_side", function()
  local inside, all_in = 0, task.event()
  serving(function(req)
    if req.path == "/wait" then
      inside = inside + 1
      if inside == 300 then all_in:set() end
      all_in:wait()
    end
    req:respond(200, nil, req.path)
  end, function(client, base)
    for _, path in ipairs { "/wait", "/again" } do
      local urls = {}
      for i = 1, 300 do urls[i] = base .. path end
      task.map(urls, function(url) t.eq(assert(client:request { url = url }).body, path) end)
    end
  end, { client = { max_connections = 300 } })
end)

t.test("large_upload_needs_little_memory", function()
  local os = require "eirun.core.os"
  with_dir(function(dir)
    serving(function(req)
      local result = assert(req:body_to_file(dir .. "/in", { digest = { "md5" } }))
      assert(req:respond_file(200, nil, dir .. "/in", 0, result.size))
    end, function(client, base)
      local before = os.rss()
      assert(client:request { url = base, method = "PUT", body = sparse(dir, 100 << 20),
        sink = { file = dir .. "/out" } })
      t.eq(fs.stat(dir .. "/out").size, 100 << 20)
      t.ok(os.rss() - before < 16 << 20, "growth of " .. (os.rss() - before))
    end)
  end)
end)
