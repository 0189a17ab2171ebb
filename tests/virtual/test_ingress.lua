-- SPDX-License-Identifier: Apache-2.0
-- The ingress: tables made from objects, and what a client and the access log see of one request.
local network = require "sandbox.inference.network"
local proxy = require "sandbox.ingress.proxy"
local routes = require "sandbox.ingress.routes"
local task = require "eirun.core.task"
local t = require "eirun.test"

local function backend(name, port)
  return { service = { name = name, port = type(port) == "number" and { number = port } or { name = port } } }
end

local function ingress(name, rules, more)
  local object = { metadata = { namespace = "default", name = name, uid = name, creationTimestamp = "2026-01-05T08:00:00Z" },
    spec = { rules = rules } }
  for key, value in pairs(more or {}) do object.spec[key] = value end
  return object
end

local function rule(host, paths) return { host = host, http = { paths = paths } } end

local function service(name, ports) return { metadata = { namespace = "default", name = name }, spec = { ports = ports } } end

local function slice(name, port_name, port, endpoints)
  local list = {}
  for i, endpoint in ipairs(endpoints) do
    list[i] = { addresses = { endpoint[1] }, conditions = { ready = endpoint[2] } }
  end
  return { metadata = { namespace = "default", name = name .. "-x", labels = { ["kubernetes.io/service-name"] = name } },
    ports = { { name = port_name, port = port } }, endpoints = list }
end

local function build(ingresses, services, slices)
  local by_name = {}
  for _, object in ipairs(services) do by_name[object.metadata.name] = object end
  return routes.build { ingresses = ingresses, slices = slices, service = function(_, name) return by_name[name] end }
end

local function bert(endpoints)
  return build({ ingress("bert", { rule("test.example.com", { { path = "/", pathType = "ImplementationSpecific",
    backend = backend("bert", 8501) } }) }) },
    { service("bert", { { name = "grpc-serving", port = 8500 }, { name = "http-serving", port = 8501, targetPort = 8501 } }) },
    { slice("bert", "http-serving", 8501, endpoints) })
end

