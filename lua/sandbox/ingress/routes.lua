-- SPDX-License-Identifier: Apache-2.0
-- From Ingress, Service and EndpointSlice objects to "this host and path go there". Pure: objects in, tables out.
local M = {}

M.class = "nginx"
local service_label = "kubernetes.io/service-name"
local annotation_class = "kubernetes.io/ingress.class"
local annotation_redirect = "nginx.ingress.kubernetes.io/ssl-redirect"

---Does this controller look after the Ingress? One without a class is taken: its class is the cluster's default.
function M.is_ours(ingress)
  local class = ingress.spec.ingressClassName or (ingress.metadata.annotations or {})[annotation_class]
  return class == nil or class == M.class
end

-- Upstreams ------------------------------------------------------------------------------------------------------

-- A real API server writes null for the empty lists of a slice.
local function each(list)
  return ipairs(type(list) == "table" and list or {})
end

local function service_port(service, wanted)
  for _, port in ipairs(service.spec.ports or {}) do
    if port.port == wanted.number or (wanted.name and port.name == wanted.name) then return port end
  end
end

local function add_endpoints(list, seen, slice, port)
  for _, slice_port in each(slice.ports) do
    if (slice_port.name or "") == (port.name or "") then
      for _, endpoint in each(slice.endpoints) do
        local address = endpoint.addresses[1]
        local conditions = endpoint.conditions or {}
        local key = ("%s:%d"):format(address, slice_port.port)
        if conditions.ready ~= false and not seen[key] then
          seen[key] = true
          list[#list + 1] = { ip = address, port = slice_port.port, text = key }
        end
      end
    end
  end
end

---Ready endpoints of one port of a service, by address.
function M.endpoints(slices, service, port)
  local list, seen = {}, {}
  for _, slice in ipairs(slices) do
    local labels = slice.metadata.labels or {}
    if slice.metadata.namespace == service.metadata.namespace and labels[service_label] == service.metadata.name then
      add_endpoints(list, seen, slice, port)
    end
  end
  table.sort(list, function(a, b) return a.text < b.text end)
  return list
end

-- nginx names an upstream as the Ingress refers to it: by port number, or by port name.
local function upstream_name(namespace, backend)
  return ("%s-%s-%s"):format(namespace, backend.service.name, backend.service.port.number or backend.service.port.name)
end

local function add_upstream(world, tables, namespace, backend)
  if not backend or not backend.service or not backend.service.port then return nil end
  local name = upstream_name(namespace, backend)
  if tables.upstreams[name] then return tables.upstreams[name] end
  local upstream = { name = name, endpoints = {} }
  local service = world.service(namespace, backend.service.name)
  local port = service and service_port(service, backend.service.port)
  if port then upstream.endpoints = M.endpoints(world.slices, service, port) end
  tables.upstreams[name] = upstream
  return upstream
end

-- Locations ------------------------------------------------------------------------------------------------------

local function server_of(tables, host)
  tables.servers[host] = tables.servers[host] or { locations = {} }
  return tables.servers[host]
end

local function normal_path(path, kind)
  if path == nil or path == "" then return "/" end
  if kind == "Prefix" and #path > 1 then return (path:gsub("/+$", "")) end
  return path
end

local function add_location(server, path, kind, upstream)
  for _, known in ipairs(server.locations) do
    if known.path == path and known.kind == kind then return end -- the older Ingress keeps it
  end
  server.locations[#server.locations + 1] = { path = path, kind = kind, upstream = upstream }
end

local function tls_hosts(ingress)
  local hosts = {}
  if (ingress.metadata.annotations or {})[annotation_redirect] == "false" then return hosts end
  for _, entry in ipairs(ingress.spec.tls or {}) do
    for _, host in ipairs(entry.hosts or {}) do hosts[host] = true end
  end
  return hosts
end

local function add_ingress(world, tables, ingress)
  local namespace, secure = ingress.metadata.namespace, tls_hosts(ingress)
  if ingress.spec.defaultBackend then
    add_location(server_of(tables, "_"), "/", "Prefix", add_upstream(world, tables, namespace, ingress.spec.defaultBackend))
  end
  for _, rule in ipairs(ingress.spec.rules or {}) do
    local host = rule.host ~= "" and rule.host or "_"
    local server = server_of(tables, host)
    server.redirect = server.redirect or secure[host] or false
    for _, path in ipairs(rule.http and rule.http.paths or {}) do
      local kind = path.pathType or "ImplementationSpecific"
      add_location(server, normal_path(path.path, kind), kind, add_upstream(world, tables, namespace, path.backend))
    end
  end
end

-- Exact before prefix, longer before shorter: nginx's own order.
local function sort_locations(server)
  table.sort(server.locations, function(a, b)
    if (a.kind == "Exact") ~= (b.kind == "Exact") then return a.kind == "Exact" end
    if #a.path ~= #b.path then return #a.path > #b.path end
    return a.path < b.path
  end)
end

local function older(a, b)
  local one, two = a.metadata, b.metadata
  if one.creationTimestamp ~= two.creationTimestamp then return (one.creationTimestamp or "") < (two.creationTimestamp or "") end
  return one.namespace .. "/" .. one.name < two.namespace .. "/" .. two.name
end

---@param world {ingresses: table[], slices: table[], service: fun(namespace, name): table|nil}
---@return table tables { servers = { host -> { locations, redirect } }, upstreams = { name -> { name, endpoints } } }
function M.build(world)
  local tables, list = { servers = {}, upstreams = {} }, table.move(world.ingresses, 1, #world.ingresses, 1, {})
  table.sort(list, older)
  for _, ingress in ipairs(list) do
    if M.is_ours(ingress) then add_ingress(world, tables, ingress) end
  end
  for _, server in pairs(tables.servers) do sort_locations(server) end
  return tables
end

-- Lookup ---------------------------------------------------------------------------------------------------------

local matches = {
  Exact = function(path, wanted) return path == wanted end,
  Prefix = function(path, wanted)
    return wanted == "/" or path == wanted or path:sub(1, #wanted + 1) == wanted .. "/"
  end,
  ImplementationSpecific = function(path, wanted) return path:sub(1, #wanted) == wanted end,
}

---The server block of a host: its own name, a wildcard one level up, else the catch-all.
function M.server(tables, host)
  local parent = host:match "^[^.]+(%..+)$"
  return tables.servers[host] or (parent and tables.servers["*" .. parent]) or tables.servers._
end

---@return table|nil location
function M.find(tables, host, path)
  local server = M.server(tables, host)
  if not server then return nil end
  for _, location in ipairs(server.locations) do
    if matches[location.kind] and matches[location.kind](path, location.path) then return location, server end
  end
end

---Every host that rules name, sorted; the catch-all is not one.
function M.hosts(tables)
  local list = {}
  for host in pairs(tables.servers) do
    if host ~= "_" then list[#list + 1] = host end
  end
  table.sort(list)
  return list
end

return M
