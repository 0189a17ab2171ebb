-- SPDX-License-Identifier: Apache-2.0
-- Listeners and dispatch. In one process: two unix sockets, and the Host header says which service is meant. When the
-- sandbox serves others: a loopback port per service and scheme, whatever the Host header says.
local fs = require "eirun.core.fs"
local httpd = require "eirun.core.httpd"
local http = require "eirun.core.http"
local hosts = require "sandbox.hosts"
local tls = require "sandbox.tls"

local Server = {}
Server.__index = Server
local server = {}

local longest_socket_path = 100 -- sockaddr_un holds 108 bytes

local function by_name(ctx, name)
  for _, service in ipairs(ctx.services) do
    if service.name == name then return service end
  end
end

-- Every host of every service: { host=, service=, plain_port=, tls_port= }, in declaration order.
local function host_list(ctx)
  local list = {}
  for _, service in ipairs(ctx.services) do
    for _, host in ipairs(service.hosts) do
      list[#list + 1] = { host = host, service = service, plain_port = service.plain_port or 80,
        tls_port = service.tls_port or 443 }
    end
  end
  for _, extra in ipairs(ctx.extra_routes) do
    local service = by_name(ctx, extra.service)
    if service then list[#list + 1] = { host = extra.host, service = service, plain_port = extra.port or 80 } end
  end
  return list
end

local function certificate_names(list)
  local seen, names = { ["localhost"] = true, ["127.0.0.1"] = true }, { "localhost", "127.0.0.1" }
  for _, entry in ipairs(list) do
    if not seen[entry.host] then
      seen[entry.host] = true
      names[#names + 1] = entry.host
    end
  end
  table.sort(names)
  return names
end

local function reply_crash(ctx, req, service, err)
  local id = ctx.request_id()
  ctx.log("error", "%s %s %s [%s]: %s", service.name, req.method, req.path, id, tostring(err))
  pcall(req.respond, req, 500, { ["Content-Type"] = "application/json", ["x-acs-request-id"] = id },
    '{"Code":"InternalError","Message":"the sandbox failed; see sandbox.log","RequestId":"' .. id .. '"}')
end

local function trace(err) return type(err) == "string" and debug.traceback(err, 2) or err end

-- Answers one request; a crash of the service is logged and becomes a 500. A cancel goes on its way.
local function guard(ctx, service, req)
  local ok, err = xpcall(service.handle, trace, req)
  if ok then return end
  if type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
  reply_crash(ctx, req, service, err)
end

-- The entry of a Host header; those seen are remembered.
local function entry_of(self, header)
  local entry = self.known_hosts[header]
  if entry then return entry end
  entry = hosts.find(self.hosts, hosts.bare(header))
  if entry and self.known_count < 1000 then self.known_hosts[header], self.known_count = entry, self.known_count + 1 end
  return entry
end

local function dispatch_by_host(self)
  return function(req)
    local name = req:header "host"
    local entry = name and entry_of(self, name)
    if entry then return guard(self.ctx, entry.service, req) end
    local front = by_name(self.ctx, "ingress") -- whoever connects to its address may say any Host
    if front then return guard(self.ctx, front, req) end
    self.ctx.log("warn", "no service for host %s", tostring(name))
    req:respond(421, { ["Content-Type"] = "text/plain" }, "no emulated service has this host\n")
  end
end

local function dispatch_to(self, service)
  return function(req) return guard(self.ctx, service, req) end
end

local function start(self, name, options, handler)
  options.limits = { body = 5 << 30 }
  local listener, err = httpd.listen(options)
  if not listener then error(("cannot listen for %s: %s"):format(name, tostring(err)), 0) end
  table.insert(self.listeners, listener)
  self.ctx.spawn("listen " .. name, function()
    httpd.serve(listener, handler, { on_error = function(e, req)
      if req:closed() then return end -- nobody is left to answer
      self.ctx.log("error", "%s %s %s: %s", name, req.method, req.path, tostring(e))
    end })
  end)
  return listener
end

local function socket_dir(self)
  if #self.ctx.dir + #"/plain.sock" <= longest_socket_path then return self.ctx.dir end
  self.temporary = assert(fs.mkdtemp "/tmp/eirun-sandbox-")
  return self.temporary
end

local function listen_unix(self)
  local dir = socket_dir(self)
  self.plain_path, self.tls_path = dir .. "/plain.sock", dir .. "/tls.sock"
  for _, path in ipairs { self.plain_path, self.tls_path } do fs.remove(path) end
  start(self, "plain", { unix = self.plain_path }, dispatch_by_host(self))
  start(self, "tls", { unix = self.tls_path, tls = self.certificate }, dispatch_by_host(self))
end

local function listen_service(self, service)
  local ports = {}
  if service.plain then
    ports.plain = start(self, service.name, { host = "127.0.0.1", port = service.serve_port or 0 },
      dispatch_to(self, service)).port
  end
  if service.tls then
    ports.tls = start(self, service.name .. " tls", { host = "127.0.0.1", port = 0, tls = self.certificate },
      dispatch_to(self, service)).port
  end
  self.ports[service.name] = ports
end

local function add_route(list, host, port, target)
  if not (port and target) then return end
  local route = { host = host, port = port }
  for k, v in pairs(target) do route[k] = v end
  list[#list + 1] = route
end

local function targets(self, service)
  local ports = self.ports[service.name]
  if not ports then return { unix = self.plain_path }, { unix = self.tls_path } end
  return ports.plain and { address = "127.0.0.1:" .. ports.plain }, ports.tls and { address = "127.0.0.1:" .. ports.tls }
end

-- A serving sandbox is also reached at its own ports, as its kubeconfig and env.sh name them.
local function add_own_ports(self, list)
  for _, service in ipairs(self.ctx.services) do
    local ports = self.ports[service.name] or {}
    for _, port in ipairs { ports.plain or false, ports.tls or false } do
      if port then add_route(list, "127.0.0.1", port, { address = "127.0.0.1:" .. port }) end
    end
  end
end

-- The closed route table: every host that a client of this sandbox can reach, and nothing else.
function Server:routes()
  local list = {}
  for _, entry in ipairs(self.hosts) do
    local plain, secure = targets(self, entry.service)
    if entry.service.plain then add_route(list, entry.host, entry.plain_port, plain) end
    if entry.service.tls then add_route(list, entry.host, entry.tls_port, secure) end
  end
  add_own_ports(self, list)
  for _, route in ipairs(self.ctx.outside_routes) do list[#list + 1] = route end
  return list
end

-- Called when a host was added while running: the sandbox's own clients follow the same table.
function Server:refresh()
  self.hosts, self.known_hosts, self.known_count = host_list(self.ctx), {}, 0
  local routes = self:routes()
  routes.closed = true
  http.routes(routes)
end

function Server:close()
  for _, listener in ipairs(self.listeners) do listener:close() end
  if self.temporary then fs.remove(self.temporary) end -- empty now, and this cannot be cancelled
end

-- Starts the listeners of ctx.mode for all declared services.
function server.start(ctx)
  local self = setmetatable({ ctx = ctx, listeners = {}, ports = {}, hosts = host_list(ctx), known_hosts = {}, known_count = 0 }, Server)
  ctx.ca = tls.authority(ctx.dir, ctx.now())
  self.certificate = tls.server_certificate(ctx.dir, ctx.ca, certificate_names(self.hosts), ctx.now())
  listen_unix(self)
  if ctx.mode == "serve" then
    for _, service in ipairs(ctx.services) do listen_service(self, service) end
  end
  ctx.server = self
  self:refresh()
  return self
end

return server
