-- SPDX-License-Identifier: Apache-2.0
-- `eirun gpu` on a driver that answers by script (tests/fake_nvml).
local fs = require "eirun.core.fs"
local process = require "eirun.core.process"

local M = {}

M.program = assert(fs.realpath("/proc/self/exe"))
M.fakes = M.program:match("^(.*)/") .. "/tests/fake_nvml/"

-- `age`: which of the drivers, "new" or "old"; another word: none.
function M.run(script, words, age)
  local call = { M.program, "gpu", timeout = 20, env = { EIRUN_FAKE_NVML = script, LD_LIBRARY_PATH = M.fakes .. (age or "new") } }
  table.move(words, 1, #words, 3, call)
  return assert(process.run(call))
end

return M
