-- SPDX-License-Identifier: Apache-2.0
-- Before a volume is made: can who will read it read what it shows? Otherwise a pod would wait for a mount that cannot be.
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local service = require "eirun.oss.service"
local step = require "eirun.step"
local target = require "eirun.target"
local xml = require "eirun.oss.xml"

local M = {}

M.SUBJECT, M.AUDIENCE = "system:serviceaccount:ack-csi-fuse:csi-fuse-ossfs", "sts.aliyuncs.com"

local function who_of(given)
  return ("PersistentVolume '%s'"):format(given.name)
end

-- The role's trust -----------------------------------------------------------------------------------------------------

local function list_of(value)
  if type(value) == "table" and (json.is_array(value) or #value > 0) then return value end
  return value ~= nil and { value } or {}
end

local function has(value, wanted)
  for _, one in ipairs(list_of(value)) do if one == wanted then return true end end
  return false
end

-- The values that conditions such as StringEquals hold for a key, whose name is in any case.
local function condition_of(statement, key)
  for _, pairs_of in pairs(type(statement.Condition) == "table" and statement.Condition or {}) do
    for name, value in pairs(type(pairs_of) == "table" and pairs_of or {}) do
      if name:lower() == key then return value end
    end
  end
end

local function fits(value, wanted)
  if value == nil then return true end
  for _, one in ipairs(list_of(value)) do
    local pattern = "^" .. tostring(one):gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$"
    if wanted:find(pattern) then return true end
  end
  return false
end

-- One statement for the driver's service account: nil when it lets it in, or what does not fit.
local function misfit(statement, provider)
  local federated = list_of(type(statement.Principal) == "table" and statement.Principal.Federated or nil)
  if statement.Effect ~= "Allow" or not (has(statement.Action, "sts:AssumeRole") or has(statement.Action, "*")) or #federated == 0 then
    return "trusts no OIDC provider", 1
  end
  if not has(federated, provider) then return ("trusts '%s', not '%s'"):format(federated[1], provider), 2 end
  local subject, audience = condition_of(statement, "oidc:sub"), condition_of(statement, "oidc:aud")
  if not fits(subject, M.SUBJECT) then return ("trusts the subject '%s', not '%s'"):format(list_of(subject)[1], M.SUBJECT), 3 end
  if not fits(audience, M.AUDIENCE) then return ("trusts the audience '%s', not '%s'"):format(list_of(audience)[1], M.AUDIENCE), 4 end
end

---Why a role's trust policy keeps the volume driver out; nil when it lets it in.
---@param document table the decoded AssumeRolePolicyDocument
---@param provider string ARN of the cluster's OIDC provider
---@return string|nil
---Example: `reader.distrust(json.decode(role.AssumeRolePolicyDocument), "acs:ram::1:oidc-provider/ack-rrsa-c1")`. Raises nothing.
function M.distrust(document, provider)
  local words, nearest = "trusts no OIDC provider", 0
  for _, statement in ipairs(list_of(document.Statement)) do
    local text, near = misfit(statement, provider)
    if not text then return nil end
    if near > nearest then words, nearest = text, near end
  end
  return words
end

local function trust_policy(provider)
  return json.encode { Version = "1", Statement = { { Effect = "Allow", Action = "sts:AssumeRole", Principal = { Federated = { provider } },
    Condition = { StringEquals = { ["oidc:aud"] = M.AUDIENCE, ["oidc:sub"] = M.SUBJECT } } } } }
end

local function no_role(given, name)
  errors.raise("not_found", ("%s: there is no RAM role '%s'"):format(who_of(given), name),
    { object = who_of(given), code = "EntityNotExist.Role", hint = "make the role, or name one that there is" })
end

-- Only a role of our own account can be looked at.
local function check_trust(given, cluster)
  local account, name = (given.role_arn or ""):match "^acs:ram::(%d+):role/(.+)$"
  name = name or given.role
  local ok, answer = pcall(cloud.rpc, "ram", "GetRole", { RoleName = name }, "role '" .. name .. "'")
  if not ok then
    local err = errors.from(answer)
    if err.kind == "not_found" and (not account or account == target.current().account) then no_role(given, name) end
    if err.kind ~= "denied" and err.kind ~= "network" and err.kind ~= "not_found" then error(err, 0) end
    return step.note(("the trust of role '%s' was not checked: %s"):format(name, err.message))
  end
  local role = answer.Role or {}
  account = account or tostring(role.Arn):match "^acs:ram::(%d+):"
  local provider = given.oidc_provider_arn or cluster and ("acs:ram::%s:oidc-provider/ack-rrsa-%s"):format(account, cluster)
  if not provider then return end
  local words = M.distrust(json.decode(role.AssumeRolePolicyDocument or "{}") or {}, provider)
  if not words then return end
  errors.raise("invalid", ("%s: role '%s' %s"):format(who_of(given), name, words), { object = who_of(given), code = "Trust",
    hint = "let its trust policy say " .. trust_policy(provider) })
end

-- The bucket -------------------------------------------------------------------------------------------------------------

local function text_in(data, key)
  return data[key] and crypto.unbase64(data[key])
end

-- Keys as the driver reads them: akId and akSecret as they are spelled, else AccessKeyId and AccessKeySecret in any case.
local function keys_in(secret)
  local data, lower = secret.data or {}, {}
  if data.akId then return { access_key_id = text_in(data, "akId"), access_key_secret = text_in(data, "akSecret") } end
  for key, value in pairs(data) do lower[key:lower()] = value end
  return { access_key_id = text_in(lower, "accesskeyid"), access_key_secret = text_in(lower, "accesskeysecret"),
    security_token = text_in(lower, "securitytoken") }
end

local hints = {
  InvalidAccessKeyId = "put a key that exists into %s",
  SignatureDoesNotMatch = "correct the secret key in %s",
  AccessDenied = "grant the owner of the key in %s oss:Get* and oss:List* on the bucket; where only its VPC may read the bucket, say "
    .. "check = false",
}

local function refuse(given, err, secret)
  local hint = secret and (hints[err.code or ""] or err.status == 403 and hints.AccessDenied)
  errors.raise(err.kind, ("%s cannot be read: %s"):format(who_of(given), err.message), { object = who_of(given), code = err.code,
    status = err.status, request_id = err.request_id, hint = hint and hint:format(secret) or err.hint })
end

-- An endpoint inside the VPC is not to be reached from everywhere: the public one shows the same bucket.
local function place_of(given)
  local url = given.url
  if not url or url:find("-internal.", 1, true) or url:find("oss-data-acc", 1, true) then return {} end
  return { endpoint = url }
end

local function ask(given, region, keys, call)
  call.bucket, call.region, call.place, call.attempts, call.credentials = given.bucket, region, place_of(given), 3, keys
  local ok, reply = pcall(service.call, call)
  return ok and reply or nil, not ok and errors.from(reply) or nil
end

local function first_below(given, region, keys, prefix)
  local reply, err = ask(given, region, keys, { method = "GET", verb = "list", query = { ["list-type"] = "2", ["max-keys"] = 2,
    prefix = prefix ~= "" and prefix or nil } })
  if not reply then return nil, err end
  local found
  for _, contents in ipairs(service.element(reply, "ListBucketResult").Contents or {}) do
    found = xml.text(contents, "Key") or found -- the second one, where the first is the folder itself
  end
  return found or ""
end

local function nothing_there(given, prefix)
  errors.raise("not_found", ("%s: nothing is stored at oss://%s/%s"):format(who_of(given), given.bucket, prefix),
    { object = who_of(given), code = "NoSuchPrefix",
      hint = "upload the model first (eirun oss publish, ensure_tree), or correct the path" })
end

-- Lists the prefix and looks at one object: rights to list and to read are two. Of a role, whose keys we have not, the run's own rights
-- tell nothing.
local function check_bucket(given, region, keys, secret)
  local prefix = (given.path or "/"):gsub("^/+", ""):gsub("/+$", "")
  prefix = prefix ~= "" and prefix .. "/" or ""
  local key, err = first_below(given, region, keys, prefix)
  if key == "" and prefix ~= "" and given.read_only ~= false then nothing_there(given, prefix) end
  if key and key ~= "" then
    local _, bad = ask(given, region, keys, { method = "HEAD", key = key, verb = "read" })
    err = bad
  end
  if not err then return end
  if err.kind == "cancelled" then error(err, 0) end
  local unknown = not err.status or not keys and err.kind == "denied" -- no answer at all, or one that is not about the reader
  if unknown then return step.note(("%s was not looked at: %s"):format(who_of(given), err.message)) end
  refuse(given, err, secret)
end

---Looks with the reader's own identity: a role's trust, the key of the Secret; then at the bucket below the path.
---@param given table as `ensure_oss_volume` has it
---@param reader {secret?: table, keys?: eirun.Credentials, region: string, namespace: string, cluster?: string} secret: the Secret as it
--- was read; keys: those that will be put into one; neither: a role
---Example: `reader.check(given, { secret = k8s:get("Secret", given.secret), region = "cn-hangzhou", namespace = "serving" })`.
---Raises "not_found" for no bucket, no role, nothing at the path; "denied" with the server's words; "invalid" for a role that does not
---trust
---the driver. What cannot be asked from here is noted and passed over.
function M.check(given, reader)
  if reader.secret then
    return check_bucket(given, reader.region, credentials.static(keys_in(reader.secret)),
      ("Secret '%s/%s'"):format(reader.namespace, given.secret))
  end
  if reader.keys then return check_bucket(given, reader.region, reader.keys) end
  check_trust(given, reader.cluster)
  check_bucket(given, reader.region)
end

return M
