-- SPDX-License-Identifier: Apache-2.0
-- The node scaler: pods that no node can take make pools grow, nodes that stay idle leave. It sees the cluster as a
-- Kubernetes client and changes scaling groups as ACK's scalers do. It runs once CreateAutoscalingConfig was called.
local task = require "eirun.core.task"
local autoscale = require "sandbox.cloud.cs.autoscale"
local catalog = require "sandbox.cloud.catalog"
local clusterops = require "sandbox.cloud.clusterops"
local fit = require "sandbox.cloud.fit"
local groups = require "sandbox.cloud.groups"
local instances = require "sandbox.cloud.instances"
local market = require "sandbox.cloud.market"
local nodeshape = require "sandbox.cloud.nodeshape"
local pools = require "sandbox.cloud.pools"
local quantity = require "sandbox.cloud.quantity"
local times = require "sandbox.times"

local autoscaler = {}

local function is_unschedulable(pod)
  if pod.spec.nodeName and pod.spec.nodeName ~= "" then return false end
  if pod.metadata.deletionTimestamp then return false end
  for _, condition in ipairs(pod.status and pod.status.conditions or {}) do
    if condition.type == "PodScheduled" and condition.status == "False" and condition.reason == "Unschedulable" then return true end
  end
  return false
end

local function by_creation(a, b)
  local left, right = a.metadata.creationTimestamp or "", b.metadata.creationTimestamp or ""
  if left ~= right then return left < right end
  return a.metadata.name < b.metadata.name
end

