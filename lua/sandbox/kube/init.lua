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
local value = require "sandbox.kube.value"

local kube = {}

local ADAPTER = "ack-alibaba-cloud-metrics-adapter"
-- The autoscaler works on its own, since it asks others.
local CONTROLLERS = { "deployment", "replicaset", "volumes", "endpointslice", "disruption", "namespace", "garbage", "nodes", "scheduler" }
local AUTOSCALER = { "hpa" }

local function new_face(ctx, store, registry, random)
  local auth = Auth.new { store = store, now = ctx.now, user_of = ctx.kube_user, token_for = ctx.kube_token }
  return Face.new {
    store = store, registry = registry, auth = auth, now = ctx.now, random = random, log = ctx.log,
    pod_logs = function(...) return ctx.pod_logs and ctx.pod_logs(...) end,
    external_metrics = function(req) return ctx.external_metrics(req) end,
    adapter_installed = function()
      return ctx.external_metrics ~= nil and (ctx.addon_active == nil or ctx.addon_active(ADAPTER) and true)
    end,
  }
end

local function start_controllers(ctx, store, registry, face)
  local index, managers = Index.new(store), {}
  for title, names in value.sorted { ["kube controllers"] = CONTROLLERS, ["kube autoscaler"] = AUTOSCALER } do
    local m = Manager.new { store = store, registry = registry, now = ctx.now, log = ctx.log, lag = ctx.lag, index = index, face = face }
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
  local store = Store.new(ctx.store)
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
