-- SPDX-License-Identifier: Apache-2.0
-- eirun serve get
local face = require "eirun.cli.serve.face"
local serve = require "eirun.serve"
local shape = require "eirun.cli.serve.shape"

local SHOWN = 5

-- Why a job does not come up is told by the newest warnings about its pods.
local function warnings(k8s, job)
  local list = {}
  for _, pod in ipairs(job.pods) do
    for _, event in ipairs(k8s:events { kind = "Pod", name = pod.metadata.name }) do
      if event.type == "Warning" then list[#list + 1] = event end
    end
  end
  return table.move(list, math.max(1, #list - SHOWN + 1), #list, 1, {})
end

return face.verb(function(k8s, options, words)
  local job = serve.get(k8s, face.name(words), face.which(options))
  local info = face.infos(k8s, { job })[1]
  if face.document(options.output, info) then return 0 end
  local trouble = options.output == "wide" or job.available < job.desired
  face.out(shape.get(job, info, trouble and warnings(k8s:namespace(job.namespace), job) or nil))
end)
