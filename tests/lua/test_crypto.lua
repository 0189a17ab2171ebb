-- SPDX-License-Identifier: Apache-2.0
local crypto = require "eirun.core.crypto"
local secret = require "eirun.core.secret"
local t = require "eirun.test"

local function is_secret_of(value, bytes) return secret.is(value) and crypto.constant_time_equal(value, bytes) end

t.test("digests_are_raw_bytes_of_strings_or_secrets", function()
  t.eq(crypto.hex(crypto.md5 "a"), "0cc175b9c0f1b6a831c399e269772661")
  t.eq(crypto.hex(crypto.sha1 "abc"), "a9993e364706816aba3e25717850c26c9cd0d89d")
  t.eq(crypto.hex(crypto.sha256(secret.new "abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
  t.eq(#crypto.sha512 "", 64)
end)

-- RFC 4231, test case 2; RFC 2202, test case 2.
t.test("hmac_takes_keys_and_data_as_strings_or_secrets", function()
  local expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
  t.eq(crypto.hex(crypto.hmac_sha256("Jefe", "what do ya want for nothing?")), expected)
  t.eq(crypto.hex(crypto.hmac_sha256(secret.new "Jefe", secret.new "what do ya want for nothing?")), expected)
  t.eq(crypto.hex(crypto.hmac_sha1("Jefe", "what do ya want for nothing?")), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
end)

t.test("what_can_be_turned_back_is_a_secret_when_made_of_one", function()
  t.ok(is_secret_of(crypto.base64(secret.new "foobar"), "Zm9vYmFy"))
  t.ok(is_secret_of(crypto.unbase64(secret.new "Zm9vYmFy"), "foobar"))
  t.ok(is_secret_of(crypto.hex(secret.new "\0\255"), "00ff"))
  t.ok(is_secret_of(crypto.unhex(secret.new "00ff"), "\0\255"))
  t.ok(is_secret_of(crypto.percent_encode(secret.new "a/b"), "a%2Fb"))
end)

t.test("texts_that_stand_for_no_bytes_are_errors", function()
  for _, wrong in ipairs { "Zg", "Zg=x", "a b=" } do
    local value, err = crypto.unbase64(wrong)
    t.ok(value == nil)
    t.eq(err.kind, "invalid")
  end
  t.eq(select(2, crypto.unhex "0").kind, "invalid")
  t.eq(select(2, crypto.unhex "zz").kind, "invalid")
  t.eq(crypto.unbase64 "", "")
  t.eq(crypto.unhex "", "")
end)

t.test("percent_encode_follows_rfc_3986_and_can_keep_slashes", function()
  t.eq(crypto.percent_encode "a b/*é~", "a%20b%2F%2A%C3%A9~")
  t.eq(crypto.percent_encode("a b/*", "path"), "a%20b/%2A")
  t.ok(not pcall(crypto.percent_encode, "a", "query"))
end)

t.test("crc64_is_an_integer_with_an_unsigned_text", function()
  local crc = crypto.crc64 "123456789"
  t.eq(crc, 0x995dc9bbdf1939fa)
  t.eq(crypto.crc64_text(crc), "11051210869376104954")
  t.eq(crypto.crc64_parse "11051210869376104954", crc)
  t.eq(crypto.crc64("56789", crypto.crc64 "1234"), crc)
  t.eq(crypto.crc64_combine(crypto.crc64 "1234", crypto.crc64 "56789", 5), crc)
  for _, wrong in ipairs { "", "-1", "+1", " 1", "1x", "18446744073709551616" } do
    t.eq(select(2, crypto.crc64_parse(wrong)).kind, "invalid")
  end
end)

t.test("a_digest_takes_pieces_once", function()
  local d = crypto.digest "sha256"
  t.eq(crypto.hex(d:update("a"):update(secret.new "b"):update("c"):final()), crypto.hex(crypto.sha256 "abc"))
  t.ok(not pcall(d.update, d, "x"))
  t.ok(not pcall(d.final, d))
  t.eq(crypto.digest("crc64"):update("123456789"):final(), 0x995dc9bbdf1939fa)
  t.ok(not pcall(crypto.digest, "sha3"))
end)

t.test("random_gives_as_many_bytes_as_asked", function()
  t.eq(#crypto.random(0), 0)
  t.eq(#crypto.random(1000), 1000)
  t.ok(crypto.random(16) ~= crypto.random(16))
  t.ok(not pcall(crypto.random, -1))
end)

t.test("constant_time_equal_compares_bytes", function()
  t.ok(crypto.constant_time_equal("a\0b", secret.new "a\0b"))
  t.ok(not crypto.constant_time_equal("a\0b", "a\0c"))
  t.ok(not crypto.constant_time_equal("a", "ab"))
  t.ok(crypto.constant_time_equal("", ""))
end)

local day = 86400

t.test("a_ca_issues_certificates_and_keeps_keys_secret", function()
  local ca = assert(crypto.ca_create { name = "test", not_before = 0, not_after = 20000 * day })
  t.match(ca.cert_pem, "^%-%-%-%-%-BEGIN CERTIFICATE%-%-%-%-%-\n")
  t.ok(secret.is(ca.key_pem))
  local leaf = assert(crypto.cert_issue {
    ca = ca, cn = "server", names = { "a.example", "*.b.example", "127.0.0.1", "::1" }, not_before = 1.5, not_after = 30 * day,
  })
  t.ok(secret.is(leaf.key_pem))
  t.ok(leaf.cert_pem ~= ca.cert_pem)
end)

t.test("certificates_that_make_no_sense_are_errors", function()
  local ca = assert(crypto.ca_create { name = "test", not_before = 0, not_after = day })
  local other = assert(crypto.ca_create { name = "other", not_before = 0, not_after = day })
  local function message(change)
    local opts = { ca = ca, cn = "x", not_before = 0, not_after = day }
    for k, v in pairs(change) do
      opts[k] = v
    end
    local value, err = crypto.cert_issue(opts)
    t.ok(value == nil)
    t.eq(err.kind, "invalid")
    return err.message
  end
  t.match(message { names = { "a,b" } }, "'a,b' is neither")
  t.match(message { names = { "" } }, "neither")
  t.match(message { cn = ("x"):rep(65) }, "cannot set the name")
  t.match(message { not_after = -1 }, "before it begins")
  t.match(message { ca = { cert_pem = ca.cert_pem, key_pem = other.key_pem } }, "does not belong")
  t.match(message { ca = { cert_pem = "x", key_pem = ca.key_pem } }, "cannot read the CA's certificate")
  t.match(message { ca = { cert_pem = ca.cert_pem, key_pem = "x" } }, "cannot read the CA's key")
  t.ok(not pcall(crypto.cert_issue, { ca = ca, not_before = 0, not_after = 1 }))
  t.ok(not pcall(crypto.cert_issue, { ca = {}, cn = "x", not_before = 0, not_after = 1 }))
  t.ok(not pcall(crypto.cert_issue, { ca = ca, cn = "x", not_before = 0, not_after = 0 / 0 }))
  t.ok(not pcall(crypto.cert_issue, { ca = ca, cn = "x", not_before = 0, not_after = 1, names = { 1 } }))
end)
