-- SPDX-License-Identifier: Apache-2.0
-- The "aliyun_v4" key chain that OSS and SLS share: one key a day, region and product.
local crypto = require "eirun.core.crypto"
local secret = require "eirun.core.secret"

local M = {}

---The credential scope, `20250304/cn-hangzhou/oss/aliyun_v4_request`.
---@param day string yyyymmdd
---@param region string
---@param product string
---@return string
function M.scope(day, region, product)
  return day .. "/" .. region .. "/" .. product .. "/aliyun_v4_request"
end

---The signing key of a scope. The secret may be a string only in tests.
---@param key_secret string|userdata
---@param day string
---@param region string
---@param product string
---@return string
function M.key(key_secret, day, region, product)
  local chain = type(key_secret) == "string" and "aliyun_v4" .. key_secret or secret.concat("aliyun_v4", key_secret)
  for _, part in ipairs { day, region, product, "aliyun_v4_request" } do
    chain = crypto.hmac_sha256(chain, part)
  end
  return chain
end

---The signature over a canonical request.
---@param algorithm string `OSS4-HMAC-SHA256`
---@param key_secret string|userdata
---@param date string yyyymmddThhmmssZ
---@param region string
---@param product string
---@param canonical string|userdata
---@return string hex
---@return string scope
function M.signature(algorithm, key_secret, date, region, product, canonical)
  local day = date:sub(1, 8)
  local scope = M.scope(day, region, product)
  local to_sign = table.concat({ algorithm, date, scope, crypto.hex(crypto.sha256(canonical)) }, "\n")
  return crypto.hex(crypto.hmac_sha256(M.key(key_secret, day, region, product), to_sign)), scope
end

return M
