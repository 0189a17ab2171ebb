-- SPDX-License-Identifier: Apache-2.0
-- What a node of an instance type offers: capacity, and allocatable after the reservations for system and kubelet.
local catalog = require "sandbox.cloud.catalog"

local nodeshape = {}

local gib = 1024 * 1024 -- in KiB

-- Kubelet's usual tiers: a quarter of the first 4 GiB, a fifth of the next 4, a tenth up to 16, 6 % up to 128 GiB.
local tiers = { { 4, 0.25 }, { 4, 0.20 }, { 8, 0.10 }, { 112, 0.06 } }

local function reserved_memory(memory_gib)
  local left, reserved = memory_gib, 0
  for _, tier in ipairs(tiers) do
    local part = math.min(left, tier[1])
    reserved, left = reserved + part * tier[2], left - part
  end
  return reserved
end

local function reserved_cpu(cores) return 60 + 10 * math.min(cores, 4) + 3 * math.max(0, cores - 4) end

function nodeshape.capacity(type_name)
  local kind = catalog.type(type_name)
  local shape = { cpu = tostring(kind.cpu), memory = ("%dKi"):format(kind.memory * gib), pods = "110",
    ["ephemeral-storage"] = "123722704Ki" }
  if kind.gpus then shape["nvidia.com/gpu"] = tostring(kind.gpus) end
  return shape
end

function nodeshape.allocatable(type_name)
  local kind, shape = catalog.type(type_name), nodeshape.capacity(type_name)
  shape.cpu = ("%dm"):format(kind.cpu * 1000 - reserved_cpu(kind.cpu))
  shape.memory = ("%dKi"):format(math.floor((kind.memory - reserved_memory(kind.memory)) * gib))
  shape["ephemeral-storage"] = "114022843818"
  return shape
end

return nodeshape
