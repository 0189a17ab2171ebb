-- SPDX-License-Identifier: Apache-2.0
-- Requests that may be repeated: backoff with jitter, and deadlines on the run's clock. What is safe to repeat is said by
-- the caller; what was certainly not done (throttled, refused before it was read) is repeated in any case.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local task = require "eirun.task"

local M = {}

---@class eirun.RetryPolicy
---@field attempts? integer default 6; what was throttled is tried until the deadline, where there is one
---@field base? number seconds before the second attempt, default 1
---@field factor? number default 2
---@field cap? number longest pause, default 30
---@field deadline? number seconds since the epoch; no pause goes beyond it
---@field idempotent? boolean doing it twice is as good as once: lost connections and time-outs are repeated too
---@field on_retry? fun(err: eirun.Error, pause: number)

local repeatable = { network = true, timeout = true, internal = true }

---May this failure be tried again under this policy?
---@param err eirun.Error
---@param policy eirun.RetryPolicy
---@return boolean
---Example: `http.may_retry(errors.new("throttled", "slow down"), {})` is true. Raises nothing.
function M.may_retry(err, policy)
  if err.kind == "cancelled" or err.retryable == false then return false end
  if err.retryable or err.kind == "throttled" then return true end
  return policy.idempotent == true and repeatable[err.kind] == true and (err.status == nil or err.status >= 500)
end

-- Between half and the whole of an exponential pause: 50 clients that failed together do not come back together.
local function pause_after(n, err, policy)
  local whole = math.min(policy.cap or 30, (policy.base or 1) * (policy.factor or 2) ^ (n - 1))
  local random = string.unpack("<I4", crypto.random(4)) / 0x100000000
  return math.max(err.retry_after or 0, whole * (0.5 + random / 2))
end

---Calls `fn(n)` until it answers something other than nil, fails for good, or the policy ends.
---@param policy eirun.RetryPolicy
---@param fn fun(attempt: integer): any, eirun.Error|nil
---@return any|nil value
---@return eirun.Error|nil err the last failure
---Example: `local reply, err = http.retry({ idempotent = true }, function() return client:request(request) end)`.
---Raises only `cancelled` or `timeout`, when the task is stopped in a pause.
function M.retry(policy, fn)
  local attempts, n = policy.attempts or 6, 0
  while true do
    n = n + 1
    local value, err = fn(n)
    if value ~= nil then return value end
    local last = n >= attempts and not (err.kind == "throttled" and policy.deadline)
    if last or not M.may_retry(err, policy) then return nil, err end
    local pause = pause_after(n, err, policy)
    if policy.deadline and task.now() + pause > policy.deadline then return nil, err end
    if policy.on_retry then policy.on_retry(err, pause) end
    task.sleep(pause)
  end
end

---Host (with port), path and scheme of a URL; nil when it is none.
---@param url string
---@return {scheme: string, host: string, path: string}|nil
---Example: `http.split_url("http://a:80/x?y").path` is `/x?y`. Raises nothing.
function M.split_url(url)
  local scheme, host, path = url:match("^(%a[%w+.-]*)://([^/?#]+)([^#]*)")
  if not scheme then return nil end
  return { scheme = scheme:lower(), host = host, path = path ~= "" and path or "/" }
end

---An endpoint as people write it, `host`, `host:port` or a URL, as a URL without a trailing slash.
---@param endpoint string
---@return string
---Example: `http.endpoint_url "oss-cn-hangzhou.aliyuncs.com"` is `https://oss-cn-hangzhou.aliyuncs.com`. Raises nothing.
function M.endpoint_url(endpoint)
  local url = endpoint:find("://", 1, true) and endpoint or "https://" .. endpoint
  return (url:gsub("/+$", ""))
end

---The first line of a body that was not what was expected, for a message: gateways answer HTML.
---@param body string|nil
---@return string
---Example: `http.excerpt "<h1>Bad gateway</h1>"` is `'Bad gateway'`. Raises nothing.
function M.excerpt(body)
  local text = (body or ""):gsub("<[^>]*>", " "):gsub("%s+", " "):match("^%s*(.-)%s*$")
  return text == "" and "an empty body" or "'" .. text:sub(1, 120) .. "'"
end

---Waits until `probe()` answers something other than nil. Answers it, or nil and an error when the time is over.
---@param opts {timeout: number, interval?: number, cap?: number, what?: string}
---@param probe fun(): any, string|nil the value, or nil and what is still missing
---@return any|nil
---@return eirun.Error|nil
---Example: `http.poll({ timeout = 60, what = "the file" }, function() return fs.stat(path), "it is not there" end)`.
---Raises only what `probe` raises, and `cancelled` or `timeout` when the task is stopped.
function M.poll(opts, probe)
  local deadline, pause = task.now() + opts.timeout, opts.interval or 2
  while true do
    local value, missing = probe()
    if value ~= nil then return value end
    if task.now() + pause > deadline then
      local text = ("%s is not ready after %d seconds%s"):format(opts.what or "it", opts.timeout, missing and ": " .. missing or "")
      return nil, errors.new("timeout", text)
    end
    task.sleep(pause)
    pause = math.min(pause * 1.5, opts.cap or 15)
  end
end

return M
