-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.build
-- What the C module core/bind_build.c offers; a test compares the names.
local build = {}

---The program's version, from the one place in CMakeLists.txt.
---@type string
build.version = nil

---The libraries it runs with, as "name version". Asking opens those that are opened at need.
---@return string[]
---Example: `build.libraries()[1]` is "Lua 5.4.4". Raises nothing.
function build.libraries() end

return build
