-- SPDX-License-Identifier: Apache-2.0
-- eirun serve scale
local face = require "eirun.cli.serve.face"
local serve = require "eirun.serve"

return face.verb(function(k8s, options, words)
  local name = face.name(words)
  if not options.replicas or options.replicas < 0 then face.usage "how many? --replicas N, from 0 on" end
  local before = serve.get(k8s, name, face.which(options)).deployment.spec.replicas
  serve.scale(k8s, name, options.replicas, face.which(options))
  face.out(before == options.replicas and ("%s has %d replicas already\n"):format(name, before)
    or ("%s scaled from %d to %d replicas\n"):format(name, before, options.replicas))
end)
