-- SPDX-License-Identifier: Apache-2.0
-- Scheduling without I/O: which nodes can take a pod, why the others cannot, and which is best.
--
-- A node is {name, obj, allocatable and requested = {resource -> milli}, count = pods on it, ports = {"TCP/80" -> true},
-- pods = {key -> pod}, anti = those of them with anti-affinity, owners = {uid of a controller -> its pods here}}.
local quantity = require "sandbox.kube.quantity"
local selector = require "sandbox.kube.selector"
local value = require "sandbox.kube.value"

local sched = {}

local get = value.get
local SCHEDULING = { NoSchedule = true, NoExecute = true }
-- Where preempting other pods could not help.
local HOPELESS = {
  ["node(s) didn't match Pod's node affinity/selector"] = true, ["node(s) had untolerated taint(s)"] = true,
  ["node(s) were unschedulable"] = true, ["node(s) didn't match the requested node name"] = true,
  ["node(s) didn't match PersistentVolume's node affinity"] = true,
}

-- What a pod asks for: {resource -> milli}; init containers run before, so the larger of both counts.
function sched.requests_of(pod)
  local total = {}
  for _, c in ipairs(pod.spec.containers or {}) do
    for name, q in pairs(get(c, "resources", "requests") or {}) do total[name] = (total[name] or 0) + quantity.milli(q) end
  end
  for _, c in ipairs(pod.spec.initContainers or {}) do
    for name, q in pairs(get(c, "resources", "requests") or {}) do total[name] = math.max(total[name] or 0, quantity.milli(q)) end
  end
  for name, q in pairs(pod.spec.overhead or {}) do total[name] = (total[name] or 0) + quantity.milli(q) end
  return total
end

-- What a node has, in thousandths.
function sched.allocatable_of(node)
  local all = {}
  for name, q in pairs(get(node, "status", "allocatable") or {}) do all[name] = quantity.milli(q) end
  return all
end

function sched.host_ports(pod)
  local ports = {}
  for _, c in ipairs(pod.spec.containers or {}) do
    for _, p in ipairs(c.ports or {}) do
      if p.hostPort and p.hostPort > 0 then ports[(p.protocol or "TCP") .. "/" .. p.hostPort] = true end
    end
  end
  return ports
end

function sched.tolerates(tolerations, taint)
  for _, t in ipairs(tolerations or {}) do
    local effect = (t.effect or "") == "" or t.effect == taint.effect
    local key = (t.key or "") == "" and t.operator == "Exists" or t.key == taint.key
    local v = t.operator == "Exists" or (t.value or "") == (taint.value or "")
    if effect and key and v then return t end
  end
end

local function untolerated(pod, node, effects)
  for _, taint in ipairs(get(node.obj, "spec", "taints") or {}) do
    if effects[taint.effect] and not sched.tolerates(pod.spec.tolerations, taint) then return taint end
  end
end

local function term_matches(term, node)
  if term.matchExpressions and #term.matchExpressions > 0
    and not selector.matches(selector.from_requirements(term.matchExpressions), node.metadata.labels) then return false end
  for _, field in ipairs(term.matchFields or {}) do
    if not selector.matches(selector.from_requirements { field }, { ["metadata.name"] = node.metadata.name }) then return false end
  end
  return #(term.matchExpressions or {}) + #(term.matchFields or {}) > 0
end

-- A NodeSelector: any of its terms.
function sched.node_selector_matches(node_selector, node)
  for _, term in ipairs(node_selector.nodeSelectorTerms or {}) do
    if term_matches(term, node) then return true end
  end
  return false
end

