-- SPDX-License-Identifier: Apache-2.0
-- What all words of eirun oss share: the target, places, sizes, progress, and the end: one line, a report, an exit code.
local errors = require "eirun.errors"
local paths = require "eirun.oss.paths"
local term = require "eirun.core.term"

local M = {}

---@class eirun.cli.oss.Io
local Io = {}
Io.__index = Io

local function usage(text)
  errors.raise("invalid", text, { code = "usage" })
end
M.usage = usage

---@param row table of the words' table
---@param options table
---@return eirun.cli.oss.Io
function M.new(row, options)
  return setmetatable({ word = row[1], args = row[2], options = options, failed = {}, buckets = {} }, Io)
end

---Opens the target, once; its line goes where no figures go.
function Io:open()
  if self.session then return end
  local quiet = self.options.quiet
  self.session = require("eirun.target").open(self.options, { target = function(_, text)
    if not quiet then term.write(2, text .. "\n") end
  end })
end

function Io:close()
  if self.live then term.write(2, "\r\27[K") end
  if self.session then getmetatable(self.session).__close(self.session) end
  self.session = nil
end
Io.__close = Io.close

local WORTH_ASKING = 64 << 20 -- bytes: asking takes up to a second where the answer is no

-- Inside the region's own network the internal endpoint costs nothing and is faster: said once, when it can be reached.
function Io:hint_endpoint(bucket, bytes)
  local options, target = self.options, require("eirun.target").current()
  local plain = not (options.endpoint or options.endpoint_kind or options.quiet or target.sandbox or (target.endpoints or {}).OSS)
  if not plain or bytes < WORTH_ASKING then return end
  if require("eirun.oss.reach").internal(bucket) then
    term.write(2, "hint: the internal endpoint can be reached from here, without traffic fees: --endpoint-kind internal\n")
  end
end

---A bucket of the target.
function Io:bucket(name)
  self:open()
  local options = self.options
  self.buckets[name] = self.buckets[name] or require("eirun.oss").bucket(name, { region = options.region, endpoint = options.endpoint,
    kind = options.endpoint_kind, addressing = options.addressing, signature = options.signature })
  return self.buckets[name]
end

---Exactly so many words, else how it is written.
function Io:want(words, least, most)
  if #words < least or #words > (most or least) then usage(("eirun oss %s %s"):format(self.word, self.args)) end
end

---A place in OSS; `key` says whether there must be one.
function Io:remote(text, key)
  local place = paths.remote(text)
  if not place then usage(("'%s' is no place in OSS: write oss://BUCKET/KEY"):format(paths.show(text))) end
  if key and place.key == "" then usage(("'%s' names no object: eirun oss %s %s"):format(paths.show(text), self.word, self.args)) end
  require("eirun.oss").check_name(place.bucket)
  return place
end

local units = { [""] = 1, K = 1 << 10, M = 1 << 20, G = 1 << 30, T = 1 << 40 }

---"10M" or "100KiB" as bytes.
function M.size(name, text)
  if not text then return nil end
  local number, unit = text:match "^([%d.]+)%s*([KMGT]?)i?B?$"
  local value = number and tonumber(number)
  if not value or value <= 0 then usage(("--%s wants a size such as 8M, not '%s'"):format(name, text)) end
  return math.floor(value * units[unit])
end

local seconds_of = { s = 1, m = 60, h = 3600, d = 86400 }

---"12h" or "7d" as seconds.
function M.duration(name, text)
  if not text then return nil end
  local number, unit = text:match "^(%d+)([smhd]?)$"
  if not number then usage(("--%s wants a time such as 30m, 12h or 7d, not '%s'"):format(name, text)) end
  return math.tointeger(tonumber(number)) * (seconds_of[unit] or 1)
end

local LEAST_PART, MOST_PART = 100 << 10, 5 << 30

---The options of transfers, checked.
function Io:transfer_options()
  local options = self.options
  local part = M.size("part-size", options.part_size)
  if part and (part < LEAST_PART or part > MOST_PART) then usage "--part-size is 100K to 5G" end
  for _, name in ipairs { "jobs", "parallel" } do
    if options[name] and (options[name] < 1 or options[name] > 256) then usage(("--%s is 1 to 256"):format(name)) end
  end
  local limit = M.size("bandwidth-limit", options.bandwidth_limit)
  if limit and limit < 1024 then usage "--bandwidth-limit is at least 1K a second" end
  return { jobs = options.jobs, parallel = options.parallel, part_size = part, bandwidth_limit = limit, on_progress = self:progress() }
end

---One line that is written over; nothing where nobody looks.
function Io:progress()
  if self.options.quiet or self.options.json or not term.isatty(2) then return nil end
  local line = require("eirun.oss.progress").line
  return function(picture)
    self.live = true
    term.write(2, "\r\27[K" .. line(picture):sub(1, term.width(2) - 1))
  end
end

---A line of output.
function Io:say(text)
  if self.options.quiet or self.options.json then return end
  if self.live then
    term.write(2, "\r\27[K")
    self.live = false
  end
  errors.check(term.write(1, text .. "\n"))
end

---What --json prints.
function Io:result(value)
  if not self.options.json then return end
  errors.check(term.write(1, require("eirun.core.json").encode(value) .. "\n"))
end

local function place_of(row)
  return paths.show(row.path or row.key or "")
end

-- JSON is UTF-8: a name that is not stands as it would on a terminal.
local function utf8_or_shown(text)
  return text and (utf8.len(text) and text or paths.show(text))
end

---Failures, as a program reads them.
function M.failures(list)
  local json = require "eirun.core.json"
  local out = json.array {}
  for i, row in ipairs(list) do
    local err = errors.from(row.error)
    out[i] = { path = utf8_or_shown(row.path), key = utf8_or_shown(row.key), kind = err.kind, code = err.code, ec = err.ec,
      message = utf8_or_shown(err.message), hint = err.hint, request_id = err.request_id }
  end
  return out
end

---Lists failures; the exit code will not be 0.
function Io:tell_failed(list)
  if self.live then term.write(2, "\r\27[K") end
  self.live = false
  for _, row in ipairs(list) do
    self.failed[#self.failed + 1] = row
    term.write(2, ("failed: %s: %s\n"):format(place_of(row), errors.text(row.error)))
  end
end

---@return integer exit_code
function Io:finish()
  return #self.failed > 0 and 1 or 0
end

M.bytes = require("eirun.oss.progress").size

---"3 files", "1 file"
function M.count(n, what)
  return ("%d %s%s"):format(n, what, n == 1 and "" or "s")
end

return M
