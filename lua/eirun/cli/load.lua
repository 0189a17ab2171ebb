-- SPDX-License-Identifier: Apache-2.0
-- eirun load URL: a load test from the command line.
local M = {}

M.options = {
  { name = "rate", arg = "N", help = "requests a second, for --duration" },
  { name = "duration", arg = "TIME", help = "how long, as 90s or 1m30s (default 10s)" },
  { name = "plan", arg = "PLAN",
    help = "phases instead of --rate: 0..60:2m, 60:12m, pause:10s, 10..50/5:1m (steps), sine:5..50/30s:2m, spike:5..90:30s" },
  { name = "connections", arg = "N", short = "c", type = "integer",
    help = "closed loop: N connections, each sends when it was answered" },
  { name = "think", arg = "TIME", help = "in a closed loop: between an answer and the next request" },
  { name = "threads", arg = "N", type = "integer",
    help = "threads that send (default: one a core, less one); 0 sends from the main thread" },
  { name = "trace", arg = "FILE", help = "replay a CSV file: time stamps, or a rate or count an interval" },
  { name = "speed", arg = "X", help = "replay the trace X times as fast" },
  { name = "scale", arg = "X", help = "send X times as many requests as the trace" },
  { name = "part", arg = "FROM..TO", help = "replay this part of the trace, as 1h..2h" },
  { name = "column", arg = "KIND=NAME", many = true,
    help = "of the trace: time, rate, count, weight (requests of a row) or size (bytes of its body)" },
  { name = "interval", arg = "TIME", help = "of the trace: how long a row's rate or count lasts (default: the usual distance)" },
  { name = "arrivals", arg = "KIND", values = { "even", "poisson" }, help = "how requests lie within a second (default even)" },
  { name = "seed", arg = "N", type = "integer", help = "seed of the Poisson arrivals (default 1)" },
  { name = "method", arg = "METHOD", short = "X", help = "default GET, or POST with a body" },
  { name = "header", arg = "LINE", short = "H", many = true, help = "'Name: value'; may be given more than once" },
  { name = "body", arg = "TEXT", short = "d", many = true, help = "the body, or @FILE; several are sent in turn" },
  { name = "form", arg = "PART", short = "F", many = true,
    help = "a form's field NAME=VALUE or file NAME=@FILE[;type=TYPE][;filename=NAME]; several make one body" },
  { name = "weights", arg = "LIST", help = "of several URLs: 3,1 sends three of four requests to the first" },
  { name = "http", arg = "VERSION", values = { "1.1", "2" }, help = "default 1.1; 2 on http:// is spoken from the first byte" },
  { name = "streams", arg = "N", type = "integer",
    help = "of HTTP/2: requests at one time on a connection (default 100, in a closed loop 1)" },
  { name = "timeout", arg = "TIME", help = "of a request, from its planned time (default 30s)" },
  { name = "max-connections", arg = "N", type = "integer", help = "connections at one time (default 4096)" },
  { name = "warm", arg = "N", type = "integer", help = "connections that are opened before the plan begins" },
  { name = "max-requests", arg = "N", type = "integer",
    help = "refuse a plan of more (default 50 million); end a closed loop after as many" },
  { name = "max-lateness", arg = "TIME", help = "the run is not valid when p99 of sent minus planned is above it (default 50ms)" },
  { name = "no-keep-alive", help = "a connection for each request" },
  { name = "connect-to", arg = "PLACE", help = "unix:/path or address:port instead of the URL's host" },
  { name = "cacert", arg = "FILE", help = "certificates that an https target is checked against (the system's)" },
  { name = "insecure", short = "k", help = "take any certificate" },
  { name = "allow", arg = "HOST", many = true, help = "a public host that is yours to load" },
  { name = "status", arg = "CODE", type = "integer", help = "the only good status; else 200 to 399 are good" },
  { name = "contains", arg = "TEXT", help = "a good answer's body holds it" },
  { name = "json-field", arg = "FIELD",
    help = "a good answer is JSON with this field, as predictions[0]; FIELD=VALUE: and it has this value" },
  { name = "min-size", arg = "BYTES", type = "integer", help = "a good answer's body is at least as long" },
  { name = "max-size", arg = "BYTES", type = "integer", help = "and at most as long" },
  { name = "threshold", arg = "TEXT", short = "t", many = true,
    help = "as p95<250ms, errors<0.1%, rate>=0.99; may be given more than once" },
  { name = "window", arg = "FROM..TO", help = "the part of the plan that the thresholds judge" },
  { name = "warmup", arg = "TIME", help = "the thresholds do not judge this much of the beginning" },
  { name = "abort-after", arg = "TIME", help = "from then on a broken threshold ends the run" },
  { name = "find-max", arg = "LIST",
    help = "the highest rate that keeps these thresholds, as 'p99<200ms,errors<0.1%'; --duration is each trial's" },
  { name = "min-samples", arg = "N", type = "integer", help = "fewer answers in the window decide nothing (default 100)" },
  { name = "sandbox", arg = "DIR", optional = true, help = "load what runs in the sandbox cloud, whose state lives in DIR" },
  { name = "clock", arg = "KIND", help = "of the sandbox: real, virtual (its default), or a factor such as 10x" },
  { name = "json", help = "one JSON object instead of text" },
  { name = "report", arg = "FILE", help = "write an HTML report" },
  { name = "hdr-log", arg = "FILE", help = "write the histograms as an HdrHistogram log" },
  { name = "junit", arg = "FILE", help = "write the thresholds as JUnit XML" },
  { name = "dry-run", help = "show the plan and send nothing" },
  { name = "quiet", short = "q", help = "print only what failed" },
}

