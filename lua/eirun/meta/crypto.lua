-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.crypto
-- What the C module core/bind_crypto.c offers; a test compares the names.
-- All data and keys are strings or secrets. What can be turned back (hex, base64, percent-encoding) is a secret when it was made of
-- one; a digest is a string.
local crypto = {}

---@alias eirun.Bytes string|eirun.Secret

---MD5 (RFC 1321); not for security.
---Example: `crypto.base64(crypto.md5(body))`
---@param data eirun.Bytes
---@return string raw 16 bytes
function crypto.md5(data) end
---SHA-1 (FIPS 180); not for security.
---Example: `crypto.hex(crypto.sha1 "abc")`
---@param data eirun.Bytes
---@return string raw 20 bytes
function crypto.sha1(data) end
---SHA-256 (FIPS 180).
---Example: `crypto.hex(crypto.sha256 "abc")`
---@param data eirun.Bytes
---@return string raw 32 bytes
function crypto.sha256(data) end
---SHA-512 (FIPS 180).
---Example: `crypto.hex(crypto.sha512 "abc")`
---@param data eirun.Bytes
---@return string raw 64 bytes
function crypto.sha512(data) end
---HMAC (RFC 2104) with SHA-1.
---Example: `crypto.base64(crypto.hmac_sha1(secret, text))`
---@param key eirun.Bytes
---@param data eirun.Bytes
---@return string raw
function crypto.hmac_sha1(key, data) end
---HMAC (RFC 2104) with SHA-256.
---Example: `crypto.hex(crypto.hmac_sha256(secret, text))`
---@param key eirun.Bytes
---@param data eirun.Bytes
---@return string raw
function crypto.hmac_sha256(key, data) end

---@class eirun.core.crypto.Digest
local Digest = {}
---Adds bytes.
---@param data eirun.Bytes
---@return eirun.core.crypto.Digest itself
function Digest:update(data) end
---Ends it: raw bytes, or an integer for crc64.
---@return string|integer
function Digest:final() end
---Frees it; also __close and __gc.
function Digest:close() end

---A digest of bytes that come in pieces.
---Example: `crypto.digest("sha256"):update("a"):update("b"):final()`
---@param name "md5"|"sha1"|"sha256"|"sha512"|"crc64"
---@return eirun.core.crypto.Digest
function crypto.digest(name) end

---CRC-64/XZ, which OSS calls crc64ecma; `seed` continues an earlier result. The integer's bits are the checksum.
---@param data eirun.Bytes
---@param seed? integer
---@return integer
---Example: `crypto.crc64("b", crypto.crc64 "a") == crypto.crc64 "ab"`
function crypto.crc64(data, seed) end
---The checksum of A followed by B, from theirs and B's length.
---@param a integer
---@param b integer
---@param length_of_b integer
---@return integer
---Example: `crypto.crc64_combine(crypto.crc64 "a", crypto.crc64 "b", 1) == crypto.crc64 "ab"`
function crypto.crc64_combine(a, b, length_of_b) end
---Its unsigned decimal text, as in x-oss-hash-crc64ecma.
---@param crc integer
---@return string
---Example: `crypto.crc64_text(-1)` is `18446744073709551615`.
function crypto.crc64_text(crc) end
---The integer of such a text.
---Example: `crypto.crc64_parse(headers:get "x-oss-hash-crc64ecma")`
---@param text string
---@return integer|nil
---@return eirun.Error|nil invalid
function crypto.crc64_parse(text) end

---Lower-case hexadecimal.
---@generic T: eirun.Bytes
---@param data T
---@return T
---Example: `crypto.hex "A"` is `41`.
function crypto.hex(data) end
---The bytes of hexadecimal digits, in either case.
---Example: `crypto.unhex "41"` is `A`.
---@generic T: eirun.Bytes
---@param text T
---@return T|nil
---@return eirun.Error|nil invalid
function crypto.unhex(text) end
---With padding (RFC 4648, section 4).
---@generic T: eirun.Bytes
---@param data T
---@return T
---Example: `crypto.base64 "A"` is `QQ==`.
function crypto.base64(data) end
---Padding is needed; line breaks are skipped.
---@generic T: eirun.Bytes
---@param text T
---@return T|nil
---@return eirun.Error|nil invalid
---Example: `crypto.unbase64 "QQ=="` is `A`.
function crypto.unbase64(text) end
---Encodes all but unreserved characters (RFC 3986); "path" leaves `/` too.
---@generic T: eirun.Bytes
---@param text T
---@param set? "rfc3986"|"path"
---@return T
---Example: `crypto.percent_encode("a b/c", "path")` is `a%20b/c`.
function crypto.percent_encode(text, set) end

---Are they the same bytes? Takes as long wherever they differ.
---Example: `crypto.constant_time_equal(given, token)`
---@param a eirun.Bytes
---@param b eirun.Bytes
---@return boolean
function crypto.constant_time_equal(a, b) end

---Random bytes from OpenSSL's generator; from the seeded one after `random_seed`.
---@param length integer
---@return string
---Example: `crypto.hex(crypto.random(16))`
function crypto.random(length) end
---Makes `random` and the serial numbers of certificates of this Lua state repeat themselves, run by run. Predictable, so only for
---runs under --sandbox; keys never come from it.
---@param seed integer
---Example: `crypto.random_seed(1)`
function crypto.random_seed(seed) end

---@class eirun.core.crypto.Certificate
---@field cert_pem string
---@field key_pem eirun.Secret

---@class eirun.core.crypto.CaOptions
---@field name string common name
---@field not_before number seconds since 1970
---@field not_after number

---A CA of one's own: ECDSA on P-256, signed by itself.
---@param options eirun.core.crypto.CaOptions
---@return eirun.core.crypto.Certificate|nil
---@return eirun.Error|nil invalid
---Example: `local ca = assert(crypto.ca_create { name = "tests", not_before = now, not_after = now + 86400 })`
function crypto.ca_create(options) end

---@class eirun.core.crypto.CertOptions
---@field ca {cert_pem: eirun.Bytes, key_pem: eirun.Bytes}
---@field cn string common name
---@field organization? string a Kubernetes group in client certificates
---@field names? string[] DNS names (also `*.x`) and IP addresses
---@field client? boolean for client authentication; default: for servers
---@field not_before number seconds since 1970
---@field not_after number

---A certificate signed by `ca`, with a key of its own.
---@param options eirun.core.crypto.CertOptions
---@return eirun.core.crypto.Certificate|nil
---@return eirun.Error|nil invalid
---Example: `crypto.cert_issue { ca = ca, cn = "localhost", names = { "127.0.0.1" }, not_before = now, not_after = now + 3600 }`
function crypto.cert_issue(options) end

return crypto
