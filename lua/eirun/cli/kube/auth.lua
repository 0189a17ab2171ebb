-- SPDX-License-Identifier: Apache-2.0
-- eirun kube auth can-i VERB RESOURCE | whoami
local errors = require "eirun.errors"
local face = require "eirun.cli.kube.face"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local print_ = require "eirun.cli.kube.print"

-- A resource that the server does not have may be allowed all the same.
local function known(k8s, word)
  local ok, info = pcall(k8s.resource, k8s, word)
  if ok then return info end
  if not errors.is(info, "not_found") then error(info, 0) end
  face.note(("Warning: the server doesn't have a resource type '%s'\n"):format(word))
end

local function can_i(k8s, options, words)
  local verb, resource, name = words[2], words[3], words[4]
  if not resource then face.usage "you must specify two arguments: verb resource or verb resource/resourceName." end
  local kind, inner = resource:match "^([^/]+)/(.+)$"
  if kind then resource, name = kind, inner end
  if options.subresource then resource = resource .. "/" .. options.subresource end
  if resource:sub(1, 1) ~= "/" then
    local word = resource:match "^[^/]+"
    local info = word ~= "*" and known(k8s, word) or nil
    if info and not info.namespaced and not options.all_namespaces then
      local group = kinds.group(info.api_version)
      local inside = group ~= "" and (" in group '%s'"):format(group) or ""
      face.note(("Warning: resource '%s' is not namespace scoped%s\n"):format(info.plural, inside))
    end
  end
  local allowed, reason = k8s:can_i(verb, resource, { name = name, all = options.all_namespaces, unknown = true })
  if not options.quiet then face.out((allowed and "yes" or "no") .. (not allowed and reason ~= "" and " - " .. reason or "") .. "\n") end
  return allowed and 0 or 1
end

local function who_am_i(k8s)
  local review = k8s:call { method = "POST", path = "/apis/authentication.k8s.io/v1/selfsubjectreviews", verb = "ask", object = "who I am",
    body = json.encode { apiVersion = "authentication.k8s.io/v1", kind = "SelfSubjectReview" } }
  local user = (review.status or {}).userInfo or {}
  local rows = { { "ATTRIBUTE", "VALUE" }, { "Username", user.username or "" } }
  if user.uid then rows[#rows + 1] = { "UID", user.uid } end
  if user.groups then rows[#rows + 1] = { "Groups", "[" .. table.concat(user.groups, " ") .. "]" } end
  local names = {}
  for key in pairs(user.extra or {}) do names[#names + 1] = key end
  table.sort(names)
  for _, key in ipairs(names) do rows[#rows + 1] = { "Extra: " .. key, "[" .. table.concat(user.extra[key], " ") .. "]" } end
  face.out(print_.align(rows))
  return 0
end

return face.verb(function(k8s, options, words)
  if words[1] == "can-i" then return can_i(k8s, options, words) end
  if words[1] == "whoami" then return who_am_i(k8s) end
  face.usage "auth what? can-i VERB RESOURCE, or whoami"
end)
