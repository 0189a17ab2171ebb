-- SPDX-License-Identifier: Apache-2.0
-- One query over a logstore: the search picks records of the time range, the analysis (if any) sums them up.
local analysis = require "sandbox.sls.analysis"
local parser = require "sandbox.sls.parser"
local search = require "sandbox.sls.search"

local query = {}

local built_in = { __time__ = true, __source__ = true, __topic__ = true }

local function known_in(index)
  return function(name) return built_in[name] or index[name] ~= nil end
end

local function matching(logs, store, predicate, from, to)
  local kept = {}
  for _, record in ipairs(logs:between(store, from, to)) do
    if predicate(record) then kept[#kept + 1] = record end
  end
  return kept
end

local function raw_row(record)
  local row = {}
  for name, value in pairs(record) do
    if name ~= "@" then row[name] = analysis.text(value) end
  end
  return row
end

local function raw_rows(records, options)
  local rows, count = {}, #records
  for i = 1, math.min(options.line, 100) do
    local at = options.offset + i
    local record = records[options.reverse and count - at + 1 or at]
    if not record then break end
    rows[i] = raw_row(record)
  end
  return rows
end

-- A search that has never found anything gives the analysis no rows at all, not a row of zeros: a selector that is
-- wrong must look different from a route that is quiet just now.
local function analysed(logs, store, text, predicate, records, sql, known, visible)
  if #records == 0 and not logs:ever(store, text, predicate, visible) then
    parser.parse(sql)
    return {}, {}
  end
  return analysis.run(parser.parse(sql), records, known)
end

-- options: { from=, to=, query=, line=, offset=, reverse= }; visible: nothing after this moment can be seen yet.
function query.run(logs, store, index, options, visible)
  local text, sql = search.split(options.query)
  local known = known_in(index)
  local predicate = search.compile(text, known)
  local records = matching(logs, store, predicate, options.from, math.min(options.to, visible))
  local result = { processed = #records, has_sql = sql ~= nil, search = text:match "^%s*(.-)%s*$", sql = sql }
  if sql then
    result.rows, result.columns = analysed(logs, store, text, predicate, records, sql, known, visible)
  else
    result.rows, result.columns = raw_rows(records, options), {}
  end
  return result
end

-- At most 60 slices of whole seconds with their counts.
function query.histogram(logs, store, index, options, visible)
  local predicate = search.compile((search.split(options.query)), known_in(index))
  local width = math.max(1, math.ceil((options.to - options.from) / 60))
  local slices = {}
  for from = options.from, options.to - 1, width do
    slices[#slices + 1] = { from = from, to = math.min(from + width, options.to), count = 0, progress = "Complete" }
  end
  for _, record in ipairs(matching(logs, store, predicate, options.from, math.min(options.to, visible))) do
    local slice = slices[(record.__time__ - options.from) // width + 1]
    slice.count = slice.count + 1
  end
  return slices
end

return query
