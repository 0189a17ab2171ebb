-- SPDX-License-Identifier: Apache-2.0
-- Faults on demand (sandbox/faults.lua) as an API server shows them. Service "KUBE", action "patch deployments".
-- The sandbox's own components are spared: what is tested is how a client from outside copes.
local faults = require "sandbox.faults"
local status = require "sandbox.kube.status"

local trouble = {}

local BUSY = "Too many requests, please try again later."

local service = {}

-- Priority and fairness answers in plain text, other limits in JSON: by turns.
function service.throttle(face, req, fault)
  local after = tostring(fault.retry_after or 1)
  if fault.times % 2 == 0 then
    return req:respond(429, { { "Content-Type", "text/plain; charset=utf-8" }, { "Retry-After", after } }, BUSY .. "\n")
  end
  face:fail(req, status.new { code = 429, reason = "TooManyRequests", message = BUSY,
    details = { retryAfterSeconds = math.tointeger(tonumber(after)) or 1 } })
end

service["error"] = function(face, req, fault)
  face:fail(req, status.new { code = fault.status or 500, reason = fault.code or "InternalError",
    message = fault.message or "Internal error occurred: injected" })
end

function service.expired_token(face, req)
  face:fail(req, status.new { code = 401, reason = "Unauthorized", message = "Unauthorized" })
end

function service.permission_lost(face, req, _, at, user, verb)
  local s = select(2, pcall(face.refuse, face, user, at, verb))
  face:fail(req, s)
end

function service.empty_list(face, req, _, at)
  local text = '{"kind":"%sList","apiVersion":"%s","metadata":{"resourceVersion":"%d"},"items":null}\n'
  req:respond(200, face:headers "application/json", text:format(at.r.kind, at.r.api_version, face.store.rv))
end

function service.delete_failed(face, req)
  face:fail(req, status.new { code = 500, reason = "InternalError", message = "Internal error occurred: the deletion failed" })
end

-- The request with its whole reply kept back.
local function holding_back(req)
  local held = {}
  return setmetatable({ respond = function(_, code, headers, body)
    held.status, held.headers, held.body = code, headers, body
  end }, { __index = function(_, key)
    local member = req[key]
    if type(member) ~= "function" then return member end
    return function(_, ...) return member(req, ...) end
  end }), held
end

-- Runs act(req) under the fault that waits for this call, if any.
function trouble.around(face, req, at, user, verb, act)
  local spared = user.name:find("^system:") or not face.faults
  local fault = not spared and face.faults:take("KUBE", verb .. " " .. at.r.plural)
  if not fault then return act(req) end
  local when = faults.kinds[fault.kind].when
  if when == "service" then return service[fault.kind](face, req, fault, at, user, verb) end
  if when == "before" then return faults.play(req, fault) or act(req) end
  local wrapped, held = holding_back(req)
  local ok, err = pcall(act, wrapped)
  if not ok then error(err, 0) end
  if held.status and not faults.play(req, fault, held) then req:respond(held.status, held.headers, held.body) end
end

return trouble
