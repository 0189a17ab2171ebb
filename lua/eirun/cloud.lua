-- SPDX-License-Identifier: Apache-2.0
-- Any OpenAPI product, one function: signed, retried where that is safe, and failures told in the caller's terms.
local answers = require "eirun.cloud.answer"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local http = require "eirun.http"
local paging = require "eirun.cloud.paging"
local products = require "eirun.cloud.products"
local shape = require "eirun.cloud.shape"
local sign = require "eirun.cloud.sign"
local spec = require "eirun.spec"
local target = require "eirun.target"
local task = require "eirun.task"
local throttle = require "eirun.cloud.throttle"
local wire = require "eirun.wire"

local M = {}

local CONNECT_SECONDS, READ_SECONDS, TOTAL_SECONDS, CONNECTIONS = 10, 60, 180, 256

---@class eirun.CloudCall
---@field product string `cs`, `ecs`, `ess`, `sts`, `vpc`, `ram`, or any other with `version` and `style`
---@field action string
---@field version? string
---@field style? "RPC"|"ROA"
---@field method? string ROA: GET, or POST with a body; RPC: POST
---@field path? string ROA; percent-encoded
---@field params? table ROA: what fills the braces of the path
---@field query? table raw values; RPC: nested lists and maps are flattened
---@field body? table|string|userdata a table is sent as JSON
---@field form? table sent as a form, flattened like a query
---@field content_type? string of the body; default JSON
---@field region? string
---@field endpoint? string host, host:port or URL
---@field network? "public"|"vpc" which of the product's endpoints
---@field object? string what it is about, for messages
---@field idempotent? boolean default: reads, PUT, DELETE, and calls with a ClientToken
---@field timeout? number seconds for all attempts together, default 180
---@field attempts? integer default 6
---@field add_region? boolean RegionId goes along where the product wants it and the query has none
---@field anonymous? boolean not signed (AssumeRoleWithOIDC)
---@field credentials? eirun.Credentials whose keys sign; default the run's

local call_rules = {
  product = { type = "string", required = true, match = "^[%w-]+$", says = "a product's code, as ecs" },
  action = { type = "string", required = true, match = "^%w+$", says = "an operation's name, as DescribeInstances" },
  version = { type = "string" }, style = { type = "string", one_of = { RPC = true, ROA = true } },
  method = { type = "string" }, path = { type = "string", match = "^/", says = "a path that begins with /" },
  params = { type = "table" }, query = { type = "table" },
  body = { type = "any" }, form = { type = "table" }, content_type = { type = "string" }, region = { type = "string" },
  endpoint = { type = "string" }, network = { type = "string", one_of = { public = true, vpc = true } }, object = { type = "string" },
  idempotent = { type = "boolean" }, timeout = { type = "number", min = 0 }, attempts = { type = "integer", min = 1 },
  anonymous = { type = "boolean" }, credentials = { type = "table" }, add_region = { type = "boolean" },
}

-- How far the server's clock is ahead of ours; learned when it refuses a time.
local clock_offset = 0

---RPC parameters as the wire wants them: `{Tag = {{Key = "a"}}}` becomes `{["Tag.1.Key"] = "a"}`.
---@param query? table
---@return table<string, any>
---Example: `cloud.flatten { Tag = { { Key = "a" } } }["Tag.1.Key"]` is `a`. Raises nothing.
function M.flatten(query)
  return shape.flatten(query)
end

local function headers_of(call, shaped, host, keys)
  return {
    host = host, accept = "application/json", ["content-type"] = shaped.content_type,
    ["x-acs-action"] = call.action, ["x-acs-version"] = shaped.version,
    ["x-acs-date"] = wire.iso(task.now() + clock_offset),
    ["x-acs-signature-nonce"] = crypto.hex(crypto.random(16)),
    ["x-acs-security-token"] = keys.security_token,
  }
end

