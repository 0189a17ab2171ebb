-- SPDX-License-Identifier: Apache-2.0
-- ModelServerConfig in protobuf's text format, and the command line of tensorflow_model_server.
local M = {}

-- Text format -> { { name, value } ... }; value is a string, a number, a word or a nested list.
local function tokens(text)
  local list, at = {}, 1
  while true do
    at = text:match("^[%s,;]*()", at)
    if at > #text then return list end
    local comment = text:match("^#[^\n]*()", at)
    local word, past = text:match("^([%w_.+-]+)()", at)
    local mark = text:match("^[{}:<>%[%]]", at)
    local quoted, after = text:match('^"([^"\\\n]*)"()', at)
    if not quoted then quoted, after = text:match("^'([^'\\\n]*)'()", at) end
    if comment then
      at = comment
    elseif quoted then
      list[#list + 1], at = { "string", quoted }, after
    elseif mark then
      list[#list + 1], at = { mark }, at + 1
    elseif word then
      list[#list + 1], at = { "word", word }, past
    else
      return nil
    end
  end
end

local closing = { ["{"] = "}", ["<"] = ">" }

local function message(list, at, stop)
  local fields = {}
  while list[at] and list[at][1] ~= stop do
    if list[at][1] ~= "word" then return nil end
    local name = list[at][2]
    at = at + 1
    if list[at] and list[at][1] == ":" then at = at + 1 end
    local token = list[at]
    if not token then return nil end
    local value = token[2]
    if closing[token[1]] then
      value, at = message(list, at + 1, closing[token[1]])
      if not value then return nil end
    elseif token[1] ~= "word" and token[1] ~= "string" then
      return nil
    end
    fields[#fields + 1] = { name, value }
    at = at + 1
  end
  if stop and not list[at] then return nil end
  return fields, at
end

local function first(fields, name)
  for _, field in ipairs(fields or {}) do
    if field[1] == name then return field[2] end
  end
end

local function each(fields, name)
  local list = {}
  for _, field in ipairs(fields or {}) do
    if field[1] == name then list[#list + 1] = field[2] end
  end
  return list
end

local function policy_of(config)
  local policy = first(config, "model_version_policy")
  local specific, all = first(policy, "specific"), first(policy, "all")
  if specific then
    local versions = {}
    for i, text in ipairs(each(specific, "versions")) do versions[i] = math.tointeger(tonumber(text)) end
    return { kind = "specific", versions = versions }
  end
  if all then return { kind = "all" } end
  return { kind = "latest", count = math.tointeger(tonumber(first(first(policy, "latest"), "num_versions") or 1)) }
end

local function labels_of(config)
  local labels = {}
  for _, entry in ipairs(each(config, "version_labels")) do
    labels[first(entry, "key") or ""] = math.tointeger(tonumber(first(entry, "value")))
  end
  return labels
end

---@param text string a model config file
---@return table[]|nil models { name, base_path, policy, labels }; nil when it is not text format
function M.parse(text)
  local list = tokens(text)
  local root = list and message(list, 1, nil)
  if not root then return nil end
  local models = {}
  for i, config in ipairs(each(first(root, "model_config_list"), "config")) do
    models[i] = { name = first(config, "name"), base_path = first(config, "base_path"), policy = policy_of(config),
      labels = labels_of(config) }
  end
  return models
end

-- A shell's view of one command line: words, quotes, $NAME and ${NAME}.
local function expand(text, env)
  return (text:gsub("%$%{([%w_]+)%}", function(name) return env[name] or "" end)
    :gsub("%$([%a_][%w_]*)", function(name) return env[name] or "" end))
end

local function one_word(text, at, env)
  local parts = {}
  while at <= #text do
    local plain, past = text:match("^([^%s'\"\\;&|]+)()", at)
    local single, after = text:match("^'([^']*)'()", at)
    local double, beyond = text:match('^"([^"]*)"()', at)
    local escaped, next_at = text:match("^\\(.)()", at)
    if plain then
      parts[#parts + 1], at = expand(plain, env), past
    elseif single then
      parts[#parts + 1], at = single, after
    elseif double then
      parts[#parts + 1], at = expand(double, env), beyond
    elseif escaped then
      parts[#parts + 1], at = escaped, next_at
    else
      break
    end
  end
  return table.concat(parts), at
end

---The commands of a shell line as lists of words; `exec` in front is dropped.
function M.shell_commands(text, env)
  local commands, words, at = {}, {}, 1
  text = text:gsub("\\\n", " "):gsub("\n", ";")
  while at <= #text do
    local separator = text:match("^[;&|%s]*[;&|][;&|%s]*()", at)
    if separator then
      if #words > 0 then commands[#commands + 1] = words end
      words, at = {}, separator
    else
      at = text:match("^%s*()", at)
      local before = at
      if at <= #text then words[#words + 1], at = one_word(text, at, env) end
      if at == before then break end -- an open quote: the rest is not understood
    end
  end
  if #words > 0 then commands[#commands + 1] = words end
  for _, command in ipairs(commands) do
    if command[1] == "exec" then table.remove(command, 1) end
  end
  return commands
end

---The words of the last command of a shell line; what comes before it is preparation.
function M.shell_words(text, env)
  local commands = M.shell_commands(text, env)
  return commands[#commands] or {}
end

---Flags of tensorflow_model_server: `--name=value` or `--name value`.
function M.flags(words)
  local flags, at = {}, 2
  while words[at] do
    local name, value = words[at]:match "^%-%-?([%w_]+)=(.*)$"
    if not name then
      name = words[at]:match "^%-%-?([%w_]+)$"
      local following = words[at + 1]
      if name and following and following:sub(1, 1) ~= "-" then
        value, at = following, at + 1
      else
        value = "true"
      end
    end
    if name then flags[name] = value end
    at = at + 1
  end
  return flags
end

return M
