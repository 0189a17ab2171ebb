-- SPDX-License-Identifier: Apache-2.0
-- What the object store does wrong on demand: refusals, answers that come late or lie, bytes that are lost or changed on their way.
local fs = require "eirun.core.fs"
local task = require "eirun.core.task"
local errors = require "sandbox.oss.errors"

local M = {}

local throttle_codes = { GetObject = "DownloadTrafficRateLimitExceeded", PutObject = "UploadTrafficRateLimitExceeded",
  UploadPart = "UploadTrafficRateLimitExceeded" }

local refuse = {}

function refuse.throttle(fault, name)
  errors.raise(fault.code or throttle_codes[name] or "TotalQpsLimitExceeded", { status = 503, ec = "0050-00000001",
    message = "Please reduce your request rate." })
end

function refuse.error(fault)
  errors.raise(fault.code or "InternalError", { status = fault.status or 500, message = fault.message })
end

function refuse.expired_token() errors.raise "SecurityTokenExpired" end

function refuse.permission_lost()
  errors.raise("AccessDenied", { message = "You have no right to access this object because of bucket acl." })
end

---Before the operation: raises, or leaves a mark for it.
function M.before(fault, q, name)
  if refuse[fault.kind] then refuse[fault.kind](fault, name) end
  if fault.kind == "cut_body" then q.cut_after = fault.bytes or 1 end
end

local function each_header(result, wanted, change)
  for _, pair in ipairs(result.headers) do
    if pair[1]:lower() == wanted then pair[2] = change(pair[2]) end
  end
end

local after = {}

function after.wrong_crc(result)
  each_header(result, "x-oss-hash-crc64ecma", function(text) return text == "1" and "2" or "1" end)
end

function after.wrong_etag(result)
  each_header(result, "etag", function(text) return (text:gsub("%x", function(c) return c == "0" and "1" or "0" end, 1)) end)
end

function after.late(_, fault) task.sleep(fault.seconds or 5) end

function after.qos_delay(result, fault)
  local milliseconds = fault.milliseconds or 500
  task.sleep(milliseconds / 1000)
  result.headers[#result.headers + 1] = { "x-oss-qos-delay-time", ("%d"):format(milliseconds) }
end

local most_changed = 64 << 20

-- One bit in the middle of what is sent.
function after.bit_rot(result)
  if not result.file or result.length < 1 or result.offset + result.length > most_changed then return end
  local text = fs.read(result.file):sub(result.offset + 1, result.offset + result.length)
  local middle = #text // 2 + 1
  result.body = text:sub(1, middle - 1) .. string.char(text:byte(middle) ~ 1) .. text:sub(middle + 1)
  result.file = nil
end

---After the operation, which has committed: the answer is changed, or kept back.
function M.after(fault, result)
  if after[fault.kind] then after[fault.kind](result, fault) end
end

---The start of what a file would be answered with, for faults that damage an answer's text.
function M.with_body(result)
  if not result.file then return result end
  local copy = { status = result.status, headers = result.headers }
  copy.body = fs.read(result.file, most_changed) or ""
  copy.body = copy.body:sub(result.offset + 1, result.offset + result.length)
  return copy
end

return M
