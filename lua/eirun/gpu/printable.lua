-- SPDX-License-Identifier: Apache-2.0
-- Text of strangers (exporters, programs, drivers): it ends up in terminals and in JSON, so it is UTF-8 without control characters.
local M = {}

---The text with "?" for each control character, and for each byte that is no UTF-8.
---@generic T
---@param text T
---@return T anything but a string as it is
---Example: `printable.text "a\27b"` is "a?b". Raises nothing.
function M.text(text)
  if type(text) ~= "string" then return text end
  local parts, at = {}, 1
  while at <= #text do
    local _, bad = utf8.len(text, at)
    parts[#parts + 1] = text:sub(at, bad and bad - 1)
    if bad then parts[#parts + 1] = "?" end
    at = (bad or #text) + 1
  end
  -- the 8-bit controls too: some terminals obey them
  return (table.concat(parts):gsub("%c", "?"):gsub("\xC2[\x80-\x9F]", "?"))
end

return M
