-- SPDX-License-Identifier: Apache-2.0
-- Limits around what runs: the namespace, its quota, and how many pods a drain must leave.
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local spec = require "eirun.spec"
local task = require "eirun.task"

local M = {}

local NAME = "^[a-z0-9][a-z0-9-]*$"

local function name_rule(text)
  if #text > 63 or not text:find(NAME) or text:find "%-$" then return ("'%s' is no name: up to 63 of a-z, 0-9 and '-'"):format(text) end
end

local function amount_rule(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  if #keys == 0 then return "limits nothing" end
  for _, key in ipairs(keys) do
    local value = map[key]
    local text = type(value) == "string" and value or math.type(value) == "integer" and tostring(value)
    if not text or not text:find "^%d+%.?%d*[mkKMGTPE]?i?$" then return ("of '%s' is no amount: %s"):format(key, tostring(value)) end
  end
end

local NAMESPACE_SECONDS = 20 -- a namespace that goes is given this long to be gone

-- What the namespace controller says about what is left in it.
local function held_by(namespace)
  local list = {}
  for _, condition in ipairs((namespace.status or {}).conditions or {}) do
    if condition.status == "True" then list[#list + 1] = condition.message end
  end
  return #list > 0 and table.concat(list, "; ") or "the server does not say what is left in it"
end

-- nil once there is no namespace of this name, or the one that stays.
local function settled_namespace(k8s, name)
  local limit = task.now() + NAMESPACE_SECONDS
  while true do
    local found = k8s:get("Namespace", name)
    if not found or not found.metadata.deletionTimestamp then return found end
    if task.now() >= limit then
      errors.raise("conflict", ("namespace '%s' is being deleted and does not go: %s"):format(name, held_by(found)), {
        code = "NamespaceTerminating", object = "Namespace '" .. name .. "'",
        hint = "let the owner of what holds it end its work, or take the finalizer off; then run again" })
    end
    task.sleep(1)
  end
end

local namespace_rules = { labels = { type = "table" }, quota = { type = "table", check = amount_rule } }

---@param k8s eirun.KubeClient
---@param name string
---@param opts? table
---@return eirun.KubeClient
function M.ensure_namespace(k8s, name, opts)
  opts = spec.check("ensure_namespace", opts or {}, namespace_rules)
  local bad = type(name) ~= "string" and "wants a name" or name_rule(name)
  if bad then spec.fail("ensure_namespace", bad) end
  local live = settled_namespace(k8s, name)
  if not live then
    ensure.ensure(k8s, { apiVersion = "v1", kind = "Namespace", metadata = { name = name, labels = opts.labels } })
  end
  local inside = k8s:namespace(name)
  if opts.quota then M.ensure_quota(inside, { hard = opts.quota }) end
  return inside
end

local quota_rules = { name = { type = "string", check = name_rule }, hard = { type = "table", required = true, check = amount_rule },
  adopt = { type = "boolean" } }

---@param k8s eirun.KubeClient
---@param given table
---@return table quota
---@return string outcome
function M.ensure_quota(k8s, given)
  spec.check("ensure_quota", given, quota_rules)
  local hard = {}
  for key, value in pairs(given.hard) do hard[key] = tostring(value) end
  return ensure.ensure(k8s, { apiVersion = "v1", kind = "ResourceQuota", metadata = { name = given.name or "eirun", namespace = k8s.ns },
    spec = { hard = hard } }, { adopt = given.adopt })
end

local function share_rule(value)
  if math.type(value) == "integer" and value >= 0 then return nil end
  if type(value) == "string" and value:find "^%d+%%$" then return nil end
  return ("must be a number of pods or a share such as \"25%%\", got %s"):format(tostring(value))
end

local pdb_rules = { name = { type = "string", required = true, check = name_rule }, labels = { type = "table", required = true },
  min_available = { type = "any", check = share_rule }, max_unavailable = { type = "any", check = share_rule },
  adopt = { type = "boolean" } }

---@param k8s eirun.KubeClient
---@param given table
---@return table budget
---@return string outcome
function M.ensure_pdb(k8s, given)
  spec.check("ensure_pdb", given, pdb_rules)
  if (given.min_available == nil) == (given.max_unavailable == nil) then
    spec.fail("ensure_pdb", "wants either min_available or max_unavailable")
  end
  if next(given.labels) == nil then spec.fail("ensure_pdb", "labels are empty: that would mean all pods of the namespace") end
  return ensure.ensure(k8s, { apiVersion = "policy/v1", kind = "PodDisruptionBudget",
    metadata = { name = given.name, namespace = k8s.ns }, spec = { selector = { matchLabels = given.labels },
      minAvailable = given.min_available, maxUnavailable = given.max_unavailable } }, { adopt = given.adopt })
end

return M
