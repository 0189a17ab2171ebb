-- SPDX-License-Identifier: Apache-2.0
-- Requests that the Go SDK's signer has signed, signed again by eirun's. Run by tests/peers/oss/run, which names the file.
local core = require "eirun.core.oss"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"
local sign = require "eirun.oss.sign"
local t = require "eirun.test"

local function text(value) return value ~= json.null and value ~= "" and value or nil end

local function request_of(row)
  local headers = {}
  for name, value in pairs(row.headers) do headers[name] = value end
  return { method = row.method, bucket = text(row.bucket), key = text(row.key), query = row.params, headers = headers,
    additional = row.additional, key_id = row.id, key_secret = row.secret, token = text(row.token), region = row.region, now = row.now }
end

local function decode(value)
  return (value:gsub("%+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function query_of(line)
  local query = {}
  for name, value in line:gmatch "([^&=]+)=?([^&]*)" do query[decode(name)] = decode(value) end
  return query
end

local stamp = "^(%d%d%d%d)(%d%d)(%d%d)T(%d%d)(%d%d)(%d%d)Z$"

local function seconds(text_of)
  local y, m, d, h, min, s = text_of:match(stamp)
  return require("eirun.wire").parse_time(("%s-%s-%sT%s:%s:%sZ"):format(y, m, d, h, min, s))
end

local check = {}

-- The threads of transfers sign in C; they have no additional headers, and refuse control characters in a query.
local function signed_in_c(request)
  local headers, date = {}, require("eirun.wire").basic(request.now)
  for name, value in pairs(request.headers) do headers[name] = value end
  headers["x-oss-date"], headers["x-oss-content-sha256"], headers["x-oss-security-token"] = date, "UNSIGNED-PAYLOAD", request.token
  return core.authorization { method = request.method, bucket = request.bucket, key = request.key, query = request.query,
    headers = headers, region = request.region, id = request.key_id, secret = request.key_secret, date = date }
end

local in_c = 0

function check.v4(row, request)
  if #row.additional == 0 and not row.query:find "%%0[9A]" then
    t.ok(signed_in_c(request) == row.answer.authorization, "signed in C it differs: " .. json.encode(row))
    in_c = in_c + 1
  end
  return sign.v4(request).authorization, row.answer.authorization
end

function check.v1(row, request) return sign.v1(request).authorization, row.answer.authorization end

-- The peer signs with the time of now, so its time is taken over.
function check.v4_presigned(row, request)
  local theirs = query_of(row.answer.query)
  request.now = seconds(theirs["x-oss-date"])
  return sign.v4_presign(request, math.tointeger(tonumber(theirs["x-oss-expires"])))["x-oss-signature"], theirs["x-oss-signature"]
end

function check.v1_presigned(row, request)
  local theirs = query_of(row.answer.query)
  request.now = math.tointeger(tonumber(theirs.Expires)) - 60
  return sign.v1_presign(request, 60).Signature, theirs.Signature
end

t.test("the_official_signer_agrees", function()
  local rows = assert(json.decode(assert(fs.read(assert(os_core.getenv "SIGNED_REQUESTS")))))
  local counts = {}
  for i, row in ipairs(rows) do
    local kind = row.version .. (row.expires > 0 and "_presigned" or "")
    local ours, theirs = check[kind](row, request_of(row))
    counts[kind] = (counts[kind] or 0) + 1
    t.ok(ours == theirs, ("request %d differs: %s is not %s of %s"):format(i, ours, theirs, json.encode(row)))
  end
  t.ok(in_c > 20, "few requests were signed in C")
  for _, kind in ipairs { "v4", "v1", "v4_presigned", "v1_presigned" } do t.ok((counts[kind] or 0) > 100, "few requests: " .. kind) end
end)
