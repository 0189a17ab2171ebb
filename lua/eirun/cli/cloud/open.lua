-- SPDX-License-Identifier: Apache-2.0
-- A target for verbs whose standard output is data: its line goes to standard error, and only where somebody looks.
local term = require "eirun.core.term"

local Quiet = { __index = function() return function() end end }

---@param options table of the command line
---@param opts? {identify?: boolean, cluster?: string}
---@return table session
return function(options, opts)
  local target = require "eirun.target"
  local session = target.open(options, setmetatable({}, Quiet), opts and opts.cluster, opts)
  if options.vpc then target.current().network = "vpc" end
  if term.isatty(2) then term.write(2, session.description .. "\n") end
  return session
end