local function pending_pods(pods)
  local list = {}
  for _, pod in ipairs(pods:list()) do
    if is_unschedulable(pod) then list[#list + 1] = pod end
  end
  table.sort(list, by_creation)
  return list
end

local function finished(pod) return pod.status and (pod.status.phase == "Succeeded" or pod.status.phase == "Failed") end

local function pods_by_node(pods)
  local map = {}
  for _, pod in ipairs(pods:list()) do
    local name = pod.spec.nodeName
    if name and name ~= "" and not finished(pod) then
      map[name] = map[name] or {}
      table.insert(map[name], pod)
    end
  end
  return map
end

local function is_ready(node)
  for _, condition in ipairs(node.status and node.status.conditions or {}) do
    if condition.type == "Ready" then return condition.status == "True" end
  end
  return false
end

-- A real node as the simulation sees it.
local function present(node, pods_on)
  local allocatable = quantity.map(node.status and node.status.allocatable)
  local free = quantity.add({}, allocatable)
  for _, pod in ipairs(pods_on or {}) do quantity.add(free, fit.requests(pod), -1) end
  return { labels = node.metadata.labels or {}, taints = node.spec and node.spec.taints or {}, free = free,
    unschedulable = node.spec and node.spec.unschedulable or false, name = node.metadata.name, allocatable = allocatable }
end

-- A node that the pool would bring, or that is on its way.
local function expected(ctx, pool, type_name, zone, spot_strategy)
  return { labels = instances.labels(ctx, pool, { type = type_name, zone = zone, spot_strategy = spot_strategy or "NoSpot" }),
    taints = pool.spec.kubernetes_config.taints, free = quantity.map(nodeshape.allocatable(type_name)) }
end

-- Instances whose node has not become ready yet: capacity that is already paid for.
local function upcoming(ctx, ready)
  local list = {}
  for _, instance in ctx.store:each "instance" do
    local pool = ctx.store:get("pool", instance.pool_id)
    if pool and instance.ess ~= "Removing" and not ready[instance.node_name] then
      list[#list + 1] = expected(ctx, pool, instance.type, instance.zone, instance.spot_strategy)
    end
  end
  return list
end

local function view(self)
  local by_node, nodes, ready = pods_by_node(self.pods), {}, {}
  for _, node in ipairs(self.nodes:list()) do
    if is_ready(node) then
      ready[node.metadata.name] = true
      nodes[#nodes + 1] = present(node, by_node[node.metadata.name])
    end
  end
  return { by_node = by_node, nodes = nodes, ready = ready, upcoming = upcoming(self.ctx, ready) }
end

-- Pods that neither a present nor a coming node can take.
local function left_over(pending, seen)
  local room, rest = table.move(seen.nodes, 1, #seen.nodes, 1, {}), {}
  table.move(seen.upcoming, 1, #seen.upcoming, #room + 1, room)
  for _, pod in ipairs(pending) do
    if not fit.place(pod, room) then rest[#rest + 1] = pod end
  end
  return rest
end

-- The least of every resource over the pool's types: what can be counted on whichever is bought.
local function template(ctx, pool, group)
  local types = group.instance_types
  local made = expected(ctx, pool, types[1], groups.settings(group).zones[1], group.spot_strategy)
  for i = 2, #types do
    local other = quantity.map(nodeshape.allocatable(types[i]))
    for name, value in pairs(made.free) do made.free[name] = math.min(value, other[name] or 0) end
  end
  return made
end

local function scalable_pools(ctx, settings)
  local list = {}
  for _, pool in ipairs(pools.list(ctx)) do
    local group = groups.of_pool(ctx, pool)
    local members = group and #groups.members(ctx, group) or 0
    local able = group and group.auto_scaling and not pool.state and members < group.max and (members > 0 or settings.from_zero)
    if able and not (settings.scaler == "goatscaler" and group.scaling_policy == "recycle") then
      list[#list + 1] = { pool = pool, group = group, members = members }
    end
  end
  return list
end

local function waste(option)
  local total, free = 0, 0
  for _, node in ipairs(option.nodes) do total, free = total + (option.template.free.cpu or 0), free + math.max(0, node.free.cpu or 0) end
  return total > 0 and free / total or 0
end

local function priority_of(settings, group)
  local best = 0
  for priority, ids in pairs(settings.priorities or {}) do
    for _, id in ipairs(ids) do
      if id == group.id then best = math.max(best, tonumber(priority) or 0) end
    end
  end
  return best
end

-- Instant scaling knows no expanders: it takes the pool whose smallest type in stock has the fewest vCPUs. It looks at on-demand stock
-- alone, works on few nodes at a time, and cannot stop nodes instead of releasing them.
local goatscaler_batch = 180

local function smallest_type(ctx, group)
  local least
  for _, name in ipairs(group.instance_types) do
    for _, zone in ipairs(groups.settings(group).zones) do
      local cpu = market.left(ctx, name, zone, false) > 0 and catalog.type(name).cpu
      if cpu and (not least or cpu < least) then least = cpu end
    end
  end
  return least
end

local function goatscaler_order(ctx)
  return function(a, b)
    local left, right = smallest_type(ctx, a.group) or math.huge, smallest_type(ctx, b.group) or math.huge
    if left ~= right then return left < right end
    return waste(a) < waste(b)
  end
end

local better = {}
better["least-waste"] = function(a, b) return waste(a) < waste(b) end
better.random = function(a, b) return a.draw < b.draw end

function better.priority(a, b, settings) return priority_of(settings, a.group) > priority_of(settings, b.group) end

-- The best way to serve the pods: one pool and a number of nodes.
local function choose(self, settings, rest)
  local best
  local goat = settings.scaler == "goatscaler"
  local is_better = goat and goatscaler_order(self.ctx) or better[settings.expander]
  for _, option in ipairs(scalable_pools(self.ctx, settings)) do
    option.template = template(self.ctx, option.pool, option.group)
    local room = option.group.max - option.members
    option.nodes, option.placed = fit.estimate(rest, option.template, goat and math.min(room, goatscaler_batch) or room)
    option.draw = self.draw()
    if #option.nodes > 0 and (not best or is_better(option, best, settings)) then best = option end
  end
  return best
end

-- Events of one pod and reason are said once, as far as this process remembers.
local function say(self, pod, kind, reason, message)
  local mark = pod.metadata.uid .. reason .. message
  if self.said[mark] then return end
  self.said[mark] = true
  local now = times.iso(self.ctx.now())
  self.kube:create("events", { metadata = { name = ("%s.%s"):format(pod.metadata.name, self.ctx.id("", 16, "hex")),
    namespace = pod.metadata.namespace },
    involvedObject = { kind = "Pod", apiVersion = "v1", namespace = pod.metadata.namespace, name = pod.metadata.name,
      uid = pod.metadata.uid },
    type = kind, reason = reason, message = message, count = 1, firstTimestamp = now, lastTimestamp = now,
    source = { component = self.component }, reportingComponent = self.component, reportingInstance = "" })
end

local words = {
  ["cluster-autoscaler"] = { yes = "TriggeredScaleUp", no = "NotTriggerScaleUp", failed = "FailedToScaleUpGroup" },
  goatscaler = { yes = "ProvisionNode", no = "NotTriggerScaleUp", failed = "ProvisionNodeFailed" },
}

-- Instant scaling cannot see spot stock: with compensation allowed it may buy on-demand although spot is to be had. Off
-- unless a fault turns it on.
local function billing_of(self, settings, group)
  local quirk = settings.scaler == "goatscaler" and self.ctx.store:get("meta", "goatscaler_quirk")
  return quirk and group.compensate_with_on_demand and "on_demand" or nil
end

local function grow(self, settings, option)
  local group, before = option.group, option.members
  local wanted = before + #option.nodes
  local bought, missing, activity = groups.set_desired(self.ctx, group, wanted, "The node scaler asked for more instances",
    billing_of(self, settings, group))
  if settings.scaler == "goatscaler" and activity then
    activity.metadata = '{"goatscaler.io/managed":"true"}'
    self.ctx.store:put("activity", activity.id, activity)
  end
  self.last_growth = self.ctx.now()
  local vocabulary = words[settings.scaler]
  local grown = ("pod triggered scale-up: [{%s %d->%d (max: %d)}]"):format(group.id, before, wanted, group.max)
  local failed = ("scaling group %s: OperationDenied.NoStock, %d instance(s) missing"):format(group.id, missing)
  for _, pod in ipairs(option.placed) do
    if #bought > 0 then say(self, pod, "Normal", vocabulary.yes, grown) end
    if missing > 0 then say(self, pod, "Warning", vocabulary.failed, failed) end
  end
end

local function why_not(self, settings, pod)
  local reasons = {}
  local requests = fit.requests(pod)
  for _, pool in ipairs(pools.list(self.ctx)) do
    local group = groups.of_pool(self.ctx, pool)
    if group and group.auto_scaling then
      local full = #groups.members(self.ctx, group) >= group.max
      local reason = full and "max node group size reached" or fit.reason(pod, template(self.ctx, pool, group), requests)
      reasons[#reasons + 1] = reason and "1 " .. reason
    end
  end
  if #reasons == 0 then reasons[1] = "no node pool scales automatically" end
  say(self, pod, "Normal", words[settings.scaler].no, "pod didn't trigger scale-up: " .. table.concat(reasons, ", "))
end

local function scale_out(self, settings, seen)
  local rest = left_over(pending_pods(self.pods), seen)
  while #rest > 0 do
    local option = choose(self, settings, rest)
    if not option then break end
    local done = {}
    for _, pod in ipairs(option.placed) do done[pod.metadata.uid] = true end
    grow(self, settings, option)
    local still = {}
    for _, pod in ipairs(rest) do
      if not done[pod.metadata.uid] then still[#still + 1] = pod end
    end
    rest = still
  end
  for _, pod in ipairs(rest) do why_not(self, settings, pod) end
end

local function has_controller(pod)
  for _, owner in ipairs(pod.metadata.ownerReferences or {}) do
    if owner.controller then return true end
  end
  return false
end

-- Pods that must find another home before the node may go; nil when one of them cannot be moved at all.
local function to_move(pods_on)
  local list = {}
  for _, pod in ipairs(pods_on or {}) do
    if not clusterops.is_daemon(pod) then
      local annotations = pod.metadata.annotations or {}
      local safe = annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"]
      if safe == "false" or (safe ~= "true" and not has_controller(pod)) then return nil end
      list[#list + 1] = pod
    end
  end
  return list
end

local function others_can_take(seen, node, pods)
  local room = {}
  for _, other in ipairs(seen.nodes) do
    if other.name ~= node.name then
      room[#room + 1] = { labels = other.labels, taints = other.taints, unschedulable = other.unschedulable,
        free = quantity.add({}, other.free) }
    end
  end
  for _, pod in ipairs(pods) do
    if not fit.place(pod, room) then return false end
  end
  return true
end

local function unneeded(settings, seen, node)
  local used = {}
  for _, pod in ipairs(seen.by_node[node.name] or {}) do
    if not clusterops.is_daemon(pod) then quantity.add(used, fit.requests(pod)) end
  end
  local share, gpu = fit.utilization(node.allocatable, used)
  if share >= (gpu and settings.gpu_utilization or settings.utilization) then return false end
  local pods = to_move(seen.by_node[node.name])
  return pods ~= nil and others_can_take(seen, node, pods), pods and #pods == 0
end

local function instance_of(ctx, node_name)
  for _, instance in ctx.store:each "instance" do
    if instance.node_name == node_name and instance.ess == "InService" then return instance end
  end
end

local function shrink(self, instance, group)
  local taint = { key = "ToBeDeletedByClusterAutoscaler", value = tostring(math.floor(self.ctx.now())), effect = "NoSchedule" }
  self.kube:modify("nodes", nil, instance.node_name, function(node)
    node.spec.taints = node.spec.taints or {}
    table.insert(node.spec.taints, taint)
  end)
  clusterops.drain(self.kube, instance.node_name, 600)
  self.ctx.store:tx(function()
    group.desired = math.max(group.min, group.desired - 1)
    groups.remove(self.ctx, group, { instance }, "The node scaler removed an idle instance")
    self.ctx.store:put("group", group.id, group)
  end)
end

-- Nodes below the threshold for long enough; of those that still run pods only one goes at a time.
local function scale_in(self, settings, seen)
  local now, busy_gone = self.ctx.now(), false
  for _, node in ipairs(seen.nodes) do
    local instance = instance_of(self.ctx, node.name)
    local group = instance and self.ctx.store:get("group", instance.group_id)
    local idle, empty = false, false
    if group and group.auto_scaling then idle, empty = unneeded(settings, seen, node) end
    self.idle_since[node.name] = idle and (self.idle_since[node.name] or now) or nil
    local ripe = idle and now - self.idle_since[node.name] >= settings.unneeded and now - self.last_growth >= settings.quiet
    if ripe and #groups.members(self.ctx, group) > group.min and (empty or not busy_gone) then
      busy_gone = busy_gone or not empty
      shrink(self, instance, group)
    end
  end
end

-- The growth of a time before this process is remembered by the activities.
local function last_growth(ctx)
  local last = -math.huge
  for _, activity in ctx.store:each "activity" do
    if #activity.created > 0 then last = math.max(last, activity.start) end
  end
  return last
end

-- One scaler; kube is a client of the cluster.
function autoscaler.new(ctx, kube)
  return { ctx = ctx, kube = kube, said = {}, idle_since = {}, last_growth = last_growth(ctx), draw = ctx.rng "autoscaler",
    pods = kube:informer "pods", nodes = kube:informer "nodes" }
end

local function connect(ctx)
  local self = autoscaler.new(ctx, ctx.kube_client "system:serviceaccount:kube-system:cluster-autoscaler")
  ctx.spawn("autoscaler pods", function() self.pods:run() end)
  ctx.spawn("autoscaler nodes", function() self.nodes:run() end)
  self.pods:wait_synced()
  self.nodes:wait_synced()
  return self
end

-- One round: grow for pods that wait, then let idle nodes go.
function autoscaler.scan(self, settings)
  self.component = settings.scaler
  local seen = view(self)
  scale_out(self, settings, seen)
  if settings.scale_down or settings.scaler == "goatscaler" then scale_in(self, settings, view(self)) end
end

local function loop(ctx, changed)
  while not autoscale.settings(ctx) do
    changed:wait()
    changed:clear()
  end
  local self = connect(ctx)
  while true do
    task.sleep(autoscale.settings(ctx).scan_interval)
    autoscaler.scan(self, autoscale.settings(ctx)) -- they may have changed meanwhile
  end
end

function autoscaler.start(ctx)
  local changed = task.event()
  ctx.on("autoscaling.changed", function() changed:set() end)
  ctx.on("started", function() ctx.spawn("autoscaler", function() loop(ctx, changed) end) end)
end

return autoscaler
