-- SPDX-License-Identifier: Apache-2.0
-- What a namespace may hold: ResourceQuotas at the creation of an object, and what they tell about its use. Pods count by what they ask
-- for, other objects by number. A quota of scopes looks at pods alone.
local quantity = require "sandbox.kube.quantity"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local quota = {}

local R, PODS = resources.resourcequotas, resources.pods

-- Amounts are {milli, binary}: a sum is written as the first part of it that is not zero was.
local function amount(q)
  return { milli = quantity.milli(q) or 0, binary = type(q) == "string" and q:find("[KMGTPE]i$") ~= nil }
end

local function add(total, name, more)
  local old = total[name]
  total[name] = old and { milli = old.milli + more.milli, binary = (old.milli == 0 and more or old).binary } or more
end

local function larger(total, name, other)
  if not total[name] or other.milli > total[name].milli then total[name] = other end
end

-- What a pod's containers ask for together ("requests") or may take ("limits"); init containers run before the others, but for those
-- that stay.
local function of_containers(pod, field)
  local total, before = {}, {}
  for _, c in ipairs(pod.spec.containers or {}) do
    for name, q in pairs(value.get(c, "resources", field) or {}) do add(total, name, amount(q)) end
  end
  local staying = {}
  for _, c in ipairs(pod.spec.initContainers or {}) do
    for name, q in pairs(value.get(c, "resources", field) or {}) do
      if c.restartPolicy == "Always" then
        add(total, name, amount(q))
        add(staying, name, amount(q))
      else
        larger(before, name, { milli = amount(q).milli + (staying[name] or { milli = 0 }).milli, binary = amount(q).binary })
      end
    end
  end
  for name, one in pairs(before) do larger(total, name, one) end
  for name, q in pairs(pod.spec.overhead or {}) do
    if field == "requests" or total[name] then add(total, name, amount(q)) end
  end
  return total
end

local SHORT = { cpu = true, memory = true, ["ephemeral-storage"] = true } -- also known without "requests."

local function of_pod(pod)
  local used = { pods = amount(1) }
  for name, one in pairs(of_containers(pod, "requests")) do
    if SHORT[name] then used[name] = one end
    used["requests." .. name] = one
  end
  for name, one in pairs(of_containers(pod, "limits")) do
    if SHORT[name] then used["limits." .. name] = one end
  end
  return used
end

local known = setmetatable({}, { __mode = "k" }) -- objects do not change: what a pod uses, once reckoned

local function pod_use(pod)
  known[pod] = known[pod] or of_pod(pod)
  return known[pod]
end

-- A pod that has ended, or outstayed its deletion, uses nothing but its place in the store.
local function lives(pod, now)
  local phase, meta = value.get(pod, "status", "phase"), pod.metadata
  if phase == "Succeeded" or phase == "Failed" then return false end
  local gone = meta.deletionTimestamp and tables.seconds_of(meta.deletionTimestamp)
  return not gone or now <= gone
end

local COUNTED = { pods = false, services = true, replicationcontrollers = true, resourcequotas = true, secrets = true, configmaps = true,
  persistentvolumeclaims = true }

-- { name -> amount } of one object.
local function use(r, obj, now)
  local used = r == PODS and lives(obj, now) and value.shallow(pod_use(obj)) or {}
  used["count/" .. r.id] = amount(1)
  if COUNTED[r.id] then used[r.id] = amount(1) end
  if r == resources.persistentvolumeclaims then
    local asked = value.get(obj, "spec", "resources", "requests", "storage")
    if asked then used["requests.storage"] = amount(asked) end
  end
  return used
end

local function is_best_effort(pod)
  return next(of_containers(pod, "requests")) == nil and next(of_containers(pod, "limits")) == nil
end

local SCOPES = {
  BestEffort = is_best_effort,
  NotBestEffort = function(pod) return not is_best_effort(pod) end,
  Terminating = function(pod) return pod.spec.activeDeadlineSeconds ~= nil end,
  NotTerminating = function(pod) return pod.spec.activeDeadlineSeconds == nil end,
}

