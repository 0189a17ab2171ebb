-- SPDX-License-Identifier: Apache-2.0
-- Histograms in HdrHistogram's log format 1.3, for its public tools. Values are microseconds.
local crypto = require "eirun.core.crypto"

local M = {}

-- The encodings' cookies: version 2, its compressed form, both with the bit that says "word size 8".
local cookie, compressed_cookie = 0x1c849303 | 0x10, 0x1c849304 | 0x10
local lowest, highest, digits = 1, 3600000000, 3

-- Zigzag LEB128 as the format has it: nine bytes at most, the ninth holds eight bits.
local function varint(value, out)
  local rest = (value << 1) ~ (value >> 63 == 0 and 0 or -1)
  for _ = 1, 8 do
    if rest >> 7 == 0 then
      out[#out + 1] = string.char(rest)
      return
    end
    out[#out + 1] = string.char(rest & 0x7f | 0x80)
    rest = rest >> 7
  end
  out[#out + 1] = string.char(rest & 0xff)
end

-- Counts in the order of their counters; a run of empty ones is its length, negative.
local function counts_of(histogram)
  local out, at = {}, 0
  for _, counter in ipairs(histogram) do
    local count, index = counter[3], counter[4]
    if index > at then varint(at - index, out) end
    varint(count, out)
    at = index + 1
  end
  return table.concat(out)
end

local function adler32(text)
  local a, b = 1, 0
  for i = 1, #text do
    a = (a + text:byte(i)) % 65521
    b = (b + a) % 65521
  end
  return b << 16 | a
end

-- zlib's format without its compression: stored blocks. The counts of a histogram are few, and no library is needed.
local function zlib(text)
  local out = { "\x78\x01" }
  for from = 1, math.max(#text, 1), 65535 do
    local block = text:sub(from, from + 65534)
    local last = from + 65535 > #text
    out[#out + 1] = string.pack("<BI2I2", last and 1 or 0, #block, ~#block & 0xffff) .. block
  end
  out[#out + 1] = string.pack(">I4", adler32(text))
  return table.concat(out)
end

---One histogram, encoded as HdrHistogram's own libraries do: base64 of the compressed form of version 2.
---@param histogram integer[][] as load.run answers it
---@return string
---Example: `hdrlog.encode(result.histogram):sub(1, 4) --> "HISTF..."` when read by the public tools. Never raises.
function M.encode(histogram)
  local counts = counts_of(histogram)
  local payload = string.pack(">I4I4I4I4i8i8d", cookie, #counts, 0, digits, lowest, highest, 1.0) .. counts
  local squeezed = zlib(payload)
  return crypto.base64(string.pack(">I4I4", compressed_cookie, #squeezed) .. squeezed)
end

local function interval(from, to, histogram, tag)
  local max = #histogram > 0 and histogram[#histogram][2] or 0
  local name = tag:gsub("[, \r\n]", "_")
  return ("Tag=%s,%.3f,%.3f,%.3f,%s"):format(name, from, to - from, max / 1000, M.encode(histogram))
end

---A whole log: one interval a phase, with the phase's name as its tag. Times are seconds from the start, the maximum is in ms.
---@param result eirun.LoadResult
---@return string text
---Example: `fs.write("run.hlog", hdrlog.write(result))`. Never raises.
function M.write(result)
  local lines = {
    "#[Histogram log format version 1.3]",
    ("#[StartTime: %.3f (seconds since epoch)]"):format(result.started_at),
    '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"',
  }
  for _, phase in ipairs(result.phases) do
    lines[#lines + 1] = interval(phase.from, phase.to, phase.histogram, phase.name)
  end
  return table.concat(lines, "\n") .. "\n"
end

return M
