-- SPDX-License-Identifier: Apache-2.0
-- Reviews: posted, answered, never stored.
local json = require "eirun.core.json"
local apply = require "sandbox.kube.apply"
local schema = require "sandbox.kube.schema"
local value = require "sandbox.kube.value"

local reviews = {}

local function attributes_of(spec)
  local of = spec.resourceAttributes
  if of then
    return { verb = of.verb, group = of.group, resource = of.resource, subresource = of.subresource, name = of.name,
      namespace = of.namespace }
  end
  local url = spec.nonResourceAttributes or {}
  return { verb = url.verb or "get", path = url.path or "/" }
end

local function decide(face, user, spec)
  local yes = face.auth:allowed(user, attributes_of(spec))
  return { allowed = yes }
end

function reviews.selfsubjectaccessreviews(face, user, body)
  body.status = decide(face, user, body.spec or {})
end

function reviews.subjectaccessreviews(face, _, body)
  local spec = body.spec or {}
  body.status = decide(face, { name = spec.user or "", groups = spec.groups or {} }, spec)
end

function reviews.selfsubjectreviews(face, user, body)
  body.metadata.creationTimestamp = face.registry:time()
  body.status = { userInfo = { username = user.name, uid = user.uid, groups = user.groups, extra = user.extra } }
end

function reviews.tokenreviews(face, _, body)
  local token = value.get(body, "spec", "token") or ""
  local user = face.auth:user { headers = { get = function() return "Bearer " .. token end } }
  body.status = user and { authenticated = true, user = { username = user.name, uid = user.uid, groups = user.groups } }
    or { authenticated = false, error = "invalid bearer token" }
end

function reviews.selfsubjectrulesreviews(face, user, body)
  local rules, urls = json.array {}, json.array {}
  local all = json.array { "*" }
  if value.contains(user.groups, "system:masters") then
    rules[1] = { verbs = all, apiGroups = all, resources = all }
    urls[1] = { verbs = all, nonResourceURLs = all }
  end
  for _, rule in ipairs(face.auth:rules_of(user, value.get(body, "spec", "namespace"))) do
    if rule.resources then rules[#rules + 1] = rule else urls[#urls + 1] = rule end
  end
  body.status = { resourceRules = rules, nonResourceRules = urls, incomplete = false }
end

function reviews.answer(face, r, user, body, manager)
  body.metadata = body.metadata or {}
  local who = { manager = manager, api_version = r.api_version, without_status = true }
  body.metadata.managedFields = apply.update(nil, body, schema.root(r.schema), who, face.registry:time()).metadata.managedFields
  body.kind, body.apiVersion = r.kind, r.api_version
  reviews[r.plural](face, user, body)
  return json.encode(body) .. "\n"
end

return reviews
