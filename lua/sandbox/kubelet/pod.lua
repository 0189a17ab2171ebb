-- SPDX-License-Identifier: Apache-2.0
-- One pod on one node, from the moment it is bound until it is gone.
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local tasks = require "eirun.task"
local container = require "sandbox.kubelet.container"
local status = require "sandbox.kubelet.status"
local times = require "sandbox.times"
local volumes = require "sandbox.kubelet.volumes"

local Pod = {}
Pod.__index = Pod
local M = {}

local first_mount_pause, longest_mount_pause = 0.5, 122
local finished = { Succeeded = true, Failed = true }

M.finished = finished

local function containers_of(self, list, init)
  local made = {}
  for i, spec in ipairs(list or {}) do made[i] = container.new(self, spec, init) end
  return made
end

local function creating(self)
  local waiting = #self.init_containers > 0 and "PodInitializing" or "ContainerCreating"
  for _, one in ipairs(self.containers) do one.state.reason = waiting end
end

---@param node table where it runs
---@param object table the Pod
function M.new(node, object)
  local kubelet = node.kubelet
  local self = setmetatable({ node = node, object = object, kubelet = kubelet, ctx = kubelet.ctx, kube = kubelet.kube,
    lag = kubelet.ctx.lag, network = kubelet.network, logs = kubelet.logs, inbox = tasks.queue(), dirty = task.event(),
    ready_volumes = {}, ending = false,
    host_ip = node.ip, restart_policy = object.spec.restartPolicy or "Always", parse_time = times.parse,
    conditions = object.status and object.status.conditions, start_time = task.now() }, Pod)
  self.init_containers = containers_of(self, object.spec.initContainers, true)
  self.containers = containers_of(self, object.spec.containers, false)
  creating(self)
  return self
end

function Pod:say(type, reason, message, field)
  self.kubelet.events:say({ kind = "Pod", metadata = self.object.metadata }, type, reason, message, field)
end

---The status changed; it is sent soon, and only once for all changes of a moment.
function Pod:touch() self.dirty:set() end

-- Status ---------------------------------------------------------------------------------------------------------

-- Answers false when the pod is not there any more.
local function send_status(self)
  local meta, wanted = self.object.metadata, status.of(self, task.now())
  local text = json.encode(wanted)
  if text == self.sent then return true end
  local patch = { metadata = { uid = meta.uid }, status = wanted }
  local object, err = self.kube:patch("pods", meta.namespace, meta.name, patch, { subresource = "status" })
  if object then
    self.sent = text
    return true
  end
  if err.kind == "not_found" or err.kind == "conflict" then return false end
  self.ctx.log("warn", "cannot report the status of pod %s/%s: %s", meta.namespace, meta.name, tostring(err))
  task.sleep(1)
  self.dirty:set()
  return true
end

local function report(self)
  while true do
    self.dirty:wait()
    self.dirty:clear()
    if not send_status(self) then return self.inbox:put "gone" end
  end
end

-- Start ------------------------------------------------------------------------------------------------------------

local function volume_world(self)
  return { kube = self.kube, node = self.node, namespace = self.object.metadata.namespace, region = self.ctx.region,
    account = self.ctx.account, cluster_id = self.ctx.cluster_id,
    mount_seconds = self.adopted and 0 or self.lag.mount, http = self.kubelet.http, now = self.ctx.now }
end

local function mount_one(self, volume)
  local pause = first_mount_pause
  while true do
    local ready, message = volumes.setup(volume_world(self), volume)
    if ready then
      self.ready_volumes[volume.name] = ready
      return
    end
    self:say("Warning", "FailedMount", message)
    task.sleep(pause)
    pause = math.min(pause * 2, longest_mount_pause)
  end
end

local function take_address(self)
  local before = self.object.status and self.object.status.podIP
  if self.object.spec.hostNetwork then
    self.ip = self.node.ip
  else
    self.ip = self.node:take_address(before)
    if self.ip then self.network:attach(self.ip) end
  end
  if not self.ip then
    self:say("Warning", "FailedCreatePodSandBox", "Failed to create pod sandbox: no address is left in " .. self.node.prefix .. ".0/24")
    error("no address left on " .. self.node.name, 0)
  end
end

local function run_init(self)
  for _, one in ipairs(self.init_containers) do
    local code = one:run()
    if code ~= 0 then
      self.phase = "Failed"
      self:touch()
      return false
    end
  end
  return true
end

local function all_through(self)
  for _, one in ipairs(self.containers) do
    if one.state.kind ~= "terminated" then return false end
  end
  return true
end

