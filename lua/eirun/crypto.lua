-- SPDX-License-Identifier: Apache-2.0
-- Digests and encodings. Data and keys are text or secrets; what can be turned back (hex, base64, percent-encoding) is a secret when it was
-- made of one, a digest is text.
local core = require "eirun.core.crypto"
local raising = require("eirun.face").raising

local M = {}

---MD5 (RFC 1321); not for security.
---@param data eirun.Bytes
---@return string raw 16 bytes
---Example: `crypto.hex(crypto.md5 "abc")` is `900150983cd24fb0d6963f7d28e17f72`. Raises kind `invalid` for what is no text.
M.md5 = raising(core.md5)

---SHA-1 (FIPS 180); not for security.
---@param data eirun.Bytes
---@return string raw 20 bytes
---Example: `crypto.hex(crypto.sha1 "abc")` is `a9993e364706816aba3e25717850c26c9cd0d89d`. Raises kind `invalid` for what is no text.
M.sha1 = raising(core.sha1)

---SHA-256 (FIPS 180).
---@param data eirun.Bytes
---@return string raw 32 bytes
---Example: `crypto.hex(crypto.sha256(fs.read "model.pb"))`. Raises kind `invalid` for what is no text.
M.sha256 = raising(core.sha256)

---SHA-512 (FIPS 180).
---@param data eirun.Bytes
---@return string raw 64 bytes
---Example: `crypto.hex(crypto.sha512(fs.read "model.pb"))`. Raises kind `invalid` for what is no text.
M.sha512 = raising(core.sha512)

---HMAC (RFC 2104) with SHA-1.
---@param key eirun.Bytes
---@param data eirun.Bytes
---@return string raw 20 bytes
---Example: `crypto.base64(crypto.hmac_sha1(key, text))`. Raises kind `invalid` for what is no text.
M.hmac_sha1 = raising(core.hmac_sha1)

---HMAC (RFC 2104) with SHA-256.
---@param key eirun.Bytes
---@param data eirun.Bytes
---@return string raw 32 bytes
---Example: `crypto.hex(crypto.hmac_sha256(key, text))`. Raises kind `invalid` for what is no text.
M.hmac_sha256 = raising(core.hmac_sha256)

---CRC-64/XZ, which OSS calls crc64ecma; `seed` continues an earlier result. The integer's bits are the checksum.
---@param data eirun.Bytes
---@param seed? integer
---@return integer
---Example: `crypto.crc64("b", crypto.crc64 "a") == crypto.crc64 "ab"` is true. Raises kind `invalid` for what is no text.
M.crc64 = raising(core.crc64)

---A checksum's unsigned decimal text, as OSS writes it.
---@param crc integer
---@return string
---Example: `crypto.crc64_text(-1)` is `18446744073709551615`. Raises kind `invalid` for what is no integer.
M.crc64_text = raising(core.crc64_text)

---Lower-case hexadecimal.
---@generic T: eirun.Bytes
---@param data T
---@return T
---Example: `crypto.hex "A"` is `41`. Raises kind `invalid` for what is no text.
M.hex = raising(core.hex)

---The bytes of hexadecimal digits, in either case.
---@generic T: eirun.Bytes
---@param text T
---@return T
---Example: `crypto.unhex "41"` is `A`. Raises kind `invalid` for other characters or an odd number of them.
M.unhex = raising(core.unhex)

---With padding (RFC 4648, section 4).
---@generic T: eirun.Bytes
---@param data T
---@return T
---Example: `crypto.base64 "A"` is `QQ==`. Raises kind `invalid` for what is no text.
M.base64 = raising(core.base64)

---The bytes of it; padding is needed, line breaks are skipped.
---@generic T: eirun.Bytes
---@param text T
---@return T
---Example: `crypto.unbase64 "QQ=="` is `A`. Raises kind `invalid` for what is no base64.
M.unbase64 = raising(core.unbase64)

---Encodes all but unreserved characters (RFC 3986); "path" leaves `/` too.
---@generic T: eirun.Bytes
---@param text T
---@param set? "rfc3986"|"path"
---@return T
---Example: `crypto.percent_encode("a b/c", "path")` is `a%20b/c`. Raises kind `invalid` for another set.
M.percent_encode = raising(core.percent_encode)

---Random bytes from OpenSSL's generator.
---@param length integer
---@return string
---Example: `local name = "job-" .. crypto.hex(crypto.random(4))`. Raises kind `invalid` for a length below 0.
M.random = raising(core.random)

---Are they the same bytes? Takes as long wherever they differ.
---@param a eirun.Bytes
---@param b eirun.Bytes
---@return boolean
---Example: `crypto.constant_time_equal("a", "b")` is false. Raises kind `invalid` for what is no text.
M.constant_time_equal = raising(core.constant_time_equal)

return M
