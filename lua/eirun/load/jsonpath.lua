-- SPDX-License-Identifier: Apache-2.0
-- The way to a field of a JSON text as one writes it: `predictions[0].label`.
local errors = require "eirun.errors"

local M = {}

local function refuse(text, column, reason)
  errors.raise("invalid", ("JSON field '%s': %s at column %d"):format(text, reason, column), {
    column = column, excerpt = text .. "\n" .. (" "):rep(column - 1) .. "^",
  })
end

---Reads it: names with dots between, places in arrays in brackets, from 0. A `$` at the beginning is the whole.
---@param text string
---@return (string|integer)[]
---Example: `jsonpath.parse "predictions[0].label" --> { "predictions", 0, "label" }`. Raises kind "invalid" with `column` and `excerpt`.
function M.parse(text)
  local steps, at = {}, 1
  if text:sub(1, 1) == "$" then at = 2 + (text:sub(2, 2) == "." and 1 or 0) end
  while at <= #text do
    local place, after = text:match("^%[(%d+)%]()", at)
    if not place then place, after = text:match("^([^%.%[%]%s]+)()", at) else place = math.tointeger(tonumber(place)) end
    if not place then refuse(text, at, "expected a name, or a place in brackets") end
    steps[#steps + 1] = place
    at = after
    if text:sub(at, at) == "." then
      at = at + 1
      if at > #text then refuse(text, at, "expected a name") end
    end
  end
  if #steps == 0 and text ~= "$" then refuse(text, 1, "expected a name") end
  return steps
end

return M