M.verb = {
  name = "load", args = "URL... | compare A B", module = "eirun.cli.load",
  summary = "load an HTTP service at a planned rate and judge its latency",
  text = { "Requests go out at their planned times whatever the server does, and latency counts from there; with --connections a closed "
    .. "loop sends as fast as it is answered. Give one of --rate, --plan, --trace and --connections.",
    "It loads this machine and private networks; a public host needs --allow. Exit code 4 when a threshold is missed or the run is not "
    .. "valid." },
  options = M.options,
}

local function usage(text)
  require("eirun.errors").raise("invalid", text, { code = "usage" })
end

-- What is wrong before anything is sent is wrong usage.
local function before_start(fn, ...)
  local ok, found = pcall(fn, ...)
  if ok then return found end
  if type(found) == "table" and found.kind == "invalid" and not found.excerpt then
    usage(found.message:gsub("^load%.run: ", "") .. (found.hint and "; " .. found.hint or ""))
  end
  error(found, 0)
end

local function number(options, key)
  local text = options[key]
  local value = text and tonumber(text)
  if text and not (value and value > 0 and value < math.huge) then
    usage(("--%s wants a number above 0, not '%s'"):format(key, text))
  end
  return value
end

local function duration(text)
  return text and require("eirun.load.plantext").duration(text)
end

local function window(text)
  return text and require("eirun.load.plantext").window(text)
end

local column_kinds = { time = true, rate = true, count = true, weight = true, size = true }

local function trace_phase(options)
  local part = window(options.part) or {}
  local phase = {
    kind = "trace", file = options.trace, speed = number(options, "speed"), scale = number(options, "scale"),
    from = part.from, to = part.to, interval = duration(options.interval),
  }
  for _, text in ipairs(options.column or {}) do
    local kind, name = text:match("^(%a+)=(.+)$")
    if not column_kinds[kind] then usage(("--column wants time, rate, count, weight or size, as in size=BYTES, not '%s'"):format(text)) end
    phase[kind] = name
  end
  return phase
end

-- What goes with something that was not given would be passed over in silence.
local companions = {
  { "trace", "speed", "scale", "part", "column", "interval" },
  { "sandbox", "clock" },
  { "threshold", "abort_after" },
}
local not_with = {
  connections = { "arrivals", "seed", "dry_run" },
  plan = { "duration" },
  trace = { "duration" },
  find_max = { "rate", "plan", "trace", "connections", "threshold", "window", "warmup", "abort_after", "report", "hdr_log", "junit",
    "dry_run" },
}

