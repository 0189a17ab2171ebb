-- SPDX-License-Identifier: Apache-2.0
-- Waiting for objects of any kind: for a condition, a field, their birth or their end. It ends early on what cannot become well.
local client = require "eirun.kube.client"
local errors = require "eirun.errors"
local jsonpath = require "eirun.kube.jsonpath"
local kinds = require "eirun.kube.kinds"
local spec = require "eirun.spec"
local step = require "eirun.step"
local task = require "eirun.task"
local wait = require "eirun.kube.wait"

local M = {}

local QUICK, SLOW, QUICK_LOOKS, JUDGED = 0.2, 1, 10, 5 -- seconds between looks, how many are quick, every which one judges

---@class eirun.kube.Goal
---@field words string what is waited for
---@field met fun(object: table|nil): boolean
---@field seen fun(object: table): string how it stands
---@field status? boolean it is about the status
---@field gone? boolean
---@field create? boolean

-- Goals ----------------------------------------------------------------------------------------------------------------

local function condition_of(object, name)
  local status = type(object.status) == "table" and object.status or {}
  for _, entry in ipairs(type(status.conditions) == "table" and status.conditions or {}) do
    if tostring(entry.type):lower() == name:lower() then return entry, entry.observedGeneration or status.observedGeneration end
  end
end

local function condition_met(object, name, value)
  local entry, observed = condition_of(object, name)
  local wanted = object.metadata.generation
  if not entry or wanted and observed and observed < wanted then return false end
  return tostring(entry.status):lower() == value:lower()
end

local function condition_words(object, name)
  local entry = condition_of(object, name)
  if not entry then return ("it has no condition %s"):format(name) end
  local message = entry.message and entry.message ~= "" and (": \"%s\""):format(entry.message) or ""
  return ("%s is %s: %s%s"):format(entry.type, entry.status, entry.reason or "no reason given", message)
end

local function by_condition(text)
  local name, value = text:match "^([^=]+)=?(.*)$"
  if not name then spec.fail("wait", "condition is empty") end
  if value == "" then value = "True" end
  return { words = ("condition %s=%s"):format(name, value), status = true, name = name,
    met = function(object) return object ~= nil and condition_met(object, name, value) end,
    seen = function(object) return condition_words(object, name) end }
end

local function by_path(path, value)
  local template = jsonpath.relaxed(path)
  -- What cannot be looked up, as the first of an empty list, is not there yet.
  local function now(object)
    local ok, found = pcall(jsonpath.values, template, object)
    if ok then return found[1] end
    return nil, errors.from(found).message
  end
  return { words = value and ("%s is '%s'"):format(path, value) or path .. " is set", status = path:find "^{?%.status" ~= nil,
    met = function(object)
      local found = object and now(object)
      return found ~= nil and (value == nil or jsonpath.text(found) == value)
    end,
    seen = function(object)
      local found, why = now(object)
      if why then return why end
      return found == nil and path .. " is not set" or ("%s is '%s'"):format(path, jsonpath.text(found))
    end }
end

