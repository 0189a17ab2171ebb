-- SPDX-License-Identifier: Apache-2.0
-- What the sandbox's OSS refuses, and what it does wrong on demand.
local t = require "eirun.test"
local box = require "lib_oss_service"
local crypto = require "eirun.core.crypto"
local times = require "sandbox.times"

local with_service, code_of, put = box.with_service, box.code_of, box.put

local function policy(s, ...)
  local text = require("eirun.core.json").encode { Version = "1", Statement = { ... } }
  return s.ask("PUT", "/?policy", { body = text })
end

t.test("a_bucket_policy_denies_whom_everything_else_lets_in", with_service(function(s)
  put(s, "secret/a", "x")
  put(s, "open/b", "y")
  t.eq(policy(s, { Effect = "Deny", Action = { "oss:GetObject" }, Principal = { "*" },
    Resource = { "acs:oss:*:*:eirun-sandbox-models/secret/*" } }).status, 200)
  local denied = s.ask("GET", "/secret/a")
  t.eq({ denied.status, code_of(denied) }, { 403, "AccessDenied" })
  t.match(denied.body, "bucket policy")
  t.eq(s.ask("HEAD", "/secret/a").status, 403)
  t.eq({ s.ask("GET", "/open/b").body, put(s, "secret/c", "z").status }, { "y", 200 })
  t.match(s.ask("GET", "/?policy").body, '"Effect":"Deny"')
  t.eq(s.ask("DELETE", "/?policy").status, 204)
  t.eq({ s.ask("GET", "/secret/a").body, code_of(s.ask("GET", "/?policy")) }, { "x", "NoSuchBucketPolicy" })
end))

t.test("a_bucket_policy_lets_in_who_is_not_signed_and_no_further", with_service(function(s)
  put(s, "open/b", "y")
  t.eq(s.ask("GET", "/open/b", { anonymous = true }).status, 403)
  policy(s, { Effect = "Allow", Action = "oss:GetObject", Principal = "*", Resource = "acs:oss:*:*:eirun-sandbox-models/open/*" })
  t.eq(s.ask("GET", "/open/b", { anonymous = true }).body, "y")
  t.eq(s.ask("PUT", "/open/c", { anonymous = true, body = "x" }).status, 403)
end))

t.test("a_policy_that_is_none_is_refused", with_service(function(s)
  for _, text in ipairs { "hello", "{}", '{"Statement":[{"Effect":"Maybe"}]}', '{"Statement":[{"Effect":"Deny","Action":"oss:*"}]}' } do
    t.eq({ text, code_of(s.ask("PUT", "/?policy", { body = text })) }, { text, "InvalidPolicyDocument" })
  end
end))

t.test("what_is_not_played_is_refused_and_not_taken_for_something_else", with_service(function(s)
  for _, target in ipairs { "/?versioning", "/?cors", "/?lifecycle", "/?website", "/?logging", "/?encryption", "/?tagging" } do
    local reply = s.ask("PUT", target, { body = "<X></X>" })
    t.eq({ target, reply.status, code_of(reply) }, { target, 501, "NotImplemented" })
  end
  t.eq(s.ask("GET", "/?versioning").status, 200)
  put(s, "a", "x")
  t.eq(code_of(s.ask("GET", "/a?versionId=1")), "NotImplemented")
  t.eq(code_of(s.ask("GET", "/a?x-oss-process=image%2Fresize")), "NotImplemented")
end))

t.test("callbacks_are_refused_and_nothing_is_stored", with_service(function(s)
  t.eq(code_of(put(s, "a", "x", { ["x-oss-callback"] = "e30=" })), "NotImplemented")
  t.eq(s.ask("GET", "/a").status, 404)
end))

t.test("tags_and_metadata_have_their_limits", with_service(function(s)
  t.eq(code_of(put(s, "a", "x", { ["x-oss-tagging"] = ("k"):rep(129) .. "=v" })), "InvalidTag")
  t.eq(code_of(put(s, "a", "x", { ["x-oss-tagging"] = "k=" .. ("v"):rep(257) })), "InvalidTag")
  t.eq(code_of(put(s, "a", "x", { ["x-oss-tagging"] = "k=1&k=2" })), "InvalidTag")
  t.eq(put(s, "a", "x", { ["x-oss-tagging"] = ("k"):rep(128) .. "=" .. ("v"):rep(256) }).status, 200)
  t.eq(code_of(put(s, "b", "x", { ["x-oss-meta-big"] = ("m"):rep(8200) })), "MetadataTooLarge")
  t.eq(put(s, "b", "x", { ["x-oss-meta-big"] = ("m"):rep(8100) }).status, 200)
  t.eq(code_of(put(s, "c", "x", { ["x-oss-tagging"] = "a&b&c&d&e&f&g&h&i&j&k" })), "InvalidArgument")
  t.eq(code_of(s.ask("PUT", "/d", { body = "x", headers = { ["Content-Length"] = tostring((5 << 30) + 1) } })), "EntityTooLarge")
end))

