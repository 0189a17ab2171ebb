-- SPDX-License-Identifier: Apache-2.0
-- The context that every emulated service is given: time, names, random numbers, state, events and supervised tasks.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local access = require "sandbox.access"
local faults = require "sandbox.faults"
local housekeeping = require "sandbox.housekeeping"
local jobs = require "sandbox.jobs"
local lag = require "eirun.lag"
local rng = require "sandbox.rng"
local store = require "sandbox.store"
local times = require "sandbox.times"

local world = {}

world.region = "cn-hangzhou"
world.account = "1234567890123456"
world.cluster_id = "c210fbedb96674b9eaf15f2dc47d169a8"
world.bucket = "eirun-sandbox-models"
world.ingress_address = "47.96.0.10"
world.fresh_start = times.epoch(2026, 1, 5, 8)

local owner_only = tonumber("600", 8)
local restart_after = 1

local function add_log(ctx)
  local path = ctx.dir .. "/sandbox.log"
  function ctx.log(level, format, ...)
    local text = select("#", ...) > 0 and format:format(...) or format
    fs.append(path, ("%s %s %s\n"):format(times.iso(ctx.now()), level, text))
  end
end

-- Streams differ from run to run of one state directory, so that a second run does not repeat the first one's draws.
local function add_randomness(ctx, seed, boot)
  function ctx.rng(name) return rng.stream(seed .. "/" .. boot .. "/" .. name) end
  local draw = ctx.rng "request-id"
  function ctx.request_id()
    local function hex(bits) return ("%04X"):format(draw(0, (1 << bits) - 1)) end
    return ("%s%s-%s-%s-%s-%s%s%s"):format(hex(16), hex(16), hex(16), hex(16), hex(16), hex(16), hex(16), hex(16))
  end
  -- Deterministic: the n-th id of a prefix is the same in every fresh world of this seed.
  function ctx.id(prefix, length, alphabet)
    local key = "id:" .. prefix
    local n = (ctx.store:get("meta", key) or 0) + 1
    ctx.store:put("meta", key, n)
    return prefix .. rng.text(seed .. "/" .. prefix .. "/" .. n, length or 17, alphabet)
  end
end

local function run_supervised(ctx, name, fn)
  while true do
    local ok, err = xpcall(fn, function(e)
      return type(e) == "string" and debug.traceback(e, 2) or e
    end)
    if ok then return end
    if type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
    ctx.log("error", "task %s: %s", name, tostring(err))
    task.sleep(restart_after)
  end
end

local function add_tasks(ctx)
  local scope = task.scope()
  ctx.scope = scope
  -- A task that ends by an error is logged and started again after a second; one that returns is done.
  function ctx.spawn(name, fn) return scope:spawn(run_supervised, ctx, name, fn) end
  function ctx.every(name, seconds, fn)
    return ctx.spawn(name, function()
      while true do
        task.sleep(type(seconds) == "function" and seconds() or seconds)
        fn()
      end
    end)
  end
end

local function call_listener(ctx, topic, fn, data)
  local ok, err = xpcall(fn, debug.traceback, data)
  if not ok then ctx.log("error", "listener of %s: %s", topic, tostring(err)) end
end

-- Listeners run at once, or after the commit when a transaction is open: what they hear has happened.
local function add_events(ctx)
  local listeners = {}
  function ctx.on(topic, fn)
    listeners[topic] = listeners[topic] or {}
    table.insert(listeners[topic], fn)
  end
  function ctx.emit(topic, data)
    ctx.store:after_commit(function()
      for _, fn in ipairs(listeners[topic] or {}) do call_listener(ctx, topic, fn, data) end
    end)
  end
end

local function make_credentials()
  local letters = crypto.hex(crypto.random(40)):upper()
  return { access_key_id = "LTAI5t" .. letters:sub(1, 18), access_key_secret = crypto.hex(crypto.random(15)),
    control_token = crypto.hex(crypto.random(24)) }
end

