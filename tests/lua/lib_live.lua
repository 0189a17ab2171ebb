-- SPDX-License-Identifier: Apache-2.0
-- A real control plane behind the face of lib_kube, so that the emulator's tests judge it by the same words. Each test has a
-- namespace of its own, which it knows as "default"; what needs the emulator's inside is left out. The suite that started the
-- plane restarts its programs where a test asks for other flags or for a server that forgets.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local getenv = require("eirun.core.os").getenv
local http = require "eirun.core.http"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local t = require "eirun.test"
local task = require "eirun.task"

local M = {}

local QUIET, PATIENCE = 0.6, 5 -- seconds without a change, and until it must come
local SLOW = 20 -- quiet counts from so many answers of the server on: it is no quiet when all are slow
local LONGEST = 100 -- seconds that a test may let pass for real
local day = 86400

-- Why the emulator's own parts cannot be had of a real server.
local inside = {
  faults = "injects faults that a real server does not have on call",
  problems = "reads the emulator's own list of Lua errors",
  kube = "counts the versions that the emulator's store keeps",
}
-- Delays that a real plane has as flags.
local FLAGS = {
  node_lease = { "kube-controller-manager", "node-monitor-grace-period", function(lease) return lease * 1.25 end },
  hpa_sync = { "kube-controller-manager", "horizontal-pod-autoscaler-sync-period" },
  hpa_downscale_window = { "kube-controller-manager", "horizontal-pod-autoscaler-downscale-stabilization" },
  event_life = { "kube-apiserver", "event-ttl" },
}

local where -- { server, token, ca, control }
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
    if inside[key] then t.leave(inside[key]) end
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
    table.move(options.headers or {}, 1, #(options.headers or {}), #list + 1, list)
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

  function Live:now() return task.now() end

  function Live:version()
    return math.tointeger(self:ok("GET", "/api/v1/namespaces?limit=1").metadata.resourceVersion)
  end

  -- Until nothing has been written for a moment.
  function Live:settle()
    local last, since, limit = nil, task.now(), task.now() + PATIENCE
    local quiet = QUIET
    repeat
      local asked = task.now()
      local now = self:version()
      quiet = math.max(quiet, SLOW * (task.now() - asked))
      if now ~= last then last, since = now, task.now() end
      task.sleep(0.1)
    until task.now() - since > quiet or task.now() > limit
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

  function Live:advance(seconds)
    task.sleep(seconds)
    self:settle()
  end

  -- Asks the suite that started the plane for something that only it can do.
  local function control(self, what, body)
    local reply = assert(self.http:request { method = "POST", url = settings().control .. what, body = json.encode(body or {}),
      timeout = 60 })
    assert(reply.status == 200, reply.body)
  end

  function Live:compact() control(self, "/compact") end

  function Live:restart()
    control(self, "/restart")
    return self
  end

  -- The plane's programs run with the flags of these delays from here on; those that did not are restarted.
  local function with_flags(self, delays)
    local wanted = {}
    for name, seconds in pairs(delays) do
      local program, flag, scaled = table.unpack(FLAGS[name])
      wanted[program] = wanted[program] or {}
      wanted[program][flag] = ("%ds"):format(math.min(day, math.ceil(scaled and scaled(seconds) or seconds)))
    end
    control(self, "/flags", wanted)
  end

  local COLLECTIONS = { "/apis/batch/v1/%scronjobs", "/apis/batch/v1/%sjobs", "/apis/apps/v1/%sdeployments", "/apis/apps/v1/%sstatefulsets",
    "/apis/apps/v1/%sdaemonsets", "/apis/apps/v1/%sreplicasets", "/apis/autoscaling/v2/%shorizontalpodautoscalers",
    "/api/v1/%spersistentvolumeclaims", "/api/v1/%spods" }

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
    -- What controllers put into every namespace comes in no order, and late on a machine that is busy.
    for _, path in ipairs { "serviceaccounts/default", "configmaps/kube-root-ca.crt" } do
      assert(self:until_(function() return self:call("GET", "/api/v1/namespaces/default/" .. path) == 200 end), path .. " does not come")
    end
  end

  function M.new(options)
    if options.pod_logs then t.leave("asks for a kubelet's words, and there is none") end
    local self = { ns = "live" .. crypto.hex(crypto.random(6)), users = {}, time = math.floor(task.now()) }
    setmetatable(self, { __index = field })
    self.http = http.client { ca_pem = settings().ca }
    -- Nobody renews leases of the nodes that most tests make.
    local delays = { node_lease = day, event_life = options.event_life }
    for name, seconds in pairs(options.lag or {}) do delays[name] = seconds end
    with_flags(self, delays)
    if previous then tidy(self, previous) end
    previous = self.ns
    begin(self)
    return self
  end

  local GROUP, SERVICE = "external.metrics.k8s.io", "live-metrics"
  local API = "/apis/apiregistration.k8s.io/v1/apiservices"

  local function metrics_listener(ns)
    local now = task.now()
    local life = { not_before = now - day, not_after = now + day }
    local ca = assert(crypto.ca_create { name = "live", not_before = life.not_before, not_after = life.not_after })
    local cert = assert(crypto.cert_issue { ca = ca, cn = SERVICE, names = { SERVICE .. "." .. ns .. ".svc" }, not_before = life.not_before,
      not_after = life.not_after })
    local tls = { cert_pem = cert.cert_pem, key_pem = cert.key_pem }
    return assert(httpd.listen { host = "127.0.0.1", port = 0, tls = tls }), ca.cert_pem
  end

  -- No proxy of Services runs here: an ExternalName is dialled as it stands.
  local function register(self, listener, ca_pem)
    self:call("POST", "/api/v1/namespaces/" .. self.ns .. "/services", { metadata = { name = SERVICE },
      spec = { type = "ExternalName", externalName = "127.0.0.1" } })
    self:ok("POST", API, { metadata = { name = "v1beta1." .. GROUP }, spec = { group = GROUP, version = "v1beta1",
      groupPriorityMinimum = 100, versionPriority = 100, caBundle = crypto.base64(ca_pem),
      service = { namespace = self.ns, name = SERVICE, port = listener.port } } })
    self:becomes("True", function()
      return ((self:ok("GET", API .. "/v1beta1." .. GROUP).status or {}).conditions or { {} })[1].status
    end)
  end

  local function answered(answer)
    return function(req)
      if req.path:find("/namespaces/", 1, true) then return answer(req) end
      req:respond(200, { ["Content-Type"] = "application/json" }, json.encode { kind = "APIResourceList", apiVersion = "v1",
        groupVersion = GROUP .. "/v1beta1", resources = json.array {} })
    end
  end

  function M.with_metrics(answer, options, fn)
    local self = M.new(options)
    local listener, ca_pem = metrics_listener(self.ns)
    task.race {
      function() httpd.serve(listener, answered(answer), {}) end,
      function()
        local done, err = pcall(function()
          register(self, listener, ca_pem)
          fn(self)
        end)
        -- An API that nobody answers would hold up the deletion of namespaces.
        self:call("DELETE", API .. "/v1beta1." .. GROUP)
        if not done then error(err, 0) end
      end,
    }
    listener:close()
  end
end

return M
