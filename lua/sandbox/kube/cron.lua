-- SPDX-License-Identifier: Apache-2.0
-- Cron schedules: five fields, names, steps and the usual @words; times are UTC.
local cron = {}

local WORDS = { ["@yearly"] = "0 0 1 1 *", ["@annually"] = "0 0 1 1 *", ["@monthly"] = "0 0 1 * *", ["@weekly"] = "0 0 * * 0",
  ["@daily"] = "0 0 * * *", ["@midnight"] = "0 0 * * *", ["@hourly"] = "0 * * * *" }
local MONTHS = { jan = 1, feb = 2, mar = 3, apr = 4, may = 5, jun = 6, jul = 7, aug = 8, sep = 9, oct = 10, nov = 11, dec = 12 }
local DAYS = { sun = 0, mon = 1, tue = 2, wed = 3, thu = 4, fri = 5, sat = 6 }
local FIELDS = { { 0, 59 }, { 0, 23 }, { 1, 31 }, { 1, 12, MONTHS }, { 0, 7, DAYS } }

local function number(text, names)
  return math.tointeger(tonumber(text)) or names and names[text:lower()]
end

local function add_range(set, part, low, high, names)
  local range, step = part:match("^([^/]+)/(%d+)$")
  range, step = range or part, math.tointeger(tonumber(step or 1))
  local from, to = range:match("^([^-]+)-([^-]+)$")
  if range == "*" or range == "?" then
    from, to = low, high
  elseif from then
    from, to = number(from, names), number(to, names)
  else
    from = number(range, names)
    to = part:find("/", 1, true) and high or from
  end
  if not from or not to or step < 1 or from < low or to > high or from > to then return false end
  for n = from, to, step do set[n] = true end
  return true
end

local function parse_field(text, rule)
  local set = { any = text == "*" or text == "?" }
  for part in (text .. ","):gmatch("([^,]*),") do
    if not add_range(set, part, rule[1], rule[2], rule[3]) then return nil end
  end
  if set[7] and rule[3] == DAYS then set[0] = true end
  return set
end

-- The parsed schedule, or nil when it cannot be read.
function cron.parse(text)
  local words = {}
  for word in (WORDS[text] or text):gmatch("%S+") do words[#words + 1] = word end
  if #words ~= 5 then return nil end
  local schedule = {}
  for i, rule in ipairs(FIELDS) do
    schedule[i] = parse_field(words[i], rule)
    if not schedule[i] then return nil end
  end
  return schedule
end

local function day_fits(s, d)
  local by_date, by_weekday = s[3][d.day], s[5][d.wday - 1]
  -- Both given: either will do.
  if not s[3].any and not s[5].any then return by_date or by_weekday end
  return by_date and by_weekday
end

-- The first matching minute after `after` (seconds since the epoch); nil when there is none within five years.
function cron.next(s, after)
  local at = (math.floor(after) // 60 + 1) * 60
  local limit = at + 5 * 366 * 86400
  while at < limit do
    local d = os.date("!*t", at)
    if not s[4][d.month] or not day_fits(s, d) then
      at = at - at % 86400 + 86400
    elseif not s[2][d.hour] then
      at = at - at % 3600 + 3600
    elseif not s[1][d.min] then
      at = at + 60
    else
      return at
    end
  end
end

return cron
