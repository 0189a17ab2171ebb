-- SPDX-License-Identifier: Apache-2.0
-- What a request asks for: its path taken apart, its query, and which format the answer may have.
local crypto = require "eirun.core.crypto"
local gojson = require "sandbox.kube.gojson"
local json = require "eirun.core.json"
local resources = require "sandbox.kube.resources"
local selector = require "sandbox.kube.selector"
local status = require "sandbox.kube.status"

local request = {}

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function parts_of(path)
  local parts = {}
  for part in path:gmatch("[^/]+") do parts[#parts + 1] = decode(part) end
  return parts
end
request.parts_of = parts_of

local OWN_SUBRESOURCES = { status = true, finalize = true }

-- Resource, namespace, name and subresource of an API path, or nil when nothing is served there.
-- rest: the path's parts behind the group-version.
local function locate(api_version, rest)
  local found = { api_version = api_version }
  if rest[1] == "namespaces" and rest[3] and not OWN_SUBRESOURCES[rest[3]] then
    found.namespace = rest[2]
    table.remove(rest, 1)
    table.remove(rest, 1)
  end
  found.r = rest[1] and resources.find(api_version, rest[1])
  found.name, found.sub = rest[2], rest[3]
  found.tail = table.concat(rest, "/", 4)
  return found
end

-- {group-version parts} of /api/v1/... and /apis/g/v/...; nil for other paths.
function request.locate(path)
  local parts = parts_of(path)
  if parts[1] == "api" and parts[2] then return locate(parts[2], table.move(parts, 3, #parts, 1, {})) end
  if parts[1] == "apis" and parts[3] then
    return locate(parts[2] .. "/" .. parts[3], table.move(parts, 4, #parts, 1, {}))
  end
end

-- Absent, "0" and "false" are false; anything else, even empty, is true.
function request.flag(text)
  return text ~= nil and text ~= "0" and text:lower() ~= "false"
end

function request.integer(text)
  return text and math.tointeger(tonumber(text))
end

-- "Table", "PartialObjectMetadata", "PartialObjectMetadataList" or nil for plain JSON: the first one that is known.
function request.shape(accept)
  for part in ((accept or "") .. ","):gmatch("([^,]*),") do
    local as = part:match("as=([%w]+)")
    if as and part:find("g=meta.k8s.io", 1, true) and part:find("v=v1[^b]*$") then return as end
    if as == nil and part:find("json", 1, true) then return nil end
  end
end

local function field_text(obj, keys)
  local v = obj
  for _, key in ipairs(keys) do
    if type(v) ~= "table" then return "" end
    v = v[key]
  end
  if v == nil then return keys[#keys] == "unschedulable" and "false" or "" end
  if type(v) == "table" then return v.component or "" end
  return tostring(v)
end

local function known_fields(r, list)
  for _, term in ipairs(list) do
    if not r.fields[term.path] then
      if r.extra_fields then status.bad_request("field label not supported: " .. term.path) end
      status.bad_request(('"%s" is not a known field selector: only "metadata.name", "metadata.namespace"'):format(term.path))
    end
  end
end

-- A test of records for ?labelSelector= and ?fieldSelector=; nil when everything matches.
function request.matcher(r, query)
  local labels, problem = selector.parse(query.labelSelector)
  if not labels then status.bad_request(problem) end
  local fields
  fields, problem = selector.parse_fields(query.fieldSelector)
  if not fields then status.bad_request(problem) end
  known_fields(r, fields)
  if #labels == 0 and #fields == 0 then return nil end
  return function(rec)
    local obj = rec.obj
    return selector.matches(labels, obj.metadata.labels) and selector.matches_fields(fields, function(path)
      return field_text(obj, r.fields[path])
    end)
  end
end

-- The one name that a field selector asks for, so that a look-up can serve instead of a scan.
function request.only_name(query)
  return query.fieldSelector and query.fieldSelector:match("^metadata%.name==?([^,]+)$")
end

-- As the real server's: unpadded base64 of where the rest of the list starts.
function request.encode_continue(rv, key)
  local text = ('{"v":"meta.k8s.io/v1","rv":%d,"start":%s}'):format(rv, json.encode(key .. "\0"))
  return (crypto.base64(text):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end

-- Go leaves the bits behind the last whole byte unread.
local function unbase64(text)
  local bad = text:find "[^%w_-]" or #text % 4 == 1 and #text + 1
  if bad then return nil, ("illegal base64 data at input byte %d"):format(bad - 1) end
  local whole = text:gsub("[-_]", { ["-"] = "+", _ = "/" }) .. ("A"):rep(-#text % 4)
  return crypto.unbase64(whole):sub(1, #text * 3 // 4)
end

local INVALID = "invalid continue token: "

function request.decode_continue(text)
  local plain, why = unbase64(text)
  if not plain then status.bad_request(INVALID .. "continue key is not valid: " .. why) end
  local token = json.decode(plain)
  if type(token) ~= "table" then
    why = gojson.problem(plain) or gojson.mismatch(token, "storage.continueToken")
    status.bad_request(INVALID .. "continue key is not valid: " .. why)
  end
  if token.v ~= "meta.k8s.io/v1" then
    status.bad_request(INVALID .. "continue key is not valid: server does not recognize this encoded version " .. tostring(token.v or ""))
  end
  local start = tostring(token.start or "")
  return math.tointeger(token.rv) or 0, (start:gsub("%z$", ""))
end

return request