local function load_credentials(dir)
  local path = dir .. "/credentials.json"
  local text = fs.read(path)
  if text then
    local known, err = json.decode(text)
    return known or error(("cannot read '%s': %s"):format(path, err.message), 0)
  end
  local fresh = make_credentials()
  assert(fs.write(path, assert(json.encode(fresh)), { mode = owner_only, atomic = true }))
  return fresh
end

-- Keys that may sign: the account's own, RAM users and temporary ones of STS.
local function add_credentials(ctx)
  local own = load_credentials(ctx.dir)
  ctx.access_key_id, ctx.access_key_secret, ctx.control_token = own.access_key_id, own.access_key_secret, own.control_token
  local keys = {}
  function keys.lookup(access_key_id)
    if access_key_id == own.access_key_id then
      return { secret = own.access_key_secret, account = ctx.account, identity = "Account" }
    end
    return ctx.store:get("access_key", access_key_id)
  end
  -- record: { secret=, identity="RAMUser"|"AssumedRoleUser", name=, policies={...}, token=, expires=, status="Inactive"? }
  function keys.add(access_key_id, record)
    record.account = record.account or ctx.account
    ctx.store:put("access_key", access_key_id, record)
  end
  ctx.credentials = keys
end

local function add_services(ctx)
  ctx.services, ctx.extra_routes = {}, {}
  -- { name=, env="OSS", hosts={patterns}, plain=true, tls=true, plain_port=80, tls_port=443, handle=function(req) end }
  function ctx.service(service)
    assert(service.name and service.handle and service.hosts, "a service needs a name, hosts and a handler")
    service.plain, service.tls = service.plain ~= false, service.tls ~= false
    table.insert(ctx.services, service)
  end
  -- One more host (or address) for a service that is declared already.
  function ctx.route(pattern, port, service_name)
    table.insert(ctx.extra_routes, { host = pattern, port = port, service = service_name or "ingress" })
    if ctx.server then ctx.server:refresh() end
  end
end

local function add_store(ctx)
  ctx.store = assert(store.open(ctx.dir .. "/state.db", ctx.now))
  ctx.first_boot = ctx.store:get("meta", "complete") == nil -- until a start has come to its end
  ctx.boot = (ctx.store:get("meta", "boots") or 0) + 1
end

-- The time at which a world of DIR goes on: its last committed one, or the fixed start of a fresh one.
function world.last_time(dir)
  if not fs.stat(dir .. "/state.db") then return nil end
  local base = store.open(dir .. "/state.db", function() return 0 end)
  local last = base and base:get("meta", "clock")
  if base then base:close() end
  return last
end

-- options: { dir=, seed=, lag_scale=, lag={...}, mode=, kubeconfig=, now=(tests: a clock of their own) }
function world.new(options)
  local ctx = { dir = options.dir, region = world.region, account = world.account, cluster_id = world.cluster_id,
    bucket = world.bucket, mode = options.mode or "inprocess", now = options.now or task.now,
    options = options }
  ctx.log_project = "k8s-log-" .. ctx.cluster_id
  -- What the cloud's clocks show; a fault may put them off.
  function ctx.wall() return ctx.now() + (ctx.store:get("meta", "clock_skew") or 0) end
  ctx.lag = lag.scaled(options.lag_scale, options.lag)
  -- Pauses that are no fact of the table follow its scale all the same.
  function ctx.scaled(seconds) return seconds * (options.lag_scale or 1) end
  add_log(ctx)
  add_store(ctx)
  housekeeping.run(ctx)
  add_randomness(ctx, tostring(options.seed or 1), ctx.boot)
  add_tasks(ctx)
  add_events(ctx)
  add_credentials(ctx)
  add_services(ctx)
  ctx.jobs = jobs.new(ctx.store, ctx.now, ctx.log)
  ctx.faults = faults.new(ctx.emit)
  access.attach(ctx)
  ctx.store:put("meta", "boots", ctx.boot)
  return ctx
end

return world
