-- SPDX-License-Identifier: Apache-2.0
-- The one table of verbs and options: parser, help, man page and completion are all made from it.
-- An option: name, arg (its value's name; none: a flag), optional (the value may be left out), help, values, type, default, many.
local M = {}

M.summary = "automation engine for elastic GPU inference on Alibaba Cloud"

local output = { name = "output", arg = "FORMAT", values = { "text", "jsonl" }, help = "text for people, or one JSON object a line" }
local quiet = { name = "quiet", short = "q", help = "print only changes and failures" }

-- What every verb that reaches a cloud knows.
local target = {
  { name = "sandbox", arg = "DIR", optional = true,
    help = "work against the built-in sandbox cloud; its state lives in DIR or in $XDG_STATE_HOME/eirun/sandbox" },
  { name = "clock", arg = "KIND", help = "real, virtual, or a factor such as 10x; virtual is the default in the sandbox" },
  { name = "seed", arg = "N", type = "integer", help = "seed of the sandbox's random numbers (1)" },
  { name = "region", arg = "REGION", help = "region of the account (ALIBABA_CLOUD_REGION_ID)" },
  { name = "kubeconfig", arg = "FILE",
    help = "talk to this cluster instead of the one that Container Service names; in the sandbox only to a marked loopback server" },
  { name = "context", arg = "NAME", help = "context of the kubeconfig" },
  { name = "namespace", arg = "NAME", short = "n", help = "Kubernetes namespace (default)" },
}

local function with(...)
  local list = {}
  for _, group in ipairs { ... } do
    if group.name then
      list[#list + 1] = group
    else
      table.move(group, 1, #group, #list + 1, list)
    end
  end
  return list
end

local env = { name = "env", arg = "NAME", help = "values of env/NAME.lua beside the playbook (in the sandbox: sandbox)" }
local sets = "key=value sets an argument of the playbook and wins over --env and its default."

M.verbs = {
  {
    name = "run", args = "PLAYBOOK [key=value ...]", module = "eirun.cli.run", summary = "run a playbook; `eirun PLAYBOOK` is short for it",
    text = sets .. " `eirun run PLAYBOOK --help` shows the playbook's arguments.",
    options = with(target, env, output, quiet),
  },
  {
    name = "check", args = "PLAYBOOK [key=value ...]", module = "eirun.cli.check",
    summary = "find mistakes in a playbook without reaching anything",
    text = "Syntax, undefined globals, unknown fields and unused arguments, by running it against recorders that answer unknown values.",
    options = with(env, output),
  },
  {
    name = "vars", args = "PLAYBOOK [key=value ...]", module = "eirun.cli.vars",
    summary = "show a playbook's arguments and where each value came from",
    options = with(env, output, target[1]),
  },
  {
    name = "new", args = "NAME", module = "eirun.cli.new", summary = "write a playbook of your own that runs",
    options = { { name = "force", help = "overwrite what is there" } },
  },
  {
    name = "sandbox", args = "serve DIR | reset [DIR] | status [DIR] | fault DIR ...", module = "eirun.cli.sandbox",
    summary = "keep the sandbox cloud up for other programs, look at it, break it, or start it afresh",
    options = { target[2], target[3], output },
  },
  require("eirun.cli.load").verb,
  {
    name = "doctor", args = "[PLAYBOOK]", module = "eirun.cli.doctor", summary = "check what a run needs, and say how to mend it",
    options = with(target, env, output),
  },
  {
    name = "test", args = "DIR|FILE [FILTER]", module = "eirun.cli.test",
    summary = "run Lua tests: files test_*.lua of a folder, ours or your own",
    options = { { name = "clock", arg = "KIND", values = { "real", "virtual" }, help = "the clock that the tests see: real, or virtual" } },
  },
  { name = "version", args = "", module = "eirun.cli.version",
    summary = "print the version and what the program is built with", options = { output } },
  { name = "completion", args = "bash|zsh", module = "eirun.cli.completion",
    summary = "print the shell's completion script", options = {} },
  { name = "reference", args = "", module = "eirun.cli.reference",
    summary = "print the reference of the Lua library (Markdown)", options = {} },
  { name = "man", args = "", module = "eirun.cli.man", summary = "print the manual page (roff)", options = {} },
}

M.global = {
  { name = "help", short = "h", help = "show help" },
  { name = "version", help = "print the version" },
  { name = "lua-dir", arg = "DIR", help = "library files that win over the embedded ones; must come first (EIRUN_LUA_DIR)" },
}

M.exit_codes = {
  { 0, "done" },
  { 1, "a step failed" },
  { 2, "with --detailed-exitcode: there are changes" },
  { 3, "refused by a guard" },
  { 4, "a threshold was missed" },
  { 64, "wrong usage" },
  { 75, "another run holds the lock" },
  { 130, "interrupted" },
}

---@return table|nil verb
function M.find(name)
  for _, verb in ipairs(M.verbs) do
    if verb.name == name then
      return verb
    end
  end
end

return M
