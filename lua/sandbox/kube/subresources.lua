-- SPDX-License-Identifier: Apache-2.0
-- scale, status, log, eviction, binding, token, finalize, proxy: what stands behind an object's name.
local json = require "eirun.core.json"
local deletion = require "sandbox.kube.deletion"
local disruption = require "sandbox.kube.disruption"
local patch = require "sandbox.kube.patch"
local proxy = require "sandbox.kube.proxy"
local reader = require "sandbox.kube.reader"
local request = require "sandbox.kube.request"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"
local writer = require "sandbox.kube.writer"

local subs = {}

local JSON = "application/json"
local CREATED = '{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success","code":201}\n'

-- The autoscaling/v1 Scale of an object.
function subs.scale_of(obj)
  local meta, replicas = obj.metadata, obj.spec.replicas or 0
  return { kind = "Scale", apiVersion = "autoscaling/v1",
    metadata = { name = meta.name, namespace = meta.namespace, uid = meta.uid, resourceVersion = meta.resourceVersion,
      creationTimestamp = meta.creationTimestamp },
    spec = { replicas = replicas ~= 0 and replicas or nil },
    status = { replicas = value.get(obj, "status", "replicas") or 0, selector = selector.text(selector.from_object(obj.spec.selector)) } }
end

local function check_scale(name, replicas)
  if replicas ~= nil and (math.type(replicas) ~= "integer" or replicas < 0) then
    status.invalid("Scale", "autoscaling", name, { { reason = "FieldValueInvalid", field = "spec.replicas",
      message = ("Invalid value: %s: must be greater than or equal to 0"):format(tostring(replicas)) } })
  end
end

-- Sets spec.replicas; scale is a Scale object. Controllers scale with this, too.
function subs.set_scale(reg, r, ns, name, scale, opts)
  local replicas = value.get(scale, "spec", "replicas") or 0
  check_scale(name, replicas)
  opts.subresource = "scale"
  local rec = reg:get(r, ns, name)
  local rv = value.get(scale, "metadata", "resourceVersion")
  if rv and rv ~= "" and rv ~= tostring(rec.rv) then status.conflict(r, name) end
  return reg:modify(r, ns, name, function(old)
    if old.spec.replicas == replicas then return nil end
    return value.with(old, { "spec", "replicas" }, replicas)
  end, opts)
end

local scale = {}

function scale.GET(face, at, req)
  local rec = face.registry:get(at.r, at.namespace, at.name)
  req:respond(200, face:headers(JSON), json.encode(subs.scale_of(rec.obj)) .. "\n")
end

local function answer_scale(face, req, rec)
  req:respond(200, face:headers(JSON), json.encode(subs.scale_of(rec.obj)) .. "\n")
end

function scale.PUT(face, at, req)
  local body = writer.body({ kind = "Scale" }, req) or {}
  answer_scale(face, req, subs.set_scale(face.registry, at.r, at.namespace, at.name, body, writer.options(req, req:query())))
end

function scale.PATCH(face, at, req)
  local rec = face.registry:get(at.r, at.namespace, at.name)
  local body, kind = writer.body({ kind = "Scale" }, req) or {}, writer.content_type(req)
  local before, after = subs.scale_of(rec.obj), nil
  before.spec.replicas = rec.obj.spec.replicas
  if kind == "application/json-patch+json" then
    after = patch.json(before, body) or status.bad_request("the patch does not fit")
  elseif kind:find("patch", 1, true) then
    after = patch.merge(before, body)
  else
    status.unsupported_media_type()
  end
  if not value.get(body, "metadata", "resourceVersion") then after = value.with(after, { "metadata" }, {}) end
  answer_scale(face, req, subs.set_scale(face.registry, at.r, at.namespace, at.name, after, writer.options(req, req:query())))
end

local status_sub = {
  GET = function(face, at, req) reader.get(face, at, req) end,
  PUT = function(face, at, req) writer.update(face, at, req) end,
  PATCH = function(face, at, req) writer.patch(face, at, req) end,
}

local log = {}

local function container_of(pod, name)
  local containers = pod.spec.containers or {}
  if (name or "") ~= "" then
    for _, list in ipairs { containers, pod.spec.initContainers or {} } do
      local c = value.find(list, "name", name)
      if c then return c.name end
    end
    status.bad_request(("container %s is not valid for pod %s"):format(name, pod.metadata.name))
  end
  if #containers == 1 then return containers[1].name end
  local names = value.map(containers, function(c) return c.name end)
  status.bad_request(("a container name must be specified for pod %s, choose one of: [%s]"):format(pod.metadata.name,
    table.concat(names, " ")))
end

local function check_started(pod, container)
  local s = value.find(value.get(pod, "status", "containerStatuses"), "name", container)
  local waiting = s and s.state and s.state.waiting
  if s and not waiting then return end
  if waiting and s.lastState and s.lastState.terminated then return end
  local why = waiting and waiting.reason or "ContainerCreating"
  status.bad_request(("container %q in pod %q is waiting to start: %s"):format(container, pod.metadata.name, why))
end

