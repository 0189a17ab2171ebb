-- SPDX-License-Identifier: Apache-2.0
-- Help, manual page and completion scripts, all from the table of verbs.
local verbs = require "eirun.cli.verbs"
local version = require "eirun.cli.version"

local M = {}

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
    lines[#lines + 1] = name .. gap .. wrap(row[2], left, 100)
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
  for _, verb in ipairs(verbs.verbs) do
    rows[#rows + 1] = { verb.name, verb.summary }
  end
  for _, code in ipairs(verbs.exit_codes) do
    codes[#codes + 1] = { ("%d"):format(code[1]), code[2] }
  end
  return table.concat({
    "eirun: " .. verbs.summary,
    "",
    "usage: eirun PLAYBOOK [key=value ...]        run a playbook",
    "       eirun --sandbox PLAYBOOK [...]        run it against the built-in sandbox cloud",
    "       eirun VERB [...]                      `eirun VERB --help` tells more",
    "",
    "verbs:",
    table_of(rows, 16),
    "",
    "options:",
    table_of(option_rows(verbs.global), 24),
    "",
    "exit codes:",
    table_of(codes, 8),
  }, "\n") .. "\n"
end

---@return string help of one verb
function M.verb(verb)
  local parts = { "usage: eirun " .. verb.name .. (verb.args ~= "" and " " .. verb.args or ""), "", verb.summary }
  if verb.text then
    parts[#parts + 1] = ""
    parts[#parts + 1] = wrap(verb.text, 0, 100)
  end
  if #verb.options > 0 then
    parts[#parts + 1] = "\noptions:\n" .. table_of(option_rows(verb.options), 30)
  end
  return table.concat(parts, "\n") .. "\n"
end

---@return string help of a playbook: its summary and arguments
function M.playbook(path, book)
  local rows = {}
  for _, name in ipairs(book.arg_names) do
    local arg = book.args[name]
    local default = arg.required and "required" or arg.default == nil and "" or "default " .. tostring(arg.default)
    local facts = table.concat({ arg.type, default ~= "" and default or nil }, ", ")
    rows[#rows + 1] = { name .. "=" .. (arg.says or arg.type:upper()), (arg.help or "") .. " (" .. facts .. ")" }
  end
  local head = "usage: eirun " .. path .. " [key=value ...]\n\n" .. (book.about or book.name) .. "\n"
  return head .. (#rows > 0 and "\narguments:\n" .. table_of(rows, 30) .. "\n" or "\nIt takes no arguments.\n")
end

-- Manual page ---------------------------------------------------------------------------------------------------------

local function roff(text)
  return (text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("\n%.", "\n\\&."))
end

local function roff_options(options)
  local lines = {}
  for _, option in ipairs(options) do
    lines[#lines + 1] = ".TP\n.B " .. roff((option_words(option):gsub("^%s+", ""))) .. "\n" .. roff(option.help)
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
  for _, verb in ipairs(verbs.verbs) do
    parts[#parts + 1] = ".SS " .. roff(verb.name .. " " .. verb.args) .. "\n" .. roff(verb.summary) .. "."
    parts[#parts + 1] = roff_options(verb.options)
  end
  parts[#parts + 1] = ".SH OPTIONS\n" .. roff_options(verbs.global)
  parts[#parts + 1] = ".SH EXIT STATUS"
  for _, code in ipairs(verbs.exit_codes) do
    parts[#parts + 1] = (".TP\n.B %d\n%s"):format(code[1], roff(code[2]))
  end
  return table.concat(parts, "\n") .. "\n"
end

-- Completion ----------------------------------------------------------------------------------------------------------

local function names(list, form)
  local words = {}
  for _, item in ipairs(list) do
    words[#words + 1] = form:format(item.name)
  end
  return table.concat(words, " ")
end

---@return string bash completion script
function M.bash()
  local cases = {}
  for _, verb in ipairs(verbs.verbs) do
    cases[#cases + 1] = ("    %s) options='%s --help' ;;"):format(verb.name, names(verb.options, "--%s"))
  end
  return ([=[
# bash completion for eirun
_eirun() {
  local word=${COMP_WORDS[COMP_CWORD]} verb=run options i
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
  else
    COMPREPLY=($(compgen -f -- "$word"))
  fi
}
complete -o filenames -F _eirun eirun
]=]):format(table.concat(cases, "\n"), names(verbs.find("run").options, "--%s"), names(verbs.verbs, "%s"))
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
  for _, verb in ipairs(verbs.verbs) do
    described[#described + 1] = ("    '%s:%s'"):format(verb.name, (verb.summary:gsub("[':]", "")))
    cases[#cases + 1] = ("    %s)\n      _arguments \\\n%s\n        '*:file:_files' ;;"):format(verb.name, zsh_options(verb.options))
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
