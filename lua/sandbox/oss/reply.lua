-- SPDX-License-Identifier: Apache-2.0
-- What operations answer with, and the small conversions that every answer needs.
local crypto = require "eirun.core.crypto"
local times = require "sandbox.times"
local xml = require "sandbox.oss.xml"

local M = {}

---An unsigned 64-bit number in decimal.
function M.unsigned(n)
  if n >= 0 then return ("%d"):format(n) end
  local tens = (n >> 1) // 5
  return ("%d%d"):format(tens, n - tens * 10)
end

function M.time(seconds) return (times.iso(seconds):gsub("Z$", ".000Z")) end

function M.quote(etag) return '"' .. etag .. '"' end

function M.unquote(etag) return (etag:gsub('^"(.*)"$', "%1")) end

---@param status integer
---@param headers? table[] {name, value} pairs
---@param body? string
function M.of(status, headers, body)
  return { status = status, headers = headers or {}, body = body or "" }
end

---@param node table root element
function M.xml(node, headers)
  headers = headers or {}
  headers[#headers + 1] = { "Content-Type", "application/xml" }
  return M.of(200, headers, xml.document(node))
end

---Encodes names in a listing when the client asked for `encoding-type=url`.
function M.encoder(query)
  if query["encoding-type"] ~= "url" then return function(text) return text end end
  return function(text) return crypto.percent_encode(text, "rfc3986") end
end

---A failure as the service shows it: XML, or base64 in a header when the request was a HEAD.
---@param facts {method: string, request_id: string, host: string}
function M.failure(failure, facts)
  local node = { "Error", { { "Code", failure.code }, { "Message", failure.message }, { "RequestId", facts.request_id },
    { "HostId", facts.host } } }
  for _, pair in ipairs(failure.extra) do table.insert(node[2], pair) end
  table.insert(node[2], { "EC", failure.ec })
  table.insert(node[2], { "RecommendDoc", "https://api.aliyun.com/troubleshoot?q=" .. failure.ec })
  local text = xml.document(node)
  if facts.method ~= "HEAD" then
    return M.of(failure.status, { { "Content-Type", "application/xml" }, { "x-oss-ec", failure.ec } }, text)
  end
  return M.of(failure.status, { { "x-oss-err", crypto.base64(text) }, { "x-oss-ec", failure.ec } })
end

return M
