-- SPDX-License-Identifier: Apache-2.0
-- Discovery in both formats, and the index of the OpenAPI v3 documents.
local json = require "eirun.core.json"
local metrics = require "sandbox.kube.metrics"
local openapi = require "sandbox.kube.openapi"
local resources = require "sandbox.kube.resources"

local discovery = {}

local AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
local EXTERNAL = "external.metrics.k8s.io"

-- Subresources with the kind that they speak: {name, kind, group, version, verbs}.
local STATUS_VERBS = { "get", "patch", "update" }
local PROXY_VERBS = { "create", "delete", "get", "patch", "update" }
local SUBS = {
  log = { "Pod", "", "v1", { "get" } },
  eviction = { "Eviction", "policy", "v1", { "create" } },
  binding = { "Binding", "", "v1", { "create" } },
  exec = { "PodExecOptions", "", "v1", { "create", "get" } },
  attach = { "PodAttachOptions", "", "v1", { "create", "get" } },
  portforward = { "PodPortForwardOptions", "", "v1", { "create", "get" } },
  ephemeralcontainers = { "Pod", "", "v1", STATUS_VERBS },
  token = { "TokenRequest", "authentication.k8s.io", "v1", { "create" } },
  finalize = { "Namespace", "", "v1", { "update" } },
}

