-- SPDX-License-Identifier: Apache-2.0
-- eirun sandbox serve DIR | reset [DIR] | status [DIR] | fault DIR KIND [key=value ...]
local clock = require "eirun.core.clock"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local term = require "eirun.core.term"

local M = {}

-- All that a sandbox writes into its directory; reset touches nothing else.
local own_files = { "serve.json", "env.sh", "kubeconfig", "state.db", "state.db-wal", "state.db-shm", "sls.db", "sls.db-wal", "sls.db-shm",
  "credentials.json", "ca.pem", "ca.key", "server.json",
  "sandbox.log", "sandbox.log.1", "plain.sock", "tls.sock", "oss", "nodes", "kubelet" }

local function usage(text) errors.raise("invalid", text, { code = "usage" }) end

local function say(text) term.write(1, text .. "\n") end

local function directory(word) return word or require("eirun.target").sandbox_dir() end

-- What a serving process has left, if it still holds its lock: after a kill the file is there and the lock is not.
local function serving(dir)
  local text = fs.read(dir .. "/serve.json")
  local record = text and json.decode(text)
  local lock <close> = record and fs.lock(dir .. "/lock")
  return not lock and record or nil
end

-- serve ---------------------------------------------------------------------------------------------------------------

local function choose_clock(kind)
  if kind == nil or kind == "real" then return "real" end
  if kind == "virtual" then usage "a sandbox that serves others keeps real time: --clock is real or a factor such as 10x" end
  local factor = tonumber(kind:match "^([%d.]+)x$")
  if not factor or factor <= 0 then usage(("--clock is real or a factor such as 10x, not '%s'"):format(kind)) end
  clock.use("scaled", factor)
  return "scaled"
end

local function wait_until_stopped()
  local never = task.event()
  pcall(never.wait, never) -- a cancel (Ctrl-C, SIGTERM) is how this ends
end

local function absolute(dir)
  errors.check(fs.mkdir(dir, { parents = true, mode = tonumber("700", 8) }))
  return errors.check(fs.realpath(dir))
end

-- The sandbox's state tells its end as text; who holds the directory is asked again, for the exit code.
local function lock_failure(dir)
  local lock <close>, err = fs.lock(dir .. "/lock")
  return not lock and err or nil
end

local function list_of(text)
  if not text then return nil end
  local list = json.array {}
  for name in text:gmatch "[^,%s]+" do list[#list + 1] = name end
  return list
end

local function serve(options, words)
  local dir = words[2] or usage "which directory? eirun sandbox serve DIR"
  local kind = choose_clock(options.clock)
  dir = absolute(dir)
  if options.kubeconfig then require("eirun.target").check_kubeconfig(options) end
  local args = { dir = dir, mode = "serve", clock = kind, seed = options.seed or 1, addons = list_of(options.addons),
    kubeconfig = options.kubeconfig }
  if options.lag then args.lag_scale, args.lag = require("eirun.lag").parse(options.lag) end
  local state = require("eirun.core.vm").start { entry = "sandbox.main", args = json.encode(args) }
  local text, err = state:ready()
  if not text then error(errors.wrap(lock_failure(dir) or err, ("cannot serve a sandbox in %s"):format(dir)), 0) end
  say "ready"
  wait_until_stopped()
  errors.check(state:stop())
  return 0
end

-- reset ---------------------------------------------------------------------------------------------------------------

local function reset(_, words)
  local dir = directory(words[2])
  if not fs.stat(dir .. "/state.db") then
    say(("nothing to reset: %s holds no sandbox"):format(dir))
    return 0
  end
  local lock <close>, err = fs.lock(dir .. "/lock")
  if not lock then error(errors.wrap(err, ("the sandbox in %s is in use"):format(dir)), 0) end
  for _, name in ipairs(own_files) do
    if fs.stat(dir .. "/" .. name, { follow = false }) then errors.check(fs.remove(dir .. "/" .. name, { recursive = true })) end
  end
  say(("%s is empty: the next run starts a fresh sandbox"):format(dir))
  return 0
end

-- status and fault ----------------------------------------------------------------------------------------------------

local function control(record, method, path, body)
  local client <close> = http.client {}
  local reply = errors.check(client:request { method = method, body = body and json.encode(body), timeout = 10,
    url = ("http://127.0.0.1:%d%s"):format(record.ports.control.plain, path), headers = { ["x-sandbox-token"] = record.control_token } })
  local answer = json.decode(reply.body) or {}
  if reply.status >= 400 then errors.raise("invalid", answer.message or ("the sandbox answered %d"):format(reply.status)) end
  return answer
end

local function facts(dir)
  local record = serving(dir)
  if not record then return { dir = dir, serving = false, exists = fs.stat(dir .. "/state.db") ~= nil } end
  local answer = control(record, "GET", "/status")
  answer.dir, answer.serving, answer.exists, answer.pid, answer.clock = dir, true, true, record.pid, record.clock
  return answer
end

local function describe(fact)
  if not fact.exists then return ("%s: no sandbox"):format(fact.dir) end
  if not fact.serving then return ("%s: a sandbox, not serving"):format(fact.dir) end
  local counts = fact.counts
  local text = "%s: serving (process %d, %s clock, %s)\nregion %s, account %s, cluster %s\n"
    .. "%d node pools, %d instances, %d faults waiting"
  return text:format(fact.dir, fact.pid, fact.clock, fact.time, fact.region, fact.account, fact.cluster_id, counts.pool, counts.instance,
    #fact.faults)
end

local function status(options, words)
  local fact = facts(directory(words[2]))
  say(options.output == "jsonl" and json.encode(fact) or describe(fact))
  return 0
end

local function typed(text)
  if text == "true" or text == "false" then return text == "true" end
  return math.tointeger(text) or tonumber(text) or text
end

local function fault(_, words)
  local dir, kind = words[2], words[3]
  if not dir or not kind then usage "eirun sandbox fault DIR KIND [key=value ...], or: eirun sandbox fault DIR clear" end
  local record = serving(dir) or errors.raise("not_found", ("no sandbox serves in %s"):format(dir))
  if kind == "clear" then
    control(record, "DELETE", "/faults")
    return 0
  end
  local body = { kind = kind }
  for i = 4, #words do
    local key, value = words[i]:match "^([%w_]+)=(.*)$"
    if not key then usage(("'%s' is not key=value"):format(words[i])) end
    body[key] = typed(value)
  end
  say(("%d faults waiting"):format(control(record, "POST", "/faults", body).faults))
  return 0
end

local verbs = { serve = serve, reset = reset, status = status, fault = fault }

--- Runs one of the verbs.
---@param options table of the command line
---@param words string[] the verb and what follows
---@return integer exit_code
--- Example: `require("eirun.cli.sandbox").run({}, { "status", "/tmp/box" })`.
--- Raises code "usage" for a verb that does not exist, kind "conflict" when another process holds the directory.
function M.run(options, words)
  local verb = verbs[words[1] or ""]
  if not verb then usage "sandbox what? serve DIR, status [DIR], reset [DIR], or fault DIR KIND [key=value ...]" end
  return verb(options, words)
end

return M
