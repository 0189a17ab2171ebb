-- SPDX-License-Identifier: Apache-2.0
-- The controller manager: work queues of keys, one worker, one timer. A controller is a function of a key that looks at
-- the store and makes it a little more true; it never blocks. Order is the order of arrival.
local task = require "eirun.core.task"
local status = require "sandbox.kube.status"

local Queue = {}
Queue.__index = Queue

local Manager = {}
Manager.__index = Manager

local FIRST_RETRY, LAST_RETRY = 0.005, 30

-- options: store, registry, now, log
function Manager.new(options)
  options.queues, options.later, options.wake = {}, {}, task.event()
  return setmetatable(options, Manager)
end

-- sync(key) is called for every key that was added; it may answer seconds after which it wants to be called again.
-- delay: seconds between the first key and the work, so that events of one moment are one turn.
function Manager:queue(name, delay, sync)
  local q = setmetatable({ manager = self, name = name, delay = delay, sync = sync, keys = {}, waiting = {}, retries = {} }, Queue)
  table.insert(self.queues, q)
  return q
end

function Queue:add(key)
  if self.waiting[key] then return end
  self.waiting[key] = true
  self.keys[#self.keys + 1] = key
  self.due = self.due or self.manager.now() + self.delay
  self.manager.wake:set()
end

-- Adds the key when so many seconds have passed.
function Queue:add_after(key, seconds)
  local later = self.manager.later
  local entry = { at = self.manager.now() + seconds, queue = self, key = key }
  local i = #later
  while i > 0 and later[i].at > entry.at do i = i - 1 end
  table.insert(later, i + 1, entry)
  self.manager.wake:set()
end

local function retry(self, key, err)
  local n = (self.retries[key] or 0) + 1
  self.retries[key] = n
  if not status.is(err) then self.manager.log("error", "controller %s, %s: %s", self.name, key, tostring(err)) end
  self:add_after(key, math.min(FIRST_RETRY * 2 ^ (n - 1), LAST_RETRY))
end

local function trace(err)
  return type(err) == "string" and debug.traceback(err, 2) or err
end

function Queue:work()
  local keys = self.keys
  self.keys, self.waiting, self.due = {}, {}, nil
  for _, key in ipairs(keys) do
    local ok, again = xpcall(self.sync, trace, key)
    if not ok then
      retry(self, key, again)
    else
      self.retries[key] = nil
      if type(again) == "number" then self:add_after(key, again) end
    end
  end
end

local function take_due(self, now)
  while self.later[1] and self.later[1].at <= now do
    local entry = table.remove(self.later, 1)
    entry.queue:add(entry.key)
  end
end

-- Does what is due; answers the time of the next thing to do, or nil.
function Manager:step()
  take_due(self, self.now())
  for _, q in ipairs(self.queues) do
    if q.due and q.due <= self.now() then q:work() end
  end
  local next_at = self.later[1] and self.later[1].at
  for _, q in ipairs(self.queues) do
    if q.due and (not next_at or q.due < next_at) then next_at = q.due end
  end
  return next_at
end

function Manager:run()
  while true do
    self.wake:clear()
    local next_at = self:step()
    if not next_at then
      self.wake:wait()
    elseif next_at > self.now() then
      self.wake:wait(next_at - self.now())
    end
  end
end

return Manager
