-- SPDX-License-Identifier: Apache-2.0
-- What all OpenAPI products share: body, request id, signature, permission, faults and the envelope of errors.
local json = require "eirun.core.json"
local auth = require "sandbox.cloud.auth"
local encoding = require "sandbox.encoding"
local errors = require "sandbox.cloud.errors"
local times = require "sandbox.times"

local gateway = {}

local largest_body = 8 << 20
local unknown_error = "The request processing has failed due to some unknown error."

local function form_pairs(req, body)
  local kind = req.headers:get "content-type" or ""
  if not kind:find("application/x-www-form-urlencoded", 1, true) then return {} end
  return encoding.pairs_of(body, true)
end

-- The call as handlers see it: { req=, ctx=, body=, query={pairs}, pairs={query and form}, params={name->value} }.
function gateway.read(ctx, req)
  local body, err = req:body(largest_body)
  if not body then return nil, err end
  local call = { req = req, ctx = ctx, body = body, query = encoding.pairs_of(req.query_string, true), request_id = ctx.request_id() }
  call.pairs = table.move(call.query, 1, #call.query, 1, {})
  for _, pair in ipairs(form_pairs(req, body)) do table.insert(call.pairs, pair) end
  call.params = encoding.map_of(call.pairs)
  call.action = req.headers:get "x-acs-action" or call.params.Action
  call.version = req.headers:get "x-acs-version" or call.params.Version
  return call
end

local function headers_of(ctx, call, extra)
  local headers = { ["Content-Type"] = "application/json;charset=utf-8", ["x-acs-request-id"] = call.request_id,
    ["Date"] = times.http(ctx.wall()) }
  for name, value in pairs(extra or {}) do headers[name] = value end
  return headers
end

local service_faults = {}

function service_faults.throttle(fault)
  local headers = fault.retry_after and { ["x-acs-retry-after"] = tostring(fault.retry_after) }
  errors.raise(400, "Throttling.User", "Request was denied due to user flow control.", { headers = headers })
end

function service_faults.error(fault)
  errors.raise(fault.status or 500, fault.code or "InternalError", fault.message or unknown_error)
end

function service_faults.expired_token()
  errors.raise(400, "InvalidSecurityToken.Expired", "Specified SecurityToken is expired.")
end

function service_faults.permission_lost(_, product, call)
  auth.authorize({ identity = "RAMUser", name = "sandbox", policies = {} }, product.ram .. ":" .. call.action, "*", product.style)
end

local function act(ctx, product, call, fault)
  local handler = product.find(call)
  if fault and service_faults[fault.kind] then service_faults[fault.kind](fault, product, call) end
  call.fault = fault
  if not (product.anonymous and product.anonymous[call.action]) then
    call.key, call.key_id = auth.identify(ctx, call)
    auth.authorize(call.key, product.ram .. ":" .. call.action, call.resource, product.style)
  end
  return handler(call)
end

local function failure_reply(ctx, product, call, err)
  if not errors.is(err) then
    ctx.log("error", "%s %s [%s]: %s", product.name, tostring(call.action), call.request_id, tostring(err))
    err = { status = 500, code = "InternalError", message = unknown_error }
  end
  local body = product.style == "CS" and errors.cs_body(err, call.request_id)
    or errors.rpc_body(err, call.request_id, call.req.headers:get "host")
  return err.status, headers_of(ctx, call, err.headers), assert(json.encode(body))
end

local function trace_unless_failure(err)
  if type(err) == "string" then return debug.traceback(err, 2) end
  return err
end

local function reply_of(ctx, product, call, fault)
  local ok, result, status = xpcall(act, trace_unless_failure, ctx, product, call, fault)
  if not ok then
    if type(result) == "table" and result.kind == "cancelled" then error(result, 0) end
    return failure_reply(ctx, product, call, result)
  end
  if result == nil then return status or 200, headers_of(ctx, call), "" end
  product.finish(call, result)
  return status or 200, headers_of(ctx, call), assert(json.encode(result))
end

-- product: { name=, ram="cs", style="CS"|"RPC", find=function(call)->handler (sets call.action), finish=function(call, result) }
-- A handler gets the call and returns the body (a table, or nil for an empty one) and optionally a status.
function gateway.handler(ctx, product)
  return function(req)
    local call, err = gateway.read(ctx, req)
    if not call then return req:respond(413, { ["Content-Type"] = "text/plain" }, tostring(err)) end
    if product.name_action then product.name_action(call) end
    ctx.faults:around(req, product.name, call.action or "", function(fault) return reply_of(ctx, product, call, fault) end)
  end
end

-- An RPC product: actions by name, one version.
function gateway.rpc(ctx, product)
  product.style = "RPC"
  function product.find(call)
    local handler = product.actions[call.action or ""]
    if not handler or (product.versions and not product.versions[call.version or ""]) then
      errors.raise(404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method.")
    end
    return handler
  end
  function product.finish(call, result) result.RequestId = call.request_id end
  return gateway.handler(ctx, product)
end

-- A required parameter, or the product's own complaint.
function gateway.need(call, name)
  local value = call.params[name]
  if value == nil or value == "" then
    errors.raise(400, "MissingParameter",
      ("The input parameter \"%s\" that is mandatory for processing this request is not supplied."):format(name))
  end
  return value
end

-- An integer parameter within bounds.
function gateway.integer(call, name, default, low, high)
  local text = call.params[name]
  if text == nil or text == "" then return default end
  local number = math.tointeger(tonumber(text))
  if not number or number < low or number > high then
    errors.raise(400, "InvalidParameter." .. name, ("The specified %s is invalid."):format(name))
  end
  return number
end

-- The slice of `list` for 1-based page numbers.
function gateway.page(list, number, size)
  return json.array(table.move(list, (number - 1) * size + 1, math.min(#list, number * size), 1, {}))
end

return gateway
