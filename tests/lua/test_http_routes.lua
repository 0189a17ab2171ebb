-- SPDX-License-Identifier: Apache-2.0
-- The HTTP client: routes, proxies, redirects, TLS, and many requests at once.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local lib = require "lib_http"
local t = require "eirun.test"
local task = require "eirun.task"

local echo, routed, serving, with_dir = lib.echo, lib.routed, lib.serving, lib.with_dir

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

-- Without a proxy it is read once, beside the first handshake.
t.test("client_shows_its_certificate_on_each_connection", function()
  local ca = authority()
  local mine, other = certificate(ca, { "eirun" }, 0, true), certificate(ca, { "eirun" }, 0, true)
  serving_tls(ca, certificate(ca, { "127.0.0.1" }), {}, function(_, base)
    local known <close> = assert(http.client { ca_pem = ca.cert_pem, cert_pem = mine.cert_pem, key_pem = mine.key_pem, proxy = "" })
    task.map({ 1, 2, 3 }, function() t.eq(assert(known:request { url = base, expect_close = true }).status, 200) end)
    t.eq(assert(known:request { url = base }).status, 200)
    for _, bad in ipairs { { mine.cert_pem, other.key_pem }, { mine.cert_pem, "x" }, { "x", mine.key_pem } } do
      local mixed <close> = assert(http.client { ca_pem = ca.cert_pem, cert_pem = bad[1], key_pem = bad[2], proxy = "" })
      for _ = 1, 2 do
        local _, err = mixed:request { url = base }
        t.eq(err.kind, "invalid")
        t.match(err.message, "^cannot connect to 127%.0%.0%.1:%d+: the client's certificate and its key")
      end
    end
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
