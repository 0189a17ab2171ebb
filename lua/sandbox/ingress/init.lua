-- SPDX-License-Identifier: Apache-2.0
-- The ingress controller: follows the cluster through its API, keeps the proxy's tables, publishes its address.
local task = require "eirun.core.task"
local network = require "sandbox.inference.network"
local proxy = require "sandbox.ingress.proxy"
local routes = require "sandbox.ingress.routes"
local times = require "sandbox.times"

local M = {}

M.address = "47.96.0.10"
local user = "system:serviceaccount:kube-system:ingress-nginx"
-- A request that comes before the first table was built waits for it this long: a controller that starts again has its rules at once.
local FIRST_TABLE_SECONDS = 60
-- Names that may stand in a URL before any rule names them: the route table of a run is handed out at its start.
local known_hosts = { "example.com", "*.example.com" }

local function has_address(ingress)
  local balancer = ingress.status and ingress.status.loadBalancer
  for _, entry in ipairs(balancer and balancer.ingress or {}) do
    if entry.ip == M.address then return true end
  end
end

local function event_of(self, ingress)
  local now = times.iso(self.ctx.now())
  local meta = ingress.metadata
  self.events = self.events + 1
  return { metadata = { namespace = meta.namespace, name = ("%s.%x"):format(meta.name, math.floor(self.ctx.now() * 1e6) + self.events) },
    involvedObject = { kind = "Ingress", apiVersion = "networking.k8s.io/v1", namespace = meta.namespace, name = meta.name, uid = meta.uid,
      resourceVersion = meta.resourceVersion },
    reason = "Sync", message = "Scheduled for sync", type = "Normal", count = 1, firstTimestamp = now, lastTimestamp = now,
    source = { component = "nginx-ingress-controller" }, reportingComponent = "nginx-ingress-controller" }
end

local function publish(self, ingress)
  local meta = ingress.metadata
  local patch = { status = { loadBalancer = { ingress = { { ip = self.address } } } } }
  local ok, err = self.kube:patch("ingresses", meta.namespace, meta.name, patch, { subresource = "status" })
  if not ok and err.kind ~= "not_found" then
    self.ctx.log("warn", "cannot publish the address of ingress %s/%s: %s", meta.namespace, meta.name, tostring(err))
    return false
  end
  return true
end

-- The balancer's address appears in the status some time after the Ingress was made.
local function look_after(self, ingress)
  local key = ingress.metadata.uid
  if not routes.is_ours(ingress) or has_address(ingress) or self.publishing[key] then return end
  self.publishing[key] = true
  self.ctx.spawn("ingress address " .. ingress.metadata.name, function()
    self.kube:create("events", event_of(self, ingress))
    task.sleep(self.ctx.lag.lb_address)
    while not publish(self, ingress) do task.sleep(5) end
    self.publishing[key] = nil
  end)
end

local function add_hosts(self)
  for _, host in ipairs(routes.hosts(self.proxy.tables)) do
    if not self.hosts[host] then
      self.hosts[host] = true
      self.ctx.route(host, 80, "ingress")
    end
  end
end

local function rebuild(self)
  self.proxy.tables = routes.build {
    ingresses = self.ingresses:list(), slices = self.slices:list(),
    service = function(namespace, name) return self.services:get(namespace, name) end,
  }
  add_hosts(self)
end

-- Changes of one moment make one new table, after the controller's own delay.
local function follow(self)
  while true do
    self.dirty:wait()
    task.sleep(self.ctx.lag.endpoint_update)
    self.dirty:clear()
    rebuild(self)
  end
end

local function cache(self, resource, more)
  local function changed(a, b)
    if more then more(b or a) end
    self.dirty:set()
  end
  local made = self.kube:informer(resource, { on_add = changed, on_update = changed, on_delete = function() self.dirty:set() end })
  self.ctx.spawn("ingress " .. resource, function() made:run() end)
  return made
end

local function run(self)
  self.kube = self.ctx.kube_client(user)
  self.services, self.slices = cache(self, "services"), cache(self, "endpointslices")
  self.ingresses = cache(self, "ingresses", function(ingress) look_after(self, ingress) end)
  for _, each in ipairs { self.services, self.slices, self.ingresses } do each:wait_synced() end
  rebuild(self)
  task.sleep(self.ctx.lag.endpoint_update) -- after a restart the programs behind it come back meanwhile
  self.ready:set()
  follow(self)
end

local function id_prefix(ctx)
  local draw = ctx.rng "ingress-req-id"
  return ("%08x%08x"):format(draw(0, 0xFFFFFFFF), draw(0, 0xFFFFFFFF))
end

function M.start(ctx)
  local self = { ctx = ctx, dirty = task.event(), ready = task.event(), publishing = {}, hosts = {}, events = (ctx.boot or 0) << 8,
    address = ctx.ingress_address or M.address }
  self.proxy = proxy.new { network = network.of(ctx), now = ctx.now, emit = ctx.emit, id_prefix = id_prefix(ctx) }
  local own = { self.address, table.unpack(known_hosts) }
  for _, host in ipairs(own) do self.hosts[host] = true end
  ctx.service { name = "ingress", env = "INGRESS", hosts = own, handle = function(req)
    self.ready:wait(FIRST_TABLE_SECONDS)
    self.proxy:handle(req)
  end }
  ctx.on("started", function() ctx.spawn("ingress", function() run(self) end) end)
end

return M
