-- SPDX-License-Identifier: Apache-2.0
-- Option tables are checked before anything is done: an unknown key is named together with the nearest known one, and
-- with the line of the playbook that wrote it.
local errors = require "eirun.errors"

local M = {}

-- How many letters are wrong, missing, too many, or swapped with their neighbour.
local function distance(a, b)
  local rows = { [0] = {} }
  for j = 0, #b do rows[0][j] = j end
  for i = 1, #a do
    local row, above = { [0] = i }, rows[i - 1]
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      row[j] = math.min(above[j] + 1, row[j - 1] + 1, above[j - 1] + cost)
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], rows[i - 2][j - 2] + 1)
      end
    end
    rows[i] = row
  end
  return rows[#a][#b]
end

---The known word nearest to `word`, nil when none is near.
---@param word string
---@param known table<string, any> the known words are its keys
---@return string|nil
---Example: `spec.nearest("lables", { labels = true })` is `labels`. Raises nothing.
function M.nearest(word, known)
  local best, best_distance
  local words = {}
  for key in pairs(known) do words[#words + 1] = key end
  table.sort(words)
  for _, key in ipairs(words) do
    local d = distance(word, key)
    if not best or d < best_distance then best, best_distance = key, d end
  end
  return best and best_distance <= math.max(#word <= 4 and 1 or 2, #word // 3) and best or nil
end

---The end of a sentence about a word that nobody knows: the nearest known one as a question, or nothing.
---@param word any only text is compared
---@param known table<string, any> the known words are its keys
---@return string
---Example: `"no such field" .. spec.advice("lables", { labels = true })` is `no such field, did you mean 'labels'?`. Raises nothing.
function M.advice(word, known)
  local near = type(word) == "string" and M.nearest(word, known)
  return near and (", did you mean '%s'?"):format(near) or ""
end

-- Is this chunk one of the library's own? Embedded ones are called "@eirun/kube.lua", those of --lua-dir end so.
local function is_ours(source)
  local path = source:match("^@.-(eirun/[%w_/]+)%.lua$")
  return path ~= nil and (source:find("^@eirun/") ~= nil or package.loaded[path:gsub("/", ".")] ~= nil)
end

---Where the caller outside the library stands, "playbooks/bert.lua:31: " or "".
---@return string
---Example: `error(spec.place() .. "max is below min", 0)`. Raises nothing.
function M.place()
  for level = 2, 40 do
    local info = debug.getinfo(level, "Sl")
    if not info then break end
    if info.what ~= "C" and info.currentline > 0 and not is_ours(info.source) then
      return info.short_src .. ":" .. info.currentline .. ": "
    end
  end
  return ""
end

local function invalid(what, text, field)
  local place = M.place()
  errors.raise("invalid", place .. what .. ": " .. text, { place = place, field = field })
end

-- Set by `eirun check`: the value that nobody knows yet; it fits everywhere.
M.unknown = nil

local function check_type(what, key, value, rule)
  local want = rule.type
  local ok = want == "any" or type(value) == want or math.type(value) == want
  if want == "list" then ok = type(value) == "table" end
  local article = want:find "^[aeiou]" and "an " or "a "
  if not ok then invalid(what, ("%s must be %s, got %s"):format(key, rule.says or article .. want, type(value))) end
end

local function check_value(what, key, value, rule)
  if value == M.unknown then return end
  check_type(what, key, value, rule)
  if rule.min and value < rule.min then invalid(what, ("%s must be at least %s, got %s"):format(key, rule.min, value)) end
  if rule.max and value > rule.max then invalid(what, ("%s must be at most %s, got %s"):format(key, rule.max, value)) end
  if rule.match and not value:find(rule.match) then invalid(what, ("%s '%s' is not %s"):format(key, value, rule.says)) end
  if rule.one_of and not rule.one_of[value] then
    local known = {}
    for word in pairs(rule.one_of) do known[#known + 1] = word end
    table.sort(known)
    invalid(what, ("%s must be one of %s, got '%s'"):format(key, table.concat(known, ", "), tostring(value)))
  end
  if rule.fields then M.check(what .. "." .. key, value, rule.fields) end
  if rule.check then
    local problem = rule.check(value)
    if problem then invalid(what, key .. " " .. problem) end
  end
end

---Checks an options table. Rules: `{type=, required=, min=, max=, match=, says=, one_of=, fields=, check=}` by field name.
---@param what string the function or the object, for the message
---@param spec table
---@param rules table<string, table>
---@return table spec the same table
---Example: `spec.check("ensure_hpa", given, { name = { type = "string", required = true } })`. Raises kind "invalid".
function M.check(what, spec, rules)
  if spec == M.unknown and spec ~= nil then return spec end
  if type(spec) ~= "table" then invalid(what, "wants a table of options, got " .. type(spec)) end
  local given = {}
  for key in pairs(spec) do given[#given + 1] = key end
  table.sort(given, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(given) do
    local rule = rules[key]
    if not rule then
      invalid(what, ("unknown field '%s'%s"):format(tostring(key), M.advice(key, rules)), key)
    end
    check_value(what, key, spec[key], rule)
  end
  local names = {}
  for key, rule in pairs(rules) do if rule.required then names[#names + 1] = key end end
  table.sort(names)
  for _, key in ipairs(names) do
    if spec[key] == nil then invalid(what, "field '" .. key .. "' is missing") end
  end
  return spec
end

---Raises kind "invalid" with the caller's place.
---@param what string
---@param text string
---Example: `spec.fail("ensure_hpa", "max is below min")`.
M.fail = invalid

return M
