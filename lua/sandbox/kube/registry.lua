-- SPDX-License-Identifier: Apache-2.0
-- The life of an object in the API server: create, update, patch, delete with defaults, admission, validation, field
-- managers and optimistic concurrency. The HTTP face and the controllers both come here. Failures raise a Status.
--
-- opts of every write: manager (field manager), subresource, dry_run, validation (Ignore|Warn|Strict), warnings (list).
local json = require "eirun.core.json"
local Addresses = require "sandbox.kube.addresses"
local apply = require "sandbox.kube.apply"
local defaults = require "sandbox.kube.defaults"
local normalise = require "sandbox.kube.normalise"
local patch = require "sandbox.kube.patch"
local quota = require "sandbox.kube.quota"
local resources = require "sandbox.kube.resources"
local rules = require "sandbox.kube.rules"
local schema = require "sandbox.kube.schema"
local status = require "sandbox.kube.status"
local strategic = require "sandbox.kube.strategic"
local strategy = require "sandbox.kube.strategy"
local validate = require "sandbox.kube.validate"
local value = require "sandbox.kube.value"

local Registry = { resources = resources }
Registry.__index = Registry

local SUFFIX = "bcdfghjklmnpqrstvwxz2456789"

-- options: store, now() in seconds, random(low, high).
function Registry.new(options)
  local self = setmetatable(options, Registry)
  self.addresses = Addresses.new(options.store)
  return self
end

function Registry:time(at)
  return os.date("!%Y-%m-%dT%H:%M:%SZ", math.floor(at or self.now()))
end

