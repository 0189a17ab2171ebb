-- SPDX-License-Identifier: Apache-2.0
-- A function of the host as the library shows it: what fails is raised, wrong use is kind "invalid" with the playbook's line.
local errors = require "eirun.errors"
local spec = require "eirun.spec"

local M = {}

local function finish(ok, value, err)
  if ok and (value ~= nil or err == nil) then return value end
  local failure = err or value
  if type(failure) ~= "string" then error(failure, 0) end
  local place = spec.place()
  errors.raise("invalid", place .. failure:gsub("'eirun%.core%.([%w_.]+)'", "'%1'"), { place = place })
end

---@param fn function of eirun.core.*, with one result
---@return function
function M.raising(fn)
  return function(...) return finish(pcall(fn, ...)) end
end

return M
