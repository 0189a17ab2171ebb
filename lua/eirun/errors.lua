-- SPDX-License-Identifier: Apache-2.0
-- Errors are tables: code compares `kind`, people read `message`, both get what the server said.
local json = require "eirun.core.json"

local M = {}

---@alias eirun.ErrorKind
---| "timeout" | "cancelled" | "network" | "denied" | "not_found" | "conflict" | "quota" | "throttled" | "invalid" | "internal"

---@class eirun.Error
---@field kind eirun.ErrorKind what code compares
---@field message string one line, lower case, no full stop
---@field operation? string the call that failed, `CreateClusterNodePool`
---@field object? string what it was about, `node pool 'bert-gpu'`
---@field code? string the server's own code
---@field ec? string OSS's finer code
---@field status? integer HTTP status
---@field request_id? string what the vendor's support asks for
---@field hint? string what to do next
---@field retryable? boolean the same call may succeed later and cannot have been done already
---@field retry_after? number seconds that the server asked to wait
---@field cause? eirun.Error
---@field causes? eirun.Error[] failures of siblings that ended with this one

M.kinds = {
  timeout = true, cancelled = true, network = true, denied = true, not_found = true, conflict = true,
  quota = true, throttled = true, invalid = true, internal = true,
}

local function one_line(text)
  return (tostring(text):gsub("%s*[\r\n]+%s*", " "))
end

local function facts(err)
  local list = {}
  if err.code then list[#list + 1] = tostring(err.code) end
  if err.ec then list[#list + 1] = "EC " .. tostring(err.ec) end
  if err.request_id then list[#list + 1] = "request id " .. tostring(err.request_id) end
  return #list > 0 and " (" .. table.concat(list, ", ") .. ")" or ""
end

-- One line, so that it fits a log, a table and a cron mail.
local function describe(err)
  local text = one_line(err.message) .. facts(err)
  if err.hint then text = text .. "; " .. one_line(err.hint) end
  if err.cause then text = text .. ", caused by: " .. one_line(err.cause.message) end
  return text
end

-- The host's errors and ours share one metatable; a failure made on purpose shows it.
local function host_metatable()
  local _, sample = json.decode("")
  return type(sample) == "table" and getmetatable(sample)
end

local mt = host_metatable() or { __name = "eirun.error" }
mt.__tostring = describe

---Is this value an error of ours, and (when asked) of that kind?
---@param value any
---@param kind? eirun.ErrorKind
---@return boolean
---Example: `if errors.is(err, "not_found") then return nil end`. Never raises.
function M.is(value, kind)
  if type(value) ~= "table" or type(value.kind) ~= "string" or value.message == nil then return false end
  return kind == nil or value.kind == kind
end

---Makes an error; does not raise it.
---@param kind eirun.ErrorKind
---@param message string
---@param fields? table the other fields of eirun.Error
---@return eirun.Error
---Example: `return nil, errors.new("not_found", "no node pool 'gpu'", { object = "node pool 'gpu'" })`.
---An unknown kind raises (misuse).
function M.new(kind, message, fields)
  if not M.kinds[kind] then error("unknown kind of error '" .. tostring(kind) .. "'", 2) end
  local err = {}
  for key, value in pairs(fields or {}) do err[key] = value end
  err.kind, err.message = kind, message
  return setmetatable(err, mt)
end

---Raises a new error.
---@param kind eirun.ErrorKind
---@param message string
---@param fields? table
---Example: `errors.raise("quota", "no stock for ecs.gn6i-c4g1.xlarge", { hint = "name more instance types" })`.
function M.raise(kind, message, fields)
  error(M.new(kind, message, fields), 0)
end

---The same failure seen from one level up: keeps kind, code, request id and hint, and the old error as its cause.
---@param err any an error, or anything that was raised
---@param message string what was being done
---@param fields? table overrides
---@return eirun.Error
---Example: `error(errors.wrap(err, "cannot mount bucket 'models'"), 0)`.
---Never raises.
function M.wrap(err, message, fields)
  local cause = M.from(err)
  local outer = M.new(cause.kind, message, {
    code = cause.code, ec = cause.ec, status = cause.status, request_id = cause.request_id, retryable = cause.retryable,
    retry_after = cause.retry_after, operation = cause.operation, object = cause.object, cause = cause,
  })
  for key, value in pairs(fields or {}) do outer[key] = value end
  return outer
end

---The same failure in other words; what was said below adds nothing for the reader.
---@param err any
---@param message string
---@param fields? table overrides
---@return eirun.Error
---Example: `return nil, errors.rephrase(err, "cannot read Pod 'a': " .. err.message)`.
---Never raises.
function M.rephrase(err, message, fields)
  local outer = M.wrap(err, message, fields)
  outer.cause = nil
  return outer
end

---Whatever was raised, as an error table: strings become kind "internal".
---@param value any
---@return eirun.Error
---Example: `local ok, err = pcall(fn); if not ok then print(errors.from(err).kind) end`. Never raises.
function M.from(value)
  if M.is(value) then return value end
  return M.new("internal", tostring(value))
end

---The bridge from below (`nil, err`) to the face of the library (raise): returns all its arguments or raises the second.
---@generic T
---@param value T|nil
---@param err? eirun.Error
---@return T
---Example: `local text = errors.check(fs.read(path))`.
---Raises `err` when there is no value.
function M.check(value, err, ...)
  if value == nil and err ~= nil then error(err, 0) end
  return value, err, ...
end

---One line of text for people.
---@param err any
---@return string
---Example: `print(errors.text(err))`. Never raises.
function M.text(err)
  return M.is(err) and describe(err) or one_line(err)
end

return M
