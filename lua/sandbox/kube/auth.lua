-- SPDX-License-Identifier: Apache-2.0
-- Who asks, and whether they may: bearer tokens, client certificates, RBAC.
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local value = require "sandbox.kube.value"

local auth = {}

local MASTERS = "system:masters"
local NODES = "system:nodes"
local AUTHENTICATED = "system:authenticated"

-- options: store, now, user_of(token) -> {name, groups} or nil, token_for(user, groups, seconds) -> token
function auth.new(options)
  return setmetatable(options, { __index = auth })
end

local function certificate_user(req)
  if (req.peer_cn or "") == "" then return nil end
  local groups = req.peer_organizations or {}
  if type(groups) == "string" then
    local list = {}
    for line in groups:gmatch("[^\n]+") do list[#list + 1] = line end
    groups = list
  end
  return { name = req.peer_cn, groups = groups }
end

-- Everybody who is known belongs to one more group.
local function authenticated(user)
  if not user then return nil end
  local groups = json.array {}
  for i, group in ipairs(user.groups or {}) do groups[i] = group end
  if not value.contains(groups, AUTHENTICATED) then groups[#groups + 1] = AUTHENTICATED end
  return { name = user.name, uid = user.uid, groups = groups }
end

-- The user of a request: {name, groups}; nil when it has none that is known.
function auth:user(req)
  local header = req.headers:get "authorization"
  local token = header and header:match("^[Bb]earer%s+(%S+)$")
  return authenticated(token and self.user_of(token) or not token and certificate_user(req))
end

local function word(list, wanted)
  return value.contains(list, "*") or value.contains(list, wanted)
end

-- attributes: {verb, group, resource, subresource, name, path}
local function rule_allows(rule, a)
  if not word(rule.verbs, a.verb) then return false end
  if a.path then
    for _, url in ipairs(rule.nonResourceURLs or {}) do
      if url == a.path or url == "*" or (url:sub(-1) == "*" and a.path:sub(1, #url - 1) == url:sub(1, -2)) then return true end
    end
    return false
  end
  local resource = a.subresource and a.subresource ~= "" and a.resource .. "/" .. a.subresource or a.resource
  if not word(rule.apiGroups, a.group or "") then return false end
  if not word(rule.resources, resource) and not (a.subresource and word(rule.resources, "*/" .. a.subresource)) then return false end
  return not rule.resourceNames or #rule.resourceNames == 0 or value.contains(rule.resourceNames, a.name)
end

local function is_subject(subjects, user, ns)
  for _, s in ipairs(subjects or {}) do
    if s.kind == "User" and s.name == user.name then return true end
    if s.kind == "Group" and value.contains(user.groups, s.name) then return true end
    local account = ("system:serviceaccount:%s:%s"):format(s.namespace or ns or "", s.name)
    if s.kind == "ServiceAccount" and account == user.name then return true end
  end
end

-- The rules that hold for a user in a namespace (nil: cluster-wide).
function auth:rules_of(user, ns)
  local list = {}
  local function take(binding_resource, at)
    for _, rec in ipairs(self.store:list(binding_resource, at)) do
      local binding = rec.obj
      if is_subject(binding.subjects, user, rec.ns) then
        local ref = binding.roleRef
        local role_resource = ref.kind == "ClusterRole" and resources.clusterroles or resources.roles
        local role = self.store:object(role_resource, rec.ns, ref.name)
        for _, rule in ipairs(role and role.rules ~= json.null and role.rules or {}) do list[#list + 1] = rule end
      end
    end
  end
  take(resources.clusterrolebindings)
  if ns then take(resources.rolebindings, ns) end
  return list
end

-- What the node authorizer lets a kubelet do, without its look at which node an object belongs to.
local NODE_RULES = {
  { verbs = { "get", "list", "watch" }, apiGroups = { "*" }, resources = { "*" } },
  { verbs = { "create", "update", "patch", "delete" }, apiGroups = { "" }, resources = { "nodes", "nodes/status", "pods", "pods/status",
    "pods/eviction", "events", "serviceaccounts/token" } },
  { verbs = { "create", "update", "patch", "delete" }, apiGroups = { "coordination.k8s.io", "storage.k8s.io", "events.k8s.io" },
    resources = { "*" } },
}

local PUBLIC = { ["/version"] = true, ["/healthz"] = true, ["/livez"] = true, ["/readyz"] = true }
local REVIEWS = { selfsubjectaccessreviews = true, selfsubjectrulesreviews = true, selfsubjectreviews = true }

-- The built-in roles system:discovery and system:basic-user.
local function basic(a)
  if a.path then return a.verb == "get" and (a.path:match("^/apis?") or a.path:match("^/openapi") or PUBLIC[a.path]) end
  return a.verb == "create" and REVIEWS[a.resource]
end

function auth:allowed(user, a)
  if value.contains(user.groups, MASTERS) or value.contains(user.groups, AUTHENTICATED) and basic(a) then return true end
  local own = value.contains(user.groups, NODES) and NODE_RULES or {}
  for _, rules in ipairs { own, self:rules_of(user, a.namespace) } do
    for _, rule in ipairs(rules) do
      if rule_allows(rule, a) then return true end
    end
  end
  return false
end

-- A new bearer token of a service account.
function auth:service_account_token(ns, name, seconds)
  return self.token_for(("system:serviceaccount:%s:%s"):format(ns, name),
    json.array { "system:serviceaccounts", "system:serviceaccounts:" .. ns, "system:authenticated" }, seconds)
end

return auth
