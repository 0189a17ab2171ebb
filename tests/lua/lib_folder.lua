-- SPDX-License-Identifier: Apache-2.0
-- A new folder under /tmp with these files: path -> content. Whoever makes it removes it.
local fs = require "eirun.core.fs"

return function(files)
  local dir = assert(fs.mkdtemp "/tmp/eirun-test-")
  for path, data in pairs(files) do
    assert(fs.mkdir(dir .. "/" .. (path:match("^(.*)/") or ""), { parents = true }))
    assert(fs.write(dir .. "/" .. path, data))
  end
  return dir
end
