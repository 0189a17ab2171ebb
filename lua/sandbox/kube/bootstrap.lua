-- SPDX-License-Identifier: Apache-2.0
-- What every cluster has before anybody asks: system namespaces, their service accounts, the API server's own Service.
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local bootstrap = {}

local WHO = { manager = "kube-apiserver" }

local function ensure(reg, r, ns, obj)
  if not reg.store:get(r, ns, obj.metadata.name) then reg:create(r, ns, obj, WHO) end
end

-- Real namespaces get these a moment later from two controllers; here they come with the namespace.
local function furnish(reg, ns, ca_pem)
  ensure(reg, resources.serviceaccounts, ns, { metadata = { name = "default" } })
  local pem = ca_pem()
  if pem then ensure(reg, resources.configmaps, ns, { metadata = { name = "kube-root-ca.crt" }, data = { ["ca.crt"] = pem } }) end
end

function bootstrap.furnish_all(reg, ca_pem)
  for _, rec in ipairs(reg.store:list(resources.namespaces)) do
    if not rec.obj.metadata.deletionTimestamp then furnish(reg, rec.name, ca_pem) end
  end
end

local function furnish_new(reg, ca_pem)
  reg.store:subscribe(resources.namespaces, function(event)
    if event.type == "ADDED" then furnish(reg, event.new.name, ca_pem) end
  end)
  -- The default account and the CA's certificate come back as long as their namespace stays.
  local function again(event)
    if event.type ~= "DELETED" then return end
    local ns = reg.store:object(resources.namespaces, nil, event.new.ns)
    if ns and not ns.metadata.deletionTimestamp then furnish(reg, event.new.ns, ca_pem) end
  end
  reg.store:subscribe(resources.serviceaccounts, again)
  reg.store:subscribe(resources.configmaps, function(event)
    if event.new.name == "kube-root-ca.crt" then again(event) end
  end)
end

local PRIORITIES = { ["system-cluster-critical"] = 2000000000, ["system-node-critical"] = 2000001000 }

local CLUSTER_ROLES = {
  ["cluster-admin"] = { { verbs = { "*" }, apiGroups = { "*" }, resources = { "*" } },
    { verbs = { "*" }, nonResourceURLs = { "*" } } },
  view = { { verbs = { "get", "list", "watch" }, apiGroups = { "", "apps", "autoscaling", "batch", "networking.k8s.io", "policy",
    "discovery.k8s.io" }, resources = { "configmaps", "endpoints", "persistentvolumeclaims", "pods", "pods/log", "pods/status", "services",
    "events", "namespaces", "deployments", "deployments/scale", "replicasets", "statefulsets", "daemonsets", "horizontalpodautoscalers",
    "jobs", "cronjobs", "ingresses", "networkpolicies", "poddisruptionbudgets", "endpointslices", "serviceaccounts" } } },
}

local function service()
  return { metadata = { name = "kubernetes", labels = { component = "apiserver", provider = "kubernetes" } },
    spec = { clusterIP = "172.21.0.1", ports = json.array { { name = "https", port = 443, targetPort = 6443 } } } }
end

-- ca_pem() answers the cluster CA's certificate, or nil while there is none.
function bootstrap.run(reg, ca_pem)
  furnish_new(reg, ca_pem)
  for _, name in ipairs { "default", "kube-node-lease", "kube-public", "kube-system" } do
    ensure(reg, resources.namespaces, nil, { metadata = { name = name } })
  end
  for name, v in value.sorted(PRIORITIES) do
    ensure(reg, resources.priorityclasses, nil, { metadata = { name = name }, value = v,
      description = "Used for system critical pods that must run in the cluster." })
  end
  for _, name in ipairs { "cluster-admin", "view" } do
    ensure(reg, resources.clusterroles, nil, { metadata = { name = name }, rules = CLUSTER_ROLES[name] })
  end
  ensure(reg, resources.services, "default", service())
end

return bootstrap
