-- SPDX-License-Identifier: Apache-2.0
-- What the vendors' protocols share: canonical queries, times in their several spellings, text that may hold a secret.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local secret = require "eirun.core.secret"

local M = {}

---Percent-encodes all bytes but `A-Z a-z 0-9 - _ . ~`.
---@param text any
---@return string
function M.encode(text)
  return crypto.percent_encode(tostring(text), "rfc3986")
end

---The same, leaving `/` as it is.
---@param text string
---@return string
function M.encode_path(text)
  return crypto.percent_encode(text, "path")
end

---A value as it stands in a query: null and "" are both present and empty.
---@param value any
---@return string
function M.value(value)
  if value == json.null then return "" end
  return tostring(value)
end

---The keys of a map in byte order.
---@param map table<string, any>
---@return string[]
function M.sorted_keys(map)
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys)
  return keys
end

---Sorted `k=v&k=v` of a map of raw values. With `bare`, an empty value leaves the `=` out too.
---@param query? table<string, any>
---@param bare? boolean
---@return string
---Example: `wire.query { b = "x y", a = 1 }` is `a=1&b=x%20y`.
function M.query(query, bare)
  local pairs_by_name, names = {}, {}
  for key, value in pairs(query or {}) do
    local name, text = M.encode(key), M.encode(M.value(value))
    names[#names + 1] = name
    pairs_by_name[name] = (bare and text == "") and name or name .. "=" .. text
  end
  table.sort(names)
  for i, name in ipairs(names) do names[i] = pairs_by_name[name] end
  return table.concat(names, "&")
end

---Joins pieces of text; the result is a secret as soon as one piece is.
---@param parts (string|userdata)[]
---@return string|userdata
function M.join(parts)
  for _, part in ipairs(parts) do
    if type(part) ~= "string" then return secret.concat(table.unpack(parts)) end
  end
  return table.concat(parts)
end

-- Civil time from days since 1970-01-01 (H. Hinnant's algorithm): os.date knows only the machine's clock and time zone.
local function civil(days)
  local z = days + 719468
  local era = z // 146097
  local day_of_era = z - era * 146097
  local year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
  local day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
  local shifted = (5 * day_of_year + 2) // 153
  local month = shifted < 10 and shifted + 3 or shifted - 9
  return year_of_era + era * 400 + (month <= 2 and 1 or 0), month, day_of_year - (153 * shifted + 2) // 5 + 1
end

local function days_of(year, month, day)
  if month <= 2 then year = year - 1 end
  local era = year // 400
  local year_of_era = year - era * 400
  local day_of_year = (153 * (month > 2 and month - 3 or month + 9) + 2) // 5 + day - 1
  return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468
end

local week = { [0] = "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" }
local months = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

---Broken-down UTC time of seconds since the epoch.
---@param seconds number
---@return {year: integer, month: integer, day: integer, hour: integer, min: integer, sec: integer, days: integer}
function M.utc(seconds)
  local whole = math.floor(seconds)
  local days, rest = whole // 86400, whole % 86400
  local year, month, day = civil(days)
  return { year = year, month = month, day = day, hour = rest // 3600, min = rest % 3600 // 60, sec = rest % 60, days = days }
end

---`2026-01-02T03:04:05Z`
---@param seconds number
---@return string
function M.iso(seconds)
  local t = M.utc(seconds)
  return ("%04d-%02d-%02dT%02d:%02d:%02dZ"):format(t.year, t.month, t.day, t.hour, t.min, t.sec)
end

---`20260102T030405Z`
---@param seconds number
---@return string
function M.basic(seconds)
  return (M.iso(seconds):gsub("[-:]", ""))
end

---`Fri, 02 Jan 2026 03:04:05 GMT`
---@param seconds number
---@return string
function M.gmt(seconds)
  local t = M.utc(seconds)
  return ("%s, %02d %s %04d %02d:%02d:%02d GMT"):format(week[t.days % 7], t.day, months[t.month], t.year, t.hour, t.min, t.sec)
end

---`202601020304`, the job version that arena would choose.
---@param seconds number
---@return string
function M.stamp(seconds)
  return M.basic(seconds):sub(1, 8) .. M.basic(seconds):sub(10, 13)
end

local function offset_seconds(zone)
  if zone == "Z" or zone == "" then return 0 end
  local sign, hours, minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
  if not sign then return nil end
  return (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60)
end

---Seconds since the epoch of an RFC 3339 time, also without seconds as ECS writes it; nil when it is none.
---@param text string
---@return number|nil
function M.parse_time(text)
  local year, month, day, hour, min, rest = text:match("^(%d%d%d%d)-(%d%d)-(%d%d)[Tt ](%d%d):(%d%d)(.*)$")
  if not year then return nil end
  local sec, zone = rest:match("^:(%d%d%.?%d*)(.*)$")
  local offset = offset_seconds((zone or rest):upper())
  if not offset then return nil end
  local days = days_of(tonumber(year), tonumber(month), tonumber(day))
  return days * 86400 + hour * 3600 + min * 60 + (tonumber(sec) or 0) - offset
end

return M
