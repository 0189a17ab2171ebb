-- SPDX-License-Identifier: Apache-2.0
-- Reads LuaCATS annotations out of a Lua file's text: functions and methods with what their comments say, classes with their fields.
local M = {}

---@class eirun.Annotation
---@field owner string the local variable before the dot or colon, `M` or `Client`
---@field name string
---@field method boolean written with a colon
---@field args string as in the source, "id, opts"
---@field text string[] lines of prose before and between the tags
---@field params {name: string, optional: boolean, type: string, text: string}[]
---@field returns {type: string, text: string}[]

local closing = { ["("] = ")", ["{"] = "}", ["["] = "]", ["<"] = ">" }

-- The type at the start of a tag and what follows it: a space outside brackets ends it, unless an operator is beside it.
local function split_type(text)
  local stack, at = {}, 1
  while at <= #text do
    local c = text:sub(at, at)
    if c == '"' then
      at = text:find('"', at + 1, true) or #text
    elseif closing[c] then
      stack[#stack + 1] = closing[c]
    elseif c == stack[#stack] then
      stack[#stack] = nil
    elseif c == " " and #stack == 0 and not text:sub(1, at - 1):find("[|:,]$") and not text:find("^%s*|", at) then
      break
    end
    at = at + 1
  end
  return text:sub(1, at - 1), text:sub(at):match("^%s*(.-)%s*$")
end

local function take_param(entry, rest)
  local name, after = rest:match("^([%w_.]+%??)%s*(.*)$")
  local kind, text = split_type(after)
  entry.params[#entry.params + 1] = { name = name:gsub("%?$", ""), optional = name:find("%?$") ~= nil, type = kind, text = text }
  return entry.params[#entry.params]
end

-- One tag may hold several: `string|nil text, eirun.Error|nil err`.
local function take_return(entry, rest)
  local kind, text = split_type(rest)
  local name, more = text:match("^([%w_]+), (.+)$")
  if name and more:find("^eirun%.Error") then
    entry.returns[#entry.returns + 1] = { type = kind, text = name }
    return take_return(entry, more)
  end
  entry.returns[#entry.returns + 1] = { type = kind, text = text }
  return entry.returns[#entry.returns]
end

local function take_field(entry, rest)
  local name, after = rest:match("^([%w_]+%??)%s*(.*)$")
  if not name then
    return nil
  end
  local kind, text = split_type(after)
  entry.fields[#entry.fields + 1] = { name = name:gsub("%?$", ""), optional = name:find("%?$") ~= nil, type = kind, text = text }
  return entry.fields[#entry.fields]
end

local function take_class(entry, rest)
  entry.class, entry.class_text = rest:match("^([%w_.]+)%s*(.*)$")
  entry.class_text = entry.class_text:gsub("^:%s*[%w_.]+%s*", "")
  return nil
end

local function take_type(entry, rest)
  entry.value = rest
  return nil
end

local takers = { type = take_type, param = take_param, ["return"] = take_return, field = take_field, class = take_class }

-- Lines of one comment block. After a tag, a line that is indented further than the block's text goes on with the tag; after a field
-- every line does.
local function read_block(lines)
  local entry = { text = {}, params = {}, returns = {}, fields = {} }
  local first = lines[1]:match("^%-%-%-(%s*)")
  local indent = lines[1]:find("^%-%-%-%s*@") and "" or first
  local last, fenced
  for _, line in ipairs(lines) do
    local body = line:sub(4)
    local tag, rest = body:match("^%s*@(%a+)%s*(.*)$")
    if fenced or not tag then
      local text = body:sub(1, #indent) == indent and body:sub(#indent + 1) or body
      fenced = text:find("^```") and not fenced or fenced and not text:find("^```")
      if last and not fenced and (text:find("^ ") or #entry.fields > 0) then
        last.text = last.text .. " " .. text:match("^%s*(.-)%s*$")
      else
        last = nil
        entry.text[#entry.text + 1] = text
      end
    else
      last = takers[tag] and takers[tag](entry, rest)
    end
  end
  return entry
end

local function read_function(entry, line)
  local owner, mark, name, args = line:match("^function ([%a_][%w_]*)([.:])([%a_][%w_]*)%((.-)%)")
  if not owner then
    owner, name, args = line:match("^([%a_][%w_]*)%.([%a_][%w_]*) = function%((.-)%)")
  end
  if not owner then
    owner, name = line:match("^([%a_][%w_]*)%.([%a_][%w_]*) = ")
  end
  if not owner then
    return false
  end
  entry.owner, entry.name, entry.method, entry.args = owner, name, mark == ":", args
  return true
end

---All annotated functions and classes of a file, in its order, and every function that has no comment.
---@param source string
---@return {functions: eirun.Annotation[], classes: table[]}
function M.read(source)
  local found, block = { functions = {}, classes = {} }, {}
  for line in (source .. "\n"):gmatch("(.-)\n") do
    if line:find("^%-%-%-") then
      block[#block + 1] = line
    else
      local entry = #block > 0 and read_block(block) or { text = {}, params = {}, returns = {}, fields = {} }
      entry.annotated = #block > 0
      if entry.class then
        entry.variable = line:match("^local ([%a_][%w_]*) =")
        found.classes[#found.classes + 1] = entry
      elseif read_function(entry, line) and (entry.annotated or line:find("^function ")) then
        found.functions[#found.functions + 1] = entry
      end
      block = {}
    end
  end
  return found
end

return M
