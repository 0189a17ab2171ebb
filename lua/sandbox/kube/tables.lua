-- SPDX-License-Identifier: Apache-2.0
-- Table output: the columns that kubectl prints for the common kinds.
local json = require "eirun.core.json"
local selector = require "sandbox.kube.selector"
local value = require "sandbox.kube.value"

local tables = {}

local get = value.get
local null = json.null

local function seconds_of(time)
  local y, mo, d, h, mi, s = (time or ""):match("^(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+)")
  if not y then return nil end
  y, mo, d = math.tointeger(tonumber(y)), math.tointeger(tonumber(mo)), math.tointeger(tonumber(d))
  -- Days since 1970 in the proleptic Gregorian calendar.
  if mo <= 2 then y = y - 1 end
  local era, moved = y // 400, (mo + 9) % 12
  local yoe = y - era * 400
  local doy = (153 * moved + 2) // 5 + d - 1
  local days = era * 146097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719468
  return days * 86400 + h * 3600 + mi * 60 + s
end
tables.seconds_of = seconds_of

-- As kubectl's HumanDuration.
local function duration(s)
  s = math.floor(s)
  if s < 0 then return "0s" end
  if s < 120 then return s .. "s" end
  local minutes = s // 60
  if minutes < 10 then return s % 60 == 0 and minutes .. "m" or ("%dm%ds"):format(minutes, s % 60) end
  if minutes < 180 then return minutes .. "m" end
  local hours = minutes // 60
  if hours < 8 then return minutes % 60 == 0 and hours .. "h" or ("%dh%dm"):format(hours, minutes % 60) end
  if hours < 48 then return hours .. "h" end
  local days = hours // 24
  if days < 8 then return hours % 24 == 0 and days .. "d" or ("%dd%dh"):format(days, hours % 24) end
  if days < 730 then return days .. "d" end
  return days // 365 .. "y"
end
tables.duration = duration

local function age(obj, now)
  local at = seconds_of(obj.metadata.creationTimestamp)
  return at and duration(now - at) or "<unknown>"
end

local function or_none(v)
  return (v == nil or v == "") and "<none>" or v
end

local function join(list, fn)
  local out = {}
  for i, item in ipairs(list or {}) do out[i] = fn and fn(item) or tostring(item) end
  return #out > 0 and table.concat(out, ",") or "<none>"
end