local function check_together(options)
  local function option(key) return "--" .. key:gsub("_", "-") end
  for _, group in ipairs(companions) do
    for i = 2, #group do
      if options[group[i]] and not options[group[1]] then usage(("%s goes with %s"):format(option(group[i]), option(group[1]))) end
    end
  end
  for key, others in pairs(not_with) do
    for _, other in ipairs(options[key] and others or {}) do
      if options[other] then usage(("%s does not go with %s"):format(option(other), option(key))) end
    end
  end
end

local function plan_of(options)
  local given = (options.plan and 1 or 0) + (options.trace and 1 or 0) + (options.rate and 1 or 0)
  if options.connections and given == 0 then return nil end
  if given + (options.connections and 1 or 0) ~= 1 then usage "give one of --rate, --plan, --trace and --connections" end
  if options.plan then return require("eirun.load.plantext").plan(options.plan) end
  if options.trace then return { trace_phase(options) } end
  return { { kind = "hold", rate = number(options, "rate"), duration = duration(options.duration) or 10 } }
end

local function headers_of(lines)
  local list = {}
  for _, line in ipairs(lines or {}) do
    local name, value = line:match("^([^:]+):%s*(.-)%s*$")
    list[#list + 1] = { name or usage(("--header wants 'Name: value', not '%s'"):format(line)), value }
  end
  return list
end

-- VALUE is taken as JSON where it is JSON, else as a text.
local function json_field(text)
  if not text then return nil end
  local field, value = text:match("^([^=]+)=(.*)$")
  if not field then return text end
  local decoded = require("eirun.core.json").decode(value)
  return { field = field, equals = decoded == nil and value or decoded }
end

local function targets_of(urls, options)
  if not urls[2] then
    if options.weights then usage "--weights goes with several URLs" end
    return nil
  end
  local weights, targets = {}, {}
  for part in (options.weights or ""):gmatch "[^,]+" do
    weights[#weights + 1] = math.tointeger(tonumber(part)) or usage "--weights wants whole numbers, as 3,1"
  end
  if options.weights and #weights ~= #urls then usage(("--weights names %d of %d URLs"):format(#weights, #urls)) end
  for i, url in ipairs(urls) do targets[i] = { url = url, weight = weights[i] } end
  return targets
end

local function bodies_of(texts)
  if not texts then return nil end
  local fs, errors = require "eirun.core.fs", require "eirun.errors"
  local bodies = {}
  for i, text in ipairs(texts) do
    local file = text:match("^@(.+)$")
    bodies[i] = file and errors.check(fs.read(file)) or text
  end
  return bodies
end

-- As curl -F has it.
local function form_of(texts)
  if not texts then return nil end
  local parts = {}
  for i, text in ipairs(texts) do
    local name, value = text:match("^([^=]+)=(.*)$")
    if not name then usage(("--form wants NAME=VALUE or NAME=@FILE, not '%s'"):format(text)) end
    local part = { name = name }
    for _, key in ipairs { "filename", "type" } do
      local rest, given = value:match("^(@.*);" .. key .. "=([^;]+)$")
      if rest then value, part[key] = rest, given end
    end
    part.file = value:match "^@(.+)$"
    part.value = not part.file and value or nil
    parts[i] = part
  end
  return parts
end

local function load_options(urls, options)
  local targets = targets_of(urls, options)
  return {
    url = not targets and urls[1] or nil, targets = targets, http = options.http, streams = options.streams, warm = options.warm,
    think = duration(options.think), max_requests = options.max_requests, max_lateness = duration(options.max_lateness),
    warmup = duration(options.warmup),
    json = json_field(options.json_field),
    size = (options.min_size or options.max_size) and { min = options.min_size, max = options.max_size } or nil,
    plan = not options.find_max and plan_of(options) or nil, connections = options.connections, threads = options.threads,
    duration = options.connections and (duration(options.duration) or 10),
    arrivals = options.arrivals, seed = options.seed, method = options.method,
    headers = headers_of(options.header), bodies = bodies_of(options.body), form = form_of(options.form),
    timeout = duration(options.timeout),
    max_connections = options.max_connections, keep_alive = not options.no_keep_alive,
    connect_to = options.connect_to, ca_file = options.cacert, verify = not options.insecure,
    allow = options.allow, status = options.status, contains = options.contains, thresholds = options.threshold,
    abort_after = duration(options.abort_after),
    window = window(options.window), min_samples = options.min_samples,
  }
end

-- One line that is written over; nothing where nobody looks.
local function live_view(options)
  local term = require "eirun.core.term"
  if options.quiet or options.json or not term.isatty(2) then return nil, function() end end
  local chart, axis, threshold = require "eirun.chart", require "eirun.chart.axis", require "eirun.threshold"
  local show, rates = chart.terminal(2), {}
  local function figure(value) return value and threshold.show_seconds(value) or "-" end
  local function progress(now)
    rates[#rates + 1] = now.rate
    local line = ("%s/%s  %s  asked %.4g/s sent %d/s  p50 %s p95 %s p99 %s  errors %d  in flight %d"):format(
      axis.time(now.elapsed), axis.time(now.seconds), chart.sparkline(rates, 12, { unicode = show.unicode }), now.asked, now.rate,
      figure(now.p50), figure(now.p95), figure(now.p99), now.errors, now.in_flight)
    term.write(2, "\r\27[K" .. line:sub(1, show.width + 24))
  end
  return progress, function() term.write(2, "\r\27[K") end
end

local file_options = { "report", "hdr_log", "junit" }

-- What cannot be written is told before the run, not after it.
local function check_files(options)
  local fs = require "eirun.core.fs"
  for _, key in ipairs(file_options) do
    local folder = options[key] and (options[key]:match "^(.*)/[^/]*$" or ".")
    local found = folder and (fs.stat(folder == "" and "/" or folder) or {})
    if found and found.type ~= "directory" then
      usage(("--%s %s: there is no folder %s"):format((key:gsub("_", "-")), options[key], folder))
    end
  end
end

local function write_files(result, options)
  local errors, fs, output = require "eirun.errors", require "eirun.core.fs", require "eirun.load.output"
  local function write(path, text) errors.check(fs.write(path, text, { mode = 420 })) end
  if options.report then write(options.report, output.html(result)) end
  if options.hdr_log then write(options.hdr_log, require("eirun.load.hdrlog").write(result)) end
  if options.junit then write(options.junit, output.junit(result)) end
end

local function tell(result, options)
  local term, output = require "eirun.core.term", require "eirun.load.output"
  if options.json then
    term.write(1, require("eirun.core.json").encode(output.object(result)) .. "\n")
  elseif not (options.quiet and result.ok) then
    term.write(1, output.text(result, not options.quiet and require("eirun.chart").terminal(1) or nil))
  end
  require("eirun.task").shield(60, write_files, result, options) -- a Ctrl-C that ended the run does not take its files
end

local function show_plan(opts)
  local phases, term = require "eirun.load.phases", require "eirun.core.term"
  local chart = require "eirun.chart"
  local plan, points = phases.expand(opts.plan), {}
  local step = math.max(plan.seconds / 200, 0.05)
  for i = 0, 200 do
    local t = i * plan.seconds / 200
    points[#points + 1] = { t, phases.mean_rate(plan, t, t + step) }
  end
  term.write(1, ("%s\n%.0f requests in %.1f s\n"):format(opts.url or opts.targets[1].url .. " and others", plan.requests, plan.seconds))
  term.write(1, chart.draw({ series = { { name = "planned", unit = "/s", points = points } } }, chart.terminal(1)))
  return 0
end

local function list_of(text)
  local list = {}
  for part in text:gmatch "[^,]+" do list[#list + 1] = part end
  return list
end

local function tell_trial(trial)
  local threshold = require "eirun.threshold"
  require("eirun.core.term").write(2, ("%8.4g/s  %-6s p50 %s p95 %s p99 %s errors %.3g %%%s\n"):format(
    trial.rate, trial.ok and "holds" or "breaks", threshold.show_seconds(trial.p50), threshold.show_seconds(trial.p95),
    threshold.show_seconds(trial.p99), trial.errors * 100, trial.reason and "  " .. trial.reason or ""))
end

local function tell_found(found, options)
  local term = require "eirun.core.term"
  if options.json then
    term.write(1, require("eirun.core.json").encode(found) .. "\n")
    return
  end
  local beyond = found.limited and ", the most that was tried" or found.breaks_at and (", %.4g do not"):format(found.breaks_at) or ""
  local so_far = found.stopped and " (it was interrupted: so far, not tried again)" or ""
  term.write(1, ("%.4g requests a second hold%s%s\n"):format(found.rate, beyond, so_far))
  if found.by_generator then term.write(1, ("the limit is this machine's, not the server's: %s\n"):format(found.by_generator)) end
end

local function find_max(opts, options)
  opts.thresholds, opts.seconds = list_of(options.find_max), duration(options.duration)
  if #opts.thresholds == 0 then usage "--find-max wants thresholds, as 'p99<200ms,errors<0.1%'" end
  opts.duration = nil
  if not options.quiet then opts.tried = tell_trial end
  opts.stopped = function(found) tell_found(found, options) end
  local found = require("eirun.load").find_max(opts)
  tell_found(found, options)
  return found.rate > 0 and 0 or 4
end

local function read_run(path)
  local fs, json, errors = require "eirun.core.fs", require "eirun.core.json", require "eirun.errors"
  local run, err = json.decode(errors.check(fs.read(path)))
  local whole = type(run) == "table" and type(run.series) == "table" and type(run.window) == "table"
  if not (whole and type(run.window.latency) == "table" and run.window.requests and run.window.error_total) then
    errors.raise("invalid", ("'%s' is not what `eirun load --json` writes"):format(path), { cause = err })
  end
  return run
end

local function compare(options, words)
  if not words[3] or words[4] then usage "load compare wants two files that --json wrote" end
  local term, threshold = require "eirun.core.term", require "eirun.threshold"
  local found = require("eirun.load.compare").runs(read_run(words[2]), read_run(words[3]))
  if options.json then
    term.write(1, require("eirun.core.json").encode(found) .. "\n")
    return found.worse and 4 or 0
  end
  term.write(1, ("%-7s %12s    %-12s %9s\n"):format("", "A", "B", "typically"))
  for _, row in ipairs(found.rows) do
    local change = row.change and ("%+.1f %%"):format(row.change * 100) or ""
    term.write(1, ("%-7s %12s -> %-12s %9s  %s\n"):format(row.metric, threshold.show(row.metric, row.a),
      threshold.show(row.metric, row.b), change, row.verdict))
  end
  return found.worse and 4 or 0
end

-- The sandbox's hosts are reached through its route table; the line that names the target goes where no figures go.
local function open_sandbox(options)
  local line = { target = function(_, text) require("eirun.core.term").write(2, text .. "\n") end }
  return require("eirun.target").open(options, line)
end

---@param options table
---@param words string[]
---@return integer exit_code 0, 4 when a threshold was missed or the run was not valid
function M.run(options, words)
  local url = words[1] or usage "load what? give a URL"
  if url == "compare" then return compare(options, words) end
  local opts = before_start(load_options, words, options)
  before_start(check_together, options)
  check_files(options)
  if options.dry_run then return before_start(show_plan, opts) end
  local session <close> = options.sandbox and open_sandbox(options) or nil -- luacheck: ignore
  if options.find_max then return before_start(find_max, opts, options) end
  local clear
  opts.progress, clear = live_view(options)
  opts.on_cancel = function(result)
    clear()
    tell(result, options)
  end
  local result = before_start(require("eirun.load").run, opts)
  clear()
  tell(result, options)
  return result.ok and 0 or 4
end

return M