-- Who calls anonymously says in the query what a signed header would.
local function anonymous_query(call, shaped)
  local query = { Action = call.action, Version = shaped.version, Format = "JSON", Timestamp = wire.iso(task.now() + clock_offset),
    SignatureNonce = crypto.hex(crypto.random(16)) }
  for key, value in pairs(shaped.query or {}) do query[key] = value end
  return wire.query(query), { accept = "application/json", ["content-type"] = shaped.content_type }
end

local function signed_query(call, shaped, url, keys)
  local headers = headers_of(call, shaped, url.host, keys)
  local query, digest = sign.sign { method = shaped.method, path = shaped.path, query = shaped.query, headers = headers, body = shaped.body,
    key_id = keys.access_key_id, key_secret = keys.access_key_secret }
  headers.host = nil
  return query, headers, digest
end

-- A new date, nonce and signature for every attempt. What is left of the call's time ends the attempt, too.
local function request_of(call, shaped, url, credentials, deadline)
  local query, headers, digest
  if call.anonymous then
    query, headers = anonymous_query(call, shaped)
  else
    query, headers, digest = signed_query(call, shaped, url, credentials:get())
  end
  return {
    method = shaped.method, headers = headers, body = shaped.body, connect_timeout = CONNECT_SECONDS,
    timeout = math.max(0.001, math.min(READ_SECONDS, deadline - task.now())),
    url = url.scheme .. "://" .. url.host .. shaped.path .. (query ~= "" and "?" .. query or ""),
  }, digest
end

local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }

local function seconds_of_date(date)
  local day, month, year, time = (date or ""):match("(%d%d) (%a%a%a) (%d%d%d%d) (%d%d:%d%d:%d%d)")
  if not months[month] then return nil end
  return wire.parse_time(("%s-%02d-%sT%sZ"):format(year, months[month], day, time))
end

-- Refusals that are worth one more try at once: a clock that is off, a nonce that was seen before, keys that went stale.
local cures = {}

cures["InvalidTimeStamp.Expired"] = function(reply)
  local server = seconds_of_date(reply.headers:get "date" or nil)
  if not server then return false end
  clock_offset = server - task.now()
  return true
end

cures["SignatureNonceUsed"] = function() return true end

local function renew(_, credentials) return credentials:expire() end
cures["InvalidSecurityToken.Expired"], cures["InvalidSecurityToken.Malformed"] = renew, renew
cures["InvalidSecurityToken.MismatchWithAccessKey"], cures["MissingSecurityToken"] = renew, renew

local function cure(err, reply, run)
  local remedy = cures[err.code]
  if not remedy or run.cured[err.code] then return end
  run.cured[err.code] = true
  if remedy(reply, run.credentials) then err.retryable = true end
end

local function region_hint(run)
  return ("is there a region '%s' with %s? else name the endpoint"):format(run.url.region, run.call.product:upper())
end

-- A name that is not known twice in a row will not be known the third time either.
local function unreachable(run, err)
  local unknown_host = err.kind == "denied" or tostring(err.message):find("name is not known", 1, true) ~= nil
  run.unknown = unknown_host and (run.unknown or 0) + 1 or 0
  local failed = errors.rephrase(err, ("%s: %s"):format(answers.about(run.call), err.message), { operation = run.call.action,
    object = run.call.object, uncertain = err.sent ~= false or nil,
    hint = err.hint or unknown_host and not run.url.given and region_hint(run) or nil })
  if run.unknown > 1 then failed.retryable = false end
  return failed
end

-- The server tells what it signed: when that is what we signed, the secret differs; else the request was changed on its way.
local function signature_hint(err, digest)
  local theirs = err.message:match("ACS3%-HMAC%-SHA256%s+(%x+)")
  if not theirs or not digest then return nil end
  if theirs == digest then return "the server signed the same request: the access key's secret is wrong" end
  return "the server saw another request than was sent: a proxy or gateway changed it (host, path, query, headers or body)"
end

-- Others of this program wait for the same product, and the call's time will be over before its turn comes.
local function no_turn(run)
  local err = run.refusal or errors.new("throttled", ("%s: %s is throttled, and this call's time is over before its turn"):format(
    answers.about(run.call), run.call.product:upper()), { operation = run.call.action, object = run.call.object })
  err.retryable = false
  return err
