-- SPDX-License-Identifier: Apache-2.0
-- RAM 2015-05-01, as much as permission checks need: users with keys, roles, policies attached to them. Users are
-- made here so that a test can have a restricted key.
local json = require "eirun.core.json"
local crypto = require "eirun.core.crypto"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local policies = require "sandbox.cloud.ram_policies"
local times = require "sandbox.times"

local ram = {}

-- Service roles that an account with ACK has, and the workers' own.
local roles = { "AliyunCSManagedAutoScalerRole", "AliyunCSManagedNlcRole", "AliyunOOSLifecycleHook4CSRole", "AliyunCSDefaultRole",
  "AliyunCSKubernetesAuditRole", "AliyunCSManagedLogRole", "AliyunCSManagedCsiRole", "KubernetesWorkerRole-sandbox" }

function ram.fill(ctx)
  for i, name in ipairs(roles) do
    ctx.store:put("role", name:lower(), { name = name, id = ("30000000000000%04d"):format(i), created = ctx.now() })
  end
end

local function role_view(ctx, role)
  return { RoleName = role.name, RoleId = role.id, Arn = ("acs:ram::%s:role/%s"):format(ctx.account, role.name:lower()),
    CreateDate = times.iso(role.created), Description = "", MaxSessionDuration = 3600,
    AssumeRolePolicyDocument = role.trust or '{"Statement":[{"Action":"sts:AssumeRole","Effect":"Allow"}],"Version":"1"}' }
end

local function get_role(call)
  local name = gateway.need(call, "RoleName")
  local role = call.ctx.store:get("role", name:lower())
  if not role then errors.raise(404, "EntityNotExist.Role", "The role not exists: " .. name) end
  return { Role = role_view(call.ctx, role) }
end

local function list_roles(call)
  local list = json.array {}
  for _, role in call.ctx.store:each "role" do list[#list + 1] = role_view(call.ctx, role) end
  return { Roles = { Role = list }, IsTruncated = false }
end

-- Raises what the products answer while a service role was never granted.
function ram.need_role(ctx, name)
  if ctx.store:get("role", name:lower()) then return end
  errors.raise(400, "MissingAuth." .. name, ("The service role %s is not granted yet; grant it in the RAM console."):format(name))
end

local function delete_role(call)
  local name = gateway.need(call, "RoleName")
  if not call.ctx.store:delete("role", name:lower()) then
    errors.raise(404, "EntityNotExist.Role", "The role not exists: " .. name)
  end
  return {}
end

local function need_user(call)
  local name = gateway.need(call, "UserName")
  return call.ctx.store:get("ram_user", name) or errors.raise(404, "EntityNotExist.User", "The user does not exist: " .. name)
end

local function create_user(call)
  local ctx, name = call.ctx, gateway.need(call, "UserName")
  if ctx.store:get("ram_user", name) then errors.raise(409, "EntityAlreadyExists.User", "The user already exists: " .. name) end
  local user = ctx.store:put("ram_user", name, { name = name, id = ctx.id("2", 17, "hex"), created = ctx.now(), policies = json.array {},
    attached = json.array {} })
  return { User = { UserName = name, UserId = user.id, DisplayName = name, CreateDate = times.iso(user.created) } }
end

-- Keys of a user follow its policies.
local function refresh_keys(ctx, user)
  for id, record in ctx.store:each "access_key" do
    if record.identity == "RAMUser" and record.name == user.name then
      record.policies = user.policies
      ctx.store:put("access_key", id, record)
    end
  end
end

local function create_access_key(call)
  local ctx, user = call.ctx, need_user(call)
  local id = "LTAI5t" .. crypto.hex(crypto.random(9)):upper()
  local record = { secret = crypto.hex(crypto.random(15)), identity = "RAMUser", name = user.name, id = user.id, policies = user.policies }
  ctx.credentials.add(id, record)
  return { AccessKey = { AccessKeyId = id, AccessKeySecret = record.secret, Status = "Active", CreateDate = times.iso(ctx.now()) } }
end

local function parse_policy(text)
  local document = json.decode(text)
  if type(document) ~= "table" or type(document.Statement) ~= "table" then
    errors.raise(400, "MalformedPolicyDocument", "The policy document is malformed.")
  end
  return document
end

local function create_role(call)
  local ctx, name = call.ctx, gateway.need(call, "RoleName")
  if ctx.store:get("role", name:lower()) then errors.raise(409, "EntityAlreadyExists.Role", "The role already exists: " .. name) end
  local trust = call.params.AssumeRolePolicyDocument
  if trust then parse_policy(trust) end
  local role = { name = name, id = ctx.id("3", 17, "hex"), created = ctx.now(), trust = trust }
  ctx.store:put("role", name:lower(), role)
  return { Role = role_view(ctx, role) }
end

local function create_policy(call)
  local ctx, name = call.ctx, gateway.need(call, "PolicyName")
  if ctx.store:get("ram_policy", name) then errors.raise(409, "EntityAlreadyExists.Policy", "The policy already exists: " .. name) end
  local document = parse_policy(gateway.need(call, "PolicyDocument"))
  ctx.store:put("ram_policy", name, { name = name, document = document })
  return { Policy = { PolicyName = name, PolicyType = "Custom", DefaultVersion = "v1" } }
end

local function attach(call)
  local ctx, user, name = call.ctx, need_user(call), gateway.need(call, "PolicyName")
  local record = ctx.store:get("ram_policy", name)
  if not record then errors.raise(404, "EntityNotExist.Policy", "The policy does not exist: " .. name) end
  ctx.store:tx(function()
    table.insert(user.policies, record.document)
    table.insert(user.attached, name)
    ctx.store:put("ram_user", user.name, user)
    refresh_keys(ctx, user)
  end)
  return {}
end

local function list_for_user(call)
  local list = json.array {}
  for i, name in ipairs(need_user(call).attached) do list[i] = { PolicyName = name, PolicyType = "Custom" } end
  return { Policies = { Policy = list } }
end

function ram.start(ctx)
  local product = { name = "RAM", ram = "ram", versions = { ["2015-05-01"] = true }, actions = { GetRole = get_role, ListRoles = list_roles,
    CreateRole = create_role, DeleteRole = delete_role, CreateUser = create_user, CreateAccessKey = create_access_key,
    CreatePolicy = create_policy, AttachPolicyToUser = attach, ListPoliciesForUser = list_for_user } }
  for action, handler in pairs(policies) do product.actions[action] = handler end
  ctx.service { name = "RAM", env = "RAM", handle = gateway.rpc(ctx, product),
    hosts = { "ram.aliyuncs.com", "ram.vpc-proxy.aliyuncs.com" } }
end

return ram
