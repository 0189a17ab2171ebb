-- SPDX-License-Identifier: Apache-2.0
-- A real control plane behind the face of lib_kube, so that the emulator's tests judge it by the same words. Each test has a
-- namespace of its own, which it knows as "default"; what needs the emulator's inside or its clock is left out.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local getenv = require("eirun.core.os").getenv
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local t = require "eirun.test"
local task = require "eirun.task"

local M = {}

local QUIET, PATIENCE = 0.6, 5 -- seconds without a change, and until it must come
local LONGEST = 25 -- seconds that a test may let pass for real
local inside = { kube = true, faults = true, service = true, problems = true, base = true }

local where -- { server, token, ca }
local previous -- the namespace of the test before

local function settings()
  where = where or assert(json.decode(assert(fs.read(getenv "EIRUN_TEST_PLANE"))))
  return where
end

-- Headers as the emulator's tests name them: Retry-After, whatever the wire's case.
local function canonical(name)
  return (name:lower():gsub("%f[%a]%a", string.upper))
end

function M.attach(Plane)
  local Live = setmetatable({}, { __index = Plane })

  local function field(self, key)
    if inside[key] then t.leave("needs the emulator's own " .. key) end
    return Live[key]
  end

  local function out(self, text) return (text:gsub(self.ns, "default")) end

  local function into(self, target)
    target = target:gsub("/namespaces/default/", "/namespaces/" .. self.ns .. "/"):gsub("namespace%%3Ddefault", "namespace%%3D" .. self.ns)
    return (target:gsub("^/api/v1/events", "/api/v1/namespaces/" .. self.ns .. "/events"))
  end

  local function headers_of(self, body, options)
    local token = options.token
    local list = { { "User-Agent", options.agent or "unknown" }, { "Accept", options.accept or "application/json" } }
    local content_type = options.type or body and "application/json"
    if content_type then list[#list + 1] = { "Content-Type", content_type } end
    if token and self.users[token] then
      list[#list + 1] = { "Impersonate-User", self.users[token].name }
      token = nil
    end
    if token ~= false then list[#list + 1] = { "Authorization", "Bearer " .. (token or settings().token) } end
    return list
  end

  local function given(self, method, target, body, options)
    if type(body) == "table" then body = json.encode(body) end
    return { method = method, url = settings().server .. into(self, target), headers = headers_of(self, body, options or {}), body = body,
      timeout = 60 }
  end

  function Live:call(method, target, body, options)
    local reply, err = self.http:request(given(self, method, target, body, options))
    if not reply then error(err, 0) end
    local headers = {}
    for _, pair in ipairs(reply.headers) do
      local name = canonical(pair[1])
      headers[name] = headers[name] and headers[name] .. "\n" .. pair[2] or pair[2]
    end
    local text = out(self, reply.body or "")
    local value = json.decode(text)
    return reply.status, value == nil and text or value, headers
  end

  -- What a watch has said so far.
  function Live:watch(target, all)
    local seen = {}
    local stream = assert(self.http:open(given(self, "GET", target)))
    all(function()
      while true do
        local fine, chunk = pcall(stream.read, stream) -- closed while it reads
        if not fine or not chunk then return end
        seen[#seen + 1] = out(self, chunk)
      end
    end)
    return { text = function() return table.concat(seen) end, close = function() stream:close() end, status = stream.status }
  end

  function Live:breathe() task.sleep(0.4) end

  function Live:version()
    return math.tointeger(self:ok("GET", "/api/v1/namespaces?limit=1").metadata.resourceVersion)
  end

  -- Until nothing has been written for a moment.
  function Live:settle()
    local last, since, limit = nil, task.now(), task.now() + PATIENCE
    repeat
      local now = self:version()
      if now ~= last then last, since = now, task.now() end
      task.sleep(0.1)
    until task.now() - since > QUIET or task.now() > limit
  end

  function Live:until_(probe)
    local limit = task.now() + LONGEST
    while task.now() < limit do
      local found = probe()
      if found then return found end
      task.sleep(0.2)
    end
    return false
  end

  function Live.needs(_, seconds)
    if seconds > LONGEST then t.leave(("needs %d seconds to pass"):format(seconds)) end
  end

  function Live:advance(seconds)
    self.passed = (self.passed or 0) + seconds
    self:needs(self.passed)
    task.sleep(seconds)
    self:settle()
  end

  local COLLECTIONS = { "/apis/batch/v1/%scronjobs", "/apis/batch/v1/%sjobs", "/apis/apps/v1/%sdeployments", "/apis/apps/v1/%sstatefulsets",
    "/apis/apps/v1/%sdaemonsets", "/apis/apps/v1/%sreplicasets", "/api/v1/%spods" }

  -- Nothing of the test before may take the nodes of the next.
  local function tidy(self, namespace)
    local ns = "namespaces/" .. namespace .. "/"
    for _ = 1, 20 do
      local left = 0
      for _, path in ipairs(COLLECTIONS) do
        local grace = path:find "pods$" and 0 or nil
        left = left + #self:ok("GET", path:format(ns)).items
        self:call("DELETE", path:format(ns), { propagationPolicy = "Background", gracePeriodSeconds = grace })
      end
      if left == 0 then break end
      task.sleep(0.1)
    end
    for _, path in ipairs { "/api/v1/nodes", "/api/v1/persistentvolumes" } do
      for _, item in ipairs(self:ok("GET", path).items) do
        self:call("DELETE", path .. "/" .. item.metadata.name)
        self:patch("merge", path .. "/" .. item.metadata.name, { metadata = { finalizers = json.null } })
      end
    end
    self:call("DELETE", "/api/v1/namespaces/" .. namespace)
    self:call("DELETE", "/api/v1/namespaces/x")
  end

  local function begin(self)
    self:ok("POST", "/api/v1/namespaces", { metadata = { name = self.ns } })
    for _ = 1, 100 do
      if self:call("GET", "/api/v1/namespaces/default/serviceaccounts/default") == 200 then break end
      task.sleep(0.05)
    end
  end

  function M.new(options)
    for _, name in ipairs { "external_metrics", "pod_logs", "base" } do
      if options[name] then t.leave("gives the emulator its own " .. name) end
    end
    local self = { ns = "live" .. crypto.hex(crypto.random(6)), users = {}, time = math.floor(task.now()) }
    setmetatable(self, { __index = field })
    self.http = http.client { ca_pem = settings().ca }
    if previous then tidy(self, previous) end
    previous = self.ns
    begin(self)
    return self
  end
end

return M
