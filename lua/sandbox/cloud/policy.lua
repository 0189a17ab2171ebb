-- SPDX-License-Identifier: Apache-2.0
-- RAM policies, as much as a permission check needs: Effect, Action and Resource with "*" and "?"; a Deny wins.
local policy = {}

local function pattern_of(text)
  return "^" .. text:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".") .. "$"
end

local function any_matches(value, text, fold)
  local list = type(value) == "table" and value or { value }
  for _, one in ipairs(list) do
    local pattern = pattern_of(fold and one:lower() or one)
    if (fold and text:lower() or text):find(pattern) then return true end
  end
  return false
end

local function applies(statement, action, resource)
  return any_matches(statement.Action, action, true) and any_matches(statement.Resource or "*", resource)
end

-- policies: list of documents { Statement = { {Effect, Action, Resource}... } }; nil means everything is allowed.
function policy.allows(policies, action, resource)
  if not policies then return true end
  local allowed = false
  for _, document in ipairs(policies) do
    for _, statement in ipairs(document.Statement) do
      if applies(statement, action, resource or "*") then
        if statement.Effect == "Deny" then return false, "ExplicitDeny" end
        allowed = true
      end
    end
  end
  return allowed, not allowed and "ImplicitDeny" or nil
end

return policy
