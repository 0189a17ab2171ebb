-- SPDX-License-Identifier: Apache-2.0
-- C modules have exactly the functions that lua/eirun/meta documents.
local t = require "eirun.test"

local function names(module)
  local list = {}
  for name, value in pairs(module) do
    if type(value) == "function" then
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

for _, module in ipairs { "crypto", "db", "fs", "http", "httpd", "json", "os", "process", "secret", "term", "yaml" } do
  t.test("module_" .. module .. "_is_documented", function()
    t.eq(names(require("eirun.core." .. module)), names(require("eirun.meta." .. module)))
  end)
end
