-- SPDX-License-Identifier: Apache-2.0
-- Container Service answers changes with a task; this follows it to its end and says why it failed.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local http = require "eirun.http"

local M = {}

local good = { success = true, succeeded = true }
local bad = { fail = true, failed = true, error = true, canceled = true, cancelled = true }

local function stage_messages(info)
  local list = {}
  for _, stage in ipairs(info.stages or {}) do
    if stage.message and stage.message ~= "" then list[#list + 1] = stage.message end
  end
  return list
end

local function failure(info, what)
  local list = stage_messages(info)
  local reason = type(info.error) == "table" and info.error.message or nil
  if reason and reason ~= "" then table.insert(list, 1, reason) end
  for _, result in ipairs(info.task_result or {}) do
    if result.status == "failed" then list[#list + 1] = tostring(result.data) .. " failed" end
  end
  local words = #list > 0 and table.concat(list, "; ") or "the task gave no reason"
  return errors.new("internal", ("%s: task %s failed: %s"):format(what, info.task_id, words),
    { code = type(info.error) == "table" and info.error.code or nil, object = what, operation = info.task_type })
end

---Waits for the end of a task. An empty id means that there is nothing to wait for.
---@param id string|nil
---@param what string the object, for messages
---@param timeout? number default 1200
---@return table|nil info the task's last state
---Raises what the task's failure says, kind "timeout" when it takes too long.
function M.wait(id, what, timeout)
  if not id or id == "" then return nil end
  local info, err = http.poll({ timeout = timeout or 1200, interval = 5, cap = 15, what = "task " .. id .. " of " .. what }, function()
    local now = cloud.cs("DescribeTaskInfo", { task_id = id }, { object = what })
    if good[now.state] or bad[now.state] then return now end
    return nil, "it is " .. tostring(now.state) .. (now.current_stage and " in " .. now.current_stage or "")
  end)
  if not info then error(err, 0) end
  if bad[info.state] then error(failure(info, what), 0) end
  return info
end

return M
