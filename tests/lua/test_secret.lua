-- SPDX-License-Identifier: Apache-2.0
local crypto = require "eirun.core.crypto"
local secret = require "eirun.core.secret"
local t = require "eirun.test"

local function is_secret_of(value, bytes) return secret.is(value) and crypto.constant_time_equal(value, bytes) end

t.test("a_secret_does_not_show_itself", function()
  local s = secret.new "hunter2"
  t.eq(tostring(s), "<secret>")
  t.eq(("%s"):format(s), "<secret>")
  t.ok(not getmetatable(s))
  t.ok(s.bytes == nil and s[1] == nil)
  t.ok(not pcall(function() return #s end))
  for _, join in ipairs { function() return "a" .. s end, function() return s .. "a" end, function() return s .. s end } do
    local ok, err = pcall(join)
    t.ok(not ok)
    t.match(tostring(type(err) == "table" and err.message or err), "secret%.concat")
    t.ok(not tostring(err):find("hunter", 1, true))
  end
end)

t.test("equal_bytes_are_not_equal_secrets", function()
  t.ok(secret.new "a" ~= secret.new "a")
  local keyed = { [secret.new "a"] = 1 }
  t.ok(keyed[secret.new "a"] == nil)
end)

t.test("concat_joins_strings_and_secrets", function()
  t.ok(is_secret_of(secret.concat("a", secret.new "b\0", "", "c"), "ab\0c"))
  t.ok(is_secret_of(secret.concat(), ""))
  t.ok(is_secret_of(secret.new(secret.new "x"), "x"))
end)

t.test("a_closed_secret_is_gone_and_closing_again_is_harmless", function()
  local s = secret.new "hunter2"
  do
    local scoped <close> = s
    t.ok(scoped)
  end
  s:close()
  t.ok(secret.is(s))
  local ok, err = pcall(crypto.sha256, s)
  t.ok(not ok)
  t.match(tostring(type(err) == "table" and err.message or err), "secret is closed")
end)

t.test("only_bytes_become_secrets", function()
  for _, value in ipairs { 1, true, {}, print } do
    t.ok(not pcall(secret.new, value))
    t.ok(not secret.is(value))
  end
  t.ok(not pcall(secret.new))
end)
