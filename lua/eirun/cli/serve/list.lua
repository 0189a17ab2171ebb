-- SPDX-License-Identifier: Apache-2.0
-- eirun serve list
local face = require "eirun.cli.serve.face"
local json = require "eirun.core.json"
local serve = require "eirun.serve"
local shape = require "eirun.cli.serve.shape"

return face.verb(function(k8s, options, words)
  if words[1] then face.usage(("list takes no name; `eirun serve get %s` shows one job"):format(words[1])) end
  local jobs = serve.list(k8s, { all = options.all_namespaces, type = options.type })
  local infos = face.infos(k8s, jobs)
  if face.document(options.output, json.array(infos)) then return 0 end
  face.out(shape.list(jobs, infos, { all = options.all_namespaces, wide = options.output == "wide" }))
end)
