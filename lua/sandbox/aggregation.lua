-- SPDX-License-Identifier: Apache-2.0
-- The metrics adapter before a real API server: an HTTPS listener on loopback, registered as an aggregated API while the
-- adapter's add-on is there. Cluster addresses of Services need kube-proxy and loopback is refused in endpoints; a Service
-- of type ExternalName is dialled as it stands.
local crypto = require "eirun.core.crypto"
local httpd = require "eirun.core.httpd"
local task = require "eirun.core.task"
local scopes = require "eirun.task"

local M = {}

local NAMESPACE, SERVICE, API = "eirun-system", "eirun-metrics", "v1beta1.external.metrics.k8s.io"
local ADAPTER = "ack-alibaba-cloud-metrics-adapter"
local user = "metrics-adapter"
local LOOK, RETRY, FAREWELL = 1, 2, 5 -- seconds
local day = 86400

-- The CA that signs the API server's own client certificate towards aggregated APIs.
local function front_ca(kube)
  local map, err = kube:get("configmaps", "kube-system", "extension-apiserver-authentication")
  if not map then return nil, err end
  local pem = (map.data or {})["requestheader-client-ca-file"]
  if pem then return pem end
  return nil, "the API server runs without --requestheader-client-ca-file, so that no aggregated API can be served"
end

local function answer(ctx, req)
  if req.path == "/healthz" then return req:respond(200, { ["Content-Type"] = "text/plain" }, "ok") end
  ctx.external_metrics(req)
end

local function listen(self, client_ca)
  local now = self.ctx.now()
  local cert = assert(crypto.cert_issue { ca = self.ctx.ca, cn = "eirun metrics adapter", names = { SERVICE .. "." .. NAMESPACE .. ".svc" },
    not_before = now - 400 * day, not_after = now + 400 * day })
  local listener = assert(httpd.listen { host = "127.0.0.1", port = 0,
    tls = { cert_pem = cert.cert_pem, key_pem = cert.key_pem, client_ca_pem = client_ca } })
  self.listener = listener
  self.ctx.spawn("listen metrics adapter", function()
    httpd.serve(listener, function(req) answer(self.ctx, req) end, { on_error = function(err, req)
      self.ctx.log("error", "metrics adapter %s %s: %s", req.method, req.path, tostring(err))
    end })
  end)
end

local function objects(self)
  return {
    { "namespaces", { metadata = { name = NAMESPACE } } },
    { "services", { metadata = { name = SERVICE, namespace = NAMESPACE }, spec = { type = "ExternalName", externalName = "127.0.0.1" } } },
    { "apiservices", { metadata = { name = API }, spec = { group = "external.metrics.k8s.io", version = "v1beta1",
      groupPriorityMinimum = 100, versionPriority = 100, caBundle = crypto.base64(self.ctx.ca.cert_pem),
      service = { namespace = NAMESPACE, name = SERVICE, port = self.listener.port } } } },
  }
end

local function register(self)
  if not self.listener then
    local client_ca, why = front_ca(self.kube)
    if not client_ca then return nil, why end
    listen(self, client_ca)
  end
  for _, row in ipairs(objects(self)) do
    local meta = row[2].metadata
    local made, err = self.kube:patch(row[1], meta.namespace, meta.name, row[2], { type = "apply", field_manager = user, force = true })
    if not made then return nil, err end
  end
  return true
end

-- An APIService that nobody answers would hold up the deletion of namespaces.
local function unregister(self) return self.kube:delete("apiservices", nil, API) end

local function follow_addon(self)
  while true do
    local wanted = self.ctx.addon_active(ADAPTER) and true or false
    if wanted ~= self.registered then
      local done, why = (wanted and register or unregister)(self)
      if done or not wanted then
        self.registered = wanted
      else
        self.ctx.log("warn", "cannot register the metrics adapter: %s", tostring(why))
        task.sleep(RETRY)
      end
    end
    task.sleep(LOOK)
  end
end

-- A server that is busy with what the run leaves behind may refuse once.
local function farewell(self)
  repeat
    local done, err = unregister(self)
    if done or err.kind == "not_found" then return end
    self.ctx.log("warn", "the metrics adapter is still registered: %s", tostring(err))
    task.sleep(FAREWELL / 20)
  until false
end

local function stop(self)
  if self.registered then
    local done, err = pcall(scopes.shield, FAREWELL, farewell, self)
    if not done then self.ctx.log("error", "the metrics adapter stays registered as %s: %s", API, tostring(err)) end
  end
  if self.listener then self.listener:close() end
end

---With a real control plane: takes the emulated API server's place in the list of parts.
function M.start(ctx)
  local self = { ctx = ctx, registered = false }
  ctx.on("started", function()
    self.kube = ctx.kube_client(user)
    ctx.spawn("metrics adapter", function() follow_addon(self) end)
  end)
  ctx.on("stopping", function() stop(self) end)
end

return M
