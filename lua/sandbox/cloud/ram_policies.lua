-- SPDX-License-Identifier: Apache-2.0
-- What a permission check reads: policies of users and roles, and their text.
local json = require "eirun.core.json"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"

local policies = {}

local function no_policy(name) errors.raise(404, "EntityNotExist.Policy", "The policy does not exist: " .. name) end

local system = {
  AdministratorAccess = { Version = "1", Statement = json.array { { Effect = "Allow", Action = "*", Resource = "*" } } },
  ReadOnlyAccess = { Version = "1", Statement = json.array { { Effect = "Allow", Resource = "*",
    Action = json.array { "*:Describe*", "*:List*", "*:Get*", "*:Query*" } } } },
}

function policies.GetPolicy(call)
  local name, kind = gateway.need(call, "PolicyName"), gateway.need(call, "PolicyType")
  local record = call.ctx.store:get("ram_policy", name)
  local document = kind == "System" and system[name] or kind == "Custom" and record and record.document or no_policy(name)
  return { Policy = { PolicyName = name, PolicyType = kind, DefaultVersion = "v1" },
    DefaultPolicyVersion = { VersionId = "v1", IsDefaultVersion = true, PolicyDocument = json.encode(document) } }
end

local function need_role(call)
  local name = gateway.need(call, "RoleName")
  return call.ctx.store:get("role", name:lower()) or errors.raise(404, "EntityNotExist.Role", "The role not exists: " .. name)
end

function policies.AttachPolicyToRole(call)
  local ctx, role, name = call.ctx, need_role(call), gateway.need(call, "PolicyName")
  local record = ctx.store:get("ram_policy", name) or no_policy(name)
  role.policies, role.attached = role.policies or json.array {}, role.attached or json.array {}
  table.insert(role.policies, record.document)
  table.insert(role.attached, name)
  ctx.store:put("role", role.name:lower(), role)
  return {}
end

function policies.ListPoliciesForRole(call)
  local role, list = need_role(call), json.array {}
  for i, name in ipairs(role.attached or {}) do list[i] = { PolicyName = name, PolicyType = "Custom" } end
  if not role.policies then list[1] = { PolicyName = "AdministratorAccess", PolicyType = "System" } end
  return { Policies = { Policy = list } }
end

-- There are no groups here.
function policies.ListGroupsForUser(call)
  gateway.need(call, "UserName")
  return { Groups = { Group = json.array {} } }
end

return policies
