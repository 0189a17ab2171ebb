-- SPDX-License-Identifier: Apache-2.0
-- Jobs: pods until enough have succeeded or too many have failed.
local common = require "sandbox.kube.controllers.common"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local resources = require "sandbox.kube.resources"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local job = {}

local R, PODS = resources.jobs, resources.pods
local WHO = { manager = "kube-controller-manager" }
-- Failed pods are replaced after 10 s, then twice as long each time, at most six minutes.
local FIRST_BACKOFF, LAST_BACKOFF = 10, 360
local INDEX = "batch.kubernetes.io/job-completion-index"

local Jobs = {}
Jobs.__index = Jobs

local function finished(obj)
  for _, type in ipairs { "Complete", "Failed" } do
    local c = common.condition(obj, type)
    if c and c.status == "True" then return c end
  end
end

local function index_of(pod)
  return math.tointeger(tonumber(value.get(pod, "metadata", "annotations", INDEX)))
end

-- {active, succeeded, failed, ready, last_failure} of the job's pods; lists of pods for the first two.
function Jobs:census(obj)
  local c = { active = {}, succeeded = {}, failed = 0, ready = 0 }
  for _, rec in ipairs(self.m.index:owned(obj.metadata.uid, PODS)) do
    local pod = rec.obj
    local phase = value.get(pod, "status", "phase")
    if phase == "Succeeded" then
      c.succeeded[#c.succeeded + 1] = pod
    elseif phase == "Failed" then
      c.failed = c.failed + 1
      local at = tables.seconds_of(value.get(pod, "status", "containerStatuses", 1, "state", "terminated", "finishedAt"))
        or common.created(pod)
      c.last_failure = math.max(at, c.last_failure or at)
    elseif not pod.metadata.deletionTimestamp then
      c.active[#c.active + 1] = pod
      if common.pod_ready(pod) then c.ready = c.ready + 1 end
    end
  end
  return c
end

function Jobs:create_pod(obj, index)
  local pod = common.pod_from(obj.spec.template, R, obj)
  if index then
    pod.metadata.generateName = ("%s-%d-"):format(obj.metadata.name, index)
    pod.metadata.annotations = pod.metadata.annotations or {}
    pod.metadata.annotations[INDEX] = tostring(index)
    pod.metadata.labels[INDEX] = tostring(index)
  end
  local rec = common.make_pod(self, R, obj, pod, WHO, "Error creating: ")
  self.recorder:event(R, obj, "Normal", "SuccessfulCreate", "Created pod: " .. rec.name)
end

function Jobs:delete_pods(obj, pods)
  for _, pod in ipairs(pods) do
    deletion.delete(self.reg, PODS, pod.metadata.namespace, pod.metadata.name, {})
    self.recorder:event(R, obj, "Normal", "SuccessfulDelete", "Deleted pod: " .. pod.metadata.name)
  end
end

-- Completion indexes that have neither a running nor a successful pod.
local function missing_indexes(obj, census)
  local taken, list = {}, {}
  for _, pods in ipairs { census.active, census.succeeded } do
    for _, pod in ipairs(pods) do taken[index_of(pod) or -1] = true end
  end
  for i = 0, (obj.spec.completions or 1) - 1 do
    if not taken[i] then list[#list + 1] = i end
  end
  return list
end

-- Why the job has failed; nil while it has not.
local function failure_of(obj, census, now)
  if census.failed > obj.spec.backoffLimit then
    return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
  end
  local limit, since = obj.spec.activeDeadlineSeconds, tables.seconds_of(value.get(obj, "status", "startTime"))
  if limit and since and now >= since + limit then
    return "DeadlineExceeded", "Job was active longer than specified deadline"
  end
end

local function is_complete(obj, census)
  if obj.spec.completions then return #census.succeeded >= obj.spec.completions end
  return #census.succeeded > 0 and #census.active == 0
end

-- Starts or stops pods; answers the seconds after which to look again.
function Jobs:adjust(obj, census)
  local parallel = obj.spec.parallelism
  local wanted = obj.spec.completions and math.min(parallel, obj.spec.completions - #census.succeeded)
    or (#census.succeeded > 0 and #census.active or parallel)
  local lacking = wanted - #census.active
  if lacking < 0 then
    self:delete_pods(obj, table.move(census.active, 1, -lacking, 1, {}))
  elseif lacking > 0 then
    local pause = census.failed > 0 and math.min(FIRST_BACKOFF * 2 ^ (census.failed - 1), LAST_BACKOFF) or 0
    local left = (census.last_failure or 0) + pause - self.m.now()
    if census.failed > 0 and left > 0 then return left end
    local indexes = obj.spec.completionMode == "Indexed" and missing_indexes(obj, census)
    for i = 1, lacking do self:create_pod(obj, indexes and indexes[i]) end
  end
end

function Jobs:write_status(obj, census, condition)
  local old, now = obj.status or {}, self.reg:time()
  local s = { startTime = old.startTime or not obj.spec.suspend and now or nil, active = #census.active > 0 and #census.active or nil,
    ready = census.ready, terminating = 0, succeeded = #census.succeeded > 0 and #census.succeeded or nil,
    failed = census.failed > 0 and census.failed or nil, conditions = old.conditions, uncountedTerminatedPods = {},
    completionTime = old.completionTime }
  if condition then
    local first = condition.type == "Complete" and "SuccessCriteriaMet" or "FailureTarget"
    for _, type in ipairs { first, condition.type } do
      s.conditions = common.with_condition(s.conditions, { type = type, status = "True", reason = condition.reason,
        message = condition.message, lastProbeTime = now }, now)
    end
    if condition.type == "Complete" then s.completionTime = now end
  end
  self.reg:set_status(R, obj, s)
end

function Jobs:finish(obj, census)
  local reason, message = failure_of(obj, census, self.m.now())
  if reason then
    self:delete_pods(obj, census.active)
    self.recorder:event(R, obj, "Warning", reason, message)
    census.active, census.ready = {}, 0
    self:write_status(obj, census, { type = "Failed", reason = reason, message = message })
    return true
  elseif is_complete(obj, census) then
    self.recorder:event(R, obj, "Normal", "Completed", "Job completed")
    self:write_status(obj, census, { type = "Complete", reason = "CompletionsReached",
      message = "Reached expected number of succeeded pods" })
    return true
  end
end

-- A finished job goes when its time to live is over.
function Jobs:expire(obj, condition)
  local life = obj.spec.ttlSecondsAfterFinished
  if not life then return end
  local left = (tables.seconds_of(condition.lastTransitionTime) or 0) + life - self.m.now()
  if left > 0 then return left end
  deletion.delete(self.reg, R, obj.metadata.namespace, obj.metadata.name, { propagation = "Foreground" })
end

function Jobs:sync(key)
  local obj = self.store:object(R, common.split(key))
  if not obj or obj.metadata.deletionTimestamp then return end
  local done = finished(obj)
  if done then return self:expire(obj, done) end
  local census = self:census(obj)
  if obj.spec.suspend then
    self:delete_pods(obj, census.active)
    return self:write_status(obj, self:census(obj))
  end
  if self:finish(obj, census) then return end
  local again = self:adjust(obj, census)
  self:write_status(obj, self:census(obj))
  local limit = obj.spec.activeDeadlineSeconds
  return math.min(again or math.huge, limit or math.huge) < math.huge and math.min(again or math.huge, limit or math.huge) or nil
end

function job.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, "job-controller") }, Jobs)
  local q = m:queue("job", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  m.store:subscribe(PODS, function(event)
    local ref = common.controller_of(event.new.obj)
    if ref and ref.kind == "Job" then q:add(event.new.ns .. "/" .. ref.name) end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

job.finished = finished

return job
