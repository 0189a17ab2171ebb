-- SPDX-License-Identifier: Apache-2.0
-- eirun gpu: the GPUs of this machine, who uses them, how they are wired and how well they are; and those of a cluster.
local M = {}

local timeout = { name = "timeout", arg = "SECONDS", help = "how long the driver may take (default 5)" }
local require_gpu = { name = "require", help = "exit code 1 where there is no driver or no GPU" }
local watch = { name = "watch", arg = "SECONDS", optional = true, help = "look again and again (default: each second)" }
local count = { name = "count", arg = "N", type = "integer", help = "with --watch and top: end after N looks" }
local format = { name = "output", short = "o", arg = "FORMAT", values = { "text", "wide", "csv", "json" },
  help = "wide: more columns, and with topo each NVLink" }
local plain_format = { name = "output", short = "o", arg = "FORMAT", values = { "text", "json" }, help = "text for people, or json" }

M.parts = {
  { name = "events", args = "", alone = true, module = "eirun.cli.gpu.events",
    summary = "wait for what the driver tells: XIDs, ECC errors, lost GPUs",
    text = { "One line an event, until it is interrupted; with -o json one object a line, with -o wide also its kind and the GPU's UUID." },
    options = { { name = "output", short = "o", arg = "FORMAT", values = { "text", "wide", "csv", "json" }, help = "of each event" },
      { name = "watch", arg = "SECONDS", optional = true, help = "taken and without effect: events are told as they come" },
      { name = "kinds", arg = "KINDS", help = "only these, as xid,ecc_uncorrected; also known: clock, performance_state, power_source" },
      require_gpu,
      { name = "count", arg = "N", type = "integer", help = "end after N events" },
      { name = "for", arg = "SECONDS", help = "end after this time" } } },
  { name = "health", args = "", alone = true, module = "eirun.cli.gpu.health",
    summary = "judge the GPUs by rules; exit code 4 when something is wrong",
    text = { "The rules: XIDs, uncorrectable and growing ECC errors, rows that wait to be remapped, heat, power, lost GPUs. Each "
      .. "finding comes with the node, the pods on that GPU, and what to do. Without --for it judges what can be seen at once; XIDs are "
      .. "told only while somebody listens." },
    options = { plain_format, timeout, require_gpu,
      { name = "for", arg = "SECONDS", help = "listen so long for XIDs and growing counters before judging" },
      { name = "node", arg = "NAME", help = "name of this node in the cluster (default: NODE_NAME, or the machine's name)" } } },
  { name = "metrics", args = "", alone = true, module = "eirun.cli.gpu.metrics", summary = "Prometheus text under dcgm-exporter's names",
    options = { timeout, require_gpu,
      { name = "listen", arg = "ADDRESS",
        help = "serve it at /metrics, as 127.0.0.1:9400, :9400 or 0 for a free port, until interrupted" } } },
  { name = "cluster", args = "", alone = true, module = "eirun.cli.gpu.cluster",
    summary = "the GPUs of a cluster: total, allocatable, allocated, really used, by node and by serving job",
    text = { "Allocated is what pods asked for that have a node and are not finished, as `arena top node` counts. Used comes from "
      .. "dcgm-exporter, from `eirun gpu metrics --listen`, or from Prometheus; a source that does not answer is said and the "
      .. "rest is shown." },
    options = { watch, count,
      { name = "output", short = "o", arg = "FORMAT", values = { "text", "wide", "csv", "json" },
        help = "wide: who uses each GPU; csv: a line a node" },
      { name = "check", help = "exit code 4 when a finding is a warning or worse, as `gpu health` has for this machine" },
      { name = "source", arg = "WHERE",
        help = "auto, proxy (through the API server), direct (each pod's own address), a Prometheus URL, or none" },
      { name = "port", arg = "N", type = "integer", help = "port of the exporters (default: the pod's own, else 9400)" },
      { name = "deadline", arg = "SECONDS", help = "how long each way to a node may take to answer (default 5)" },
      { name = "parallel", arg = "N", type = "integer", help = "nodes asked at a time (default 16)" },
      { name = "kubeconfig", arg = "FILE",
        help = "this kubeconfig alone (default: KUBECONFIG's, ~/.kube/config, or a pod's own account)" },
      { name = "context", arg = "NAME", help = "context of the kubeconfig" },
      { name = "namespace", arg = "NAME", help = "only serving jobs of this namespace; nodes always count all pods" },
      { name = "sandbox", arg = "DIR", optional = true, help = "the sandbox cloud's cluster, whose state lives in DIR" },
      { name = "clock", arg = "KIND", help = "of the sandbox: virtual (the default), real, or a factor such as 10x" } } },
}

