-- SPDX-License-Identifier: Apache-2.0
-- eirun kube create -f: makes what is not there yet.
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"

local function token(k8s, options, name)
  if not name then face.usage "exactly one NAME is required, got 0" end
  local secret = k8s:token(name, { seconds = face.seconds(options.duration, nil, "duration"), audiences = options.audience })
  require("eirun.core.term").reveal(1, require("eirun.core.secret").concat(secret, "\n"))
  return 0
end

return face.verb(function(k8s, options, words)
  if words[1] == "token" then return token(k8s, options, words[2]) end
  if words[1] then face.usage "create wants -f FILE, or `token SERVICEACCOUNT`" end
  return face.each(face.targets_in_files(k8s, options), function(target)
    local ok, object = pcall(target.k8s.create, target.k8s, target.manifest)
    if not ok then
      object = errors.from(object)
      local where = face.source[target.manifest]
      if object.server_message then object.server_message = ('error when creating "%s": %s'):format(where, object.server_message) end
      error(object, 0)
    end
    face.out(("%s/%s created\n"):format(face.kind_word(target.info), object.metadata.name))
  end)
end)
