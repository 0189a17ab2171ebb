-- SPDX-License-Identifier: Apache-2.0
-- What every validation shares: names, labels, metadata, and the words of field errors.
local json = require "eirun.core.json"
local value = require "sandbox.kube.value"

local validate = {}

local LABEL = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
  .. "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
local LABEL_1035 = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
  .. "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
local SUBDOMAIN = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end "
  .. "with an alphanumeric character (e.g. 'example.com', regex used for validation is "
  .. "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
local QUALIFIED = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
  .. "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
local LABEL_VALUE = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end "
  .. "with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
  .. "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"

local function shown(v)
  if type(v) == "string" or type(v) == "table" or v == json.null then return json.encode(v) end
  return tostring(v)
end

-- The collector of one validation: causes in order.
function validate.new()
  local causes = {}
  local c = { causes = causes }
  local function add(reason, field, message)
    causes[#causes + 1] = { reason = reason, message = message, field = field }
  end
  function c.required(field, why)
    add("FieldValueRequired", field, "Required value" .. (why and why ~= "" and ": " .. why or ""))
  end
  function c.invalid_as(field, text, why)
    add("FieldValueInvalid", field, ("Invalid value: %s: %s"):format(text, why))
  end
  function c.invalid(field, v, why) c.invalid_as(field, shown(v), why) end
  function c.duplicate(field, v)
    add("FieldValueDuplicate", field, "Duplicate value: " .. shown(v))
  end
  function c.forbidden(field, why)
    add("FieldValueForbidden", field, "Forbidden: " .. why)
  end
  function c.not_found(field, v)
    add("FieldValueNotFound", field, "Not found: " .. shown(v))
  end
  function c.too_long(field, limit)
    add("FieldValueTooLong", field, ("Too long: may not be more than %d bytes"):format(limit))
  end
  function c.unsupported(field, v, allowed)
    local words = {}
    for i, word in ipairs(allowed) do words[i] = shown(word) end
    add("FieldValueNotSupported", field, ("Unsupported value: %s: supported values: %s"):format(shown(v), table.concat(words, ", ")))
  end
  return c
end

local function is_label(s)
  return s:match("^[a-z0-9][-a-z0-9]*$") ~= nil and s:match("[a-z0-9]$") ~= nil
end

local function is_subdomain(s)
  for part in (s .. "."):gmatch("([^.]*)%.") do
    if not is_label(part) then return false end
  end
  return true
end

local function too_long(limit)
  return ("must be no more than %d characters"):format(limit)
end

-- Each answers nil when fine, else why not.
function validate.label_name(s)
  if #s > 63 then return too_long(63) end
  if not is_label(s) then return LABEL end
end

function validate.label_1035(s)
  if #s > 63 then return too_long(63) end
  if not is_label(s) or not s:match("^[a-z]") then return LABEL_1035 end
end

function validate.subdomain(s)
  if #s > 253 then return too_long(253) end
  if not is_subdomain(s) then return SUBDOMAIN end
end

function validate.any_name(s)
  if s == "." or s == ".." then return ("may not be '%s'"):format(s) end
  local bad = s:match("[/%%]")
  if bad then return ("may not contain '%s'"):format(bad) end
end

function validate.qualified_name(s)
  local prefix, name = s:match("^(.*)/([^/]*)$")
  name = name or s
  if prefix and (prefix == "" or not is_subdomain(prefix)) then
    return "prefix part " .. (prefix == "" and "must be non-empty" or SUBDOMAIN)
  end
  if name == "" then return "name part must be non-empty" end
  if #name > 63 then return "name part " .. too_long(63) end
  if not name:match("^[%w][%w%-_.]*$") or not name:match("%w$") then return QUALIFIED end
end

function validate.label_value(s)
  if #s > 63 then return too_long(63) end
  if s ~= "" and (not s:match("^%w[%w%-_.]*$") or not s:match("%w$")) then return LABEL_VALUE end
end

function validate.labels(c, labels, field)
  for key, v in value.sorted(labels or {}) do
    local why = validate.qualified_name(key)
    if why then c.invalid(field, key, why) end
    why = type(v) == "string" and validate.label_value(v)
    if why then c.invalid(field, v, why) end
  end
end

local function owner_references(c, list)
  local controller
  for i, ref in ipairs(list or {}) do
    local field = ("metadata.ownerReferences[%d]"):format(i - 1)
    for _, key in ipairs { "apiVersion", "kind", "name", "uid" } do
      if not ref[key] or ref[key] == "" then c.invalid(field .. "." .. key, ref[key] or "", key .. " must not be empty") end
    end
    if ref.controller and controller then
      c.invalid("metadata.ownerReferences", list, "Only one reference can have Controller set to true. Found \"true\" in references for "
        .. controller .. " and " .. tostring(ref.name))
    end
    controller = ref.controller and ref.name or controller
  end
end

local NAME_RULES = {
  services = validate.label_name, namespaces = validate.label_name,
  ["roles.rbac.authorization.k8s.io"] = validate.any_name, ["rolebindings.rbac.authorization.k8s.io"] = validate.any_name,
  ["clusterroles.rbac.authorization.k8s.io"] = validate.any_name,
  ["clusterrolebindings.rbac.authorization.k8s.io"] = validate.any_name,
}

function validate.metadata(c, r, meta)
  if not meta.name or meta.name == "" then
    c.required("metadata.name", "name or generateName is required")
  else
    local why = (NAME_RULES[r.id] or validate.subdomain)(meta.name)
    if why then c.invalid("metadata.name", meta.name, why) end
  end
  validate.labels(c, meta.labels, "metadata.labels")
  for key in value.sorted(meta.annotations or {}) do
    local why = validate.qualified_name(key:lower())
    if why then c.invalid("metadata.annotations", key, why) end
  end
  for _, name in ipairs(meta.finalizers or {}) do
    local why = validate.qualified_name(name)
    if why then c.invalid("metadata.finalizers", name, why) end
  end
  owner_references(c, meta.ownerReferences)
end

-- The field of new must be what it was in old.
function validate.immutable(c, new, old, field, why)
  if not value.equal(new, old) then c.invalid(field, new == nil and json.null or new, why or "field is immutable") end
end

-- A LabelSelector object.
function validate.selector(c, s, field)
  if not s then return end
  validate.labels(c, s.matchLabels, field .. ".matchLabels")
  for i, e in ipairs(s.matchExpressions or {}) do
    local at = ("%s.matchExpressions[%d]"):format(field, i - 1)
    local values = e.values and #e.values or 0
    if e.operator == "In" or e.operator == "NotIn" then
      if values == 0 then c.required(at .. ".values", "must be specified when `operator` is 'In' or 'NotIn'") end
    elseif e.operator == "Exists" or e.operator == "DoesNotExist" then
      if values > 0 then c.forbidden(at .. ".values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'") end
    else
      c.invalid(at .. ".operator", e.operator or "", "not a valid selector operator")
    end
  end
end

return validate
