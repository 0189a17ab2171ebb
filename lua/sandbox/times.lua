-- SPDX-License-Identifier: Apache-2.0
-- Dates as the services write them. Arithmetic on days, so neither the host's zone nor its clock takes part.
local times = {}

-- Days since 1970-01-01 of a civil date (Howard Hinnant's algorithm).
local function days_of(y, m, d)
  if m <= 2 then y = y - 1 end
  local era = y // 400
  local yoe = y - era * 400
  local doy = (153 * (m + (m > 2 and -3 or 9)) + 2) // 5 + d - 1
  return era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
end

local function civil(days)
  days = days + 719468
  local era = days // 146097
  local doe = days - era * 146097
  local yoe = (doe - doe // 1460 + doe // 36524 - doe // 146096) // 365
  local doy = doe - (365 * yoe + yoe // 4 - yoe // 100)
  local mp = (5 * doy + 2) // 153
  local m = mp + (mp < 10 and 3 or -9)
  return yoe + era * 400 + (m <= 2 and 1 or 0), m, doy - (153 * mp + 2) // 5 + 1
end

function times.parts(seconds)
  local whole = math.floor(seconds)
  local y, m, d = civil(whole // 86400)
  local rest = whole % 86400
  return { year = y, month = m, day = d, hour = rest // 3600, min = rest // 60 % 60, sec = rest % 60,
    weekday = (whole // 86400 + 4) % 7 }
end

function times.epoch(y, m, d, hour, min, sec)
  return days_of(y, m, d) * 86400 + (hour or 0) * 3600 + (min or 0) * 60 + (sec or 0)
end

-- 2026-01-05T08:00:00Z
function times.iso(seconds)
  local p = times.parts(seconds)
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(p.year, p.month, p.day, p.hour, p.min, p.sec)
end

-- 2026-01-05T08:00Z, as ECS writes CreationTime
function times.iso_minute(seconds)
  return (times.iso(seconds):gsub(":%d%dZ$", "Z"))
end

-- 2026-01-05T16:00:00.123456789+08:00, as CS writes created and updated
function times.iso_china(seconds)
  local nanos = math.floor((seconds - math.floor(seconds)) * 1e9)
  return times.iso(seconds + 8 * 3600):sub(1, -2) .. (".%09d+08:00"):format(nanos)
end

-- 20260105T080000Z
function times.compact(seconds)
  return (times.iso(seconds):gsub("[-:]", ""))
end

local weekdays = { [0] = "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }
local month_number = {}
for i, name in ipairs(months) do month_number[name] = i end

-- Mon, 05 Jan 2026 08:00:00 GMT
function times.http(seconds)
  local p = times.parts(seconds)
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(weekdays[p.weekday], p.day, months[p.month], p.year,
    p.hour, p.min, p.sec)
end

local function parse_http(text)
  local d, month, y, h, min, s = text:match("^%a%a%a, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not d or not month_number[month] then return nil end
  return times.epoch(tonumber(y), month_number[month], tonumber(d), tonumber(h), tonumber(min), tonumber(s))
end

-- Seconds of any of the forms above; nil for anything else.
function times.parse(text)
  local y, m, d, h, min, rest = text:match("^(%d%d%d%d)-?(%d%d)-?(%d%d)T(%d%d):?(%d%d):?(.-)Z$")
  if not y then return parse_http(text) end
  local sec = rest == "" and 0 or tonumber(rest)
  if not sec or sec >= 61 or tonumber(m) > 12 or tonumber(h) > 24 then return nil end
  return times.epoch(tonumber(y), tonumber(m), tonumber(d), tonumber(h), tonumber(min), sec)
end

return times
