-- SPDX-License-Identifier: Apache-2.0
-- Log Service queries: signed V4, asked again while the answer is incomplete.
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
  InvalidAccessKeyId = "denied", RequestTimeTooSkewed = "denied", ReadQuotaExceed = "throttled", ServerBusy = "throttled",
}
local hints = {
  ProjectNotExist = "is the cluster's log project made? it is k8s-log-<cluster id>",
  LogStoreNotExist = "is log collection of the ingress controller switched on?",
  IndexConfigNotExist = "make an index on the logstore",
  RequestTimeTooSkewed = "set this machine's clock: more than 15 minutes off",
}

local rules = {
  project = { type = "string", required = true }, logstore = { type = "string", required = true },
  query = { type = "string" }, from = { type = "number", required = true }, to = { type = "number", required = true },
  line = { type = "integer", min = 0, max = 100 }, offset = { type = "integer", min = 0 }, reverse = { type = "boolean" },
  version = { type = "string", one_of = { v1 = true, v4 = true } }, timeout = { type = "number", min = 0 },
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

local function signed(given, url, query)
  local keys = target.current().credentials:get()
  -- The host that is signed is the project's, also where a loopback port stands in for it.
  local headers = { host = url.project_host or url.host, ["x-log-apiversion"] = "0.6.0", ["x-log-bodyrawsize"] = "0" }
  local request = { method = "GET", path = "/logstores/" .. given.logstore, query = query, headers = headers, now = task.now(),
    key_id = keys.access_key_id, key_secret = keys.access_key_secret, token = keys.security_token, region = target.current().region }
  if given.version == "v1" then return sign.v1(request) end
  return sign.v4(request)
end

local function attempt(given, url, query)
  local headers, list = signed(given, url, query), {}
  for _, name in ipairs(wire.sorted_keys(headers)) do
    if name ~= "host" or url.project_host then list[#list + 1] = { name, headers[name] } end
  end
  local reply, err = target.http():request { method = "GET", headers = list, timeout = 60, connect_timeout = 10,
    url = ("%s://%s/logstores/%s?%s"):format(url.scheme, url.host, given.logstore, wire.query(query)) }
  if not reply then return nil, err end
  if reply.status ~= 200 then return nil, failure(given, reply) end
  local rows, bad = json.decode(reply.body)
  if rows == nil then return nil, errors.new("internal", "the answer of the log service is not JSON: " .. bad.message) end
  return { rows = rows, complete = reply.headers:get "x-log-progress" ~= "Incomplete" }
end

---Runs a query, `search` or `search | SQL`.
---@param given {project: string, logstore: string, query?: string, from: number, to: number, line?: integer, offset?: integer,
--- reverse?: boolean, version?: "v1"|"v4", timeout?: number}
---@return table<string, string>[] rows all values are strings
---@return boolean complete false when the service never finished in time
---Example:
---```lua
---local rows = sls.query { project = "k8s-log-c0123", logstore = "nginx-ingress", from = now - 60, to = now, query = "*" }
---```
---Raises "not_found" for an unknown project or logstore, "invalid" for a query that is none, "throttled" over the quota.
function M.query(given)
  spec.check("sls.query", given, rules)
  local url = url_of(given.project)
  local query = { type = "log", from = given.from // 1 | 0, to = given.to // 1 | 0, query = given.query, line = given.line,
    offset = given.offset, reverse = given.reverse }
  local policy = { idempotent = true, deadline = task.now() + (given.timeout or 60), base = 0.5 }
  local pause, result = 0.1, nil
  for _ = 1, 20 do
    result = errors.check(http.retry(policy, function() return attempt(given, url, query) end))
    if result.complete or task.now() + pause > policy.deadline then break end
    task.sleep(pause)
    pause = math.min(pause * 2, 10)
  end
  return result.rows, result.complete
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
