-- SPDX-License-Identifier: Apache-2.0
local errors = require "eirun.errors"

local VIRTUAL_START = 1767600000 -- 2026-01-05T08:00:00Z

return function(options, words)
  if not words[1] then
    errors.raise("invalid", "test what? a folder with files test_*.lua, or one such file", { code = "usage" })
  end
  if options.clock == "virtual" then
    require("eirun.core.clock").use("virtual", VIRTUAL_START)
  end
  return require("eirun.test").run(words[1], words[2])
end
