-- SPDX-License-Identifier: Apache-2.0
-- What will happen later: a boot that ends, a reclaim, a task's next stage. Jobs are rows of the store, so a killed
-- sandbox goes on where it stood, and they run in the order of their time, then of their making.
local task = require "eirun.core.task"

local Jobs = {}
Jobs.__index = Jobs
local jobs = {}

local function before(a, b)
  if a.at ~= b.at then return a.at < b.at end
  return a.id < b.id
end

local function insert_sorted(list, job)
  local low, high = 1, #list + 1
  while low < high do
    local middle = (low + high) // 2
    if before(list[middle], job) then low = middle + 1 else high = middle end
  end
  table.insert(list, low, job)
end

local function next_id(store)
  local sequence = (store:get("meta", "job_sequence") or 0) + 1
  store:put("meta", "job_sequence", sequence)
  return ("%012d"):format(sequence)
end

-- fn(data) runs inside one tx when a job of this kind is due; it must not block.
function Jobs:handle(kind, fn) self.handlers[kind] = fn end

-- Plans a job and returns its id. Commits with the open tx.
function Jobs:at(time, kind, data)
  local job
  self.store:tx(function()
    job = { id = next_id(self.store), at = time, kind = kind, data = data or {} }
    self.store:put("job", job.id, job)
  end)
  self.store:after_commit(function()
    insert_sorted(self.list, job)
    self.wake:set()
  end)
  return job.id
end

function Jobs:after(seconds, kind, data) return self:at(self.now() + seconds, kind, data) end

-- A job that was cancelled before it ran is simply skipped when its time comes.
function Jobs:cancel(id) return self.store:delete("job", id) end

local function run_one(self, job)
  if not self.store:get("job", job.id) then return end
  local ok, err = pcall(self.store.tx, self.store, function()
    self.store:delete("job", job.id)
    local handler = self.handlers[job.kind] or error("no handler for jobs of kind " .. job.kind)
    handler(job.data, job)
  end)
  if ok then return end
  self.log("error", "job %s %s: %s", job.kind, job.id, tostring(err))
  self.store:delete("job", job.id)
end

-- Runs everything that is due; false when nothing was.
function Jobs:run_due()
  local first = self.list[1]
  if not first or first.at > self.now() then return false end
  table.remove(self.list, 1)
  run_one(self, first)
  return true
end

local function wait_for_next(self)
  self.wake:clear()
  local first = self.list[1]
  self.wake:wait(first and math.max(0, first.at - self.now()) or nil)
end

function Jobs:loop()
  while true do
    if not self:run_due() then wait_for_next(self) end
  end
end

function jobs.new(store, now, log)
  local self = setmetatable({ store = store, now = now, log = log, handlers = {}, list = {}, wake = task.event() }, Jobs)
  for _, job in store:each "job" do insert_sorted(self.list, job) end
  return self
end

return jobs
