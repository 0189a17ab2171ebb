-- SPDX-License-Identifier: Apache-2.0
-- Label and field selectors. A parsed selector is a list of {key, op, values}; the empty list selects everything.
local selector = {}

local TESTS = {
  ["in"] = function(have, want) return have ~= nil and want[have] == true end,
  notin = function(have, want) return have == nil or not want[have] end,
  exists = function(have) return have ~= nil end,
  ["!"] = function(have) return have == nil end,
  gt = function(have, want) return tonumber(have) ~= nil and tonumber(have) > tonumber(next(want)) end,
  lt = function(have, want) return tonumber(have) ~= nil and tonumber(have) < tonumber(next(want)) end,
}

function selector.matches(parsed, labels)
  for _, term in ipairs(parsed) do
    if not TESTS[term.op](labels and labels[term.key], term.values) then return false end
  end
  return true
end

local function set_of(list)
  local set = {}
  for _, v in ipairs(list) do set[v] = true end
  return set
end

local function trim(s)
  return (s:match("^%s*(.-)%s*$"))
end

local function values_of(text)
  local list = {}
  for v in (text .. ","):gmatch("([^,]*),") do list[#list + 1] = trim(v) end
  return set_of(list)
end

local function parse_term(text)
  local key, op, values = text:match("^([%w%-_./]+)%s+(%l+)%s*%((.*)%)$")
  if key and (op == "in" or op == "notin") then return { key = key, op = op, values = values_of(values) } end
  key = text:match("^!%s*([%w%-_./]+)$")
  if key then return { key = key, op = "!" } end
  local sign, v
  key, sign, v = text:match("^([%w%-_./]+)%s*([=!<>]=?)%s*([%w%-_.]*)$")
  if key and (sign == "=" or sign == "==") then return { key = key, op = "in", values = { [v] = true } } end
  if key and sign == "!=" then return { key = key, op = "notin", values = { [v] = true } } end
  if key and (sign == ">" or sign == "<") then
    return { key = key, op = sign == ">" and "gt" or "lt", values = { [v] = true } }
  end
  key = text:match("^([%w%-_./]+)$")
  return key and { key = key, op = "exists" } or nil
end

-- Splits at the commas that are not inside brackets.
local function terms(text)
  local list, depth, from = {}, 0, 1
  for pos, c in text:gmatch("()([(),])") do
    if c == "(" then depth = depth + 1 end
    if c == ")" then depth = depth - 1 end
    if c == "," and depth == 0 then
      list[#list + 1] = trim(text:sub(from, pos - 1))
      from = pos + 1
    end
  end
  list[#list + 1] = trim(text:sub(from))
  return list
end

-- The text of ?labelSelector=; nil and a message when it cannot be read.
function selector.parse(text)
  local parsed = {}
  if not text or trim(text) == "" then return parsed end
  for _, term in ipairs(terms(text)) do
    local one = parse_term(term)
    if not one then return nil, "unable to parse requirement: found '" .. term .. "'" end
    parsed[#parsed + 1] = one
  end
  return parsed
end

local OPERATORS = { In = "in", NotIn = "notin", Exists = "exists", DoesNotExist = "!", Gt = "gt", Lt = "lt" }

local function by_key(a, b)
  return a.key < b.key
end

-- A LabelSelector object; nil selects nothing (answers nil).
function selector.from_object(object)
  if type(object) ~= "table" then return nil end
  local parsed = {}
  for key, v in pairs(object.matchLabels or {}) do
    parsed[#parsed + 1] = { key = key, op = "in", values = { [v] = true } }
  end
  table.sort(parsed, by_key)
  for _, e in ipairs(object.matchExpressions or {}) do
    parsed[#parsed + 1] = { key = e.key, op = OPERATORS[e.operator] or "exists", values = set_of(e.values or {}) }
  end
  return parsed
end

-- A plain map of labels (Service, nodeSelector).
function selector.from_map(map)
  return selector.from_object({ matchLabels = map })
end

-- Node selector requirements have the same operators.
function selector.from_requirements(list)
  return selector.from_object({ matchExpressions = list })
end

local WORDS = { ["in"] = " in ", notin = " notin " }

local function term_text(term)
  if term.op == "exists" then return term.key end
  if term.op == "!" then return "!" .. term.key end
  local values = {}
  for v in pairs(term.values) do values[#values + 1] = v end
  table.sort(values)
  if #values == 1 and term.op == "in" then return term.key .. "=" .. values[1] end
  return term.key .. (WORDS[term.op] or term.op) .. "(" .. table.concat(values, ",") .. ")"
end

-- The selector as Kubernetes writes it (scale status, Table columns): terms by key, joined by commas.
function selector.text(parsed)
  local list = {}
  for i, term in ipairs(parsed or {}) do list[i] = term_text(term) end
  table.sort(list)
  return table.concat(list, ",")
end

-- ?fieldSelector=: a list of {path, value, negate}; nil and a message.
function selector.parse_fields(text)
  local list = {}
  for part in ((text or "") .. ","):gmatch("([^,]*),") do
    if part ~= "" then
      local path, sign, v = part:match("^([%w._%-/]+)(!?==?)(.*)$")
      if not path then return nil, "invalid selector: '" .. text .. "'; can't understand '" .. part .. "'" end
      list[#list + 1] = { path = path, value = v, negate = sign == "!=" }
    end
  end
  return list
end

-- get(path) answers the object's text of that field ("" when unset).
function selector.matches_fields(list, get)
  for _, term in ipairs(list) do
    if (get(term.path) == term.value) == term.negate then return false end
  end
  return true
end

return selector
