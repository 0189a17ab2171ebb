-- SPDX-License-Identifier: Apache-2.0
-- How the cluster's API server is reached: bearer tokens, kubeconfig text, and the client of the sandbox's own parts. With
-- a kubeconfig of a real control plane (args.kubeconfig) that one takes the emulated server's place.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local kubeclient = require "sandbox.kubeclient"

local access = {}

local groups_of = { ["kubernetes-admin"] = { "system:masters" } }

local function own_groups(user)
  return groups_of[user] or (user:find("^system:node:") and { "system:nodes" }) or { "system:masters" }
end

-- A token for `user`; without `seconds` it is permanent and the same each time.
local function token_for(ctx, user, groups, seconds)
  for token, record in ctx.store:each "kube_token" do
    if record.user == user and not seconds and not record.expires then return token end
  end
  local token = crypto.hex(crypto.random(24))
  ctx.store:put("kube_token", token, { user = user, groups = groups or own_groups(user),
    expires = seconds and ctx.now() + seconds })
  return token
end

local function user_of(ctx, token)
  local record = token and ctx.store:get("kube_token", token)
  if not record or (record.expires and record.expires <= ctx.now()) then return nil end
  return { name = record.user, groups = record.groups }
end

local template = [[
apiVersion: v1
kind: Config
clusters:
- name: kubernetes
  cluster:
    server: $server
    certificate-authority-data: $ca
contexts:
- name: $context
  context:
    cluster: kubernetes
    user: kubernetes-admin
current-context: $context
users:
- name: kubernetes-admin
  user:
    token: $token
]]

local function emulated(ctx, server, token)
  local values = { server = server, ca = crypto.base64(ctx.ca.cert_pem), context = "kubernetes-admin-" .. ctx.cluster_id, token = token }
  return (template:gsub("%$(%w+)", values))
end

local function loopback(ctx)
  local ports = ctx.server.ports.kube
  return ports and ports.tls and "https://127.0.0.1:" .. ports.tls
end

-- options: { address="loopback"|"public", seconds= } -> YAML text
local function kubeconfig(ctx, options)
  if ctx.options.kubeconfig then return assert(fs.read(ctx.options.kubeconfig)) end
  local server = options.address == "loopback" and loopback(ctx) or ctx.api_server
  return emulated(ctx, server, token_for(ctx, "kubernetes-admin", nil, options.seconds))
end

local function client(ctx, user)
  local agent = (user or "sandbox"):gsub("^system:", ""):gsub("[:/]", "-") .. "/sandbox"
  if ctx.options.kubeconfig then return kubeclient.from_kubeconfig(ctx.options.kubeconfig, { user_agent = agent }) end
  return kubeclient.new { server = ctx.api_server, token = token_for(ctx, user or "system:sandbox"),
    ca_pem = ctx.ca.cert_pem, user_agent = agent }
end

-- The one address outside that the sandbox may reach: the real control plane's, and only on loopback.
local function outside_route(path)
  local config = assert(require("eirun.core.yaml").decode(assert(fs.read(path))))
  local server = kubeclient.options_of(config, path:match "^(.*)/[^/]*$" or ".").server
  local host, port = server:match "^https?://%[?([%w%.:%-]-)%]?:(%d+)/*$"
  if host ~= "127.0.0.1" and host ~= "localhost" and host ~= "::1" then
    error(("the sandbox drives control planes on loopback only, not %s"):format(server), 0)
  end
  return { host = host, port = math.tointeger(port), address = (host == "::1" and "[::1]" or "127.0.0.1") .. ":" .. port }
end

function access.attach(ctx)
  ctx.outside_routes = ctx.options.kubeconfig and { outside_route(ctx.options.kubeconfig) } or {}
  ctx.api_host = ("apiserver.%s.%s.sandbox.eirun.invalid"):format(ctx.cluster_id, ctx.region)
  ctx.api_server = "https://" .. ctx.api_host .. ":6443"
  function ctx.kube_token(user, groups, seconds) return token_for(ctx, user, groups, seconds) end
  function ctx.kube_user(token) return user_of(ctx, token) end
  function ctx.kubeconfig(options) return kubeconfig(ctx, options or {}) end
  function ctx.kube_client(user) return client(ctx, user) end
end

return access
