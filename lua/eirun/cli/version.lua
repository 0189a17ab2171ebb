-- SPDX-License-Identifier: Apache-2.0
local json = require "eirun.core.json"
local build = require "eirun.core.build"

local M = { number = build.version }

function M.run(options)
  if options.output == "jsonl" then
    print(json.encode { eirun = build.version, libraries = build.libraries() })
    return 0
  end
  print("eirun " .. build.version)
  for _, library in ipairs(build.libraries()) do
    print(library)
  end
  return 0
end

return M
