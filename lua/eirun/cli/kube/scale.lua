-- SPDX-License-Identifier: Apache-2.0
-- eirun kube scale TYPE/NAME --replicas=N
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"

local function check_current(target, options)
  local wanted = options.current_replicas
  if not wanted then return end
  local object = target.k8s:get(target.info.api_version .. "/" .. target.info.kind, target.name)
  local now = object and (object.spec or {}).replicas or 0
  if object and now ~= wanted then
    errors.raise("conflict", ("Expected replicas to be %d, was %d"):format(wanted, now), { code = "usage" })
  end
end

return face.verb(function(k8s, options, words)
  if not options.replicas or options.replicas < 0 then
    face.usage "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"
  end
  return face.each(face.targets(k8s, options, words), function(target)
    check_current(target, options)
    target.k8s:scale(target.info.api_version .. "/" .. target.info.kind, target.name, options.replicas)
    face.out(("%s/%s scaled\n"):format(face.kind_word(target.info), target.name))
  end)
end)
