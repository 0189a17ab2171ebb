-- SPDX-License-Identifier: Apache-2.0
-- eirun doctor [PLAYBOOK]: what a run needs, tried one by one; each line passes or says how to mend it.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local load_book = require "eirun.play.load"
local args = require "eirun.play.args"

local function quiet_output()
  return setmetatable({}, {
    __index = function()
      return function() end
    end,
  })
end

local function check(list, name, fn)
  local ok, result = pcall(fn)
  local err = not ok and errors.from(result)
  if err and err.kind == "cancelled" then
    error(err, 0)
  end
  list[#list + 1] = { check = name, ok = ok, detail = ok and tostring(result) or err.message, hint = err and err.hint }
  return ok and result
end

local function cluster_checks(list, cluster_id)
  local ack, kube = require "eirun.ack", require "eirun.kube"
  local cluster = ack.cluster(cluster_id)
  local known = check(list, "cluster", function()
    local detail = cluster:describe()
    return ("%s, Kubernetes %s, %s"):format(cluster.id, detail.current_version or "?", detail.state or "?")
  end)
  if not known then
    return
  end
  check(list, "kubernetes", function()
    local nodes = kube.connect(cluster):list("Node")
    return ("%d nodes"):format(#(nodes.items or nodes))
  end)
end

local function playbook_checks(list, options, words)
  local path = table.remove(words, 1)
  if not path then
    return nil
  end
  local values = check(list, "playbook", function()
    local book = load_book.playbook(path)
    local found = args.resolve(book, load_book.layers(book, options, words))
    local missing = args.missing(book, found)
    if #missing > 0 then
      errors.raise("invalid", "arguments without a value: " .. table.concat(missing, ", "), { hint = "give them as key=value" })
    end
    return setmetatable(found, {
      __tostring = function()
        return path
      end,
    })
  end)
  return values and values.cluster
end

local function tell(options, list)
  local failed = 0
  for _, row in ipairs(list) do
    failed = failed + (row.ok and 0 or 1)
    if options.output == "jsonl" then
      print(json.encode(row))
    else
      print(("%-6s %-12s %s"):format(row.ok and "ok" or "FAIL", row.check, row.detail))
      if row.hint then
        print("       " .. row.hint)
      end
    end
  end
  return failed == 0 and 0 or 1
end

return function(options, words)
  local list = {}
  local cluster = playbook_checks(list, options, words)
  local session <close> = check(list, "target", function()
    return require("eirun.target").open(options, quiet_output(), cluster)
  end) or nil
  if session then
    list[#list].detail = session.description
    check(list, "credentials", function()
      return require("eirun.credentials").current():get().source
    end)
    cluster_checks(list, cluster)
  end
  return tell(options, list)
end
