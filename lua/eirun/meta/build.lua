-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.build
-- What the C module core/bind_build.c offers; a test compares the names. Facts only, no functions.
local build = {}

---The program's version, from the one place in CMakeLists.txt.
---@type string
build.version = nil

---The libraries it runs with, as "name version".
---@type string[]
build.libraries = nil

return build