-- Five letters as Kubernetes appends them to a generateName.
function Registry:suffix()
  local out = {}
  for i = 1, 5 do
    local at = self.random(1, #SUFFIX)
    out[i] = SUFFIX:sub(at, at)
  end
  return table.concat(out)
end

function Registry:uid()
  local r = self.random
  return ("%08x-%04x-4%03x-%04x-%06x%06x"):format(r(0, 0xffffffff), r(0, 0xffff), r(0, 0xfff), 0x8000 | r(0, 0x3fff),
    r(0, 0xffffff), r(0, 0xffffff))
end

local function who(r, opts)
  return { manager = opts.manager or "unknown", api_version = r.api_version, subresource = opts.subresource,
    without_status = r.status and opts.subresource ~= "status" }
end

local function root(r)
  return schema.root((r.storage or r).schema)
end

local function check(r, new, old)
  local c = validate.new()
  validate.metadata(c, r, new.metadata)
  if rules[r.id] then rules[r.id](c, new, old) end
  if #c.causes > 0 then status.invalid(r.kind, r.group, new.metadata.name, c.causes) end
end

function Registry:require_namespace(r, ns, name)
  local rec = self.store:get(resources.namespaces, nil, ns)
  if not rec then status.not_found(resources.namespaces, ns) end
  if rec.obj.metadata.deletionTimestamp then
    status.forbidden(r, name, ("unable to create new content in namespace %s because it is being terminated"):format(ns),
      json.array { { reason = "NamespaceTerminating", message = ("namespace %s is being terminated"):format(ns),
        field = "metadata.namespace" } })
  end
end

local function place(r, obj, ns)
  local meta = obj.metadata
  if not r.namespaced then
    meta.namespace = nil
    return
  end
  if meta.namespace and meta.namespace ~= ns then
    status.bad_request(("the namespace of the provided object does not match the namespace sent on the request"))
  end
  meta.namespace = ns
end

local function name_object(self, r, ns, meta)
  if meta.name and meta.name ~= "" then return end
  meta.name = nil
  if not meta.generateName then return end
  for _ = 1, 8 do
    meta.name = meta.generateName .. self:suffix()
    if not self.store:get(r, ns, meta.name) then return end
  end
end

local function begin_life(self, meta)
  meta.uid, meta.creationTimestamp = self:uid(), self:time()
  meta.deletionTimestamp, meta.deletionGracePeriodSeconds, meta.selfLink, meta.resourceVersion = nil, nil, nil, nil
  meta.generation = nil
end

-- A record that is answered but not stored.
local function unstored(r, obj)
  return { r = r, ns = obj.metadata.namespace, name = obj.metadata.name, uid = obj.metadata.uid, obj = obj,
    text = assert(json.encode(obj)) }
end

function Registry:save(r, obj, opts)
  if opts.dry_run then return unstored(r.storage or r, obj) end
  return self.store:put(r, obj)
end

-- obj is fresh and normalised; it is changed.
function Registry:insert(r, ns, obj, opts)
  local meta = obj.metadata
  if r.namespaced then self:require_namespace(r, ns, meta.name) end
  name_object(self, r, ns, meta)
  if meta.name and self.store:get(r, ns, meta.name) then status.already_exists(r, meta.name) end
  begin_life(self, meta)
  defaults.apply(r, obj)
  -- What admission adds belongs to nobody.
  if opts.finish then
    obj = opts.finish(nil, obj)
  else
    obj = apply.update(nil, obj, root(r), who(r, opts), self:time(), strategy.blank[r.id])
    obj = opts.managed and opts.managed(obj) or obj
  end
  strategy.create(self, r, obj)
  check(r, obj)
  quota.admit(self, r, obj)
  return self:save(r, obj, opts)
end

-- The record of a new object. body: a table, with or without kind and apiVersion.
function Registry:create(r, ns, body, opts)
  local obj = normalise.object(r, body, opts.validation, opts.warnings)
  place(r, obj, ns)
  if obj.metadata.resourceVersion and obj.metadata.resourceVersion ~= "" then
    status.bad_request("resourceVersion should not be set on objects to be created")
  end
  return self:insert(r, ns, obj, opts)
end

function Registry:get(r, ns, name)
  return self.store:get(r, ns, name) or status.not_found(r, name)
end

-- What a writer cannot change stays as it was.
local function carry_metadata(new, old)
  local meta, was = new.metadata, old.metadata
  for _, key in ipairs { "name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds",
    "generation", "generateName" } do
    meta[key] = was[key]
  end
  meta.selfLink = nil
end

local function check_preconditions(r, rec, new)
  local meta = new.metadata
  if meta.uid and meta.uid ~= "" and meta.uid ~= rec.uid then
    status.conflict(r, rec.name, ("Precondition failed: UID in precondition: %s, UID in object meta: %s"):format(meta.uid, rec.uid))
  end
  local rv = meta.resourceVersion
  if rv and rv ~= "" and rv ~= tostring(rec.rv) then status.conflict(r, rec.name) end
  meta.resourceVersion = tostring(rec.rv)
end

-- The part of the object that the request's endpoint may not touch comes from the old one.
local function keep_other_side(r, new, old, subresource)
  if subresource == "status" then
    local written, meta = new.status, new.metadata
    for key in pairs(new) do new[key] = nil end
    for key, v in pairs(old) do new[key] = v end
    new.status, new.metadata = written, value.shallow(old.metadata)
    new.metadata.labels, new.metadata.annotations = meta.labels, meta.annotations
    new.metadata.managedFields = meta.managedFields
  elseif subresource == nil and r.status then
    new.status = old.status
  end
end

local function spec_changed(new, old)
  for _, pair in ipairs { { new, old }, { old, new } } do
    for key, v in pairs(pair[1]) do
      if key ~= "metadata" and key ~= "status" and not value.equal(v, pair[2][key]) then return true end
    end
  end
  return false
end

local function finished(obj)
  local meta = obj.metadata
  if not meta.deletionTimestamp then return false end
  if (meta.deletionGracePeriodSeconds or 0) > 0 then return false end
  if meta.finalizers and #meta.finalizers > 0 then return false end
  return not (obj.spec and obj.spec.finalizers and #obj.spec.finalizers > 0)
end

-- Writes new (fresh, normalised, changed here) over rec; answers the record that holds now.
function Registry:overwrite(r, rec, new, opts)
  local old = rec.obj
  check_preconditions(r, rec, new)
  carry_metadata(new, old)
  keep_other_side(r, new, old, opts.subresource)
  if opts.subresource == "status" then
    defaults.apply_status(r, new)
  else
    defaults.apply(r, new)
    strategy.update(self, r, new, old)
    if r.generation and opts.subresource ~= "binding" and spec_changed(new, old) then
      new.metadata.generation = (old.metadata.generation or 0) + 1
    elseif r.notes_count and not value.equal(new.metadata.annotations, old.metadata.annotations) then
      new.metadata.generation = (old.metadata.generation or 0) + 1
    end
    check(r, new, old)
  end
  if opts.finish then
    new = opts.finish(old, new)
  else
    new = apply.update(old, new, root(r), who(r, opts), self:time())
  end
  if value.equal(new, old) then return rec end
  if finished(new) and not opts.dry_run then
    self.store:delete(rec)
    return unstored(r.storage or r, new)
  end
  return self:save(r, new, opts)
end

-- PUT. Answers the record and whether it was created.
function Registry:replace(r, ns, name, body, opts)
  local new = normalise.object(r, body, opts.validation, opts.warnings)
  place(r, new, ns)
  if new.metadata.name ~= name then
    status.bad_request(("the name of the object (%s) does not match the name on the URL (%s)"):format(new.metadata.name or "", name))
  end
  local rec = self.store:get(r, ns, name)
  if not rec then
    if r.upsert and not opts.subresource then return self:insert(r, ns, new, opts), true end
    status.not_found(r, name)
  end
  if r.need_rv and (new.metadata.resourceVersion or "") == "" then
    status.invalid(r.plural, r.group, name, { { reason = "FieldValueInvalid", field = "metadata.resourceVersion",
      message = "Invalid value: 0: must be specified for an update" } })
  end
  return self:overwrite(r, rec, new, opts)
end

-- For controllers: change(old object) answers the new object (sharing allowed) or nil for "leave it".
function Registry:modify(r, ns, name, change, opts)
  local rec = self.store:get(r, ns, name)
  if not rec then return nil end
  local new = change(rec.obj)
  if new == nil or new == rec.obj then return rec end
  new = value.shallow(new)
  new.metadata = value.shallow(new.metadata)
  return self:overwrite(r, rec, new, opts)
end

function Registry:set_status(r, obj, new_status, opts)
  return self:modify(r, obj.metadata.namespace, obj.metadata.name, function(old)
    if value.equal(old.status, new_status) then return nil end
    return value.with(old, { "status" }, new_status)
  end, { manager = opts and opts.manager or "kube-controller-manager", subresource = "status" })
end

local function typed_out(r, obj)
  local whole = value.shallow(obj)
  whole.kind, whole.apiVersion = r.kind, r.api_version
  return whole
end

local PATCHES = {
  ["application/json-patch+json"] = function(_, obj, body)
    if not value.is_list(body) then
      status.bad_request("error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp")
    end
    local new = patch.json(obj, body)
    if new then return new end
    status.raise(422, "Invalid", "the server rejected our request due to an error in our request", {})
  end,
  ["application/merge-patch+json"] = function(_, obj, body) return patch.merge(obj, body) end,
  ["application/strategic-merge-patch+json"] = function(r, obj, body) return strategic.merge(obj, body, root(r)) end,
}

Registry.patch_types = PATCHES

-- The real server reads the patched object into a type that it has to find first.
local function unknown_kind(new)
  local message = ('Invalid value: %s: no kind %s is registered for version %s in scheme "pkg/runtime/scheme.go:111"'):format(
    status.quoted(json.encode(new)), status.quoted(tostring(new.kind)), status.quoted(tostring(new.apiVersion)))
  status.raise(422, "Invalid", ' "" is invalid: patch: ' .. message,
    { causes = json.array { { reason = "FieldValueInvalid", message = message, field = "patch" } } })
end

local function check_identity(r, rec, new)
  local meta = new.metadata or {}
  if new.kind ~= r.kind or new.apiVersion ~= r.api_version then
    unknown_kind(new)
  end
  if meta.name ~= rec.name then
    status.bad_request(("the name of the object (%s) does not match the name on the URL (%s)"):format(tostring(meta.name), rec.name))
  end
  if meta.uid ~= rec.uid then
    local cause = { reason = "FieldValueInvalid", field = "metadata.uid",
      message = ("Invalid value: %s: field is immutable"):format(status.quoted(tostring(meta.uid or ""))) }
    -- The kind's validation looks once more at what every kind's looks at.
    status.invalid(r.kind, r.group, rec.name, { cause, cause })
  end
end

-- The object that a patch makes out of rec's, normalised.
function Registry:patched(r, rec, kind, body, opts)
  local new = PATCHES[kind](r, typed_out(r, rec.obj), body)
  if type(new) ~= "table" then status.bad_request("the patch leaves no object") end
  check_identity(r, rec, new)
  if new.metadata and new.metadata.resourceVersion == tostring(rec.rv) then
    new = value.with(new, { "metadata", "resourceVersion" }, nil)
  end
  return normalise.object(r, new, opts.validation, opts.warnings, rec.obj)
end

function Registry:patch(r, ns, name, kind, body, opts)
  local rec = self:get(r, ns, name)
  return self:overwrite(r, rec, self:patched(r, rec, kind, body, opts), opts)
end

local function typed_problem(r, name, problems)
  local id = ("(%s; %s, Kind=%s)"):format(name, r.api_version, r.kind)
  local text = #problems == 1 and problems[1] or "errors:\n  " .. table.concat(problems, "\n  ")
  status.raise(500, nil, ("failed to create typed patch object %s: %s"):format(id, text))
end

local function check_config(r, ns, name, config)
  if config.apiVersion == r.api_version and config.kind ~= r.kind then
    status.bad_request(("invalid object type: %s/%s, Kind=%s"):format(r.group, r.version, tostring(config.kind)))
  end
  if config.apiVersion ~= r.api_version then
    status.bad_request(("the API version in the data (%s) does not match the expected API version (%s)"):format(
      tostring(config.apiVersion), r.api_version))
  end
  local meta = config.metadata or {}
  if meta.managedFields and #meta.managedFields > 0 then status.bad_request("metadata.managedFields must be nil") end
  if meta.name and meta.name ~= name then
    status.bad_request(("the name of the object (%s) does not match the name on the URL (%s)"):format(meta.name, name))
  end
  if r.namespaced and meta.namespace and meta.namespace ~= ns then
    status.bad_request("the namespace of the provided object does not match the namespace sent on the request")
  end
end

-- The configuration without what the server settles itself.
local function bare_config(r, ns, name, config)
  local bare = value.without_nulls(config)
  bare.kind, bare.apiVersion = nil, nil
  bare.metadata = bare.metadata or {}
  bare.metadata.name, bare.metadata.namespace = name, r.namespaced and ns or nil
  bare.metadata.creationTimestamp = nil
  return bare
end

local function finisher(self, r, config, opts)
  return function(old, new)
    local done, conflicts = apply.finish(old, new, config, root(r), who(r, opts), opts.force, self:time())
    if not done then status.apply_conflict(conflicts) end
    return done
  end
end

-- Server-side apply. Answers the record and whether it was created.
function Registry:apply(r, ns, name, config, opts)
  check_config(r, ns, name, config)
  local bare = bare_config(r, ns, name, config)
  local rec = self.store:get(r, ns, name)
  local merged, problems = apply.merge(rec and rec.obj, bare, root(r), who(r, opts))
  if problems then typed_problem(r, "/" .. name, problems) end
  if rec then
    local rv = bare.metadata.resourceVersion
    merged = value.with(merged, { "metadata", "resourceVersion" }, rv)
  end
  local new = normalise.object(r, merged, opts.validation, opts.warnings, rec and rec.obj)
  opts.finish = finisher(self, r, normalise.object(r, bare, "Ignore"), opts)
  if not rec then
    if opts.subresource then status.not_found(r, name) end
    return self:insert(r, ns, new, opts), true
  end
  return self:overwrite(r, rec, new, opts)
end

return Registry
