-- SPDX-License-Identifier: Apache-2.0
-- What containers wrote, for `kubectl logs`: lines with their time, per instance of a container; the last two instances are kept, in
-- files too, so that a sandbox that is opened again still has them.
local fs = require "eirun.core.fs"
local task = require "eirun.core.task"
local times = require "sandbox.times"

local Logs = {}
Logs.__index = Logs
local M = {}

local most_lines = 2000

---@param now function
---@param dir string
function M.new(now, dir) return setmetatable({ now = now, dir = dir .. "/logs", containers = {} }, Logs) end

local function key_of(uid, container) return uid .. "/" .. container end

local function add(lines, time, text)
  lines.last = lines.last + 1
  lines[lines.last] = { time, text }
  if lines.last - lines.first >= most_lines then
    lines[lines.first] = nil
    lines.first = lines.first + 1
  end
end

local function load(path)
  local lines = { first = 1, last = 0 }
  for time, text in (fs.read(path) or ""):gmatch("([%d.]+) ([^\n]*)\n") do add(lines, tonumber(time), text) end
  return lines
end

-- A container that ran before this sandbox was opened says nothing of its start a second time.
local settling = 2

---A new instance of a container begins; what the last one wrote becomes "previous". One that is taken up goes on with its lines.
---@param taken_up? boolean
---@return fun(line: string) write
function Logs:open(uid, container, taken_up)
  local key, began = key_of(uid, container), self.now()
  local path, entry = self.dir .. "/" .. key, self.containers[key] or { news = task.event() }
  self.containers[key] = entry
  if taken_up then
    entry.previous, entry.current = load(path .. ".previous"), load(path)
  else
    entry.previous, entry.current = entry.current, { first = 1, last = 0 }
    fs.mkdir(self.dir .. "/" .. uid, { parents = true })
    fs.rename(path, path .. ".previous")
  end
  local lines = entry.current
  return function(line)
    if taken_up and self.now() - began < settling then return end
    add(lines, self.now(), line)
    fs.append(path, ("%.6f %s\n"):format(self.now(), line:gsub("\n", " ")))
    entry.news:set()
  end
end

---The container will write no more; whoever follows it comes to the end.
function Logs:finish(uid, container)
  local entry = self.containers[key_of(uid, container)]
  if entry and entry.current then
    entry.current.ended = true
    entry.news:set()
  end
end

function Logs:forget(uid)
  fs.remove(self.dir .. "/" .. uid, { recursive = true })
  for key in pairs(self.containers) do
    if key:sub(1, #uid + 1) == uid .. "/" then self.containers[key] = nil end
  end
end

local function stamp(time)
  return times.iso(time):gsub("Z$", (".%09dZ"):format(math.floor(time % 1 * 1e9)))
end

local function text_of(lines, from, options)
  local out = {}
  for i = from, lines.last do
    local time, line = lines[i][1], lines[i][2]
    if not options.since or time >= options.since then
      out[#out + 1] = options.timestamps and stamp(time) .. " " .. line .. "\n" or line .. "\n"
    end
  end
  local text = table.concat(out)
  return options.limit_bytes and text:sub(1, options.limit_bytes) or text
end

local function first_wanted(lines, options)
  if not options.tail then return lines.first end
  return math.max(lines.first, lines.last - options.tail + 1)
end

-- Chunks as they come, until the container ends.
local function follower(entry, lines, options)
  local at, started = first_wanted(lines, options), false
  return function()
    while started and at > lines.last and not lines.ended do
      entry.news:wait()
      entry.news:clear()
    end
    if started and at > lines.last then return nil end
    started = true
    local text = text_of(lines, math.max(at, lines.first), options)
    at = lines.last + 1
    return text
  end
end

---The text, or with `follow` a function that answers chunks (waiting for them) and nil at the end.
---@param options {uid: string, follow?: boolean, previous?: boolean, tail?: integer, since_seconds?: integer, since_time?: string}
function Logs:read(container, options)
  local key = key_of(options.uid, container)
  local entry = self.containers[key] or { current = load(self.dir .. "/" .. key), previous = load(self.dir .. "/" .. key .. ".previous") }
  local lines = options.previous and entry.previous or not options.previous and entry.current
  if not lines then return "" end
  local view = { timestamps = options.timestamps, limit_bytes = options.limit_bytes, tail = options.tail,
    since = options.since_seconds and self.now() - options.since_seconds or (options.since_time and times.parse(options.since_time)) }
  if options.follow and not options.previous and not lines.ended and entry.news then return follower(entry, lines, view) end
  return text_of(lines, first_wanted(lines, view), view)
end

return M
