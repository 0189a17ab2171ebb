-- SPDX-License-Identifier: Apache-2.0
-- Where a run's events go: a live view on a terminal, plain lines elsewhere, or JSON lines.
local errors = require "eirun.errors"
local term = require "eirun.core.term"

local M = {}

--- Chooses an output.
---@param options {output?: string, quiet?: boolean}
---@return table
function M.choose(options)
  if options.output == "jsonl" then
    return require("eirun.output.jsonl").new()
  elseif not options.quiet and term.isatty(1) then
    return require("eirun.output.live").new()
  end
  return require("eirun.output.plain").new(options)
end

--- A value for people: short, on one line.
function M.show(value)
  local text = value == nil and "(none)" or tostring(value)
  if type(value) == "table" or text:find("%c") then
    text = require("eirun.core.json").encode(value)
  end
  return #text > 60 and text:sub(1, utf8.offset(text, 0, 57) - 1) .. "..." or text
end

local suffixes = { { 3600, "h" }, { 60, "m" } }

--- Seconds for people: 0.4s, 12s, 3m05s, 1h02m.
function M.duration(seconds)
  if seconds < 10 then
    return ("%.1fs"):format(seconds)
  elseif seconds < 60 then
    return ("%.0fs"):format(seconds)
  end
  for i, unit in ipairs(suffixes) do
    if seconds >= unit[1] then
      local rest = i == 1 and ("%02dm"):format(seconds % 3600 // 60) or ("%02ds"):format(seconds % 60 // 1)
      return ("%d%s%s"):format(seconds // unit[1], unit[2], rest)
    end
  end
end

--- "12.3 MB of 300 MB", "3 of 8 files".
function M.amount(progress)
  local function one(n)
    if progress.unit == "bytes" then
      for _, unit in ipairs { { 1e9, "GB" }, { 1e6, "MB" }, { 1e3, "kB" } } do
        if n >= unit[1] then
          return ("%.3g %s"):format(n / unit[1], unit[2])
        end
      end
      return ("%d B"):format(n)
    end
    return ("%.14g"):format(n)
  end
  if not progress.done then
    return ""
  end
  local text = one(progress.done)
  if progress.total then
    text = text .. " of " .. one(progress.total)
  end
  return progress.unit and progress.unit ~= "bytes" and text .. " " .. progress.unit or text
end

-- Lines of a change: what was made, or field: from -> to.
local function change_line(change)
  if change.outcome then
    return ("+ %s"):format(change.object)
  end
  return ("~ %s %s: %s -> %s"):format(change.object, change.field, M.show(change.from), M.show(change.to))
end

--- The lines under a finished step.
function M.change_lines(step)
  local lines = {}
  for i, change in ipairs(step.changes) do
    if i > 20 then
      lines[#lines + 1] = ("… and %d more"):format(#step.changes - 20)
      break
    end
    lines[#lines + 1] = change_line(change)
  end
  return lines
end

local function source_line(place)
  local file, line = place:match("^(.-):(%d+)$")
  local text = file and require("eirun.core.fs").read(file)
  local at = 0
  for code in (text or ""):gmatch("([^\n]*)\n?") do
    at = at + 1
    if at == tonumber(line) then
      return code:match("^%s*(.-)%s*$")
    end
  end
end

-- The innermost line of the traceback that is not the library's own.
local function playbook_place(traceback)
  for file, line in (traceback or ""):gmatch("\n%s*([^\n%[%]:]+%.lua):(%d+):") do
    if not file:find("^eirun/") and not file:find("lua/eirun/", 1, true) then
      return file .. ":" .. line
    end
  end
end

-- Frames of the user's files and the outermost of the library's, at most six lines.
local function short_traceback(traceback)
  local lines = {}
  for line in traceback:gmatch("[^\n]+") do
    if not line:find("[C]:", 1, true) and not line:find("eirun/play/", 1, true) and not line:find("eirun/task.lua", 1, true)
      and not line:find("stack traceback") then
      lines[#lines + 1] = line:match("^%s*(.-)%s*$")
    end
  end
  return table.move(lines, 1, math.min(#lines, 6), 1, {})
end

--- The lines that tell an error: message, where in the playbook, causes; a traceback when it is a bug of a script.
---@param err eirun.Error
---@return string[]
function M.error_lines(err)
  local lines = { errors.text(err) }
  local place = playbook_place(err.traceback)
  if place then
    local code = source_line(place)
    lines[#lines + 1] = "at " .. place .. (code and ": " .. code or "")
  end
  for _, cause in ipairs(err.causes or {}) do
    lines[#lines + 1] = "also: " .. errors.text(cause)
  end
  if err.bug and err.traceback then
    table.move(short_traceback(err.traceback), 1, 6, #lines + 1, lines)
  end
  return lines
end

--- The closing line: "2 created, 7 unchanged; 14m41s of cluster time in 6.1s".
function M.summary_line(summary)
  local parts = {}
  for _, name in ipairs { "created", "updated", "unchanged", "failed" } do
    if summary[name] > 0 then
      parts[#parts + 1] = ("%d %s"):format(summary[name], name)
    end
  end
  local counts = #parts > 0 and table.concat(parts, ", ") or "nothing to do"
  local apart = math.abs(summary.clock_seconds - summary.seconds) > 1
  local time = apart and ("%s of cluster time in %s"):format(M.duration(summary.clock_seconds), M.duration(summary.seconds))
    or M.duration(summary.seconds)
  return ("%s: %s; %s"):format(summary.outcome, counts, time)
end

return M
