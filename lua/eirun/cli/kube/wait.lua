-- SPDX-License-Identifier: Apache-2.0
-- eirun kube wait: for a condition, a field, the end or the birth of objects; ends early on what cannot become well.
local await = require "eirun.kube.await"
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local task = require "eirun.task"

local WEEK = 7 * 86400

-- `jsonpath={.status.phase}=Running`, with or without braces and value.
local function path_and_value(text)
  local path, value = text:match "^(%b{})(.*)$"
  if not path then path, value = text:match "^([^=]+)(.*)$" end
  if not path then face.usage "jsonpath expression cannot be empty" end
  return path, value:match "^=(.*)$"
end

local function goal_of(text)
  if text == "delete" then return await.goal { delete = true } end
  if text == "create" then return await.goal { create = true } end
  local kind, rest = (text or ""):match "^([%w]+)=(.*)$"
  if kind == "condition" then
    if not rest:find "^[^=]" then face.usage "condition name cannot be empty" end
    return await.goal { condition = rest }
  end
  if kind == "jsonpath" then
    local path, value = path_and_value(rest)
    return await.goal { jsonpath = path, value = value }
  end
  face.usage(("unrecognized condition: %q"):format(text or ""))
end

-- kubectl says no more than this when the time is over.
local function in_kubectls_words(target, err)
  if err.code ~= "NotYet" then error(err, 0) end
  local text = err.looks == 0 and "condition not met for %s/%s" or "timed out waiting for the condition on %s/%s"
  errors.raise("timeout", text:format(target.info.plural, target.name))
end

return face.verb(function(k8s, options, words)
  local goal = goal_of(options["for"])
  local seconds = face.seconds(options.timeout, 30, "timeout")
  if seconds < 0 then seconds = WEEK end
  local list = face.targets(k8s, options, words)
  if #list == 0 and options["for"] == "delete" then return 0 end
  if #list == 0 then errors.raise("not_found", "no matching resources found") end
  local limit = task.now() + seconds
  return face.each(list, function(target)
    local ok, err, existed = pcall(await.one, target.k8s, { info = target.info, name = target.name, goal = goal, limit = limit,
      patient = options.patient })
    if not ok then in_kubectls_words(target, errors.from(err)) end
    if not existed then return end -- there was nothing to wait for
    face.out(("%s/%s condition met\n"):format(face.kind_word(target.info), target.name))
  end)
end)
