-- SPDX-License-Identifier: Apache-2.0
-- Probes: one look at a container, and the loop that counts what was seen.
local task = require "eirun.core.task"

local M = {}

local function port_of(container, wanted)
  if type(wanted) == "number" then return wanted end
  for _, port in ipairs(container.ports or {}) do
    if port.name == wanted then return port.containerPort end
  end
  return math.tointeger(tonumber(wanted))
end

local function http_get(world, container, action, timeout)
  local port, path = port_of(container, action.port), action.path or "/"
  if path:sub(1, 1) ~= "/" then path = "/" .. path end
  local url = ("%s://%s:%d%s"):format((action.scheme or "HTTP"):lower(), world.ip, port or 0, path)
  local reply, why = world.network:call(world.ip, port, { method = "GET", path = path, body = "" }, timeout, timeout)
  if reply and reply.status >= 200 and reply.status < 400 then return true end
  if reply then return false, ("HTTP probe failed with statuscode: %d"):format(reply.status) end
  if why == "refused" then return false, ("Get %q: dial tcp %s:%d: connect: connection refused"):format(url, world.ip, port or 0) end
  if why == "reset" then return false, ("Get %q: read tcp %s:%d: read: connection reset by peer"):format(url, world.ip, port) end
  return false, ("Get %q: context deadline exceeded (Client.Timeout exceeded while awaiting headers)"):format(url)
end

local function tcp_socket(world, container, action, timeout)
  local port = port_of(container, action.port)
  local ok, why = world.network:connects(world.ip, port, timeout)
  if ok then return true end
  if why == "refused" then return false, ("dial tcp %s:%d: connect: connection refused"):format(world.ip, port or 0) end
  return false, ("dial tcp %s:%d: i/o timeout"):format(world.ip, port or 0)
end

-- A command is not run here. One that speaks to a port through bash is known by what it is given: port, path and a file to post.
local function posts(command)
  if (command[3] or ""):find("/dev/tcp/127.0.0.1/$1", 1, true) then
    return { port = math.tointeger(tonumber(command[5])), path = command[6], file = command[7] }
  end
end

local function exec(world, command, timeout)
  local post = posts(command)
  if not post then return true end
  local body = world.files.read(post.file)
  if not body then return false, ("command %q failed: %s: No such file or directory"):format(command[1], post.file) end
  local reply = world.network:call(world.ip, post.port, { method = "POST", path = post.path, body = body }, timeout, timeout)
  if reply and reply.status == 200 then return true end
  return false, reply and ("the warm-up request was answered %d"):format(reply.status)
    or ("%s: connect: Connection refused"):format(command[1])
end

---One look. Commands inside a container and gRPC health checks succeed while it runs; the one that posts a request posts it.
---@param world {network: table, ip: string, files: table}
---@return boolean ok
---@return string|nil why in the kubelet's words
function M.look(world, container, probe)
  local timeout = probe.timeoutSeconds or 1
  if probe.httpGet then return http_get(world, container, probe.httpGet, timeout) end
  if probe.tcpSocket then return tcp_socket(world, container, probe.tcpSocket, timeout) end
  if probe.exec then return exec(world, probe.exec.command or {}, timeout) end
  return true
end

---Looks again and again until `changed` answers "stop". It is told each verdict that stands: true after successThreshold good
---looks, false with the reason after failureThreshold bad ones; `failed` is told of every bad look.
---@param options table { look = function -> ok, why; probe; changed = function(ok, why) -> "stop"|nil; failed = function(why) }
function M.run(options)
  local probe, good, bad = options.probe, 0, 0
  task.sleep(probe.initialDelaySeconds or 0)
  while true do
    local ok, why = options.look()
    good, bad = ok and good + 1 or 0, ok and 0 or bad + 1
    if not ok then options.failed(why) end
    local said
    if good >= (probe.successThreshold or 1) then
      said = options.changed(true)
    elseif bad >= (probe.failureThreshold or 3) then
      said = options.changed(false, why)
    end
    if said == "stop" then return end
    task.sleep(probe.periodSeconds or 10)
  end
end

return M
