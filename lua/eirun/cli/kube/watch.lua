-- SPDX-License-Identifier: Apache-2.0
-- eirun kube watch TYPE: get --watch.
local get = require "eirun.cli.kube.get"

local M = {}

---@param options table
---@param words string[]
---@return integer exit_code
function M.run(options, words)
  options.watch = true
  return get.run(options, words)
end

return M
