-- SPDX-License-Identifier: Apache-2.0
-- get, list and watch. Objects go out as the bytes that are stored, behind their kind and apiVersion.
local json = require "eirun.core.json"
local task = require "eirun.core.task"
local events = require "sandbox.kube.events"
local request = require "sandbox.kube.request"
local resources = require "sandbox.kube.resources"
local status = require "sandbox.kube.status"
local tables = require "sandbox.kube.tables"
local value = require "sandbox.kube.value"

local reader = {}

local JSON = "application/json"
-- A bookmark about once a minute; a watch ends after half an hour to an hour unless it says otherwise.
local BOOKMARK_EVERY, LONGEST = 60, 1800
local WRITE_AT_ONCE = 64 * 1024

-- The record's JSON in the words of the asked group-version.
local function text_of(r, rec)
  if r == resources.new_events then return json.encode(events.to_new(rec.obj)) end
  return r.head .. rec.text:sub(2)
end
reader.text_of = text_of

local function partial(rec, with_kind)
  return json.encode { kind = with_kind and "PartialObjectMetadata" or nil, apiVersion = with_kind and "meta.k8s.io/v1" or nil,
    metadata = rec.obj.metadata }
end

-- One object in the shape that was asked for.
function reader.object(face, r, rec, req)
  local shape = request.shape(req.headers:get "accept")
  if shape == "Table" then
    return tables.encode(r, { rec }, { now = face.now(), include = req:query().includeObject,
      metadata = { resourceVersion = rec.rv and tostring(rec.rv) } })
  end
  if shape == "PartialObjectMetadata" then return partial(rec, true) end
  return text_of(r, rec)
end

function reader.get(face, at, req)
  local rec = face.store:get(at.r, at.namespace, at.name) or status.not_found(at.r, at.name)
  req:respond(200, face:headers(JSON), reader.object(face, at.r, rec, req) .. "\n")
end

