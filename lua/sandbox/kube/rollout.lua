-- SPDX-License-Identifier: Apache-2.0
-- The arithmetic of a Deployment's rolling update, without any object.
local rollout = {}

-- A number or a percentage of total, as a number.
function rollout.share(v, total, up)
  if type(v) ~= "string" then return v or 0 end
  local exact = total * (tonumber(v:match("^(%d+)%%$")) or 0) / 100
  return up and math.ceil(exact) or math.floor(exact)
end

-- maxSurge and maxUnavailable in pods; both zero would never move, so then one may be missing.
function rollout.limits(spec)
  local rolling = spec.strategy.type == "RollingUpdate" and spec.strategy.rollingUpdate
  if not rolling then return 0, 0 end
  local surge = rollout.share(rolling.maxSurge, spec.replicas, true)
  local missing = rollout.share(rolling.maxUnavailable, spec.replicas, false)
  if surge == 0 and missing == 0 then missing = 1 end
  return surge, math.min(missing, spec.replicas)
end

-- The size of the new ReplicaSet: total is the sum of all sizes, now its own.
function rollout.new_size(spec, total, now)
  if spec.strategy.type == "Recreate" then return spec.replicas end
  local room = spec.replicas + rollout.limits(spec) - total
  if room <= 0 then return now end
  return now + math.max(0, math.min(room, spec.replicas - now))
end

-- New sizes of the old ReplicaSets. sets: {replicas, available} oldest first; new: {replicas, available}.
function rollout.old_sizes(spec, sets, new)
  local sizes, total, available = {}, new.replicas, new.available
  for i, set in ipairs(sets) do
    sizes[i] = set.replicas
    total, available = total + set.replicas, available + set.available
  end
  if spec.strategy.type == "Recreate" then
    for i in ipairs(sizes) do sizes[i] = 0 end
    return sizes
  end
  local _, missing = rollout.limits(spec)
  local least = spec.replicas - missing
  local left = total - least - (new.replicas - new.available)
  if left <= 0 then return sizes end
  -- First those that are not available anyway, then as many as the others can spare.
  for i, set in ipairs(sets) do
    local gone = math.max(0, math.min(left, set.replicas - set.available))
    sizes[i], left = sizes[i] - gone, left - gone
  end
  local spare = available - least
  for i in ipairs(sets) do
    local gone = math.max(0, math.min(spare, sizes[i]))
    sizes[i], spare = sizes[i] - gone, spare - gone
  end
  return sizes
end

return rollout
