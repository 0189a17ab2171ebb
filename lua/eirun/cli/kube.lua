-- SPDX-License-Identifier: Apache-2.0
-- eirun kube: what kubectl is most used for, for a machine that has none. Each verb is a file of eirun/cli/kube.
local M = {}

local output = { name = "output", short = "o", arg = "FORMAT",
  help = "name, wide, json, yaml, jsonpath=TEMPLATE, custom-columns=NAME:PATH,..." }
local selector = { name = "selector", short = "l", arg = "LABELS", help = "only objects with these labels, as a=b,c!=d" }
local fields = { name = "field-selector", arg = "FIELDS", help = "only objects with these fields, as spec.nodeName=n1" }
local everywhere = { name = "all-namespaces", short = "A", help = "in all namespaces" }
local filename = { name = "filename", short = "f", arg = "FILE", many = true, help = "a manifest, a folder of them, or - for stdin" }
local recursive = { name = "recursive", short = "R", help = "look into folders below, too" }
local ignore = { name = "ignore-not-found", help = "what is not there is no failure" }
local dry_run = { name = "dry-run", arg = "server", help = "the server checks and stores nothing", values = { "server", "none", "client" } }
local manager = { name = "field-manager", arg = "NAME", help = "who owns the fields afterwards (default eirun)" }
local force_conflicts = { name = "force-conflicts", help = "take fields that others own" }
local all = { name = "all", help = "all objects of the type" }
local grace = { name = "grace-period", arg = "SECONDS", type = "integer", help = "that a pod has to end (default: its own)" }
local no_headers = { name = "no-headers", help = "no heading" }
local managed = { name = "show-managed-fields", help = "keep metadata.managedFields in documents" }

local function timeout(text) return { name = "timeout", arg = "TIME", help = text } end

-- What every verb of eirun kube knows.
local common = {
  { name = "kubeconfig", arg = "FILE", help = "this kubeconfig alone (default: KUBECONFIG's, ~/.kube/config, or a pod's own account)" },
  { name = "context", arg = "NAME", help = "context of the kubeconfig" },
  { name = "namespace", short = "n", arg = "NAME", help = "namespace (default: the context's)" },
  { name = "cluster", arg = "NAME", help = "cluster of the kubeconfig" },
  { name = "user", arg = "NAME", help = "user of the kubeconfig" },
  { name = "server", short = "s", arg = "URL", help = "API server instead of the kubeconfig's" },
  { name = "token", arg = "TOKEN", help = "bearer token instead of the kubeconfig's identity" },
  { name = "insecure-skip-tls-verify", help = "take any certificate" },
  { name = "sandbox", arg = "DIR", optional = true, help = "the sandbox cloud's cluster, whose state lives in DIR" },
  { name = "clock", arg = "KIND", help = "of the sandbox: virtual (the default), real, or a factor such as 10x" },
}

local function part(name, args, summary, options, text)
  return { name = name, args = args, summary = summary, options = options, text = text,
    module = "eirun.cli.kube." .. name:gsub("-", "_") }
end

