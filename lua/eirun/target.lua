-- SPDX-License-Identifier: Apache-2.0
-- What a run works against: the sandbox or a real account. The only place that decides where requests may go.
local clock = require "eirun.core.clock"
local errors = require "eirun.errors"
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"

local M = {}

---@class eirun.Target
---@field sandbox boolean
---@field region string
---@field account? string
---@field cluster? string the cluster to use when a playbook names none
---@field credentials eirun.Credentials
---@field endpoints table<string, string> by product, upper case: EIRUN_ENDPOINT_CS and so on
---@field network? "public"|"vpc" which endpoints of the products
---@field ca_file? string
---@field kubeconfig? string
---@field context? string
---@field namespace string
---@field bucket? string the sandbox's own bucket

local current

--- The run's target.
---@return eirun.Target
--- Raises kind `invalid` when nothing was opened: a library call outside a run.
--- Example: `print(target.current().region)`
function M.current()
  return current or errors.raise("invalid", "no target is open: this needs a run, `eirun PLAYBOOK` or `eirun --sandbox PLAYBOOK`")
end

--- The run's target, nil outside a run.
---@return eirun.Target|nil
--- Raises nothing.
--- Example: `local now = target.open_target()`
function M.open_target()
  return current
end

--- An HTTP client of its own that goes past every proxy, for the metadata service; close it.
---@return userdata client
--- Raises nothing.
--- Example: `local client <close> = target.plain_client()`
function M.plain_client()
  return errors.check(http.client { proxy = "", user_agent = "eirun/" .. require("eirun.core.build").version })
end

--- A folder for what is kept between runs; nil where nothing is. A sandbox is new each time and its clock is its own: nothing of it is
--- kept.
---@param name string
---@return string|nil path it may have to be made
--- Example: `local folder = target.cache_folder "discovery"`
--- Raises kind `invalid` outside a run.
function M.cache_folder(name)
  if M.current().sandbox then return nil end
  local home = os_core.getenv("XDG_CACHE_HOME")
  if not home or home == "" then
    local user = os_core.getenv("HOME")
    if not user or user == "" then return nil end
    home = user .. "/.cache"
  end
  return home .. "/eirun/" .. name
end

local clients = {}

-- Read before the first request: a client would fail only when a connection is made, and not say why.
local function check_certificates(path)
  local text, err = require("eirun.core.fs").read(path, 16 << 20)
  local problem = err and err.message or not text:find("BEGIN CERTIFICATE", 1, true) and ("no certificate is in '%s'"):format(path)
  if problem then
    errors.raise("invalid", "the certificates to trust: " .. problem, { code = "ca_file", hint = "EIRUN_CA_FILE names a PEM file" })
  end
end

local function new_client(options)
  if options.ca_file then
    check_certificates(options.ca_file)
  end
  return errors.check(http.client(options))
end

--- An HTTP client of this run; clients with the same options are shared.
---@param opts? table options of eirun.core.http.client
---@return userdata client
--- Example: `target.http():request { url = "http://47.96.0.10/" }`
--- Raises kind `invalid` outside a run.
function M.http(opts)
  local given = { ca_file = M.current().ca_file, user_agent = "eirun/" .. require("eirun.core.build").version }
  for key, value in pairs(opts or {}) do
    given[key] = value
  end
  if given.ca_pem then
    given.ca_file = nil
  end
  for _, value in pairs(given) do
    if type(value) == "userdata" then
      return new_client(given) -- keys are not compared
    end
  end
  local name = json.encode(given)
  clients[name] = clients[name] or new_client(given)
  return clients[name]
end

local function close_clients()
  for name, client in pairs(clients) do
    client:close()
    clients[name] = nil
  end
end

--- Works against a target made by hand: for tests of the library, and for programs that know theirs.
---@param target eirun.Target
---@return fun() undo closes its connections and brings the one before back
--- Example: `local undo = target.use { sandbox = true, region = "cn-hangzhou", credentials = keys, endpoints = {} }`
--- Raises nothing.
function M.use(target)
  local before = current
  current = target
  return function()
    close_clients()
    current = before
  end
end

-- Where a sandbox keeps its state.
local function sandbox_dir(option)
  if type(option) == "string" then
    return option
  end
  local state = os_core.getenv("XDG_STATE_HOME")
  if not state or state == "" then
    state = (os_core.getenv("HOME") or ".") .. "/.local/state"
  end
  return state .. "/eirun/sandbox"
end
--- The folder of a sandbox's state: the option's value, else the user's own.
---@param option? string|true as `--sandbox` was given
---@return string
--- Example: `target.sandbox_dir "/tmp/sandbox"` is `/tmp/sandbox`. Raises nothing.
M.sandbox_dir = sandbox_dir

