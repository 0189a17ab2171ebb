-- SPDX-License-Identifier: Apache-2.0
-- The API server's HTTP face: who asks, what for, and the answer or the Status.
local json = require "eirun.core.json"
local discovery = require "sandbox.kube.discovery"
local impersonation = require "sandbox.kube.impersonation"
local metrics = require "sandbox.kube.metrics"
local reader = require "sandbox.kube.reader"
local request = require "sandbox.kube.request"
local resources = require "sandbox.kube.resources"
local reviews = require "sandbox.kube.reviews"
local status = require "sandbox.kube.status"
local subresources = require "sandbox.kube.subresources"
local trouble = require "sandbox.kube.trouble"
local writer = require "sandbox.kube.writer"

local Face = {}
Face.__index = Face

local JSON = "application/json"
local EXTERNAL = "external.metrics.k8s.io"
local VERSION = '{"major":"1","minor":"36","gitVersion":"v1.36.3-aliyun.1","gitCommit":"0000000000000000000000000000000000000000",'
  .. '"gitTreeState":"clean","buildDate":"2026-01-01T00:00:00Z","goVersion":"go1.26.0","compiler":"gc","platform":"linux/amd64"}\n'

-- options: store, registry, auth, now, random, log(level, format, ...), pod_logs(...),
-- external_metrics(req), adapter_installed(), faults (of the sandbox, or nil)
function Face.new(options)
  return setmetatable(options, Face)
end

