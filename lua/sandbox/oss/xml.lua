-- SPDX-License-Identifier: Apache-2.0
-- The little XML that the object store speaks: elements with text or children, no attributes to speak of.
local M = {}

M.prolog = '<?xml version="1.0" encoding="UTF-8"?>\n'

local escapes = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

-- Control bytes cannot stand in XML 1.0 at all; such keys are only listed right with encoding-type=url.
function M.escape(text)
  text = tostring(text):gsub('[&<>"]', escapes)
  return (text:gsub("[%z\1-\8\11\12\14-\31]", function(c) return ("&#%d;"):format(c:byte()) end))
end

local function write(out, node)
  local name, value = node[1], node[2]
  out[#out + 1] = "<" .. name .. ">"
  if type(value) == "table" then
    for _, child in ipairs(value) do write(out, child) end
  else
    out[#out + 1] = M.escape(value)
  end
  out[#out + 1] = "</" .. name .. ">"
end

---@param node table { name, text | { child, ... } }
---@return string document with its prolog
function M.document(node)
  local out = { M.prolog }
  write(out, node)
  return table.concat(out)
end

local named = { amp = "&", lt = "<", gt = ">", quot = '"', apos = "'" }

local function unescape(text)
  return (text:gsub("&(#?x?)(%w+);", function(mark, name)
    if mark == "" then return named[name] end
    local code = tonumber(name, mark == "#x" and 16 or 10)
    return code and code <= 0x10FFFF and utf8.char(code) or nil
  end))
end

local max_depth = 16

-- One element starting at `at` (which is at "<"); its node and the place after it.
local function element(text, at, depth)
  if depth > max_depth then return nil end
  local name, rest, empty = text:match("^<([%w_:.-]+)[^<>/]*()(/?)>", at)
  if not name then return nil end
  local node, from = { name }, rest + #empty + 1
  if empty == "/" then return node, from end
  local words = {}
  while true do
    local stop = text:find("<", from, true)
    if not stop then return nil end
    words[#words + 1] = unescape(text:sub(from, stop - 1))
    if text:sub(stop, stop + #name + 1) == "</" .. name then
      local past = text:match("^%s*>()", stop + #name + 2)
      node.text = table.concat(words)
      return past and node or nil, past
    end
    local child, after = element(text, stop, depth + 1)
    if not child then return nil end
    node[#node + 1], from = child, after
  end
end

---The root element as { name, child..., text = }, or nil when it is not well-formed.
function M.parse(text)
  text = text:gsub("<!%-%-.-%-%->", "")
  if text:find("<!", 1, true) then return nil end -- no DTDs, no CDATA
  local at = text:match("^\239?\187?\191?%s*<%?xml.-%?>%s*()") or text:match("^%s*()")
  local root, after = element(text, at, 1)
  if not root or text:find("%S", after) then return nil end
  return root
end

---The text of the first child of that name.
function M.text(node, name)
  for i = 2, #node do
    if node[i][1] == name then return node[i].text end
  end
end

---All children of that name.
function M.children(node, name)
  local list = {}
  for i = 2, #node do
    if node[i][1] == name then list[#list + 1] = node[i] end
  end
  return list
end

return M
