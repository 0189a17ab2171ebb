-- SPDX-License-Identifier: Apache-2.0
-- HTTP/2 against nginx: our own server speaks HTTP/1.1 only.
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local process = require "eirun.core.process"
local t = require "eirun.test"
local task = require "eirun.task"

local NGINX = "/usr/sbin/nginx"

local CONFIG = [[
daemon off; master_process off; error_log DIR/error.log; pid DIR/pid;
events { worker_connections 128; }
http {
  access_log off; client_max_body_size 16m; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server {
    listen unix:DIR/tls ssl http2; listen unix:DIR/plain http2;
    ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; root DIR;
    location /connection { return 200 "$connection $server_protocol $host"; }
    location /slow { alias DIR/big; limit_rate 50k; }
    location /length { proxy_pass http://unix:DIR/length:; }
  }
  server { listen unix:DIR/length; location / { client_body_buffer_size 16m; return 200 "$http_content_length"; } }
}
]]

local function self_signed(dir)
  local result = assert(process.run {
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
    "-subj", "/CN=h2.test", "-addext", "subjectAltName=DNS:h2.test", "-keyout", dir .. "/key.pem", "-out", dir .. "/cert.pem",
  })
  t.eq(result.code, 0, result.stderr)
end

local function wait_for(path)
  for _ = 1, 500 do
    if fs.stat(path) then
      return
    end
    task.sleep(0.01)
  end
  error("nginx did not start: " .. tostring(fs.read(path:match "^(.*)/" .. "/error.log")))
end

-- Calls fn(client) with h2.test and plain.test routed to an nginx of this test.
local function with_nginx(fn)
  local dir = assert(fs.mkdtemp "/tmp/eirun-nginx-")
  self_signed(dir)
  assert(fs.write(dir .. "/nginx.conf", (CONFIG:gsub("DIR", dir))))
  assert(fs.write(dir .. "/big", ("x"):rep(1 << 20), { mode = 420 }))
  local ok, err = pcall(task.race, {
    function()
      local result = process.run { NGINX, "-p", dir, "-c", dir .. "/nginx.conf" }
      error("nginx ended: " .. tostring(result and result.stderr))
    end,
    function()
      wait_for(dir .. "/pid") -- written when the sockets listen
      http.routes { { host = "h2.test", unix = dir .. "/tls" }, { host = "plain.test", unix = dir .. "/plain" } }
      local client <close> = assert(http.client { ca_file = dir .. "/cert.pem" })
      fn(client)
    end,
  })
  http.routes {}
  fs.remove(dir, { recursive = true })
  if not ok then
    error(err, 0)
  end
end

local function connection_of(client, url)
  local answer = assert(client:request { url = url or "https://h2.test/connection", http_version = "2" })
  t.eq(answer.version, "2")
  return answer.body:match "^%d+"
end

local function test(name, fn)
  if fs.stat(NGINX) then
    t.test(name, fn)
  else
    t.skip(name, "nginx is not installed")
  end
end

test("requests_at_once_share_one_connection", function()
  with_nginx(function(client)
    local list = {}
    for i = 1, 30 do
      list[i] = i
    end
    local ids = task.map(list, function()
      return connection_of(client)
    end, 30)
    for i = 2, 30 do
      t.eq(ids[i], ids[1])
    end
  end)
end)

test("version_2_without_tls_is_by_prior_knowledge", function()
  with_nginx(function(client)
    t.ok(connection_of(client, "http://plain.test/connection"))
  end)
end)

test("version_1_is_spoken_unless_2_is_asked_for", function()
  with_nginx(function(client)
    t.match(assert(client:request { url = "https://h2.test/connection" }).body, "HTTP/1%.1 h2%.test$")
  end)
end)

test("cancelled_stream_leaves_the_connection_to_others", function()
  with_nginx(function(client)
    local before = connection_of(client)
    do
      local stream <close> = assert(client:open { url = "https://h2.test/slow", http_version = "2" })
      t.ok(stream:read())
    end
    t.eq(connection_of(client), before)
  end)
end)

test("large_answer_passes_through_windows", function()
  with_nginx(function(client)
    t.eq(#assert(client:request { url = "https://h2.test/big", http_version = "2" }).body, 1 << 20)
  end)
end)

test("uploads_and_requests_side_by_side_all_end", function()
  with_nginx(function(client)
    local list = {}
    for i = 1, 60 do
      list[i] = i
    end
    task.map(list, function(i)
      local body = i % 2 == 0 and ("y"):rep(i * 10000) or nil
      local answer = assert(client:request {
        url = "https://h2.test/" .. (body and "length" or "connection"),
        method = body and "PUT" or "GET",
        http_version = "2",
        body = body,
        timeout = 20,
      })
      t.eq(answer.status, 200)
      t.eq(answer.version, body and "1.1" or "2")
      if body then
        t.eq(answer.body, tostring(#body))
      end
    end, 20)
  end)
end)
