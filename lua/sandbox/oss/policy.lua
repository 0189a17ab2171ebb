-- SPDX-License-Identifier: Apache-2.0
-- RAM policies, as far as the object store asks them: Effect, Action and Resource with "*" and "?"; a Deny wins.
local json = require "eirun.core.json"

local M = {}

local function as_list(value)
  if value == nil then return {} end
  return type(value) == "table" and value or { value }
end

local function glob(pattern, text)
  pattern = pattern:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return text:find("^" .. pattern .. "$") ~= nil
end

local function any(patterns, text)
  for _, pattern in ipairs(as_list(patterns)) do
    if glob(pattern:lower(), text:lower()) then return true end
  end
  return false
end

-- "acs:oss:*:*:bucket/key" against "bucket/key": region and account are not told apart here.
local function resource_matches(patterns, resource)
  for _, pattern in ipairs(as_list(patterns)) do
    local tail = pattern:match "^acs:oss:[^:]*:[^:]*:(.*)$" or pattern
    if glob(tail, resource) then return true end
  end
  return false
end

local function verdict(document, action, resource)
  if type(document) == "string" then document = json.decode(document) or {} end
  local allowed = false
  for _, statement in ipairs(as_list(document.Statement)) do
    if any(statement.Action, action) and resource_matches(statement.Resource, resource) then
      if statement.Effect == "Deny" then return "deny" end
      allowed = true
    end
  end
  return allowed and "allow" or nil
end

---@param policies table|nil documents; nil is an account's own key, which may do everything
---@param action string "oss:GetObject"
---@param resource string "bucket/key"
---@return boolean
function M.allows(policies, action, resource)
  if policies == nil then return true end
  local allowed = false
  for _, document in ipairs(policies) do
    local said = verdict(document, action, resource)
    if said == "deny" then return false end
    allowed = allowed or said == "allow"
  end
  return allowed
end

return M
