-- SPDX-License-Identifier: Apache-2.0
-- One container of a pod: its image, its instances one after the other, its probes, its restarts.
local crypto = require "eirun.core.crypto"
local task = require "eirun.core.task"
local images = require "sandbox.kubelet.images"
local probes = require "sandbox.kubelet.probes"
local program = require "sandbox.kubelet.program"
local volumes = require "sandbox.kubelet.volumes"

local Container = {}
Container.__index = Container
local M = {}

local first_backoff, longest_backoff, healthy_for = 10, 300, 600
local default_grace = 30
local settle_seconds = 1 -- an adopted program is back before it is probed

---@param pod table the worker
---@param spec table of the container
---@param init boolean
function M.new(pod, spec, init)
  return setmetatable({ pod = pod, spec = spec, init = init, name = spec.name, image = spec.image, ready = false, started = false,
    restarts = 0, state = { kind = "waiting", reason = "ContainerCreating" }, field = ("spec.%s{%s}"):format(
      init and "initContainers" or "containers", spec.name) }, Container)
end

function Container:say(type, reason, format, ...)
  self.pod:say(type, reason, select("#", ...) > 0 and format:format(...) or format, self.field)
end

function Container:wait_for(reason, message)
  self.state = { kind = "waiting", reason = reason, message = message }
  self.pod:touch()
end

-- Image ------------------------------------------------------------------------------------------------------------

-- One pull per node and image at a time; whoever comes second waits for the first.
local function pull_once(self, found)
  local node, lag = self.pod.node, self.pod.lag
  local running = node.pulls[found.reference]
  if running then
    running:wait()
    return
  end
  local done = task.event()
  node.pulls[found.reference] = done
  local ok, err = pcall(task.sleep, images.pull_seconds(found.size, lag.image_pull))
  node.pulls[found.reference] = nil
  done:set()
  if not ok then error(err, 0) end
  node.images[found.reference] = true
end

local function pulled(self, found, began)
  local seconds = images.duration(task.now() - began)
  self:say("Normal", "Pulled", "Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", self.image, seconds,
    seconds, found.size)
end

local function pull_failed(self, why, pause)
  self:say("Warning", "Failed", "Failed to pull image %q: %s", self.image, why)
  self:say("Warning", "Failed", "Error: ErrImagePull")
  self:wait_for("ErrImagePull", why)
  task.sleep(math.min(pause, 10))
  self:say("Normal", "BackOff", "Back-off pulling image %q", self.image)
  self:say("Warning", "Failed", "Error: ImagePullBackOff")
  self:wait_for("ImagePullBackOff", ("Back-off pulling image %q: ErrImagePull: %s"):format(self.image, why))
  task.sleep(pause)
end

local function settle_image(self, found)
  self.reference, self.image_id = found.reference, found.reference:match "^(.*):[^:]*$" .. "@sha256:"
    .. crypto.hex(crypto.sha256(found.reference))
end

-- Blocks until the image is there; keeps trying as long as the pod lives.
local function pull(self)
  local policy, pause = images.policy(self.spec), first_backoff
  while true do
    local found, why = images.find(self.image)
    local present = found and self.pod.node.images[found.reference]
    if present and policy ~= "Always" then
      settle_image(self, found)
      task.sleep(self.pod.lag.image_cached)
      return self:say("Normal", "Pulled", "Container image %q already present on machine and can be accessed by the pod", self.image)
    elseif policy == "Never" then
      self:say("Warning", "ErrImageNeverPull", "Container image %q is not present with pull policy of Never", self.image)
      self:say("Warning", "Failed", "Error: ErrImageNeverPull")
      self:wait_for("ErrImageNeverPull", ("Container image %q is not present with pull policy of Never"):format(self.image))
      task.sleep(pause)
    else
      self:say("Normal", "Pulling", "Pulling image %q", self.image)
      if found then
        local began = task.now()
        if present then task.sleep(self.pod.lag.image_cached) else pull_once(self, found) end
        settle_image(self, found)
        return pulled(self, found, began)
      end
      pull_failed(self, why, pause)
    end
    pause = math.min(pause * 2, longest_backoff)
  end
end

-- Environment --------------------------------------------------------------------------------------------------------

local function field_value(pod, path)
  local object = pod.object
  local key = path:match "^metadata%.labels%['(.*)'%]$"
  if key then return (object.metadata.labels or {})[key] end
  key = path:match "^metadata%.annotations%['(.*)'%]$"
  if key then return (object.metadata.annotations or {})[key] end
  local values = { ["metadata.name"] = object.metadata.name, ["metadata.namespace"] = object.metadata.namespace,
    ["metadata.uid"] = object.metadata.uid, ["spec.nodeName"] = pod.node.name, ["spec.serviceAccountName"] = object.spec.serviceAccountName,
    ["status.podIP"] = pod.ip, ["status.hostIP"] = pod.node.ip }
  return values[path]
end