-- ctx.pod_logs(namespace, name, container, options) answers the text, or a function that answers chunk by chunk (nil at the end).
function log.GET(face, at, req)
  local pod, query = face.registry:get(at.r, at.namespace, at.name).obj, req:query()
  local container = container_of(pod, query.container)
  if not pod.spec.nodeName then status.bad_request(("pod %s does not have a host assigned"):format(pod.metadata.name)) end
  check_started(pod, container)
  local source = face.pod_logs and face.pod_logs(at.namespace, at.name, container, {
    follow = request.flag(query.follow), previous = request.flag(query.previous), timestamps = request.flag(query.timestamps),
    tail = request.integer(query.tailLines), since_seconds = request.integer(query.sinceSeconds), since_time = query.sinceTime,
    limit_bytes = request.integer(query.limitBytes), uid = pod.metadata.uid,
  })
  if type(source) ~= "function" then return req:respond(200, face:headers("text/plain"), source or "") end
  req:start(200, face:headers("text/plain"))
  for chunk in source do
    if not req:write(chunk) then return end
  end
  req:finish()
end

local eviction = {}

function eviction.POST(face, at, req)
  local body = writer.body({ kind = "Eviction" }, req) or {}
  local pod = face.registry:get(at.r, at.namespace, at.name).obj
  local options = body.deleteOptions or {}
  local dry = value.contains(options.dryRun, "All") or req:query().dryRun == "All"
  disruption.evict(face.registry, pod, { grace = options.gracePeriodSeconds, preconditions = options.preconditions, dry_run = dry })
  req:respond(201, face:headers(JSON), CREATED)
end

local binding = {}

-- The scheduler's last word: the pod gets its node, once.
function subs.bind(reg, ns, name, node, uid)
  local rec = reg:get(resources.pods, ns, name)
  if uid and uid ~= "" and uid ~= rec.uid then
    status.conflict(resources.pods, name, ("Precondition failed: UID in precondition: %s, UID in object meta: %s"):format(uid, rec.uid))
  end
  if rec.obj.spec.nodeName then
    status.conflict(resources.pods, name, ("pod %s is already assigned to node %s"):format(name, status.quoted(rec.obj.spec.nodeName)))
  end
  if rec.obj.metadata.deletionTimestamp then
    status.conflict(resources.pods, name, ("pod %s is being deleted, cannot be assigned to a host"):format(name))
  end
  return reg:modify(resources.pods, ns, name, function(old)
    local new = value.with(old, { "spec", "nodeName" }, node)
    local conditions = value.filter(value.get(old, "status", "conditions"), function(c) return c.type ~= "PodScheduled" end)
    conditions[#conditions + 1] = { type = "PodScheduled", status = "True", lastProbeTime = nil, lastTransitionTime = reg:time() }
    return value.with(new, { "status", "conditions" }, conditions)
  end, { manager = "kube-scheduler", subresource = "binding" })
end

function binding.POST(face, at, req)
  local body = writer.body({ kind = "Binding" }, req) or {}
  local node = value.get(body, "target", "name")
  if value.get(body, "metadata", "name") ~= at.name then status.bad_request "name in URL does not match name in Binding object" end
  if not node or node == "" then
    status.invalid("Binding", "", "", { { reason = "FieldValueRequired", field = "target.name", message = "Required value" } })
  end
  subs.bind(face.registry, at.namespace, at.name, node, value.get(body, "metadata", "uid"))
  req:respond(201, face:headers(JSON), CREATED)
end

local token = {}

function token.POST(face, at, req)
  local body = writer.body({ kind = "TokenRequest", schema = "authentication.v1.TokenRequest" }, req) or {}
  face.registry:get(at.r, at.namespace, at.name)
  local seconds = value.get(body, "spec", "expirationSeconds") or 3600
  if seconds < 600 then
    status.invalid("TokenRequest", "authentication.k8s.io", "", { { reason = "FieldValueInvalid", field = "spec.expirationSeconds",
      message = ("Invalid value: %d: may not specify a duration less than 10 minutes"):format(seconds) } })
  end
  local text = face.auth:service_account_token(at.namespace, at.name, seconds)
  req:respond(201, face:headers(JSON), json.encode { kind = "TokenRequest", apiVersion = "authentication.k8s.io/v1",
    metadata = { name = at.name, namespace = at.namespace, creationTimestamp = face.registry:time() },
    spec = { audiences = value.get(body, "spec", "audiences") or json.array { "https://kubernetes.default.svc" },
      expirationSeconds = seconds },
    status = { token = text, expirationTimestamp = face.registry:time(face.now() + seconds) } } .. "\n")
end

local finalize = {}

function finalize.PUT(face, at, req)
  local body = writer.body(at.r, req) or {}
  local rec = deletion.finalize_namespace(face.registry, at.name, value.get(body, "spec", "finalizers") or {})
    or status.not_found(at.r, at.name)
  req:respond(200, face:headers(JSON), reader.object(face, at.r, rec, req) .. "\n")
end

local ephemeral = {
  GET = status_sub.GET,
  PUT = function(face, at, req) writer.update(face, at, req) end,
  PATCH = function(face, at, req) writer.patch(face, at, req) end,
}

local KNOWN = { log = log, eviction = eviction, binding = binding, token = token, finalize = finalize, ephemeralcontainers = ephemeral,
  proxy = proxy }

-- Answers a request to a subresource.
function subs.handle(face, at, req)
  local r, of = at.r, nil
  if at.sub == "status" and r.status then
    of = status_sub
  elseif at.sub == "scale" and r.scale then
    of = scale
  elseif value.contains(r.subs, at.sub) then
    of = KNOWN[at.sub]
  end
  if not of then status.path_not_found() end
  local fn = of[req.method] or status.method_not_allowed()
  return fn(face, at, req)
end

return subs
