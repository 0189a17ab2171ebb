-- SPDX-License-Identifier: Apache-2.0
-- The two signatures of the log service, as a server checks them. V1: HMAC-SHA1 over unencoded values; V4:
-- SLS4-HMAC-SHA256 with a derived key, the host and the body's hash signed.
local crypto = require "eirun.core.crypto"
local encoding = require "sandbox.encoding"

local signature = {}

-- headers: function(name) -> value|nil; names: list of all lower-case header names of the request.
local function log_headers(request)
  local names, lines = {}, {}
  for _, name in ipairs(request.names) do
    if name:find "^x%-log%-" or name:find "^x%-acs%-" then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do lines[i] = name .. ":" .. (request.header(name) or "") .. "\n" end
  return table.concat(lines)
end

local function v1_resource(request)
  if #request.query == 0 then return request.path end
  local sorted = table.move(request.query, 1, #request.query, 1, {})
  table.sort(sorted, function(a, b) return a[1] < b[1] end)
  local parts = {}
  for i, pair in ipairs(sorted) do parts[i] = pair[1] .. "=" .. pair[2] end
  return request.path .. "?" .. table.concat(parts, "&")
end

-- request: { method=, path=, query={ {k,v} } decoded, header=function, names={...} }
function signature.v1_string(request)
  local header = request.header
  return table.concat({ request.method, header "content-md5" or "", header "content-type" or "", header "date" or "" }, "\n") .. "\n"
    .. log_headers(request) .. v1_resource(request)
end

function signature.v1(secret, text) return crypto.base64(crypto.hmac_sha1(secret, text)) end

local function v4_query(query)
  local sorted = table.move(query, 1, #query, 1, {})
  table.sort(sorted, function(a, b) return a[1] < b[1] end)
  local parts = {}
  for i, pair in ipairs(sorted) do
    parts[i] = encoding.encode(pair[1]) .. (pair[2] ~= "" and "=" .. encoding.encode(pair[2]) or "")
  end
  return table.concat(parts, "&")
end

local function v4_signed(name)
  if name == "content-type" or name == "host" then return true end
  return (name:find "^x%-log%-" and not name:find "^x%-log%-meta%-") or name:find "^x%-acs%-"
end

function signature.v4_canonical(request)
  local names, lines = {}, {}
  for _, name in ipairs(request.names) do
    if v4_signed(name) then names[#names + 1] = name end
  end
  table.sort(names)
  for i, name in ipairs(names) do lines[i] = name .. ":" .. request.header(name):match "^%s*(.-)%s*$" .. "\n" end
  return table.concat({ request.method, request.path, v4_query(request.query), table.concat(lines), table.concat(names, ";"),
    request.header "x-log-content-sha256" or "" }, "\n")
end

-- scope: { date="20250304", region= }
function signature.v4_key(secret, scope)
  local key = crypto.hmac_sha256("aliyun_v4" .. secret, scope.date)
  key = crypto.hmac_sha256(key, scope.region)
  key = crypto.hmac_sha256(key, "sls")
  return crypto.hmac_sha256(key, "aliyun_v4_request")
end

function signature.v4_string(time, scope, canonical)
  return table.concat({ "SLS4-HMAC-SHA256", time, ("%s/%s/sls/aliyun_v4_request"):format(scope.date, scope.region),
    crypto.hex(crypto.sha256(canonical)) }, "\n")
end

function signature.v4(secret, scope, text) return crypto.hex(crypto.hmac_sha256(signature.v4_key(secret, scope), text)) end

-- Authorization -> { version=1|4, id=, signature=, scope= } | nil
function signature.parse(authorization)
  local id, value = authorization:match "^LOG ([^:]+):(.+)$"
  if id then return { version = 1, id = id, signature = value } end
  local key, date, region
  key, date, region, value =
    authorization:match "^SLS4%-HMAC%-SHA256 Credential=([^/]+)/(%d+)/([^/]+)/sls/aliyun_v4_request,%s*Signature=(%x+)$"
  if key then return { version = 4, id = key, signature = value:lower(), scope = { date = date, region = region } } end
end

return signature
