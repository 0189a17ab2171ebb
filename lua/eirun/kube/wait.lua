-- SPDX-License-Identifier: Apache-2.0
-- Foreground waiting: until it is well, or until it is known that it will not be. The error quotes the event.
local errors = require "eirun.errors"
local step = require "eirun.step"
local task = require "eirun.task"
local verdict = require "eirun.kube.verdict"
local wire = require "eirun.wire"

local M = {}

local INTERVAL, LONGEST = 2, 5
-- The kubelet tries a mount or a pull again after at most some two minutes, so what was said before this run began may have been
-- mended since.
local OLD_NEWS = 150

---@class eirun.Patience
---@field seen table<string, number> when a symptom was first seen
---@field started number when the waiting began
local Patience = {}
Patience.__index = Patience

-- Remembers since when each symptom stands; true when it has stood for too long.
function Patience:exhausted(key, seconds)
  local now = task.now()
  self.seen[key] = self.seen[key] or now
  return now - self.seen[key] >= seconds
end

-- How long an event is hoped about.
function Patience:with(row, event)
  return event.at < self.started // 1 and math.max(row.patience, OLD_NEWS) or row.patience
end

function Patience:forget_all_but(keys)
  for key in pairs(self.seen) do if not keys[key] then self.seen[key] = nil end end
end

---@return eirun.Patience
function M.patience()
  return setmetatable({ seen = {}, started = task.now() }, Patience)
end

local function quote(who, reason, message, hint, kind)
  return errors.new(kind or "invalid", ("%s will not become ready: %s: \"%s\""):format(who, reason, message:gsub("%s*\n%s*", " ")),
    { object = who, code = reason:match("^%u%w+$"), hint = hint })
end

local function waiting_of(pod)
  for _, list in ipairs { "initContainerStatuses", "containerStatuses" } do
    for _, container in ipairs((pod.status or {})[list] or {}) do
      local waiting = (container.state or {}).waiting
      if waiting and waiting.reason then return waiting, container end
    end
  end
end

local function is_ready(pod)
  for _, condition in ipairs((pod.status or {}).conditions or {}) do
    if condition.type == "Ready" then return condition.status == "True" end
  end
  return false
end
M.pod_is_ready = is_ready

local function log_tail(k8s, pod, previous)
  local ok, text = pcall(k8s.logs, k8s, pod.metadata.name, { tail = 40, previous = previous })
  if ok then return text end
  if errors.is(text, "cancelled") then error(text, 0) end
  return ""
end

local function last_line(text)
  local line
  for each in text:gmatch("[^\n]+") do line = each end
  return line
end

local function crash_words(k8s, pod, waiting)
  local line = last_line(log_tail(k8s, pod, true)) or last_line(log_tail(k8s, pod, false))
  return line and (waiting.message or waiting.reason) .. ", its log ends: " .. line or waiting.message or waiting.reason
end

-- A container that waits says why in its state.
local function judge_container(k8s, pod, patience, current)
  local waiting, container = waiting_of(pod)
  local row = waiting and verdict.symptom(waiting.reason, waiting.message or "")
  if not row then return nil end
  if waiting.reason == "CrashLoopBackOff" and (container.restartCount or 0) < 2 then return nil end
  local key = pod.metadata.name .. "/" .. waiting.reason
  current[key] = true
  if not patience:exhausted(key, row.patience) then return nil end
  local words = waiting.reason == "CrashLoopBackOff" and crash_words(k8s, pod, waiting) or waiting.message or ""
  return quote("pod '" .. pod.metadata.name .. "'", waiting.reason, words, row.hint)
end

local function is_scheduled(pod)
  return (pod.spec or {}).nodeName ~= nil
end

