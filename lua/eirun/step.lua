-- SPDX-License-Identifier: Apache-2.0
-- What the running step tells of itself. The library calls these wherever it is; outside a step they do nothing.
local task = require "eirun.task"

local M = {}

---@class eirun.Record
---@field kind string
---@field name string
---@field outcome "created"|"updated"|"unchanged"|"deleted"
---@field changes? table[]

local function current()
  return task.context().eirun_step
end

--- One object that the step made true.
---@param record eirun.Record
--- Example: `step.record { kind = "HPA", name = "bert", outcome = "created" }`
--- Raises nothing.
function M.record(record)
  local step = current()
  if step then
    step:add_record(record)
  end
end

--- A line for people: something worth knowing that is no failure.
---@param text string
--- Example: `step.note "the pool keeps 2 nodes that nobody asked for"`. Raises nothing.
function M.note(text)
  local step = current()
  if step then
    step:add_note(text)
  end
end

--- How far the step is.
---@param progress {done: number, total?: number, unit?: string, text?: string}
--- Example: `step.progress { done = 3, total = 8, unit = "files" }`
--- Raises nothing.
function M.progress(progress)
  local step = current()
  if step then
    step:show_progress(progress)
  end
end

return M
