-- SPDX-License-Identifier: Apache-2.0
-- What a server's code means for the one who called: its kind, and what to do next. First match wins.
local M = {}

-- pattern (Lua), kind, hint
local rules = {
  { "Throttling", "throttled" },
  { "QPS Limit Exceeded", "throttled" },
  { "^SignatureDoesNotMatch$", "denied", "the access key's secret is wrong, or a proxy changed the request" },
  { "^SignatureNonceUsed$", "conflict" },
  { "^InvalidTimeStamp", "denied", "set this machine's clock: more than 15 minutes off" },
  { "^IncompleteSignature", "denied", "check the access key's secret" },
  { "^InvalidAccessKeyId", "denied", "the access key does not exist or is disabled; check ALIBABA_CLOUD_ACCESS_KEY_ID" },
  { "^MissingSecurityToken", "denied", "temporary keys need their token: set ALIBABA_CLOUD_SECURITY_TOKEN" },
  { "^InvalidSecurityToken", "denied", "the temporary keys have expired; get new ones" },
  { "^Forbidden", "denied", "grant the RAM action to the key's owner" },
  { "^NoPermission", "denied", "grant the RAM action to the key's owner" },
  { "^StatusForbidden", "denied", "grant the RAM action to the key's owner" },
  { "^ErrorCheckAcl", "denied", "the cluster belongs to somebody else, or the RAM user has no right on it" },
  { "^MissingAuth", "denied", "create the service role that the message names, in the RAM console" },
  { "^InvalidAction", "invalid", "wrong product, version, region or endpoint" },
  { "^InvalidVersion", "invalid", "wrong API version for this product" },
  { "^ErrorClusterNotFound", "not_found", "check the cluster id and the region: ids are known in their own region only" },
  { "^ErrorNodePoolNotFound", "not_found" },
  { "^AddonNotFound", "not_found", "list the add-ons that this cluster can have with ListAddons" },
  { "NotFound", "not_found" },
  { "NotExist", "not_found" },
  { "^ErrorClusterState", "conflict", "wait until the cluster is running" },
  { "^InvalidNodePoolStatus", "conflict", "the pool is busy or could not be deleted: wait, or repair it in the console" },
  { "^InvalidDesiredSizeOrCount", "invalid", "leave desired_size and count out while auto scaling is on" },
  { "^InvalidParameter%.Management", "invalid", "install ack-node-problem-detector, or drop management.enable" },
  { "^InvalidVSwitchId%.IpNotEnough", "quota", "the vSwitch has no free addresses: add another one" },
  { "^OperationDenied%.NoStock", "quota", "add instance types or zones (vswitch_ids): none of these can be had now" },
  { "^QuotaExceed", "quota", "ask for a higher quota in Quota Center" },
  { "^IdempotentParameterMismatch", "conflict" },
  { "^ScalingActivityInProgress", "conflict" },
  { "^IncorrectScalingGroupStatus", "conflict" },
  { "^ErrorQueryCluster", "internal" },
  { "^ServiceUnavailable", "internal" },
  { "^InternalError", "internal" },
  { "AlreadyExist", "conflict" },
  { "^MissingParameter", "invalid" },
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

return M