local function from_object(pod, resource, kind, reference)
  local object, err = pod.kube:get(resource, pod.object.metadata.namespace, reference.name)
  if not object then
    if reference.optional and err.kind == "not_found" then return {} end
    error({ config = err.kind == "not_found" and ("%s %q not found"):format(kind, reference.name) or err.message }, 0)
  end
  if resource == "configmaps" then return object.data or {} end
  local data = {}
  for key, value in pairs(object.data or {}) do data[key] = crypto.unbase64(value) end
  return data
end

local function from_key(pod, resource, kind, reference)
  local data = from_object(pod, resource, kind, reference)
  if data[reference.key] == nil and not reference.optional then
    error({ config = ("couldn't find key %s in %s %s/%s"):format(reference.key, kind == "secret" and "Secret" or "ConfigMap",
      pod.object.metadata.namespace, reference.name) }, 0)
  end
  return data[reference.key]
end

local function value_of(pod, entry)
  local from = entry.valueFrom
  if not from then return entry.value or "" end
  if from.fieldRef then return field_value(pod, from.fieldRef.fieldPath) end
  if from.configMapKeyRef then return from_key(pod, "configmaps", "configmap", from.configMapKeyRef) end
  if from.secretKeyRef then return from_key(pod, "secrets", "secret", from.secretKeyRef) end
  return ""
end

local function environment(self)
  local env = { HOSTNAME = self.pod.object.metadata.name }
  for _, source in ipairs(self.spec.envFrom or {}) do
    local data = source.configMapRef and from_object(self.pod, "configmaps", "configmap", source.configMapRef)
      or source.secretRef and from_object(self.pod, "secrets", "secret", source.secretRef) or {}
    for key, value in pairs(data) do env[(source.prefix or "") .. key] = value end
  end
  for _, entry in ipairs(self.spec.env or {}) do
    local value = value_of(self.pod, entry)
    env[entry.name] = value and value:gsub("%$%(([%w_]+)%)", function(name) return env[name] end)
  end
  return env
end

-- A container whose configuration is missing waits for it.
local function settle_environment(self)
  while true do
    local ok, env = pcall(environment, self)
    if ok then return env end
    if type(env) ~= "table" or not env.config then error(env, 0) end
    self:say("Warning", "Failed", "Error: %s", env.config)
    self:wait_for("CreateContainerConfigError", env.config)
    task.sleep(first_backoff)
  end
end

-- Instances ----------------------------------------------------------------------------------------------------------