local function held(object)
  if not object.metadata.deletionTimestamp then return "nobody has deleted it" end
  local finalizers = object.metadata.finalizers or (object.spec or {}).finalizers or {}
  local list, conditions = table.concat(finalizers, ", "), {}
  for _, entry in ipairs(object.kind == "Namespace" and (object.status or {}).conditions or {}) do
    if entry.status == "True" then conditions[#conditions + 1] = entry.message end
  end
  local words = #finalizers > 0 and "it is being deleted and held by " .. list or "it is being deleted"
  return #conditions > 0 and words .. ": " .. table.concat(conditions, "; ") or words
end

---What is waited for.
---@param given {condition?: string, jsonpath?: string, value?: string, delete?: boolean, create?: boolean}
---@return eirun.kube.Goal
---Raises "invalid" for none, for several, and for a path that is none.
function M.goal(given)
  local count = (given.condition and 1 or 0) + (given.jsonpath and 1 or 0) + (given.delete and 1 or 0)
  if count > 1 or count == 0 and not given.create then spec.fail("wait", "wants one of condition, jsonpath, delete, create") end
  if given.delete and given.create then spec.fail("wait", "delete and create exclude each other") end
  if given.value ~= nil and not given.jsonpath then spec.fail("wait", "value is of a jsonpath") end
  local goal
  if given.condition then
    goal = by_condition(given.condition)
  elseif given.jsonpath then
    goal = by_path(given.jsonpath, given.value ~= nil and tostring(given.value) or nil)
  elseif given.delete then
    goal = { words = "its end", gone = true, met = function(object) return object == nil end, seen = held }
  else
    goal = { words = "its birth", met = function(object) return object ~= nil end, seen = function() return "it is there" end }
  end
  goal.create = given.create
  return goal
end

-- Looking --------------------------------------------------------------------------------------------------------------

local over = { Succeeded = true, Failed = true }

local function ended_words(object)
  local status = object.status or {}
  if object.kind == "Pod" and over[status.phase or ""] then
    return status.phase, status.message or status.reason or "its containers have ended"
  end
  if object.kind ~= "Job" then return nil end
  for _, name in ipairs { "Failed", "Complete" } do
    local entry = condition_of(object, name)
    if entry and entry.status == "True" then return name, ("%s: %s"):format(entry.reason or name, entry.message or "") end
  end
end

-- A pod or a job that has ended does not change its status any more.
local function check_ended(object, goal)
  local phase, message = ended_words(object)
  if not phase or not goal.status then return end
  local who = ("%s '%s'"):format(object.kind, object.metadata.name)
  errors.raise("invalid", ("%s has ended and will not get to %s: %s: \"%s\""):format(who, goal.words, phase, message),
    { object = who, code = phase, hint = phase == "Failed" and "see its log: eirun kube logs " .. object.kind:lower() .. "/"
      .. object.metadata.name or nil })
end

local function not_found(info, name)
  local text = ('%s "%s" not found'):format(kinds.resource(info), name)
  errors.raise("not_found", text, { server_message = text, code = "NotFound", status = 404,
    hint = "say create = true to wait for its birth, too" })
end

-- What was said last, so that a time that is over tells more than that.
local function last_words(k8s, object)
  local scoped = object.metadata.namespace and k8s or k8s:namespace "default"
  local ok, events = pcall(scoped.events, scoped, { kind = object.kind, name = object.metadata.name })
  if not ok and errors.is(events, "cancelled") then error(events, 0) end
  local event = ok and events[#events]
  return event and ("; %s: \"%s\""):format(event.reason, event.message or "") or ""
end

local function too_late(k8s, wanted, object, looks)
  local who = client.where(wanted.info, k8s.ns, wanted.name)
  local words = object and wanted.goal.seen(object) .. last_words(k8s, object) or "it does not exist"
  errors.raise("timeout", ("%s has not come to %s: %s"):format(who, wanted.goal.words, words), { object = who, code = "NotYet",
    looks = looks })
end

-- Whoever may not read events or pods waits without a judge.
local function judge(k8s, wanted, object, patience)
  local ok, hopeless = pcall(wait.judge, k8s, object, patience)
  if ok and hopeless then error(hopeless, 0) end
  if ok then return end
  if not errors.is(hopeless, "denied") then error(hopeless, 0) end
  wanted.patient = true
end

---@class eirun.kube.Awaited
---@field info eirun.KindInfo
---@field name string
---@field goal eirun.kube.Goal
---@field limit number when to give up, seconds since the epoch
---@field patient? boolean wait even for what cannot become well
---@field say? fun(text: string) is told how it stands

---Waits for one object.
---@param k8s eirun.KubeClient
---@param wanted eirun.kube.Awaited
---@return table|nil object as it was last seen
---@return boolean existed false when there never was one, and its end was waited for
---Raises "not_found" for an object that is not there, "timeout" (code "NotYet") when the time is over, and what quotes the event of an
---object that cannot become well.
function M.one(k8s, wanted)
  local patience, last, looks, goal = wait.patience(), nil, 0, wanted.goal
  while true do
    local object = k8s:get(wanted.info.api_version .. "/" .. wanted.info.kind, wanted.name)
    if goal.gone and last and object and object.metadata.uid ~= last.metadata.uid then object = nil end
    if goal.met(object) then return object or last, (object or last) ~= nil end
    if not object and not goal.create then not_found(wanted.info, wanted.name) end
    last = object or last
    if task.now() >= wanted.limit then too_late(k8s, wanted, object, looks) end
    if object and wanted.say then wanted.say(goal.seen(object)) end
    if object and not goal.gone and not wanted.patient then
      check_ended(object, goal)
      if looks % JUDGED == JUDGED - 1 then judge(k8s, wanted, object, patience) end
    end
    looks = looks + 1
    task.sleep(math.min(looks < QUICK_LOOKS and QUICK or SLOW, math.max(wanted.limit - task.now(), 0.01)))
  end
end

-- Many -----------------------------------------------------------------------------------------------------------------

local rules = {
  kind = { type = "string", required = true }, name = { type = "string" }, labels = { type = "any" }, fields = { type = "any" },
  all = { type = "boolean" }, condition = { type = "string" }, jsonpath = { type = "string" }, value = { type = "any" },
  delete = { type = "boolean" }, create = { type = "boolean" }, timeout = { type = "number", min = 0 }, patient = { type = "boolean" },
}

local function names_of(k8s, info, given)
  if given.name then return { { k8s, given.name } } end
  if not given.labels and not given.fields then spec.fail("wait", "wants a name, labels or fields") end
  local list = {}
  for _, object in ipairs(k8s:list(given.kind, { labels = given.labels, fields = given.fields, all = given.all })) do
    local space = info.namespaced and object.metadata.namespace
    list[#list + 1] = { space and k8s:namespace(space) or k8s, object.metadata.name }
  end
  if #list == 0 and not given.delete then errors.raise("not_found", "no matching resources found", { code = "NotFound" }) end
  return list
end

---Waits for all that the options name, at the same time; see `k8s:wait`.
---@param k8s eirun.KubeClient
---@param given table
---@return table|nil object, or a list of them where `labels` or `fields` were given
function M.all(k8s, given)
  spec.check("wait", given, rules)
  local goal, info, limit = M.goal(given), k8s:kind(given.kind), task.now() + (given.timeout or 300)
  local objects = task.map(names_of(k8s, info, given), function(pair)
    return (M.one(pair[1], { info = info, name = pair[2], goal = goal, limit = limit, patient = given.patient,
      say = function(text) step.progress { text = text } end })) or false
  end)
  if given.name then return objects[1] or nil end
  return objects
end

return M
