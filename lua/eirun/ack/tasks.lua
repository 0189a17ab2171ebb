-- SPDX-License-Identifier: Apache-2.0
-- Container Service answers changes with a task; this follows it to its end and says why it failed.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local http = require "eirun.http"

local M = {}

local good = { success = true, succeeded = true }
local bad = { fail = true, failed = true, error = true, canceled = true, cancelled = true }

local function add(list, text)
  if type(text) ~= "string" or text == "" then return end
  for _, said in ipairs(list) do if said == text then return end end
  list[#list + 1] = text
end

-- Everything that the task says, each thing once: its error, its stages, the instances that failed.
local function words_of(info)
  local list = {}
  add(list, type(info.error) == "table" and info.error.message or nil)
  for _, stage in ipairs(info.stages or {}) do add(list, stage.message) end
  for _, result in ipairs(info.task_result or {}) do
    if result.status == "failed" then add(list, tostring(result.data) .. " failed") end
  end
  return #list > 0 and table.concat(list, "; ") or "the task gave no reason"
end

local function failure(info, what)
  return errors.new("internal", ("%s: task %s failed: %s"):format(what, info.task_id, words_of(info)),
    { code = type(info.error) == "table" and info.error.code or nil, object = what, operation = info.task_type })
end

---A failure together with what explains it better; a failing question does not hide it.
---@param err eirun.Error
---@param explain fun(late: boolean): eirun.Error|nil
---@param late boolean nothing has failed, but the time is over
---@return eirun.Error
---Example: `error(tasks.explained(err, function() return why_not(group) end, true), 0)`. Raises only `cancelled`.
function M.explained(err, explain, late)
  local ok, better = pcall(explain, late)
  if not ok or not better then
    if not ok and errors.is(better, "cancelled") then error(better, 0) end
    return err
  end
  return errors.wrap(err, ("%s; its scaling group says: %s"):format(err.message, better.message),
    { kind = better.kind, code = better.code, hint = better.hint, cause = better })
end

---Waits for the end of a task. An empty id means that there is nothing to wait for.
---@param id string|nil
---@param what string the object, for messages
---@param timeout? number default 1200
---@param explain? fun(late: boolean): eirun.Error|nil asked when it failed, and when the time is over: what the scaling group did
---@return table|nil info the task's last state
---Example: `tasks.wait(answer.task_id, "node pool 'gpu'")`.
---Raises what the task's failure says, kind "timeout" when it takes too long.
function M.wait(id, what, timeout, explain)
  if not id or id == "" then return nil end
  local info, err = http.poll({ timeout = timeout or 1200, interval = 5, cap = 15, what = "task " .. id .. " of " .. what }, function()
    local now = cloud.cs("DescribeTaskInfo", { task_id = id }, { object = what })
    if good[now.state] or bad[now.state] then return now end
    return nil, "it is " .. tostring(now.state) .. (now.current_stage and " in " .. now.current_stage or "")
  end)
  if info and not bad[info.state] then return info end
  local failed = info and failure(info, what) or err
  error(explain and M.explained(failed, explain, info == nil) or failed, 0)
end

return M
