-- SPDX-License-Identifier: Apache-2.0
-- What an autoscaler may scale on, from a playbook's words to autoscaling/v2; and how it may move.
local json = require "eirun.core.json"
local spec = require "eirun.spec"

local M = {}

local WHAT = "ensure_hpa"

-- A quantity without a binary fraction in it: 10 is "10", 0.5 is "500m". Text is a quantity already: "500Mi".
local function quantity(value)
  if type(value) == "string" then return value end
  if value == math.floor(value) then return ("%d"):format(value) end
  return ("%dm"):format(math.floor(value * 1000 + 0.5))
end

local function positive(value)
  if type(value) == "number" and not (value > 0 and value < math.huge) then return "must be above 0" end
  if type(value) == "string" and not value:find "^%d+%.?%d*[numkKMGTPE]?i?$" then return ("'%s' is no quantity"):format(value) end
  if type(value) ~= "number" and type(value) ~= "string" then return "must be a number or a quantity such as \"500Mi\"" end
end

local amount = { type = "any", check = positive }
local percent = { type = "integer", min = 1, max = 10000 }

local rules = {
  external = { metric = { type = "string", required = true, match = "^[%w_.-]+$", says = "a metric's name" },
    selector = { type = "table", required = true }, average = amount, value = amount },
  resource = { name = { type = "string", required = true, one_of = { cpu = true, memory = true } }, utilization = percent,
    average = amount },
  container = { name = { type = "string", required = true, one_of = { cpu = true, memory = true } },
    container = { type = "string", required = true }, utilization = percent, average = amount },
  pods = { metric = { type = "string", required = true }, selector = { type = "table" }, average = amount },
  object = { metric = { type = "string", required = true }, selector = { type = "table" }, kind = { type = "string", required = true },
    api_version = { type = "string" }, name = { type = "string", required = true }, average = amount, value = amount },
}

M.metric_rule = { type = "table", fields = { external = { type = "table", fields = rules.external },
  resource = { type = "table", fields = rules.resource }, container = { type = "table", fields = rules.container },
  pods = { type = "table", fields = rules.pods }, object = { type = "table", fields = rules.object } } }
M.external_rules = rules.external

-- Which kinds of target a metric may have.
local targets = { external = { "average", "value" }, resource = { "utilization", "average" }, container = { "utilization", "average" },
  pods = { "average" }, object = { "average", "value" } }

local function only(kind, given)
  local found
  for _, name in ipairs(targets[kind]) do
    if given[name] ~= nil then
      if found then spec.fail(WHAT, ("%s wants either %s"):format(kind, table.concat(targets[kind], " or "))) end
      found = name
    end
  end
  return found or spec.fail(WHAT, ("%s wants either %s"):format(kind, table.concat(targets[kind], " or ")))
end

local function target_of(kind, given)
  local how = only(kind, given)
  if how == "average" then return { type = "AverageValue", averageValue = quantity(given.average) } end
  if how == "value" then return { type = "Value", value = quantity(given.value) } end
  return { type = "Utilization", averageUtilization = given.utilization }
end

local function metric_of(given)
  return { name = given.metric, selector = given.selector and { matchLabels = given.selector } or nil }
end

local builders = {
  external = function(given) return { metric = metric_of(given), target = target_of("external", given) } end,
  resource = function(given) return { name = given.name, target = target_of("resource", given) } end,
  container = function(given) return { name = given.name, container = given.container, target = target_of("container", given) } end,
  pods = function(given) return { metric = metric_of(given), target = target_of("pods", given) } end,
  object = function(given)
    return { metric = metric_of(given), target = target_of("object", given),
      describedObject = { apiVersion = given.api_version, kind = given.kind, name = given.name } }
  end,
}
local types = { external = "External", resource = "Resource", container = "ContainerResource", pods = "Pods", object = "Object" }
local members = { external = "external", resource = "resource", container = "containerResource", pods = "pods", object = "object" }

local function one(entry, place)
  spec.check(place, entry, M.metric_rule.fields)
  local kind
  for name in pairs(builders) do
    if entry[name] then
      if kind then spec.fail(WHAT, place .. " names two metrics: make two entries of it") end
      kind = name
    end
  end
  if not kind then spec.fail(WHAT, place .. " wants one of container, external, object, pods, resource") end
  return { type = types[kind], [members[kind]] = builders[kind](entry[kind]) }
end

---The `metrics` of an autoscaler.
---@param given table external, cpu, memory and metrics of ensure_hpa
---@return table
function M.list(given)
  local list = json.array {}
  if given.external then list[1] = one({ external = given.external }, "external") end
  for _, name in ipairs { "cpu", "memory" } do
    if given[name] then list[#list + 1] = one({ resource = { name = name, utilization = given[name] } }, name) end
  end
  for i, entry in ipairs(given.metrics or {}) do list[#list + 1] = one(entry, ("metrics[%d]"):format(i)) end
  if #list == 0 then spec.fail(WHAT, "wants a metric: external, cpu, memory or metrics") end
  return list
end

-- Behaviour -----------------------------------------------------------------------------------------------------------

local policy_rules = { type = { type = "string", required = true, one_of = { Pods = true, Percent = true } },
  value = { type = "integer", required = true, min = 1 }, periodSeconds = { type = "integer", required = true, min = 1, max = 1800 } }
local direction = { type = "table", fields = {
  stabilizationWindowSeconds = { type = "integer", min = 0, max = 3600 },
  selectPolicy = { type = "string", one_of = { Max = true, Min = true, Disabled = true } },
  policies = { type = "list" }, tolerance = { type = "any", check = positive } } }

M.behavior_rule = { type = "table", fields = { scaleUp = direction, scaleDown = direction } }

---Checks the policies of a behaviour; the rest is checked by its rule.
---@param behavior table|nil
function M.check_behavior(behavior)
  for _, way in ipairs { "scaleUp", "scaleDown" } do
    for i, policy in ipairs(behavior and behavior[way] and behavior[way].policies or {}) do
      spec.check(("%s.behavior.%s.policies[%d]"):format(WHAT, way, i), policy, policy_rules)
    end
  end
end

return M
