-- SPDX-License-Identifier: Apache-2.0
-- Which RAM actions the key has. Reads are tried; writes are judged by the policies attached to the caller, where those can be read.
local cloud = require "eirun.cloud"
local codes = require "eirun.cloud.codes"
local errors = require "eirun.errors"
local json = require "eirun.core.json"

local M = {}

local function pattern_of(text)
  return "^" .. text:lower():gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$"
end

local function matches(value, text)
  for _, one in ipairs(type(value) == "table" and value or { value }) do
    if text:lower():find(pattern_of(tostring(one))) then return true end
  end
  return false
end

-- "*", or whatever covers any resource of the product: a narrower one may or may not be the right one.
local function covers_all(value)
  for _, one in ipairs(type(value) == "table" and value or { value or "*" }) do
    if tostring(one):find("^[%*:]+$") or tostring(one):find("^acs:%w+:%*:[%*%d]+:%*$") then return true end
  end
  return false
end

-- What one statement says of an action: "Allow", "Deny", "open" where a condition or a narrow resource decides, or nothing.
local function says(statement, action)
  if statement.NotAction then return "open" end
  if not matches(statement.Action, action) then return nil end
  local certain = statement.Condition == nil and covers_all(statement.Resource)
  return certain and statement.Effect or "open", statement.Effect
end

---Do these policies allow an action? A Deny wins; conditions and narrow resources leave it open.
---@param documents table[]
---@param action string
---@return "allowed"|"denied"|"unknown"
---Example: `permissions.judge(documents, "cs:CreateClusterNodePool")`. Raises nothing.
function M.judge(documents, action)
  local allowed, open, maybe_denied = false, false, false
  for _, document in ipairs(documents) do
    local statements = document.Statement or {}
    for _, statement in ipairs(json.is_array(statements) and statements or { statements }) do
      local word, effect = says(statement, action)
      if word == "Deny" then return "denied" end
      allowed = allowed or word == "Allow"
      open = open or word == "open"
      maybe_denied = maybe_denied or word == "open" and effect ~= "Allow"
    end
  end
  if allowed and not maybe_denied then return "allowed" end
  return (allowed or open) and "unknown" or "denied"
end

local function policies_by(action, query)
  local list = ((cloud.rpc("ram", action, query) or {}).Policies or {}).Policy or {}
  local documents = {}
  for i, entry in ipairs(list) do
    local answer = cloud.rpc("ram", "GetPolicy", { PolicyName = entry.PolicyName, PolicyType = entry.PolicyType })
    local text = (answer.DefaultPolicyVersion or {}).PolicyDocument
    documents[i] = text and json.decode(text) or errors.raise("internal", "policy '" .. entry.PolicyName .. "' cannot be read")
  end
  return documents
end

local function append(list, more) return table.move(more, 1, #more, #list + 1, list) end

local function of_user(name)
  local documents = policies_by("ListPoliciesForUser", { UserName = name })
  local groups = ((cloud.rpc("ram", "ListGroupsForUser", { UserName = name }) or {}).Groups or {}).Group or {}
  for _, group in ipairs(groups) do append(documents, policies_by("ListPoliciesForGroup", { GroupName = group.GroupName })) end
  return documents
end

---The policies of the caller: `true` for the account itself, nil where they cannot be read.
---@param identity {IdentityType: string, Arn: string}
---@return table[]|true|nil documents
---@return string|nil why
---Example: `permissions.policies(cloud.caller_identity())`. Raises only `cancelled`.
function M.policies(identity)
  if identity.IdentityType == "Account" then return true end
  local user = identity.Arn:match(":user/(.+)$")
  local role = identity.Arn:match(":assumed%-role/([^/]+)")
  local ok, result
  if user then
    ok, result = pcall(of_user, user)
  elseif role then
    ok, result = pcall(policies_by, "ListPoliciesForRole", { RoleName = role })
  else
    return nil, "nobody knows how to read the policies of " .. identity.Arn
  end
  if ok then return result end
  if errors.is(result, "cancelled") then error(result, 0) end
  return nil, errors.from(result).message
end

---A read that is tried: whether the key may do it. Other failures say nothing of permissions.
---@param product string
---@param action string
---@param call fun(): any
---@return eirun.Error|nil refused
---Raises only `cancelled`.
function M.try(product, action, call)
  local ok, err = pcall(call)
  if ok then return nil end
  err = errors.from(err)
  if err.kind == "cancelled" then error(err, 0) end
  if not codes.is_permission(err.code or "") then return nil end
  err.action = product .. ":" .. action
  return err
end

return M
