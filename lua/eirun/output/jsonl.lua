-- SPDX-License-Identifier: Apache-2.0
-- One JSON object a line; the last one is the run's.
local json = require "eirun.core.json"
local term = require "eirun.core.term"

local Jsonl = {}
Jsonl.__index = Jsonl

local M = {}

function M.new()
  return setmetatable({}, Jsonl)
end

-- What JSON cannot hold (functions, handles, secrets) is told by name, so that no result can break the output.
local function plain(value, depth)
  local kind = type(value)
  if kind == "number" and (value ~= value or value == math.huge or value == -math.huge) then
    return tostring(value)
  elseif kind == "string" or kind == "number" or kind == "boolean" or value == json.null then
    return value
  elseif kind ~= "table" or depth > 12 then
    return tostring(value)
  end
  local copy = {}
  for key, item in pairs(value) do
    copy[math.type(key) == "integer" and key or tostring(key)] = plain(item, depth + 1)
  end
  return (json.is_array(value) or #value > 0) and json.array(copy) or copy
end

local function emit(event)
  term.write(1, json.encode(plain(event, 0)) .. "\n")
end

local function error_fields(err)
  if not err then
    return nil
  end
  return { kind = err.kind, message = err.message, code = err.code, status = err.status, request_id = err.request_id,
    hint = err.hint, object = err.object, operation = err.operation, step = err.step }
end

function Jsonl:target(text, facts)
  local event = { event = "target", text = text }
  for key, value in pairs(facts) do
    event[key] = value
  end
  emit(event)
end

function Jsonl:step_started(step)
  emit { event = "step_started", name = step.name }
end

function Jsonl:progress() end

function Jsonl:note(step, text)
  emit { event = "note", name = step and step.name, text = text }
end

-- A program reads six outcomes: a step that was stopped has failed, and its error's kind says `cancelled`.
function Jsonl:step_finished(step)
  local outcome = step.outcome == "cancelled" and "failed" or step.outcome
  emit { event = "step", name = step.name, outcome = outcome, seconds = step.seconds, clock_seconds = step.clock_seconds,
    changes = json.array(step.changes), error = error_fields(step.error) }
end

function Jsonl:failed(err)
  emit { event = "error", error = error_fields(err) }
end

function Jsonl:text() end

function Jsonl:run_finished(summary)
  local event = { event = "run" }
  for key, value in pairs(summary) do
    event[key] = value
  end
  event.failed, event.cancelled = summary.failed + summary.cancelled, nil
  event.error = error_fields(summary.error)
  emit(event)
end

return M
