-- SPDX-License-Identifier: Apache-2.0
-- The sandbox's Kubernetes control plane: API server, controllers and scheduler on one store.
--
-- Everything else of the cluster (kubelets, ingress controller, cluster autoscaler, CSI) is a client over HTTP.
local Auth = require "sandbox.kube.auth"
local Face = require "sandbox.kube.http"
local Index = require "sandbox.kube.index"
local Manager = require "sandbox.kube.manager"
local Registry = require "sandbox.kube.registry"
local Store = require "sandbox.kube.store"
local bootstrap = require "sandbox.kube.bootstrap"
local deletion = require "sandbox.kube.deletion"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local kube = {}

local ADAPTER = "ack-alibaba-cloud-metrics-adapter"
-- The autoscaler works on its own, since it asks others.
local CONTROLLERS = { "deployment", "replicaset", "statefulset", "daemonset", "job", "cronjob", "volumes", "endpointslice",
  "disruption", "namespace", "garbage", "nodes", "scheduler", "expiry", "quota" }
local AUTOSCALER = { "hpa" }

local function adapter_service()
  return { metadata = { name = "v1beta1.external.metrics.k8s.io" }, spec = { group = "external.metrics.k8s.io", version = "v1beta1",
    groupPriorityMinimum = 100, versionPriority = 100, insecureSkipTLSVerify = true,
    service = { namespace = "kube-system", name = ADAPTER } } }
end

-- Whether the metrics adapter answers, which its add-on decides; its APIService comes and goes with it.
local function adapter_watch(ctx, registry)
  local r, name = resources.apiservices, "v1beta1.external.metrics.k8s.io"
  local known
  return function()
    local installed = ctx.external_metrics ~= nil and (ctx.addon_active == nil or ctx.addon_active(ADAPTER) and true or false)
    if installed == known then return installed end
    known = installed
    local exists = registry.store:get(r, nil, name) ~= nil
    if installed and not exists then
      local rec = registry:create(r, nil, adapter_service(), { manager = "kube-apiserver" })
      registry:set_status(r, rec.obj, { conditions = json.array { { type = "Available", status = "True", reason = "Passed",
        message = "all checks passed", lastTransitionTime = registry:time() } } })
    elseif exists and not installed then
      deletion.delete(registry, r, nil, name, {})
    end
    return installed
  end
end

-- Who asked for what, one JSON object a line, for those who want to know which rights a playbook needs.
local function audit_to(path)
  if not path then return nil end
  return function(user, asked)
    asked.user = user.name
    assert(fs.append(path, json.encode(asked) .. "\n"))
  end
end

local function new_face(ctx, store, registry, random)
  local auth = Auth.new { store = store, now = ctx.now, user_of = ctx.kube_user, token_for = ctx.kube_token }
  return Face.new {
    store = store, registry = registry, auth = auth, now = ctx.now, random = random, log = ctx.log,
    pod_logs = function(...) return ctx.pod_logs and ctx.pod_logs(...) end,
    pod_call = function(...)
      if not ctx.pod_network then return nil, "refused" end
      return ctx.pod_network:call(...)
    end,
    external_metrics = function(req) return ctx.external_metrics(req) end,
    audit = audit_to((ctx.options or {}).audit),
    adapter_installed = adapter_watch(ctx, registry), faults = ctx.faults,
  }
end

local function start_controllers(ctx, store, registry, face)
  local index, managers = Index.new(store), {}
  for title, names in value.sorted { ["kube controllers"] = CONTROLLERS, ["kube autoscaler"] = AUTOSCALER } do
    local m = Manager.new { store = store, registry = registry, now = ctx.now, log = ctx.log, lag = ctx.lag, index = index, face = face,
      event_life = (ctx.options or {}).event_life }
    for _, name in ipairs(names) do require("sandbox.kube.controllers." .. name).start(m) end
    managers[#managers + 1] = m
    ctx.spawn(title, function() m:run() end)
  end
  return managers
end

-- Starts the control plane of a world. With a kubeconfig of a real one there is nothing to start.
--
-- ctx gives: store, now, rng, lag, log, spawn, service, kube_user(token), kube_token(user, groups, seconds), api_host; and, looked
-- up when they are needed: ca, pod_logs(ns, name, container, options), external_metrics(req), addon_active(name).
function kube.start(ctx)
  if ctx.options and ctx.options.kubeconfig then return end
  local random = ctx.rng "kube"
  local store = Store.new(ctx.store, ctx.now)
  local registry = Registry.new { store = store, now = ctx.now, random = random }
  local face = new_face(ctx, store, registry, random)
  local function ca_pem() return ctx.ca and ctx.ca.cert_pem end
  store:tx(function() bootstrap.run(registry, ca_pem) end)
  -- The world makes its CA after its parts have started.
  ctx.on("started", function() bootstrap.furnish_all(registry, ca_pem) end)
  local managers = start_controllers(ctx, store, registry, face)
  ctx.service { name = "kube", hosts = { ctx.api_host }, plain = false, tls = true, tls_port = 6443,
    handle = function(req) face:handle(req) end }
  ctx.kube = { store = store, registry = registry, face = face, managers = managers }
end

return kube
