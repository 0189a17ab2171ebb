-- SPDX-License-Identifier: Apache-2.0
-- The sandbox's API server against the recorded answers of a real one (tests/cluster/record_answers.py says how they
-- are made): the same requests in the same order must give the same answers, except where it is said why not.
local t = require "eirun.test"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local lib = require "lib_kube"

-- Answers recorded a moment ago (tests/cluster) instead of those in the repository.
local fresh = require("eirun.core.os").getenv "EIRUN_TEST_ANSWERS"
local folder = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") .. "/../data/kube/"

local function lines(name)
  local list = {}
  for line in assert(fs.read(name)):gmatch("[^\n]+") do list[#list + 1] = json.decode(line) end
  return list
end

local HEX = "%x%x%x%x"
local UID = HEX .. HEX .. "%-" .. HEX .. "%-" .. HEX .. "%-" .. HEX .. "%-" .. HEX .. HEX .. HEX
local WORDS = { resourceVersion = "RV", nodePort = "PORT" }

local function normal_text(text)
  text = text:gsub(UID, "UID"):gsub("%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[%d.]*Z", "TIME")
  return (text:gsub("%f[%w]172%.%d+%.%d+%.%d+", "IP"):gsub("%f[%w]10%.%d+%.%d+%.%d+", "IP"))
end

local function writer(entry)
  return table.concat({ entry.operation or "", entry.manager or "", entry.subresource or "", entry.apiVersion or "" }, " ")
end

-- As record_answers.py: what differs from run to run becomes a word, null goes.
local function normal(v, key)
  if WORDS[key] and v ~= nil then return WORDS[key] end
  if type(v) == "string" then return normal_text(v) end
  if type(v) ~= "table" then return v end
  local new = {}
  for k, item in pairs(v) do
    if item ~= json.null then new[k] = normal(item, type(k) == "string" and k or nil) end
  end
  -- Several causes come in any order where Go kept their objects in a map, in the message too.
  local causes = type(new.details) == "table" and new.details.causes
  if causes and #causes > 1 then
    new.message = "(several causes)"
    table.sort(causes, function(a, b) return a.field .. a.message < b.field .. b.message end)
  end
  if key == "managedFields" then table.sort(new, function(a, b) return writer(a) < writer(b) end) end
  return new
end

-- Where the two answers differ, as sorted paths.
local function differences(real, ours, path, out)
  if type(real) ~= "table" or type(ours) ~= "table" then
    if real ~= ours then out[#out + 1] = path end
    return out
  end
  for key, v in pairs(real) do differences(v, ours[key], path .. "." .. tostring(key), out) end
  for key in pairs(ours) do
    if real[key] == nil then out[#out + 1] = path .. "." .. tostring(key) end
  end
  return out
end

-- Known and left as they are: patterns of paths.
local KNOWN = {
  "%.volumes", "%.volumeMounts", -- no projected token volume
  "%.f:last%w*T", -- Go writes empty times, so their writer owns them
  "%.lastState", "%.nodeInfo", "%.daemonEndpoints", -- empty structs of the Go types
  "^%.metadata%.name$", -- a generated suffix
  "%.defaultRequest", -- limit ranges are stored, not defaulted
  "%.userInfo", -- another administrator
}
-- Requests whose answer differs in more than that, and why.
local DIFFERENT = {
  { "text", "^[%[{]", "Go's parser words its errors" },
  { "path", "pods/p$", "the real text ends with a Go diff of the pod" },
  { "path", "cmp%-pvc1$", "the same for volumes" }, { "path", "claims/c1$", "the same for claims" },
  { "path", "pods$", "the recording has no default service account" },
  { "path", "events", "managers of the other events API" },
  { "path", "reviews$", "reviews have no managers here" },
  { "path", "fieldManager=three", "the order of conflicts is random in the real server" },
  { "path", "poddisruptionbudgets$", "Go's own spelling of the spec" },
  { "path", "horizontalpodautoscalers$", "the list of allowed metric types" },
  { "path", "continue=", "Go's base64 decoder" }, { "path", "labelSelector=a", "the selector's lexer" },
  { "path", "daemonsets$", "an annotation for clients of 1.8" }, { "path", "clusterroles$", "rules: null is owned" },
  { "path", "networkpolicies$", "an empty selector is not owned" },
  { "body", "Pod", "Go's own spelling of the object" }, { "body", "zz", "the cause is told twice" },
}

local function excused(row)
  for _, entry in ipairs(DIFFERENT) do
    local v = row[entry[1]]
    local text = type(v) == "table" and json.encode(v) or v
    if text and text:find(entry[2]) then return true end
  end
end

local function unknown(list)
  local left = {}
  for _, path in ipairs(list) do
    local known = false
    for _, pattern in ipairs(KNOWN) do known = known or path:find(pattern) ~= nil end
    if not known then left[#left + 1] = path end
  end
  table.sort(left)
  return left
end

t.test("recorded_answers_of_a_real_api_server", function()
  local plane = lib.new()
  local answers, compared, wrong = lines(fresh or folder .. "answers.jsonl"), 0, {}
  for i, row in ipairs(lines(folder .. "requests.jsonl")) do
    local real = answers[i]
    local status, body, headers = plane:call(row.method, row.path, row.text or row.body, { type = row.type, agent = "cmp/1" })
    if not excused(row) then
      compared = compared + 1
      local list = unknown(differences(normal(real.body), normal(body), "", {}))
      if status ~= real.status then list[#list + 1] = ("status %d, not %d"):format(status, real.status) end
      if (headers.Warning or "") ~= (real.warning or "") then list[#list + 1] = "warning" end
      if #list > 0 then wrong[#wrong + 1] = ("%d %s %s: %s"):format(i, row.method, row.path, table.concat(list, " ")) end
    end
  end
  t.eq(wrong, {})
  t.ok(compared > 150, "most of the recording must count")
end)