M.parts = {
  part("get", "TYPE[/NAME] [NAME ...] | -f FILE", "show objects", { output, selector, fields, everywhere, filename, recursive, ignore,
    { name = "watch", short = "w", help = "then show each change" },
    { name = "show-labels", help = "a column of all labels" },
    { name = "label-columns", short = "L", arg = "KEYS", many = true, help = "a column for each of these labels" },
    no_headers,
    { name = "show-kind", help = "names with their kind" },
    managed,
    { name = "sort-by", arg = "PATH", help = "sort by this JSONPath" },
    { name = "chunk-size", arg = "N", help = "objects a page (default 500)" },
    { name = "raw", arg = "PATH", help = "print what the server answers for this path" },
  }),
  part("watch", "TYPE[/NAME] [NAME]", "show objects and then each change; get --watch", { output, selector, fields, everywhere, no_headers,
    managed, { name = "count", arg = "N", type = "integer", help = "end after N changes" } }),
  part("apply", "-f FILE", "make objects as manifests say, by server-side apply, many at a time", { filename, recursive, output, dry_run,
    manager, force_conflicts, managed,
    { name = "validate", arg = "HOW", values = { "Strict", "Warn", "Ignore" }, help = "what unknown fields are (default Strict)" },
    { name = "server-side", help = "is always so; taken for kubectl's sake" },
    { name = "resend", help = "send also what is there just as it was applied before" },
    { name = "set", arg = "NAME", help = "mark the objects as a set of this name" },
    { name = "prune", help = "with --set: show what carries the mark and is in no manifest any more" },
    { name = "yes", help = "with --prune: delete it" },
  }),
  part("create", "-f FILE | token ACCOUNT", "make objects that are not there yet, or a token of a service account", { filename, recursive,
    { name = "duration", arg = "TIME", help = "of a token" }, { name = "audience", arg = "NAME", many = true, help = "of a token" } }),
  part("diff", "-f FILE", "show what apply would change, by the server's own dry run; exit code 1 when there is something", { filename,
    recursive, manager, force_conflicts, { name = "server-side", help = "is always so; taken for kubectl's sake" } },
    { "Values of Secrets are masked. KUBECTL_EXTERNAL_DIFF names another program than `diff -u -N`." }),
  part("delete", "TYPE NAME ... | TYPE -l LABELS | -f FILE", "delete objects and wait until they are gone", { filename, recursive, selector,
    fields, everywhere, all, ignore, dry_run, grace, { name = "output", short = "o", arg = "name", help = "only names" },
    { name = "cascade", arg = "HOW", help = "background (the default), foreground, orphan" },
    { name = "force", help = "do not wait for a pod's end" }, { name = "now", help = "as --grace-period=1" },
    { name = "wait", arg = "BOOL", values = { "true", "false" }, help = "wait until they are gone (default true)" },
    timeout "how long to wait (default: for ever)",
  }),
  part("wait", "TYPE/NAME ... --for=WHAT", "wait for condition=NAME[=VALUE], jsonpath={PATH}[=VALUE], delete or create", { filename,
    recursive, selector, fields, everywhere, all,
    { name = "for", arg = "WHAT", help = "condition=Ready, jsonpath={.status.phase}=Bound, delete, create" },
    timeout "how long (default 30s); negative: a week",
    { name = "patient", help = "wait even for what cannot become well" },
  }, { "It ends early, quoting the event, on what cannot become well: an image that cannot be pulled, a crash loop, a pod that no node can "
    .. "take, a used-up quota, a mount that fails." }),
  part("logs", "POD | TYPE/NAME", "print a container's log", { selector,
    { name = "follow", short = "f", help = "go on as it is written" }, { name = "previous", short = "p", help = "of the container before" },
    { name = "container", short = "c", arg = "NAME", help = "which container" },
    { name = "all-containers", help = "all of them" }, { name = "prefix", help = "say pod and container before each line" },
    { name = "tail", arg = "N", type = "integer", help = "only the last N lines" },
    { name = "since", arg = "TIME", help = "only what is younger, as 5m" },
    { name = "since-time", arg = "DATE", help = "only what is younger" },
    { name = "timestamps", help = "say when before each line" },
    { name = "limit-bytes", arg = "N", type = "integer", help = "at most so much" },
  }),
  part("events", "", "show what was said about objects, oldest first", { everywhere, no_headers,
    { name = "for", arg = "TYPE/NAME", help = "about this object" }, { name = "types", arg = "LIST", help = "Normal, Warning" } }),
  part("top", "pods|nodes [NAME]", "show CPU and memory in use", { selector, fields, everywhere, no_headers,
    { name = "sort-by", arg = "WHAT", help = "cpu or memory" }, { name = "containers", help = "each container" },
    { name = "sum", help = "of pods: the sum below" },
    { name = "show-capacity", help = "of nodes: shares of all, not of what pods can have" } }),
  part("scale", "TYPE/NAME ... --replicas=N", "change the number of replicas", { filename, recursive, selector, all,
    { name = "replicas", arg = "N", type = "integer", help = "how many" },
    { name = "current-replicas", arg = "N", type = "integer", help = "only when there are so many now" } }),
  part("cordon", "NODE ...", "let no new pods onto nodes", { selector }),
  part("uncordon", "NODE ...", "let pods onto nodes again", { selector }),
  part("drain", "NODE ...", "empty nodes, as disruption budgets allow", { selector, grace,
    { name = "ignore-daemonsets", help = "leave pods of DaemonSets where they are" },
    { name = "delete-emptydir-data", help = "also pods whose local data is lost" },
    { name = "force", help = "also pods that nobody makes anew" }, timeout "how long (default: for ever)" }),
  part("auth", "can-i VERB RESOURCE [NAME] | whoami", "ask what you may do, and who you are", { everywhere,
    { name = "subresource", arg = "NAME", help = "as log" }, { name = "quiet", short = "q", help = "only the exit code" } }),
}

table.insert(M.parts, part("rbac", "PLAYBOOK [key=value ...]", "print the ServiceAccount and the smallest roles that a playbook needs", {
  { name = "account", arg = "NAME", help = "name of the account and its roles (default: eirun- and the playbook's name)" },
}, { "Runs the playbook twice in a sandbox of its own and prints what it asked the API server for. --namespace is the account's." }))

local function words()
  local rows = {}
  for i, entry in ipairs(M.parts) do rows[i] = { entry.name .. " " .. entry.args, entry.summary } end
  return rows
end

M.verb = {
  name = "kube", args = "VERB ...", module = "eirun.cli.kube", summary = "show and change objects of a cluster, as kubectl does",
  text = { "Words, options, output and exit codes are kubectl's; `eirun kube VERB --help` shows the options of one. Changes are "
    .. "server-side apply by field manager `eirun`." },
  parts = M.parts, words = words(), options = common, wrong_words = 1,
}

-- What kubectl has and this has not.
local kept = { exec = true, ["port-forward"] = true, attach = true, cp = true, edit = true, explain = true, describe = true, rollout = true,
  patch = true, label = true, annotate = true, replace = true, run = true, expose = true, proxy = true, debug = true, set = true,
  taint = true, autoscale = true, certificate = true, kustomize = true }

---@param _ table
---@param given string[]
function M.run(_, given)
  local errors, names = require "eirun.errors", {}
  if kept[given[1]] then
    errors.raise("invalid", ("%s is not supported: use kubectl %s"):format(given[1], given[1]), { code = "usage", exit = 1 })
  end
  for _, entry in ipairs(M.parts) do names[entry.name] = true end
  local near = given[1] and require("eirun.spec").nearest(given[1], names)
  local text = given[1] and ("kube has no verb '%s'%s"):format(given[1], near and (", did you mean '%s'?"):format(near) or "")
    or "which verb? `eirun kube --help` lists them"
  errors.raise("invalid", text, { code = "usage", exit = 1 })
end

return M