local function matches_affinity(pod, node)
  local required = get(pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
  return not required or sched.node_selector_matches(required, node)
end

function sched.matches_node(pod, node)
  return selector.matches(selector.from_map(pod.spec.nodeSelector), node.metadata.labels) and matches_affinity(pod, node)
end

-- What is asked of every node about a pod, found out once. More (volumes, blocked) is the caller's to add.
function sched.facts_of(pod)
  local owner = value.find(pod.metadata.ownerReferences, "controller", true)
  return { requests = sched.requests_of(pod), ports = sched.host_ports(pod), node_terms = selector.from_map(pod.spec.nodeSelector),
    owner = owner and owner.uid }
end

local function term_namespaces(term, pod)
  if term.namespaces and #term.namespaces > 0 then return term.namespaces end
  return { pod.metadata.namespace }
end

local function selected(term, owner, other)
  return value.contains(term_namespaces(term, owner), other.metadata.namespace)
    and selector.matches(selector.from_object(term.labelSelector) or { { key = "", op = "exists" } }, other.metadata.labels)
end

local function label(node, key)
  return (node.obj.metadata.labels or {})[key]
end

-- How many pods that the term selects run in the node's domain, and whether any runs anywhere.
local function in_domain(term, pod, node, nodes)
  local domain, here, anywhere = label(node, term.topologyKey), 0, false
  for _, other in ipairs(nodes) do
    for _, peer in pairs(other.pods) do
      if not peer.metadata.deletionTimestamp and selected(term, pod, peer) then
        anywhere = true
        if domain and label(other, term.topologyKey) == domain then here = here + 1 end
      end
    end
  end
  return here, anywhere, domain
end

local REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"

local function pod_affinity(pod, node, nodes, repelling)
  for _, term in ipairs(get(pod, "spec", "affinity", "podAffinity", REQUIRED) or {}) do
    local here, anywhere, domain = in_domain(term, pod, node, nodes)
    -- The first of a group that wants to be together may go anywhere.
    local first = not anywhere and domain and selected(term, pod, pod)
    if here == 0 and not first then return "node(s) didn't match pod affinity rules" end
  end
  for _, term in ipairs(get(pod, "spec", "affinity", "podAntiAffinity", REQUIRED) or {}) do
    local here = in_domain(term, pod, node, nodes)
    if here > 0 then return "node(s) didn't match pod anti-affinity rules" end
  end
  for _, other in ipairs(repelling) do
    for _, peer in pairs(other.anti) do
      for _, term in ipairs(get(peer, "spec", "affinity", "podAntiAffinity", REQUIRED) or {}) do
        local domain = label(node, term.topologyKey)
        if domain and domain == label(other, term.topologyKey) and selected(term, peer, pod) then
          return "node(s) didn't satisfy existing pods anti-affinity rules"
        end
      end
    end
  end
end

-- Pods of the constraint's selector by domain, over the nodes that the pod could use at all.
local function domain_counts(constraint, pod, nodes)
  local counts, terms = {}, selector.from_object(constraint.labelSelector) or {}
  for _, node in ipairs(nodes) do
    local domain = label(node, constraint.topologyKey)
    if domain and sched.matches_node(pod, node.obj) then
      counts[domain] = counts[domain] or 0
      for _, peer in pairs(node.pods) do
        if not peer.metadata.deletionTimestamp and peer.metadata.namespace == pod.metadata.namespace
          and selector.matches(terms, peer.metadata.labels) then counts[domain] = counts[domain] + 1 end
      end
    end
  end
  return counts, terms
end

local function spread(pod, node, nodes)
  for _, constraint in ipairs(pod.spec.topologySpreadConstraints or {}) do
    if constraint.whenUnsatisfiable == "DoNotSchedule" then
      local domain = label(node, constraint.topologyKey)
      if not domain then return "node(s) didn't match pod topology spread constraints (missing required label)" end
      local counts, terms = domain_counts(constraint, pod, nodes)
      local least = math.huge
      for _, n in pairs(counts) do least = math.min(least, n) end
      local own = selector.matches(terms, pod.metadata.labels) and 1 or 0
      if (counts[domain] or 0) + own - (least == math.huge and 0 or least) > (constraint.maxSkew or 1) then
        return "node(s) didn't match pod topology spread constraints"
      end
    end
  end
end

-- nil, or the list of what there is too little of.
local function insufficient(wants, node)
  local reasons
  if (node.count + 1) * 1000 > (node.allocatable.pods or 0) then reasons = { "Too many pods" } end
  for name, milli in pairs(wants) do
    local free = (node.allocatable[name] or 0) - (node.requested[name] or 0)
    if milli > 0 and milli > free then
      reasons = reasons or {}
      reasons[#reasons + 1] = "Insufficient " .. name
      reasons.hopeless = reasons.hopeless or milli > (node.allocatable[name] or 0) -- more than an empty node has
    end
  end
  return reasons
end

local function port_taken(ports, node)
  for port in pairs(ports) do
    if node.ports[port] then return true end
  end
end

-- nil when the node can take the pod, else the list of reasons (those of the first filter that refuses).
function sched.filter(pod, node, nodes, facts)
  local obj = node.obj
  if obj.spec and obj.spec.unschedulable
    and not sched.tolerates(pod.spec.tolerations, { key = "node.kubernetes.io/unschedulable", effect = "NoSchedule" }) then
    return { "node(s) were unschedulable" }
  end
  if untolerated(pod, node, SCHEDULING) then return { "node(s) had untolerated taint(s)" } end
  if not selector.matches(facts.node_terms, obj.metadata.labels) or not matches_affinity(pod, obj) then
    return { "node(s) didn't match Pod's node affinity/selector" }
  end
  if port_taken(facts.ports, node) then return { "node(s) didn't have free ports for the requested pod ports" } end
  local reasons = insufficient(facts.requests, node)
  if reasons then return reasons end
  for _, volume in ipairs(facts.volumes or {}) do
    local required = get(volume, "spec", "nodeAffinity", "required")
    if required and not sched.node_selector_matches(required, obj) then
      return { "node(s) didn't match PersistentVolume's node affinity" }
    end
  end
  local why = spread(pod, node, nodes) or pod_affinity(pod, node, nodes, facts.repelling)
  return why and { why } or nil
end

local function share(node, name, extra)
  local all = node.allocatable[name] or 0
  if all == 0 then return 0 end
  return math.max(0, (all - (node.requested[name] or 0) - (extra or 0)) / all)
end

-- NodeResourcesFit, least allocated: cpu and memory, 0 to 100. A pod without requests counts as 100m and 200 MB.
local function least_allocated(node, requests)
  local cpu = share(node, "cpu", requests.cpu or 100)
  local memory = share(node, "memory", requests.memory or 200 * 1000 * 1000 * 1000)
  return (cpu + memory) * 50
end

-- NodeResourcesBalancedAllocation: how evenly cpu and memory would be used.
local function balanced(node, requests)
  local cpu, memory = share(node, "cpu", requests.cpu or 100), share(node, "memory", requests.memory or 200 * 1000 * 1000 * 1000)
  return (1 - math.abs(cpu - memory) / 2) * 100
end

local function preferred_nodes(pod, node)
  local score = 0
  for _, p in ipairs(get(pod, "spec", "affinity", "nodeAffinity", "preferredDuringSchedulingIgnoredDuringExecution") or {}) do
    if term_matches(p.preference or {}, node.obj) then score = score + (p.weight or 0) end
  end
  return score
end

local function soft_taints(pod, node)
  local n = 0
  for _, taint in ipairs(get(node.obj, "spec", "taints") or {}) do
    if taint.effect == "PreferNoSchedule" and not sched.tolerates(pod.spec.tolerations, taint) then n = n + 1 end
  end
  return n
end

-- Pods of the same controller by zone, for the default spreading over hosts and zones.
local function zone_counts(nodes, owner)
  local counts = {}
  for _, node in ipairs(owner and nodes or {}) do
    local zone, n = label(node, "topology.kubernetes.io/zone"), node.owners[owner]
    if zone and n then counts[zone] = (counts[zone] or 0) + n end
  end
  return counts
end

local function normalised(raw, reverse)
  local low, high = math.huge, -math.huge
  for _, v in ipairs(raw) do low, high = math.min(low, v), math.max(high, v) end
  local out = {}
  for i, v in ipairs(raw) do
    local share_of = high > low and (v - low) / (high - low) or 0
    out[i] = (reverse and (1 - share_of) or share_of) * 100
  end
  return out
end

-- The best of the feasible nodes; ties go to the first name.
function sched.best(pod, feasible, nodes, facts)
  local hosts, zones, soft, wished = {}, {}, {}, {}
  local by_zone = zone_counts(nodes, facts.owner)
  for i, node in ipairs(feasible) do
    hosts[i] = node.owners[facts.owner or ""] or 0
    zones[i] = by_zone[label(node, "topology.kubernetes.io/zone") or ""] or 0
    soft[i], wished[i] = soft_taints(pod, node), preferred_nodes(pod, node)
  end
  hosts, zones, soft, wished = normalised(hosts, true), normalised(zones, true), normalised(soft, true), normalised(wished)
  local best, top
  for i, node in ipairs(feasible) do
    local score = least_allocated(node, facts.requests) + balanced(node, facts.requests) + 2 * (hosts[i] + 2 * zones[i]) / 3
      + 3 * soft[i] + 2 * wished[i]
    if not top or score > top + 1e-9 then best, top = node, score end
  end
  return best
end

local function histogram(reasons)
  local list = {}
  for reason, n in pairs(reasons) do list[#list + 1] = ("%d %s"):format(n, reason) end
  table.sort(list)
  return table.concat(list, ", ")
end

-- What the plug-ins say that run when no node fits: the one for claims of devices, then preemption.
local AFTER = ". no new claims to deallocate, preemption: "

-- The scheduler's message: reasons is a list of the nodes' reason lists, or a text that holds for all nodes at once.
function sched.message(total, reasons)
  if total == 0 then return "no nodes available to schedule pods" end
  local head = ("0/%d nodes are available:"):format(total)
  if type(reasons) == "string" then
    return ("%s %s%s%s %d Preemption is not helpful for scheduling."):format(head, reasons, AFTER, head, total)
  end
  local counts, outlook = {}, {}
  for _, list in ipairs(reasons) do
    local hopeless = list.hopeless or false
    for _, reason in ipairs(list) do
      counts[reason] = (counts[reason] or 0) + 1
      hopeless = hopeless or HOPELESS[reason]
    end
    local word = hopeless and "Preemption is not helpful for scheduling" or "No preemption victims found for incoming pod"
    outlook[word] = (outlook[word] or 0) + 1
  end
  return ("%s %s%s%s %s."):format(head, histogram(counts), AFTER, head, histogram(outlook))
end

-- Nodes with pods that want certain others away from them.
local function repelling_nodes(nodes)
  local list = {}
  for _, node in ipairs(nodes) do
    if next(node.anti) then list[#list + 1] = node end
  end
  return list
end

-- In a large cluster only so many nodes that fit are looked for (percentageOfNodesToScore's default).
local function enough(total)
  if total < 100 then return total end
  return math.max(100, total * math.max(5, 50 - total // 125) // 100)
end

-- Chooses a node: node, nil, where the next search starts; or nil and the message. Searching begins behind `start` nodes.
function sched.choose(pod, nodes, facts, start)
  local feasible, refused = {}, {}
  local total, wanted, looked = #nodes, enough(#nodes), 0
  if facts.blocked then return nil, sched.message(total, facts.blocked) end
  facts.repelling = repelling_nodes(nodes)
  while looked < total and #feasible < wanted do
    local node = nodes[((start or 0) + looked) % total + 1]
    local reasons = sched.filter(pod, node, nodes, facts)
    if reasons then refused[#refused + 1] = reasons else feasible[#feasible + 1] = node end
    looked = looked + 1
  end
  if #feasible == 0 then return nil, sched.message(total, refused) end
  return sched.best(pod, feasible, nodes, facts), nil, ((start or 0) + looked) % total
end

return sched
