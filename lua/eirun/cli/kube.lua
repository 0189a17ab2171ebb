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
    { name = "watch-only", help = "show each change, not what is there" },
    { name = "show-labels", help = "a column of all labels" },
    { name = "label-columns", short = "L", arg = "KEYS", many = true, help = "a column for each of these labels" },
    { name = "no-headers", help = "no heading" },
    { name = "show-kind", help = "names with their kind" },
    { name = "show-managed-fields", help = "keep metadata.managedFields in documents" },
    { name = "sort-by", arg = "PATH", help = "sort by this JSONPath" },
    { name = "chunk-size", arg = "N", help = "objects a page (default 500)" },
    { name = "raw", arg = "PATH", help = "print what the server answers for this path" },
  }),
}

local function words()
  local rows = {}
  for i, entry in ipairs(M.parts) do rows[i] = { entry.name .. " " .. entry.args, entry.summary } end
  return rows
end

M.verb = {
  name = "kube", args = "VERB ...", module = "eirun.cli.kube", summary = "show and change objects of a cluster, as kubectl does",
  text = { "Words, options, output and exit codes are kubectl's; `eirun kube VERB --help` shows the options of one. Changes are "
    .. "server-side apply by field manager `eirun`." },
  parts = M.parts, words = words(), options = common,
}

---@param _ table
---@param given string[]
function M.run(_, given)
  local errors, names = require "eirun.errors", {}
  for _, entry in ipairs(M.parts) do names[entry.name] = true end
  local near = given[1] and require("eirun.spec").nearest(given[1], names)
  local text = given[1] and ("kube has no verb '%s'%s"):format(given[1], near and (", did you mean '%s'?"):format(near) or "")
    or "which verb? `eirun kube --help` lists them"
  errors.raise("invalid", text, { code = "usage" })
end

return M
