-- SPDX-License-Identifier: Apache-2.0
-- The sandbox's own certificate authority and the one server certificate that covers all emulated hosts. Dates follow
-- the run's clock; the range is wide because real clients of a serving sandbox look at the wall clock instead.
local crypto = require "eirun.core.crypto"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"

local tls = {}

local owner_only, readable = tonumber("600", 8), tonumber("644", 8)
local day = 86400
local ca_life, leaf_life, renew_before = 20 * 365 * day, 5 * 365 * day, 365 * day

local function write_secret(path, text) return assert(fs.write(path, text, { mode = owner_only, atomic = true })) end

local function create_ca(dir, now)
  local ca = assert(crypto.ca_create { name = "eirun sandbox CA", not_before = now - 400 * day, not_after = now + ca_life })
  write_secret(dir .. "/ca.key", ca.key_pem)
  assert(fs.write(dir .. "/ca.pem", ca.cert_pem, { mode = readable, atomic = true })) -- written last: it marks a whole CA
  return ca
end

local function load_ca(dir, now)
  local cert, key = fs.read(dir .. "/ca.pem"), fs.read(dir .. "/ca.key")
  if cert and key then return { cert_pem = cert, key_pem = key } end
  return create_ca(dir, now)
end

local function still_good(record, names, now)
  return record and record.names == names and record.not_before <= now and record.not_after - renew_before > now
end

local function read_server(dir)
  local text = fs.read(dir .. "/server.json")
  return text and json.decode(text)
end

local function issue_server(dir, ca, names, now)
  local leaf = { not_before = now - 400 * day, not_after = now + leaf_life }
  local cert = assert(crypto.cert_issue { ca = ca, cn = "eirun sandbox", names = names,
    not_before = leaf.not_before, not_after = leaf.not_after })
  leaf.names, leaf.cert_pem, leaf.key_pem = table.concat(names, " "), cert.cert_pem, cert.key_pem
  write_secret(dir .. "/server.json", assert(json.encode(leaf, { reveal = true })))
  return cert
end

-- The authority of DIR, made once.
function tls.authority(dir, now) return load_ca(dir, now) end

-- { cert_pem, key_pem } for all `names` (sorted host patterns and addresses), renewed when they or the time ask for it.
function tls.server_certificate(dir, ca, names, now)
  local record = read_server(dir)
  if still_good(record, table.concat(names, " "), now) then
    return { cert_pem = record.cert_pem, key_pem = record.key_pem }
  end
  return issue_server(dir, ca, names, now)
end

return tls
