-- SPDX-License-Identifier: Apache-2.0
-- A control plane without sockets, files or clock: requests are tables, time moves by `advance`.
local json = require "eirun.core.json"
local faults = require "sandbox.faults"
local kube = require "sandbox.kube"
local lag = require "eirun.lag"
local rng = require "sandbox.rng"
local t = require "eirun.test"
local tables = require "sandbox.kube.tables"
local task = require "eirun.task"

local M = {}

local START = 1767600000 -- 2026-01-05T08:00:00Z

local function memory_store()
  local kinds = {}
  local base = {}
  local function of(kind)
    kinds[kind] = kinds[kind] or {}
    return kinds[kind]
  end
  function base:get(kind, key) return of(kind)[key] end
  function base:put(kind, key, v) of(kind)[key] = v end
  function base:delete(kind, key) of(kind)[key] = nil end
  function base:tx(fn) return fn() end
  function base:each(kind)
    local keys, i = {}, 0
    for key in pairs(of(kind)) do keys[#keys + 1] = key end
    table.sort(keys)
    return function()
      i = i + 1
      return keys[i], of(kind)[keys[i]]
    end
  end
  return base
end

-- As the server's: pairs, found by name whatever its case.
local function headers_of(map, more)
  local list = {}
  for name, v in pairs(map) do list[#list + 1] = { name, v } end
  for _, pair in ipairs(more or {}) do list[#list + 1] = pair end
  function list:list(name)
    local found = {}
    for _, pair in ipairs(self) do
      if pair[1]:lower() == name:lower() then found[#found + 1] = pair[2] end
    end
    return found
  end
  function list:get(name) return self:list(name)[1] end
  return list
end

local function decode(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function query_of(text)
  local map = {}
  for key, v in (text or ""):gmatch("([^&=]+)=?([^&]*)") do map[decode(key)] = decode(v) end
  return map
end

local Request = {}
Request.__index = Request

function Request:query() return query_of(self.query_string) end
function Request:body() return self.text end
function Request:closed() return self.gone end

function Request:respond(status, headers, body)
  assert(not self.status, "answered twice")
  self.status, self.answer_headers, self.answer = status, headers, body
end

function Request:start(status) self.status, self.chunks = status, {} end

function Request:write(chunk)
  self.chunks[#self.chunks + 1] = chunk
  return true
end

function Request:finish() self.finished = true end

function Request:abort() self.aborted = true end

local Plane = {}
Plane.__index = Plane

local live -- the same face of a real control plane, where EIRUN_TEST_PLANE names one
if require("eirun.core.os").getenv "EIRUN_TEST_PLANE" then
  live = require "lib_live"
  live.attach(Plane)
end

-- options: external_metrics(req), pod_logs, lag (seconds by name), base (a store to go on with), event_life in seconds
function M.new(options)
  options = options or {}
  if live then return live.new(options) end
  local self = setmetatable({ time = START, problems = {}, users = {} }, Plane)
  local ctx = { options = { event_life = options.event_life }, api_host = "apiserver",
    lag = lag.scaled(1, options.lag), store = options.base or memory_store() }
  self.base = ctx.store
  function ctx.now() return self.time end
  function ctx.rng(name) return rng.stream("1/" .. name) end
  function ctx.log(_, format, ...) self.problems[#self.problems + 1] = format:format(...) end
  function ctx.spawn() end
  function ctx.on() end
  function ctx.service(service) self.service = service end
  function ctx.kube_user(token)
    return token == "admin" and { name = "kubernetes-admin", groups = { "system:masters" } } or self.users[token]
  end
  function ctx.kube_token(user, groups)
    self.users["token-of-" .. user] = { name = user, groups = groups }
    return "token-of-" .. user
  end
  ctx.faults = faults.new(function() end)
  self.faults = ctx.faults
  ctx.external_metrics, ctx.pod_logs, ctx.ca = options.external_metrics, options.pod_logs, { cert_pem = "CA" }
  kube.start(ctx)
  self.kube = ctx.kube
  self:settle()
  return self
end

-- Lets the controllers work until nothing is due at this moment plus their small delays.
function Plane:settle()
  self:advance(5)
end

local function next_due(self, limit)
  local soonest
  for _, m in ipairs(self.kube.managers) do
    local at = m:step()
    if at and at <= limit and (not soonest or at < soonest) then soonest = at end
  end
  return soonest
end

-- Moves time, with everything that comes due on the way.
function Plane:advance(seconds)
  local limit = self.time + seconds
  for _ = 1, 100000 do
    local at = next_due(self, limit)
    if not at then
      self.time = limit
      return
    end
    self.time = math.max(self.time, at)
  end
  error "the controllers never come to rest"
end

-- Lets the controllers work until probe() answers something true, which it gives; false when they never do.
function Plane:until_(probe)
  for _ = 1, 30 do
    local found = probe()
    if found then return found end
    self:breathe()
    self:settle()
  end
  return false
end

-- What probe() answers comes to be `wanted`: at once or when the controllers have worked.
function Plane:becomes(wanted, probe)
  self:until_(function() return (pcall(function() t.eq(probe(), wanted) end)) end)
  t.eq(probe(), wanted)
end

-- The server forgets all versions but the present one.
function Plane:compact() self.kube.store:compact() end

-- The server stops and starts again on what it has stored.
function Plane:restart() return M.new { base = self.base } end

-- options: type (content type), accept, token (false for none), headers (pairs)
function Plane:request(method, target, body, options)
  options = options or {}
  local path, query = target:match("^([^?]*)%??(.*)$")
  if type(body) == "table" then body = json.encode(body) end
  local token = options.token == nil and "admin" or options.token
  return setmetatable({ method = method, path = path, query_string = query, text = body or "",
    headers = headers_of({ ["Content-Type"] = options.type or body and "application/json", Accept = options.accept,
      Authorization = token and "Bearer " .. token or nil, ["User-Agent"] = options.agent }, options.headers) }, Request)
end

-- One request: status, decoded body (or its text), headers.
function Plane:call(method, target, body, options)
  local req = self:request(method, target, body, options)
  self.service.handle(req)
  local headers = {}
  for _, pair in ipairs(req.answer_headers or {}) do
    headers[pair[1]] = headers[pair[1]] and headers[pair[1]] .. "\n" .. pair[2] or pair[2]
  end
  local value = json.decode(req.answer or "")
  return req.status, value == nil and req.answer or value, headers
end

-- A watch in a task of its own: what it has said so far, and its end.
function Plane:watch(target, all)
  local req = self:request("GET", target)
  all(function() self.service.handle(req) end)
  task.sleep(0)
  return { text = function() return table.concat(req.chunks) end, close = function() req.gone = true end, status = req.status }
end

-- Lets what was written reach those who watch.
function Plane:breathe() task.sleep(0) end

function Plane:now() return self.time end

-- The version of the last write.
function Plane:version() return self.kube.store.rv end

-- The body of a call that must succeed.
function Plane:ok(method, target, body, options)
  local status, value = self:call(method, target, body, options)
  if status >= 300 then error(("%s %s: %d %s"):format(method, target, status, json.encode(value)), 2) end
  return value
end

local PATCH = { merge = "application/merge-patch+json", strategic = "application/strategic-merge-patch+json",
  json = "application/json-patch+json", apply = "application/apply-patch+yaml" }

function Plane:patch(kind, target, body)
  return self:call("PATCH", target, body, { type = PATCH[kind] })
end

-- Seconds of a time as the API writes it.
function M.seconds(text)
  return tables.seconds_of(text)
end

-- Status conditions of a node or pod, ready.
function M.ready(kind)
  return json.array { { type = "Ready", status = "True", reason = kind } }
end

-- A node that is ready; more: labels, taints, gpu.
function Plane:node(name, more)
  more = more or {}
  local amounts = { cpu = "4", memory = "15Gi", pods = "64", ["nvidia.com/gpu"] = more.gpu and tostring(more.gpu) or nil }
  self:ok("POST", "/api/v1/nodes", { metadata = { name = name, labels = more.labels }, spec = { taints = more.taints },
    status = { capacity = amounts, allocatable = amounts, conditions = M.ready "KubeletReady" } })
  self:settle()
end

-- What a kubelet would report of a running pod.
function Plane:run_pod(ns, name, ip)
  local pod = self:ok("GET", ("/api/v1/namespaces/%s/pods/%s"):format(ns, name))
  local statuses = json.array {}
  for i, c in ipairs(pod.spec.containers) do
    statuses[i] = { name = c.name, ready = true, restartCount = 0, image = c.image, imageID = "", state = { running = json.decode "{}" } }
  end
  self:patch("strategic", ("/api/v1/namespaces/%s/pods/%s/status"):format(ns, name), { status = { phase = "Running",
    podIP = ip or "10.0.0.1", containerStatuses = statuses, conditions = M.ready "x" } })
end

-- Runs all pods when they have found their nodes.
function Plane:run_all(ns)
  local pods
  self:until_(function()
    pods = self:ok("GET", ("/api/v1/namespaces/%s/pods"):format(ns)).items
    for _, pod in ipairs(pods) do
      if not pod.spec.nodeName and not pod.metadata.deletionTimestamp then return false end
    end
    return true
  end)
  for _, pod in ipairs(pods) do
    if pod.spec.nodeName and not pod.metadata.deletionTimestamp then self:run_pod(ns, pod.metadata.name) end
  end
  self:settle()
end

-- Messages of events with that reason, in the order of their names, each once: a recorder that starts anew makes a second event.
function Plane:events(reason)
  local list, seen = {}, {}
  for _, e in ipairs(self:ok("GET", "/api/v1/events").items) do
    if e.reason == reason and not seen[e.message] then
      list[#list + 1] = e.message
      seen[e.message] = true
    end
  end
  return list
end

-- A Deployment of one container; more goes into its spec.
function M.deployment(name, replicas, more)
  local spec = { replicas = replicas, selector = { matchLabels = { app = name } }, template = { metadata = { labels = { app = name } },
    spec = { containers = json.array { { name = "c", image = "img:1", resources = more and more.resources } },
      nodeSelector = more and more.nodeSelector, tolerations = more and more.tolerations } },
    strategy = more and more.strategy, minReadySeconds = more and more.minReadySeconds }
  return { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = name }, spec = spec }
end

-- Runs fn(plane) on a plane whose external metrics answer(req) gives; options as `new`.
function M.with_metrics(answer, options, fn)
  if live then return live.with_metrics(answer, options, fn) end
  options.external_metrics = answer
  fn(M.new(options))
end

return M