-- Events that a later one has overtaken are no news: a bound pod's FailedScheduling, a scale-up after a refusal to scale.
local function standing_events(pod, events)
  local standing = {}
  for _, event in ipairs(events) do
    if verdict.hopeful[event.reason] then standing = {} end
    if not (is_scheduled(pod) and (event.reason == "FailedScheduling" or event.reason == "NotTriggerScaleUp")) then
      standing[#standing + 1] = event
    end
  end
  return standing
end

-- A pod without a node and with a pool that said no has two events; the scheduler's words say more than the scaler's.
local function words_for(event, events)
  if event.reason ~= "NotTriggerScaleUp" then return event end
  for i = #events, 1, -1 do if events[i].reason == "FailedScheduling" then return events[i] end end
  return event
end

local function judge_events(k8s, pod, patience, current)
  local events = k8s:events { kind = "Pod", name = pod.metadata.name }
  local standing = standing_events(pod, events)
  for i = #standing, 1, -1 do
    local event = standing[i]
    local row = verdict.symptom(event.reason, event.message or "")
    if row then
      local key = pod.metadata.name .. "/" .. event.reason
      current[key] = true
      if patience:exhausted(key, patience:with(row, event)) then
        local said = words_for(event, events)
        local better = verdict.symptom(said.reason, said.message or "") or row
        return quote("pod '" .. pod.metadata.name .. "'", said.reason, said.message or "", better.hint)
      end
    end
  end
end

-- A container that runs and is not ready: its log may say that it never will be.
local function judge_log(k8s, pod, patience, current)
  if (pod.status or {}).phase ~= "Running" or waiting_of(pod) then return nil end
  local line, row = verdict.in_log(log_tail(k8s, pod, false))
  if not line then return nil end
  local key = pod.metadata.name .. "/log/" .. row.match
  current[key] = true
  if not patience:exhausted(key, row.patience) then return nil end
  return quote("pod '" .. pod.metadata.name .. "'", "its log says", line, row.hint)
end

---Why a pod will not become ready, nil while there is hope.
---@param k8s eirun.KubeClient
---@param pod table
---@param patience eirun.Patience
---@param current table<string, true> filled with the symptoms that stand now
---@return eirun.Error|nil
function M.judge_pod(k8s, pod, patience, current)
  return judge_container(k8s, pod, patience, current) or judge_events(k8s, pod, patience, current)
    or judge_log(k8s, pod, patience, current)
end

local function condition(object, kind)
  for _, entry in ipairs((object.status or {}).conditions or {}) do
    if entry.type == kind then return entry end
  end
end
M.condition = condition

-- What was said last about the first pod that is not ready.
local function last_words(k8s, pod)
  local events = pod and k8s:events { kind = "Pod", name = pod.metadata.name } or {}
  local event = events[#events]
  return event and ("; pod '%s': %s: %s"):format(pod.metadata.name, event.reason, event.message or "") or ""
end

local function who_of(object)
  return ("%s '%s'"):format(object.kind, object.metadata.name)
end

local function judge_conditions(k8s, deployment, pods, patience)
  local who = who_of(deployment)
  local refused = condition(deployment, "ReplicaFailure")
  if refused and refused.status == "True" then
    local row = verdict.symptom("FailedCreate", refused.message or "")
    if patience:exhausted(who .. "/ReplicaFailure", row.patience) then
      return quote(who, refused.reason or "FailedCreate", refused.message or "", row.hint, "quota")
    end
  end
  local progress = condition(deployment, "Progressing")
  -- An earlier run may have left this condition: it goes away by itself when the pods get what they were missing.
  local late = progress and progress.reason == "ProgressDeadlineExceeded" and verdict.symptom(progress.reason, "")
  if late and patience:exhausted(who .. "/progress", late.patience) then
    return quote(who, progress.reason, (progress.message or "") .. last_words(k8s, pods[1]), late.hint)
  end
end

-- As `kubectl rollout status` tells: observed, updated, old ones gone, available.
local function rollout_missing(deployment)
  local status, wanted = deployment.status or {}, (deployment.spec or {}).replicas or 1
  local updated, replicas, available = status.updatedReplicas or 0, status.replicas or 0, status.availableReplicas or 0
  if (deployment.metadata.generation or 0) > (status.observedGeneration or 0) then return "the change is not observed yet" end
  if updated < wanted then return ("%d of %d replicas are updated"):format(updated, wanted) end
  if replicas > updated then return ("%d old replicas are ending"):format(replicas - updated) end
  if available < updated then return ("%d of %d replicas are available"):format(available, updated) end
end
M.rollout_missing = rollout_missing

local operators = { In = "%s in (%s)", NotIn = "%s notin (%s)", Exists = "%s", DoesNotExist = "!%s" }

-- The pods of a workload, as a selector of its own; nil when it has none.
local function selector_of(workload)
  local selector = (workload.spec or {}).selector or {}
  local list = {}
  for _, key in ipairs(wire.sorted_keys(selector.matchLabels or {})) do list[#list + 1] = key .. "=" .. selector.matchLabels[key] end
  for _, one in ipairs(selector.matchExpressions or {}) do
    list[#list + 1] = operators[one.operator]:format(one.key, table.concat(one.values or {}, ","))
  end
  return #list > 0 and table.concat(list, ",") or nil
end

local ended = { Succeeded = true, Failed = true }

local function unready_pods(k8s, workload)
  local list, selector = {}, selector_of(workload)
  for _, pod in ipairs(selector and k8s:list("Pod", { labels = selector }) or {}) do
    local over = pod.metadata.deletionTimestamp or ended[(pod.status or {}).phase or ""]
    if not over and not is_ready(pod) then list[#list + 1] = pod end
  end
  return list
end

-- What was said about the object itself and stands in the table of symptoms.
local function judge_own_events(k8s, object, patience)
  local scoped = object.metadata.namespace and k8s or k8s:namespace "default"
  for _, event in ipairs(scoped:events { kind = object.kind, name = object.metadata.name }) do
    local row = verdict.symptom(event.reason, event.message or "") -- FailedBinding is of type Normal
    if row and patience:exhausted(event.reason, row.patience) then
      return quote(who_of(object), event.reason, event.message or "", row.hint)
    end
  end
end

---Why a Deployment, or another workload with a selector, will not become well; nil while there is hope.
---@param k8s eirun.KubeClient
---@param workload table
---@param patience eirun.Patience
---@return eirun.Error|nil
function M.judge_workload(k8s, workload, patience)
  local who = who_of(workload)
  local current = { [who .. "/ReplicaFailure"] = true, [who .. "/progress"] = true }
  local pods = unready_pods(k8s, workload)
  for _, pod in ipairs(pods) do
    local hopeless = M.judge_pod(k8s, pod, patience, current)
    if hopeless then return hopeless end
  end
  patience:forget_all_but(current)
  return judge_conditions(k8s, workload, pods, patience)
end

---Calls `look()` until it answers a value. It answers nil and what is missing while there is hope; it raises when there is none.
---@param what string
---@param timeout number
---@param look fun(): any, string|nil
---@param late_hint? string
---@return any
function M.until_well(what, timeout, look, late_hint)
  local deadline, pause = task.now() + timeout, INTERVAL
  while true do
    local value, missing = look()
    if value ~= nil then return value end
    step.progress { text = missing }
    if task.now() + pause > deadline then
      errors.raise("timeout", ("%s is not well after %d seconds%s"):format(what, timeout, missing and ": " .. missing or ""),
        { object = what, hint = late_hint })
    end
    task.sleep(pause)
    pause = math.min(pause * 1.3, LONGEST)
  end
end

---Waits for a Deployment's rollout; with `ready`, also until that answers nil (it answers what is missing otherwise).
---@param k8s eirun.KubeClient
---@param name string
---@param opts? {timeout?: number, ready?: fun(deployment: table): string|nil}
---@return table deployment
---Raises early, quoting the event and saying what to do, when a pod cannot become ready; kind "timeout" otherwise.
function M.deployment(k8s, name, opts)
  opts = opts or {}
  local patience = M.patience()
  return M.until_well("Deployment '" .. name .. "'", opts.timeout or 1200, function()
    local deployment = k8s:get("Deployment", name)
    if not deployment then return nil, "it does not exist" end
    local missing = rollout_missing(deployment)
    if missing then
      local hopeless = M.judge_workload(k8s, deployment, patience)
      if hopeless then error(hopeless, 0) end
      return nil, missing
    end
    missing = opts.ready and opts.ready(deployment)
    if missing then return nil, missing end
    return deployment
  end)
end

local function judge_claim(k8s, claim, patience)
  local who = "PersistentVolumeClaim '" .. claim.metadata.name .. "'"
  local volume = claim.spec.volumeName and k8s:get("PersistentVolume", claim.spec.volumeName)
  local ref = volume and (volume.spec or {}).claimRef
  if ref and (ref.name ~= claim.metadata.name or ref.namespace ~= claim.metadata.namespace) then
    return quote(who, "its volume is taken", ("'%s' is bound to %s/%s"):format(volume.metadata.name, ref.namespace, ref.name),
      "give the volume another name: each namespace needs its own")
  end
  return judge_own_events(k8s, claim, patience)
end

local judges = { Pod = function(k8s, pod, patience) return M.judge_pod(k8s, pod, patience, {}) end,
  PersistentVolumeClaim = judge_claim }

---Why an object of any kind will not become well, nil while there is hope: by its pods where it selects some, by what is said of it.
---@param k8s eirun.KubeClient
---@param object table
---@param patience eirun.Patience
---@return eirun.Error|nil
function M.judge(k8s, object, patience)
  local how = judges[object.kind]
  if how then return how(k8s, object, patience) end
  local hopeless = (object.spec or {}).template and M.judge_workload(k8s, object, patience)
  return hopeless or judge_own_events(k8s, object, patience)
end

---Waits until a claim is bound.
---@param k8s eirun.KubeClient
---@param name string
---@param timeout? number default 120
---@return table claim
function M.bound(k8s, name, timeout)
  local patience = M.patience()
  return M.until_well("PersistentVolumeClaim '" .. name .. "'", timeout or 120, function()
    local claim = k8s:get("PersistentVolumeClaim", name)
    if not claim then return nil, "it does not exist" end
    local phase = (claim.status or {}).phase
    if phase == "Bound" then return claim end
    local hopeless = judge_claim(k8s, claim, patience)
    if hopeless then error(hopeless, 0) end
    return nil, "it is " .. tostring(phase)
  end)
end

return M
