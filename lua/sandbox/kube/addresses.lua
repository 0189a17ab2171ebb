-- SPDX-License-Identifier: Apache-2.0
-- Cluster addresses and node ports of Services, handed out in order.
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"

local Addresses = {}
Addresses.__index = Addresses

-- 172.21.0.0/20, the service network that ACK proposes; the first address is the API server's own.
local FIRST, LAST = 10, 4094
local PORT_FIRST, PORT_LAST = 30000, 32767

function Addresses.new(store)
  return setmetatable({ store = store }, Addresses)
end

local function address(n)
  return ("172.21.%d.%d"):format(n >> 8, n & 255)
end

local function used(self, but)
  local ips, ports = {}, {}
  for _, rec in ipairs(self.store:list(resources.services)) do
    local spec = rec.obj.spec
    if rec.uid ~= but then
      ips[spec.clusterIP or ""] = true
      for _, port in ipairs(spec.ports or {}) do ports[port.nodePort or 0] = true end
    end
  end
  return ips, ports
end

local function free_address(ips)
  for n = FIRST, LAST do
    if not ips[address(n)] then return address(n) end
  end
  error "the service network is full"
end

local function free_port(ports)
  for n = PORT_FIRST, PORT_LAST do
    if not ports[n] then
      ports[n] = true
      return n
    end
  end
  error "no node port is left"
end

local function taken(svc, ip)
  status.invalid("Service", "", svc.metadata.name, { { reason = "FieldValueInvalid", field = "spec.clusterIPs",
    message = ('Invalid value: ["%s"]: failed to allocate IP %s: provided IP is already allocated'):format(ip, ip) } })
end

-- Gives svc (fresh, changed in place) what its type asks for and it lacks.
function Addresses:assign(svc)
  local spec = svc.spec
  if spec.type == "ExternalName" then return end
  local ips, ports = used(self, svc.metadata.uid)
  if spec.clusterIP == nil or spec.clusterIP == "" then
    spec.clusterIP = free_address(ips)
  elseif spec.clusterIP ~= "None" and ips[spec.clusterIP] then
    taken(svc, spec.clusterIP)
  end
  spec.clusterIPs = spec.clusterIPs or json.array { spec.clusterIP }
  -- Headless without a selector: whoever fills the endpoints decides about families.
  local any = spec.clusterIP == "None" and not spec.selector
  spec.ipFamilies = spec.ipFamilies or any and json.array { "IPv4", "IPv6" } or json.array { "IPv4" }
  spec.ipFamilyPolicy = spec.ipFamilyPolicy or any and "RequireDualStack" or "SingleStack"
  if spec.type ~= "NodePort" and spec.type ~= "LoadBalancer" then return end
  if spec.type == "LoadBalancer" and spec.allocateLoadBalancerNodePorts == false then return end
  for _, port in ipairs(spec.ports or {}) do port.nodePort = port.nodePort or free_port(ports) end
end

return Addresses