local function label_text(map)
  local out = {}
  for key, v in value.sorted(map or {}) do out[#out + 1] = key .. "=" .. v end
  return #out > 0 and table.concat(out, ",") or "<none>"
end

local function selector_text(object)
  local text = selector.text(selector.from_object(object))
  return text == "" and "<none>" or text
end

-- Columns: {name, type, priority}, rows from obj and now.
local KINDS = {}

local function kind(id, columns, row)
  KINDS[id] = { columns = columns, row = row }
end

local WIDE_IMAGES = { { "Containers", "string", 1 }, { "Images", "string", 1 }, { "Selector", "string", 1 } }

local function columns(...)
  local list = { { "Name", "string", 0 } }
  for _, c in ipairs { ... } do
    if type(c) == "string" then c = { c, "string", 0 } end
    list[#list + 1] = c
  end
  return list
end

local function images(obj)
  local containers = get(obj, "spec", "template", "spec", "containers")
  return join(containers, function(c) return c.name end), join(containers, function(c) return c.image end),
    selector_text(obj.spec.selector)
end

local function waiting_reason(s)
  local state = s.state or {}
  if state.waiting and (state.waiting.reason or "") ~= "" then return state.waiting.reason end
  if state.terminated then
    local t = state.terminated
    if (t.reason or "") ~= "" then return t.reason end
    return t.signal and t.signal ~= 0 and "Signal:" .. t.signal or "ExitCode:" .. (t.exitCode or 0)
  end
end

-- STATUS of a pod as kubectl words it.
local function pod_reason(pod)
  local reason = pod.status.reason or pod.status.phase
  for i = #(pod.status.containerStatuses or {}), 1, -1 do
    reason = waiting_reason(pod.status.containerStatuses[i]) or reason
  end
  if pod.metadata.deletionTimestamp then
    return pod.status.reason == "NodeLost" and "Unknown" or "Terminating"
  end
  local scheduled = value.find(pod.status.conditions, "type", "PodScheduled")
  if scheduled and scheduled.reason == "SchedulingGated" then return "SchedulingGated" end
  return reason
end

local function pod_row(pod, now)
  local ready, restarts, last = 0, 0, nil
  for _, s in ipairs(pod.status.containerStatuses or {}) do
    if s.ready then ready = ready + 1 end
    restarts = restarts + (s.restartCount or 0)
    local at = seconds_of(get(s, "lastState", "terminated", "finishedAt"))
    if at and (not last or at > last) then last = at end
  end
  local shown = restarts > 0 and last and ("%d (%s ago)"):format(restarts, duration(now - last)) or tostring(restarts)
  return { pod.metadata.name, ("%d/%d"):format(ready, #(pod.spec.containers or {})), pod_reason(pod), shown, age(pod, now),
    or_none(pod.status.podIP), or_none(pod.spec.nodeName), or_none(pod.status.nominatedNodeName), "<none>" }
end

kind("pods", columns("Ready", "Status", "Restarts", "Age", { "IP", "string", 1 }, { "Node", "string", 1 },
  { "Nominated Node", "string", 1 }, { "Readiness Gates", "string", 1 }), pod_row)

kind("deployments.apps", columns("Ready", { "Up-to-date", "integer", 0 }, { "Available", "integer", 0 }, "Age",
  table.unpack(WIDE_IMAGES)), function(d, now)
  local s = d.status or {}
  return { d.metadata.name, ("%d/%d"):format(s.readyReplicas or 0, d.spec.replicas or 0), s.updatedReplicas or 0,
    s.availableReplicas or 0, age(d, now), images(d) }
end)

kind("replicasets.apps", columns({ "Desired", "integer", 0 }, { "Current", "integer", 0 }, { "Ready", "integer", 0 }, "Age",
  table.unpack(WIDE_IMAGES)), function(rs, now)
  local s = rs.status or {}
  return { rs.metadata.name, rs.spec.replicas or 0, s.replicas or 0, s.readyReplicas or 0, age(rs, now), images(rs) }
end)

kind("statefulsets.apps", columns("Ready", "Age", { "Containers", "string", 1 }, { "Images", "string", 1 }), function(s, now)
  local names, list = images(s)
  return { s.metadata.name, ("%d/%d"):format(get(s, "status", "readyReplicas") or 0, s.spec.replicas or 0), age(s, now), names, list }
end)

kind("daemonsets.apps", columns({ "Desired", "integer", 0 }, { "Current", "integer", 0 }, { "Ready", "integer", 0 },
  { "Up-to-date", "integer", 0 }, { "Available", "integer", 0 }, "Node Selector", "Age", table.unpack(WIDE_IMAGES)), function(ds, now)
  local s = ds.status or {}
  return { ds.metadata.name, s.desiredNumberScheduled or 0, s.currentNumberScheduled or 0, s.numberReady or 0,
    s.updatedNumberScheduled or 0, s.numberAvailable or 0, label_text(get(ds, "spec", "template", "spec", "nodeSelector")),
    age(ds, now), images(ds) }
end)

local function external_address(svc)
  local list = {}
  for _, in_ in ipairs(get(svc, "status", "loadBalancer", "ingress") or {}) do list[#list + 1] = in_.ip or in_.hostname end
  if svc.spec.type == "ExternalName" then return svc.spec.externalName end
  if #list > 0 then return table.concat(list, ",") end
  return svc.spec.type == "LoadBalancer" and "<pending>" or "<none>"
end

kind("services", columns("Type", "Cluster-IP", "External-IP", "Port(s)", "Age", { "Selector", "string", 1 }), function(svc, now)
  local ports = join(svc.spec.ports, function(p)
    return p.nodePort and ("%d:%d/%s"):format(p.port, p.nodePort, p.protocol) or ("%d/%s"):format(p.port, p.protocol)
  end)
  return { svc.metadata.name, svc.spec.type, or_none(svc.spec.clusterIP), external_address(svc), ports, age(svc, now),
    label_text(svc.spec.selector) }
end)

local function node_status(node)
  local ready = value.find(get(node, "status", "conditions"), "type", "Ready")
  local text = ready and (ready.status == "True" and "Ready" or "NotReady") or "Unknown"
  return node.spec and node.spec.unschedulable and text .. ",SchedulingDisabled" or text
end

local function node_roles(node)
  local roles = {}
  for key in value.sorted(node.metadata.labels or {}) do
    local role = key:match("^node%-role%.kubernetes%.io/(.+)$")
    if role then roles[#roles + 1] = role end
  end
  return #roles > 0 and table.concat(roles, ",") or "<none>"
end

local function node_address(node, of)
  local a = value.find(get(node, "status", "addresses"), "type", of)
  return a and a.address or "<none>"
end

kind("nodes", columns("Status", "Roles", "Age", "Version", { "Internal-IP", "string", 1 }, { "External-IP", "string", 1 },
  { "OS-Image", "string", 1 }, { "Kernel-Version", "string", 1 }, { "Container-Runtime", "string", 1 }), function(node, now)
  local info = get(node, "status", "nodeInfo") or {}
  return { node.metadata.name, node_status(node), node_roles(node), age(node, now), info.kubeletVersion or "",
    node_address(node, "InternalIP"), node_address(node, "ExternalIP"), info.osImage or "<unknown>", info.kernelVersion or "<unknown>",
    info.containerRuntimeVersion or "<unknown>" }
end)

kind("namespaces", columns("Status", "Age"), function(ns, now)
  return { ns.metadata.name, get(ns, "status", "phase") or "", age(ns, now) }
end)

local function count(t)
  local n = 0
  for _ in pairs(t or {}) do n = n + 1 end
  return n
end

kind("configmaps", columns({ "Data", "integer", 0 }, "Age"), function(cm, now)
  return { cm.metadata.name, count(cm.data) + count(cm.binaryData), age(cm, now) }
end)

kind("secrets", columns("Type", { "Data", "integer", 0 }, "Age"), function(s, now)
  return { s.metadata.name, s.type or "", count(s.data), age(s, now) }
end)

local MODES = { ReadWriteOnce = "RWO", ReadOnlyMany = "ROX", ReadWriteMany = "RWX", ReadWriteOncePod = "RWOP" }

local function modes(list)
  local out = {}
  for i, mode in ipairs(list or {}) do out[i] = MODES[mode] or mode end
  return table.concat(out, ",")
end

kind("persistentvolumes", columns("Capacity", "Access Modes", "Reclaim Policy", "Status", "Claim", "StorageClass",
  "VolumeAttributesClass", "Reason", "Age", { "VolumeMode", "string", 1 }), function(pv, now)
  local claim = pv.spec.claimRef and (pv.spec.claimRef.namespace or "") .. "/" .. (pv.spec.claimRef.name or "") or ""
  local phase = pv.metadata.deletionTimestamp and "Terminating" or get(pv, "status", "phase") or ""
  return { pv.metadata.name, get(pv, "spec", "capacity", "storage") or "", modes(pv.spec.accessModes),
    pv.spec.persistentVolumeReclaimPolicy or "", phase, claim, pv.spec.storageClassName or "",
    "<unset>", get(pv, "status", "reason") or "", age(pv, now), pv.spec.volumeMode or "" }
end)

kind("persistentvolumeclaims", columns("Status", "Volume", "Capacity", "Access Modes", "StorageClass", "VolumeAttributesClass",
  "Age", { "VolumeMode", "string", 1 }), function(pvc, now)
  local phase = pvc.metadata.deletionTimestamp and "Terminating" or get(pvc, "status", "phase") or ""
  local bound = pvc.spec.volumeName and pvc.spec.volumeName ~= ""
  return { pvc.metadata.name, phase, pvc.spec.volumeName or "", bound and get(pvc, "status", "capacity", "storage") or "",
    bound and modes(get(pvc, "status", "accessModes")) or "", pvc.spec.storageClassName or "", "<unset>", age(pvc, now),
    pvc.spec.volumeMode or "" }
end)

kind("serviceaccounts", columns("Age"), function(sa, now)
  return { sa.metadata.name, age(sa, now) }
end)

local function target_text(metric, current)
  local key = metric.type and metric.type:sub(1, 1):lower() .. metric.type:sub(2)
  local target = get(metric, key, "target") or {}
  local now = get(current, key, "current") or {}
  if target.averageValue then return ("%s/%s (avg)"):format(now.averageValue or "<unknown>", target.averageValue) end
  if target.averageUtilization then
    local have = now.averageUtilization and now.averageUtilization .. "%" or "<unknown>"
    local name = metric.type == "Resource" and metric.resource.name .. ": " or ""
    return ("%s%s/%d%%"):format(name, have, target.averageUtilization)
  end
  return ("%s/%s"):format(now.value or "<unknown>", target.value or "<unknown>")
end

kind("horizontalpodautoscalers.autoscaling", columns("Reference", "Targets", "MinPods", "MaxPods", { "Replicas", "integer", 0 },
  "Age"),
  function(hpa, now)
    local ref, list = hpa.spec.scaleTargetRef or {}, {}
    for i, metric in ipairs(hpa.spec.metrics or {}) do
      list[i] = target_text(metric, get(hpa, "status", "currentMetrics", i))
    end
    return { hpa.metadata.name, (ref.kind or "") .. "/" .. (ref.name or ""),
      #list > 0 and table.concat(list, ", ") or "<none>",
      tostring(hpa.spec.minReplicas or "<unset>"), tostring(hpa.spec.maxReplicas), get(hpa, "status", "currentReplicas") or 0,
      age(hpa, now) }
  end)

kind("ingresses.networking.k8s.io", columns("Class", "Hosts", "Address", "Ports", "Age"), function(ing, now)
  local hosts = {}
  for _, rule in ipairs(get(ing, "spec", "rules") or {}) do
    if (rule.host or "") ~= "" then hosts[#hosts + 1] = rule.host end
  end
  local addresses = {}
  for _, a in ipairs(get(ing, "status", "loadBalancer", "ingress") or {}) do addresses[#addresses + 1] = a.ip or a.hostname end
  return { ing.metadata.name, or_none(get(ing, "spec", "ingressClassName")), #hosts > 0 and table.concat(hosts, ",") or "*",
    table.concat(addresses, ","), get(ing, "spec", "tls") and "80, 443" or "80", age(ing, now) }
end)

kind("events", columns("Last Seen", "Type", "Reason", "Object", { "Subobject", "string", 1 }, { "Source", "string", 1 }, "Message",
  { "First Seen", "string", 1 }, { "Count", "string", 1 }, { "Name", "string", 1 }), function(e, now)
  local function since(t)
    local at = seconds_of(t)
    return at and duration(now - at) or "<unknown>"
  end
  local ref = e.involvedObject or {}
  local first = e.firstTimestamp or e.eventTime
  local source = e.source or {}
  return { since(e.lastTimestamp or get(e, "series", "lastObservedTime") or first), e.type or "", e.reason or "",
    ((ref.kind or ""):lower()) .. "/" .. (ref.name or ""), ref.fieldPath or "",
    source.host and source.component .. ", " .. source.host or source.component or e.reportingComponent or "",
    ((e.message or ""):gsub("%s+$", "")), since(first), tostring(e.count or get(e, "series", "count") or 1), e.metadata.name }
end)
KINDS.events.columns[1] = { "Last Seen", "string", 0 }
table.remove(KINDS.events.columns, 2)

kind("poddisruptionbudgets.policy", columns("Min Available", "Max Unavailable", { "Allowed Disruptions", "integer", 0 }, "Age"),
  function(pdb, now)
    local spec = pdb.spec or {}
    return { pdb.metadata.name, tostring(spec.minAvailable or "N/A"), tostring(spec.maxUnavailable or "N/A"),
      get(pdb, "status", "disruptionsAllowed") or 0, age(pdb, now) }
  end)

kind("leases.coordination.k8s.io", columns("Holder", "Age"), function(lease, now)
  return { lease.metadata.name, get(lease, "spec", "holderIdentity") or "", age(lease, now) }
end)

kind("endpointslices.discovery.k8s.io", columns("AddressType", "Ports", "Endpoints", "Age"), function(slice, now)
  local addresses = {}
  for _, e in ipairs(slice.endpoints or {}) do
    for _, a in ipairs(e.addresses or {}) do addresses[#addresses + 1] = a end
  end
  local shown = table.concat(addresses, ",", 1, math.min(3, #addresses))
  if #addresses > 3 then shown = ("%s + %d more..."):format(shown, #addresses - 3) end
  return { slice.metadata.name, slice.addressType, slice.ports and join(slice.ports, function(p) return tostring(p.port) end) or "<unset>",
    shown == "" and "<unset>" or shown, age(slice, now) }
end)

kind("storageclasses.storage.k8s.io", columns("Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
  function(sc, now)
    return { sc.metadata.name, sc.provisioner, sc.reclaimPolicy, sc.volumeBindingMode, tostring(sc.allowVolumeExpansion or false),
      age(sc, now) }
  end)

kind("jobs.batch", columns("Status", "Completions", "Duration", "Age"), function(job, now)
  local done = value.find(get(job, "status", "conditions"), "type", "Complete")
  local failed = value.find(get(job, "status", "conditions"), "type", "Failed")
  local state = done and done.status == "True" and "Complete" or failed and failed.status == "True" and "Failed" or "Running"
  local from, to = seconds_of(get(job, "status", "startTime")), seconds_of(get(job, "status", "completionTime"))
  return { job.metadata.name, state, ("%d/%d"):format(get(job, "status", "succeeded") or 0, job.spec.completions or 1),
    from and duration((to or now) - from) or "", age(job, now) }
end)

kind("apiservices.apiregistration.k8s.io", columns("Service", "Available", "Age"), function(api, now)
  local service = get(api, "spec", "service")
  local up = value.find(get(api, "status", "conditions"), "type", "Available")
  return { api.metadata.name, service and service.namespace .. "/" .. service.name or "Local",
    up and (up.status == "True" and "True" or ("False (%s)"):format(up.reason or "")) or "Unknown", age(api, now) }
end)

local OTHER = { columns = columns("Age"), row = function(obj, now) return { obj.metadata.name, age(obj, now) } end }

local function definitions(columns_of)
  local list = json.array {}
  for i, c in ipairs(columns_of) do
    local name = c[1] == "Name" and "name" or ""
    list[i] = { name = c[1], type = c[2], format = name, description = "", priority = c[3] }
  end
  return list
end

local function included(r, rec, mode)
  if mode == "None" then return null end
  if mode == "Object" then
    local whole = value.shallow(rec.obj)
    whole.kind, whole.apiVersion = r.kind, r.api_version
    return whole
  end
  return { kind = "PartialObjectMetadata", apiVersion = "meta.k8s.io/v1", metadata = rec.obj.metadata }
end

local function empty_row(of)
  local cells = json.array {}
  for i, c in ipairs(of.columns) do cells[i] = c[2] == "integer" and 0 or "" end
  return cells
end

-- The JSON of a Table. recs: records to show; head: false leaves the columns out (a later event of a watch).
-- bookmark: metadata of a bookmark's object instead of records.
function tables.encode(r, recs, options)
  local of = KINDS[(r.storage or r).id] or OTHER
  local rows = json.array {}
  for i, rec in ipairs(recs) do
    rows[i] = { cells = json.array(of.row(rec.obj, options.now)), object = included(r, rec, options.include) }
  end
  if options.bookmark then
    rows[1] = { cells = empty_row(of),
      object = { kind = "PartialObjectMetadata", apiVersion = "meta.k8s.io/v1", metadata = options.bookmark } }
  end
  return json.encode { kind = "Table", apiVersion = "meta.k8s.io/v1", metadata = options.metadata,
    columnDefinitions = options.head == false and null or definitions(of.columns), rows = rows }
end

return tables
