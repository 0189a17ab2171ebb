-- SPDX-License-Identifier: Apache-2.0
-- eirun serve: the inference jobs of a cluster, as `arena serve` shows them. Each verb is a file of eirun/cli/serve.
local kube = require "eirun.cli.kube"

local M = {}

local version = { name = "version", short = "v", arg = "VERSION", help = "of the job, where a name has several" }
local type = { name = "type", short = "T", arg = "TYPE", help = "tf, triton, custom, trt, kf or seldon" }
local output = { name = "output", short = "o", arg = "FORMAT", values = { "wide", "json", "yaml" }, help = "wide, json or yaml" }
local everywhere = { name = "all-namespaces", short = "A", help = "in all namespaces" }
local wait = { name = "timeout", arg = "SECONDS", help = "how long to wait until it is done (default 1200)" }

local function part(name, args, summary, options, text)
  return { name = name, args = args, summary = summary, options = options, text = text, module = "eirun.cli.serve." .. name }
end

M.parts = {
  part("list", "", "list the jobs", { output, everywhere, type }),
  part("get", "NAME", "show one job and its instances", { output, version, type }),
  part("logs", "NAME", "print what an instance writes", { version, type,
    { name = "instance", short = "i", arg = "POD", help = "which instance, where there are several" },
    { name = "container", short = "c", arg = "NAME", help = "which container (default: the server's)" },
    { name = "follow", short = "f", help = "go on with what it writes from now on" },
    { name = "tail", short = "t", arg = "N", type = "integer", help = "the last N lines" },
    { name = "since", arg = "SECONDS", type = "integer", help = "of the last seconds" },
    { name = "timestamps", help = "with the time of each line" },
    { name = "previous", help = "of the container before its last restart" },
  }),
  part("delete", "NAME ...", "delete jobs with all that belongs to them", { version, type,
    { name = "dry-run", help = "only say what would be deleted" } },
    { "Deletes what stands in the job's books, as `arena serve delete` does: its autoscaler and its Ingress too, its volume claims not." }),
  part("scale", "NAME --replicas N", "set the replicas of a job that no autoscaler has", { version, type,
    { name = "replicas", arg = "N", type = "integer", help = "how many" } }),
  part("update", "NAME key=value ...", "change options of a job that eirun made", { version, type, wait },
    { "Options are those of `serve.ensure_tensorflow` and its like: image=..., gpus=2, version_policy=specific:3, env.NAME=value, "
      .. "labels.NAME=value. What is not named stays; waits until the model answers." }),
}

local rows = {}
for i, entry in ipairs(M.parts) do rows[i] = { entry.name .. " " .. entry.args, entry.summary } end

M.verb = {
  name = "serve", args = "VERB ...", module = "eirun.cli.serve", summary = "list, show, change and delete inference jobs, as arena does",
  text = { "Jobs that arena made are shown too; `eirun serve VERB --help` shows the options of one." },
  parts = M.parts, words = rows, options = kube.verb.options,
}

---@param _ table
---@param given string[]
function M.run(_, given)
  local names = {}
  for _, entry in ipairs(M.parts) do names[entry.name] = true end
  local text = given[1] and ("serve has no verb '%s'%s"):format(given[1], require("eirun.spec").advice(given[1], names))
  require("eirun.errors").raise("invalid", text or "which verb? `eirun serve --help` lists them", { code = "usage" })
end

return M
