-- SPDX-License-Identifier: Apache-2.0
-- Plain lines, for logs and cron mails. With `quiet` only changes and failures.
local output = require "eirun.output"
local term = require "eirun.core.term"

local Plain = {}
Plain.__index = Plain

local M = {}

function M.new(options)
  return setmetatable({ quiet = options.quiet }, Plain)
end

local function line(text)
  term.write(1, text .. "\n")
end

function Plain:target(text)
  if not self.quiet then
    line(text)
  end
end

function Plain:step_started() end

function Plain:progress() end

function Plain:note(_, text)
  if not self.quiet then
    line("  " .. text)
  end
end

local quiet_outcomes = { unchanged = true, done = true, skipped = true }

function Plain:step_finished(step)
  if self.quiet and quiet_outcomes[step.outcome] then
    return
  end
  line(("%-10s %s (%s)"):format(step.outcome, step.name, output.duration(step.clock_seconds)))
  for _, change in ipairs(output.change_lines(step)) do
    line("  " .. change)
  end
  if step.error and step.outcome == "failed" then
    for _, text in ipairs(output.error_lines(step.error)) do
      line("  " .. text)
    end
  end
end

function Plain:failed(err)
  for _, text in ipairs(output.error_lines(err)) do
    line(text)
  end
end

function Plain:text(text)
  if not self.quiet then
    term.write(1, text)
  end
end

function Plain:run_finished(summary)
  if not self.quiet or summary.outcome ~= "ok" or summary.created + summary.updated > 0 then
    line(output.summary_line(summary))
  end
end

return M