local function check_list_version(face, query)
  for _, name in ipairs { "limit", "timeoutSeconds" } do
    local text = query[name]
    if text and text ~= "" and not request.integer(text) then
      status.bad_request(("strconv.ParseInt: parsing %q: invalid syntax"):format(text))
    end
  end
  local rv, match = query.resourceVersion, query.resourceVersionMatch
  if request.flag(query.sendInitialEvents) then
    status.invalid("ListOptions", "meta.k8s.io", "", { { reason = "FieldValueForbidden", field = "sendInitialEvents",
      message = "Forbidden: sendInitialEvents is forbidden for list" } })
  end
  if match and (not rv or rv == "" or (query.continue and query.continue ~= "")) then
    status.invalid("ListOptions", "meta.k8s.io", "", { { reason = "FieldValueForbidden", field = "resourceVersionMatch",
      message = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided" } })
  end
  local n = request.integer(rv)
  if rv and rv ~= "" and not n then
    status.bad_request(("invalid resource version: resourceVersion: Invalid value: %q: strconv.ParseUint: parsing %q: invalid syntax")
      :format(rv, rv))
  end
  if n and n > face.store.rv then status.too_large_version(n, face.store.rv) end
  if match == "Exact" and n ~= face.store.rv then
    status.expired "The resourceVersion for the provided list is too old."
  end
end

local function candidates(face, at, query)
  local name = request.only_name(query)
  if name and (at.namespace or not at.r.namespaced) then return { face.store:get(at.r, at.namespace, name) } end
  return face.store:list(at.r, at.namespace)
end

-- Records of the page, its metadata.
local function page_of(face, at, query)
  local matches = request.matcher(at.r, query)
  local limit, rv, after = request.integer(query.limit) or 0, face.store.rv, nil
  if query.continue and query.continue ~= "" then
    rv, after = request.decode_continue(query.continue)
    if not face.store:since(at.r, rv) then
      status.expired("The provided continue parameter is too old to display a consistent list result. You can start a new list without "
        .. "the continue parameter, or use the continue token in this response to retrieve the remainder of the results.",
        { continue = request.encode_continue(face.store.rv, after) })
    end
  end
  local recs, metadata = {}, { resourceVersion = tostring(rv) }
  for _, rec in ipairs(candidates(face, at, query)) do
    if (not after or rec.key > after) and (not matches or matches(rec)) then
      if limit > 0 and #recs == limit then
        metadata.continue = request.encode_continue(rv, recs[#recs].key)
        break
      end
      recs[#recs + 1] = rec
    end
  end
  return recs, metadata
end

local function list_text(r, recs, metadata)
  local parts = {}
  for i, rec in ipairs(recs) do
    parts[i] = r == resources.new_events and text_of(r, rec) or rec.text
  end
  return ('{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}\n'):format(r.kind, r.api_version, json.encode(metadata),
    table.concat(parts, ","))
end

local function partial_list(recs, metadata)
  local parts = {}
  for i, rec in ipairs(recs) do parts[i] = partial(rec) end
  return ('{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":%s,"items":[%s]}\n'):format(
    json.encode(metadata), table.concat(parts, ","))
end

function reader.list(face, at, req)
  local query = req:query()
  check_list_version(face, query)
  local recs, metadata = page_of(face, at, query)
  local shape = request.shape(req.headers:get "accept")
  local body
  if shape == "Table" then
    body = tables.encode(at.r, recs, { now = face.now(), include = query.includeObject, metadata = metadata }) .. "\n"
  elseif shape == "PartialObjectMetadataList" then
    body = partial_list(recs, metadata)
  else
    body = list_text(at.r, recs, metadata)
  end
  req:respond(200, face:headers(JSON), body)
end

-- Watches ------------------------------------------------------------------------------------------------------------

local Watch = {}
Watch.__index = Watch

local function old_state(event)
  local last = value.with(event.old.obj, { "metadata", "resourceVersion" }, tostring(event.rv))
  return { r = event.r, obj = last, text = json.encode(last), rv = event.rv }
end

-- What the event is for this watch: type and record; nil when it does not concern it.
function Watch:seen(event)
  if self.ns and event.new.ns ~= self.ns then return nil end
  local matches = self.matches
  if not matches then return event.type, event.new end
  local was = event.old and matches(event.old)
  local is = event.type ~= "DELETED" and matches(event.new)
  if is then return was and "MODIFIED" or "ADDED", event.new end
  if not was then return nil end
  return "DELETED", event.type == "DELETED" and event.new or old_state(event)
end

function Watch:line(type, rec)
  local text
  if self.shape == "Table" then
    text = tables.encode(self.r, { rec }, { now = self.face.now(), include = self.include, head = not self.told,
      metadata = { resourceVersion = tostring(rec.rv) } })
    self.told = true
  elseif self.shape == "PartialObjectMetadata" then
    text = partial(rec, true)
  else
    text = text_of(self.r, rec)
  end
  return '{"type":"' .. type .. '","object":' .. text .. "}\n"
end

-- An event's line is the same for every plain watch of the resource that sees it with that type.
function Watch:event_line(event, type, rec)
  if self.shape or self.r ~= event.r or rec ~= event.new then return self:line(type, rec) end
  event.lines = event.lines or {}
  event.lines[type] = event.lines[type] or self:line(type, rec)
  return event.lines[type]
end

function Watch:bookmark(rv, initial)
  local metadata = { resourceVersion = tostring(rv), annotations = initial and { ["k8s.io/initial-events-end"] = "true" } or nil }
  if self.shape == "Table" then
    local text = tables.encode(self.r, {}, { now = self.face.now(), head = not self.told, bookmark = metadata,
      metadata = { resourceVersion = tostring(rv) } })
    self.told = true
    return '{"type":"BOOKMARK","object":' .. text .. "}\n"
  end
  return ('{"type":"BOOKMARK","object":%s"metadata":%s}}\n'):format(self.r.head, json.encode(metadata))
end

-- Where the stream starts: "state" (synthetic ADDED first) or the resourceVersion to go on from.
local function start_of(face, query)
  local rv = query.resourceVersion
  if request.flag(query.sendInitialEvents) then
    if query.resourceVersionMatch ~= "NotOlderThan" then
      status.invalid("ListOptions", "meta.k8s.io", "", { { reason = "FieldValueForbidden", field = "resourceVersionMatch",
        message = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan" } })
    end
    local n = request.integer(rv) or 0
    if n > face.store.rv then status.too_large_version(n, face.store.rv) end
    return "state"
  end
  if rv == nil or rv == "" or rv == "0" then return "state" end
  local n = request.integer(rv)
  if not n then status.bad_request(("invalid resource version %q"):format(rv)) end
  if n > face.store.rv then status.too_large_version(n, face.store.rv) end
  return n
end

local function expired_line(rv, floor)
  local s = status.new { code = 410, reason = "Expired", message = ("too old resource version: %d (%d)"):format(rv, floor) }
  return '{"type":"ERROR","object":' .. status.encode(s):gsub("\n$", "") .. "}\n"
end

-- The lines that a watch begins with; nil and the ERROR line when its past is gone.
local function first_lines(self, at, query, from)
  local lines = {}
  if from == "state" then
    for _, rec in ipairs(candidates(self.face, at, query)) do
      if not self.matches or self.matches(rec) then lines[#lines + 1] = self:line("ADDED", rec) end
    end
    if request.flag(query.sendInitialEvents) and self.bookmarks then
      lines[#lines + 1] = self:bookmark(self.face.store.rv, true)
    end
    return lines
  end
  local missed, floor = self.face.store:since(self.r, from)
  if not missed then return nil, expired_line(from, floor) end
  for _, event in ipairs(missed) do
    local type, rec = self:seen(event)
    if type then lines[#lines + 1] = self:event_line(event, type, rec) end
  end
  return lines
end

-- Everything that waits, up to a sensible amount, as one chunk.
local function drain(self)
  local parts, size, taken = {}, 0, 0
  local waiting = self.waiting
  while waiting[taken + 1] and size < WRITE_AT_ONCE do
    taken = taken + 1
    local line = self:event_line(table.unpack(waiting[taken]))
    parts[#parts + 1] = line
    size = size + #line
  end
  self.waiting = table.move(waiting, taken + 1, #waiting, 1, {})
  return table.concat(parts)
end

local function wait(self, until_time)
  if self.waiting[1] then return end
  self.arrived:clear()
  self.arrived:wait(math.max(0, until_time - self.face.now()))
end

local function follow(self, req, until_time)
  local next_bookmark = self.face.now() + BOOKMARK_EVERY
  while not req:closed() and (self.waiting[1] or self.face.now() < until_time) do
    wait(self, math.min(next_bookmark, until_time))
    local chunk = drain(self)
    if self.face.now() >= next_bookmark or (self.face.now() >= until_time and not self.waiting[1]) then
      if self.bookmarks then chunk = chunk .. self:bookmark(self.face.store.rv) end
      next_bookmark = self.face.now() + BOOKMARK_EVERY
    end
    if chunk ~= "" and not req:write(chunk) then return end
  end
end

local function run(self, at, query, req, from)
  local stop = self.face.store:watch(self.r, function(event)
    -- What does not concern this watch does not wake it.
    local type, rec = self:seen(event)
    if not type then return end
    self.waiting[#self.waiting + 1] = { event, type, rec }
    self.arrived:set()
  end)
  local guard <close> = setmetatable({}, { __close = stop }) -- luacheck: ignore
  local lines, failure = first_lines(self, at, query, from)
  req:start(200, self.face:headers(JSON))
  local seconds = request.integer(query.timeoutSeconds) or 0
  if seconds <= 0 then seconds = LONGEST + self.face.random(0, LONGEST) end
  local chunk = failure or table.concat(lines)
  if chunk ~= "" then req:write(chunk) end
  if not failure then follow(self, req, self.face.now() + seconds) end
  req:finish()
end

function reader.watch(face, at, req)
  local query = req:query()
  local shape = request.shape(req.headers:get "accept")
  local from = start_of(face, query)
  local self = setmetatable({ face = face, r = at.r, ns = at.r.namespaced and at.namespace or nil, shape = shape,
    matches = request.matcher(at.r, query), bookmarks = request.flag(query.allowWatchBookmarks), include = query.includeObject,
    arrived = task.event(), waiting = {} }, Watch)
  return run(self, at, query, req, from)
end

return reader
