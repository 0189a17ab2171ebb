-- SPDX-License-Identifier: Apache-2.0
-- eirun kube wait: for a condition, a field, the end or the birth of objects; ends early on what cannot become well.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local jsonpath = require "eirun.kube.jsonpath"
local kinds = require "eirun.kube.kinds"
local task = require "eirun.task"
local wait = require "eirun.kube.wait"

local WEEK = 7 * 86400

local function condition_met(object, name, value)
  local status = type(object.status) == "table" and object.status or {}
  for _, entry in ipairs(type(status.conditions) == "table" and status.conditions or {}) do
    if tostring(entry.type):lower() == name:lower() then
      local wanted = object.metadata.generation
      local observed = entry.observedGeneration or status.observedGeneration
      if wanted and observed and observed < wanted then return false end
      return tostring(entry.status):lower() == value:lower()
    end
  end
  return false
end

local function by_condition(text)
  local name, value = text:match "^([^=]+)=?(.*)$"
  if not name then face.usage "condition name cannot be empty" end
  if value == "" then value = "true" end
  return { words = "condition met", met = function(object) return object and condition_met(object, name, value) end }
end

local function by_path(text)
  local path, value = text:match "^(%b{})=?(.*)$"
  if not path then path, value = text:match "^([^=]+)=?(.*)$" end
  if not path then face.usage "jsonpath expression cannot be empty" end
  local template, any = jsonpath.relaxed(path), not text:find("=", #path, true)
  return { words = "condition met", met = function(object)
    local found = object and jsonpath.values(template, object)[1]
    if found == nil then return false end
    return any or jsonpath.text(found) == value
  end }
end

local function goal_of(text)
  if text == "delete" then return { words = "condition met", gone = true, met = function(object) return object == nil end } end
  if text == "create" then return { words = "condition met", create = true, met = function(object) return object ~= nil end } end
  local kind, rest = (text or ""):match "^([%w]+)=(.*)$"
  if kind == "condition" then return by_condition(rest) end
  if kind == "jsonpath" then return by_path(rest) end
  face.usage(("unrecognized condition: %q"):format(text or ""))
end

local function not_found(target)
  local text = ('%s "%s" not found'):format(kinds.resource(target.info), target.name)
  errors.raise("not_found", text, { server_message = text, code = "NotFound", status = 404 })
end

local judges = { Pod = wait.judge_pod, Deployment = wait.judge_deployment, PersistentVolumeClaim = wait.judge_claim }

-- A pod that waits for a condition may be beyond hope; then nobody need wait for the time to be over.
local function judge(target, object, patience)
  local how = judges[target.info.kind]
  local hopeless = how and how(target.k8s, object, patience, {})
  if hopeless then error(hopeless, 0) end
end

local function await(target, goal, limit, options)
  local patience, seen, looks = wait.patience(), false, 0
  while true do
    local object = target.k8s:get(target.info.api_version .. "/" .. target.info.kind, target.name)
    if goal.gone and seen and object and object.metadata.uid ~= seen then object = nil end
    if goal.met(object) then return not goal.gone or seen end
    if not object and not goal.create and not goal.gone then not_found(target) end
    seen = object and object.metadata.uid or seen
    if limit and task.now() >= limit and looks == 0 then
      errors.raise("timeout", ("condition not met for %s/%s"):format(target.info.plural, target.name))
    elseif limit and task.now() >= limit then
      errors.raise("timeout", ("timed out waiting for the condition on %s/%s"):format(target.info.plural, target.name))
    end
    looks = looks + 1
    if object and not goal.gone and not options.patient and looks % 5 == 0 then judge(target, object, patience) end
    task.sleep(looks < 10 and 0.2 or 1)
  end
end

return face.verb(function(k8s, options, words)
  local goal = goal_of(options["for"])
  local seconds = face.seconds(options.timeout, 30, "timeout")
  if seconds < 0 then seconds = WEEK end
  local list = face.targets(k8s, options, words)
  if #list == 0 then errors.raise("not_found", "no matching resources found") end
  local limit = task.now() + seconds
  return face.each(list, function(target)
    if not await(target, goal, limit, options) then return end -- there was nothing to wait for
    face.out(("%s/%s %s\n"):format(face.kind_word(target.info), target.name, goal.words))
  end)
end)
