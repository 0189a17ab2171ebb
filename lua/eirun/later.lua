-- SPDX-License-Identifier: Apache-2.0
-- Modules that are read at their first use: what most runs never reach need not cost each of them its start.

---A stand-in for a module; the module is read when something of it is asked for.
---@param name string
---@return table module
---Example: `local jsonpath = later "eirun.kube.jsonpath"`. Raises nothing now, later what `require` raises.
return function(name)
  return setmetatable({}, { __index = function(self, key)
    local value = require(name)[key]
    rawset(self, key, value)
    return value
  end })
end