local function in_scope(spec, r, obj)
  if spec.scopeSelector then return false end -- priorities and affinities are not counted here
  if not spec.scopes or #spec.scopes == 0 then return true end
  if r ~= PODS then return false end
  for _, scope in ipairs(spec.scopes) do
    if not (SCOPES[scope] and SCOPES[scope](obj)) then return false end
  end
  return true
end

-- Which resource a quota's name is about.
local function resource_of(name)
  local id = name:match "^count/(.+)$"
  if id then return resources.by_id[id] end
  if COUNTED[name] then return resources[name] end
  return name == "requests.storage" and resources.persistentvolumeclaims or PODS
end

-- What is used of each name of the quota.
local function used_of(store, rec, now)
  local spec, total, wanted = rec.obj.spec, {}, {}
  for name in pairs(spec.hard or {}) do
    total[name] = { milli = 0 }
    local r = resource_of(name)
    if r then wanted[r] = true end
  end
  for r in pairs(wanted) do
    for _, other in ipairs(store:list(r, rec.ns)) do
      if in_scope(spec, r, other.obj) then
        for name, one in pairs(use(r, other.obj, now)) do
          if total[name] then add(total, name, one) end
        end
      end
    end
  end
  return total
end

local function text_of(one)
  return quantity.text(one.milli, one.binary)
end

-- cpu=1,memory=2Gi of some names.
local function listed(names, amounts)
  local parts = {}
  for i, name in ipairs(names) do parts[i] = name .. "=" .. text_of(amounts[name]) end
  return table.concat(parts, ",")
end

local NAMED = { cpu = true, memory = true, ["requests.cpu"] = true, ["requests.memory"] = true, ["limits.cpu"] = true,
  ["limits.memory"] = true }

-- Which of the quota's names each container says nothing about, as text; nil when none.
local function unsaid(hard, pod)
  local missing = {}
  for _, list in ipairs { pod.spec.containers or {}, pod.spec.initContainers or {} } do
    for _, c in ipairs(list) do
      local said = of_pod { spec = { containers = { c } } }
      for name in pairs(hard) do
        if NAMED[name] and not said[name] then missing[name] = value.with(missing[name] or {}, { c.name }, true) end
      end
    end
  end
  local parts = {}
  for name, containers in value.sorted(missing) do
    local names = {}
    for container in value.sorted(containers) do names[#names + 1] = container end
    parts[#parts + 1] = name .. " for: " .. table.concat(names, ",")
  end
  return #parts > 0 and table.concat(parts, "; ") or nil
end

-- Names of `asked` that would go beyond the quota, sorted.
local function beyond(hard, used, asked)
  local names = {}
  for name, one in value.sorted(asked) do
    if hard[name] and one.milli > 0 and used[name].milli + one.milli > hard[name].milli then names[#names + 1] = name end
  end
  return names
end

local function amounts(map)
  local all = {}
  for name, q in pairs(map or {}) do all[name] = amount(q) end
  return all
end

-- Refuses a new object that a quota of its namespace has no room for.
function quota.admit(registry, r, obj)
  local ns = obj.metadata.namespace
  local list = ns and registry.store:list(R, ns) or {}
  if #list == 0 then return end
  local now, name = registry.now(), obj.metadata.name
  local asked, mine = use(r, obj, now), {}
  for _, rec in ipairs(list) do
    local hard = amounts(rec.obj.spec.hard)
    if in_scope(rec.obj.spec, r, obj) then
      local missing = r == PODS and unsaid(hard, obj)
      if missing then status.forbidden(r, name, ("failed quota: %s: must specify %s"):format(rec.name, missing)) end
      mine[#mine + 1] = { rec = rec, hard = hard }
    end
  end
  for _, one in ipairs(mine) do
    local used = used_of(registry.store, one.rec, now)
    local names = beyond(one.hard, used, asked)
    if #names > 0 then
      status.forbidden(r, name, ("exceeded quota: %s, requested: %s, used: %s, limited: %s"):format(one.rec.name, listed(names, asked),
        listed(names, used), listed(names, one.hard)))
    end
  end
end

-- The status of a quota as things are: what it allows and what of it is used.
function quota.status_of(store, rec, now)
  local used = {}
  for name, one in pairs(used_of(store, rec, now)) do used[name] = text_of(one) end
  return { hard = rec.obj.spec.hard, used = used }
end

return quota
