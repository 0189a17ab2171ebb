-- SPDX-License-Identifier: Apache-2.0
-- From requests to the smallest roles.
local t = require "eirun.test"
local rbac = require "eirun.kube.rbac"

local function asked(verb, resource, namespace, more)
  local one = { verb = verb, group = "", resource = resource, namespace = namespace }
  for key, v in pairs(more or {}) do one[key] = v end
  return one
end

t.test("rules_join_the_verbs_of_one_resource_and_keep_namespaces_apart", function()
  local rules = rbac.rules { asked("list", "pods", "a"), asked("get", "pods", "a"), asked("get", "pods", "a", { subresource = "log" }),
    asked("get", "pods", "b"), asked("list", "nodes") }
  t.eq(rules.a, { { apiGroups = { "" }, resources = { "pods" }, verbs = { "get", "list" } },
    { apiGroups = { "" }, resources = { "pods/log" }, verbs = { "get" } } })
  t.eq({ #rules.b, rules[""][1].resources }, { 1, { "nodes" } })
end)

t.test("secrets_are_named_one_by_one", function()
  local rules = rbac.rules { asked("get", "secrets", "a", { name = "x" }), asked("get", "secrets", "a", { name = "y" }) }
  t.eq({ rules.a[1].resourceNames, rules.a[2].resourceNames }, { { "x" }, { "y" } })
end)

t.test("a_namespace_is_made_with_a_right_of_the_cluster_and_read_with_one_inside", function()
  local rules = rbac.rules { asked("create", "namespaces", "a", { name = "a" }), asked("get", "namespaces", "a", { name = "a" }) }
  t.eq({ rules[""][1].verbs, rules.a[1].verbs }, { { "create" }, { "get" } })
end)

t.test("reviews_of_oneself_need_no_right", function()
  t.eq(rbac.rules { asked("create", "selfsubjectreviews", nil, { group = "authentication.k8s.io" }) }, {})
end)

t.test("manifests_bind_every_role_to_the_account", function()
  local list = rbac.manifests("r", { name = "sa", namespace = "ci" }, rbac.rules { asked("get", "pods", "a"), asked("list", "nodes") })
  local kinds = {}
  for i, object in ipairs(list) do kinds[i] = object.kind .. " " .. (object.metadata.namespace or "") end
  t.eq(kinds, { "ServiceAccount ci", "ClusterRole ", "ClusterRoleBinding ", "Role a", "RoleBinding a" })
  t.eq(list[5].subjects[1], { kind = "ServiceAccount", name = "sa", namespace = "ci" })
end)
