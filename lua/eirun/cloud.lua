-- SPDX-License-Identifier: Apache-2.0
-- Any OpenAPI product, one function: signed, retried where that is safe, and failures told in the caller's terms.
local codes = require "eirun.cloud.codes"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local products = require "eirun.cloud.products"
local sign = require "eirun.cloud.sign"
local spec = require "eirun.spec"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local CONNECT_SECONDS, READ_SECONDS, TOTAL_SECONDS = 10, 60, 180

---@class eirun.CloudCall
---@field product string `cs`, `ecs`, `ess`, `sts`, `vpc`, `ram`, or any other with `version` and `style`
---@field action string
---@field version? string
---@field style? "RPC"|"ROA"
---@field method? string ROA; GET, or POST with a body
---@field path? string ROA; percent-encoded
---@field params? table ROA: what fills the braces of the operation's path
---@field query? table raw values; RPC: nested lists and maps are flattened
---@field body? table|string|userdata a table is sent as JSON
---@field region? string
---@field endpoint? string
---@field object? string what it is about, for messages
---@field idempotent? boolean default: reads, PUT, DELETE, and calls with a ClientToken
---@field timeout? number seconds for all attempts together, default 180

local call_rules = {
  product = { type = "string", required = true }, action = { type = "string", required = true },
  version = { type = "string" }, style = { type = "string", one_of = { RPC = true, ROA = true } },
  method = { type = "string" }, path = { type = "string" }, params = { type = "table" }, query = { type = "table" },
  body = { type = "any" }, region = { type = "string" }, endpoint = { type = "string" }, object = { type = "string" },
  idempotent = { type = "boolean" }, timeout = { type = "number", min = 0 },
}

-- How far the server's clock is ahead of ours; learned when it refuses a time.
local clock_offset = 0

local function endpoint_of(call, product, now)
  local given = call.endpoint or (now.endpoints or {})[call.product:upper()]
  if given then return http.endpoint_url(given) end
  local host = product.host or function(region) return ("%s.%s.aliyuncs.com"):format(call.product, region) end
  return "https://" .. host(call.region or now.region)
end

local function fill(path, params, action)
  return (path:gsub("{(%w+_?%w*)}", function(name)
    local value = params and params[name]
    if value == nil then spec.fail("cloud.call", ("%s needs params.%s"):format(action, name)) end
    return wire.encode(value)
  end))
end

local function flatten_into(flat, prefix, value)
  if type(value) ~= "table" then
    flat[prefix] = value
  elseif json.is_array(value) or #value > 0 then
    for i, item in ipairs(value) do flatten_into(flat, prefix .. "." .. i, item) end
  else
    for _, key in ipairs(wire.sorted_keys(value)) do flatten_into(flat, prefix .. "." .. key, value[key]) end
  end
end

---RPC parameters as the wire wants them: `{Tag = {{Key = "a"}}}` becomes `{["Tag.1.Key"] = "a"}`.
---@param query? table
---@return table<string, any>
---Example: `cloud.flatten { Tag = { { Key = "a" } } }["Tag.1.Key"]` is `a`. Raises nothing.
function M.flatten(query)
  local flat = {}
  for key, value in pairs(query or {}) do flatten_into(flat, key, value) end
  return flat
end

-- Method, path, query and body of a call, before it is signed.
local function shape(call, product)
  local style = call.style or product.style or "RPC"
  if style == "RPC" then
    return { method = "POST", path = "/", query = M.flatten(call.query) }
  end
  local operation = call.product == "cs" and products.cs_operations[call.action]
  local path = call.path or operation and fill(operation[2], call.params, call.action)
  if not path then spec.fail("cloud.call", ("what is the path of %s? give path and method"):format(call.action)) end
  return { method = call.method or operation and operation[1] or call.body and "POST" or "GET", path = path, query = call.query }
end

local reads = { "^Describe", "^List", "^Get", "^Query", "^Check" }

