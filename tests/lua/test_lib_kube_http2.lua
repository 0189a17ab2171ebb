-- SPDX-License-Identifier: Apache-2.0
-- Reads and watches of one client go over one HTTP/2 connection, counted by nginx, which stands in for the API server.
local client = require "eirun.kube.client"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local process = require "eirun.core.process"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"

local NGINX = "/usr/sbin/nginx"

local CONFIG = [[
daemon off; master_process off; error_log DIR/error.log; pid DIR/pid;
events { worker_connections 128; }
http {
  access_log off; client_body_temp_path DIR/body; proxy_temp_path DIR/proxy;
  fastcgi_temp_path DIR/fastcgi; uwsgi_temp_path DIR/uwsgi; scgi_temp_path DIR/scgi;
  server {
    listen unix:DIR/tls ssl http2; ssl_certificate DIR/cert.pem; ssl_certificate_key DIR/key.pem; root DIR;
    location /api/v1/namespaces/default/configmaps/ {
      default_type application/json;
      return 200 '{"metadata":{"name":"a"},"data":{"connection":"$connection","protocol":"$server_protocol"}}'; }
    location /api/v1/namespaces/default/pods { alias DIR/big; limit_rate 20k; }
  }
}
]]

local function with_nginx(fn)
  local dir = assert(fs.mkdtemp "/tmp/eirun-kube-h2-")
  local made = assert(process.run { "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
    "-days", "1", "-subj", "/CN=api.test", "-addext", "subjectAltName=DNS:api.test", "-keyout", dir .. "/key.pem",
    "-out", dir .. "/cert.pem" })
  t.eq(made.code, 0, made.stderr)
  assert(fs.write(dir .. "/nginx.conf", (CONFIG:gsub("DIR", dir))))
  assert(fs.write(dir .. "/big", ("x"):rep(1 << 20), { mode = 420 }))
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = {}, namespace = "default" }
  local ok, err = pcall(task.race, {
    function() error(assert(process.run { NGINX, "-p", dir, "-c", dir .. "/nginx.conf" }).stderr) end,
    function()
      for _ = 1, 500 do
        if fs.stat(dir .. "/pid") then break end
        task.sleep(0.01)
      end
      http.routes { { host = "api.test", unix = dir .. "/tls" } }
      fn(client.new { server = "https://api.test", ca_pem = fs.read(dir .. "/cert.pem"), verify = true, namespace = "default",
        context = "t" })
    end,
  })
  http.routes {}
  undo()
  fs.remove(dir, { recursive = true })
  if not ok then error(err, 0) end
end

local function test(name, fn)
  if fs.stat(NGINX) then
    t.test(name, fn)
  else
    t.skip(name, "there is no nginx")
  end
end

test("reads_in_parallel_share_one_connection_with_a_watch_under_way", function()
  with_nginx(function(k8s)
    local stream <close> = k8s:open_watch("Pod", { resource_version = "1" })
    t.eq(stream.version, "2")
    t.ok(stream:read(5), "the watch has begun")
    local names, connections = {}, {}
    for i = 1, 30 do names[i] = "cm-" .. i end
    for _, object in ipairs(task.map(names, function(name) return k8s:get("ConfigMap", name) end)) do
      t.eq(object.data.protocol, "HTTP/2.0")
      connections[object.data.connection] = true
    end
    local count = 0
    for _ in pairs(connections) do count = count + 1 end
    t.eq(count, 1)
  end)
end)
