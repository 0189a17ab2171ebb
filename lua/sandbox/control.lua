-- SPDX-License-Identifier: Apache-2.0
-- The sandbox's own door, for `eirun sandbox status|fault` and for tests: not a cloud API. The token in serve.json
-- (readable by its owner only) is the key. Reached at sandbox.eirun.invalid or at its own port.
local clock = require "eirun.core.clock"
local json = require "eirun.core.json"
local times = require "sandbox.times"

local control = {}

local function answer(req, status, value)
  req:respond(status, { ["Content-Type"] = "application/json" }, assert(json.encode(value)))
end

local function status(ctx)
  local counts = {}
  for _, kind in ipairs { "pool", "group", "instance", "task" } do counts[kind] = ctx.store:count(kind) end
  return { region = ctx.region, account = ctx.account, cluster_id = ctx.cluster_id, time = times.iso(ctx.now()),
    counts = counts, faults = json.array(ctx.faults.list) }
end

local routes = {}

routes["GET /status"] = function(ctx, req) answer(req, 200, status(ctx)) end

-- A second program on this sandbox lives in the same time.
routes["GET /clock"] = function(ctx, req) answer(req, 200, { now = ctx.now(), factor = clock.factor() }) end

routes["POST /faults"] = function(ctx, req)
  local body = req:body(1 << 20)
  local fault, err = json.decode(body or "")
  if not fault then return answer(req, 400, { message = tostring(err) }) end
  local ok, why = ctx.faults:add(fault)
  if not ok then return answer(req, 400, { message = why }) end
  answer(req, 200, { faults = #ctx.faults.list })
end

routes["DELETE /faults"] = function(ctx, req)
  ctx.faults:clear()
  answer(req, 200, { faults = 0 })
end

local function handle(ctx)
  return function(req)
    if req.headers:get "x-sandbox-token" ~= ctx.control_token then
      return answer(req, 403, { message = "the token of serve.json is missing or wrong" })
    end
    local route = routes[req.method .. " " .. req.path]
    if not route then return answer(req, 404, { message = "no such control call" }) end
    route(ctx, req)
  end
end

function control.start(ctx)
  ctx.service { name = "control", hosts = { "sandbox.eirun.invalid" }, tls = false, handle = handle(ctx) }
end

return control