local function is_idempotent(call, shaped)
  if call.idempotent ~= nil then return call.idempotent end
  if call.query and call.query.ClientToken then return true end
  if shaped.path ~= "/" then return shaped.method ~= "POST" end
  for _, pattern in ipairs(reads) do if call.action:find(pattern) then return true end end
  return false
end

local function encode_body(body)
  if body == nil or type(body) == "string" or type(body) == "userdata" then return body end
  return json.encode(body)
end

local function headers_of(call, product, host, keys, body)
  return {
    host = host, accept = "application/json",
    ["content-type"] = body and "application/json; charset=utf-8" or nil,
    ["x-acs-action"] = call.action, ["x-acs-version"] = call.version or product.version,
    ["x-acs-date"] = wire.iso(task.now() + clock_offset),
    ["x-acs-signature-nonce"] = crypto.hex(crypto.random(16)),
    ["x-acs-security-token"] = keys.security_token,
  }
end

-- A new date, nonce and signature for every attempt.
local function signed_request(call, product, shaped, url, keys, body)
  local headers = headers_of(call, product, url.host, keys, body)
  sign.sign { method = shaped.method, path = shaped.path, query = shaped.query, headers = headers, body = body,
    key_id = keys.access_key_id, key_secret = keys.access_key_secret }
  local query = wire.query(shaped.query)
  local list = {}
  for _, name in ipairs(wire.sorted_keys(headers)) do
    if name ~= "host" then list[#list + 1] = { name, headers[name] } end
  end
  return {
    method = shaped.method, headers = list, body = body, timeout = READ_SECONDS, connect_timeout = CONNECT_SECONDS,
    url = ("%s://%s%s%s"):format(url.scheme, url.host, shaped.path, query ~= "" and "?" .. query or ""),
  }
end

local function required_action(details)
  if type(details) ~= "table" or not details.AuthAction then return nil end
  return "grant " .. tostring(details.AuthAction) .. " to " .. tostring(details.AuthPrincipalDisplayName or "the key's owner")
end

local function about(call)
  return call.action .. (call.object and " of " .. call.object or "")
end

-- Both envelopes: Code/Message/RequestId of RPC products, code/message/requestId of CS; and bodies that are no JSON at all.
local function failure(call, reply)
  local body = json.decode(reply.body or "")
  if type(body) ~= "table" then body = {} end
  local code = body.Code or body.code
  code = code and tostring(code)
  local words = body.Message or body.message or ("the server answered %d with %s"):format(reply.status, http.excerpt(reply.body))
  local kind, hint = codes.classify(code or "", reply.status)
  local after = tonumber(reply.headers:get "x-acs-retry-after" or nil)
  return errors.new(kind, about(call) .. ": " .. tostring(words), {
    code = code, status = reply.status, operation = call.action, object = call.object,
    request_id = body.RequestId or body.requestId or body.request_id or reply.headers:get "x-acs-request-id",
    hint = required_action(body.accessDeniedDetail or body.AccessDeniedDetail) or hint,
    retryable = kind == "throttled" or nil, retry_after = after and after / 1000,
  })
end

local function success(call, reply)
  if (reply.body or "") == "" then return {} end
  local body, err = json.decode(reply.body)
  if body ~= nil then return body end
  return nil, errors.new("internal", ("%s: the answer is not JSON (%s): %s"):format(about(call), err.message,
    http.excerpt(reply.body)), { operation = call.action, object = call.object, status = reply.status, uncertain = true })
end

local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }

local function seconds_of_date(date)
  local day, month, year, time = (date or ""):match("(%d%d) (%a%a%a) (%d%d%d%d) (%d%d:%d%d:%d%d)")
  if not months[month] then return nil end
  return wire.parse_time(("%s-%02d-%sT%sZ"):format(year, months[month], day, time))
end

-- Two refusals are worth one more try at once: a clock that is off, and a nonce that was seen before.
local function learn(err, reply, corrected)
  if corrected[err.code] then return end
  corrected[err.code or ""] = true
  if err.code == "InvalidTimeStamp.Expired" then
    local server = seconds_of_date(reply.headers:get "date")
    if not server then return end
    clock_offset = server - task.now()
    err.retryable = true
  elseif err.code == "SignatureNonceUsed" then
    err.retryable = true
  end