local function run_containers(self, scope)
  for _, one in ipairs(self.containers) do
    one.state.reason = one.state.kind == "waiting" and "ContainerCreating" or one.state.reason
    scope:spawn(function()
      one:run()
      if all_through(self) then self.inbox:put "finished" end
    end)
  end
end

local function start(self, scope)
  if not self.adopted then task.sleep(self.lag.kubelet_sync) end
  self:touch()
  for _, volume in ipairs(self.object.spec.volumes or {}) do mount_one(self, volume) end
  take_address(self)
  self:touch()
  if not self.adopted and not run_init(self) then return self.inbox:put "finished" end
  run_containers(self, scope)
end

-- End ----------------------------------------------------------------------------------------------------------------

-- `lost`: the machine is off, so packets to its pods vanish instead of being refused.
local function release(self, lost)
  for _, one in ipairs(self.containers) do
    if one.running then one.running:stop() end
  end
  volumes.teardown(self.node, self.ready_volumes)
  if self.ip and self.ip ~= self.node.ip then
    if lost then self.network:cut(self.ip) else self.network:close(self.ip) end
    self.node:free_address(self.ip)
  end
end

local function stop_all(self, grace)
  local scope <close> = task.scope()
  for _, one in ipairs(self.containers) do
    scope:spawn(function() one:stop(grace) end)
  end
  scope:join()
end

-- What was running is told as ended by the signal before the pod goes.
local function settle_states(self)
  for _, one in ipairs(self.containers) do
    if one.state.kind == "running" then
      one.state = { kind = "terminated", code = 143, reason = "Error", started_at = one.state.started_at, finished_at = task.now(),
        container_id = one.container_id }
      one.ready, one.started = false, false
    end
  end
end

local function remove(self)
  local meta = self.object.metadata
  for _ = 1, 10 do
    local ok, err = self.kube:delete("pods", meta.namespace, meta.name, { grace = 0, uid = meta.uid })
    if ok or err.kind == "not_found" or err.kind == "conflict" then return end
    task.sleep(1)
  end
end

local function terminate(self, scope)
  self.ending = true
  local grace = self.object.metadata.deletionGracePeriodSeconds or 30
  if grace > 0 then stop_all(self, grace) end
  scope:cancel "the pod is deleted"
  pcall(scope.join, scope)
  settle_states(self)
  send_status(self)
  release(self)
  remove(self)
end

local function wait_for_the_end(self, scope)
  while true do
    local word = self.inbox:get()
    if word == "delete" then return terminate(self, scope) end
    if word == "gone" or word == "lost" then
      self.ending = true
      scope:cancel "the pod is gone"
      pcall(scope.join, scope)
      return release(self, word == "lost")
    end
    if word == "finished" then
      self.phase = self.phase or status.phase(self)
      self:touch()
    end
  end
end

---Runs the pod's whole life; blocks. None of its tasks outlives it, also when the whole sandbox ends.
function Pod:run()
  local scope <close> = task.scope()
  local function guarded(name, fn)
    scope:spawn(function()
      local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e, 2) or e end)
      if ok or (type(err) == "table" and err.kind == "cancelled") then return end
      self.ctx.log("error", "%s of pod %s: %s", name, self.object.metadata.name, tostring(err))
    end)
  end
  guarded("status", function() report(self) end)
  guarded("start", function() start(self, { spawn = function(_, fn) guarded("container", fn) end }) end)
  local ok, err = pcall(wait_for_the_end, self, scope)
  if not ok then
    scope:cancel "the sandbox ends"
    pcall(scope.join, scope)
    error(err, 0)
  end
  self.kubelet.events:forget(self.object.metadata.uid)
  self.logs:forget(self.object.metadata.uid)
end

---Word from the watch: the object changed.
function Pod:update(object)
  local was = self.object.metadata.deletionTimestamp
  self.object = object
  self.conditions = status.keep_foreign(self.conditions, object.status and object.status.conditions)
  if object.metadata.deletionTimestamp and not was then self.inbox:put "delete" end
end

---Takes up a pod that ran before the sandbox was restarted.
function Pod:adopt()
  local known = self.object.status
  if not known or known.phase ~= "Running" or not known.podIP then return end
  self.adopted, self.start_time = true, times.parse(known.startTime or "") or self.start_time
  for i, one in ipairs(self.init_containers) do
    one.state = { kind = "terminated", code = 0, reason = "Completed", started_at = self.start_time, finished_at = self.start_time,
      container_id = (known.initContainerStatuses or {})[i] and known.initContainerStatuses[i].containerID }
  end
  for _, one in ipairs(self.containers) do
    for _, entry in ipairs(known.containerStatuses or {}) do
      if entry.name == one.name then one:adopt(entry) end
    end
  end
end

return M
