-- SPDX-License-Identifier: Apache-2.0
-- Help, manual page and completion scripts, all from the table of verbs.
local verbs = require "eirun.cli.verbs"
local version = require "eirun.cli.version"

local M = {}

local WIDTH = 90

local function wrap(text, indent, width)
  local lines, line = {}, ""
  for word in text:gmatch("%S+") do
    if #line + #word + 1 > width - indent and line ~= "" then
      lines[#lines + 1] = line
      line = word
    else
      line = line == "" and word or line .. " " .. word
    end
  end
  lines[#lines + 1] = line
  return table.concat(lines, "\n" .. (" "):rep(indent))
end

-- "-n, --namespace NAME", "--sandbox[=DIR]"
local function option_words(option)
  local text = "--" .. option.name
  if option.arg then
    text = text .. (option.optional and "[=" .. option.arg .. "]" or " " .. option.arg)
  end
  return (option.short and "-" .. option.short .. ", " or "    ") .. text
end

local function table_of(rows, left)
  local lines = {}
  for _, row in ipairs(rows) do
    local name = "  " .. row[1]
    local gap = #name < left and (" "):rep(left - #name) or "\n" .. (" "):rep(left)
    lines[#lines + 1] = name .. gap .. wrap(row[2], left, WIDTH)
  end
  return table.concat(lines, "\n")
end

local function option_rows(options)
  local rows = {}
  for _, option in ipairs(options) do
    local values = option.values and " (" .. table.concat(option.values, ", ") .. ")" or ""
    rows[#rows + 1] = { option_words(option), option.help .. values }
  end
  return rows
end

---@return string help of the whole program
function M.overview()
  local rows, codes = {}, {}
  for _, verb in ipairs(verbs.all()) do
    rows[#rows + 1] = { verb.name, verb.summary }
  end
  for _, code in ipairs(verbs.exit_codes) do
    codes[#codes + 1] = { ("%d"):format(code[1]), code[2] }
  end
  return table.concat({
    "eirun: " .. verbs.summary,
    "",
    "usage: eirun [options] PLAYBOOK [key=value ...]    run a playbook (a word with / or .lua in it)",
    "       eirun VERB [...]                            `eirun VERB --help` tells more",
    "",
    "examples:",
    table_of(verbs.examples, 50),
    "",
    "verbs:",
    table_of(rows, 16),
    "",
    "options:",
    table_of(option_rows(verbs.global), 24),
    "  `eirun run --help` shows those of a run.",
    "",
    "exit codes:",
    table_of(codes, 8),
  }, "\n") .. "\n"
end

---@return string help of one verb
function M.verb(verb)
  local parts = { "usage: eirun " .. verb.name .. (verb.args ~= "" and " " .. verb.args or ""), "", verb.summary }
  for _, paragraph in ipairs(verb.text or {}) do
    parts[#parts + 1] = ""
    parts[#parts + 1] = wrap(paragraph, 0, WIDTH)
  end
  if verb.words then
    parts[#parts + 1] = "\n" .. table_of(verb.words, 34)
  end
  if #verb.options > 0 then
    parts[#parts + 1] = "\noptions:\n" .. table_of(option_rows(verb.options), 30)
  end
  return table.concat(parts, "\n") .. "\n"
end

-- How a value of an argument is written.
local value_words = { string = "TEXT", path = "PATH", integer = "N", number = "NUMBER", boolean = "yes|no", duration = "TIME",
  list = "A,B,..." }

local function value_word(arg)
  return arg.says or arg.values and table.concat(arg.values, "|") or value_words[arg.type]
end

local function limits(arg)
  if arg.min and arg.max then
    return ("%s to %s"):format(arg.min, arg.max)
  end
  return arg.min and ("at least %s"):format(arg.min) or arg.max and ("at most %s"):format(arg.max) or nil
end

local function default_of(arg)
  if arg.required then
    return "required"
  elseif arg.default == nil then
    return nil
  end
  local words = { [true] = "yes", [false] = "no" }
  local value = type(arg.default) == "table" and table.concat(arg.default, ",") or words[arg.default] or tostring(arg.default)
  return "default: " .. value
end

-- " (at least 0, default: 1)"; nothing where there is nothing to tell.
local function facts(arg)
  local list = { limits(arg) }
  list[#list + 1] = default_of(arg)
  return #list > 0 and " (" .. table.concat(list, ", ") .. ")" or ""
end

---@return string help of a playbook: its summary and arguments
function M.playbook(path, book)
  local rows = {}
  for _, name in ipairs(book.arg_names) do
    local arg = book.args[name]
    rows[#rows + 1] = { name .. "=" .. value_word(arg), (arg.help or "") .. facts(arg) }
  end
  local head = "usage: eirun [options] " .. path .. " [key=value ...]\n\n" .. (book.about or book.name) .. "\n"
  local body = #rows > 0 and "\narguments:\n" .. table_of(rows, 24) .. "\n" or "\nIt takes no arguments.\n"
  return head .. body .. "\noptions: see `eirun run --help`; --sandbox tries it here, --env NAME takes arguments from env/NAME.lua.\n"
end

-- Manual page ---------------------------------------------------------------------------------------------------------

local function roff(text)
  return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("\n([.'])", "\n\\&%1"):gsub("^[.']", "\\&%0"))
end

local function roff_options(options)
  local lines = {}
  for _, option in ipairs(options) do
    lines[#lines + 1] = ".TP\n.B " .. roff((option_words(option):gsub("^%s+", ""))) .. "\n" .. roff(option.help)
  end
  return table.concat(lines, "\n")
end

local function roff_rows(rows)
  local lines = {}
  for _, row in ipairs(rows) do
    lines[#lines + 1] = ".TP\n.B " .. roff(row[1]) .. "\n" .. roff(row[2])
  end
  return table.concat(lines, "\n")
end

---@return string the manual page
function M.man()
  local parts = {
    '.TH EIRUN 1 "" "eirun ' .. version.number .. '" "User Commands"',
    ".SH NAME\neirun \\- " .. roff(verbs.summary),
    ".SH SYNOPSIS\n.B eirun\n.I PLAYBOOK\n[\\fIkey\\fR=\\fIvalue\\fR ...]\n.br\n.B eirun\n.I VERB\n[...]",
    ".SH VERBS",
  }
  for _, verb in ipairs(verbs.all()) do
    parts[#parts + 1] = ".SS " .. roff(verb.name .. " " .. verb.args) .. "\n" .. roff(verb.summary) .. "."
    for _, paragraph in ipairs(verb.text or {}) do
      parts[#parts + 1] = ".PP\n" .. roff(paragraph)
    end
    parts[#parts + 1] = roff_rows(verb.words or {})
    parts[#parts + 1] = roff_options(verb.options)
  end
  parts[#parts + 1] = ".SH OPTIONS\n" .. roff_options(verbs.global)
  parts[#parts + 1] = ".SH EXIT STATUS"
  for _, code in ipairs(verbs.exit_codes) do
    parts[#parts + 1] = (".TP\n.B %d\n%s"):format(code[1], roff(code[2]))
  end
  parts[#parts + 1] = ".SH ENVIRONMENT\n" .. roff_rows(verbs.environment)
  parts[#parts + 1] = ".SH EXAMPLES\n" .. roff_rows(verbs.examples)
  return (table.concat(parts, "\n"):gsub("\n\n+", "\n")) .. "\n"
end

-- Completion ----------------------------------------------------------------------------------------------------------

local function names(list, form)
  local words = {}
  for _, item in ipairs(list) do
    words[#words + 1] = form:format(item.name)
  end
  return table.concat(words, " ")
end

-- The words that may follow a verb, where they are known: `serve status reset fault`.
local function next_words(verb)
  local words, seen = {}, {}
  for _, row in ipairs(verb.words or {}) do
    local word = row[1]:match("^%S+")
    if not seen[word] then
      words[#words + 1], seen[word] = word, true
    end
  end
  return table.concat(words, " ")
end

---@return string bash completion script
function M.bash()
  local cases = {}
  for _, verb in ipairs(verbs.all()) do
    local words = next_words(verb)
    cases[#cases + 1] = ("    %s) options='%s --help'%s ;;"):format(verb.name, names(verb.options, "--%s"),
      words ~= "" and " words='" .. words .. "'" or "")
  end
  return ([=[
# bash completion for eirun
_eirun() {
  local word=${COMP_WORDS[COMP_CWORD]} verb=run options words= i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
    -*) ;;
    *) verb=${COMP_WORDS[i]}; break ;;
    esac
  done
  case $verb in
%s
  *) options='%s --help' ;;
  esac
  if [[ $word == -* ]]; then
    COMPREPLY=($(compgen -W "$options" -- "$word"))
  elif ((i >= COMP_CWORD)); then
    COMPREPLY=($(compgen -W '%s' -- "$word") $(compgen -f -X '!*.lua' -- "$word") $(compgen -d -- "$word"))
  elif [[ $words ]] && ((i + 1 == COMP_CWORD)); then
    COMPREPLY=($(compgen -W "$words" -- "$word"))
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _eirun eirun
]=]):format(table.concat(cases, "\n"), names(verbs.find("run").options, "--%s"), names(verbs.all(), "%s"))
end

local function zsh_options(options)
  local lines = {}
  for _, option in ipairs(options) do
    local help = option.help:gsub("[%[%]:']", "")
    local values = option.values and "(" .. table.concat(option.values, " ") .. ")" or "_files"
    local value = option.arg and (option.optional and "::" or ":") .. option.arg:lower() .. ":" .. values or ""
    local mark = option.arg and (option.optional and "=-" or "=") or ""
    lines[#lines + 1] = ("        '--%s%s[%s]%s' \\"):format(option.name, mark, help, value)
  end
  return table.concat(lines, "\n")
end

---@return string zsh completion script
function M.zsh()
  local described, cases = {}, {}
  for _, verb in ipairs(verbs.all()) do
    described[#described + 1] = ("    '%s:%s'"):format(verb.name, (verb.summary:gsub("[':]", "")))
    local words = next_words(verb)
    local first = words ~= "" and ("        '2:what:(%s)' \\\n"):format(words) or ""
    cases[#cases + 1] = ("    %s)\n      _arguments \\\n%s\n%s        '*:file:_files' ;;"):format(
      verb.name, zsh_options(verb.options), first)
  end
  return ([[
#compdef eirun
_eirun() {
  local -a verbs
  verbs=(
%s
  )
  if ((CURRENT == 2)); then
    _describe verb verbs
    _files -g '*.lua'
    return
  fi
  case ${words[2]} in
%s
    *) _arguments '*:file:_files' ;;
  esac
}
_eirun "$@"
]]):format(table.concat(described, "\n"), table.concat(cases, "\n"))
end

return M
