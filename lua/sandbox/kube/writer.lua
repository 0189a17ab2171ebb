-- SPDX-License-Identifier: Apache-2.0
-- create, update, patch and delete as HTTP has them.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local deletion = require "sandbox.kube.deletion"
local events = require "sandbox.kube.events"
local reader = require "sandbox.kube.reader"
local gojson = require "sandbox.kube.gojson"
local request = require "sandbox.kube.request"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local writer = {}

local JSON = "application/json"
local MAX_BODY = 3 * 1024 * 1024
local APPLY, STRATEGIC = "application/apply-patch+yaml", "application/strategic-merge-patch+json"

local function content_type(req)
  return ((req.headers:get "content-type" or ""):match("^%s*([^;%s]*)") or ""):lower()
end
writer.content_type = content_type

local function read_body(req)
  local text, err = req:body(MAX_BODY)
  if text then return text end
  if err and err.kind == "quota" then
    status.raise(413, "RequestEntityTooLarge", ("Request entity too large: limit is %d"):format(MAX_BODY), {})
  end
  status.bad_request("cannot read the body")
end

-- The value of a text, or nil and what the real server's parser says.
local function decode_json(text)
  local v, err = json.decode(text)
  if v ~= nil then return v end
  return nil, gojson.problem(text) or err.message
end

local function decode_yaml(text)
  local v = json.decode(text)
  if v ~= nil then return v end
  local err
  v, err = require("eirun.core.yaml").decode(text)
  return v, err and err.message
end

-- The first bytes of a body, for a message.
local function summary(text)
  local shown = text:sub(1, 30)
  if text:sub(1, 1) ~= "{" then shown = crypto.hex(shown) end
  return shown .. (#text > 30 and " ..." or "")
end

local TYPE_META = [[struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }]]

-- The decoded body of a create or update: JSON, YAML or protobuf of the kinds that kubectl sends so.
function writer.body(r, req)
  local text, kind = read_body(req), content_type(req)
  if text == "" then return nil end
  if kind == "application/vnd.kubernetes.protobuf" then return require("sandbox.kube.protobuf").decode(r, text) end
  local v, err = (kind:find("yaml", 1, true) and decode_yaml or decode_json)(text)
  if not value.is_map(v) then
    status.bad_request(("the object provided is unrecognized (must be of type %s): couldn't get version/kind; json parse error: %s (%s)")
      :format(r.kind, err or gojson.mismatch(v, TYPE_META), summary(text)))
  end
  return v
end

local function dry_run(values)
  if values == nil or values == "" then return false end
  if values == "All" then return true end
  status.invalid("CreateOptions", "meta.k8s.io", "", { { reason = "FieldValueNotSupported", field = "dryRun",
    message = ('Unsupported value: ["%s"]: supported values: "All"'):format(values) } })
end

local function default_manager(req)
  local agent = (req.headers:get "user-agent" or ""):match("^([^/]*)")
  return agent ~= "" and agent:sub(1, 128) or "unknown"
end

-- Who writes: the query says it, else the client's name.
function writer.manager(req)
  local given = req:query().fieldManager or ""
  return given ~= "" and given or default_manager(req)
end

-- The options of a write out of its query.
local function options(req, query)
  local field_manager = query.fieldManager
  if field_manager and #field_manager > 128 then status.bad_request("fieldManager: Too long: may not be more than 128 bytes") end
  return { manager = writer.manager(req), dry_run = dry_run(query.dryRun),
    validation = query.fieldValidation, warnings = {} }
end
writer.options = options

local function check_kind(r, body)
  if body.kind == nil and body.apiVersion == nil then return end
  if body.kind ~= r.kind or body.apiVersion ~= r.api_version then
    local function package(api_version)
      return api_version:match("^([^./]*)[^/]*/") or "core"
    end
    local version = tostring(body.apiVersion)
    status.bad_request(('%s in version "%s" cannot be handled as a %s: converting (%s.%s) to (%s.%s): unknown conversion'):format(
      tostring(body.kind), version:match("[^/]*$"), r.kind, version:match("[^/]*$"), tostring(body.kind), package(r.api_version), r.kind))
  end
end

local function stored(r, body, opts)
  if r ~= resources.new_events then return r, body end
  opts.managed = events.managed_anew
  return resources.events, events.to_old(body)
end

local function answer(face, at, req, code, rec, opts)
  if at.r.warning then table.insert(opts.warnings, at.r.warning) end
  req:respond(code, face:headers(JSON, opts.warnings), reader.object(face, at.r, rec, req) .. "\n")
end
writer.answer = answer

function writer.create(face, at, req)
  local opts = options(req, req:query())
  local body = writer.body(at.r, req) or {}
  check_kind(at.r, body)
  local r, obj = stored(at.r, body, opts)
  answer(face, at, req, 201, face.registry:create(r, at.namespace, obj, opts), opts)