end

local function attempt(call, product, shaped, url, client, keys, body, corrected)
  local reply, err = client:request(signed_request(call, product, shaped, url, keys, body))
  if not reply then
    local text = ("%s: %s"):format(about(call), err.message)
    return nil, errors.rephrase(err, text, { operation = call.action, object = call.object, uncertain = true })
  end
  if reply.status < 300 then return success(call, reply) end
  local failed = failure(call, reply)
  if reply.status >= 500 then failed.uncertain = true end
  learn(failed, reply, corrected)
  return nil, failed
end

---Calls an operation of any OpenAPI product and returns its decoded answer.
---@param call eirun.CloudCall
---@return table answer numbers intact
---Example:
---```lua
---local pools = cloud.call { product = "cs", action = "DescribeClusterNodePools", params = { ClusterId = id } }.nodepools
---```
---Raises an error that names operation, object, code, the server's words, the request id and, where known, the next step.
---`uncertain` is set on it when the server may have done what was asked.
function M.call(call)
  spec.check("cloud.call", call, call_rules)
  local product = products.known[call.product] or {}
  if not (call.version or product.version) then
    spec.fail("cloud.call", ("product '%s' is not known: give version and style"):format(call.product))
  end
  local now = target.current()
  local shaped = shape(call, product)
  local url = http.split_url(endpoint_of(call, product, now))
  local client, body, corrected = target.http(), encode_body(call.body), {}
  local policy = { idempotent = is_idempotent(call, shaped), deadline = task.now() + (call.timeout or TOTAL_SECONDS) }
  return errors.check(http.retry(policy, function()
    return attempt(call, product, shaped, url, client, now.credentials:get(), body, corrected)
  end))
end

---An operation of the Container Service.
---@param action string
---@param params? table fills the operation's path
---@param more? {query?: table, body?: table, object?: string, timeout?: number, idempotent?: boolean}
---@return table
---Example: `cloud.cs("DescribeClusterDetail", { ClusterId = id })`. Raises as `cloud.call`.
function M.cs(action, params, more)
  local call = { product = "cs", action = action, params = params or {} }
  for key, value in pairs(more or {}) do call[key] = value end
  return M.call(call)
end

---An operation of an RPC product; the region goes along.
---@param product string
---@param action string
---@param query? table
---@param object? string
---@return table
---Example: `cloud.rpc("ecs", "DescribeInstances", { InstanceIds = '["i-a"]' })`. Raises as `cloud.call`.
function M.rpc(product, action, query, object)
  local with_region = { RegionId = target.current().region }
  for key, value in pairs(query or {}) do with_region[key] = value end
  return M.call { product = product, action = action, query = with_region, object = object }
end

---All items of a paged RPC answer. `pick(answer)` gives the items of a page; pages follow PageNumber and TotalCount.
---@param product string
---@param action string
---@param query table
---@param size integer the product's largest page
---@param pick fun(answer: table): table
---@return table[] items
---@return table last the last answer, for its totals
---Example: `cloud.pages("ess", "DescribeScalingInstances", { ScalingGroupId = id }, 100, function(a) return a.ScalingInstances end)`.
---Raises as `cloud.call`.
function M.pages(product, action, query, size, pick)
  local items, number = {}, 1
  while true do
    local page = { PageNumber = number, PageSize = size }
    for key, value in pairs(query) do page[key] = value end
    local answer = M.rpc(product, action, page)
    local got = pick(answer) or {}
    table.move(got, 1, #got, #items + 1, items)
    if #got == 0 or #items >= (answer.TotalCount or 0) then return items, answer end
    number = number + 1
  end
end

---Who the run's keys belong to (STS GetCallerIdentity).
---@return {AccountId: string, Arn: string, IdentityType: string}
---Example: `print(cloud.caller_identity().Arn)`. Raises kind "denied" for keys that do not exist.
function M.caller_identity()
  return M.call { product = "sts", action = "GetCallerIdentity" }
end

return M
