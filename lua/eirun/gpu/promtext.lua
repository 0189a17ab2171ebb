-- SPDX-License-Identifier: Apache-2.0
-- The Prometheus text format (0.0.4) and OpenMetrics 1.0, line by line: exporters of strangers are read with it, so a line that is none
-- is counted and the others are kept.
local M = {}

M.MAX_BYTES = 100 << 20

---@class eirun.gpu.Sample
---@field name string
---@field labels table<string, string>
---@field value number NaN and infinities too
---@field timestamp? number as it stands: milliseconds in the text format, seconds in OpenMetrics

local escapes = { n = "\n", ["\\"] = "\\", ['"'] = '"' }

-- The value of a label, from behind its opening quote; the position behind the closing one. Nil for a quote that never closes.
local function quoted(text, at)
  local plain = text:match('^([^"\\\n]*)"', at)
  if plain then return plain, at + #plain + 1 end
  local parts = {}
  while true do
    local piece = text:match('^[^"\\\n]*', at)
    parts[#parts + 1] = piece
    at = at + #piece
    local char = text:sub(at, at)
    if char == '"' then return table.concat(parts), at + 1 end
    if char ~= "\\" then return nil end
    local escaped = text:sub(at + 1, at + 1)
    if escaped == "" or escaped == "\n" then return nil end
    parts[#parts + 1] = escapes[escaped] or "\\" .. escaped -- as Prometheus reads it: what is no escape stands for itself
    at = at + 2
  end
end

-- `{a="b",...}` from behind the brace. A quoted word without = is the metric's name, as UTF-8 names are written.
local function labels_of(text, at, name)
  local labels = {}
  while true do
    at = text:match("^[ \t]*()", at)
    if text:sub(at, at) == "}" then return labels, at + 1, name end
    local key, after = text:match("^([%a_][%w_:]*)()", at)
    if not key and text:sub(at, at) == '"' then
      key, after = quoted(text, at + 1)
    end
    if not key then return nil end
    local value_at = text:match('^[ \t]*=[ \t]*"()', after)
    if value_at then
      if labels[key] ~= nil then return nil end
      labels[key], at = quoted(text, value_at)
      if not at then return nil end
    elseif not name then
      name, at = key, after
    else
      return nil
    end
    at = text:match("^[ \t]*()", at)
    local char = text:sub(at, at)
    if char == "," then
      at = at + 1
    elseif char ~= "}" then
      return nil
    end
  end
end

local words = { nan = 0 / 0, inf = math.huge, ["+inf"] = math.huge, ["-inf"] = -math.huge, infinity = math.huge, ["+infinity"] = math.huge,
  ["-infinity"] = -math.huge }

-- As Go's ParseFloat takes it, but for its underscores.
local function number(text)
  local word = words[text:lower()]
  if word then return word end
  if text:find "^[+-]?[%d.]" and not text:find "^[+-]?0[xX].*[^%x.xXpP+-]" then
    local value = tonumber((text:gsub("^%+", "")))
    if value == 0 and text:find "^-" then return -0.0 end -- "-0" is the integer 0 to Lua
    return value and value + 0.0
  end
end

-- What stands behind the value: nothing, a time, and for OpenMetrics an exemplar, which nobody here reads.
local function rest_of(text)
  local time, after = text:match "^[ \t]*([^ \t#]*)[ \t]*()"
  local tail = text:sub(after)
  if tail ~= "" and not tail:find "^#[ \t]*{.*}[ \t]+%S" then return nil, false end
  if time == "" then return nil, true end
  local value = number(time)
  return value, value ~= nil
end

---One line that is neither empty nor a comment.
---@param line string
---@return eirun.gpu.Sample|nil
---Example: `promtext.line('up{job="a"} 1').value` is 1.0. Raises nothing: nil for a line that is no sample.
function M.line(line)
  local name, at = line:match "^[ \t]*([%a_:][%w_:]*)[ \t]*()"
  at = at or line:match "^[ \t]*()"
  local labels = {}
  if line:sub(at, at) == "{" then
    labels, at, name = labels_of(line, at + 1, name)
    if not labels then return nil end
  end
  if not name then return nil end
  local text, after = line:match("^[ \t]*(%S+)()", at)
  local value = text and number(text)
  if not value then return nil end
  local timestamp, fine = rest_of(line:sub(after))
  if not fine then return nil end
  return { name = name, labels = labels, value = value, timestamp = timestamp }
end

local function note_type(types, line)
  local name, kind = line:match "^#[ \t]+TYPE[ \t]+(%S+)[ \t]+(%S+)"
  if name then types[name] = kind end
end

-- A sample, by all that its beginning shows, of a name that nobody asked for.
local function is_other(line, names)
  local name, after = line:match "^([%a_:][%w_:]*)[ \t]*(.)"
  return name ~= nil and not names[name] and (after == "{" or after:find "[%d+%-.NnIi]" ~= nil)
end

---Reads a whole body; calls `each` for every sample. A line that is no sample is skipped and told.
---@param text string
---@param each fun(sample: eirun.gpu.Sample)
---@param opts? {names?: table<string, any>, max_bytes?: integer, pause?: fun()} `names`: lines of others are not looked at;
--- `pause` is called every thousand lines, to let others run
---@return {samples: integer, bad: integer, first_bad?: string, first_bad_line?: integer, types: table<string, string>}
---Example: `promtext.read(body, function(sample) print(sample.name, sample.value) end)`.
---Raises "quota" for a body over 100 MiB, and "invalid" for one in which nothing is a sample but something stands.
function M.read(text, each, opts)
  opts = opts or {}
  local errors = require "eirun.errors"
  local max = opts.max_bytes or M.MAX_BYTES
  if #text > max then errors.raise("quota", ("the metrics are %d bytes long, more than %d"):format(#text, max)) end
  local seen = { samples = 0, bad = 0, types = {} }
  local names, pause, number_of_line = opts.names, opts.pause, 0
  for line in text:gmatch "[^\n]*" do
    number_of_line = number_of_line + 1
    if pause and number_of_line % 1000 == 0 then pause() end
    local first = line:match "^%s*(%S)"
    if first == "#" then
      note_type(seen.types, line)
    elseif first and not (names and is_other(line, names)) then
      local sample = M.line((line:gsub("\r$", "")))
      if sample then
        seen.samples = seen.samples + 1
        each(sample)
      else
        seen.bad = seen.bad + 1
        if not seen.first_bad then seen.first_bad, seen.first_bad_line = line:sub(1, 80), number_of_line end
      end
    end
  end
  if seen.samples == 0 and seen.bad > 0 then
    errors.raise("invalid", ("these are no metrics: line %d is %q"):format(seen.first_bad_line, seen.first_bad))
  end
  return seen
end

return M
