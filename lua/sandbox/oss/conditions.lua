-- SPDX-License-Identifier: Apache-2.0
-- If-Match and its relatives, and Range as this store reads it.
local errors = require "sandbox.oss.errors"
local reply = require "sandbox.oss.reply"
local times = require "sandbox.times"

local M = {}

local function failed() errors.raise "PreconditionFailed" end

local function names_etag(list, etag)
  if list == "*" then return true end
  for item in list:gmatch "[^,%s]+" do
    if reply.unquote(item) == etag then return true end
  end
  return false
end

-- A malformed date is ignored.
local function after(object, text)
  local at = text and times.parse(text)
  return at and math.floor(object.modified) > at
end

local function verdict(get, object)
  local match, none = get "match", get "none-match"
  if match and not names_etag(match, object.etag) then return 412 end
  local before = get "unmodified-since"
  if before and after(object, before) then return 412 end
  if none and names_etag(none, object.etag) then return 304 end
  local since = get "modified-since"
  if since and not none and times.parse(since) and not after(object, since) then return 304 end
end

---@return integer|nil 304 when the client has it already; raises 412
function M.check(q, object)
  local said = verdict(function(name) return q.header("if-" .. name) end, object)
  if said == 412 then failed() end
  return said
end

---The same for the source of a copy: nothing but success is success there.
function M.check_source(q, object)
  if verdict(function(name) return q.header("x-oss-copy-source-if-" .. name) end, object) then failed() end
end

local function parse(text, size)
  local from, to = text:match "^bytes=(%d*)%-(%d*)$"
  if not from or (from == "" and to == "") then return nil end
  if from == "" then
    local tail = math.tointeger(tonumber(to))
    return math.max(0, size - tail), size - 1, tail > 0
  end
  from, to = math.tointeger(tonumber(from)), math.tointeger(tonumber(to)) or size - 1
  return from, to, from < size and from <= to
end

---@return {from: integer, to: integer}|nil nil answers the whole object: this store does so for a range it cannot satisfy,
---unless the client asked for standard behaviour
function M.range(q, size)
  local text = q.header "range"
  if not text then return nil end
  local standard = q.header "x-oss-range-behavior" == "standard"
  local from, to, good = parse(text, size)
  if from and good and (to < size or standard) and size > 0 then return { from = from, to = math.min(to, size - 1) } end
  if standard and from then
    errors.raise("InvalidRange", { extra = { { "RangeRequested", text }, { "ActualObjectSize", size } } })
  end
end

return M
