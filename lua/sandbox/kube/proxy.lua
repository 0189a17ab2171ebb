-- SPDX-License-Identifier: Apache-2.0
-- The proxy subresource of pods, services and nodes: the API server asks what listens there, for a client that cannot reach it.
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local proxy = {}

local CONNECT_SECONDS, ANSWER_SECONDS = 5, 60

-- "https:web:8443", "web:8501", "web" -> name, port as text.
local function split(name)
  local scheme, middle, port = name:match "^(%a+):([^:]+):([^:]*)$"
  if scheme then return middle, port end
  local plain, after = name:match "^([^:]+):([^:]*)$"
  return plain or name, after
end

local function number_of(ports, text, field)
  if not text or text == "" then return ports[1] and ports[1][field] end
  for _, port in ipairs(ports) do if port.name == text then return port[field] end end
  return math.tointeger(tonumber(text))
end

local function no_service(text)
  status.raise(503, "ServiceUnavailable", text, {})
end

local function of_pod(face, at, name, port)
  local pod = face.registry:get(at.r, at.namespace, name).obj
  local ports = {}
  for _, container in ipairs(pod.spec.containers) do
    for _, entry in ipairs(container.ports or {}) do ports[#ports + 1] = entry end
  end
  local ip = value.get(pod, "status", "podIP")
  if not ip then status.bad_request "address not allowed" end
  return ip, number_of(ports, port, "containerPort") or 80
end

local function of_service(face, at, name, port)
  local service = face.registry:get(at.r, at.namespace, name).obj
  local wanted
  for _, entry in ipairs(service.spec.ports or {}) do
    if not port or port == "" or entry.name == port or tostring(entry.port) == port then
      wanted = entry
      break
    end
  end
  if not wanted then no_service(('no service port %q found for service %q'):format(port or "", name)) end
  for _, rec in ipairs(face.store:list(resources.endpointslices, at.namespace)) do
    local slice = rec.obj
    local target = (slice.metadata.labels or {})["kubernetes.io/service-name"] == name and number_of(slice.ports or {}, wanted.name, "port")
    for _, endpoint in ipairs(target and slice.endpoints or {}) do
      if value.get(endpoint, "conditions", "ready") ~= false then return endpoint.addresses[1], target end
    end
  end
  no_service(('no endpoints available for service "%s"'):format(name))
end

local function of_node(face, at, name, port)
  local node = face.registry:get(at.r, nil, name).obj
  for _, address in ipairs(value.get(node, "status", "addresses") or {}) do
    if address.type == "InternalIP" then return address.address, math.tointeger(tonumber(port)) or 10250 end
  end
  no_service(('no preferred addresses found for node "%s"'):format(name))
end

local kinds = { pods = of_pod, services = of_service, nodes = of_node }

local function words(why, ip, port)
  if why == "refused" then return ("error trying to reach service: dial tcp %s:%d: connect: connection refused"):format(ip, port) end
  if why == "reset" then return "error trying to reach service: read: connection reset by peer" end
  return ("error trying to reach service: dial tcp %s:%d: i/o timeout"):format(ip, port)
end

-- The path behind "/proxy" as it was sent, with its query.
local function path_of(req)
  local path = req.path:match "/proxy(/.*)$" or "/"
  return req.query_string ~= "" and path .. "?" .. req.query_string or path
end

local function answer(face, at, req)
  local name, port = split(at.name)
  local ip, number = kinds[at.r.plural](face, at, name, port)
  local reply, why = face.pod_call(ip, number, { method = req.method, path = path_of(req), body = req:body() or "" }, CONNECT_SECONDS,
    ANSWER_SECONDS)
  if not reply then no_service(words(why, ip, number)) end
  req:respond(reply.status, reply.headers, reply.body)
end

for _, method in ipairs { "GET", "POST", "PUT", "PATCH", "DELETE" } do proxy[method] = answer end

return proxy
