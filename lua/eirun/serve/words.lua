-- SPDX-License-Identifier: Apache-2.0
-- What arena's flags write as words and Kubernetes as objects. Pure: each answers the object, or nil and what is wrong.
local spec = require "eirun.spec"

local M = {}

local LABEL_VALUE = "^[A-Za-z0-9]([A-Za-z0-9_.-]*)$"

---Labels, or annotations of a node, that can be none.
---@param labels table<string, any>
---@return string|nil problem
function M.label_problem(labels)
  for key, value in pairs(labels) do
    value = value == spec.unknown and "unknown" or tostring(value)
    if #value > 63 or value ~= "" and not value:find(LABEL_VALUE) then return ("has '%s' as the value of %s"):format(value, key) end
  end
end

local function as_list(given)
  return type(given) == "string" and { given } or given
end

-- A map, or `k=v` words; `k:v` means the same, since arena drops it without a word.
---@param given table|string|nil
---@return table<string, string>|nil
---@return string|nil problem
function M.selector(given)
  local made = {}
  for key, value in pairs(as_list(given) or {}) do
    if type(key) == "number" then
      local text = value
      key, value = tostring(text):match("^([^=]+)=(.*)$")
      if not key then key, value = tostring(text):match("^([^:]+):(.*)$") end
      if not key then return nil, ("has '%s', neither key=value nor key:value"):format(tostring(text)) end
    end
    made[key] = tostring(value)
  end
  local problem = M.label_problem(made)
  if problem then return nil, problem end
  return made
end

local effects = { NoSchedule = true, PreferNoSchedule = true, NoExecute = true }

local function toleration(text)
  if text == "all" then return { operator = "Exists" } end
  local rest, operator = text:match("^(.-),(%a+)$")
  local key, effect = (rest or text):match("^(.-):(%a+)$")
  if not key or not effects[effect] or operator and operator ~= "Equal" and operator ~= "Exists" then return nil end
  local name, value = key:match("^([^=]+)=(.*)$")
  name = name or key
  operator = operator or (value and "Equal" or "Exists")
  return { key = name, value = operator == "Equal" and (value or "") or nil, effect = effect, operator = operator }
end

-- Objects as Kubernetes has them, or arena's words: `all`, `key=value:effect,operator`.
---@param given table|string|nil
---@return table[]|nil
---@return string|nil problem
function M.tolerations(given)
  local list = {}
  for i, entry in ipairs(as_list(given) or {}) do
    list[i] = type(entry) == "table" and entry or toleration(tostring(entry))
    if not list[i] then return nil, ("has '%s', neither 'all' nor key=value:effect nor key:effect"):format(tostring(entry)) end
  end
  return list
end

---A number of pods, or a share of them.
---@param value any
---@return string|nil problem
function M.share_problem(value)
  if math.type(value) == "integer" and value >= 0 then return nil end
  local percent = type(value) == "string" and tonumber(value:match("^(%d+)%%$"))
  if percent and percent <= 100 then return nil end
  return ("is '%s', neither a number of pods nor a share such as 25%%"):format(tostring(value))
end

return M
