-- SPDX-License-Identifier: Apache-2.0
-- What holds of any body of metrics, for fuzz_gpu_promtext.c: it is read or refused as one that is none; what was read is read again the
-- same when it is written; asking for one name finds all samples of that name.
package.preload["eirun.errors"] = function()
  return { raise = function(kind) error({ kind = kind }, 0) end }
end
local promtext = require "eirun.gpu.promtext"

local function escape(text)
  return '"' .. text:gsub('[\\"\n]', { ["\\"] = "\\\\", ['"'] = '\\"', ["\n"] = "\\n" }) .. '"'
end

local function number(value)
  if value ~= value then return "NaN" end
  if value == math.huge then return "+Inf" end
  return value == -math.huge and "-Inf" or ("%.17g"):format(value)
end

local function write(sample)
  local parts = { escape(sample.name) }
  for key, value in pairs(sample.labels) do parts[#parts + 1] = escape(key) .. "=" .. escape(value) end
  return ("{%s} %s%s"):format(table.concat(parts, ","), number(sample.value), sample.timestamp and " " .. number(sample.timestamp) or "")
end

local function same(a, b)
  return a == b or a ~= a and b ~= b
end

local function equal(a, b)
  if not b or a.name ~= b.name or not same(a.value, b.value) or not same(a.timestamp, b.timestamp) then return false end
  for key, value in pairs(a.labels) do
    if b.labels[key] ~= value then return false end
  end
  for key in pairs(b.labels) do
    if a.labels[key] == nil then return false end
  end
  return true
end

local function read(text, names)
  local list = {}
  local ok, seen = pcall(promtext.read, text, function(sample) list[#list + 1] = sample end, { names = names })
  if ok then assert(seen.samples == #list) else assert(seen.kind == "invalid", tostring(seen.kind or seen)) end
  return list
end

return function(text)
  local list, asked = read(text), {}
  for _, sample in ipairs(list) do
    assert(type(sample.value) == "number" and math.type(sample.value) == "float", "the value is a number")
    assert(equal(sample, promtext.line(write(sample))), write(sample))
    asked[sample.name] = asked[sample.name] or {}
    table.insert(asked[sample.name], sample)
  end
  for name, wanted in pairs(asked) do
    local found = {}
    for _, sample in ipairs(read(text, { [name] = true })) do
      if sample.name == name then found[#found + 1] = sample end
    end
    assert(#found == #wanted, "asked by name: " .. name)
    for i, sample in ipairs(found) do assert(equal(sample, wanted[i]), name) end
  end
end
