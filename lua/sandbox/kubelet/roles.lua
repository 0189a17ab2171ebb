-- SPDX-License-Identifier: Apache-2.0
-- Temporary credentials of a mount: the instance's own role from the metadata service, or a RAM role for the driver's service
-- account (RRSA) from STS. Both over HTTP, as the driver asks.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local resources = require "sandbox.kubeclient.resources"
local times = require "sandbox.times"

local M = {}

local namespace = "ack-csi-fuse"
local metadata = "http://100.100.100.200/latest/meta-data/ram/security-credentials/"

local function credentials_of(found)
  if type(found) ~= "table" or not found.AccessKeyId then return nil end
  return { id = found.AccessKeyId, secret = found.AccessKeySecret, token = found.SecurityToken,
    expires = times.parse(found.Expiration or "") or math.huge }
end

---@return table|nil credentials { id, secret, token, expires }
---@return string|nil why
function M.of_instance(world, options)
  local reply, err = world.http:request { method = "GET", url = metadata .. options.role, timeout = 10 }
  if not reply then return nil, err.message end
  local found = reply.status == 200 and credentials_of(json.decode(reply.body))
  if found then return found end
  return nil, ("the metadata service has no role %s"):format(options.role)
end

-- A token of the driver's service account for STS. The add-on brings namespace and account along; here they come when needed.
local function service_account_token(world, name)
  world.kube:create("namespaces", { metadata = { name = namespace } })
  world.kube:create("serviceaccounts", { metadata = { namespace = namespace, name = name } })
  local body = { apiVersion = "authentication.k8s.io/v1", kind = "TokenRequest",
    spec = { audiences = json.array { "sts.aliyuncs.com" }, expirationSeconds = 3600 } }
  local reply, err = world.kube:request("POST", resources.path("serviceaccounts", namespace, name, "token"), body)
  if not reply then return nil, err.message end
  return reply.status.token
end

local function query_of(params)
  local names, parts = {}, {}
  for name in pairs(params) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do parts[i] = name .. "=" .. crypto.percent_encode(params[name], "rfc3986") end
  return table.concat(parts, "&")
end

local function assume(world, options, token)
  local query = query_of { Action = "AssumeRoleWithOIDC", Version = "2015-04-01", Format = "JSON", OIDCToken = token,
    Timestamp = times.iso(world.now()), RoleSessionName = "ack-csi-plugin", DurationSeconds = "3600",
    RoleArn = options.role_arn or ("acs:ram::%s:role/%s"):format(world.account, options.role),
    OIDCProviderArn = options.provider_arn or ("acs:ram::%s:oidc-provider/ack-rrsa-%s"):format(world.account, world.cluster_id) }
  local reply, err = world.http:request { method = "POST", timeout = 10,
    url = ("https://sts-vpc.%s.aliyuncs.com/?%s"):format(world.region, query) }
  if not reply then return nil, err.message end
  local said = json.decode(reply.body)
  local found = type(said) == "table" and credentials_of(said.Credentials)
  if found then return found end
  return nil, type(said) == "table" and ("%s: %s"):format(said.Code, said.Message) or "HTTP " .. reply.status
end

---@return table|nil credentials
---@return string|nil why
function M.of_service_account(world, options)
  local token, why = service_account_token(world, options.service_account or "csi-fuse-ossfs")
  if not token then return nil, why end
  return assume(world, options, token)
end

return M
