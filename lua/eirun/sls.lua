-- SPDX-License-Identifier: Apache-2.0
-- Log Service queries: both versions of the call and of the signature, asked again while the answer is incomplete.
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local sign = require "eirun.sls.sign"
local spec = require "eirun.spec"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local kinds = {
  ProjectNotExist = "not_found", LogStoreNotExist = "not_found", IndexConfigNotExist = "not_found", ParameterInvalid = "invalid",
  InvalidTimeRange = "invalid", InvalidQueryString = "invalid", SignatureNotMatch = "denied", Unauthorized = "denied",
  InvalidAccessKeyId = "denied", SecurityTokenExpired = "denied", SecurityTokenInvalid = "denied",
  RequestTimeTooSkewed = "denied", ReadQuotaExceed = "throttled", ServerBusy = "throttled",
}
local hints = {
  ProjectNotExist = "is the cluster's log project made? it is k8s-log-<cluster id>",
  LogStoreNotExist = "is log collection of the ingress controller switched on?",
  IndexConfigNotExist = "make an index on the logstore",
  ReadQuotaExceed = "fewer queries at a time, or more shards",
  Unauthorized = "check the access key; RAM needs log:GetLogStoreLogs on the logstore",
  SignatureNotMatch = "the access key's secret is wrong, or the region is not the project's",
  ParameterInvalid = "is the field indexed? SQL and field searches need an index on it",
  RequestTimeTooSkewed = "set this machine's clock: more than 15 minutes off",
}

local PAGE = 100

local rules = {
  project = { type = "string", required = true, match = "^[%w-]+$", says = "a project's name" },
  logstore = { type = "string", required = true, match = "^[%w_-]+$", says = "a logstore's name" },
  query = { type = "string" }, from = { type = "number", required = true }, to = { type = "number", required = true },
  line = { type = "integer", min = 0, max = PAGE }, offset = { type = "integer", min = 0 }, reverse = { type = "boolean" },
  api = { type = "string", one_of = { v1 = true, v2 = true } }, signature = { type = "string", one_of = { v1 = true, v4 = true } },
  timeout = { type = "number", min = 0 },
}

local function url_of(project)
  local now = target.current()
  local given = (now.endpoints or {}).SLS
  if not given then return { scheme = "https", host = ("%s.%s.log.aliyuncs.com"):format(project, now.region) } end
  local url = http.split_url(http.endpoint_url(given))
  local real_host = url.host:find("^[%d.]+:?%d*$") or url.host:find("^localhost")
  return { scheme = url.scheme, host = real_host and url.host or project .. "." .. url.host,
    project_host = ("%s.%s.log.aliyuncs.com"):format(project, now.region) }
end

local function failure(given, reply)
  local body = json.decode(reply.body or "")
  if type(body) ~= "table" then body = {} end
  local code = body.errorCode
  local kind = kinds[code or ""] or reply.status >= 500 and "internal" or "invalid"
  local what = ("logstore '%s/%s'"):format(given.project, given.logstore)
  return errors.new(kind, ("cannot query %s: %s"):format(what, body.errorMessage or http.excerpt(reply.body)), {
    code = code, status = reply.status, object = what, operation = "GetLogs", hint = hints[code or ""],
    request_id = reply.headers:get "x-log-requestid" or nil, retryable = kind == "throttled" or nil,
  })
end

-- The call in the version that is asked for: GetLogs has its parameters in the query, GetLogsV2 in a JSON body.
local function shaped(given)
  local path = "/logstores/" .. given.logstore
  local facts = { from = given.from // 1 | 0, to = given.to // 1 | 0, query = given.query, line = given.line, offset = given.offset,
    reverse = given.reverse }
  if given.api == "v2" then
    facts.query = facts.query or "*"
    return { method = "POST", path = path .. "/logs", body = json.encode(facts) }
  end
  facts.type = "log"
  return { method = "GET", path = path, query = facts }
end

