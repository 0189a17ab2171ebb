-- SPDX-License-Identifier: Apache-2.0
-- The one way to change the world: observe, compare, (guards,) act, wait. Each is a function of its own, so that a plan is
-- the first two and nothing more.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local step = require "eirun.step"

local M = {}

---@class eirun.Change
---@field field string path of the field, `scaling_group.spot_instance_pools`
---@field from any nil when it was not there
---@field to any nil when it goes away

---@class eirun.Resource
---@field kind string "node pool", "Deployment"
---@field name string
---@field observe fun(): table|nil what is there, nil when nothing is
---@field compare fun(observed: table|nil): eirun.Change[] empty: as wanted
---@field act fun(plan: eirun.Plan): table|nil makes the changes
---@field wait? fun(plan: eirun.Plan): table|nil waits until it is well; also runs when nothing had to be changed
---@field foreign? fun(observed: table): string|nil whose it is, when not ours
---@field adopt? boolean take over what is not ours

---@class eirun.Plan
---@field resource eirun.Resource
---@field action "create"|"update"|"delete"|"none"
---@field observed table|nil
---@field changes eirun.Change[]
---@field result any what act returned

local guards = {}

---Adds a function between comparing and acting: `guard(plan)` answers true, or nil and a reason. Returns one that removes it.
---@param guard fun(plan: eirun.Plan): boolean|nil, string|nil
---@return fun()
---Example: `local remove = resource.guard(function(plan) return plan.action ~= "update", "only new things today" end)`. Raises nothing.
function M.guard(guard)
  guards[#guards + 1] = guard
  return function()
    for i, other in ipairs(guards) do if other == guard then return table.remove(guards, i) end end
  end
end

local function check_owner(resource, observed)
  local owner = observed and resource.foreign and not resource.adopt and resource.foreign(observed)
  if not owner then return end
  errors.raise("conflict", ("%s '%s' exists and %s"):format(resource.kind, resource.name, owner), {
    object = ("%s '%s'"):format(resource.kind, resource.name),
    hint = "choose another name, or say adopt = true to take it over",
  })
end

---Observe and compare: what would be done, with nothing done.
---@param resource eirun.Resource
---@return eirun.Plan
---Example: `print(resource.plan(pool).action)`. Raises "conflict" for an object that is not ours, and what observing raises.
function M.plan(resource)
  local observed = resource.observe()
  check_owner(resource, observed)
  local changes = resource.compare(observed)
  local action = not observed and "create" or #changes > 0 and "update" or "none"
  return { resource = resource, action = action, observed = observed, changes = changes }
end

local function review(plan)
  for _, guard in ipairs(guards) do
    local ok, reason = guard(plan)
    if not ok then
      errors.raise("denied", ("a guard refused to %s %s '%s': %s"):format(plan.action, plan.resource.kind, plan.resource.name,
        reason or "no reason given"), { code = "guard" })
    end
  end
end

local outcomes = { create = "created", update = "updated", delete = "deleted", none = "unchanged" }

---Carries out a plan and waits until the object is well.
---@param plan eirun.Plan
---@return any observed what `wait` saw, else what `act` returned, else what was observed
---@return string outcome "created", "updated", "deleted" or "unchanged"
---Example: `local pool, outcome = resource.apply(resource.plan(wanted))`. Raises "denied" (code "guard") when a guard refuses, and what
---acting and waiting raise.
function M.apply(plan)
  local resource = plan.resource
  if plan.action ~= "none" then
    review(plan)
    plan.result = resource.act(plan)
  end
  local outcome = outcomes[plan.action]
  step.record { kind = resource.kind, name = resource.name, outcome = outcome, changes = plan.changes }
  local seen = resource.wait and resource.wait(plan)
  return seen or plan.result or plan.observed, outcome
end

---Makes it so: plan and apply.
---@param resource eirun.Resource
---@return any observed
---@return string outcome
---Example:
---```lua
---local pool = resource.ensure { kind = "node pool", name = "gpu", observe = find, compare = differ, act = put }
---```
---Raises what its functions raise; kind "conflict" for an object that is not ours, "denied" when a guard refuses.
function M.ensure(resource)
  return M.apply(M.plan(resource))
end

-- Comparing ----------------------------------------------------------------------------------------------------------

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end
---The keys of a table, sorted as text: what goes over a wire or to a person is never in the order of `pairs`.
---@param t table
---@return any[]
---Example: `for _, key in ipairs(resource.sorted_keys(labels)) do print(key, labels[key]) end`. Raises nothing.
M.sorted_keys = sorted_keys

-- null, nil, 0, "" and {} are five different things; 3 and 3.0 are one number.
local function is_list(t)
  return json.is_array(t) or #t > 0
end

local function equal(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for key, value in pairs(a) do if not equal(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end
---Are two values equal, tables by content? null, nil, 0, "" and {} are five different things; 3 and 3.0 are one number.
---@param a any
---@param b any
---@return boolean
---Example: `resource.equal({ 1 }, { 1.0 })` is true. Raises nothing.
M.equal = equal

-- Lists of records are compared by what names a record, so that a reordering by the server is not a change.
local name_keys = { "name", "key", "mountPath", "containerPort", "type", "id" }

local function list_key(list)
  for _, key in ipairs(name_keys) do
    local all, seen = #list > 0, {}
    for _, item in ipairs(list) do
      local name = type(item) == "table" and item[key]
      if name == nil or name == false or seen[name] then all = false break end
      seen[name] = true
    end
    if all then return key end
  end
end

local function by_key(list, key)
  local map = {}
  for _, item in ipairs(list) do map[item[key]] = item end
  return map
end

local differ

local function differ_lists(path, from, to, opts, changes)
  local key = list_key(#to > 0 and to or from)
  local same_key = key and (#from == 0 or #to == 0 or list_key(from) == key)
  if not same_key then
    if not equal(from, to) then changes[#changes + 1] = { field = path, from = from, to = to } end
    return
  end
  local old, new = by_key(from, key), by_key(to, key)
  local names = {}
  for name in pairs(new) do names[name] = true end
  for name in pairs(old) do names[name] = true end
  for _, name in ipairs(sorted_keys(names)) do
    differ(("%s[%s]"):format(path, tostring(name)), old[name], new[name], opts, changes)
  end
end

local function differ_maps(path, from, to, opts, changes)
  local keys = {}
  for key in pairs(to) do keys[key] = true end
  if not opts.named_only then for key in pairs(from) do keys[key] = true end end
  for _, key in ipairs(sorted_keys(keys)) do
    local deeper = path == "" and tostring(key) or path .. "." .. tostring(key)
    differ(deeper, from[key], to[key], opts, changes)
  end
end

function differ(path, from, to, opts, changes)
  if opts.ignore and opts.ignore[path] then return end
  if type(from) == "table" and type(to) == "table" then
    if is_list(from) or is_list(to) then
      if opts.sets and opts.sets[path] then from, to = M.sorted(from), M.sorted(to) end
      return differ_lists(path, from, to, opts, changes)
    end
    return differ_maps(path, from, to, opts, changes)
  end
  if from ~= to then changes[#changes + 1] = { field = path, from = from, to = to } end
end

---A sorted copy of a list of scalars.
---@param list any[]
---@return any[]
---Example: `resource.sorted { "b", "a" }` is `{ "a", "b" }`. Raises nothing.
function M.sorted(list)
  local copy = table.move(list, 1, #list, 1, {})
  table.sort(copy, function(a, b) return tostring(a) < tostring(b) end)
  return copy
end

---The differences between what is and what should be, in a stable order.
---@param from table|nil what is there
---@param to table what should be
---@param opts? {named_only?: boolean, ignore?: table<string, true>, sets?: table<string, true>}
--- named_only: only fields that `to` names (what the server added is not a change);
--- ignore: paths left out; sets: paths of lists whose order means nothing
---@return eirun.Change[]
---Example: `resource.differences({ a = 1, b = 2 }, { a = 3 }, { named_only = true })` is `{{field="a", from=1, to=3}}`.
---Raises nothing.
function M.differences(from, to, opts)
  local changes = {}
  differ("", from or {}, to, opts or {}, changes)
  return changes
end

return M
