-- SPDX-License-Identifier: Apache-2.0
-- eirun serve delete
local face = require "eirun.cli.serve.face"
local serve = require "eirun.serve"

return face.verb(function(k8s, options, words)
  if not words[1] then face.usage "which job? `eirun serve list` shows them" end
  for _, name in ipairs(words) do
    local lines = serve.delete(k8s, name, { version = options.version, type = options.type, dry_run = options.dry_run })
    for _, line in ipairs(lines) do face.out(line .. (options.dry_run and " would be deleted\n" or " deleted\n")) end
  end
end)