local function signed(given, url, call)
  local keys = target.current().credentials:get()
  -- The host that is signed is the project's, also where a loopback port stands in for it.
  local headers = { host = url.project_host or url.host, ["x-log-apiversion"] = "0.6.0",
    ["x-log-bodyrawsize"] = tostring(#(call.body or "")), ["content-type"] = call.body and "application/json" or nil }
  local request = { method = call.method, path = call.path, query = call.query, body = call.body, headers = headers, now = task.now(),
    key_id = keys.access_key_id, key_secret = keys.access_key_secret, token = keys.security_token, region = target.current().region }
  if given.signature == "v1" then return sign.v1(request) end
  return sign.v4(request)
end

local function decoded(reply)
  local body, bad = json.decode(reply.body)
  if body == nil then return nil, errors.new("internal", "the answer of the log service is not JSON: " .. bad.message) end
  if json.is_array(body) then return { rows = body, complete = reply.headers:get "x-log-progress" ~= "Incomplete" } end
  return { rows = body.data or json.array {}, complete = (body.meta or {}).progress ~= "Incomplete" }
end

local function attempt(given, url, call)
  local headers, list = signed(given, url, call), {}
  for _, name in ipairs(wire.sorted_keys(headers)) do
    if name ~= "host" or url.project_host then list[#list + 1] = { name, headers[name] } end
  end
  local query = call.query and "?" .. wire.query(call.query) or ""
  local reply, err = target.http():request { method = call.method, headers = list, body = call.body, timeout = 60, connect_timeout = 10,
    url = ("%s://%s%s%s"):format(url.scheme, url.host, call.path, query) }
  if not reply then
    return nil, errors.rephrase(err, ("cannot query logstore '%s/%s': %s"):format(given.project, given.logstore, err.message))
  end
  if reply.status ~= 200 then return nil, failure(given, reply) end
  return decoded(reply)
end

---Runs a query, `search` or `search | SQL`. An answer that the service calls incomplete is asked for again, with growing pauses.
---@param given {project: string, logstore: string, query?: string, from: number, to: number, line?: integer, offset?: integer,
--- reverse?: boolean, api?: "v1"|"v2", signature?: "v1"|"v4", timeout?: number}
--- without api GetLogs (v1), without signature V4; line and offset are of a search without SQL, 100 rows at most
---@return table<string, string>[] rows all values are strings
---@return boolean complete false when the service never finished in time
---Example:
---```lua
---local rows = sls.query { project = "k8s-log-c0123", logstore = "nginx-ingress", from = now - 60, to = now, query = "*" }
---```
---Raises "not_found" for an unknown project or logstore, "invalid" for a query that is none, "throttled" over the quota.
function M.query(given)
  spec.check("sls.query", given, rules)
  local url, call = url_of(given.project), shaped(given)
  local policy = { idempotent = true, deadline = task.now() + (given.timeout or 60), base = 0.5 }
  local pause, result = 0.1, nil
  for _ = 1, 20 do
    result = errors.check(http.retry(policy, function() return attempt(given, url, call) end))
    if result.complete or task.now() + pause > policy.deadline then break end
    task.sleep(pause)
    pause = math.min(pause * 2, 10)
  end
  return result.rows, result.complete
end

-- Is there SQL behind the search? A bar within quotes belongs to the search.
local function has_sql(query)
  return query ~= nil and query:gsub('"[^"]*"', ""):find("|", 1, true) ~= nil
end

---All rows of a search, page by page. A query with SQL is one page: its LIMIT says how many rows there are, 100 without.
---@param given table as for `sls.query`; `limit` ends it after so many rows
---@return table<string, string>[] rows
---@return boolean complete
---Example: `sls.all { project = p, logstore = "nginx-ingress", from = now - 3600, to = now, query = "status: 500" }`.
---Raises as `sls.query`.
function M.all(given)
  local one, limit = {}, given.limit or math.huge
  for key, value in pairs(given) do one[key] = value end
  one.limit = nil
  if has_sql(given.query) then return M.query(one) end
  local rows, whole = json.array {}, true
  while #rows < limit do
    one.offset, one.line = (given.offset or 0) + #rows, math.min(PAGE, limit - #rows) // 1 | 0
    local page, complete = M.query(one)
    table.move(page, 1, #page, #rows + 1, rows)
    whole = whole and complete
    if #page < one.line then break end
  end
  return rows, whole
end

---Traffic of one ingress route over the last seconds.
---@param selector table<string, string> as `cluster:ingress_log` gives it
---@param seconds? integer default 60
---@param delay? integer how far the window ends before now, default 10: logs need a moment to arrive
---@return {qps: number, p95: number|nil, error_rate: number|nil} p95 in seconds, nil without requests
---Example: `sls.traffic(cluster:ingress_log(app, 8501)).qps`. Raises as `sls.query`.
function M.traffic(selector, seconds, delay)
  seconds, delay = seconds or 60, delay or 10
  local to = task.now() // 1 - delay | 0
  local rows = M.query {
    project = selector["sls.project"], logstore = selector["sls.logstore"], from = to - seconds, to = to,
    query = ("* and proxy_upstream_name: \"%s\" | SELECT count(1)*1.0/%d as qps, approx_percentile(request_time,0.95)*1000 as p95, " ..
      "sum(case when status >= 500 then 1 else 0 end)*1.0/count(1) as err WHERE __time__ >= %d and __time__ < %d"):format(
      selector["sls.ingress.route"], seconds, to - seconds, to),
  }
  local row = rows[1] or {}
  local qps = tonumber(row.qps) or 0
  local p95 = qps > 0 and tonumber(row.p95)
  return { qps = qps, p95 = p95 and p95 / 1000 or nil, error_rate = qps > 0 and tonumber(row.err) or nil }
end

return M