local function factor_of(kind)
  local factor = tonumber(kind:match("^([%d.]+)x$"))
  if not factor or factor <= 0 then
    errors.raise("invalid", ("--clock is real, virtual, or a factor such as 10x, not '%s'"):format(kind), { code = "usage" })
  end
  return factor
end

-- The sandbox's own process settles a virtual clock on the time of its last commit; the others are settled here.
local function choose_clock(kind)
  if kind == "virtual" then
    return "virtual"
  elseif kind ~= "real" then
    clock.use("scaled", factor_of(kind))
    return "scaled"
  end
  return "real"
end

-- Serving sandboxes ---------------------------------------------------------------------------------------------------

-- What a serving process has left, if it still holds its lock: after a kill the file is there and the lock is not.
local function serving(dir)
  local fs = require "eirun.core.fs"
  local text = fs.read(dir .. "/serve.json")
  local record = text and json.decode(text)
  local lock <close> = record and fs.lock(dir .. "/lock")
  return not lock and record or nil
end

local function adopt_clock(record, wanted)
  if wanted == "virtual" then
    errors.raise("invalid", "a sandbox that serves others keeps real or scaled time: leave --clock virtual out", { code = "usage" })
  elseif wanted and wanted ~= "real" then
    factor_of(wanted)
  end
  local client <close> = http.client { ca_file = record.ca_file }
  local reply = errors.check(client:request { method = "GET", url = ("http://127.0.0.1:%d/clock"):format(record.ports.control.plain),
    headers = { ["x-sandbox-token"] = record.control_token }, timeout = 5 })
  local now = json.decode(reply.body) or {}
  if now.factor and now.now then
    clock.use("scaled", now.factor, now.now)
  end
end

local function facts_of(record)
  return {
    sandbox = true,
    region = record.region,
    account = record.account,
    cluster = record.cluster_id,
    bucket = record.bucket,
    ca_file = record.ca_file,
    endpoints = {},
    credentials = require("eirun.credentials").static {
      access_key_id = record.access_key_id,
      access_key_secret = record.access_key_secret,
      source = "sandbox",
    },
  }
end

-- The sandbox's state tells its end as text; who holds the directory is asked again, for the exit code.
local function lock_failure(dir)
  local lock <close>, err = require("eirun.core.fs").lock(dir .. "/lock")
  return not lock and err or nil
end

local function start_sandbox(dir, options)
  local vm = require "eirun.core.vm"
  local kind = choose_clock(options.clock or options.kubeconfig and "real" or "virtual")
  local args = { dir = dir, mode = "inprocess", clock = kind, seed = options.seed or 1, kubeconfig = options.kubeconfig,
    audit = options.audit }
  if options.lag then args.lag_scale, args.lag = require("eirun.lag").parse(options.lag) end
  local state = vm.start { entry = "sandbox.main", args = json.encode(args) }
  local text, err = state:ready()
  if not text then
    error(errors.wrap(lock_failure(dir) or err, ("cannot start the sandbox in %s"):format(dir)), 0)
  end
  return json.decode(text), state
end

-- Before anything of the sandbox writes to that server. Only it can be reached meanwhile, without a proxy.
local function check_kubeconfig(options)
  local marked, config = require "eirun.kube.marked", require "eirun.kube.config"
  local server = config.read(options.kubeconfig, options.context).server
  local host, port = server:match "^https?://%[?([^%]/]-)%]?:?(%d*)$"
  local routes = { closed = true }
  if host and marked.is_loopback(server) then
    local address = host:find(":", 1, true) and "[" .. host .. "]" or host
    routes[1] = { host = host, address = ("%s:%s"):format(address, port ~= "" and port or server:find "^https" and "443" or "80") }
  end
  http.routes(routes)
  local undo = M.use { sandbox = true, endpoints = {}, namespace = "default" }
  local ok, err = pcall(marked.check, options.kubeconfig, options.context)
  undo()
  if not ok then
    error(err, 0)
  end
end

--- Refuses a kubeconfig that is not that of a throw-away control plane on this machine.
---@param options {kubeconfig: string, context?: string}
--- Example: `target.check_kubeconfig { kubeconfig = "/tmp/plane/kubeconfig" }`. Raises kind "denied" for any other server.
M.check_kubeconfig = check_kubeconfig

local function open_sandbox(options)
  if options.kubeconfig then
    check_kubeconfig(options)
  end
  local dir = sandbox_dir(options.sandbox)
  local record, state = serving(dir), nil
  if record then
    adopt_clock(record, options.clock)
  else
    record, state = start_sandbox(dir, options)
  end
  local routes = record.routes
  routes.closed = true -- nothing but the sandbox can be reached from here on
  http.routes(routes)
  local target = facts_of(record)
  target.dir, target.state = dir, state
  return target
