-- SPDX-License-Identifier: Apache-2.0
-- What a call looks like on the wire before it is signed: method, path, query, body, and where it goes.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local products = require "eirun.cloud.products"
local spec = require "eirun.spec"
local wire = require "eirun.wire"

local M = {}

local JSON_TYPE, FORM_TYPE = "application/json; charset=utf-8", "application/x-www-form-urlencoded"

local function flatten_into(flat, prefix, value)
  if type(value) ~= "table" then
    flat[prefix] = value
  elseif json.is_array(value) or #value > 0 then
    for i, item in ipairs(value) do flatten_into(flat, prefix .. "." .. i, item) end
  else
    for _, key in ipairs(wire.sorted_keys(value)) do flatten_into(flat, prefix .. "." .. key, value[key]) end
  end
end

function M.flatten(query)
  local flat = {}
  for key, value in pairs(query or {}) do flatten_into(flat, key, value) end
  return flat
end

local function fill(path, params, action)
  return (path:gsub("{([%w_]+)}", function(name)
    local value = params and params[name]
    if value == nil then spec.fail("cloud.call", ("%s needs params.%s"):format(action, name)) end
    return wire.encode(value)
  end))
end

local function nearest_operation(action)
  local near = spec.nearest(action, products.cs_operations)
  return near and (", did you mean %s?"):format(near) or ""
end

local function path_of(call)
  local operation = call.product == "cs" and products.cs_operations[call.action]
  local path = call.path or operation and operation[2]
  if not path then
    spec.fail("cloud.call", ("what is the path of %s? give path and method%s"):format(call.action,
      call.product == "cs" and nearest_operation(call.action) or ""))
  end
  return fill(path, call.params, call.action), operation and not call.path and operation[1]
end

local function body_of(call)
  if call.form then return wire.query(M.flatten(call.form)), FORM_TYPE end
  local body = call.body
  if body == nil or type(body) == "string" or type(body) == "userdata" then return body, body and JSON_TYPE end
  return json.encode(body), JSON_TYPE
end

local function rpc(call, known, region)
  local query = M.flatten(call.query)
  if call.add_region and known.region and query.RegionId == nil then query.RegionId = region end
  if products.takes_token(call.product, call.action) and query.ClientToken == nil then
    query.ClientToken = crypto.hex(crypto.random(16))
  end
  return { method = call.method or "POST", path = "/", query = query }
end

local function roa(call)
  local path, method = path_of(call)
  return { method = call.method or method or (call.body or call.form) and "POST" or "GET", path = path, query = call.query }
end

---The API version of a call.
---@param call eirun.CloudCall
---@return string
---Raises kind "invalid" for a product that is not known and comes without one.
function M.version(call)
  local known = products.known[call.product] or {}
  return call.version or known.version
    or spec.fail("cloud.call", ("product '%s' is not known: give version and style"):format(call.product))
end

---Method, path, query, body and type of a call.
---@param call eirun.CloudCall
---@param region string
---@return {method: string, path: string, query: table, body: string|userdata|nil, content_type: string|nil, version: string}
function M.request(call, region)
  local known = products.known[call.product] or {}
  local style = call.style or known.style or (call.path and "ROA" or "RPC")
  local shaped = style == "RPC" and rpc(call, known, region) or roa(call)
  shaped.method, shaped.version = shaped.method:upper(), M.version(call)
  shaped.body, shaped.content_type = body_of(call)
  shaped.content_type = shaped.body and call.content_type or shaped.content_type
  return shaped
end

local function check_region(region)
  if not region:find("^[%w-]+$") then
    errors.raise("invalid", ("'%s' is no region: they are named like cn-hangzhou"):format(region), { code = "region" })
  end
  return region
end

---Scheme and host that a call goes to.
---@param call eirun.CloudCall
---@param target eirun.Target
---@return {scheme: string, host: string}
function M.url(call, target)
  local given = call.endpoint or (target.endpoints or {})[call.product:upper():gsub("-", "_")]
  local region = check_region(call.region or target.region)
  local text = http.endpoint_url(given or products.host(call.product, region, call.network or target.network))
  local url = http.split_url(text)
  if not url then errors.raise("invalid", ("'%s' is no endpoint: give host, host:port or a URL"):format(given), { code = "endpoint" }) end
  url.given, url.region = given ~= nil, region
  return url
end

local reads = { "^Describe", "^List", "^Get", "^Query", "^Check", "^Search", "^Lookup" }

---May this call be made twice as well as once?
---@param call eirun.CloudCall
---@param shaped table
---@return boolean
function M.is_idempotent(call, shaped)
  if call.idempotent ~= nil then return call.idempotent end
  if shaped.query and shaped.query.ClientToken then return true end
  for _, pattern in ipairs(reads) do if call.action:find(pattern) then return true end end
  return shaped.path ~= "/" and shaped.method ~= "POST" and shaped.method ~= "PATCH"
end

return M
