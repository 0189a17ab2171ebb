-- SPDX-License-Identifier: Apache-2.0
-- Ways for traffic to come in: one row each. A way says which object it makes and where that object tells its address; the rest of
-- the library knows none of them by name.
local json = require "eirun.core.json"

local M = {}

---@class eirun.TrafficWay
---@field kind string of the object that is made
---@field class string the default class
---@field manifest fun(given: table, namespace: string): table
---@field address fun(object: table): string|nil
---@field no_address string what to look at when none comes

local function port_of(port)
  if math.type(port) == "integer" then return { number = port } end
  return { name = port }
end

local function ingress(class, path_type)
  return function(given, namespace)
    local service = type(given.service) == "table" and given.service.name or given.service
    return {
      apiVersion = "networking.k8s.io/v1", kind = "Ingress",
      metadata = { name = given.name, namespace = namespace, annotations = given.annotations },
      spec = {
        ingressClassName = given.class or class,
        tls = given.tls and json.array { { hosts = given.host and json.array { given.host } or nil, secretName = given.tls } } or nil,
        rules = json.array { {
          host = given.host,
          http = { paths = json.array { {
            path = given.path or "/", pathType = path_type,
            backend = { service = { name = service, port = port_of(given.port) } },
          } } },
        } },
      },
    }
  end
end

local function balancer(object)
  local list = ((object.status or {}).loadBalancer or {}).ingress or {}
  return list[1] and (list[1].ip or list[1].hostname)
end

---@type table<string, eirun.TrafficWay>
M.ways = {
  nginx = { kind = "Ingress", class = "nginx", manifest = ingress("nginx", "ImplementationSpecific"), address = balancer,
    no_address = "is the add-on nginx-ingress-controller installed and its Service given a balancer?" },
  -- ALB takes each Ingress as rules of an AlbConfig's listeners; its path types are those of the API.
  alb = { kind = "Ingress", class = "alb", manifest = ingress("alb", "Prefix"), address = balancer,
    no_address = "is the add-on alb-ingress-controller installed, and does the IngressClass name an AlbConfig with a listener?" },
}

---Adds a way of your own, as one of the Gateway API.
---@param name string
---@param way eirun.TrafficWay
function M.add(name, way)
  M.ways[name] = way
end

return M