end

local function attempt(run)
  if not throttle.enter(run.bucket, run.deadline) then return nil, no_turn(run) end
  local request, digest = request_of(run.call, run.shaped, run.url, run.credentials, run.deadline)
  local reply, err = run.client:request(request)
  if not reply then return nil, unreachable(run, err) end
  if reply.status < 300 then
    throttle.passed(run.bucket)
    run.reply = reply
    return answers.success(run.call, reply)
  end
  local failed = answers.failure(run.call, reply, run.target)
  if failed.kind == "throttled" then
    throttle.refused(run.bucket, failed.retry_after)
    run.refusal = failed
  end
  if failed.code == "SignatureDoesNotMatch" then failed.hint = signature_hint(failed, digest) or failed.hint end
  cure(failed, reply, run)
  return nil, failed
end

-- All that stays the same from one attempt to the next.
local function prepare(call)
  spec.check("cloud.call", call, call_rules)
  shape.version(call)
  local now = target.current()
  local url = shape.url(call, now)
  return { call = call, target = now, url = url, shaped = shape.request(call, url.region), cured = {},
    deadline = task.now() + (call.timeout or TOTAL_SECONDS), bucket = call.product .. "@" .. url.host,
    client = target.http { max_connections = CONNECTIONS }, credentials = call.credentials or now.credentials }
end

---Calls an operation of any OpenAPI product and returns its decoded answer.
---@param call eirun.CloudCall
---@return table answer numbers intact
---@return eirun.core.http.Answer reply as it came
---Example:
---```lua
---local pools = cloud.call { product = "cs", action = "DescribeClusterNodePools", params = { ClusterId = id } }.nodepools
---```
---Raises an error that names operation, object, code, the server's words, the request id and, where known, the next step.
---`uncertain` is set on it when the server may have done what was asked.
function M.call(call)
  local run = prepare(call)
  local policy = { idempotent = shape.is_idempotent(call, run.shaped), attempts = call.attempts, deadline = run.deadline }
  local answer = errors.check(http.retry(policy, function() return attempt(run) end))
  return answer, run.reply
end

---All pages of a call as one answer, whether its product counts pages, hands out tokens or names offsets.
---@param call eirun.CloudCall
---@return table answer lists joined; of everything else the last page's word
---Example: `cloud.all { product = "ecs", action = "DescribeInstances", query = { RegionId = region } }.Instances.Instance`.
---Raises as `cloud.call`.
function M.all(call)
  local given = call.query or {}
  local size = (given.PageSize or given.MaxResults) and {} or products.page_size(call.product, call.action)
  return paging.all(function(page)
    local one, query = {}, {}
    for key, value in pairs(call) do one[key] = value end
    for _, part in ipairs { size, given, page } do
      for key, value in pairs(part) do query[key] = value end
    end
    one.query = query
    return (M.call(one))
  end)
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

---Asked against observed billing of a node pool: the rule, four independent counts with zones, and why they differ.
---@param pool eirun.NodePool
---@param opts? {k8s?: table, tolerance?: number} with `k8s`, Ready nodes are counted too; tolerance: instances, default 1
---@return eirun.Ratio
---Example: `if not cloud.ratio(pool).kept then step.note "the pool drifted" end`. Raises what the calls raise.
function M.ratio(pool, opts)
  return require("eirun.ack.ratio").of(pool, opts)
end

---What one instance costs an hour, asked at most every ten minutes; `at` tells when.
---@param instance_type string
---@param zone string
---@param kind "spot"|"on-demand"
---@return eirun.Price
---Example: `cloud.price("ecs.gn6i-c4g1.xlarge", "cn-hangzhou-h", "spot").hour`.
---Raises "not_found" where no price is known, and what the calls raise.
function M.price(instance_type, zone, kind)
  return require("eirun.price").hour(instance_type, zone, kind)
end

return M