t.test("lists_encode_what_xml_cannot_carry", with_service(function(s)
  for _, key in ipairs { "a%0Ab", "a%09b", "%F0%9F%9A%80", "x%26%3C%3E%22" } do t.eq(put(s, key, "x").status, 200) end
  local body = s.ask("GET", "/?list-type=2&encoding-type=url").body
  for _, key in ipairs { "a%%0Ab", "a%%09b", "%%F0%%9F%%9A%%80", "x%%26%%3C%%3E%%22" } do t.match(body, "<Key>" .. key .. "</Key>") end
end))

-- Faults --------------------------------------------------------------------------------------------------------------

local function fault(s, given)
  given.service = given.service or "OSS"
  t.ok(s.ctx.faults:add(given))
end

t.test("a_wrong_crc_and_a_wrong_etag_lie_in_the_answer_alone", with_service(function(s)
  fault(s, { kind = "wrong_crc", action = "PutObject" })
  local lie = put(s, "a", "hello, eirun\n")
  t.eq({ lie.status, lie.headers:get "x-oss-hash-crc64ecma" }, { 200, "1" })
  t.eq(s.ask("HEAD", "/a").headers:get "x-oss-hash-crc64ecma", "1862815984470975891")
  fault(s, { kind = "wrong_etag", action = "PutObject" })
  t.ok(put(s, "a", "hello, eirun\n").headers:get "ETag" ~= '"26DB225CDBE41B285157D51DC2698BA8"')
  t.eq(s.ask("HEAD", "/a").headers:get "ETag", '"26DB225CDBE41B285157D51DC2698BA8"')
end))

t.test("a_body_is_cut_in_its_middle_and_nothing_is_stored", with_service(function(s)
  fault(s, { kind = "cut_body", bytes = 5, action = "PutObject" })
  t.eq({ put(s, "a", "hello, eirun\n") }, {})
  t.eq(s.ask("GET", "/a").status, 404)
  t.eq(put(s, "a", "hello, eirun\n").status, 200)
end))

t.test("one_bit_rots_on_its_way_to_the_reader", with_service(function(s)
  put(s, "a", "hello, eirun\n")
  fault(s, { kind = "bit_rot", action = "GetObject" })
  local got = s.ask("GET", "/a")
  t.eq({ #got.body, got.body == "hello, eirun\n", got.headers:get "x-oss-hash-crc64ecma" }, { 13, false, "1862815984470975891" })
  t.eq(s.ask("GET", "/a").body, "hello, eirun\n")
end))

t.test("shaping_and_lateness_take_their_time_and_say_so", with_service(function(s)
  local clock = require "eirun.core.clock"
  fault(s, { kind = "qos_delay", milliseconds = 60, action = "PutObject" })
  local from = clock.monotonic()
  t.eq(put(s, "a", "x").headers:get "x-oss-qos-delay-time", "60")
  t.ok(clock.monotonic() - from >= 0.05)
  fault(s, { kind = "late", seconds = 0.06, action = "GetObject" })
  from = clock.monotonic()
  t.eq(s.ask("GET", "/a").body, "x")
  t.ok(clock.monotonic() - from >= 0.05)
end))

t.test("a_clock_that_is_off_refuses_and_tells_both_times", with_service(function(s)
  s.ctx.store:put("meta", "clock_skew", 16 * 60)
  local reply = s.ask("GET", "/")
  t.eq({ reply.status, code_of(reply) }, { 403, "RequestTimeTooSkewed" })
  t.match(reply.body, "<MaxAllowedSkewMilliseconds>900000<")
  t.eq(times.parse(reply.headers:get "Date") - times.parse(times.http(s.ctx.now())), 960)
  s.ctx.store:put("meta", "clock_skew", 14 * 60)
  t.eq(s.ask("GET", "/").status, 200)
end))

t.test("each_throttling_code_can_be_had", with_service(function(s)
  for _, code in ipairs { "DownloadTrafficRateLimitExceeded", "UploadTrafficRateLimitExceeded", "MetaOperationQpsLimitExceeded",
    "TotalQpsLimitExceeded", "ActiveRequestLimitExceeded", "CpuLimitExceeded", "ServiceUnavailable" } do
    fault(s, { kind = "error", status = 503, code = code })
    local reply = s.ask("GET", "/")
    t.eq({ reply.status, code_of(reply) }, { 503, code })
  end
end))

t.test("crcs_of_all_kinds_of_objects_agree", with_service(function(s)
  local first, text = ("\0\1\2\3"):rep(25600), "tail"
  local id = s.ask("POST", "/m?uploads", { body = "" }).body:match "<UploadId>(.-)<"
  s.ask("PUT", "/m?partNumber=1&uploadId=" .. id, { body = first })
  s.ask("PUT", "/m?partNumber=2&uploadId=" .. id, { body = text })
  s.ask("POST", "/m?uploadId=" .. id, { body = "", headers = { ["x-oss-complete-all"] = "yes" } })
  put(s, "n", first .. text)
  s.ask("PUT", "/c", { headers = { ["x-oss-copy-source"] = "/eirun-sandbox-models/m" } })
  local crc = crypto.crc64_text(crypto.crc64(first .. text))
  for _, key in ipairs { "m", "n", "c" } do t.eq({ key, s.ask("HEAD", "/" .. key).headers:get "x-oss-hash-crc64ecma" }, { key, crc }) end
end))
