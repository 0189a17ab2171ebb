-- SPDX-License-Identifier: Apache-2.0
--- The rights that a playbook needs in a cluster, from what it asks the sandbox's API server for.
local json = require "eirun.core.json"

local M = {}

-- These are the objects' own business: their rules name them one by one.
local by_name = { secrets = true }

local function rule_key(asked)
  local resource = asked.subresource and asked.resource .. "/" .. asked.subresource or asked.resource
  local name = by_name[resource] and asked.verb ~= "list" and asked.verb ~= "watch" and asked.name or ""
  return asked.group .. "\0" .. resource .. "\0" .. name, { group = asked.group, resource = resource, name = name, verbs = {} }
end

local function sorted(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

local function rule_of(entry)
  return { apiGroups = json.array { entry.group }, resources = json.array { entry.resource }, verbs = json.array(sorted(entry.verbs)),
    resourceNames = entry.name ~= "" and json.array { entry.name } or nil }
end

-- Everybody may ask about himself.
local function is_free(asked) return asked.resource:find "^selfsubject" ~= nil end

-- A Namespace is read with a right inside of it, but made with one of the cluster.
local function scope_of(asked)
  if asked.resource == "namespaces" and asked.verb == "create" then return "" end
  return asked.namespace or ""
end

---The smallest rules for what was asked, by namespace; those of the cluster stand under "".
---@param asked {verb: string, group: string, resource: string, subresource?: string, namespace?: string, name?: string}[]
---@return table<string, table[]> rules
---Example: `rbac.rules { { verb = "get", group = "", resource = "pods", namespace = "default" } }.default[1].verbs` is `{ "get" }`.
---Raises nothing.
function M.rules(asked)
  local scopes = {}
  for _, one in ipairs(asked) do
    if not is_free(one) then
      local scope = scope_of(one)
      scopes[scope] = scopes[scope] or {}
      local key, entry = rule_key(one)
      entry = scopes[scope][key] or entry
      scopes[scope][key] = entry
      entry.verbs[one.verb] = true
    end
  end
  for scope, entries in pairs(scopes) do
    local list = json.array {}
    for i, key in ipairs(sorted(entries)) do list[i] = rule_of(entries[key]) end
    scopes[scope] = list
  end
  return scopes
end

local function role_and_binding(name, account, scope, rules)
  local kind = scope == "" and "ClusterRole" or "Role"
  local function meta() return { name = name, namespace = scope ~= "" and scope or nil } end
  return { apiVersion = "rbac.authorization.k8s.io/v1", kind = kind, metadata = meta(), rules = rules },
    { apiVersion = "rbac.authorization.k8s.io/v1", kind = kind .. "Binding", metadata = meta(),
      roleRef = { apiGroup = "rbac.authorization.k8s.io", kind = kind, name = name },
      subjects = json.array { { kind = "ServiceAccount", name = account.name, namespace = account.namespace } } }
end

---The objects that give a ServiceAccount these rights: the account, roles and bindings.
---@param name string of the roles
---@param account {name: string, namespace: string}
---@param scopes table<string, table[]> as `rbac.rules` gives them
---@return table[] manifests
---Example: `k8s:apply(rbac.manifests("deployer", { name = "deployer", namespace = "ci" }, rules)[1])`. Raises nothing.
function M.manifests(name, account, scopes)
  local list = { { apiVersion = "v1", kind = "ServiceAccount", metadata = { name = account.name, namespace = account.namespace } } }
  for _, scope in ipairs(sorted(scopes)) do
    local role, binding = role_and_binding(name, account, scope, scopes[scope])
    list[#list + 1], list[#list + 2] = role, binding
  end
  return list
end

return M
