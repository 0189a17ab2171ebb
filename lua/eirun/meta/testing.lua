-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.testing
-- What the C module core/bind_testing.c offers; a test compares the names. For the project's own tests.
local testing = {}

---From the n-th allocation on all fail; 0 ends it.
---@param n integer
function testing.fail_from(n) end

---How many handles of the loop are open.
---@return integer
function testing.handles() end

---The names of a userdata's methods, in no order.
---@param handle userdata
---@return string[]
function testing.methods(handle) end

return testing
