-- SPDX-License-Identifier: Apache-2.0
-- Acting as somebody else: the Impersonate headers, and the right to use them.
local json = require "eirun.core.json"
local request = require "sandbox.kube.request"
local status = require "sandbox.kube.status"
local value = require "sandbox.kube.value"

local impersonation = {}

local IDENTITY = "authentication.k8s.io"

local function unescaped(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function extras(headers)
  local extra
  for _, pair in ipairs(headers) do
    local key = pair[1]:lower():match "^impersonate%-extra%-(.+)$"
    if key then
      key, extra = unescaped(key), extra or {}
      extra[key] = extra[key] or json.array {}
      table.insert(extra[key], pair[2])
    end
  end
  return extra
end

-- Who is asked for; nil where the headers ask for nobody.
local function wanted_by(headers)
  local wanted = { name = headers:get "impersonate-user", uid = headers:get "impersonate-uid",
    groups = json.array(headers:list "impersonate-group"), extra = extras(headers) }
  if not wanted.name and not wanted.uid and #wanted.groups == 0 and not wanted.extra then return nil end
  return wanted
end

local function refuse_nobody(wanted)
  local names = {}
  for i, group in ipairs(wanted.groups) do names[i] = ('"%s"'):format(group) end
  local groups = #names > 0 and "{" .. table.concat(names, ", ") .. "}" or "(nil)"
  local text = 'requested &user.DefaultInfo{Name:"", UID:"%s", Groups:[]string%s, Extra:map[string][]string(nil)} '
    .. "without impersonating a user name"
  status.raise(400, "BadRequest", text:format(wanted.uid or "", groups))
end

local function may(face, user, group, resource, name, namespace, sub)
  return face.auth:allowed(user, { verb = "impersonate", group = group, resource = resource, name = name, namespace = namespace,
    subresource = sub })
end

local function demand(face, user, group, resource, name, sub)
  if may(face, user, group, resource, name, nil, sub) then return end
  face:refuse(user, { r = { group = group, plural = resource }, name = name, sub = sub }, "impersonate")
end

-- What a server of 1.36 says to who may impersonate nobody: the right for this very request is missing, too.
local function refuse_user(face, req, user, name, account)
  local at = request.locate(req.path)
  if at and at.r then
    face:refuse(user, at, ("impersonate-on:%s:%s"):format(account and "serviceaccount" or "user-info", face.verb_of(at, req) or "get"))
  end
  face:refuse(user, { r = { group = "", plural = "users" }, name = name }, "impersonate")
end

local function groups_of(wanted, account_namespace)
  local groups = wanted.groups
  if account_namespace and #groups == 0 then
    groups = json.array { "system:serviceaccounts", "system:serviceaccounts:" .. account_namespace }
  end
  local all = wanted.name == "system:anonymous" and "system:unauthenticated" or "system:authenticated"
  if not value.contains(groups, all) then groups[#groups + 1] = all end
  return groups
end

-- The user whom a request acts as: who sent it, or whom its headers name.
function impersonation.user(face, req, user)
  local wanted = wanted_by(req.headers)
  if not wanted then return user end
  if not wanted.name then refuse_nobody(wanted) end
  local namespace, account = wanted.name:match "^system:serviceaccount:([^:]+):([^:]+)$"
  local allowed
  if account then
    allowed = may(face, user, "", "serviceaccounts", account, namespace)
  else
    allowed = may(face, user, "", "users", wanted.name)
  end
  if not allowed then refuse_user(face, req, user, wanted.name, account) end
  for _, group in ipairs(wanted.groups) do demand(face, user, "", "groups", group) end
  if wanted.uid then demand(face, user, IDENTITY, "uids", wanted.uid) end
  for key, list in pairs(wanted.extra or {}) do
    for _, text in ipairs(list) do demand(face, user, IDENTITY, "userextras", text, key) end
  end
  return { name = wanted.name, uid = wanted.uid, groups = groups_of(wanted, namespace), extra = wanted.extra }
end

return impersonation
