-- SPDX-License-Identifier: Apache-2.0
-- Asynchronous tasks of the container service: they run for a while, then their finisher says what became of it.
local json = require "eirun.core.json"
local times = require "sandbox.times"

local tasks = {}

local finishers = {}

-- fn(ctx, task) when the time has come. It returns nil (success), "again" (asked 5 s later), or "fail", message.
function tasks.finisher(kind, fn) finishers[kind] = fn end

local function log_event(ctx, record, level, reason, message)
  local event = { id = ctx.id("ev-", 24, "hex"), cluster_id = record.cluster_id, task_id = record.id, source = record.type,
    subject = record.target.id, time = ctx.now(), level = level, reason = reason, message = message }
  ctx.store:put("event", ("%020.3f %s"):format(ctx.now(), event.id), event)
end

-- options: { type=, target={id,type}, after=seconds, stage="...", data={}, kind=finisher's name, results={instance ids} }
function tasks.start(ctx, options)
  local record = { id = ctx.id("T-", 24, "hex"), type = options.type, kind = options.kind or options.type, cluster_id = ctx.cluster_id,
    state = "running", created = ctx.now(), updated = ctx.now(), target = options.target, data = options.data or {},
    stage = options.stage or options.type, message = options.message, results = {} }
  for i, id in ipairs(options.results or {}) do record.results[i] = { data = id, status = "initial" } end
  ctx.store:put("task", record.id, record)
  log_event(ctx, record, "Normal", "Start", record.type .. " started")
  ctx.jobs:after(options.after or 5, "task.due", { id = record.id })
  return record
end

local function close(ctx, record, state, message)
  record.state, record.updated, record.ended = state, ctx.now(), ctx.now()
  if message then record.error = { code = "400", message = message } end
  for _, result in ipairs(record.results) do
    if result.status == "initial" then result.status = state == "success" and "success" or "failed" end
  end
  ctx.store:put("task", record.id, record)
  log_event(ctx, record, state == "success" and "Normal" or "Warning", state == "success" and "Finished" or "Failed",
    message or record.type .. " finished")
end

local function due(ctx, data)
  local record = ctx.store:get("task", data.id)
  if not record or record.state ~= "running" then return end
  local verdict, detail = nil, nil
  local finish = finishers[record.kind]
  if finish then verdict, detail = finish(ctx, record) end
  if verdict == "again" then return ctx.jobs:after(ctx.scaled(5), "task.due", data) end
  if verdict == "fail" then return close(ctx, record, "fail", detail) end
  close(ctx, record, "success")
end

-- As DescribeTaskInfo shows it.
function tasks.view(record)
  local stage = { state = record.state, start_time = times.iso_china(record.created),
    end_time = record.ended and times.iso_china(record.ended) or "",
    message = record.error and record.error.message or record.message or "", outputs = {} }
  return { task_id = record.id, cluster_id = record.cluster_id, task_type = record.type, state = record.state,
    created = times.iso_china(record.created), updated = times.iso_china(record.updated),
    current_stage = record.stage, target = record.target, parameters = {}, outputs = {}, stages = json.array { stage },
    events = json.array {}, task_result = json.array(table.move(record.results, 1, #record.results, 1, {})), error = record.error }
end

function tasks.start_engine(ctx)
  ctx.jobs:handle("task.due", function(data) due(ctx, data) end)
end

return tasks
