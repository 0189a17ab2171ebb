-- SPDX-License-Identifier: Apache-2.0
-- eirun serve update
local face = require "eirun.cli.serve.face"
local output = require "eirun.output"
local serve = require "eirun.serve"
local task = require "eirun.task"

-- Takes the place of a step: what changes is told as it is done.
local teller = {}
function teller:add_record(record) -- luacheck: ignore 212
  if record.outcome == "unchanged" then return end
  local object, changes = record.kind .. " " .. record.name, {}
  for i, change in ipairs(record.changes or {}) do
    changes[i] = { object = object, field = change.field, from = change.from, to = change.to }
  end
  if record.outcome ~= "updated" then changes = { { object = object, outcome = record.outcome } } end
  for _, line in ipairs(output.change_lines { changes = changes }) do face.out(line .. "\n") end
end
function teller:add_note(text) face.out(text .. "\n") end -- luacheck: ignore 212
function teller.show_progress() end

-- What a word on the command line means where the library wants a number or a truth.
local function value_of(text)
  if text == "true" or text == "false" then return text == "true" end
  return math.tointeger(tonumber(text)) or text
end

-- Options whose values are text although they look like numbers.
local texts = { version = true, model_version = true, cpu = true, memory = true, image = true, model_name = true }

-- `env.NAME=value` sets one entry of a map; the others of that map stay.
local function changes_of(words, before)
  local changes = {}
  for i = 2, #words do
    local key, text = words[i]:match("^([%w_.-]+)=(.*)$")
    if not key then face.usage(("'%s' is no key=value"):format(words[i])) end
    local map, entry = key:match("^([%w_]+)%.(.+)$")
    if map then
      changes[map] = changes[map] or {}
      for name, old in pairs(type(before[map]) == "table" and before[map] or {}) do
        if changes[map][name] == nil then changes[map][name] = old end
      end
      changes[map][entry] = text
    else
      changes[key] = texts[key] and text or value_of(text)
    end
  end
  return changes
end

return face.verb(function(k8s, options, words)
  if not words[2] then face.usage "what shall change? `eirun serve update NAME key=value ...`" end
  local job = serve.get(k8s, words[1], face.which(options))
  local before = require("eirun.serve.jobs").options(k8s, job) or {}
  local changes = changes_of(words, before)
  changes.timeout = tonumber(options.timeout)
  task.context().eirun_step = teller
  local app = serve.update(k8s, words[1], changes, { version = job.version, type = job.type.label })
  local now = app:replicas()
  face.out(("%s, version %s: %d of %d replicas ready\n"):format(app.job, app.version, now.ready, now.wanted))
end)
