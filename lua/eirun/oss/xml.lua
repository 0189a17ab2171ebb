-- SPDX-License-Identifier: Apache-2.0
-- The little XML that OSS speaks: elements and text, no attributes worth reading, no mixed content.
local M = {}

local entities = { lt = "<", gt = ">", amp = "&", quot = "\"", apos = "'" }

local function unescape(text)
  return (text:gsub("&(#?x?)(%w+);", function(prefix, name)
    if prefix == "#x" then return utf8.char(tonumber(name, 16)) end
    if prefix == "#" then return utf8.char(tonumber(name)) end
    return entities[name]
  end))
end

---Text as it may stand inside an element.
---@param text string
---@return string
function M.escape(text)
  return (text:gsub("[&<>\"]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["\""] = "&quot;" }))
end

local function add(parent, name, value)
  parent[name] = parent[name] or {}
  table.insert(parent[name], value)
end

---Reads a document: each element is a table from a child's name to the list of its values; a leaf is its text.
---@param text string
---@return table|nil root `{ListBucketResult = {{...}}}`
---@return string|nil problem
---Example: `xml.parse("<A><B>1</B><B>2</B></A>").A[1].B[2]` is `"2"`.
function M.parse(text)
  local root = {}
  local stack, names, from = { root }, {}, 1
  text = text:gsub("<%?.-%?>", ""):gsub("<!%-%-.-%-%->", "")
  while true do
    local first, last, close, name, _, empty = text:find("<(/?)([%w_:.-]+)([^>]-)(/?)>", from)
    if not first then break end
    if close == "" then
      local element = {}
      if empty == "/" then
        add(stack[#stack], name, "")
      else
        stack[#stack + 1], names[#names + 1] = element, { name = name, from = last + 1 }
      end
    else
      local open = table.remove(names)
      if not open or open.name ~= name then return nil, "</" .. name .. "> closes nothing" end
      local element = table.remove(stack)
      local value = next(element) and element or unescape(text:sub(open.from, first - 1))
      add(stack[#stack], name, value)
    end
    from = last + 1
  end
  if #names > 0 then return nil, "<" .. names[#names].name .. "> is not closed" end
  if not next(root) then return nil, "no element" end
  return root
end

---The text of the first child of that name, nil when there is none.
---@param element table
---@param name string
---@return string|nil
function M.text(element, name)
  local list = element[name]
  local value = list and list[1]
  if type(value) == "table" then return "" end
  return value
end

return M
