-- SPDX-License-Identifier: Apache-2.0
-- Status objects in the API server's own words. The functions raise; the HTTP face answers what was raised.
local json = require "eirun.core.json"

local status = {}

local Status = { __name = "sandbox.kube.status" }
Status.__index = Status
Status.__tostring = function(self) return self.message end

function status.is(v)
  return getmetatable(v) == Status
end

-- {code, reason, message, details, metadata}
function status.new(fields)
  return setmetatable(fields, Status)
end

function status.raise(code, reason, message, details, more)
  local s = status.new { code = code, reason = reason, message = message, details = details }
  for k, v in pairs(more or {}) do s[k] = v end
  error(s, 0)
end

-- The JSON that goes over the wire, keys in the server's order.
function status.encode(s)
  local parts = { '{"kind":"Status","apiVersion":"v1","metadata":', json.encode(s.metadata or {}),
    ',"status":"', s.success and "Success" or "Failure", '"' }
  for _, key in ipairs { "message", "reason", "details" } do
    if s[key] then
      parts[#parts + 1] = (',"%s":%s'):format(key, json.encode(s[key]))
    end
  end
  if not s.success then parts[#parts + 1] = ',"code":' .. s.code end
  parts[#parts + 1] = "}\n"
  return table.concat(parts)
end

-- Go's %q of a string.
local function quoted(text)
  return '"' .. tostring(text):gsub('[\\"]', "\\%0"):gsub("\n", "\\n"):gsub("\t", "\\t") .. '"'
end
status.quoted = quoted

local function group_of(r)
  return r.group ~= "" and r.group or nil
end

local function dotted(r)
  return r.group ~= "" and r.plural .. "." .. r.group or r.plural
end

local function details(r, name)
  return { name = name, group = group_of(r), kind = r.plural }
end

function status.not_found(r, name)
  status.raise(404, "NotFound", dotted(r) .. " " .. quoted(name) .. " not found", details(r, name))
end

function status.path_not_found()
  status.raise(404, "NotFound", "the server could not find the requested resource", {})
end

function status.already_exists(r, name)
  status.raise(409, "AlreadyExists", dotted(r) .. " " .. quoted(name) .. " already exists", details(r, name))
end

local MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"

function status.conflict(r, name, why)
  status.raise(409, "Conflict", ("Operation cannot be fulfilled on %s %s: %s"):format(dotted(r), quoted(name), why or MODIFIED),
    details(r, name))
end

function status.bad_request(message)
  status.raise(400, "BadRequest", message)
end

function status.unauthorized()
  status.raise(401, "Unauthorized", "Unauthorized")
end

function status.forbidden(r, name, why, causes)
  local message = dotted(r) .. (name and " " .. quoted(name) or "") .. " is forbidden: " .. why
  local d = details(r, name)
  d.causes = causes
  status.raise(403, "Forbidden", message, d)
end

function status.method_not_allowed()
  status.raise(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})
end

function status.unsupported_media_type()
  status.raise(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
end

function status.expired(message, metadata)
  status.raise(410, "Expired", message, nil, { metadata = metadata })
end

function status.too_large_version(wanted, current)
  status.raise(504, "Timeout", ("Timeout: Too large resource version: %d, current: %d"):format(wanted, current), {
    causes = json.array { { reason = "ResourceVersionTooLarge", message = "Too large resource version" } }, retryAfterSeconds = 1,
  })
end

-- Causes are {reason, message, field}; `kind` and `group` name the object's kind.
function status.invalid(kind, group, name, causes)
  local texts, seen = {}, {}
  for _, cause in ipairs(causes) do
    local text = cause.field .. ": " .. cause.message
    if not seen[text] then
      seen[text] = true
      texts[#texts + 1] = text
    end
  end
  local all = table.concat(texts, ", ")
  if #texts > 1 then all = "[" .. all .. "]" end
  local full = group ~= "" and kind .. "." .. group or kind
  status.raise(422, "Invalid", ("%s %s is invalid: %s"):format(full, quoted(name or ""), all), {
    name = name ~= "" and name or nil, group = group ~= "" and group or nil, kind = kind, causes = json.array(causes),
  })
end

-- An apply that touches fields of others.
function status.apply_conflict(conflicts)
  local causes, by_manager, order = json.array {}, {}, {}
  for _, c in ipairs(conflicts) do
    local who = ("conflict with %s"):format(quoted(c.manager))
    if c.subresource then who = who .. (" with subresource %s"):format(quoted(c.subresource)) end
    if c.operation == "Update" then who = who .. " using " .. c.api_version end
    causes[#causes + 1] = { reason = "FieldManagerConflict", message = who, field = c.field }
    if not by_manager[who] then
      by_manager[who] = {}
      order[#order + 1] = who
    end
    table.insert(by_manager[who], c.field)
  end
  local message
  if #conflicts == 1 then
    message = ("Apply failed with 1 conflict: %s: %s"):format(causes[1].message, conflicts[1].field)
  else
    local parts = {}
    table.sort(order)
    for _, who in ipairs(order) do
      parts[#parts + 1] = who:gsub("^conflict with", "conflicts with") .. ":\n- " .. table.concat(by_manager[who], "\n- ")
    end
    message = ("Apply failed with %d conflicts: %s"):format(#conflicts, table.concat(parts, "\n"))
  end
  status.raise(409, "Conflict", message, { causes = causes })
end

return status
