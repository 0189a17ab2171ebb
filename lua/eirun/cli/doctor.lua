-- SPDX-License-Identifier: Apache-2.0
-- eirun doctor [PLAYBOOK]: what a run needs, tried one by one; each line passes or says how to mend it. Nothing is changed.
local errors = require "eirun.errors"
local json = require "eirun.core.json"

local function quiet_output()
  return setmetatable({}, {
    __index = function()
      return function() end
    end,
  })
end

local function add(rows, name, status, detail, hint)
  rows[#rows + 1] = { check = name, status = status, ok = status ~= "fail", detail = detail, hint = hint }
  return status == "ok"
end

local function run(rows, name, fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then
    return add(rows, name, "ok", tostring(result)), result
  end
  local err = errors.from(result)
  if err.kind == "cancelled" then
    error(err, 0)
  end
  local facts = err.code and err.code ~= "unknown" and err.request_id and (" (%s, request id %s)"):format(err.code, err.request_id) or ""
  add(rows, name, err.code == "unknown" and "unknown" or "fail", err.message .. facts, err.hint)
  return false
end

-- What the playbook needs; an argument that is missing leaves the rest to be checked without it.
local function read_playbook(rows, options, words)
  local needs = require "eirun.doctor.needs"
  if not words[1] or words[1]:find("^cluster=") then
    return needs.none(), { cluster = words[1] and words[1]:match("=(.+)$") }
  end
  local path = table.remove(words, 1)
  local found, values = needs.none(), {}
  run(rows, "playbook", function()
    local missing
    found, values, missing = needs.of(path, options, words)
    if #missing > 0 then
      errors.raise("invalid", "arguments without a value: " .. table.concat(missing, ", "), { hint = "give them as key=value" })
    end
    return ("%s: %d node pools, %d writes, %d add-ons"):format(path, #found.pools, #found.writes, #found.addons)
  end)
  return found, values
end

local function skip_reason(passed, needed)
  for i = 2, #needed do
    if not passed[needed[i]] then
      return needed[i]
    end
  end
end

local function examine(rows, needs, cluster)
  local checks = require "eirun.doctor.checks"
  local passed, state = {}, { needs = needs, cluster = cluster or require("eirun.target").current().cluster }
  for _, needed in ipairs(checks.order) do
    local name, reason = needed[1], skip_reason(passed, needed)
    if reason then
      add(rows, name, "skipped", "without " .. reason .. " it cannot be tried")
    else
      passed[name] = run(rows, name, checks[name], state)
    end
  end
end

local labels = { ok = "ok", fail = "FAIL", unknown = "?", skipped = "-" }

local function tell(options, rows)
  local failed = 0
  for _, row in ipairs(rows) do
    failed = failed + (row.status == "fail" and 1 or 0)
    if options.output == "jsonl" then
      print(json.encode(row))
    elseif options.output ~= "json" then
      print(("%-6s %-12s %s"):format(labels[row.status], row.check, row.detail))
      if row.hint then
        print("       -> " .. row.hint)
      end
    end
  end
  if options.output == "json" then
    print(json.encode({ failed = failed, checks = json.array(rows) }, { indent = true }))
  end
  return failed == 0 and 0 or 1
end

return function(options, words)
  local rows = {}
  local needs, values = read_playbook(rows, options, words)
  local opened
  local ok = run(rows, "target", function()
    opened = require("eirun.target").open(options, quiet_output(), values.cluster, { identify = false })
    local now = require("eirun.target").current()
    return now.sandbox and opened.description or "target: REAL account, region " .. now.region
  end)
  local session <close> = opened -- luacheck: ignore
  if ok then
    examine(rows, needs, values.cluster or needs.cluster)
  end
  return tell(options, rows)
end
