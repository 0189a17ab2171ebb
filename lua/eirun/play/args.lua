-- SPDX-License-Identifier: Apache-2.0
-- A playbook's arguments: types, defaults, and where a value came from.
local errors = require "eirun.errors"
local spec = require "eirun.spec"

local M = { types = { "string", "integer", "number", "boolean", "path", "duration", "list", "choice" } }

---@class eirun.play.Arg
---@field default? any a value, or its text as on the command line
---@field help? string one line for --help
---@field required? boolean the run ends before its first step when nobody gives a value
---@field min? number
---@field max? number
---@field match? string Lua pattern that the text must match
---@field says? string what the value is called in help
---@field values? string[] of a choice

M.metatable = { __name = "eirun.play.arg" }

local declared = 0

local rules = {
  default = { type = "any" },
  help = { type = "string" },
  required = { type = "boolean" },
  min = { type = "number" },
  max = { type = "number" },
  match = { type = "string" },
  says = { type = "string" },
  values = { type = "table" },
}

local units = { ms = 0.001, s = 1, m = 60, h = 3600, d = 86400 }

local words = {
  boolean = { yes = true, ["true"] = true, on = true, ["1"] = true, no = false, ["false"] = false, off = false, ["0"] = false },
}

local function split(text)
  local list = {}
  for item in text:gmatch("[^,]+") do
    list[#list + 1] = item:match("^%s*(.-)%s*$")
  end
  return list
end

local function one_of(list, value)
  for _, item in ipairs(list) do
    if item == value then
      return true
    end
  end
  return false
end

-- Text from the command line (or a value of an env file) -> value, or nil and what is wrong.
local read = {
  string = function(value)
    return type(value) ~= "table" and tostring(value) or nil, "text"
  end,
  path = function(value)
    return type(value) == "string" and value or nil, "a path"
  end,
  integer = function(value)
    return math.tointeger(tonumber(value)), "a whole number"
  end,
  number = function(value)
    return tonumber(value), "a number"
  end,
  boolean = function(value)
    if type(value) == "boolean" then
      return value
    end
    return words.boolean[value], "yes or no"
  end,
  duration = function(value)
    local number, unit = tostring(value):match("^([%d.]+)%s*(%a*)$")
    local seconds = tonumber(number)
    local factor = unit == "" and 1 or units[unit]
    return seconds and factor and seconds * factor or nil, "a duration such as 90, 30s, 15m, 2h"
  end,
  list = function(value)
    return type(value) == "table" and value or type(value) == "string" and split(value) or nil, "a list separated by commas"
  end,
  choice = function(value, arg)
    return one_of(arg.values, value) and value or nil, "one of " .. table.concat(arg.values, ", ")
  end,
}

local function problem_of(arg, value)
  if arg.min and value < arg.min then
    return ("must be at least %s"):format(arg.min)
  elseif arg.max and value > arg.max then
    return ("must be at most %s"):format(arg.max)
  elseif arg.match and not tostring(value):find(arg.match) then
    return "does not look right"
  end
end

local function declare(kind)
  return function(given)
    given = spec.check("play." .. kind, given or {}, rules)
    declared = declared + 1
    local arg = { type = kind, order = declared }
    for key, value in pairs(given) do
      arg[key] = value
    end
    return setmetatable(arg, M.metatable)
  end
end

--- An argument that is text.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `name = play.string { default = "web", match = "^[a-z-]+$", help = "name of the job" }`
--- Raises kind `invalid` for an unknown field of the declaration; a wrong value is refused before the playbook runs.
M.string = declare "string"

--- A whole number.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `nodes = play.integer { default = 1, min = 0, max = 10, help = "nodes at least" }`
--- Raises as `play.string`.
M.integer = declare "integer"

--- A number.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `qps = play.number { default = 10, min = 0.1, help = "requests a second of one replica" }`
--- Raises as `play.string`.
M.number = declare "number"

--- yes or no; also true, on, 1, false, off, 0.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `load = play.boolean { default = true, help = "run the load test" }`
--- Raises as `play.string`.
M.boolean = declare "boolean"

--- A file or folder. One that the playbook or its env file names lies beside the playbook, one of the command line where it was typed.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `model = play.path { default = "models/bert", help = "folder with the model's versions" }`
--- Raises as `play.string`.
M.path = declare "path"

--- A time such as 90, 30s, 15m, 2h, 1d; the playbook gets seconds.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `hold = play.duration { default = "12m", help = "how long the peak lasts" }`
--- Raises as `play.string`.
M.duration = declare "duration"

--- A list, on the command line separated by commas.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `types = play.list { required = true, help = "GPU instance types" }`
--- Raises as `play.string`.
M.list = declare "list"

--- One of `values`.
---@param given? eirun.play.Arg
---@return eirun.play.Arg
--- Example: `scaler = play.choice { values = { "cluster-autoscaler", "goatscaler" }, default = "goatscaler" }`
--- Raises as `play.string`.
M.choice = declare "choice"

-- One value, read and checked; `source` says where it stands, for the message.
local function convert(name, arg, value, source)
  local result, wanted = read[arg.type](value, arg)
  if result == nil then
    errors.raise("invalid", ("%s: argument '%s' wants %s, got '%s'"):format(source, name, wanted, tostring(value)), { code = "usage" })
  end
  local problem = problem_of(arg, result)
  if problem then
    errors.raise("invalid", ("%s: argument '%s' %s, got '%s'"):format(source, name, problem, tostring(value)), { code = "usage" })
  end
  return result
end

local function check_names(book, values, source)
  local names = {}
  for name in pairs(values) do
    names[#names + 1] = name
  end
  table.sort(names)
  for _, name in ipairs(names) do
    if not book.args[name] then
      local advice = spec.advice(name, book.args)
      errors.raise("invalid", ("%s: the playbook '%s' has no argument '%s'%s"):format(source, book.name, name,
        advice ~= "" and advice or "; --help after the playbook lists them"), { code = "usage" })
    end
  end
end

-- A path that the playbook or its environment names lies beside the playbook; one of the command line where it was typed.
local function beside(book, arg, value)
  if arg.type ~= "path" or type(value) ~= "string" or value:sub(1, 1) == "/" or not book.dir or book.dir == "." then
    return value
  end
  return book.dir .. "/" .. value
end

--- Merges defaults, an env file and the command line.
---@param book eirun.play.Book
---@param layers {source: string, values: table}[] weakest first
---@return table values by name
---@return table<string, string> sources by name
function M.resolve(book, layers)
  local values, sources = {}, {}
  for _, name in ipairs(book.arg_names) do
    local arg = book.args[name]
    if arg.default ~= nil then
      values[name], sources[name] = convert(name, arg, beside(book, arg, arg.default), "default"), "default"
    end
  end
  for _, layer in ipairs(layers) do
    check_names(book, layer.values, layer.source)
    for name, value in pairs(layer.values) do
      local arg = book.args[name]
      local given = layer.source == "command line" and value or beside(book, arg, value)
      values[name], sources[name] = convert(name, arg, given, layer.source), layer.source
    end
  end
  return values, sources
end

--- The names that have no value although they must have one.
function M.missing(book, values)
  local names = {}
  for _, name in ipairs(book.arg_names) do
    if book.args[name].required and values[name] == nil then
      names[#names + 1] = name
    end
  end
  return names
end

--- "key=value" words of the command line.
---@param given string[]
---@return table<string, string>
function M.from_words(given)
  local values = {}
  for _, word in ipairs(given) do
    local name, value = word:match("^([%a][%w_]*)=(.*)$")
    if not name then
      errors.raise("invalid", ("'%s' is no argument: write key=value"):format(word), { code = "usage" })
    end
    values[name] = value
  end
  return values
end

return M
