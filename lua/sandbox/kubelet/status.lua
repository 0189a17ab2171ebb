-- SPDX-License-Identifier: Apache-2.0
-- A pod's status from what its containers are doing. Pure.
local times = require "sandbox.times"

local M = {}

local own_conditions = { PodReadyToStartContainers = true, Initialized = true, Ready = true, ContainersReady = true }

local function state_of(container)
  local state = container.state
  if state.kind == "running" then return { running = { startedAt = times.iso(state.started_at) } } end
  if state.kind == "terminated" then return { terminated = M.terminated(state) } end
  return { waiting = { reason = state.reason, message = state.message } }
end

function M.terminated(state)
  return { exitCode = state.code, reason = state.reason, message = state.message, startedAt = times.iso(state.started_at),
    finishedAt = times.iso(state.finished_at), containerID = state.container_id }
end

---@param container table { name, image, reference, image_id, state, last, ready, started, restarts, container_id }
function M.container(container)
  return { name = container.name, image = container.reference or container.image, imageID = container.image_id or "",
    containerID = container.container_id, ready = container.ready, started = container.started, restartCount = container.restarts,
    state = state_of(container), lastState = container.last and { terminated = M.terminated(container.last) } or {} }
end

local function unready(containers)
  local names = {}
  for _, container in ipairs(containers) do
    if not container.ready then names[#names + 1] = container.name end
  end
  return names
end

local function incomplete(containers)
  local names = {}
  for _, container in ipairs(containers) do
    if not (container.state.kind == "terminated" and container.state.code == 0) then names[#names + 1] = container.name end
  end
  return names
end

---Pending, Running, Succeeded or Failed.
function M.phase(pod)
  local running, waiting, failed, stopped = 0, 0, 0, 0
  for _, container in ipairs(pod.containers) do
    local kind = container.state.kind
    if kind == "running" then
      running = running + 1
    elseif kind == "terminated" then
      stopped = stopped + 1
      if container.state.code ~= 0 then failed = failed + 1 end
    elseif container.last then
      stopped = stopped + 1
    else
      waiting = waiting + 1
    end
  end
  if #incomplete(pod.init_containers) > 0 or waiting > 0 then return "Pending" end
  if running > 0 or pod.restart_policy == "Always" then return "Running" end
  if stopped < #pod.containers then return "Running" end
  for _, container in ipairs(pod.containers) do
    if container.state.kind == "waiting" then return "Running" end
  end
  if failed == 0 then return "Succeeded" end
  return pod.restart_policy == "Never" and "Failed" or "Running"
end

local function condition(kind, ok, reason, message)
  return { type = kind, status = ok and "True" or "False", reason = not ok and reason or nil, message = not ok and message or nil }
end

local function wanted_conditions(pod, phase)
  local waiting, init = unready(pod.containers), incomplete(pod.init_containers)
  local reason, message = "ContainersNotReady", ("containers with unready status: [%s]"):format(table.concat(waiting, " "))
  if phase == "Succeeded" then reason, message = "PodCompleted", nil end
  local ready, pending = #waiting == 0 and #init == 0, ("containers with incomplete status: [%s]"):format(table.concat(init, " "))
  return {
    condition("PodReadyToStartContainers", pod.ip ~= nil),
    condition("Initialized", #init == 0, "ContainersNotInitialized", pending),
    condition("Ready", ready, reason, message),
    condition("ContainersReady", ready, reason, message),
  }
end

-- A condition keeps its transition time while its status stays.
local function merge_conditions(old, wanted, now)
  local known, list = {}, {}
  for _, item in ipairs(old or {}) do
    known[item.type] = item
    if not own_conditions[item.type] then list[#list + 1] = item end
  end
  for _, item in ipairs(wanted) do
    local before = known[item.type]
    item.lastTransitionTime = before and before.status == item.status and before.lastTransitionTime or times.iso(now)
    list[#list + 1] = item
  end
  return list
end

---Conditions that others wrote (scheduler, disruption) as they are now, our own as we last said them.
function M.keep_foreign(own, seen)
  local list = {}
  for _, item in ipairs(own or {}) do
    if own_conditions[item.type] then list[#list + 1] = item end
  end
  for _, item in ipairs(seen or {}) do
    if not own_conditions[item.type] then list[#list + 1] = item end
  end
  return list
end

---@param pod table { containers, init_containers, restart_policy, ip, host_ip, start_time, conditions, reason?, message? }
---@param now number
---@return table status
function M.of(pod, now)
  local phase = pod.phase or M.phase(pod)
  local status = { phase = phase, hostIP = pod.host_ip, hostIPs = { { ip = pod.host_ip } }, startTime = times.iso(pod.start_time),
    conditions = merge_conditions(pod.conditions, wanted_conditions(pod, phase), now), containerStatuses = {}, reason = pod.reason,
    message = pod.message }
  if pod.ip then status.podIP, status.podIPs = pod.ip, { { ip = pod.ip } } end
  for i, container in ipairs(pod.containers) do status.containerStatuses[i] = M.container(container) end
  if #pod.init_containers > 0 then
    status.initContainerStatuses = {}
    for i, container in ipairs(pod.init_containers) do status.initContainerStatuses[i] = M.container(container) end
  end
  pod.conditions = status.conditions
  return status
end

return M