end

function writer.update(face, at, req)
  local opts = options(req, req:query())
  opts.subresource = at.sub
  local body = writer.body(at.r, req) or {}
  check_kind(at.r, body)
  local r, obj = stored(at.r, body, opts)
  local rec, created = face.registry:replace(r, at.namespace, at.name, obj, opts)
  answer(face, at, req, created and 201 or 200, rec, opts)
end

local function decode_patch(req, kind)
  local text = read_body(req)
  local v, err = (kind == APPLY and decode_yaml or decode_json)(text)
  if type(v) == "table" then return v end
  -- Strategic patches are read elsewhere in the real server, which adds no words there.
  local prefix = kind == STRATEGIC and "" or "error decoding patch: "
  status.bad_request(prefix .. (err or gojson.mismatch(v, "map[string]interface {}")))
end

local function require_manager(query)
  if (query.fieldManager or "") ~= "" then return end
  status.invalid("PatchOptions", "meta.k8s.io", "", { { reason = "FieldValueRequired", field = "fieldManager",
    message = "Required value: is required for apply patch" } })
end

local function apply(face, at, req, query, opts)
  require_manager(query)
  opts.force = request.flag(query.force)
  -- An apply that makes the object needs the right to create, too.
  if at.user and not at.sub and not face.store:get(at.r, at.namespace, at.name) then face:authorize(at.user, at, "create") end
  return face.registry:apply(at.r, at.namespace, at.name, decode_patch(req, APPLY), opts)
end

function writer.patch(face, at, req)
  local query, kind = req:query(), content_type(req)
  local opts = options(req, query)
  opts.subresource = at.sub
  if kind == APPLY then
    local rec, created = apply(face, at, req, query, opts)
    return answer(face, at, req, created and 201 or 200, rec, opts)
  end
  if not face.registry.patch_types[kind] then status.unsupported_media_type() end
  if query.force ~= nil and request.flag(query.force) then
    status.invalid("PatchOptions", "meta.k8s.io", "", { { reason = "FieldValueForbidden", field = "force",
      message = "Forbidden: may not be specified for non-apply patch" } })
  end
  local r = at.r.storage or at.r
  answer(face, at, req, 200, face.registry:patch(r, at.namespace, at.name, kind, decode_patch(req, kind), opts), opts)
end

local function delete_body(req)
  local text = read_body(req)
  if text == "" then return {} end
  if content_type(req) == "application/vnd.kubernetes.protobuf" then
    return require("sandbox.kube.protobuf").decode_message("meta.v1.DeleteOptions", text)
  end
  local body = decode_json(text)
  if type(body) ~= "table" then status.bad_request("the body of a delete must be DeleteOptions") end
  return body
end

-- DeleteOptions from the body, and from the query where the body says nothing.
function writer.delete_options(req)
  local query, body = req:query(), delete_body(req)
  local policy = body.propagationPolicy or query.propagationPolicy
  if policy == nil and body.orphanDependents ~= nil then policy = body.orphanDependents and "Orphan" or "Background" end
  return { grace = body.gracePeriodSeconds or request.integer(query.gracePeriodSeconds), propagation = policy,
    preconditions = body.preconditions, dry_run = dry_run(query.dryRun or (body.dryRun and body.dryRun[1])), warnings = {} }
end

local function success(r, rec)
  return status.encode(status.new { success = true, details = { name = rec.name, group = r.group ~= "" and r.group or nil,
    kind = r.plural, uid = rec.uid } })
end

local ORPHANS = "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
  .. "propagationPolicy=Orphan to suppress this warning"

function writer.delete(face, at, req)
  local r, opts = at.r.storage or at.r, writer.delete_options(req)
  if r.id == "jobs.batch" and opts.propagation == nil then
    opts.propagation = "Orphan"
    opts.warnings[1] = ORPHANS
  end
  local rec, stays = deletion.delete(face.registry, r, at.namespace, at.name, opts)
  if r.keep or stays then return answer(face, at, req, 200, rec, opts) end
  req:respond(200, face:headers(JSON, opts.warnings), success(at.r, rec))
end

function writer.delete_collection(face, at, req)
  local opts, query = writer.delete_options(req), req:query()
  local r = at.r.storage or at.r
  local matches, texts = request.matcher(r, query), {}
  for _, rec in ipairs(face.store:list(r, at.namespace)) do
    if not matches or matches(rec) then
      local gone = deletion.delete(face.registry, r, rec.ns, rec.name, opts)
      texts[#texts + 1] = gone.text
    end
  end
  req:respond(200, face:headers(JSON), ('{"kind":"%sList","apiVersion":"%s","metadata":{"resourceVersion":"%d"},"items":[%s]}\n'):format(
    at.r.kind, at.r.api_version, face.store.rv, table.concat(texts, ",")))
end

return writer
