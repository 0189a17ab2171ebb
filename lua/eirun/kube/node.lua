-- SPDX-License-Identifier: Apache-2.0
-- Nodes, as the API server tells of them.
local M = {}

---@param node table
---@return boolean
function M.is_ready(node)
  for _, condition in ipairs((node.status or {}).conditions or {}) do
    if condition.type == "Ready" then return condition.status == "True" end
  end
  return false
end

return M