local function subresources(r)
  local list = {}
  for _, name in ipairs(r.subs or {}) do
    local s = SUBS[name] or { r.kind .. "ProxyOptions", "", "v1", PROXY_VERBS }
    list[#list + 1] = { name = name, kind = s[1], group = s[2], version = s[3], verbs = s[4] }
  end
  if r.scale then list[#list + 1] = { name = "scale", kind = "Scale", group = "autoscaling", version = "v1", verbs = STATUS_VERBS } end
  if r.status then list[#list + 1] = { name = "status", kind = r.kind, group = r.group, version = r.version, verbs = STATUS_VERBS } end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

local function kind_of(kind, group, version)
  return { group = group, version = version, kind = kind }
end

local function aggregated_resource(r)
  local subs = json.array {}
  for _, s in ipairs(subresources(r)) do
    subs[#subs + 1] = { subresource = s.name, responseKind = kind_of(s.kind, s.group, s.version), verbs = s.verbs }
  end
  return { resource = r.plural, responseKind = kind_of(r.kind, r.group, r.version), scope = r.namespaced and "Namespaced" or "Cluster",
    singularResource = r.singular, verbs = r.verbs, shortNames = r.short, categories = r.categories,
    subresources = #subs > 0 and subs or nil }
end

local function aggregated(gvs)
  local items, by_group = json.array {}, {}
  for _, gv in ipairs(gvs) do
    local item = by_group[gv.group]
    if not item then
      item = { metadata = gv.group ~= "" and { name = gv.group } or {}, versions = json.array {} }
      by_group[gv.group] = item
      items[#items + 1] = item
    end
    local rows = json.array {}
    for i, r in ipairs(gv.rows) do rows[i] = aggregated_resource(r) end
    table.insert(item.versions, { version = gv.version, freshness = "Current", resources = rows })
  end
  return json.encode { kind = "APIGroupDiscoveryList", apiVersion = "apidiscovery.k8s.io/v2", metadata = {}, items = items }
end

local function plain_resources(gv)
  local list = json.array {}
  for _, r in ipairs(gv.rows) do
    list[#list + 1] = { name = r.plural, singularName = r.singular, namespaced = r.namespaced, kind = r.kind, verbs = r.verbs,
      shortNames = r.short, categories = r.categories }
    for _, s in ipairs(subresources(r)) do
      local other = s.group ~= r.group or s.version ~= r.version
      list[#list + 1] = { name = r.plural .. "/" .. s.name, singularName = "", namespaced = r.namespaced, kind = s.kind,
        group = other and s.group or nil, version = other and s.version or nil, verbs = s.verbs }
    end
  end
  return json.encode { kind = "APIResourceList", apiVersion = "v1", groupVersion = gv.api_version, resources = list }
end

local function group_object(name, versions)
  local list = json.array {}
  for i, version in ipairs(versions) do list[i] = { groupVersion = name .. "/" .. version, version = version } end
  return { name = name, versions = list, preferredVersion = list[1] }
end

local function group_list(gvs)
  local groups = json.array {}
  for _, gv in ipairs(gvs) do groups[#groups + 1] = group_object(gv.group, { gv.version }) end
  return groups
end

local function openapi_key(gv)
  return (gv.group == "" and "api/" or "apis/") .. gv.api_version
end

local cache

local function documents()
  if cache then return cache end
  local gvs = resources.group_versions()
  gvs[#gvs + 1] = { group = metrics.GROUP, version = "v1beta1", api_version = metrics.VERSION, rows = metrics.rows }
  local named = {}
  cache = { plain = {}, openapi = {}, gvs = gvs, named = named }
  for i, gv in ipairs(gvs) do
    if i > 1 then named[#named + 1] = gv end
    cache.plain[gv.api_version] = plain_resources(gv)
    if gv.rows ~= metrics.rows then cache.openapi[openapi_key(gv)] = gv end
  end
  return cache
end

local function external_gv()
  return { group = EXTERNAL, version = "v1beta1", api_version = EXTERNAL .. "/v1beta1", rows = {} }
end

local function with_external(list, external)
  if not external then return list end
  local all = table.move(list, 1, #list, 1, {})
  all[#all + 1] = external_gv()
  table.sort(all, function(a, b) return a.api_version < b.api_version end)
  return all
end

local function wants_aggregated(accept)
  return accept and accept:find("g=apidiscovery.k8s.io", 1, true) and accept:find("v=v2[;,]") or
    accept and accept:find("g=apidiscovery.k8s.io", 1, true) and accept:find("v=v2$")
end

-- Each answers body, content type; nil for an unknown path. external: the metrics adapter is installed.
function discovery.api(accept)
  local docs = documents()
  if wants_aggregated(accept) then return aggregated { docs.gvs[1] }, AGGREGATED end
  return json.encode { kind = "APIVersions", apiVersion = "v1", versions = json.array { "v1" },
    serverAddressByClientCIDRs = json.array {} }, "application/json"
end

function discovery.apis(accept, external)
  local list = with_external(documents().named, external)
  if wants_aggregated(accept) then return aggregated(list), AGGREGATED end
  return json.encode { kind = "APIGroupList", apiVersion = "v1", groups = group_list(list) }, "application/json"
end

function discovery.group(name, external)
  for _, gv in ipairs(with_external(documents().named, external)) do
    if gv.group == name then
      local group = group_object(name, { gv.version })
      group.kind, group.apiVersion = "APIGroup", "v1"
      return json.encode(group), "application/json"
    end
  end
end

-- Whether any version of that group is served: then a wrong path below it is answered as an API would.
function discovery.serves_group(api_version)
  local group = api_version:match("^(.*)/")
  for _, gv in ipairs(documents().gvs) do
    if gv.api_version == api_version or (group and gv.group == group) then return true end
  end
  return false
end

function discovery.version(api_version)
  local text = documents().plain[api_version]
  return text, "application/json"
end

function discovery.openapi_index()
  local paths = {}
  for key in pairs(documents().openapi) do paths[key] = { serverRelativeURL = "/openapi/v3/" .. key .. "?hash=1" } end
  return json.encode { paths = paths }, "text/plain; charset=utf-8"
end

-- The old document names no kind: kubectl looks into it for a List and for kinds that it cannot find, checks what it finds there, and
-- leaves the rest to the server. In protobuf: swagger, info { title, version }, paths.
local V2_PROTO = "\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.0\x42\x00"
local V2_ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
local V2_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"

function discovery.openapi_v2(accept)
  if (accept or ""):find(V2_ASKED, 1, true) then return V2_PROTO, V2_TYPE end
  return json.encode { swagger = "2.0", info = { title = "Kubernetes", version = "v1.36.0" }, paths = {} },
    "application/json"
end

function discovery.openapi(key)
  local gv = documents().openapi[key]
  if not gv then return nil end
  gv.document = gv.document or openapi.document(gv)
  return gv.document, "application/json"
end

return discovery
