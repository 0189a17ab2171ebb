-- SPDX-License-Identifier: Apache-2.0
-- One node: its object, its lease, its addresses for pods, the images and mounts it holds.
local task = require "eirun.core.task"
local dcgm = require "sandbox.kubelet.dcgm"
local nodeshape = require "sandbox.cloud.nodeshape"
local times = require "sandbox.times"

local Node = {}
Node.__index = Node
local M = {}

M.mark = "eirun.io/sandbox" -- every node of the sandbox carries it, also in a real control plane
local lease_namespace, lease_seconds = "kube-node-lease", 40
local least_pause = 0.5 -- seconds between two renewals, however short the delays are
local kubelet_version = "v1.36.1-aliyun.1"

---@param options {kubelet: table, description: table, index: integer} `index` numbers the node's pod network
function M.new(options)
  local about = options.description
  return setmetatable({ kubelet = options.kubelet, ctx = options.kubelet.ctx, about = about, name = about.node_name,
    ip = about.ip, prefix = ("172.%d.%d"):format(20 + options.index // 256, options.index % 256), next_host = 1, used = {},
    images = {}, pulls = {}, mounts = {}, workers = {}, alive = true }, Node)
end

local function condition(self, kind, status, reason, message)
  local now = times.iso(self.ctx.now())
  return { type = kind, status = status, reason = reason, message = message, lastHeartbeatTime = now, lastTransitionTime = now }
end

-- What ack-node-problem-detector posts, where the cluster has it: is the instance about to be reclaimed?
local function instance_expired(self)
  local ctx = self.ctx
  if not ctx.addon_active or not ctx.addon_active "ack-node-problem-detector" then return nil end
  local instance = ctx.store:get("instance", self.about.id)
  if instance and instance.lock then
    return condition(self, "InstanceExpired", "True", "InstanceToBeTerminated", "the preemptible instance is being reclaimed")
  end
  return condition(self, "InstanceExpired", "False", "InstanceNotToBeTerminated", "the instance is not going to be terminated")
end

local function conditions(self)
  return { -- the last may be absent
    condition(self, "MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    condition(self, "DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    condition(self, "PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    condition(self, "Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    instance_expired(self),
  }
end

local function status_of(self)
  return {
    capacity = nodeshape.capacity(self.about.type), allocatable = nodeshape.allocatable(self.about.type), conditions = conditions(self),
    addresses = { { type = "InternalIP", address = self.ip }, { type = "Hostname", address = self.name } },
    daemonEndpoints = { kubeletEndpoint = { Port = 10250 } },
    nodeInfo = { machineID = self.about.id, systemUUID = self.about.id, bootID = self.about.id, architecture = "amd64",
      operatingSystem = "linux", kernelVersion = "5.10.134-18.al8.x86_64",
      osImage = "Alibaba Cloud Linux 3.2104 U11 (OpenAnolis Edition)",
      containerRuntimeVersion = "containerd://1.6.39", kubeletVersion = kubelet_version, kubeProxyVersion = "" },
  }
end

---The Node as the kubelet first posts it.
function Node:object()
  local labels = { [M.mark] = "true" }
  for key, value in pairs(self.about.labels or {}) do labels[key] = value end
  labels["kubernetes.io/hostname"] = labels["kubernetes.io/hostname"] or self.name
  local taints
  for _, taint in ipairs(self.about.taints or {}) do
    taints = taints or {}
    taints[#taints + 1] = { key = taint.key, value = taint.value, effect = taint.effect }
  end
  local annotations = { ["volumes.kubernetes.io/controller-managed-attach-detach"] = "true",
    [dcgm.annotation] = dcgm.url(self.kubelet, self) }
  return { metadata = { name = self.name, labels = labels, annotations = annotations },
    spec = { podCIDR = self.prefix .. ".0/24", podCIDRs = { self.prefix .. ".0/24" }, providerID = self.about.provider_id,
      taints = taints },
    status = status_of(self) }
end

---Tells the cluster that the instance is being reclaimed.
function Node:post_notice()
  local expired = instance_expired(self)
  if not expired then return end
  local patch = { status = { conditions = { expired } } }
  local ok, err = self.kubelet.kube:patch("nodes", nil, self.name, patch, { subresource = "status", type = "strategic" })
  if not ok then self.ctx.log("warn", "cannot post the notice of node %s: %s", self.name, tostring(err)) end
end

local function say_started(self)
  local about = { kind = "Node", metadata = { name = self.name, uid = self.name } }
  self.kubelet.events:say(about, "Normal", "Starting", "Starting kubelet.")
  self.kubelet.events:say(about, "Normal", "NodeReady", ("Node %s status is now: NodeReady"):format(self.name))
end

-- A restarted sandbox listens at other ports.
local function tell_metrics(self)
  local url = dcgm.url(self.kubelet, self)
  if not url then return end
  local ok, err = self.kubelet.kube:patch("nodes", nil, self.name, { metadata = { annotations = { [dcgm.annotation] = url } } })
  if not ok then self.ctx.log("warn", "cannot annotate node %s: %s", self.name, tostring(err)) end
end

---Makes the Node, or takes over the one of before a restart. Tries until the API server answers.
function Node:register()
  local kube = self.kubelet.kube
  while self.alive do
    local made, err = kube:create("nodes", self:object())
    if not made and err.code == "AlreadyExists" then
      made, err = kube:patch("nodes", nil, self.name, { status = status_of(self) }, { subresource = "status", type = "strategic" })
      if made then tell_metrics(self) end
    elseif made then
      say_started(self)
    end
    if made then return end
    self.ctx.log("warn", "cannot register node %s: %s", self.name, tostring(err))
    task.sleep(1)
  end
end

local function micro_time(seconds)
  return (times.iso(seconds):gsub("Z$", (".%06dZ"):format(math.floor(seconds % 1 * 1e6))))
end

local function new_lease(self)
  return { metadata = { name = self.name, namespace = lease_namespace },
    spec = { holderIdentity = self.name, leaseDurationSeconds = lease_seconds, renewTime = micro_time(self.ctx.now()) } }
end

local function renew(self)
  local kube = self.kubelet.kube
  local patch = { spec = { renewTime = micro_time(self.ctx.now()), holderIdentity = self.name } }
  local ok, err = kube:patch("leases", lease_namespace, self.name, patch)
  if not ok and err.kind == "not_found" then ok, err = kube:create("leases", new_lease(self)) end
  if not ok then self.ctx.log("warn", "cannot renew the lease of node %s: %s", self.name, tostring(err)) end
end

---Renews the lease for as long as the node lives.
function Node:keep_alive()
  local pause = math.max(least_pause, self.ctx.lag.node_lease / 4)
  while self.alive do
    renew(self)
    task.sleep(pause)
  end
end

---An address for a pod. Freed ones are used again only after the whole range was.
function Node:take_address(wanted)
  if wanted and not self.used[wanted] and wanted:sub(1, #self.prefix + 1) == self.prefix .. "." then
    self.used[wanted] = true
    return wanted
  end
  for _ = 1, 253 do
    self.next_host = self.next_host % 254 + 1
    local ip = ("%s.%d"):format(self.prefix, self.next_host)
    if not self.used[ip] and self.next_host > 1 then
      self.used[ip] = true
      return ip
    end
  end
  return nil
end

function Node:free_address(ip) self.used[ip] = nil end

---The accelerator of this node as the model server's table knows it: "T4"; nil without one.
function Node:accelerator()
  local model = self.about.gpu and self.about.gpu.model
  return model and model:match "(%S+)$"
end

return M
