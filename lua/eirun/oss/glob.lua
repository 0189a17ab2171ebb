-- SPDX-License-Identifier: Apache-2.0
-- --include and --exclude: `*` is any text, `/` too, `?` one character, `[a-z]` and `[!a-z]` one of a set. A pattern without a slash is
-- held against the last name, one with a slash against the whole path below the place that was named.
local errors = require "eirun.errors"

local M = {}

local ONE = "[%z\1-\127\194-\244][\128-\191]*"

-- "[!a-z]" at `at`: as Lua writes it, and the place after it; nil where the bracket is only a bracket.
local function set(glob, at)
  local body, past = glob:match("^%[(!?%]?[^%]]*)%]()", at)
  if not body then return nil end
  local mark = ""
  if body:sub(1, 1) == "!" then body, mark = body:sub(2), "^" end
  if body == "" then return nil end
  return "[" .. mark .. body:gsub("[%%%]%^]", "%%%0") .. "]", past
end

---A glob as a pattern of Lua's.
---@param glob string
---@return string
---Example: `("a.txt"):find(glob.pattern "*.txt")`. Raises nothing.
function M.pattern(glob)
  local out, at = { "^" }, 1
  while at <= #glob do
    local c = glob:sub(at, at)
    local text, past
    if c == "*" then
      text = ".*"
    elseif c == "?" then
      text = ONE
    elseif c == "[" then
      text, past = set(glob, at)
    end
    out[#out + 1] = text or c:gsub("%W", "%%%0")
    at = past or at + 1
  end
  out[#out + 1] = "$"
  return table.concat(out)
end

---A function that says whether a relative path is taken. The last rule that fits decides; what no rule fits is taken, unless the
---first rule includes.
---@param rules? {[1]: "include"|"exclude", [2]: string}[]
---@return fun(relative: string): boolean
---Example: `glob.filter { { "exclude", "*" }, { "include", "*.pb" } } "1/saved_model.pb"` is true. Raises "invalid" for an empty pattern.
function M.filter(rules)
  rules = rules or {}
  if #rules == 0 then return function() return true end end
  local compiled = {}
  for i, rule in ipairs(rules) do
    if rule[2] == "" then errors.raise("invalid", ("--%s wants a pattern"):format(rule[1])) end
    compiled[i] = { take = rule[1] == "include", pattern = M.pattern(rule[2]), whole = rule[2]:find("/", 1, true) ~= nil }
  end
  return function(relative)
    local name, taken = relative:match "([^/]*)/*$", not compiled[1].take
    for _, rule in ipairs(compiled) do
      if (rule.whole and relative or name):find(rule.pattern) then taken = rule.take end
    end
    return taken
  end
end

return M
