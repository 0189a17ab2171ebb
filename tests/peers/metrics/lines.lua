-- SPDX-License-Identifier: Apache-2.0
-- Run by tests/peers/metrics/run: lines of metrics, sound and damaged, and what eirun reads in them, one a line of $LINES.
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"
local promtext = require "eirun.gpu.promtext"
local t = require "eirun.test"

local COUNT <const> = math.tointeger(tonumber(os_core.getenv "COUNT" or "")) or 40000

local function generator(seed)
  local state = seed
  return function(n)
    state = (state * 6364136223846793005 + 1442695040888963407) & 0x7fffffffffffffff
    return (state >> 33) % n + 1
  end
end

local function any(draw, list) return list[draw(#list)] end

local names = { "up", "a:b", "_x", "x_total", "DCGM_FI_DEV_GPU_UTIL", "A0", ":" }
local keys = { "a", "le", "_", "l9", "quantile", "Zz" }
local pieces = { "a", "Z", "0", " ", "{", "}", "=", "#", ",", "\t", "é", "漢", [[\\]], [[\"]], [[\n]], "'", "/" }
local numbers = { "0", "1", "-1.5", "+5", ".5", "5.", "1e300", "5e-324", "12345678901", "NaN", "nan", "+Inf", "-Inf", "Inf", "inf",
  "+infinity", "1E-3", "0x1p-2", "-0", "00012", "1.7976931348623157e308", "0x1.8P3" }
local blanks = { "", "", " ", "\t", "  " }
local damage = { "{", "}", '"', "\\", ",", "=", "#", " ", "1", "e", "_", "\0", "\255", "x" }

local function quoted(draw)
  local text = {}
  for i = 1, draw(7) - 1 do text[i] = any(draw, pieces) end
  return '"' .. table.concat(text) .. '"'
end

local function labels(draw)
  local parts, seen = {}, {}
  for _ = 1, draw(4) - 1 do
    local key = any(draw, keys)
    if not seen[key] then
      seen[key] = true
      parts[#parts + 1] = any(draw, blanks) .. key .. any(draw, blanks) .. "=" .. any(draw, blanks) .. quoted(draw) .. any(draw, blanks)
    end
  end
  local last = #parts > 0 and draw(5) == 1 and "," or ""
  return "{" .. table.concat(parts, ",") .. last .. any(draw, blanks) .. "}"
end

local function line_of(draw)
  local line = any(draw, names) .. any(draw, blanks)
  line = line .. (draw(4) > 1 and labels(draw) .. any(draw, blanks) or " ") .. any(draw, { "", " " }) .. any(draw, numbers)
  if draw(3) == 1 then line = line .. any(draw, { " ", "\t", "  " }) .. any(draw, { "0", "1700000000000", "-5", "12" }) end
  if draw(3) == 1 then -- damaged
    local at = draw(#line + 1)
    line = line:sub(1, at - 1) .. any(draw, damage) .. line:sub(at + draw(2) - 1)
  end
  return line
end

local function hex(text)
  return (text:gsub(".", function(char) return ("%02x"):format(char:byte()) end))
end

local function exact(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "+Inf" end
  return value == -math.huge and "-Inf" or ("%a"):format(value)
end

local function described(sample)
  local list = json.array {}
  for key, value in pairs(sample.labels) do list[#list + 1] = { hex(key), hex(value) } end
  return { name = hex(sample.name), labels = list, value = exact(sample.value), timestamp = sample.timestamp and exact(sample.timestamp) }
end

t.test("lines_are_read", function()
  local out = {}
  for seed = 1, COUNT do
    local line = line_of(generator(seed))
    local sample = not line:find "^%s*#" and not line:find "^%s*$" and promtext.line(line) or nil
    out[seed] = json.encode { line = hex(line), sample = sample and described(sample) }
  end
  assert(fs.write(assert(os_core.getenv "LINES"), table.concat(out, "\n") .. "\n"))
end)
