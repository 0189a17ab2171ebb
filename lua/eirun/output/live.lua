-- SPDX-License-Identifier: Apache-2.0
-- The view on a terminal: finished steps scroll up, the running ones stay at the bottom with their time and progress.
local output = require "eirun.output"
local task = require "eirun.task"
local clock = require "eirun.core.clock"
local os_core = require "eirun.core.os"
local term = require "eirun.core.term"

local Live = {}
Live.__index = Live

local M = {}

local colours = { created = "32", updated = "33", unchanged = "2", done = "32", skipped = "2", failed = "31", cancelled = "31",
  deleted = "33" }
local marks = { created = "+", updated = "~", unchanged = "=", done = "✓", skipped = "-", failed = "✗", cancelled = "✗", deleted = "-" }
local frames = { "⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏" }

-- No more than this many redraws a second of real time.
local PACE = 0.1

function M.new()
  local plain = os_core.getenv("NO_COLOR")
  return setmetatable({ running = {}, drawn = 0, frame = 0, last = 0, colour = not plain or plain == "" }, Live)
end

function Live:paint(code, text)
  return self.colour and ("\27[%sm%s\27[0m"):format(code, text) or text
end

local function bar(progress, width)
  local part = progress.total and progress.total > 0 and math.min(1, progress.done / progress.total) or 0
  local full = math.floor(part * width + 0.5)
  return ("█"):rep(full) .. ("░"):rep(width - full)
end

function Live:running_line(step)
  local text = ("%s %s %s"):format(frames[self.frame % #frames + 1], step.name, output.duration(task.now() - step.clock_started))
  local progress = step.progress
  if progress then
    text = text .. "  " .. (progress.total and bar(progress, 20) .. " " or "") .. output.amount(progress)
      .. (progress.text and "  " .. progress.text or "")
  end
  return text
end

-- Cuts to the terminal's width, counting characters, so that a line never wraps and the cursor maths holds.
local function cut(text, width)
  local at = utf8.offset(text, width)
  return at and at <= #text and text:sub(1, at - 1) or text
end

function Live:erase()
  if self.drawn > 0 then
    term.write(1, ("\27[%dA\27[0J"):format(self.drawn))
    self.drawn = 0
  end
end

function Live:draw()
  local lines, width = {}, term.width() or 80
  for _, step in ipairs(self.running) do
    lines[#lines + 1] = cut(self:running_line(step), width)
  end
  if #lines > 0 then
    term.write(1, table.concat(lines, "\n") .. "\n")
  end
  self.drawn, self.last = #lines, clock.monotonic()
end

function Live:print(lines)
  self:erase()
  term.write(1, table.concat(lines, "\n") .. "\n")
  self:draw()
end

function Live:tick()
  if clock.monotonic() - self.last >= PACE then
    self.frame = self.frame + 1
    self:erase()
    self:draw()
  end
end

function Live:target(text)
  self:print { self:paint("1", text) }
end

function Live:step_started(step)
  self.running[#self.running + 1] = step
  self:erase()
  self:draw()
end

function Live:progress(step, progress)
  step.progress = progress
  self:tick()
end

function Live:note(_, text)
  self:print { self:paint("2", "  " .. text) }
end

local function remove(list, item)
  for i, other in ipairs(list) do
    if other == item then
      table.remove(list, i)
    end
  end
end

function Live:step_finished(step)
  remove(self.running, step)
  local lines = { ("%s %-10s %s %s"):format(self:paint(colours[step.outcome], marks[step.outcome]),
    self:paint(colours[step.outcome], step.outcome), step.name, self:paint("2", output.duration(step.clock_seconds))) }
  for _, change in ipairs(output.change_lines(step)) do
    lines[#lines + 1] = "    " .. change
  end
  if step.error and step.outcome == "failed" then
    for _, text in ipairs(output.error_lines(step.error)) do
      lines[#lines + 1] = "    " .. self:paint("31", text)
    end
  end
  self:print(lines)
end

function Live:failed(err)
  local lines = output.error_lines(err)
  lines[1] = self:paint("31", lines[1])
  self:print(lines)
end

function Live:text(text)
  self:erase()
  term.write(1, text)
  self:draw()
end

function Live:run_finished(summary)
  self:erase()
  term.write(1, self:paint(summary.outcome == "ok" and "32" or "31", output.summary_line(summary)) .. "\n")
end

return M
