-- SPDX-License-Identifier: Apache-2.0
-- The arithmetic of the horizontal pod autoscaler, after pkg/controller/podautoscaler of Kubernetes 1.36, without I/O.
-- Amounts are thousandths (milli-units), times are seconds.
local hpa_math = {}

local TOLERANCE = 0.1
local DEFAULT_WINDOW = 300

-- What the controller remembers of one autoscaler: past recommendations and its own scalings.
function hpa_math.new_state(current, now)
  return { recommendations = { { n = current, at = now } }, up = {}, down = {} }
end

-- options: tolerance_up, tolerance_down (0.1 by default)
local function within(ratio, options)
  local up, down = options and options.tolerance_up or TOLERANCE, options and options.tolerance_down or TOLERANCE
  return ratio >= 1 - down and ratio <= 1 + up -- false for NaN and infinity as it must be
end

-- External metric with averageValue: how many replicas, and the average that the status shows.
-- Pods that do not run yet count, since the Deployment has them already.
function hpa_math.per_pod(total, target, status_replicas, options)
  local proposal = status_replicas
  if not within(total / (target * status_replicas), options) then proposal = math.ceil(total / target) end
  local average = status_replicas > 0 and math.ceil(total / status_replicas) or 0
  return proposal, average
end

-- External metric with value: the ratio counts against the ready pods.
function hpa_math.by_value(total, target, current, ready, options)
  local ratio = total / target
  if within(ratio, options) and current > 0 then return current end
  return math.ceil(ratio * (current > 0 and ready or 1))
end

-- A new recommendation takes the place of one that nobody looks at any more.
local function remember(state, n, now, oldest)
  for _, r in ipairs(state.recommendations) do
    if r.at < oldest then
      r.n, r.at = n, now
      return
    end
  end
  table.insert(state.recommendations, { n = n, at = now })
end

local function simple_stabilized(state, proposal, now, window)
  local highest = proposal
  for _, r in ipairs(state.recommendations) do
    if r.at >= now - window then highest = math.max(highest, r.n) end
  end
  remember(state, proposal, now, now - window)
  return highest
end

local function simple_limited(current, wanted, spec)
  local limit = math.max(2 * current, 4)
  local top, reason, message = spec.max, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
  if spec.max > limit then
    top, reason, message = limit, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
  end
  if wanted < spec.min then return spec.min, "TooFewReplicas", "the desired replica count is less than the minimum replica count" end
  if wanted > top then return top, reason, message end
  return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
end

local function window_of(rules, default)
  return rules.stabilizationWindowSeconds or default
end

local function stabilized(state, current, proposal, now, behavior, window)
  local up_from = now - window_of(behavior.scaleUp, 0)
  local down_from = now - window_of(behavior.scaleDown, window)
  local up, down = proposal, proposal
  for _, r in ipairs(state.recommendations) do
    if r.at > up_from then up = math.min(up, r.n) end
    if r.at > down_from then down = math.max(down, r.n) end
  end
  remember(state, proposal, now, math.min(up_from, down_from))
  return math.min(math.max(current, up), down)
end

local function changed_within(events, period, now)
  local n = 0
  for _, e in ipairs(events) do
    if e.at > now - period then n = n + e.n end
  end
  return n
end

-- The size that the policies of one direction allow; sign is 1 or -1.
local function policy_limit(state, current, rules, sign, now)
  if rules.selectPolicy == "Disabled" then return current end
  local limit
  -- "Max" takes the policy with the largest change, "Min" the one with the smallest.
  local farther = (rules.selectPolicy == "Min") == (sign < 0)
  for _, policy in ipairs(rules.policies) do
    local start = current - changed_within(state.up, policy.periodSeconds, now) + changed_within(state.down, policy.periodSeconds, now)
    local to
    if policy.type == "Pods" then
      to = start + sign * policy.value
    elseif sign > 0 then
      to = math.ceil(start * (1 + policy.value / 100))
    else
      to = math.floor(start * (1 - policy.value / 100))
    end
    if not limit then limit = to elseif farther then limit = math.max(limit, to) else limit = math.min(limit, to) end
  end
  return limit or current
end

local function rate_limited(state, current, wanted, spec, behavior, now)
  if wanted > current then
    local limit = math.max(current, policy_limit(state, current, behavior.scaleUp, 1, now))
    local top, reason, message = spec.max, "TooManyReplicas", "the desired replica count is more than the maximum replica count"
    if spec.max > limit then
      top, reason, message = limit, "ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate"
    end
    if wanted > top then return top, reason, message end
  elseif wanted < current then
    local limit = math.min(current, policy_limit(state, current, behavior.scaleDown, -1, now))
    local least, reason, message = spec.min, "TooFewReplicas", "the desired replica count is less than the minimum replica count"
    if spec.min < limit then
      least, reason, message = limit, "ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate"
    end
    if wanted < least then return least, reason, message end
  end
  return wanted, "DesiredWithinRange", "the desired count is within the acceptable range"
end

local LOWER = "recent recommendations were lower than current one, applying the lowest recent recommendation"
local HIGHER = "recent recommendations were higher than current one, applying the highest recent recommendation"

local function able(ready, reason, message)
  if ready then return { status = "True", reason = "ReadyForNewScale", message = "recommended size matches current size" } end
  return { status = "True", reason = reason, message = message }
end

-- From the metrics' proposal to the size that the windows and limits allow.
-- spec: {min, max, behavior (defaulted, or nil), window}. Answers the size and the conditions AbleToScale and ScalingLimited.
function hpa_math.normalise(state, spec, current, proposal, now)
  local behavior, window = spec.behavior, spec.window or DEFAULT_WINDOW
  local stable, size, reason, message, ready
  if behavior then
    stable = stabilized(state, current, proposal, now, behavior, window)
    size, reason, message = rate_limited(state, current, stable, spec, behavior, now)
    local up = proposal >= current
    ready = able(stable == proposal, up and "ScaleUpStabilized" or "ScaleDownStabilized", up and LOWER or HIGHER)
  else
    stable = simple_stabilized(state, proposal, now, window)
    size, reason, message = simple_limited(current, stable, spec)
    ready = able(stable == proposal, "ScaleDownStabilized", HIGHER)
  end
  return size, ready, { status = size == stable and "False" or "True", reason = reason, message = message }
end

local function longest_period(rules)
  local longest = 0
  for _, policy in ipairs(rules.policies) do longest = math.max(longest, policy.periodSeconds) end
  return longest
end

-- Notes a scaling that was done, for the policies of the next ones.
function hpa_math.scaled(state, behavior, from, to, now)
  if not behavior or from == to then return end
  local events, rules = state.up, behavior.scaleUp
  if to < from then events, rules = state.down, behavior.scaleDown end
  local cutoff = now - longest_period(rules)
  for _, e in ipairs(events) do
    if e.at < cutoff then
      e.n, e.at = math.abs(to - from), now
      return
    end
  end
  table.insert(events, { n = math.abs(to - from), at = now })
end

return hpa_math
