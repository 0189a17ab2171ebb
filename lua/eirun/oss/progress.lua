-- SPDX-License-Identifier: Apache-2.0
-- How far a batch of transfers is: what is done and what of that was really sent, the rate of now, and when it will be over.
local clock = require "eirun.core.clock"

local M = {}

---@class eirun.OssTally
local Tally = {}
Tally.__index = Tally

---@return eirun.OssTally
function M.new()
  return setmetatable({ started = clock.monotonic(), files = 0, bytes = 0, known_files = 0, known_bytes = 0, sent = 0, skipped = 0,
    resent = 0,
    failed = {}, notes = {}, partial = {}, samples = {} }, Tally)
end

function Tally:add(job)
  self.known_files, self.known_bytes = self.known_files + 1, self.known_bytes + (job.size or 0)
end

---Says what went wrong on the way and was mended.
function Tally:note(job, text)
  if #self.notes < 100 then self.notes[#self.notes + 1] = { key = job.key, path = job.path, text = text } end
end

function Tally:again(job, bytes, text)
  self.resent = self.resent + 1
  self.bytes, self.partial[job] = self.bytes - bytes, (self.partial[job] or 0) - bytes
  self:note(job, text)
end

---A part, or a whole small file, is where it should be.
function Tally:part(job, op, result)
  self.bytes, self.partial[job] = self.bytes + op.length, (self.partial[job] or 0) + op.length
  local field = result.skipped and "skipped" or "sent"
  self[field] = self[field] + op.length
  self.resent = self.resent + (result.resent or 0)
  if result.reason then self:note(job, result.reason) end
end

function Tally:done(job)
  self.files, self.partial[job] = self.files + 1, nil
end

-- Bytes of a file that failed are not done.
function Tally:fail(job, err)
  self.bytes, self.partial[job] = self.bytes - (self.partial[job] or 0), nil
  self.failed[#self.failed + 1] = { key = job.key, path = job.path, error = err }
end

local WINDOW = 5 -- seconds that the rate looks back

local function rate_of(self, now, moved)
  local samples = self.samples
  samples[#samples + 1] = { at = now, moved = moved }
  while #samples > 2 and samples[2].at <= now - WINDOW do table.remove(samples, 1) end
  local first = #samples > 1 and samples[1] or { at = self.started, moved = 0 }
  return now > first.at and (moved - first.moved) / (now - first.at) or 0
end

---A picture of now.
---@param moved integer bytes on the wire so far
---@param under_way integer bytes of parts that are not done yet
---@return eirun.OssProgress
function Tally:picture(moved, under_way)
  local now = clock.monotonic()
  local all = self.complete_list and { files = self.known_files, bytes = self.known_bytes } or self.expected or {}
  local rate, total = rate_of(self, now, moved), all.bytes
  local bytes = math.max(0, math.min(self.bytes + under_way, total or math.huge))
  return { files = self.files, files_total = all.files, bytes = math.tointeger(bytes) or bytes,
    bytes_total = total, moved = moved, failed = #self.failed, rate = rate, seconds = now - self.started,
    eta = total and rate > 0 and (total - bytes) / rate or nil }
end

---@return eirun.OssReport
function Tally:report()
  return { files = self.files, bytes = self.bytes, sent = self.sent, skipped = self.skipped, resent = self.resent, failed = self.failed,
    notes = self.notes, not_tried = self.known_files - self.files - #self.failed, seconds = clock.monotonic() - self.started }
end

local units = { "B", "KB", "MB", "GB", "TB" }

---Bytes for people: "1.5 GB".
---@param bytes number
---@return string
---Example: `progress.size(1536)` is `1.5 KB`. Raises nothing.
function M.size(bytes)
  local unit = 1
  while bytes >= 1000 and unit < #units do bytes, unit = bytes / 1024, unit + 1 end
  return (unit == 1 or bytes >= 100) and ("%d %s"):format(math.floor(bytes + 0.5), units[unit]) or ("%.1f %s"):format(bytes, units[unit])
end

local function span(seconds)
  seconds = math.floor(seconds + 0.5)
  if seconds < 60 then return seconds .. " s" end
  if seconds < 3600 then return ("%d min %02d s"):format(seconds // 60, seconds % 60) end
  return ("%d h %02d min"):format(seconds // 3600, seconds % 3600 // 60)
end

---A picture as one line: "120 of 2,000 files, 1.2 GB of 3.0 GB (40 %), 210 MB/s, 9 s left".
---@param p eirun.OssProgress
---@return string
---Example: `on_progress = function(p) print(progress.line(p)) end`. Raises nothing.
function M.line(p)
  local list = { p.files_total and ("%d of %d files"):format(p.files, p.files_total) or ("%d files"):format(p.files) }
  local percent = p.bytes_total and p.bytes_total > 0 and (" of %s (%d %%)"):format(M.size(p.bytes_total),
    p.bytes * 100 // p.bytes_total) or ""
  list[#list + 1] = M.size(p.bytes) .. percent
  if p.failed > 0 then list[#list + 1] = p.failed .. " failed" end
  list[#list + 1] = M.size(p.rate) .. "/s"
  if p.eta then list[#list + 1] = span(p.eta) .. " left" end
  return table.concat(list, ", ")
end

return M
