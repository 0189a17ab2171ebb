-- SPDX-License-Identifier: Apache-2.0
-- The pod network: which address and port somebody listens on. Kubelets put servers here, the ingress and the probes call them.
local task = require "eirun.core.task"

local Network = {}
Network.__index = Network
local M = {}

---A machine or pod has this address; its ports are closed until somebody listens.
function Network:attach(ip)
  self.hosts[ip] = { ports = {} }
end

---`serve(request, timeout)` answers { status, headers, body } or nil and "reset" or "timeout". A request is { method, path, body,
---headers? }.
function Network:listen(ip, port, serve)
  local host = self.hosts[ip] or { ports = {} }
  self.hosts[ip] = host
  host.ports[port] = serve
end

---Nobody listens there any more.
function Network:close(ip, port)
  local host = self.hosts[ip]
  if not host then return end
  if port then host.ports[port] = nil else self.hosts[ip] = nil end
end

---The machine behind this address is gone: packets to it vanish until it is forgotten.
function Network:cut(ip) self.hosts[ip] = { ports = {}, cut = true } end

local function reach(self, ip, port, timeout)
  local host = self.hosts[ip]
  if not host or host.cut then
    task.sleep(timeout)
    return nil, "timeout"
  end
  local serve = host.ports[port]
  if not serve then return nil, "refused" end
  return serve
end

---@return table|nil reply
---@return "refused"|"timeout"|"reset"|nil why "refused" says that nothing was sent
function Network:call(ip, port, request, connect_timeout, timeout)
  local serve, why = reach(self, ip, port, connect_timeout)
  if not serve then return nil, why == "timeout" and "unreachable" or why end
  return serve(request, timeout)
end

---Can a connection be made?
function Network:connects(ip, port, timeout)
  local serve, why = reach(self, ip, port, timeout)
  return serve ~= nil, why
end

---The one network of a world.
function M.of(ctx)
  ctx.pod_network = ctx.pod_network or setmetatable({ hosts = {} }, Network)
  return ctx.pod_network
end

return M
