-- SPDX-License-Identifier: Apache-2.0
-- Traces as plans: a CSV file with one row a request (time stamps), or one row an interval (a rate or a count).
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"

local M = {}

local most_bytes, most_requests, largest_body = 1 << 30, 50000000, 64 << 20

-- Column names that say what they hold, in any case; the first that a file has is taken.
local time_names = { "timestamp", "timestamp_ms", "timestamp_s", "time_s", "time_ms", "time", "arrived_at", "t" }
local rate_names = { "rate_rps", "rps", "qps", "rate", "requests_per_second" }
local count_names = { "value", "count", "requests", "invocations" }

local function fail(trace, line, column, text)
  errors.raise("invalid", ("%s:%d:%d: %s"):format(trace.file, line, column, text), { line = line, column = column })
end

local function quoted_field(trace, text, line, at)
  local field, from = {}, at + 1
  while true do
    local close = text:find('"', from, true)
    if not close then fail(trace, line, at, "a quoted field has no end") end
    field[#field + 1] = text:sub(from, close - 1)
    if text:sub(close + 1, close + 1) ~= '"' then return table.concat(field), close + 1 end
    field[#field + 1] = '"'
    from = close + 2
  end
end

-- Fields of one line, and the column at which each begins.
local function split(trace, text, line)
  local fields, places, at = {}, {}, 1
  repeat
    local field, after
    if text:sub(at, at) == '"' then
      field, after = quoted_field(trace, text, line, at)
    else
      after = text:find(",", at, true) or #text + 1
      field = text:sub(at, after - 1)
    end
    fields[#fields + 1], places[#places + 1] = field, at
    if after <= #text and text:sub(after, after) ~= "," then fail(trace, line, after, "expected a comma after a quoted field") end
    at = after + 1
  until after > #text
  return fields, places
end

local function find_named(trace, header, name)
  for i, field in ipairs(header) do if field == name then return i end end
  local list = table.concat(header, ", ")
  errors.raise("invalid", ("%s has no column '%s': its columns are %s"):format(trace.file, name, list))
end

local function find_first(header, names)
  for _, name in ipairs(names) do
    for i, field in ipairs(header) do if field:lower() == name then return i end end
  end
end

-- `timestamp, value` names its second column "value", not " value".
local function named(header)
  for i, field in ipairs(header) do header[i] = field:match "^%s*(.-)%s*$" end
  return header
end

-- Which columns are read, and as what.
local function choose(trace, header)
  local chosen = { header = header }
  chosen.time = trace.time and find_named(trace, header, trace.time) or find_first(header, time_names)
  if not chosen.time then
    errors.raise("invalid", ("%s: no column looks like a time (its columns are %s)"):format(trace.file, table.concat(header, ", ")),
      { hint = "name it: time = \"COLUMN\", or --column time=COLUMN" })
  end
  if trace.rate then chosen.value, chosen.is_rate = find_named(trace, header, trace.rate), true
  elseif trace.count then chosen.value = find_named(trace, header, trace.count)
  else
    chosen.value = find_first(header, rate_names)
    chosen.is_rate = chosen.value ~= nil
    chosen.value = chosen.value or find_first(header, count_names)
  end
  chosen.weight = trace.weight and find_named(trace, header, trace.weight)
  chosen.size = trace.size and find_named(trace, header, trace.size)
  local each = trace.weight and "weight" or trace.size and "size"
  if chosen.value and each then
    errors.raise("invalid", ("%s: %s goes with one row a request, but column '%s' holds a rate or a count"):format(
      trace.file, each, header[chosen.value]))
  end
  local unit = header[chosen.time]:lower():match("_([mun]?s)$")
  chosen.factor = ({ ms = 1e-3, us = 1e-6, ns = 1e-9 })[unit] or 1
  return chosen
end

-- Days since 1970-01-01 of a proleptic Gregorian date (H. Hinnant's days_from_civil).
local function days(y, m, d)
  y = m <= 2 and y - 1 or y
  local era = y // 400
  local year = y - era * 400
  local day = (153 * (m > 2 and m - 3 or m + 9) + 2) // 5 + d - 1
  return era * 146097 + year * 365 + year // 4 - year // 100 + day - 719468
end

-- A day is one of its month when the month's first day and its length say so; second 60 is a leap second.
local function is_date(y, m, d, hour, minute, second)
  if m < 1 or m > 12 then return false end
  local length = days(m == 12 and y + 1 or y, m % 12 + 1, 1) - days(y, m, 1)
  return d >= 1 and d <= length and hour < 24 and minute < 60 and second <= 60
end

-- Whole seconds and the fraction apart: a date's seconds leave no room in a double for seven digits behind the point.
local function read_date(text)
  local y, m, d, hour, minute, second, rest = text:match("^(%d%d%d%d)-(%d%d)-(%d%d)[ T](%d%d):(%d%d):(%d%d)(.*)$")
  if not y then return nil end
  local fraction = rest:match("^%.(%d+)Z?$")
  if not fraction and rest ~= "" and rest ~= "Z" then return nil end
  if not is_date(tonumber(y), tonumber(m), tonumber(d), tonumber(hour), tonumber(minute), tonumber(second)) then return nil end
  local whole = days(tonumber(y), tonumber(m), tonumber(d)) * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
  return whole, fraction and tonumber("0." .. fraction) or 0
end

local function read_time(trace, text, factor, line, column)
  local whole, fraction = read_date(text)
  if whole then return whole, fraction end
  local number = tonumber(text)
  if not number or number ~= number or math.abs(number) >= 1e15 then
    fail(trace, line, column, ("'%s' is not a time"):format(text))
  end
  return number * factor, 0
end

local function read_value(trace, text, line, column)
  local number = tonumber(text)
  if not number or number ~= number or number < 0 or number >= 1e12 then
    fail(trace, line, column, ("'%s' is not a number from 0 on"):format(text))
  end
  return number
end

local function read_row(trace, chosen, rows, fields, places, line)
  if #fields ~= #chosen.header then
    fail(trace, line, 1, ("%d fields where the header has %d"):format(#fields, #chosen.header))
  end
  local whole, fraction = read_time(trace, fields[chosen.time], chosen.factor, line, places[chosen.time])
  rows.origin = rows.origin or { whole, fraction }
  local at = (whole - rows.origin[1]) + (fraction - rows.origin[2])
  if at < (rows[#rows] or { 0 })[1] then fail(trace, line, places[chosen.time], "its time is before that of the line above") end
  if chosen.value and rows[1] and at == rows[#rows][1] then
    fail(trace, line, places[chosen.time], "its time is that of the line above: where a row is an interval, each has a time of its own")
  end
  local function value_of(column) return column and read_value(trace, fields[column], line, places[column]) end
  local size, weight = value_of(chosen.size), value_of(chosen.weight)
  if size and size > largest_body then fail(trace, line, places[chosen.size], "a body of more than 64 MiB") end
  if weight and weight > most_requests then fail(trace, line, places[chosen.weight], ("over %d requests"):format(most_requests)) end
  rows[#rows + 1] = { at, value_of(chosen.value), weight = weight, size = size }
end

-- Lines end in LF or CR LF; the last one may have no end; empty ones are passed over.
local function read_rows(trace, text)
  local chosen, rows, line = nil, {}, 0
  for content in (text:sub(1, 3) == "\xef\xbb\xbf" and text:sub(4) or text):gmatch "([^\n]*)\n?" do
    line = line + 1
    content = content:gsub("\r$", "")
    if content ~= "" then
      local fields, places = split(trace, content, line)
      if chosen then read_row(trace, chosen, rows, fields, places, line) else chosen = choose(trace, named(fields)) end
    end
  end
  if #rows == 0 then errors.raise("invalid", trace.file .. " holds no row") end
  return rows, chosen
end

local function median_step(rows)
  local steps = {}
  for i = 2, #rows do steps[#steps + 1] = rows[i][1] - rows[i - 1][1] end
  table.sort(steps)
  return steps[(#steps + 1) // 2]
end

-- The stretch of the trace's own seconds that is replayed.
local function window_of(trace, last)
  local from, to = trace.from or 0, math.min(trace.to or math.huge, last)
  if to <= from then
    errors.raise("invalid", ("%s: nothing lies between %g and %g s of its %.0f s"):format(trace.file, from, trace.to or last, last))
  end
  return from, to
end

-- One piece an interval. A row covers the usual step; where the next one is farther off nothing is known, and nothing sent.
local function to_pieces(trace, rows, chosen)
  local step = trace.interval or median_step(rows)
  if not step or step <= 0 then
    errors.raise("invalid", trace.file .. ": its intervals cannot be told from its times",
      { hint = "say interval = SECONDS, or --interval TIME" })
  end
  local from, to = window_of(trace, rows[#rows][1] + step)
  local speed, scale, pieces = trace.speed or 1, trace.scale or 1, {}
  local function add(first, last, rate)
    first, last = math.max(first, from), math.min(last, to)
    if last > first then
      local value = rate * scale * speed
      pieces[#pieces + 1] = { value, value, (last - first) / speed }
    end
  end
  for i, row in ipairs(rows) do
    local next_at = rows[i + 1] and rows[i + 1][1] or row[1] + step
    local covered = next_at - row[1] > 1.5 * step and row[1] + step or next_at
    if covered > row[1] then add(row[1], covered, chosen.is_rate and row[2] or row[2] / (covered - row[1])) end
    add(covered, next_at, 0)
  end
  return pieces, (to - from) / speed
end

-- Scaling time stamps stretches the count, not the time: request j of the replay lies where request j / scale was.
local function to_instants(trace, rows)
  local from, to = window_of(trace, rows[#rows][1] + 1e-6)
  local speed, scale, times, instants = trace.speed or 1, trace.scale or 1, {}, {}
  local sizes = trace.size and {} or nil
  for _, row in ipairs(rows) do
    for _ = 1, row[1] >= from and row[1] < to and (row.weight or 1) // 1 or 0 do
      times[#times + 1] = row[1] - from
      if sizes then sizes[#times] = row.size // 1 end
    end
    if #times > most_requests then errors.raise("invalid", ("%s: over %d requests"):format(trace.file, most_requests)) end
  end
  local count, scaled = math.floor(#times * scale + 1e-9), sizes and {} or nil
  for j = 0, count - 1 do
    local place = j / scale
    local i = math.floor(place)
    local here, after = times[i + 1], times[i + 2] or times[i + 1]
    instants[j + 1] = (here + (after - here) * (place - i)) / speed
    if sizes then scaled[j + 1] = math.tointeger(sizes[i + 1]) end
  end
  if count == 0 then errors.raise("invalid", ("%s: no request lies between %g and %g s"):format(trace.file, from, to)) end
  return instants, math.max((to - from) / speed, instants[count] + 1e-9), scaled
end

local function check(trace)
  for _, key in ipairs { "speed", "scale", "interval" } do
    local value = trace[key]
    if value and not (value > 0 and value < math.huge) then
      errors.raise("invalid", ("trace: %s must be a finite number above 0, got %s"):format(key, value))
    end
  end
end

---@class eirun.Trace
---@field file string CSV with a header line
---@field time? string column of the times; else found by its usual names. Numbers (a name that ends in _ms is in milliseconds) or dates
---@field rate? string column of requests a second in each interval
---@field count? string column of requests in each interval; without rate and count each row is one request
---@field weight? string column of how many requests a row stands for, all at its time; where each row is one request
---@field size? string column of the bytes of a request's body; where each row is one request
---@field interval? number seconds of a row; else the usual distance of two rows
---@field from? number seconds of the trace at which the replay begins
---@field to? number
---@field speed? number 10 replays ten times as fast
---@field scale? number 0.5 sends half as many

---Reads a trace.
---@param trace eirun.Trace
---@return {pieces?: number[][], instants?: number[], sizes?: integer[], seconds: number} sizes: of each instant's body
---Example: `trace.read { file = "nab_nyc_taxi.csv", speed = 600, to = 86400 }`. Raises kind "invalid" with `file:line:column:`, or
---what reading the file raises. May wait for the disk.
function M.read(trace)
  check(trace)
  local rows, chosen = read_rows(trace, errors.check(fs.read(trace.file, most_bytes)))
  local out = {}
  if chosen.value then
    out.pieces, out.seconds = to_pieces(trace, rows, chosen)
  else
    out.instants, out.seconds, out.sizes = to_instants(trace, rows)
  end
  return out
end

return M