local function listened_ports(spec)
  local list, seen = {}, {}
  local function add(port)
    if type(port) == "number" and not seen[port] then
      seen[port] = true
      list[#list + 1] = port
    end
  end
  for _, port in ipairs(spec.ports or {}) do add(port.containerPort) end
  for _, name in ipairs { "startupProbe", "readinessProbe", "livenessProbe" } do
    local probe = spec[name] or {}
    add((probe.httpGet or {}).port)
    add((probe.tcpSocket or {}).port)
  end
  return list
end

local function gpus_of(spec)
  local limits = spec.resources and spec.resources.limits or {}
  return tonumber(limits["nvidia.com/gpu"] or 0) or 0
end

local function new_program(self, env)
  local pod = self.pod
  local uid = pod.object.metadata.uid
  self.files = volumes.view(self.spec, pod.ready_volumes)
  return program.new(self.spec, { env = env, ip = pod.ip, network = pod.network, files = self.files,
    log = pod.logs:open(uid, self.name, self.adopted), draw = pod.ctx.rng("replica/" .. pod.object.metadata.name .. "/" .. self.name),
    load_seconds = self.adopted and 0 or pod.lag.model_load, accelerator = gpus_of(self.spec) > 0 and pod.node:accelerator() or nil,
    ports = listened_ports(self.spec), ends = self.init or pod.object.spec.restartPolicy ~= "Always" })
end

local function container_id(self)
  local pod = self.pod
  return "containerd://" .. crypto.hex(crypto.sha256(("%s/%s/%d"):format(pod.object.metadata.uid, self.name, self.restarts)))
end

local function set_ready(self, ready)
  if self.ready == ready then return end
  self.ready = ready
  self.pod:touch()
end

-- Starts the loops of one probe kind in the instance's scope.
local function spawn_probe(self, scope, kind, changed)
  local probe = self.spec[kind .. "Probe"]
  if not probe then return false end
  local word = kind:sub(1, 1):upper() .. kind:sub(2)
  scope:spawn(function()
    probes.run { probe = probe, changed = changed,
      look = function() return probes.look({ network = self.pod.network, ip = self.pod.ip, files = self.files }, self.spec, probe) end,
      failed = function(why) self:say("Warning", "Unhealthy", "%s probe failed: %s", word, why) end }
  end)
  return true
end

local function kill_for(self, kind)
  return function(ok)
    if ok then return nil end
    self:say("Normal", "Killing", "Container %s failed %s probe, will be restarted", self.name, kind)
    self.running:stop()
    return "stop"
  end
end

local function watch_health(self, scope)
  spawn_probe(self, scope, "liveness", kill_for(self, "liveness"))
  local has_readiness = spawn_probe(self, scope, "readiness", function(ok) set_ready(self, ok) end)
  if not has_readiness then set_ready(self, true) end
end

local function after_start(self, scope)
  if self.adopted and self.was_ready then self.ready = true end
  if self.adopted then task.sleep(settle_seconds) end
  local waits = spawn_probe(self, scope, "startup", function(ok)
    if not ok then return kill_for(self, "startup")(false) end
    self.started = true
    self.pod:touch()
    watch_health(self, scope)
    return "stop"
  end)
  if waits then return end
  self.started = true
  watch_health(self, scope)
end

-- Runs one instance to its end and answers its exit code. Probes live as long as it does.
local function run_instance(self)
  local scope <close> = task.scope()
  local code
  scope:spawn(function()
    code = self.running:run()
    scope:cancel "the container has ended"
  end)
  if not self.init then scope:spawn(function() after_start(self, scope) end) end
  local ok, err = pcall(scope.join, scope)
  if code == nil then error(ok and "a container ended without a code" or err, 0) end
  return code
end

local function start_instance(self, env)
  self.running = new_program(self, env)
  self.container_id = container_id(self)
  local before = self.adopted and self.state
  self.state = { kind = "running", started_at = before and before.started_at or task.now() }
  if not self.adopted then
    self:say("Normal", "Created", "Container created")
    self:say("Normal", "Started", "Container started")
  end
  self.started, self.ready = false, self.init
  self.pod:touch()
end

local function ended(self, code)
  local uid = self.pod.object.metadata.uid
  self.pod.logs:finish(uid, self.name)
  self.running:stop()
  self.state = { kind = "terminated", code = code, reason = code == 0 and "Completed" or "Error", started_at = self.state.started_at,
    finished_at = task.now(), container_id = self.container_id }
  self.ready, self.started, self.running = false, false, nil
  self.pod:touch()
end

local function restarts_after(self, code)
  local policy = self.pod.object.spec.restartPolicy or "Always"
  if self.init then return code ~= 0 and policy ~= "Never" end
  return policy == "Always" or (policy == "OnFailure" and code ~= 0)
end

local function back_off(self)
  local pod, pause = self.pod, self.backoff
  local meta = pod.object.metadata
  local who = ("%s_%s(%s)"):format(meta.name, meta.namespace, meta.uid)
  self:say("Warning", "BackOff", "Back-off restarting failed container %s in pod %s", self.name, who)
  self:wait_for("CrashLoopBackOff", ("back-off %s restarting failed container=%s pod=%s"):format(images.duration(pause), self.name, who))
  task.sleep(pause)
end

-- The first restart is at once; the next ones wait 10 s, 20 s ... 5 min, until an instance has run for ten minutes.
local function prepare_restart(self)
  self.last = self.state
  local lived = self.state.finished_at - self.state.started_at
  if lived >= healthy_for then self.backoff = nil end
  if self.backoff then back_off(self) end
  self.backoff = self.backoff and math.min(self.backoff * 2, longest_backoff) or first_backoff
  self.restarts = self.restarts + 1
end

---Runs the container until it is through or the pod ends.
function Container:run()
  while true do
    if not self.adopted then pull(self) end
    local env = settle_environment(self)
    if not self.adopted then task.sleep(self.pod.lag.container_start) end
    start_instance(self, env)
    local code = run_instance(self)
    self.adopted = nil
    ended(self, code)
    if self.pod.ending or not restarts_after(self, code) then return code end
    prepare_restart(self)
  end
end

-- preStop as far as it only waits.
local function pre_stop_seconds(spec)
  local hook = spec.lifecycle and spec.lifecycle.preStop
  if not hook then return 0 end
  if hook.sleep then return hook.sleep.seconds or 0 end
  local text = table.concat(hook.exec and hook.exec.command or {}, " ")
  return tonumber(text:match "sleep%s+(%d+)") or 0
end

---Graceful end: event, hook, SIGTERM.
---@param grace integer seconds
function Container:stop(grace)
  if not self.running then return end
  self:say("Normal", "Killing", "Stopping container %s", self.name)
  task.sleep(math.min(pre_stop_seconds(self.spec), grace or default_grace))
  if self.running then self.running:stop() end
end

---Takes up a container that ran before the sandbox was restarted.
function Container:adopt(status)
  self.restarts = status.restartCount or 0
  local running = status.state and status.state.running
  if not running then return end
  local found = images.find(self.image)
  if found then
    settle_image(self, found)
    self.pod.node.images[found.reference] = true
  end
  self.adopted, self.was_ready, self.ready = true, status.ready, status.ready
  self.state = { kind = "running", started_at = self.pod.parse_time(running.startedAt) or task.now() }
end

return M
