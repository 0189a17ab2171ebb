-- SPDX-License-Identifier: Apache-2.0
-- eirun sls query PROJECT LOGSTORE [QUERY]
local M = {}

local own = {
  { name = "from", arg = "TIME", help = "15m (ago), 2026-01-02T03:04:05Z, or seconds since 1970 (default 15m)" },
  { name = "to", arg = "TIME", help = "the same; excluded itself (default: now)" },
  { name = "limit", arg = "N", type = "integer", help = "rows of a search at most (default 100); SQL says LIMIT" },
  { name = "reverse", help = "newest first" },
  { name = "output", short = "o", arg = "FORMAT", values = { "table", "json", "jsonl", "csv" }, help = "default table" },
  { name = "api", arg = "VERSION", values = { "v1", "v2" }, help = "GetLogs or GetLogsV2 (default v2)" },
  { name = "signature", arg = "VERSION", values = { "v1", "v4" }, help = "default v4" },
  { name = "timeout", arg = "SECONDS", type = "integer", help = "until the answer must be complete (default 60)" },
}

---The verb; options that reach a cloud are those of the other verbs.
---@param with fun(...: table): table joins groups of options
---@param target table[]
---@return table
function M.verb(with, target)
  return {
    name = "sls", args = "query PROJECT LOGSTORE [QUERY]", module = "eirun.cli.sls", summary = "ask the log service",
    text = { "QUERY is `search` or `search | SQL` (default *). An incomplete answer is asked for again; when it stays so, the rows are "
      .. "printed, said to be partial, and the exit code is 1." },
    words = { { "query PROJECT LOGSTORE [QUERY]", "as `query k8s-log-c0123 nginx-ingress '* | SELECT count(1) AS n'`" } },
    options = with(target, own),
  }
end

local function usage(text)
  require("eirun.errors").raise("invalid", text, { code = "usage" })
end

local units = { s = 1, m = 60, h = 3600, d = 86400 }

local function moment(text, name, now)
  if text == "now" then return now end
  local amount, unit = text:match("^%-?(%d+%.?%d*)([smhd])$")
  if amount then return now - amount * units[unit] end
  local at = tonumber(text) or require("eirun.wire").parse_time(text)
  return at or usage(("--%s is 15m, a time as 2026-01-02T03:04:05Z, or seconds since 1970, not '%s'"):format(name, text))
end

-- Names of the rows' fields, in the order of the first row that has them; those of the service last.
local function columns_of(rows)
  local names, seen = {}, {}
  for _, row in ipairs(rows) do
    for _, name in ipairs(require("eirun.wire").sorted_keys(row)) do
      if not seen[name] then seen[name], names[#names + 1] = true, name end
    end
  end
  table.sort(names, function(a, b)
    local own_a, own_b = a:find("^__") ~= nil, b:find("^__") ~= nil
    if own_a ~= own_b then return own_b end
    return a < b
  end)
  return names
end

local function cell(value)
  return value == nil and "" or (tostring(value):gsub("[\r\n\t]", " "))
end

local writers = {}

function writers.json(rows)
  return require("eirun.core.json").encode(rows, { indent = true }) .. "\n"
end

function writers.jsonl(rows)
  local lines = {}
  for i, row in ipairs(rows) do lines[i] = require("eirun.core.json").encode(row) .. "\n" end
  return table.concat(lines)
end

local function quoted(value)
  local text = value == nil and "" or tostring(value)
  return text:find('[",\r\n]') and '"' .. text:gsub('"', '""') .. '"' or text
end

function writers.csv(rows)
  local names, lines = columns_of(rows), {}
  local head = {}
  for i, name in ipairs(names) do head[i] = quoted(name) end
  lines[1] = table.concat(head, ",") .. "\r\n"
  for _, row in ipairs(rows) do
    local cells = {}
    for i, name in ipairs(names) do cells[i] = quoted(row[name]) end
    lines[#lines + 1] = table.concat(cells, ",") .. "\r\n"
  end
  return table.concat(lines)
end

function writers.table(rows)
  local names, widths, lines = columns_of(rows), {}, {}
  for i, name in ipairs(names) do
    widths[i] = utf8.len(name) or #name
    for _, row in ipairs(rows) do widths[i] = math.max(widths[i], utf8.len(cell(row[name])) or 0) end
  end
  local function line(value_of)
    local cells = {}
    for i, name in ipairs(names) do
      local text = value_of(name)
      cells[i] = text .. (" "):rep(widths[i] - (utf8.len(text) or #text))
    end
    lines[#lines + 1] = table.concat(cells, "  "):gsub("%s+$", "") .. "\n"
  end
  if #rows > 0 then line(function(name) return name end) end
  for _, row in ipairs(rows) do line(function(name) return cell(row[name]) end) end
  return table.concat(lines)
end

local function facts(options, words)
  local verb, project, logstore, query = table.unpack(words)
  if verb ~= "query" or not logstore then usage "eirun sls query PROJECT LOGSTORE [QUERY]" end
  if words[5] then usage "the query is one word: put it into quotes" end
  return { project = project, logstore = logstore, query = query or "*", reverse = options.reverse, api = options.api or "v2",
    signature = options.signature, limit = options.limit or 100, timeout = options.timeout }
end

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  local given = facts(options, words)
  local session <close> = require("eirun.cli.cloud.open")(options, { identify = false }) -- luacheck: ignore
  local term, now = require "eirun.core.term", require("eirun.task").now()
  given.from, given.to = moment(options.from or "15m", "from", now), moment(options.to or "now", "to", now)
  if given.from >= given.to then usage "--from is not before --to" end
  local rows, complete = require("eirun.sls").all(given)
  term.write(1, writers[options.output or "table"](rows))
  if complete then return 0 end
  term.write(2, "eirun: the log service did not finish in time: these rows are only a part\n")
  return 1
end

return M
