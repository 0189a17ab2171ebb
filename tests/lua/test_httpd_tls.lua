-- SPDX-License-Identifier: Apache-2.0
-- The HTTP server's TLS, with the program's own client and with curl.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local lib = require "lib_httpd"
local t = require "eirun.test"
local task = require "eirun.task"

local serving, with_dir, curl = lib.serving, lib.with_dir, lib.curl

local function authority()
  local now = task.now()
  return assert(crypto.ca_create { name = "test", not_before = now - 1000, not_after = now + 1000 })
end

local function issue(ca, options)
  local now = task.now()
  options.cn = options.cn or "server"
  options.ca, options.not_before, options.not_after = ca, options.not_before or now - 1000, options.not_after or now + 1000
  return assert(crypto.cert_issue(options))
end

t.test("tls_shows_server_name_and_speaks_http_1_1_only", function()
  local ca = authority()
  local cert = issue(ca, { names = { "a.example", "127.0.0.1" } })
  with_dir(function(dir)
    assert(fs.write(dir .. "/ca.pem", ca.cert_pem))
    serving(function(req)
      req:respond(200, nil, ("%s %s %s"):format(req.tls, req.sni, req.version))
    end, function(_, base, server)
      local resolve = "a.example:" .. server.port .. ":127.0.0.1"
      local url = "https://a.example:" .. server.port
      t.eq((curl("--cacert", dir .. "/ca.pem", "--resolve", resolve, "--http2", url)), "true a.example 1.1")
      t.eq((curl("--cacert", dir .. "/ca.pem", "--tls-max", "1.2", base)), "true nil 1.1")
      local _, code = curl("--cacert", dir .. "/ca.pem", "--tls-max", "1.1", "--ciphers", "DEFAULT:@SECLEVEL=0", base)
      t.eq(code, 35)
      t.ok(select(2, curl("http://127.0.0.1:" .. server.port)) ~= 0, "plain text on a TLS port")
    end, { tls = cert })
  end)
end)

t.test("tls_carries_large_bodies_both_ways", function()
  local ca = authority()
  local text = crypto.random(5 << 20)
  with_dir(function(dir)
    serving(function(req)
      if req.path == "/file" then
        local result = assert(req:body_to_file(dir .. "/in", { digest = { "sha256" } }))
        t.eq(result.sha256, crypto.sha256(text))
        assert(req:respond_file(200, nil, dir .. "/in", 0, result.size))
      else
        assert(req:respond(200, nil, assert(req:body())))
      end
    end, function(client, base)
      t.ok(client:request { url = base, method = "PUT", body = text }.body == text)
      t.ok(client:request { url = base .. "/file", method = "PUT", body = text }.body == text)
    end, { tls = issue(ca, { names = { "127.0.0.1" } }), client = { ca_pem = ca.cert_pem } })
  end)
end)

t.test("client_certificates_are_checked_and_named", function()
  local ca, other = authority(), authority()
  local tls = issue(ca, { names = { "127.0.0.1" } })
  tls = { cert_pem = tls.cert_pem, key_pem = tls.key_pem, client_ca_pem = ca.cert_pem }
  local good = issue(ca, { cn = "someone", client = true, names = {} })
  local foreign = issue(other, { cn = "someone", client = true, names = {} })
  local now = task.now()
  local stale = issue(ca, { cn = "someone", client = true, names = {}, not_before = now - 900, not_after = now - 500 })
  serving(function(req)
    req:respond(200, nil, tostring(req.peer_cn) .. " " .. #req.peer_organizations)
  end, function(client, base)
    t.eq(client:request { url = base }.body, "nil 0")
    local function with(cert)
      local own <close> = assert(http.client { ca_pem = ca.cert_pem, cert_pem = cert.cert_pem, key_pem = cert.key_pem })
      local reply, err = own:request { url = base }
      return reply and reply.body or err.kind
    end
    t.eq(with(good), "someone 0")
    t.ok(with(foreign) ~= "someone 0")
    t.ok(with(stale) ~= "someone 0")
  end, { tls = tls, client = { ca_pem = ca.cert_pem } })
end)
