-- SPDX-License-Identifier: Apache-2.0
-- ACS3-HMAC-SHA256 as a server checks it: the canonical request is rebuilt from the headers that the client says it
-- signed, the query is decoded and encoded again because SDKs leave ! ' ( ) * raw on the wire.
local crypto = require "eirun.core.crypto"
local encoding = require "sandbox.encoding"

local acs3 = {}

acs3.name = "ACS3-HMAC-SHA256"
local required = { "host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256" }

-- "ACS3-HMAC-SHA256 Credential=..,SignedHeaders=a;b,Signature=hex" -> { id=, signed={names}, signature= } | nil
function acs3.parse(authorization)
  local rest = authorization:match("^" .. acs3.name:gsub("%-", "%%-") .. "%s+(.+)$")
  if not rest then return nil end
  local id, signed, signature = rest:match "Credential=([^,]+)", rest:match "SignedHeaders=([^,]+)",
    rest:match "Signature=(%x+)"
  if not (id and signed and signature) then return nil end
  local names = {}
  for name in signed:gmatch "[^;]+" do names[#names + 1] = name end
  return { id = id, signed = names, signature = signature:lower() }
end

-- The first header that must be signed and is not, or nil.
function acs3.unsigned_header(signed)
  local has = {}
  for _, name in ipairs(signed) do has[name] = true end
  for _, name in ipairs(required) do
    if not has[name] then return name end
  end
end

local function canonical_headers(request, names)
  local sorted = table.move(names, 1, #names, 1, {})
  table.sort(sorted)
  local lines = {}
  for i, name in ipairs(sorted) do
    local values = {}
    for j, value in ipairs(request.header_values(name)) do values[j] = value:match "^%s*(.-)%s*$" end
    table.sort(values)
    lines[i] = name .. ":" .. table.concat(values, ",") .. "\n"
  end
  return table.concat(lines), table.concat(sorted, ";")
end

-- request: { method=, path=(raw), query={ {k,v}... } (decoded), header_values=function(name)->{values}, body_sha= }
function acs3.canonical_request(request, names)
  local headers, signed = canonical_headers(request, names)
  return table.concat({ request.method:upper(), request.path, encoding.canonical_query(request.query), headers, signed,
    request.body_sha }, "\n")
end

function acs3.string_to_sign(canonical) return acs3.name .. "\n" .. crypto.hex(crypto.sha256(canonical)) end

function acs3.signature(secret, string_to_sign) return crypto.hex(crypto.hmac_sha256(secret, string_to_sign)) end

-- true | false, the server's string to sign, its canonical request
function acs3.verify(request, parsed, secret)
  local canonical = acs3.canonical_request(request, parsed.signed)
  local text = acs3.string_to_sign(canonical)
  return acs3.signature(secret, text) == parsed.signature, text, canonical
end

return acs3
