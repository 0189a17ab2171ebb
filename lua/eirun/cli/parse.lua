-- SPDX-License-Identifier: Apache-2.0
-- Reads the command line by the table in eirun.cli.verbs.
local errors = require "eirun.errors"
local spec = require("eirun.later") "eirun.spec"
local verbs = require "eirun.cli.verbs"

local M = {}

-- What wrong words end with, where a verb has a code of its own for them.
local wrong_words

local function usage(text)
  errors.raise("invalid", text, { code = "usage", exit = wrong_words })
end

local function known_options(verb)
  local known = {}
  for _, list in ipairs { verb.options, verbs.global } do
    for _, option in ipairs(list) do
      known["--" .. option.name] = option
      if option.short then
        known["-" .. option.short] = option
      end
    end
  end
  return known
end

local function check_value(option, value)
  if option.type == "integer" then
    return math.tointeger(tonumber(value)) or usage(("--%s wants a whole number, not '%s'"):format(option.name, value))
  end
  for _, allowed in ipairs(option.values or {}) do
    if value == allowed then
      return value
    end
  end
  if option.values then
    usage(("--%s is %s, not '%s'"):format(option.name, table.concat(option.values, " or "), value))
  end
  return value
end

local function store(into, option, value)
  local key = option.name:gsub("-", "_")
  if option.into then -- options whose order among each other counts
    into[option.into] = into[option.into] or {}
    table.insert(into[option.into], { option.name, value })
  elseif option.many then
    into[key] = into[key] or {}
    table.insert(into[key], value)
  else
    into[key] = value
  end
end

local function unknown(word, known)
  usage(("unknown option '%s'%s"):format(word, spec.advice(word, known)))
end

-- "--output=yaml" and "-oyaml" hold the value in the same word.
local function split(word, known)
  local name, value = word:match("^(%-%-[^=]+)=(.*)$")
  if name or known[word] then
    return name or word, value
  end
  name, value = word:match("^(%-%a)=?(.+)$")
  if name and known[name] and known[name].arg then
    return name, value
  end
  return word
end

-- One option at args[at]; returns the index of the last word that it took.
local function take_option(args, at, known, into)
  local name, value = split(args[at], known)
  local option = known[name] or unknown(name, known)
  if not option.arg then
    if value then
      usage(name .. " takes no value")
    end
    store(into, option, true)
    return at
  end
  if not value and not option.optional then
    at = at + 1
    value = args[at] or usage(name .. " wants a value: " .. option.arg)
  end
  store(into, option, value and check_value(option, value) or true)
  return at
end

-- A word that names a playbook rather than a verb.
local function is_playbook(word)
  return word:find("/", 1, true) or word:find("%.lua$")
end

-- The first word from args[at] on that is neither an option nor the value of one.
local function first_word(args, at, every)
  while at <= #args do
    local word = args[at]
    if word:sub(1, 1) ~= "-" then
      return word, at
    end
    local name, value = split(word, every)
    local option = every[name] or word ~= "--" and unknown(name, every) or {}
    if value then
      option = {} -- its value is in the same word
    end
    at = at + (option and option.arg and not option.optional and 2 or 1)
  end
end

-- The verb is the first word that is no option; options that take a value in a word of their own are stepped over.
local function find_verb(args)
  if args[1] and args[1]:sub(1, 1) ~= "-" then -- nearly always, and no other verb need be known
    return args[1], 1
  end
  local every = {}
  for _, verb in ipairs(verbs.all()) do
    for name, option in pairs(known_options(verb)) do
      every[name] = option
    end
  end
  return first_word(args, 1, every)
end

-- `eirun --sandbox` alone is a run that lacks its playbook.
local function only_global(args)
  local known = known_options({ options = {} })
  for _, word in ipairs(args) do
    if not known[word] then
      return false
    end
  end
  return true
end

local function verb_of(args)
  local word, at = find_verb(args)
  if not word then
    return not only_global(args) and verbs.find("run") or nil
  elseif is_playbook(word) then
    return verbs.find("run"), nil
  end
  local verb = verbs.find(word)
  if not verb then
    local names = {}
    for _, known in ipairs(verbs.all()) do
      names[known.name] = true
    end
    local near = spec.nearest(word, names)
    usage(near and ("'%s' is no verb, did you mean '%s'?"):format(word, near)
      or ("'%s' is no verb; a playbook is named by a path, as ./%s.lua"):format(word, word))
  end
  return verb, at
end

-- A verb of verbs: the word after it chooses among them, each has options of its own beside the common ones.
local function part_of(verb, verb_at, args)
  -- What stands before the part's name is nearly always a common option; else those of all parts are looked at.
  local every = setmetatable(known_options(verb), { __index = function(known, missing)
    setmetatable(known, nil)
    for _, part in ipairs(verb.parts) do
      for name, option in pairs(known_options(part)) do
        known[name] = option
      end
    end
    return known[missing]
  end })
  local word, at = first_word(args, verb_at + 1, every)
  for _, part in ipairs(verb.parts) do
    if part.name == word then
      local common = part.alone and {} or verb.options -- `alone`: the verb's options are not the part's
      local options = table.move(common, 1, #common, #part.options + 1, table.move(part.options, 1, #part.options, 1, {}))
      return { name = verb.name .. " " .. part.name, args = part.args, summary = part.summary, text = part.text, options = options,
        module = part.module }, at
    end
  end
  return verb
end

---@param args string[]
---@return {verb: table|nil, options: table, words: string[]}
--- Raises kind `invalid`, code `usage`.
function M.parse(args)
  wrong_words = nil
  local verb, verb_at = verb_of(args)
  wrong_words = verb and verb.wrong_words
  local part_at
  if verb and verb.parts and verb_at then
    verb, part_at = part_of(verb, verb_at, args)
  end
  local known = known_options(verb or { options = {} })
  local parsed, at, literal = { verb = verb, options = {}, words = {} }, 1, false
  while at <= #args do
    local word = args[at]
    if at == verb_at or at == part_at then
      literal = false
    elseif word == "--" and not literal then
      literal = true
    elseif word:sub(1, 1) == "-" and #word > 1 and not literal then
      at = take_option(args, at, known, parsed.options)
    else
      parsed.words[#parsed.words + 1] = word
    end
    at = at + 1
  end
  return parsed
end

return M
