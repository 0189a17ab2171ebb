-- SPDX-License-Identifier: Apache-2.0
-- eirun kube delete: and waits until it is gone.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local kinds = require "eirun.kube.kinds"
local task = require "eirun.task"

local policies = { background = "Background", foreground = "Foreground", orphan = "Orphan" }

local function policy_of(options)
  return policies[options.cascade or "background"]
    or face.usage(('invalid cascade value (%s). Must be "background", "foreground", or "orphan"'):format(options.cascade))
end

local function grace_of(options)
  if options.now then return 1 end
  if options.force then return 0 end
  return options.grace_period and math.tointeger(options.grace_period) or nil
end

local function still_there(target)
  local object = target.k8s:get(target.info.api_version .. "/" .. target.info.kind, target.name)
  return object and (not target.uid or object.metadata.uid == target.uid)
end

local function await_end(target, limit)
  while still_there(target) do
    if limit and task.now() > limit then
      errors.raise("timeout", ("timed out waiting for the condition on %s/%s"):format(kinds.resource(target.info), target.name),
        { object = target.name })
    end
    task.sleep(0.2)
  end
end

local function not_found(target)
  local text = ('%s "%s" not found'):format(kinds.resource(target.info), target.name)
  errors.raise("not_found", text, { server_message = text, code = "NotFound", status = 404 })
end

local function told(target, options, words)
  local how = options.force and "force deleted" or "deleted"
  local place = target.info.namespaced and (" from %s namespace"):format(target.k8s.ns) or ""
  if options.output == "name" then return ("%s/%s\n"):format(face.kind_word(target.info), target.name) end
  return ('%s "%s" %s%s%s\n'):format(face.kind_word(target.info), target.name, how, place, words)
end

return face.verb(function(k8s, options, words)
  local dry, suffix = face.dry_run(options)
  local list = face.targets(k8s, options, words)
  if #list == 0 then face.out "No resources found\n" end
  local seconds = face.seconds(options.timeout, 0, "timeout")
  local deleted = {}
  local code = face.each(list, function(target)
    local done = target.k8s:delete(target.info.api_version .. "/" .. target.info.kind, target.name,
      { propagation = policy_of(options), grace = grace_of(options), dry_run = dry, uid = target.object and target.object.metadata.uid })
    if not done and not options.ignore_not_found then not_found(target) end
    if not done then return end
    face.out(told(target, options, suffix))
    deleted[#deleted + 1] = target
  end)
  if dry or options.wait == "false" then return code end
  local limit = seconds > 0 and task.now() + seconds or nil
  return math.max(code, face.each(deleted, function(target) await_end(target, limit) end))
end)
