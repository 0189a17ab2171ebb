-- SPDX-License-Identifier: Apache-2.0
-- The sandbox's API server against the recorded answers of a real one (tests/cluster/record_answers.py says how they
-- are made): the same requests in the same order must give the same answers.
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

local normal

-- JSON inside of a message counts as JSON, in whatever order its keys stand.
local function inner_json(quoted)
  local v = json.decode((quoted:gsub('\\(.)', "%1")))
  return type(v) == "table" and json.encode(normal(v)) or nil
end

-- A message may end with a diff of Go's own types, whose fields are no part of the API.
local function normal_text(text)
  text = text:gsub("\n@@ %-%d.*", ""):gsub('"(%b{})"', inner_json)
  text = text:gsub(UID, "UID"):gsub("%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d[%d.]*Z", "TIME"):gsub("(kube%-api%-access%-)%w%w%w%w%w", "%1NAME")
  return (text:gsub("%f[%w]172%.%d+%.%d+%.%d+", "IP"):gsub("%f[%w]10%.%d+%.%d+%.%d+", "IP"))
end

local function sorted_words(text)
  local words = {}
  for word in text:gmatch "[^%s,%[%]]+" do words[#words + 1] = word end
  table.sort(words)
  return table.concat(words, " ")
end

local function writer(entry)
  return table.concat({ entry.operation or "", entry.manager or "", entry.subresource or "", entry.apiVersion or "" }, " ")
end

-- As record_answers.py: what differs from run to run becomes a word, null goes.
function normal(v, key)
  if WORDS[key] and v ~= nil then return WORDS[key] end
  if type(v) == "string" then return normal_text(v) end
  if type(v) ~= "table" then return v end
  local new = {}
  for k, item in pairs(v) do
    if item ~= json.null then new[k] = normal(item, type(k) == "string" and k or nil) end
  end
  if key == "metadata" and new.generateName then new.name = new.generateName .. "NAME" end
  -- Several causes come in any order where Go kept their objects in a map, in the message too.
  local causes = type(new.details) == "table" and new.details.causes
  if causes and #causes > 1 then
    new.message = sorted_words(new.message)
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

t.test("recorded_answers_of_a_real_api_server", function()
  local plane = lib.new()
  plane.users.recorder = { name = "admin", uid = "1", groups = { "system:masters", "system:authenticated" } }
  local answers, wrong = lines(fresh or folder .. "answers.jsonl"), {}
  for i, row in ipairs(lines(folder .. "requests.jsonl")) do
    local real = answers[i]
    local status, body, headers = plane:call(row.method, row.path, row.text or row.body, { type = row.type, agent = "cmp/1",
      token = "recorder" })
    local list = differences(normal(real.body), normal(body), "", {})
    table.sort(list)
    if status ~= real.status then list[#list + 1] = ("status %d, not %d"):format(status, real.status) end
    if (headers.Warning or "") ~= (real.warning or "") then list[#list + 1] = "warning" end
    if #list > 0 then wrong[#wrong + 1] = ("%d %s %s: %s"):format(i, row.method, row.path, table.concat(list, " ")) end
  end
  t.eq(wrong, {})
  t.ok(#answers > 200, "the recording was not read")
end)