local function words()
  local rows = {
    { "list", "one line a GPU (the default)" },
    { "processes", "who uses them, with container and pod" },
    { "top", "a live view with the last minute's use" },
    { "topo", "how they are wired: NV (NVLink), PIX, PXB, PHB, NODE, SYS, as nvidia-smi topo says it" },
  }
  for _, part in ipairs(M.parts) do rows[#rows + 1] = { part.name, part.summary } end
  return rows
end

M.verb = {
  name = "gpu", args = "[list|processes|top|topo|events|health|metrics|cluster]", module = "eirun.cli.gpu",
  summary = "show the GPUs of this machine, or of a cluster, their use and their health",
  text = { "Asks the NVIDIA driver itself; what it does not tell is n/a. Without a driver the list is empty and the exit code 0." },
  parts = M.parts, words = words(),
  options = { format,
    { name = "query", arg = "FIELDS",
      help = "of list: fields of `nvidia-smi --query-gpu`, as name,memory.used, or all; csv unless -o says otherwise" },
    { name = "query-gpu", arg = "FIELDS", help = "the same by nvidia-smi's name, for scripts that were written for it" },
    { name = "format", arg = "FORMAT", help = "as nvidia-smi's: csv, and after a comma noheader, nounits" },
    watch, count, timeout, require_gpu },
}

local function usage(text)
  require("eirun.errors").raise("invalid", text, { code = "usage" })
end

---Writes to standard output. Raises where nobody reads it any more, or the disk is full: what goes on for ever would go on for nobody.
---@param text string
function M.say(text)
  require("eirun.errors").check(require("eirun.core.term").write(1, text))
end

---A number of seconds among the options. Raises wrong usage.
---@param options table
---@param key string
---@param otherwise number|nil
---@return number|nil
function M.seconds(options, key, otherwise)
  local text = options[key]
  if text == nil or text == true then return otherwise end
  local value = tonumber(text)
  if not value or not (value > 0 and value < 1e6) then usage(("--%s wants seconds, not '%s'"):format(key, text)) end
  return value
end

---Wrong usage where words follow that mean nothing, or counts that cannot be.
---@param options table
---@param left string[]
---@param allowed integer
function M.check(options, left, allowed)
  if left[allowed + 1] then usage(("'%s' is one word too many"):format(left[allowed + 1])) end
  if options.count and options.count < 1 then usage "--count wants a number from 1 on" end
end

---Nobody need read an empty table to learn that there is no driver; what programs read stays what they know.
---@param look eirun.gpu.Snapshot
function M.tell_missing(look)
  if #look.devices > 0 then return end
  require("eirun.core.term").write(2, "eirun: " .. (look.missing or "the driver finds no GPU") .. "\n")
end

---The exit code that findings stand for.
---@param findings eirun.gpu.Finding[] worst first
---@return integer exit_code
function M.verdict(findings)
  local worst = findings[1] and findings[1].severity
  return (worst == "fatal" or worst == "warning") and 4 or 0
end

---A count without an end to count to would do nothing.
---@param options table
---@param live? boolean it goes on without --watch
function M.check_count(options, live)
  if options.count and not options.watch and not live then usage "--count is for --watch and top" end
end

local function cut(line, width)
  local at = utf8.offset(line, width + 1)
  return at and at <= #line and line:sub(1, at - 1) or line
end

---What fits into a terminal: a frame that is longer would scroll, and its beginning would never be seen.
---@param text string
---@param width integer
---@param height? integer nil: as many lines as there are
---@return string
---Example: `frame("a\nb\nc\nd\n", 80, 3)` is "a\n... 3 more lines\n".
function M.frame(text, width, height)
  local lines = {}
  for line in text:gmatch "([^\n]*)\n" do lines[#lines + 1] = cut(line, width) end
  local room = height and math.max(1, height - 1) or #lines -- the cursor needs a line of its own
  if #lines > room then
    local more = cut(("... %d more lines"):format(#lines - room + 1), width)
    lines = table.move(lines, 1, room - 1, 1, {})
    lines[room] = more
  end
  return table.concat(lines, "\n") .. "\n"
end

---Draws over the last frame where somebody looks, else writes as it is.
---@param text string
---@param live boolean
function M.draw(text, live)
  local term = require "eirun.core.term"
  M.say(live and "\27[H\27[J" .. M.frame(text, term.width(1), term.height(1)) or text)
end

-- nvidia-smi's words for --query and -o: `--query-gpu=name --format=csv,noheader,nounits`.
local function take_over(options)
  options.query = options.query or options.query_gpu
  local asked, csv = options.output, false
  for word in (options.format or ""):gmatch "[^,%s]+" do
    if word == "csv" then
      csv, options.output = true, "csv"
    elseif word == "noheader" or word == "nounits" then
      options[word] = true
    else
      usage(("--format is csv, noheader or nounits with commas between them, not '%s'"):format(word))
    end
  end
  if options.format and not csv then usage "--format wants csv, and after a comma noheader, nounits" end
  if csv and asked and asked ~= "csv" then usage(("--format is csv and --output %s: which one?"):format(asked)) end
end

-- The shown fields; --query alone means csv, as with nvidia-smi.
local function choose_fields(what, options)
  take_over(options)
  if options.query and what ~= "list" and what ~= "top" then usage(("--query chooses the fields of list, not of %s"):format(what)) end
  if options.query and not options.query:find "[^,%s]" then usage "--query names no field" end
  if options.query and not options.output then options.output = "csv" end
  if options.output ~= "csv" and options.output ~= "json" then return end
  local fields = require "eirun.gpu.fields"
  local list, unknown = fields.pick(options.query)
  if not list then
    local near = require("eirun.spec").nearest(unknown, fields.by_name)
    usage(("unknown field '%s'%s"):format(unknown, near and (", did you mean '%s'?"):format(near) or ""))
  end
  options.fields = list
end

-- What the driver is asked for: no more than is shown.
local function wish(what, options)
  if (what == "list" or what == "top") and options.fields then
    local wanted = require("eirun.gpu.fields").wish(options.fields)
    wanted.instances = options.output == "json"
    return wanted
  end
  if what == "topo" then
    return { topology = true, fields = { "name", "nvlinks_active", "numa_node", "pci_bus_id" },
      nvlinks = options.output == "wide" or options.output == "json" }
  end
  if what == "processes" then return { processes = true, fields = { "name", "uuid", "pci_bus_id" } } end
  return { processes = true }
end

---@param options table
---@param left string[]
---@return integer exit_code
function M.run(options, left)
  local what = left[1] or "list"
  local views = require("eirun.cli.gpu.views").views
  if not views[what] then
    usage(("gpu shows list, processes, top, topo, events, health, metrics or cluster, not '%s'"):format(what))
  end
  M.check(options, left, 1)
  M.check_count(options, what == "top")
  choose_fields(what, options)
  local opts, pause = wish(what, options), M.seconds(options, "watch", 1)
  opts.timeout, opts.required = M.seconds(options, "timeout", 5), options.require
  local again, round, view = (options.watch or what == "top") and (options.count or math.huge) or 1, 0, views[what](options)
  local term, data = require "eirun.core.term", options.output == "json" or options.output == "csv"
  local live = again > 1 and not data and term.isatty(1) -- where somebody looks, each frame is drawn over the last one
  repeat
    if round > 0 then require("eirun.task").sleep(pause) end
    round = round + 1
    local look = require("eirun.gpu").snapshot(opts)
    if round == 1 then M.tell_missing(look) end
    if #look.devices > 0 or data then
      M.draw(view(look, options, round), live)
    end
  until round >= again or #look.devices == 0
  return require("eirun.core.gpu").leave(0)
end

return M
