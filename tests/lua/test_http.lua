-- SPDX-License-Identifier: Apache-2.0
-- The HTTP client against the program's own server: requests, bodies, answers.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local lib = require "lib_http"
local secret = require "eirun.core.secret"
local t = require "eirun.test"
local task = require "eirun.task"

local echo, serving, with_dir = lib.echo, lib.serving, lib.with_dir

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