end

-- Real accounts -------------------------------------------------------------------------------------------------------

-- EIRUN_ENDPOINT_CS is ours, ALIBABA_CLOUD_ENDPOINT_CS what other tools of the vendor read.
local function endpoints_from_environment()
  local endpoints = {}
  for _, pattern in ipairs { "^ALIBABA_CLOUD_ENDPOINT_([%u%d_]+)$", "^EIRUN_ENDPOINT_([%u%d_]+)$" } do
    for name, value in pairs(os_core.environ()) do
      local product = name:match(pattern)
      if product and product ~= "TYPE" and value ~= "" then
        endpoints[product] = value
      end
    end
  end
  return endpoints
end

local function network_from_environment()
  local vpc = os_core.getenv("ALIBABA_CLOUD_ENDPOINT_TYPE") == "vpc" or os_core.getenv("ALIBABA_CLOUD_VPC_ENDPOINT_ENABLED") == "true"
  return vpc and "vpc" or "public"
end

-- A variable that is set to nothing is not set.
local function variable(name)
  local value = os_core.getenv(name)
  return value ~= "" and value or nil
end

local function region_of(options)
  return options.region or variable("ALIBABA_CLOUD_REGION_ID") or variable("ALIBABACLOUD_REGION_ID") or variable("ALICLOUD_REGION_ID")
    or require("eirun.credentials").region()
end

local function account_of(options)
  return { sandbox = false, region = region_of(options), endpoints = endpoints_from_environment(), network = network_from_environment(),
    ca_file = variable("EIRUN_CA_FILE"), credentials = require("eirun.credentials").chain() }
end

local function open_real(options)
  if options.clock and options.clock ~= "real" then
    errors.raise("invalid", "against a real account time is real: --clock is for --sandbox", { code = "usage" })
  end
  local account = account_of(options)
  if not account.region then
    errors.raise("invalid", "which region? give --region or set ALIBABA_CLOUD_REGION_ID", { code = "usage" })
  end
  return account
end

--- Lets what works against a cluster alone ask the vendor too, where this machine names a region: the keys are looked for when they are
--- needed. Else nothing changes.
---@return boolean known
--- Example: `local known = target.add_account()`. Raises "invalid" for a malformed profile file.
function M.add_account()
  local account = account_of {}
  for name, value in pairs(account.region and not current.sandbox and account or {}) do current[name] = value end
  return account.region ~= nil
end

-- Opening and closing -------------------------------------------------------------------------------------------------

local function describe(target)
  if target.sandbox then
    return ("target: sandbox in %s (region %s, account %s, cluster %s), %s clock at %s"):format(target.dir, target.region, target.account,
      target.cluster, clock.kind(), os.date("!%Y-%m-%dT%H:%M:%SZ"))
  end
  return ("target: REAL account %s, region %s, cluster %s"):format(target.account or "not asked", target.region,
    target.cluster or "as the playbook says")
end

local Session = {}
Session.__index = Session

-- Clients first, then the sandbox's own state, which commits what it has.
local function close(session)
  close_clients()
  current = nil
  if session.state then
    local state = session.state
    session.state = nil
    local ok, err = state:stop()
    if not ok then
      require("eirun.core.term").write(2, "eirun: the sandbox ended with an error: " .. errors.text(err) .. "\n")
    end
  end
end
Session.__close = close
Session.__gc = nil

--- Opens what the options name and says so on the output: the first line of every run.
---@param options table of the command line
---@param out table an output
---@param cluster? string the cluster that the playbook was given
---@param how? {identify?: boolean} identify = false: does not ask whose the keys are
---@return table session close it (`local session <close> = target.open(...)`)
--- Raises kind `denied` without credentials, `invalid` for options that contradict each other.
--- Example: `local session <close> = target.open({ sandbox = true }, out)`
function M.open(options, out, cluster, how)
  local target = options.sandbox and open_sandbox(options) or open_real(options)
  local session = setmetatable({ state = target.state }, Session)
  target.kubeconfig, target.context, target.namespace = options.kubeconfig, options.context, options.namespace or "default"
  target.cluster = cluster or target.cluster
  current = target
  local ok, err = pcall(function()
    if not target.account and not (how and how.identify == false) then
      target.account = require("eirun.cloud").caller_identity().AccountId
    end
  end)
  if not ok then
    close(session)
    error(err, 0)
  end
  session.description = describe(target)
  out:target(session.description, { sandbox = target.sandbox, region = target.region, account = target.account, cluster = target.cluster })
  return session
end

return M
