-- SPDX-License-Identifier: Apache-2.0
-- A token bucket for each product, learned from its refusals: unlimited until the first one, then a little below what passed, then
-- slowly faster again. Tasks that wait queue up behind it, so that fifty of them do not come back together.
local task = require "eirun.task"

local M = {}

local SLOWEST, LONGEST, GROW_EVERY, FORGET = 0.5, 16, 5, 60

local buckets = {}

local function bucket_of(key)
  local bucket = buckets[key]
  if not bucket then
    bucket = { second = 0, count = 0, before = 0, streak = 0, paused = 0, next = 0, refused = 0, grown = 0 }
    buckets[key] = bucket
  end
  return bucket
end

-- The next free moment of a limited bucket.
local function reserve(bucket, now)
  local slot = math.max(now, bucket.paused, bucket.next)
  bucket.next = slot + 1 / bucket.rate
  return slot
end

---Waits for this product's turn; false at once when it comes after the deadline.
---@param key string
---@param deadline? number seconds since the epoch
---@return boolean
---Example: `throttle.enter("cs", task.now() + 60)`. Raises `cancelled` or `timeout` when the task is stopped.
function M.enter(key, deadline)
  local bucket = bucket_of(key)
  while true do
    local now = task.now()
    if bucket.rate and now - bucket.refused > FORGET then bucket.rate = nil end
    if not bucket.rate then return true end
    if math.max(bucket.paused, bucket.next) > (deadline or math.huge) then return false end
    local slot = reserve(bucket, now)
    if slot > now then task.sleep_until(slot) end
    if bucket.paused <= task.now() then return true end
  end
end

-- Counts what passes second by second: the one that runs, and the one before.
local function settle(bucket, now)
  local second = now // 1
  if second == bucket.second then return end
  bucket.before = second == bucket.second + 1 and bucket.count or 0
  bucket.second, bucket.count = second, 0
end

---A call went through.
---@param key string
---Raises nothing.
function M.passed(key)
  local bucket, now = bucket_of(key), task.now()
  settle(bucket, now)
  bucket.count, bucket.streak = bucket.count + 1, 0
  if bucket.rate and now - bucket.grown > GROW_EVERY then
    bucket.rate, bucket.grown = bucket.rate * 1.25, now
  end
end

---A call was refused for coming too fast. Refusals of one burst count once; the pauses double while nothing passes.
---@param key string
---@param retry_after? number seconds that the server asked for
---Raises nothing.
function M.refused(key, retry_after)
  local bucket, now = bucket_of(key), task.now()
  local same_burst = now < bucket.paused
  if not same_burst then bucket.streak = bucket.streak + 1 end
  bucket.paused = math.max(bucket.paused, now + (retry_after or same_burst and 0 or math.min(2 ^ (bucket.streak - 1), LONGEST)))
  bucket.next = math.max(bucket.next, bucket.paused)
  bucket.refused, bucket.grown = now, now
  if same_burst then return end
  settle(bucket, now)
  local lately = math.max(bucket.count, bucket.before) * 0.8
  bucket.rate = math.max(SLOWEST, bucket.rate and bucket.rate / 2 or lately > 0 and lately or 2)
end

---Calls a second that a product bears, as far as it is known; nil: no limit was met.
---@param key string
---@return number|nil
---Example: `throttle.rate "ecs"`. Raises nothing.
function M.rate(key)
  return bucket_of(key).rate
end

---Forgets everything: for tests, and for a run against another target.
---Raises nothing.
function M.reset()
  buckets = {}
end

return M