t.test("an_upstream_is_named_after_namespace_service_and_port", function()
  local tables = bert { { "172.20.1.2", true }, { "172.20.1.3", false }, { "172.20.1.1", true } }
  local location = routes.find(tables, "test.example.com", "/v1/models/m")
  t.eq(location.upstream.name, "default-bert-8501")
  t.eq(#location.upstream.endpoints, 2)
  t.eq(location.upstream.endpoints[1].text, "172.20.1.1:8501")
  t.eq(routes.find(tables, "other.example.com", "/"), nil)
end)

t.test("a_named_port_gives_a_named_upstream", function()
  local tables = build({ ingress("a", { rule("h", { { path = "/", pathType = "Prefix", backend = backend("s", "web") } }) }) },
    { service("s", { { name = "web", port = 80 } }) }, { slice("s", "web", 8080, { { "10.0.0.1", true } }) })
  local upstream = routes.find(tables, "h", "/").upstream
  t.eq({ upstream.name, upstream.endpoints[1].text }, { "default-s-web", "10.0.0.1:8080" })
end)

t.test("path_types_and_lengths_decide", function()
  local function path(text, kind, name) return { path = text, pathType = kind, backend = backend(name, 80) } end
  local tables = build({ ingress("a", { rule("h", { path("/", "Prefix", "root"), path("/a", "Prefix", "a"), path("/a/b", "Exact", "exact"),
    path("/im", "ImplementationSpecific", "impl") }) }) }, {}, {})
  local function at(target) return routes.find(tables, "h", target).upstream.name end
  t.eq(at "/", "default-root-80")
  t.eq(at "/a", "default-a-80")
  t.eq(at "/a/x", "default-a-80")
  t.eq(at "/ab", "default-root-80")
  t.eq(at "/a/b", "default-exact-80")
  t.eq(at "/a/b/c", "default-a-80")
  t.eq(at "/impossible", "default-impl-80")
end)

t.test("wildcards_defaults_and_foreign_classes", function()
  local tables = build({ ingress("w", { rule("*.example.com", { { path = "/", pathType = "Prefix", backend = backend("wild", 80) } }) }),
    ingress("d", nil, { defaultBackend = backend("fallback", 80) }),
    ingress("alb", { rule("alb.test", { { path = "/", pathType = "Prefix", backend = backend("x", 80) } }) },
      { ingressClassName = "alb" }) }, {}, {})
  t.eq(routes.find(tables, "a.example.com", "/").upstream.name, "default-wild-80")
  t.eq(routes.find(tables, "a.b.example.com", "/").upstream.name, "default-fallback-80")
  t.eq(routes.find(tables, "alb.test", "/").upstream.name, "default-fallback-80")
end)

t.test("the_older_ingress_keeps_a_contested_path", function()
  local function one(name, stamp)
    local object = ingress(name, { rule("h", { { path = "/", pathType = "Prefix", backend = backend(name, 80) } }) })
    object.metadata.creationTimestamp = stamp
    return object
  end
  local tables = build({ one("young", "2026-01-05T09:00:00Z"), one("old", "2026-01-05T08:00:00Z") }, {}, {})
  t.eq(routes.find(tables, "h", "/").upstream.name, "default-old-80")
end)

-- Requests -------------------------------------------------------------------------------------------------------

local function fake_request(given)
  local req = { method = given.method or "POST", path = given.path or "/v1/models/m:predict", version = "1.1", tls = given.tls }
  req.target, req.query_string = req.path, ""
  req.headers = { get = function(_, name) return name == "host" and (given.host or "test.example.com") or nil end }
  function req:body() return given.body or "{}" end
  function req:closed() return given.gone or false end
  function req:respond(status, headers, body) self.reply = { status = status, headers = headers, body = body } end
  return req
end

local function setup(endpoints)
  local net, log = network.of {}, {}
  local one = proxy.new { network = net, now = task.now, id_prefix = "0123456789abcdef",
    emit = function(topic, record) if topic == "ingress.access" then log[#log + 1] = record end end }
  one.tables = bert(endpoints)
  return one, net, log
end

local function serve_after(seconds, text)
  return function(_, timeout)
    task.sleep(math.min(seconds, timeout))
    if seconds > timeout then return nil, "timeout" end
    return { status = 200, headers = { { "Content-Type", "application/json" } }, body = text }
  end
end

local function send(one, given)
  local req = fake_request(given or {})
  one:handle(req)
  return req.reply
end

t.test("a_request_reaches_an_endpoint_and_the_log_tells", function()
  local one, net, log = setup { { "172.20.1.1", true } }
  net:listen("172.20.1.1", 8501, serve_after(0.07, "answer"))
  local reply = send(one, { body = "12345" })
  t.eq({ reply.status, reply.body }, { 200, "answer" })
  local record = log[1]
  t.eq({ record.status, record.proxy_upstream_name, record.upstream_addr, record.upstream_status, record.host, record.method },
    { 200, "default-bert-8501", "172.20.1.1:8501", "200", "test.example.com", "POST" })
  t.ok(math.abs(record.request_time - 0.07) < 0.005, "request_time " .. record.request_time)
  t.eq({ record.body_bytes_sent, record.upstream_response_length, #record.req_id }, { 6, 6, 32 })
end)

t.test("requests_go_round", function()
  local one, net, log = setup { { "172.20.1.1", true }, { "172.20.1.2", true } }
  for _, ip in ipairs { "172.20.1.1", "172.20.1.2" } do net:listen(ip, 8501, serve_after(0, ip)) end
  for _ = 1, 4 do send(one) end
  t.eq({ log[1].upstream_addr, log[2].upstream_addr, log[3].upstream_addr }, { "172.20.1.1:8501", "172.20.1.2:8501", "172.20.1.1:8501" })
end)

t.test("no_route_is_404_and_no_endpoint_503", function()
  local one, _, log = setup {}
  t.eq(send(one, { host = "nobody.test" }).status, 404)
  t.eq(log[1].proxy_upstream_name, "upstream-default-backend")
  local reply = send(one)
  t.eq(reply.status, 503)
  t.match(reply.body, "<h1>503 Service Temporarily Unavailable</h1>")
  t.eq({ log[2].proxy_upstream_name, log[2].upstream_addr }, { "default-bert-8501", "-" })
end)

t.test("a_refused_connection_is_tried_elsewhere_and_a_reset_is_not", function()
  local one, net, log = setup { { "172.20.1.1", true }, { "172.20.1.2", true } }
  net:listen("172.20.1.1", 1, serve_after(0, "")) -- the host is there, the port is closed
  net:listen("172.20.1.2", 8501, serve_after(0, "two"))
  t.eq(send(one).body, "two")
  t.eq({ log[1].upstream_addr, log[1].upstream_status }, { "172.20.1.1:8501, 172.20.1.2:8501", "502, 200" })
  net:listen("172.20.1.1", 8501, function() return nil, "reset" end)
  t.eq(send(one).status, 502)
  t.eq(log[2].upstream_addr, "172.20.1.1:8501")
end)

t.test("a_slow_upstream_is_504_after_a_minute", function()
  local one, net, log = setup { { "172.20.1.1", true } }
  net:listen("172.20.1.1", 8501, serve_after(70, "late"))
  t.eq(send(one).status, 504)
  t.ok(math.abs(log[1].request_time - 60) < 0.01, "request_time " .. log[1].request_time)
end)

t.test("a_machine_that_is_gone_costs_the_connect_timeout", function()
  local one, net, log = setup { { "172.20.1.1", true }, { "172.20.1.2", true } }
  net:cut "172.20.1.1"
  net:listen("172.20.1.2", 8501, serve_after(0, "two"))
  t.eq(send(one).status, 200)
  t.eq(log[1].upstream_status, "504, 200")
  t.ok(math.abs(log[1].request_time - 5) < 0.01)
end)

t.test("a_client_that_left_is_logged_as_499", function()
  local one, net, log = setup { { "172.20.1.1", true } }
  net:listen("172.20.1.1", 8501, serve_after(1, "x"))
  t.eq(send(one, { gone = true }), nil)
  t.eq({ log[1].status, log[1].body_bytes_sent }, { 499, 0 })
end)

t.test("plain_http_is_sent_to_https_where_a_certificate_is_named", function()
  local one = setup {}
  one.tables = build({ ingress("s", { rule("safe.test", { { path = "/", pathType = "Prefix", backend = backend("s", 80) } }) },
    { tls = { { hosts = { "safe.test" } } } }) }, {}, {})
  local reply = send(one, { host = "safe.test", path = "/x" })
  t.eq({ reply.status, reply.headers[2] }, { 308, { "Location", "https://safe.test/x" } })
  t.eq(send(one, { host = "safe.test", tls = true }).status, 503)
end)