function Face:headers(content_type, warnings)
  self.requests = (self.requests or 0) + 1
  local list = { { "Audit-Id", ("00000000-0000-4000-8000-%012x"):format(self.requests) }, { "Cache-Control", "no-cache, private" },
    { "Content-Type", content_type } }
  for _, text in ipairs(warnings or {}) do
    list[#list + 1] = { "Warning", ('299 - "%s"'):format(text:gsub('[\\"]', "\\%0")) }
  end
  return list
end

function Face:fail(req, s)
  local headers = self:headers(JSON)
  local after = s.details and s.details.retryAfterSeconds
  if after then headers[#headers + 1] = { "Retry-After", tostring(after) } end
  if s.code == 401 then headers[#headers + 1] = { "Www-Authenticate", 'Basic realm="kubernetes-master"' } end
  req:respond(s.code, headers, status.encode(s))
end

-- The metrics adapter answers only while it is installed.
function Face:external()
  return self.external_metrics ~= nil and self.adapter_installed()
end

local function text(req, face, body)
  req:respond(200, face:headers("text/plain; charset=utf-8"), body)
end

local PLAIN = {
  ["/version"] = function(face, req) req:respond(200, face:headers(JSON), VERSION) end,
  ["/healthz"] = function(face, req) text(req, face, "ok") end,
  ["/livez"] = function(face, req) text(req, face, "ok") end,
  ["/readyz"] = function(face, req) text(req, face, "ok") end,
}

local function send_document(face, req, body, content_type)
  if not body then return req:respond(404, face:headers("text/plain; charset=utf-8"), "404 page not found\n") end
  req:respond(200, face:headers(content_type), body)
end

local function send_openapi(face, req, parts)
  local key = table.concat(parts, "/", 3)
  local body, content_type
  if key == "" then body, content_type = discovery.openapi_index() else body, content_type = discovery.openapi(key) end
  if not body then return send_document(face, req) end
  local headers = { { "Content-Type", content_type } }
  if key ~= "" then headers[2] = { "Cache-Control", "public, immutable, max-age=31536000" } end
  req:respond(200, headers, body)
end

-- Discovery documents; true when the path was one.
local function serve_documents(face, req)
  local accept, parts = req.headers:get "accept", request.parts_of(req.path)
  local first, n = parts[1], #parts
  if first == "api" and n == 1 then
    send_document(face, req, discovery.api(accept))
  elseif first == "apis" and n == 1 then
    send_document(face, req, discovery.apis(accept, face:external()))
  elseif first == "apis" and n == 2 then
    send_document(face, req, discovery.group(parts[2], face:external()))
  elseif first == "api" and n == 2 then
    send_document(face, req, discovery.version(parts[2]))
  elseif first == "apis" and n == 3 and parts[2] ~= EXTERNAL then
    send_document(face, req, discovery.version(parts[2] .. "/" .. parts[3]))
  elseif first == "openapi" and parts[2] == "v3" then
    send_openapi(face, req, parts)
  elseif first == "openapi" and parts[2] == "v2" and n == 2 then
    send_document(face, req, discovery.openapi_v2(accept))
  else
    return false
  end
  return true
end

local VERBS = { POST = "create", PUT = "update", PATCH = "patch", DELETE = "delete" }

local function verb_of(at, req)
  if req.method == "GET" then
    if request.flag(req:query().watch) then return "watch" end
    return at.name and "get" or "list"
  end
  if req.method == "DELETE" and not at.name then return "deletecollection" end
  return VERBS[req.method]
end

Face.verb_of = verb_of

local function who_cannot(user, a)
  local where = a.namespace and (' in the namespace "%s"'):format(a.namespace) or " at the cluster scope"
  local resource = a.subresource and a.resource .. "/" .. a.subresource or a.resource
  return ('User "%s" cannot %s resource "%s" in API group "%s"%s'):format(user.name, a.verb, resource, a.group, where)
end

-- A Namespace object counts as inside of itself.
local function attributes(at, verb)
  return { verb = verb, group = at.r.group, resource = at.r.plural, subresource = at.sub, name = at.name,
    namespace = at.namespace or at.r.plural == "namespaces" and at.name or nil }
end

function Face:refuse(user, at, verb)
  status.forbidden(at.r, at.name, who_cannot(user, attributes(at, verb)))
end

function Face:authorize(user, at, verb)
  local asked = attributes(at, verb)
  if not self.auth:allowed(user, asked) then self:refuse(user, at, verb) end
  if self.audit then self.audit(user, asked) end
end

local ITEM = { get = reader.get, update = writer.update, patch = writer.patch, delete = writer.delete }
local COLLECTION = { list = reader.list, create = writer.create, deletecollection = writer.delete_collection }

local function check_scope(at, verb)
  if at.r.namespaced and not at.namespace and (at.name or verb == "create") then status.path_not_found() end
  if not at.r.namespaced and at.namespace then status.path_not_found() end
end

function Face:act(req, at, verb)
  if at.sub then return subresources.handle(self, at, req) end
  if verb == "watch" then return reader.watch(self, at, req) end
  local fn = (at.name and ITEM or COLLECTION)[verb] or status.method_not_allowed()
  return fn(self, at, req)
end

function Face:serve_resource(req, user, at)
  local verb = verb_of(at, req) or status.method_not_allowed()
  check_scope(at, verb)
  at.user = user
  self:authorize(user, at, verb)
  return trouble.around(self, req, at, user, verb, function(through) return self:act(through, at, verb) end)
end

local function is_review(at)
  for _, r in ipairs(resources.reviews) do
    if at.r == r then return true end
  end
end

function Face:serve_review(req, user, at)
  if req.method ~= "POST" then status.method_not_allowed() end
  self:authorize(user, at, "create")
  local body = writer.body(at.r, req) or {}
  req:respond(201, self:headers(JSON), reviews.answer(self, at.r, user, body, writer.manager(req)))
end

local function external_path(path)
  return path:match("^/apis/external%.metrics%.k8s%.io/v1beta1")
end

function Face:serve_external(req)
  if not self:external() then return send_document(self, req) end
  return self.external_metrics(req)
end

-- Usage of pods and nodes.
function Face:serve_metrics(req, user, found)
  if req.method ~= "GET" then status.method_not_allowed() end
  local at = { r = { plural = found.resource, group = metrics.GROUP }, namespace = found.namespace, name = found.name }
  self:authorize(user, at, found.name and "get" or "list")
  req:respond(200, self:headers(JSON), json.encode(metrics.answer(self, found, req:query())) .. "\n")
end

function Face:serve(req)
  if PLAIN[req.path] then return PLAIN[req.path](self, req) end
  local user = self.auth:user(req)
  if not user then status.unauthorized() end
  user = impersonation.user(self, req, user)
  if serve_documents(self, req) then return end
  if external_path(req.path) then return self:serve_external(req) end
  local usage = metrics.locate(req.path)
  if usage then return self:serve_metrics(req, user, usage) end
  local at = request.locate(req.path)
  if at and not at.r and discovery.serves_group(at.api_version) then status.path_not_found() end
  if not at or not at.r then return send_document(self, req) end
  if is_review(at) then return self:serve_review(req, user, at) end
  return self:serve_resource(req, user, at)
end

local function trace(err)
  if type(err) == "string" then return debug.traceback(err, 2) end
  return err
end

-- Answers one request of the HTTP server.
function Face:handle(req)
  local ok, err = xpcall(self.serve, trace, self, req)
  if ok then return end
  if status.is(err) then return self:fail(req, err) end
  if type(err) == "table" and err.kind == "cancelled" then error(err, 0) end
  self.log("error", "kube %s %s: %s", req.method, req.path, tostring(err))
  local s = status.new { code = 500, reason = "InternalError", message = "Internal error occurred: " .. tostring(err):match("^[^\n]*") }
  -- A reply that has begun can only be cut.
  if not pcall(self.fail, self, req, s) then req:abort() end
end

return Face
