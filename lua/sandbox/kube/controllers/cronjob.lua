-- SPDX-License-Identifier: Apache-2.0
-- CronJobs: a Job at every time of the schedule.
local json = require "eirun.core.json"
local common = require "sandbox.kube.controllers.common"
local cron = require "sandbox.kube.cron"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local job = require "sandbox.kube.controllers.job"
local resources = require "sandbox.kube.resources"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local cronjob = {}

local R, JOBS = resources.cronjobs, resources.jobs
local WHO = { manager = "kube-controller-manager" }

local CronJobs = {}
CronJobs.__index = CronJobs

-- The last time of the schedule that is due and was not served; nil when none.
local function due(schedule, since, now)
  local last
  for _ = 1, 101 do
    local at = cron.next(schedule, last or since)
    if not at or at > now then return last end
    last = at
  end
  return last
end

function CronJobs:jobs_of(obj)
  local active, done = {}, {}
  for _, rec in ipairs(self.m.index:owned(obj.metadata.uid, JOBS)) do
    local list = job.finished(rec.obj) and done or active
    list[#list + 1] = rec.obj
  end
  table.sort(done, common.oldest_first)
  return active, done
end

-- Finished jobs beyond the history limits go, oldest first.
function CronJobs:clean(obj, done)
  for type, keep in value.sorted { Complete = obj.spec.successfulJobsHistoryLimit, Failed = obj.spec.failedJobsHistoryLimit } do
    local list = value.filter(done, function(one) return job.finished(one).type == type end)
    for i = 1, #list - keep do
      deletion.delete(self.reg, JOBS, obj.metadata.namespace, list[i].metadata.name, { propagation = "Background" })
    end
  end
end

function CronJobs:start_job(obj, at)
  local template = obj.spec.jobTemplate
  local notes = value.copy(value.get(template, "metadata", "annotations")) or {}
  notes["batch.kubernetes.io/cronjob-scheduled-timestamp"] = self.reg:time(at)
  -- The name is the scheduled minute, so that one minute gives one job.
  local rec = self.reg:create(JOBS, obj.metadata.namespace, { metadata = { name = ("%s-%d"):format(obj.metadata.name, at // 60),
    labels = value.copy(value.get(template, "metadata", "labels")), annotations = notes,
    ownerReferences = json.array { common.owner_reference(R, obj) } }, spec = value.copy(template.spec) }, WHO)
  self.recorder:event(R, obj, "Normal", "SuccessfulCreate", "Created job " .. rec.name)
end

-- Whether a run that is due may start now; stops the running ones when they are to be replaced.
function CronJobs:may_start(obj, active, at)
  local deadline = obj.spec.startingDeadlineSeconds
  if deadline and at + deadline < self.m.now() then
    self.recorder:event(R, obj, "Warning", "MissSchedule", "Missed scheduled time to start a job: " .. self.reg:time(at))
    return false
  end
  if #active == 0 or obj.spec.concurrencyPolicy == "Allow" then return true end
  if obj.spec.concurrencyPolicy == "Forbid" then
    self.recorder:event(R, obj, "Normal", "JobAlreadyActive", "Not starting job because prior execution is running and concurrency "
      .. "policy is Forbid")
    return false
  end
  for _, one in ipairs(active) do
    deletion.delete(self.reg, JOBS, obj.metadata.namespace, one.metadata.name, { propagation = "Background" })
  end
  return true
end

function CronJobs:write_status(obj, served)
  local active, done = self:jobs_of(obj)
  local last_success = value.get(obj, "status", "lastSuccessfulTime")
  for _, one in ipairs(done) do
    local at = value.get(one, "status", "completionTime")
    if at and (not last_success or at > last_success) then last_success = at end
  end
  local references = value.map(active, function(one) return events.reference(JOBS, one) end)
  self.reg:set_status(R, obj, { active = #references > 0 and references or nil, lastSuccessfulTime = last_success,
    lastScheduleTime = served and self.reg:time(served) or value.get(obj, "status", "lastScheduleTime") })
end

function CronJobs:sync(key)
  local obj = self.store:object(R, common.split(key))
  if not obj or obj.metadata.deletionTimestamp then return end
  local schedule = cron.parse(obj.spec.schedule)
  if not schedule then
    return self.recorder:event(R, obj, "Warning", "UnparseableSchedule", ("unparseable schedule: %q"):format(obj.spec.schedule))
  end
  local active, done = self:jobs_of(obj)
  self:clean(obj, done)
  if obj.spec.suspend then return self:write_status(obj) end
  local since = tables.seconds_of(value.get(obj, "status", "lastScheduleTime")) or common.created(obj)
  local at = due(schedule, since, self.m.now())
  local starts = at and self:may_start(obj, active, at)
  if starts then self:start_job(obj, at) end
  -- A time that may not start yet is not served: it does when the run before it ends.
  self:write_status(obj, starts and at)
  local next_at = cron.next(schedule, self.m.now())
  return next_at and next_at - self.m.now() or nil
end

function cronjob.start(m)
  local self = setmetatable({ m = m, reg = m.registry, store = m.store, recorder = events.recorder(m.registry, "cronjob-controller") },
    CronJobs)
  local q = m:queue("cronjob", m.lag.controller_sync, function(key) return self:sync(key) end)
  m.store:subscribe(R, function(event) q:add(event.new.key) end)
  m.store:subscribe(JOBS, function(event)
    local ref = common.controller_of(event.new.obj)
    if ref and ref.kind == "CronJob" then q:add(event.new.ns .. "/" .. ref.name) end
  end)
  for _, rec in ipairs(m.store:list(R)) do q:add(rec.key) end
end

return cronjob
