-- SPDX-License-Identifier: Apache-2.0
-- What a server's code means for the one who called: its kind, and what to do next. First match wins.
local M = {}

local GRANT = "grant the RAM action to the key's owner"

-- pattern (Lua), kind, hint
local rules = {
  { "Throttling", "throttled",
    "too many calls of this account at once: it was tried again until the time was over; ask for a higher limit in Quota Center" },
  { "QPS Limit Exceeded", "throttled", "too many calls of this account at once: it was tried again until the time was over" },
  { "^SignatureDoesNotMatch$", "denied", "the access key's secret is wrong, or a proxy changed the request" },
  { "^SignatureNonceUsed$", "conflict", "a proxy or a copied request repeated it: call again" },
  { "^InvalidTimeStamp", "denied", "set this machine's clock: more than 15 minutes off" },
  { "^IncompleteSignature", "denied", "check the access key's secret" },
  { "^InvalidAccessKeyId%.Inactive", "denied", "the access key is disabled: enable it in the RAM console, or use another one" },
  { "^InvalidAccessKeyId", "denied", "the access key does not exist or is disabled; check ALIBABA_CLOUD_ACCESS_KEY_ID" },
  { "^MissingAccessKeyId", "denied", "the request came without a key: is a proxy dropping the Authorization header?" },
  { "^MissingSecurityToken", "denied", "temporary keys need their token: set ALIBABA_CLOUD_SECURITY_TOKEN" },
  { "^InvalidSecurityToken%.MismatchWithAccessKey", "denied", "id, secret and token must come from the same answer: set all three anew" },
  { "^InvalidSecurityToken", "denied", "the temporary keys have expired; get new ones" },
  { "^AuthenticationFail%.OIDCToken", "denied",
    "the token file is stale or of another cluster: is RRSA enabled, and the pod's service account annotated?" },
  { "^EntityNotExist%.OIDCProvider", "not_found", "enable RRSA on the cluster, then take the provider's ARN from its page" },
  { "^EntityNotExist%.Role", "not_found", "create the RAM role, or correct its name in the ARN" },
  { "^Forbidden", "denied", GRANT },
  { "^NoPermission", "denied", GRANT },
  { "^StatusForbidden", "denied", GRANT },
  { "^ErrorCheckAcl", "denied", "the cluster belongs to somebody else, or the RAM user has no right on it" },
  { "^MissingAuth", "denied", "create the service role that the message names, in the RAM console" },
  { "^ServiceLinkedRole", "denied", "create the service-linked role that the message names, in the RAM console" },
  { "^InvalidAction", "invalid", "wrong product, version, region or endpoint" },
  { "^InvalidVersion", "invalid", "wrong API version for this product" },
  { "^InvalidApi%.NotFound", "invalid", "wrong product, version, region or endpoint" },
  { "^InvalidRegionId", "invalid", "no such region for this product: check --region, or ALIBABA_CLOUD_REGION_ID" },
  { "^ErrorClusterNotFound", "not_found", "check the cluster id and the region: ids are known in their own region only" },
  { "^ErrorNodePoolNotFound", "not_found", "list the pools with `eirun cloud call cs DescribeClusterNodePools ClusterId=...`" },
  { "^AddonNotFound", "not_found", "list the add-ons that this cluster can have with ListAddons" },
  { "^InvalidScalingGroupId%.NotFound", "not_found", "the scaling group is gone: was the node pool deleted?" },
  { "^InvalidInstanceId", "not_found", "the instance is gone, or of another region" },
  { "^InvalidInstanceType%.ValueNotSupported", "invalid",
    "not sold in this region or zone: `eirun cloud call ecs DescribeAvailableResource` lists what is" },
  { "^InvalidVSwitchId%.IpNotEnough", "quota", "the vSwitch has no free addresses: add another one" },
  { "^InvalidVSwitchId", "not_found", "check the vSwitch id and its region" },
  { "^InvalidKeyPair", "not_found", "create the key pair in this region, or correct its name" },
  { "^InvalidSecurityGroupId", "not_found", "check the security group's id, its VPC and its region" },
  { "NotFound", "not_found" },
  { "NotExist", "not_found" },
  { "^ErrorClusterState", "conflict", "wait until the cluster is running" },
  { "^InvalidNodePoolStatus", "conflict", "the pool is busy or could not be deleted: wait, or repair it in the console" },
  { "^InvalidDesiredSizeOrCount", "invalid", "leave desired_size and count out while auto scaling is on" },
  { "^InvalidParameter%.Management", "invalid", "install ack-node-problem-detector, or drop management.enable" },
  { "^OperationDenied%.NoStock", "quota", "add instance types or zones (vswitch_ids): none of these can be had now" },
  { "^OperationDenied%.?.*Balance", "quota", "the account's balance is too low: top it up" },
  { "^InvalidAccountStatus", "quota", "the account's balance is too low, or it is not verified" },
  { "^QuotaExceed", "quota", "ask for a higher quota in Quota Center" },
  { "^Quota", "quota", "ask for a higher quota in Quota Center" },
  { "LimitExceed", "quota", "ask for a higher quota in Quota Center" },
  { "^IdempotentParameterMismatch", "conflict", "the same ClientToken was used with other parameters: take a new one" },
  { "^ScalingActivityInProgress", "conflict", "the scaling group is at work: wait for the activity to end" },
  { "^IncorrectScalingGroupStatus", "conflict", "the scaling group is not active: enable it, or wait for its deletion to end" },
  { "^IncorrectInstanceStatus", "conflict", "the instance is on its way to another state: wait, then call again" },
  { "^OperationConflict", "conflict", "something else changes the same object: wait, then call again" },
  { "^ErrorQueryCluster", "internal", "the service's own trouble: call again, then ask support with the request id" },
  { "^ServiceUnavailable", "internal", "the service's own trouble: call again, then ask support with the request id" },
  { "^InternalError", "internal", "the service's own trouble: call again, then ask support with the request id" },
  { "AlreadyExist", "conflict", "an object of that name exists: choose another name, or adopt it" },
  { "^MissingParameter", "invalid", "add the parameter that the message names" },
  { "^MissingParam", "invalid", "add the parameter that the message names" },
  { "^InvalidParameter", "invalid" },
  { "^Invalid", "invalid" },
}

local by_status = { [401] = "denied", [403] = "denied", [404] = "not_found", [409] = "conflict", [429] = "throttled" }

---The kind of a failure, and a hint or nil.
---@param code string
---@param status integer HTTP status
---@return eirun.ErrorKind
---@return string|nil
function M.classify(code, status)
  for _, rule in ipairs(rules) do
    if code:find(rule[1]) then return rule[2], rule[3] end
  end
  return by_status[status] or status >= 500 and "internal" or "invalid", nil
end

---Does the code say that a RAM action is not allowed?
---@param code string
---@return boolean
function M.is_permission(code)
  local _, hint = M.classify(code, 400)
  return hint == GRANT
end

return M
