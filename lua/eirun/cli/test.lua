-- SPDX-License-Identifier: Apache-2.0
local errors = require "eirun.errors"

return function(_, words)
  if not words[1] then
    errors.raise("invalid", "test what? a folder with files test_*.lua, or one such file", { code = "usage" })
  end
  return require("eirun.test").run(words[1], words[2])
end
