-- SPDX-License-Identifier: Apache-2.0
-- The one table of verbs and options: parser, help, man page and completion are all made from it.
-- An option: name, arg (its value's name; none: a flag), optional (the value may be left out), help, values, type, default, many,
-- into (a list of { name, value } that it shares with others, in the order of the command line).
-- A verb: name, args (what follows it), summary, text (more for its help), words (a table of what `args` may be), options.
local M = {}

M.summary = "automation engine for elastic GPU inference on Alibaba Cloud"

local output = { name = "output", arg = "FORMAT", values = { "text", "jsonl" }, help = "text for people, or one JSON object a line" }
local quiet = { name = "quiet", short = "q", help = "print only changes and failures" }

-- What every verb that reaches a cloud knows.
local target = {
  { name = "sandbox", arg = "DIR", optional = true,
    help = "work against the built-in sandbox cloud and nothing else; its state lives in DIR (default: $XDG_STATE_HOME/eirun/sandbox)" },
  { name = "clock", arg = "KIND", help = "of the sandbox: virtual (the default), real, or a factor such as 10x" },
  { name = "seed", arg = "N", type = "integer", help = "seed of the sandbox's random numbers (default 1)" },
  { name = "lag", arg = "LIST", help = "delays of the sandbox: a factor, and single ones in seconds, as in 0.1,hpa_sync=2 (default 1)" },
  { name = "region", arg = "REGION", help = "region of the account (default: ALIBABA_CLOUD_REGION_ID)" },
  { name = "kubeconfig", arg = "FILE",
    help = "talk to this cluster instead of the one that Container Service names; with --sandbox only to a marked server on loopback" },
  { name = "context", arg = "NAME", help = "context of the kubeconfig (default: its current one)" },
  { name = "namespace", arg = "NAME", short = "n", help = "Kubernetes namespace where a playbook names none (default: default)" },
}

local serve_clock = { name = "clock", arg = "KIND", help = "of a serving sandbox: real (the default) or a factor such as 10x" }

local serve_kubeconfig = { name = "kubeconfig", arg = "FILE", help = "serve the rest of the cloud around this control plane on loopback" }

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

local env = { name = "env", arg = "NAME",
  help = "take arguments from env/NAME.lua beside the playbook; with --sandbox env/sandbox.lua is taken by itself" }
local sets = "key=value sets an argument of the playbook; it wins over --env, which wins over the argument's default."

-- A verb that stands in a file of its own, which is read when the verb is asked for: a run needs one of them.
local function in_file(name, make)
  return { name = name, load = function()
    local file = require("eirun.cli." .. name)
    return make and make(file) or file.verb
  end }
end

local rows = {
  {
    name = "run", args = "PLAYBOOK [key=value ...]", module = "eirun.cli.run", summary = "run a playbook; `eirun PLAYBOOK` is short for it",
    text = { sets .. " `eirun run PLAYBOOK --help` shows the playbook's own arguments.",
      "Without --sandbox it works on the real account whose keys are in the environment. The first line names the target." },
    options = with(target, env, output, quiet),
  },
  {
    name = "check", args = "PLAYBOOK [key=value ...]", module = "eirun.cli.check",
    summary = "find mistakes in a playbook without reaching anything",
    text = { "Finds syntax errors, undefined names, unknown fields and unused arguments by running the playbook with a library that only "
      .. "looks at what it is given and answers values that nobody knows. It cannot find what only the cloud knows.",
      "Exit code 1 when something was found." },
    options = with(env, output),
  },
  {
    name = "vars", args = "PLAYBOOK [key=value ...]", module = "eirun.cli.vars",
    summary = "show a playbook's arguments, their values and where each came from",
    text = { sets }, options = with(env, output, target[1]),
  },
  {
    name = "new", args = "NAME", module = "eirun.cli.new", summary = "write a playbook of your own that runs",
    text = { "Writes NAME.lua: a config map, an argument, a result. It runs in the sandbox as it is." },
    options = { { name = "force", help = "overwrite what is there" } },
  },
  {
    name = "sandbox", args = "serve DIR | reset [DIR] | status [DIR] | fault DIR ...", module = "eirun.cli.sandbox",
    summary = "serve the sandbox cloud to other programs, look at it, break it, reset it",
    words = {
      { "serve DIR", "keep it up on loopback until stopped; writes DIR/env.sh (keys and endpoints), DIR/kubeconfig and DIR/ca.pem, "
        .. "then prints `ready`" },
      { "status [DIR]", "what is in it, and whether it is served" },
      { "reset [DIR]", "throw its state away; the next run starts a fresh one" },
      { "fault DIR KIND [key=value ...]", "let a call of a serving sandbox fail, as in `fault DIR throttle service=CS times=2`" },
      { "fault DIR clear", "forget the faults that wait" },
    },
    options = { serve_clock, target[3], target[4], serve_kubeconfig, { name = "addons", arg = "NAMES",
      help = "serve: the add-ons of a fresh cluster, with commas between them (default: those of a usual one)" }, output },
  },
  in_file("cloud", function(cloud) return cloud.verb(with, target) end),
  in_file("sls", function(sls) return sls.verb(with, target) end),
  in_file "gpu",
  in_file "load",
  in_file "kube",
  in_file("oss", function(oss) return oss.verb(target) end),
  in_file "serve",
  {
    name = "doctor", args = "[PLAYBOOK [key=value ...] | cluster=ID]", module = "eirun.cli.doctor",
    summary = "try what a run needs and say how to mend it",
    text = { "Tries the keys, the clock, endpoints and TLS, the cluster, permissions (reads are tried, writes judged by the attached "
      .. "policies), roles, free addresses, quota, stock, add-ons, logs, buckets and the API server, as far as the playbook "
      .. "needs them, and changes nothing. ? is what cannot be known. Exit code 1 when one fails." },
    options = with(target, env, { name = "output", arg = "FORMAT", values = { "text", "json", "jsonl" },
      help = "text for people, one JSON object, or one a line" }),
  },
  {
    name = "test", args = "DIR|FILE [FILTER]", module = "eirun.cli.test", summary = "run Lua tests: files test_*.lua, ours or your own",
    text = { "FILTER is plain text that a test's name must hold. The last line counts; exit code 1 when one failed or none ran." },
    options = { { name = "clock", arg = "KIND", values = { "real", "virtual" }, help = "the clock that the tests see" } },
  },
  { name = "reference", args = "", module = "eirun.cli.reference",
    summary = "print the reference of the Lua library (Markdown)", options = {} },
  {
    name = "completion", args = "bash|zsh", module = "eirun.cli.completion", summary = "print a completion script for the shell",
    words = { { "bash", "write it to ~/.local/share/bash-completion/completions/eirun" },
      { "zsh", "write it as _eirun into a folder of $fpath" } },
    options = {},
  },
  { name = "man", args = "", module = "eirun.cli.man", summary = "print the manual page (roff)",
    text = { "`eirun man | man -l -` shows it." }, options = {} },
  { name = "version", args = "", module = "eirun.cli.version",
    summary = "print the version and what the program is built with", options = { output } },
}

M.global = {
  { name = "help", short = "h", help = "show help" },
  { name = "version", help = "print the version" },
  { name = "lua-dir", arg = "DIR", help = "library files that win over the embedded ones; comes first" },
}

M.exit_codes = {
  { 0, "done" },
  { 1, "a step failed, or a check found something" },
  { 3, "refused by a guard" },
  { 4, "a threshold was missed" },
  { 64, "wrong usage" },
  { 75, "another run holds the lock" },
  { 130, "interrupted" },
}

M.examples = {
  { "eirun --sandbox playbooks/bert.lua", "the whole procedure on this machine" },
  { "eirun --sandbox playbooks/bert.lua load=no", "the same with an argument set" },
  { "eirun playbooks/bert.lua --help", "the arguments of a playbook" },
  { "eirun new my-service", "a playbook of your own" },
}

M.environment = {
  { "ALIBABA_CLOUD_ACCESS_KEY_ID, ALIBABA_CLOUD_ACCESS_KEY_SECRET, ALIBABA_CLOUD_SECURITY_TOKEN", "the key of the account; without "
    .. "them a pod's OIDC token, ~/.aliyun/config.json, ~/.alibabacloud/credentials, the instance's role; see `eirun cloud whoami`" },
  { "ALIBABA_CLOUD_REGION_ID", "the region; without it that of the profile" },
  { "EIRUN_ENDPOINT_CS, _ECS, _ESS, _STS, _VPC, _OSS, _SLS, _RAM", "hosts or URLs to use instead of the public endpoints; any other "
    .. "product likewise" },
  { "ALIBABA_CLOUD_ENDPOINT_TYPE", "vpc: endpoints inside a VPC" },
  { "EIRUN_CA_FILE", "certificates to trust instead of the system's" },
  { "EIRUN_TLS_SESSIONS", "off: no TLS session with an API server is kept for the next run" },
  { "EIRUN_LUA_DIR", "as --lua-dir" },
  { "NO_COLOR", "no colours" },
  { "XDG_CACHE_HOME", "where what is known of API servers is kept; default ~/.cache" },
  { "XDG_STATE_HOME", "where the sandbox keeps its state; default ~/.local/state" },
}

local function verb_at(i)
  if rows[i].load then
    rows[i] = rows[i].load()
  end
  return rows[i]
end

---@return table[] verbs all, in the order of the help
function M.all()
  for i in ipairs(rows) do
    verb_at(i)
  end
  return rows
end

---@return table|nil verb
function M.find(name)
  for i, row in ipairs(rows) do
    if row.name == name then
      return verb_at(i)
    end
  end
end

return M
