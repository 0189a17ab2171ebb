-- SPDX-License-Identifier: Apache-2.0
-- The older signatures, HMAC-SHA1: RPC (in the query or the form) and ROA (Authorization: acs id:signature). Some SDKs
-- still use the first for STS.
local crypto = require "eirun.core.crypto"
local encoding = require "sandbox.encoding"

local legacy = {}

local function without_signature(list)
  local rest = {}
  for _, pair in ipairs(list) do
    if pair[1] ~= "Signature" then rest[#rest + 1] = pair end
  end
  return rest
end

-- params: decoded pairs of query and form together.
function legacy.rpc_string(method, params)
  return method:upper() .. "&%2F&" .. encoding.encode(encoding.canonical_query(without_signature(params)))
end

function legacy.rpc_signature(secret, text) return crypto.base64(crypto.hmac_sha1(secret .. "&", text)) end

local function acs_headers(headers)
  local names, lines = {}, {}
  for name in pairs(headers) do
    if name:sub(1, 6) == "x-acs-" then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do lines[i] = name .. ":" .. headers[name] .. "\n" end
  return table.concat(lines)
end

local function resource(path, query)
  if #query == 0 then return path end
  local sorted = table.move(query, 1, #query, 1, {})
  table.sort(sorted, function(a, b) return a[1] < b[1] end)
  local parts = {}
  for i, pair in ipairs(sorted) do parts[i] = pair[2] == "" and pair[1] or pair[1] .. "=" .. pair[2] end
  return path .. "?" .. table.concat(parts, "&")
end

-- headers: lower-case name -> value.
function legacy.roa_string(method, path, query, headers)
  return table.concat({ method:upper(), headers.accept or "", headers["content-md5"] or "", headers["content-type"] or "",
    headers.date or "", acs_headers(headers) .. resource(path, query) }, "\n")
end

function legacy.roa_signature(secret, text) return crypto.base64(crypto.hmac_sha1(secret, text)) end

return legacy
