-- SPDX-License-Identifier: Apache-2.0
-- The requests of cases.js, shaped and signed by eirun, and checked by the sandbox's own verifier as they came over the wire.
local acs3 = require "sandbox.cloud.acs3"
local crypto = require "eirun.core.crypto"
local encoding = require "sandbox.encoding"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local os = require "eirun.core.os"
local secret = require "eirun.core.secret"
local shape = require "eirun.cloud.shape"
local sign = require "eirun.cloud.sign"
local t = require "eirun.test"
local wire = require "eirun.wire"

local KEY, SECRET = "LTAI5tEXAMPLEKEYID000001", "ExampleSecretForVectorsOnly0001"
local path = assert(os.getenv "SIGNER_CASES", "SIGNER_CASES names the file that cases.js wrote")

local cases = {}
for line in assert(fs.read(path)):gmatch("[^\n]+") do cases[#cases + 1] = assert(json.decode(line)) end

local function headers_of(case)
  local map = {}
  for i = 1, #case.wire.headers, 2 do map[case.wire.headers[i]:lower()] = case.wire.headers[i + 1] end
  return map
end

local function call_of(case)
  local call = { product = "any", action = case.action, version = case.version, style = case.style, method = case.method,
    query = case.query, params = {} }
  if case.segments then
    call.path = ""
    for i, segment in ipairs(case.segments) do
      call.path, call.params["p" .. i] = call.path .. "/{p" .. i .. "}", segment
    end
    if call.path == "" then call.path = "/" end
  end
  return call
end

local function signed_by_us(case)
  local theirs, ours = headers_of(case), {}
  local shaped = shape.request(call_of(case), "cn-hangzhou")
  for name, value in pairs(theirs) do
    if name == "host" or name == "content-type" or name:find("^x%-acs%-") then ours[name] = value end
  end
  if case.token then ours["x-acs-security-token"] = secret.new(theirs["x-acs-security-token"]) end
  ours["x-acs-content-sha256"] = nil
  local body = crypto.unbase64(case.wire.body)
  sign.sign { method = shaped.method, path = shaped.path, query = shaped.query, headers = ours, body = body ~= "" and body or nil,
    key_id = KEY, key_secret = secret.new(SECRET) }
  return ours, theirs, shaped
end

t.test("every_request_gets_the_same_signature_from_both", function()
  t.ok(#cases >= tonumber(os.getenv "SIGNER_COUNT"), "cases: " .. #cases)
  for _, case in ipairs(cases) do
    local ours, theirs = signed_by_us(case)
    t.eq(ours["x-acs-content-sha256"], theirs["x-acs-content-sha256"], "body of case " .. case.id)
    t.eq(ours.authorization, theirs.authorization, "case " .. case.id .. ": " .. json.encode(case))
  end
end)

t.test("the_same_path_and_the_same_fields_go_over_the_wire", function()
  for _, case in ipairs(cases) do
    local _, _, shaped = signed_by_us(case)
    local target, query = case.wire.target:match("^([^?]*)%??(.*)$")
    t.eq(encoding.decode(shaped.path), encoding.decode(target), "path of case " .. case.id)
    t.eq(wire.query(shaped.query), encoding.canonical_query(encoding.pairs_of(query, true)), "query of case " .. case.id)
  end
end)

local function decoded_form(text)
  return encoding.map_of(encoding.pairs_of(text, true))
end

t.test("bodies_hold_the_same_values", function()
  local counted = { json = 0, form = 0, chunked = 0 }
  for _, case in ipairs(cases) do
    local body = crypto.unbase64(case.wire.body)
    if headers_of(case)["transfer-encoding"] == "chunked" then counted.chunked = counted.chunked + 1 end
    if case.json and next(case.json) then
      counted.json = counted.json + 1
      t.eq(json.decode(body), case.json, "body of case " .. case.id)
    elseif case.form and next(case.form) then
      counted.form = counted.form + 1
      t.eq(decoded_form(wire.query(shape.flatten(case.form))), decoded_form(body), "form of case " .. case.id)
    end
  end
  for kind, count in pairs(counted) do t.ok(count > #cases / 20, kind .. ": " .. count) end
end)

t.test("the_sandbox_accepts_every_one_and_refuses_it_with_one_letter_changed", function()
  for _, case in ipairs(cases) do
    local theirs = headers_of(case)
    local target, query = case.wire.target:match("^([^?]*)%??(.*)$")
    local parsed = acs3.parse(theirs.authorization)
    local request = { method = case.wire.method, path = target, query = encoding.pairs_of(query, true),
      body_sha = crypto.hex(crypto.sha256(crypto.unbase64(case.wire.body))), header_values = function(name) return { theirs[name] } end }
    t.ok(acs3.verify(request, parsed, SECRET), "case " .. case.id)
    theirs["x-acs-action"] = theirs["x-acs-action"] .. "x"
    t.ok(not acs3.verify(request, parsed, SECRET), "an altered case " .. case.id)
  end
end)
