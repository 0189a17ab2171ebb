-- SPDX-License-Identifier: Apache-2.0
-- OpenAPI v3 documents made from the schema table: enough for kubectl's look before it writes (does the kind's PATCH know
-- fieldValidation and dryRun?) and for `kubectl explain`, without descriptions.
local json = require "eirun.core.json"
local schema = require "sandbox.kube.schema"

local openapi = {}

local SCALARS = {
  s = { type = "string" }, y = { type = "string", format = "byte" }, i = { type = "integer", format = "int32" }, b = { type = "boolean" },
  n = { type = "number" }, q = { type = "string" }, o = { type = "string", format = "int-or-string" },
  t = { type = "string", format = "date-time" }, x = { type = "object" },
}

-- The table's short names are the real ones without their beginning.
local BEGINNINGS = { meta = "io.k8s.apimachinery.pkg.apis.", apiregistration = "io.k8s.kube-aggregator.pkg.apis.",
  apiextensions = "io.k8s.apiextensions-apiserver.pkg.apis." }

local function full(name)
  return (BEGINNINGS[name:match "^%w+"] or "io.k8s.api.") .. name
end

local function reference(name)
  return { allOf = json.array { { ["$ref"] = "#/components/schemas/" .. full(name) } } }
end

local add_struct

-- The OpenAPI type of a field; structs that it needs are added to `into`.
local function type_of(field, into)
  if SCALARS[field.kind] then return SCALARS[field.kind] end
  if field.kind == "ref" then
    add_struct(field.ref, into)
    return reference(field.ref)
  elseif field.kind == "map" then
    return { type = "object", additionalProperties = type_of(field.elem, into) }
  end
  local list_type = field.keys and "map" or field.set and "set" or "atomic"
  return { type = "array", items = type_of(field.elem, into), ["x-kubernetes-list-type"] = list_type,
    ["x-kubernetes-list-map-keys"] = field.keys and json.array(field.keys) or nil,
    ["x-kubernetes-patch-strategy"] = field.merge and "merge" or nil, ["x-kubernetes-patch-merge-key"] = field.merge_key }
end

function add_struct(name, into)
  if into[full(name)] then return end
  local struct = schema.struct(name)
  local properties, required = {}, json.array {}
  local object = { type = "object", properties = properties }
  into[full(name)] = object
  for _, key in ipairs(struct.order) do
    properties[key] = type_of(struct.fields[key], into)
    if struct.fields[key].required then required[#required + 1] = key end
  end
  if #required > 0 then object.required = required end
end

local function item_path(r)
  return (r.group == "" and "/api/" or "/apis/") .. r.api_version .. (r.namespaced and "/namespaces/{namespace}/" or "/") .. r.plural
end

local function parameters(...)
  local list = json.array {}
  for i, name in ipairs { ... } do list[i] = { name = name, ["in"] = "query", schema = { type = "string", uniqueItems = true } } end
  return list
end

-- The document of one group-version {api_version, rows}.
function openapi.document(gv)
  local paths, schemas = {}, {}
  for _, r in ipairs(gv.rows) do
    local gvk = { group = r.group, version = r.version, kind = r.kind }
    local write = parameters("dryRun", "fieldManager", "fieldValidation", "force")
    local function operation(action)
      return { parameters = write, ["x-kubernetes-group-version-kind"] = gvk, ["x-kubernetes-action"] = action }
    end
    paths[item_path(r)] = { get = operation "list", post = operation "post" }
    paths[item_path(r) .. "/{name}"] = { get = operation "get", patch = operation "patch" }
    add_struct(r.schema, schemas)
    schemas[full(r.schema)]["x-kubernetes-group-version-kind"] = json.array { gvk }
  end
  return json.encode { openapi = "3.0.0", info = { title = "Kubernetes", version = "v1.36.0" }, paths = paths,
    components = { schemas = schemas } }
end

return openapi
