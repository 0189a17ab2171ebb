-- SPDX-License-Identifier: Apache-2.0
-- The log service: projects and logstores, fed by what arrives at the ingress, asked by GetLogs in both versions.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local encoding = require "sandbox.encoding"
local hosts = require "sandbox.hosts"
local logs = require "sandbox.sls.logs"
local policy = require "sandbox.cloud.policy"
local query = require "sandbox.sls.query"
local signature = require "sandbox.sls.signature"
local times = require "sandbox.times"

local sls = {}

local tolerance, largest_body, flush_after = 15 * 60, 8 << 20, 5

local function raise(status, code, message) error({ status = status, code = code, message = message, sls = true }, 0) end

local function check_time(ctx, text)
  local at = times.parse(text or "")
  if not at then raise(400, "MissingDate", "date is missing or badly formed") end
  if math.abs(ctx.now() - at) > tolerance then
    raise(400, "RequestTimeTooSkewed", ("Request time exceeds server time more than 15 minutes, server time: %d"):format(ctx.now() // 1))
  end
end

local function header_names(headers)
  local names, seen = {}, {}
  for _, pair in ipairs(headers) do
    local name = pair[1]:lower()
    if not seen[name] then names[#names + 1], seen[name] = name, true end
  end
  return names
end

local function check_key(ctx, id, token)
  local record = ctx.credentials.lookup(id)
  if not record then raise(401, "Unauthorized", "AccessKeyId not found: " .. id) end
  if record.token then
    if token ~= record.token then raise(401, "SecurityTokenInvalid", "The security token is invalid.") end
    if record.expires <= ctx.now() then raise(401, "SecurityTokenExpired", "The security token has expired.") end
  end
  return record
end

local function expected_signature(call, parsed, record)
  if parsed.version == 1 then return signature.v1(record.secret, signature.v1_string(call.signed)) end
  local sha = crypto.hex(crypto.sha256(call.body))
  if call.signed.header "x-log-content-sha256" ~= sha then raise(400, "InvalidBody", "x-log-content-sha256 does not fit the body") end
  return signature.v4(record.secret, parsed.scope,
    signature.v4_string(call.signed.header "x-log-date", parsed.scope, signature.v4_canonical(call.signed)))
end

local function identify(ctx, call)
  local headers = call.req.headers
  local parsed = signature.parse(headers:get "authorization" or "")
  if not parsed then raise(401, "Unauthorized", "no or unknown authorization header") end
  check_time(ctx, parsed.version == 4 and headers:get "x-log-date" or headers:get "date" or headers:get "x-log-date")
  local record = check_key(ctx, parsed.id, headers:get "x-acs-security-token")
  if expected_signature(call, parsed, record) ~= parsed.signature then
    raise(401, "SignatureNotMatch", ("signature %s not match"):format(parsed.signature))
  end
  local md5 = headers:get "content-md5"
  if md5 and md5 ~= crypto.hex(crypto.md5(call.body)):upper() then raise(400, "InvalidBody", "Content-MD5 does not fit the body") end
  return record
end

local function project_of(ctx, req)
  local host = hosts.bare(req.headers:get "host") or ""
  local name = host:match "^([^.]+)%.[^.]+%.log%.aliyuncs%.com$" or host:match "^([^.]+)%.log%-global%.aliyuncs%.com$"
  if name then return name end
  if host:find "%.log%.aliyuncs%.com$" or host:find "^%d+%.%d+%.%d+%.%d+$" or host == "localhost" then return nil end
  return host:match "^([^.]+)%."
end

local function need_store(ctx, call, name)
  if not ctx.store:get("sls_project", call.project or "") then
    raise(404, "ProjectNotExist", ("The Project does not exist : %s"):format(call.project or ""))
  end
  local record = ctx.store:get("sls_logstore", call.project .. "/" .. name)
  if not record then raise(404, "LogStoreNotExist", ("logstore %s does not exist"):format(name)) end
  return record
end

local function integer(value, name, default)
  if value == nil or value == "" then return default end
  local number = math.tointeger(tonumber(value))
  return number or raise(400, "ParameterInvalid", name .. " is not a number")
end

local function ask(ctx, call, name, params)
  local store = need_store(ctx, call, name)
  local from, to = integer(params.from, "from"), integer(params.to, "to")
  if not from or not to then raise(400, "ParameterInvalid", "from and to are required") end
  if from >= to then raise(400, "InvalidTimeRange", "request time range is invalid") end
  return sls.get_logs(ctx, call.project, store.name, { from = from, to = to, query = params.query or "",
    line = integer(params.line, "line", 100), offset = integer(params.offset, "offset", 0),
    reverse = params.reverse == true or params.reverse == "true" })
end

-- { rows, columns, processed, has_sql } of one query; raises { code, message }. The metrics adapter calls it too.
function sls.get_logs(ctx, project, name, options)
  if not ctx.store:get("sls_project", project) then raise(404, "ProjectNotExist", "The Project does not exist : " .. tostring(project)) end
  local store = ctx.store:get("sls_logstore", project .. "/" .. tostring(name))
  if not store then raise(404, "LogStoreNotExist", ("logstore %s does not exist"):format(tostring(name))) end
  if not store.index then raise(400, "IndexConfigNotExist", ("logstore %s has no index"):format(name)) end
  return query.run(ctx.access_logs, project .. "/" .. name, store.index, options, ctx.now() - ctx.lag.log_collect)
end

local handlers = {}

local function meta_of(result)
  return { progress = "Complete", count = #result.rows, processedRows = result.processed, elapsedMillisecond = 1,
    hasSQL = result.has_sql, isAccurate = true, aggQuery = result.sql or "", whereQuery = result.search, cpuSec = 0.0, cpuCores = 0.0,
    keys = json.array(table.move(result.columns, 1, #result.columns, 1, {})), terms = json.array {}, mode = 0, processedBytes = 0,
    limited = 0, phraseQueryInfo = json.null, shard = 0, scanBytes = 0, isPhraseQuery = nil }
end

local function histogram(ctx, call, name, params)
  local store = need_store(ctx, call, name)
  local from, to = integer(params.from, "from", 0), integer(params.to, "to", 0)
  if from >= to then raise(400, "InvalidTimeRange", "request time range is invalid") end
  return json.array(query.histogram(ctx.access_logs, call.project .. "/" .. name, store.index or {}, { from = from, to = to,
    query = params.query or "" }, ctx.now() - ctx.lag.log_collect))
end

function handlers.get_logs(ctx, call, name)
  local params = encoding.map_of(call.query)
  if params.type == "histogram" then return histogram(ctx, call, name, params) end
  if params.type ~= "log" then raise(400, "ParameterInvalid", "type must be log or histogram") end
  local result = ask(ctx, call, name, params)
  return json.array(result.rows), { ["x-log-progress"] = "Complete", ["x-log-count"] = tostring(#result.rows),
    ["x-log-processed-rows"] = tostring(result.processed), ["x-log-elapsed-millisecond"] = "1",
    ["x-log-has-sql"] = tostring(result.has_sql), ["x-log-query-info"] = json.encode { keys = json.array(result.columns) } }
end

function handlers.get_logs_v2(ctx, call, name)
  local params = json.decode(call.body)
  if type(params) ~= "table" then raise(400, "PostBodyInvalid", "the body is not JSON") end
  local result = ask(ctx, call, name, params)
  return { meta = meta_of(result), data = json.array(result.rows) }
end

function handlers.list_stores(ctx, call)
  local names = json.array {}
  if not ctx.store:get("sls_project", call.project or "") then raise(404, "ProjectNotExist", "The Project does not exist") end
  for _, record in ctx.store:each "sls_logstore" do
    if record.project == call.project then names[#names + 1] = record.name end
  end
  return { count = #names, total = #names, logstores = names }
end

function handlers.create_store(ctx, call)
  local body = json.decode(call.body) or {}
  local name = body.logstoreName
  if type(name) ~= "string" or not name:find "^[%l%d][%l%d_%-]+$" then raise(400, "ParameterInvalid", "invalid logstore name") end
  if not ctx.store:get("sls_project", call.project or "") then raise(404, "ProjectNotExist", "The Project does not exist") end
  local key = call.project .. "/" .. name
  if ctx.store:get("sls_logstore", key) then raise(400, "LogStoreAlreadyExist", ("logstore %s already exists"):format(name)) end
  ctx.store:put("sls_logstore", key, { project = call.project, name = name, ttl = body.ttl or 30, created = ctx.now() })
  return nil
end

function handlers.get_store(ctx, call, name)
  local record = need_store(ctx, call, name)
  return { logstoreName = name, ttl = record.ttl, shardCount = 2, createTime = record.created // 1, lastModifyTime = record.created // 1,
    enable_tracking = false, autoSplit = false, maxSplitShard = 64 }
end

function handlers.get_index(ctx, call, name)
  local record, keys = need_store(ctx, call, name), {}
  if not record.index then raise(404, "IndexConfigNotExist", "index config doesn't exist") end
  for field, kind in pairs(record.index) do keys[field] = { type = kind, doc_value = true } end
  return { keys = keys, ttl = record.ttl, max_text_len = 2048 }
end

function handlers.get_project(ctx, call)
  local record = ctx.store:get("sls_project", call.project or "")
  if not record then raise(404, "ProjectNotExist", ("The Project does not exist : %s"):format(call.project or "")) end
  return { projectName = call.project, status = "Normal", region = ctx.region, owner = ctx.account, description = "" }
end

local routes = {
  { "GET", "^/logstores/([^/]+)$", "get_logs", "log:GetLogStoreLogs", only_with_type = true },
  { "GET", "^/logstores/([^/]+)$", "get_store", "log:GetLogStore" },
  { "POST", "^/logstores/([^/]+)/logs$", "get_logs_v2", "log:GetLogStoreLogs" },
  { "GET", "^/logstores/([^/]+)/index$", "get_index", "log:GetIndex" },
  { "GET", "^/logstores$", "list_stores", "log:ListLogStores" },
  { "POST", "^/logstores$", "create_store", "log:CreateLogStore" },
  { "GET", "^/$", "get_project", "log:GetProject" },
}

local function find_route(req)
  local has_type = (req.query_string or ""):find("type=", 1, true)
  for _, route in ipairs(routes) do
    local name = req.path:match(route[2])
    if name and route[1] == req.method and (not route.only_with_type or has_type) then return route, encoding.decode(name) end
  end
  raise(404, "InvalidRequestUri", "unknown request path")
end

local function read_call(ctx, req)
  local body = req:body(largest_body) or raise(400, "PostBodyTooLarge", "the body is too large")
  local headers = req.headers
  local call = { req = req, body = body, query = encoding.pairs_of(req.query_string, true), project = project_of(ctx, req) }
  call.signed = { method = req.method, path = req.path, query = call.query, names = header_names(headers),
    header = function(name) return headers:get(name) end }
  return call
end

local function act(ctx, req, fault)
  local call = read_call(ctx, req)
  local route, name = find_route(req)
  local record = identify(ctx, call)
  if not policy.allows(record.policies, route[4], "*") or (fault and fault.kind == "permission_lost") then
    raise(401, "Unauthorized", "denied by sts or ram, action: " .. route[4])
  end
  if fault and fault.kind == "throttle" then raise(403, "ReadQuotaExceed", "read quota exceed") end
  if fault and fault.kind == "error" then
    raise(fault.status or 500, fault.code or "InternalServerError", fault.message or "internal error")
  end
  return handlers[route[3]](ctx, call, name)
end

local function trace(err)
  return type(err) == "string" and debug.traceback(err, 2) or err
end

local function reply(ctx, req, fault)
  local id = ctx.request_id():gsub("-", ""):sub(1, 24)
  local headers = { ["Content-Type"] = "application/json", ["x-log-requestid"] = id, ["Server"] = "AliyunSLS",
    ["Date"] = times.http(ctx.now()) }
  local ok, body, extra = xpcall(act, trace, ctx, req, fault)
  if ok then
    for name, value in pairs(extra or {}) do headers[name] = value end
    return 200, headers, body == nil and "" or assert(json.encode(body))
  end
  local err = body
  if type(err) ~= "table" or not err.code then
    if type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
    ctx.log("error", "SLS %s [%s]: %s", req.path, id, tostring(err))
    err = { status = 500, code = "InternalServerError", message = "internal server error" }
  end
  return err.status or 400, headers, assert(json.encode { errorCode = err.code, errorMessage = err.message })
end

local numbers = { request_time = "double", upstream_response_time = "double", status = "long", body_bytes_sent = "long",
  request_length = "long", upstream_response_length = "long" }
local texts = { "client_ip", "x_forward_for", "remote_user", "time", "method", "url", "version", "http_referer", "http_user_agent",
  "proxy_upstream_name", "upstream_addr", "upstream_status", "req_id", "host", "proxy_alternative_upstream_name" }

local function ingress_index()
  local index = {}
  for name, kind in pairs(numbers) do index[name] = kind end
  for _, name in ipairs(texts) do index[name] = "text" end
  return index
end

-- The project comes with the collector, as on ACK: a cluster that starts without one has no log of its ingress.
local function fill(ctx)
  if ctx.addon_active and not ctx.addon_active "logtail-ds" then return end
  if ctx.store:get("sls_project", ctx.log_project) then return end
  ctx.store:tx(function()
    ctx.store:put("sls_project", ctx.log_project, { name = ctx.log_project, created = ctx.now() })
    ctx.store:put("sls_logstore", ctx.log_project .. "/nginx-ingress", { project = ctx.log_project, name = "nginx-ingress", ttl = 30,
      created = ctx.now(), index = ingress_index() })
  end)
end

-- Collected only while the cluster has a collector and the project exists, as on ACK.
local function collect(ctx, fields)
  if ctx.addon_active and not ctx.addon_active "logtail-ds" then return end
  local key = ctx.log_project .. "/nginx-ingress"
  if not ctx.store:get("sls_logstore", key) then return end
  fields.at = nil -- the ingress's own stamp; ours follows
  ctx.access_logs:append(key, fields, ctx.now())
end

local function keep_flushing(ctx, wake)
  while true do
    wake:wait()
    wake:clear()
    task.sleep(flush_after)
    ctx.access_logs:flush()
  end
end

function sls.start(ctx)
  local wake = task.event()
  ctx.access_logs = logs.open(ctx.dir .. "/sls.db", wake)
  fill(ctx)
  ctx.on("addons.changed", function() fill(ctx) end)
  ctx.on("ingress.access", function(fields) collect(ctx, fields) end)
  ctx.spawn("sls flush", function() keep_flushing(ctx, wake) end)
  ctx.service { name = "SLS", env = "SLS", hosts = { ("*.%s.log.aliyuncs.com"):format(ctx.region),
    ("*.%s-intranet.log.aliyuncs.com"):format(ctx.region), ("%s.log.aliyuncs.com"):format(ctx.region), "*.log-global.aliyuncs.com" },
    handle = function(req)
      ctx.faults:around(req, "SLS", req.method == "GET" and "GetLogs" or "PostLogs", function(fault) return reply(ctx, req, fault) end)
    end }
  require("sandbox.metrics_adapter").start(ctx)
end

return sls
