-- SPDX-License-Identifier: Apache-2.0
-- The sandbox cloud: one state directory, one set of services. Started in a state of its own by
-- eirun.core.vm; args is JSON { dir, mode="inprocess"|"serve", clock, seed, kubeconfig?, lag_scale?, lag?, parts? }.
local clock = require "eirun.core.clock"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local vm = require "eirun.core.vm"
local server = require "sandbox.server"
local serving = require "sandbox.serving"
local world = require "sandbox.world"

local parts = { "sandbox.control", "sandbox.cloud", "sandbox.sls", "sandbox.oss", "sandbox.kube", "sandbox.kubelet", "sandbox.ingress",
  "sandbox.inference" }

local owner_only = tonumber("700", 8)

-- In one process the clock goes on from what was committed last, at whatever pace; a fresh virtual world starts at a fixed date. A world
-- that programs with clocks of their own look at (or whose starter named no clock) keeps the time that it finds unless it is ahead of
-- it: nothing may happen before what has happened.
local function settle_clock(args)
  local last = world.last_time(args.dir)
  local alone = args.clock and args.mode ~= "serve" and not args.kubeconfig
  if args.clock == "virtual" then
    if clock.kind() ~= "virtual" then clock.use("virtual", last or world.fresh_start) end
  elseif last and (alone or last > task.now()) then
    clock.use("scaled", clock.factor(), last)
  end
end

local function settle_directory(dir)
  if not fs.stat(dir) then assert(fs.mkdir(dir, { parents = true, mode = owner_only })) end
end

-- A part that this build lacks is left out; one that fails to load is an error. A real control plane
-- takes the place of the emulated one; the metrics adapter is then registered there.
local function start_part(ctx, name)
  if name == "sandbox.kube" and ctx.options.kubeconfig then name = "sandbox.aggregation" end
  local found, part = pcall(require, name)
  if not found then
    if tostring(part):find("module '" .. name .. "' not found", 1, true) then return end
    error(part, 0)
  end
  part.start(ctx)
end

local function announcement(ctx)
  return { region = ctx.region, account = ctx.account, cluster_id = ctx.cluster_id, access_key_id = ctx.access_key_id,
    access_key_secret = ctx.access_key_secret, ca_file = ctx.dir .. "/ca.pem", bucket = ctx.bucket, dir = ctx.dir,
    routes = json.array(ctx.server:routes()), first_boot = ctx.first_boot }
end

local function start_all(ctx)
  for _, name in ipairs(ctx.options.parts or parts) do start_part(ctx, name) end
  server.start(ctx)
  ctx.emit("started", {})
  ctx.spawn("jobs", function() ctx.jobs:loop() end)
  if ctx.first_boot then ctx.store:put("meta", "complete", true) end
  if ctx.mode == "serve" then serving.write(ctx) end
  vm.announce(assert(json.encode(announcement(ctx))))
  ctx.scope:join()
end

-- Also runs when the state is cancelled; what was acknowledged has been committed long before.
local function close(ctx)
  if ctx.mode == "serve" then serving.remove(ctx.dir) end
  if ctx.server then ctx.server:close() end
  ctx.emit("stopping", {})
  if ctx.access_logs then ctx.access_logs:close() end
  ctx.store:close()
end

local function run(args)
  settle_directory(args.dir)
  local lock <close>, err = fs.lock(args.dir .. "/lock")
  if not lock then error(err, 0) end
  settle_clock(args)
  local ctx = world.new(args)
  local ok, failure = pcall(start_all, ctx)
  close(ctx)
  if not ok then error(failure, 0) end
end

return function(text) return run(assert(json.decode(text))) end
