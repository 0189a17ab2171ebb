-- SPDX-License-Identifier: Apache-2.0
-- Failures on demand. A fault names the call it waits for and what goes wrong; faults are consumed in the order
-- in which they were given. Services ask before they act (`take`), the server plays the transport's part.
local process = require "eirun.core.process"
local task = require "eirun.core.task"

local Faults = {}
Faults.__index = Faults
local faults = {}

-- What each kind needs besides service and action; `when` says who plays it: the server before or after the
-- handler, or the service itself.
faults.kinds = {
  throttle = { when = "service", retry_after = "number" },
  error = { when = "service", status = "number", code = "string", message = "string" },
  html = { when = "before", status = "number" },
  reset = { when = "before" },
  slow = { when = "before", seconds = "number" },
  slow_body = { when = "after", seconds = "number" },
  kill = { when = "after" },
  reset_after_commit = { when = "after" },
  timeout_after_commit = { when = "after" },
  truncate = { when = "after" },
  wrong_json = { when = "after" },
  expired_token = { when = "service" },
  permission_lost = { when = "service" },
  empty_list = { when = "service" },
  delete_failed = { when = "service" },
  cut_body = { when = "service", bytes = "number" },
  wrong_crc = { when = "service" },
  wrong_etag = { when = "service" },
  late = { when = "service", seconds = "number" },
  qos_delay = { when = "service", milliseconds = "number" },
  bit_rot = { when = "service" },
  stock_out = { when = "world", zone = "string", type = "string", left = "number", market = "string" },
  price = { when = "world", zone = "string", type = "string", factor = "number" },
  reclaim = { when = "world", zone = "string", id = "string", node = "string", share = "number", seconds = "number" },
  attach = { when = "world", pool = "string", type = "string", zone = "string", spot = "boolean" },
  protect = { when = "world", id = "string" },
  no_addresses = { when = "world", vswitch = "string", on = "boolean" },
  xid = { when = "world", node = "string", gpu = "number", xid = "number" },
  goatscaler_quirk = { when = "world", on = "boolean" },
  rounding = { when = "world", how = "string" },
  clock_skew = { when = "world", seconds = "number" },
}

-- What every fault of a call may say; the others act on the world at once.
local of_a_call = { service = "string", action = "string", times = "number", skip = "number" }

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function known_fields(fault)
  local kind = faults.kinds[fault.kind]
  for _, name in ipairs(sorted(fault)) do
    local want = name == "kind" and "string" or name ~= "when" and kind[name] or kind.when ~= "world" and of_a_call[name] or nil
    if not want then return nil, ("a fault of kind %s has no field '%s'"):format(fault.kind, name) end
    if type(fault[name]) ~= want then return nil, ("%s of a fault must be a %s"):format(name, want) end
  end
  return true
end

-- { kind=, service="CS"|"*", action="CreateClusterNodePool"|"*", times=1, skip=0, ... } -> true | nil, text
function Faults:add(fault)
  if type(fault) ~= "table" then return nil, "a fault is an object with a kind" end
  if not faults.kinds[fault.kind or ""] then
    return nil, ("unknown kind of fault '%s'; there are %s"):format(tostring(fault.kind), table.concat(sorted(faults.kinds), ", "))
  end
  local ok, why = known_fields(fault)
  if not ok then return nil, why end
  if faults.kinds[fault.kind].when == "world" then
    local check = self.checks[fault.kind]
    why = check and check(fault)
    if why then return nil, why end
    self.emit("fault", fault)
    return true
  end
  local copy = { service = "*", action = "*", times = 1, skip = 0 }
  for name, value in pairs(fault) do copy[name] = value end
  table.insert(self.list, copy)
  return true
end

function Faults:clear() self.list = {} end

-- Who plays a kind may say why one of them would do nothing: `check(fault)` -> text | nil.
function Faults:check(kind, check) self.checks[kind] = check end

local function matches(fault, service, action, phases)
  return (fault.service == "*" or fault.service == service) and (fault.action == "*" or fault.action == action)
    and phases[faults.kinds[fault.kind].when]
end

local function use(self, index, fault)
  if fault.skip > 0 then
    fault.skip = fault.skip - 1
    return nil
  end
  fault.times = fault.times - 1
  if fault.times <= 0 then table.remove(self.list, index) end
  return fault
end

local every_phase = { before = true, after = true, service = true }

-- The first fault that waits for this call, or nil. A fault whose `skip` is not used up counts down and lets it pass.
function Faults:take(service, action, phases)
  for index, fault in ipairs(self.list) do
    if matches(fault, service, action, phases or every_phase) then return use(self, index, fault) end
  end
end

local html = "<html>\r\n<head><title>%d</title></head>\r\n<body>\r\n<center><h1>%d</h1></center>\r\n"
  .. "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"

local play = {}

function play.html(req, fault)
  local status = fault.status or 502
  req:respond(status, { ["Content-Type"] = "text/html" }, html:format(status, status))
  return true
end

function play.reset(req)
  req:abort()
  return true
end

function play.slow(req, fault)
  task.sleep(fault.seconds or 30)
  return false
end

function play.reset_after_commit(req)
  req:abort()
  return true
end

-- The client must give up by itself; nothing is ever answered.
function play.timeout_after_commit(req)
  req:wait_closed()
  return true
end

function play.truncate(req, fault, reply)
  req:start(reply.status, reply.headers)
  req:write(reply.body:sub(1, #reply.body // 2))
  req:abort()
  return true
end

-- A byte now and then: the head comes at once, the body takes its time.
function play.slow_body(req, fault, reply)
  local pieces = 10
  req:start(reply.status, reply.headers)
  for i = 1, pieces do
    task.sleep((fault.seconds or 30) / pieces)
    local from, to = #reply.body * (i - 1) // pieces + 1, #reply.body * i // pieces
    if to >= from then req:write(reply.body:sub(from, to)) end
  end
  req:finish()
  return true
end

-- The whole process ends as by kill -9, after the call was carried out and before it was answered. In one process that is eirun, too.
function play.kill(req)
  process.run { "/bin/sh", "-c", "kill -9 $PPID" }
  req:wait_closed()
  return true
end

function play.wrong_json(req, fault, reply)
  req:respond(reply.status, reply.headers, '{"unfinished":')
  return true
end

-- Plays the transport's part of a fault; true when the request needs no other answer.
function faults.play(req, fault, reply)
  local fn = play[fault.kind]
  return fn ~= nil and fn(req, fault, reply)
end

-- Runs `act` (which returns status, headers, body and has committed) under the faults of one call.
function Faults:around(req, service, action, act)
  local fault = self:take(service, action)
  local when = fault and faults.kinds[fault.kind].when
  if when == "before" and faults.play(req, fault) then return end
  local status, headers, body = act(when == "service" and fault or nil)
  if when == "after" and faults.play(req, fault, { status = status, headers = headers, body = body or "" }) then return end
  req:respond(status, headers, body)
end

function faults.new(emit) return setmetatable({ list = {}, emit = emit, checks = {} }, Faults) end

return faults
