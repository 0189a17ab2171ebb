-- SPDX-License-Identifier: Apache-2.0
-- The object store without its sockets: requests are tables, bodies go through real files.
local crypto = require "eirun.core.crypto"
local listing = require "sandbox.oss.listing"
local t = require "eirun.test"
local times = require "sandbox.times"
local xml = require "sandbox.oss.xml"

local box = require "lib_oss_service"

local host, with_service, code_of, put = box.host, box.with_service, box.code_of, box.put

t.test("a_put_answers_digests_and_can_be_read_back", with_service(function(s)
  local reply = put(s, "models/a.bin", "hello, eirun\n", { ["Content-MD5"] = "JtsiXNvkGyhRV9UdwmmLqA==", ["x-oss-meta-kind"] = "test" })
  t.eq(reply.status, 200)
  t.eq(reply.headers:get "ETag", '"26DB225CDBE41B285157D51DC2698BA8"')
  t.eq(reply.headers:get "x-oss-hash-crc64ecma", "1862815984470975891")
  t.match(reply.headers:get "x-oss-request-id", "^%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x%x$")
  local got = s.ask("GET", "/models/a.bin")
  t.eq(got.body, "hello, eirun\n")
  t.eq(got.headers:get "x-oss-meta-kind", "test")
  t.eq(got.headers:get "Content-MD5", "JtsiXNvkGyhRV9UdwmmLqA==")
  t.eq(s.ask("HEAD", "/models/a.bin").headers:get "Content-Length", "13")
end))

t.test("a_wrong_md5_stores_nothing", with_service(function(s)
  local reply = put(s, "a", "other", { ["Content-MD5"] = "JtsiXNvkGyhRV9UdwmmLqA==" })
  t.eq({ reply.status, code_of(reply) }, { 400, "InvalidDigest" })
  t.eq(s.ask("GET", "/a").status, 404)
end))

t.test("forbid_overwrite_keeps_the_first", with_service(function(s)
  put(s, "a", "one")
  local reply = put(s, "a", "two", { ["x-oss-forbid-overwrite"] = "true" })
  t.eq({ reply.status, code_of(reply) }, { 409, "FileAlreadyExists" })
  t.eq(s.ask("GET", "/a").body, "one")
end))

t.test("errors_name_bucket_key_and_request", with_service(function(s)
  local reply = s.ask("GET", "/nothing")
  t.eq({ reply.status, code_of(reply) }, { 404, "NoSuchKey" })
  local root = xml.parse(reply.body)
  t.eq(xml.text(root, "EC"), "0026-00000001")
  t.eq(xml.text(root, "RequestId"), reply.headers:get "x-oss-request-id")
  t.eq(xml.text(root, "HostId"), host)
  local head = s.ask("HEAD", "/nothing")
  t.eq({ head.status, head.body }, { 404, "" })
  t.eq(xml.text(xml.parse(crypto.unbase64(head.headers:get "x-oss-err")), "Code"), "NoSuchKey")
  t.eq(code_of(s.ask("GET", "/?list-type=2", { host = "no-such.oss-cn-hangzhou.aliyuncs.com" })), "NoSuchBucket")
end))

t.test("wrong_secret_unknown_key_and_nobody_are_refused", with_service(function(s)
  t.eq(code_of(s.ask("GET", "/?list-type=2", { secret = "wrong" })), "SignatureDoesNotMatch")
  t.eq(code_of(s.ask("GET", "/?list-type=2", { id = "LTAInobody" })), "InvalidAccessKeyId")
  t.eq(code_of(s.ask("GET", "/?list-type=2", { anonymous = true })), "AccessDenied")
end))

t.test("a_policy_decides_what_a_ram_user_may_do", with_service(function(s)
  local read_only = { Statement = { { Effect = "Allow", Action = { "oss:Get*", "oss:List*" },
    Resource = { "acs:oss:*:*:eirun-sandbox-models", "acs:oss:*:*:eirun-sandbox-models/*" } } } }
  s.ctx.credentials.add("LTAIreader", { secret = "s", policies = { read_only } })
  put(s, "a", "x")
  local as = { id = "LTAIreader", secret = "s" }
  t.eq(s.ask("GET", "/a", as).status, 200)
  t.eq(s.ask("GET", "/?list-type=2", as).status, 200)
  t.eq(code_of(s.ask("DELETE", "/a", as)), "AccessDenied")
end))

t.test("the_wrong_region_names_the_right_endpoint", with_service(function(s)
  local reply = s.ask("GET", "/a", { host = "eirun-sandbox-models.oss-cn-beijing.aliyuncs.com" })
  t.eq({ reply.status, code_of(reply) }, { 403, "AccessDenied" })
  t.eq(xml.text(xml.parse(reply.body), "Endpoint"), "oss-cn-hangzhou.aliyuncs.com")
end))

t.test("path_style_works_on_loopback_and_is_forbidden_in_public", with_service(function(s)
  put(s, "d/a", "x")
  t.eq(s.ask("GET", "/eirun-sandbox-models/d/a", { host = "127.0.0.1:4000", path_style = true }).body, "x")
  local reply = s.ask("GET", "/eirun-sandbox-models/d/a", { host = "oss-cn-hangzhou.aliyuncs.com", path_style = true })
  t.eq(code_of(reply), "SecondLevelDomainForbidden")
end))

t.test("a_bucket_said_twice_is_read_as_it_was_signed", with_service(function(s)
  put(s, "d/a", "x")
  t.eq(s.ask("GET", "/eirun-sandbox-models/d/a", { path_style = true }).body, "x")
end))

t.test("ranges_follow_this_stores_rules", with_service(function(s)
  put(s, "a", "0123456789")
  local function get(range, standard)
    local reply = s.ask("GET", "/a", { headers = { Range = range, ["x-oss-range-behavior"] = standard and "standard" or nil } })
    return { reply.status, reply.body, reply.headers:get "Content-Range" }
  end
  t.eq(get "bytes=2-4", { 206, "234", "bytes 2-4/10" })
  t.eq(get "bytes=7-", { 206, "789", "bytes 7-9/10" })
  t.eq(get "bytes=-3", { 206, "789", "bytes 7-9/10" })
  t.eq(get "bytes=4-20", { 200, "0123456789" })
  t.eq(get("bytes=4-20", true), { 206, "456789", "bytes 4-9/10" })
  t.eq(get "bytes=20-30", { 200, "0123456789" })
  t.eq(get("bytes=20-30", true)[1], 416)
  t.eq(get "bytes=x", { 200, "0123456789" })
end))

t.test("conditions_compare_etag_and_time", with_service(function(s)
  local etag = put(s, "a", "x").headers:get "ETag"
  local function get(headers) return s.ask("GET", "/a", { headers = headers }).status end
  t.eq(get { ["If-Match"] = etag }, 200)
  t.eq(get { ["If-Match"] = '"0000"' }, 412)
  t.eq(get { ["If-None-Match"] = etag }, 304)
  t.eq(get { ["If-Modified-Since"] = times.http(s.ctx.now() + 10) }, 304)
  t.eq(get { ["If-Modified-Since"] = "yesterday" }, 200)
  t.eq(get { ["If-Unmodified-Since"] = times.http(s.ctx.now() - 10) }, 412)
end))

local function names(reply, element, inner)
  local list = {}
  for i, node in ipairs(xml.children(xml.parse(reply.body), element)) do list[i] = xml.text(node, inner) end
  return list
end

t.test("a_listing_folds_pages_and_encodes", with_service(function(s)
  for _, key in ipairs { "a/1", "a/2", "b", "c/1", "c/sp%20ce", "d" } do put(s, key, "x") end
  local first = s.ask("GET", "/?list-type=2&delimiter=%2F&max-keys=2")
  t.eq(names(first, "CommonPrefixes", "Prefix"), { "a/" })
  t.eq(names(first, "Contents", "Key"), { "b" })
  local root = xml.parse(first.body)
  t.eq({ xml.text(root, "IsTruncated"), xml.text(root, "KeyCount") }, { "true", "2" })
  local token = xml.text(root, "NextContinuationToken"):gsub("[+/]", function(c) return ("%%%02X"):format(c:byte()) end)
  local second = s.ask("GET", "/?list-type=2&delimiter=%2F&max-keys=2&continuation-token=" .. token)
  t.eq(names(second, "CommonPrefixes", "Prefix"), { "c/" })
  t.eq(names(second, "Contents", "Key"), { "d" })
  t.eq(xml.text(xml.parse(second.body), "IsTruncated"), "false")
  t.eq(names(s.ask("GET", "/?list-type=2&prefix=c%2F&encoding-type=url"), "Contents", "Key"), { "c%2F1", "c%2Fsp%20ce" })
  t.eq(names(s.ask("GET", "/?list-type=2&start-after=b"), "Contents", "Key"), { "c/1", "c/sp ce", "d" })
  t.eq(names(s.ask("GET", "/?prefix=a%2F&marker=a%2F1"), "Contents", "Key"), { "a/2" })
  t.eq(code_of(s.ask("GET", "/?list-type=2&max-keys=1001")), "InvalidArgument")
end))

t.test("the_sample_token_of_the_service_decodes", function()
  local buckets = require "sandbox.oss.buckets"
  t.eq(buckets.untoken "CgJiYw--", "bc")
  t.eq(buckets.token "bc", "CgJiYw--")
  local long = ("x"):rep(300)
  t.eq(buckets.untoken(buckets.token(long)), long)
end)

t.test("a_page_never_repeats_or_loses_a_name", function()
  local keys = {}
  for i = 1, 200 do keys[i] = ("b/%s/%03d"):format(("pqr"):sub(i % 3 + 1, i % 3 + 1), i) end
  table.sort(keys)
  for max = 1, 7 do
    local seen, marker = {}, ""
    repeat
      local page = listing.page(keys, "b/", { prefix = "", delimiter = "", marker = marker, max = max })
      for _, item in ipairs(page.items) do seen[#seen + 1] = "b/" .. item.name end
      marker = page.last
    until not page.truncated
    t.eq(seen, keys)
  end
end)

t.test("deletes_are_forgiving_and_many_at_once", with_service(function(s)
  for _, key in ipairs { "a", "b%26c", "keep" } do put(s, key, "x") end
  t.eq(s.ask("DELETE", "/never").status, 204)
  local body = "<Delete><Quiet>false</Quiet><Object><Key>a</Key></Object><Object><Key>b&amp;c</Key></Object></Delete>"
  t.eq(code_of(s.ask("POST", "/?delete", { body = body })), "MissingArgument")
  local reply = s.ask("POST", "/?delete", { body = body, headers = { ["Content-MD5"] = crypto.base64(crypto.md5(body)) } })
  t.eq(names(reply, "Deleted", "Key"), { "a", "b&c" })
  t.eq(names(s.ask("GET", "/?list-type=2"), "Contents", "Key"), { "keep" })
end))

local function initiate(s, key)
  return xml.text(xml.parse(s.ask("POST", "/" .. key .. "?uploads").body), "UploadId")
end

local function complete_body(etags)
  local out = { "<CompleteMultipartUpload>" }
  for _, pair in ipairs(etags) do
    out[#out + 1] = ("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>"):format(pair[1], pair[2])
  end
  return table.concat(out) .. "</CompleteMultipartUpload>"
end

t.test("parts_make_the_recorded_etag_and_crc", with_service(function(s)
  local bytes = {}
  for i = 0, 102399 do bytes[i + 1] = string.char(i & 255) end
  local first = table.concat(bytes)
  local id = initiate(s, "big.bin")
  local function part(n, body) return s.ask("PUT", ("/big.bin?partNumber=%d&uploadId=%s"):format(n, id), { body = body }) end
  local one, two = part(1, first), part(2, "tail")
  t.eq(one.headers:get "x-oss-hash-crc64ecma", "7233985612489857427")
  t.eq(two.headers:get "ETag", '"7AEA2552DFE7EB84B9443B6FC9BA6E01"')
  local listed = s.ask("GET", "/big.bin?uploadId=" .. id)
  t.eq(names(listed, "Part", "HashCrc64ecma"), { "7233985612489857427", "1564134088860173973" })
  local done = s.ask("POST", "/big.bin?uploadId=" .. id,
    { body = complete_body { { 1, one.headers:get "ETag" }, { 2, two.headers:get "ETag" } } })
  t.eq(done.status, 200)
  t.eq(done.headers:get "x-oss-hash-crc64ecma", "15277960365120276102")
  t.eq(xml.text(xml.parse(done.body), "ETag"), '"D9B9E828001C3966BC8E4F1E3A2EDEC0-2"')
  local got = s.ask("GET", "/big.bin")
  t.ok(got.body == first .. "tail", "the bytes differ")
  t.eq(got.headers:get "x-oss-object-type", "Multipart")
  t.eq(got.headers:get "Content-MD5", nil)
  t.eq(code_of(s.ask("POST", "/big.bin?uploadId=" .. id, { body = complete_body { { 1, "x" } } })), "NoSuchUpload")
end))

t.test("complete_refuses_disorder_wrong_etags_and_small_parts", with_service(function(s)
  local id = initiate(s, "k")
  local etags = {}
  for n = 1, 2 do etags[n] = { n, s.ask("PUT", ("/k?partNumber=%d&uploadId=%s"):format(n, id), { body = "small" }).headers:get "ETag" } end
  local function complete(list) return code_of(s.ask("POST", "/k?uploadId=" .. id, { body = complete_body(list) })) end
  t.eq(complete { etags[2], etags[1] }, "InvalidPartOrder")
  t.eq(complete { { 1, '"00"' } }, "InvalidPart")
  t.eq(complete { { 9, etags[1][2] } }, "InvalidPart")
  t.eq(complete(etags), "EntityTooSmall")
  t.eq(code_of(s.ask("POST", "/k?uploadId=" .. id, { body = "<oops" })), "MalformedXML")
  t.eq(code_of(s.ask("PUT", "/k?partNumber=0&uploadId=" .. id, { body = "x" })), "InvalidArgument")
  t.eq(s.ask("DELETE", "/k?uploadId=" .. id).status, 204)
  t.eq(code_of(s.ask("GET", "/k?uploadId=" .. id)), "NoSuchUpload")
end))

t.test("complete_all_takes_every_part_and_uploads_are_listed_until_then", with_service(function(s)
  local id = initiate(s, "p/k")
  initiate(s, "q")
  s.ask("PUT", "/p/k?partNumber=7&uploadId=" .. id, { body = "seven" })
  t.eq(names(s.ask("GET", "/?uploads&prefix=p"), "Upload", "UploadId"), { id })
  t.eq(names(s.ask("GET", "/?uploads"), "Upload", "Key"), { "p/k", "q" })
  t.eq(names(s.ask("GET", "/?uploads&delimiter=%2F"), "CommonPrefixes", "Prefix"), { "p/" })
  t.eq(s.ask("POST", "/p/k?uploadId=" .. id, { body = "", headers = { ["x-oss-complete-all"] = "yes" } }).status, 200)
  t.eq(s.ask("GET", "/p/k").body, "seven")
end))

t.test("copies_share_bytes_and_survive_their_source", with_service(function(s)
  put(s, "a", "0123456789", { ["Content-Type"] = "text/plain" })
  local reply = s.ask("PUT", "/b", { headers = { ["x-oss-copy-source"] = "/eirun-sandbox-models/a" } })
  t.eq(reply.status, 200)
  s.ask("DELETE", "/a")
  local got = s.ask("GET", "/b")
  t.eq({ got.body, got.headers:get "Content-Type" }, { "0123456789", "text/plain" })
  local id = initiate(s, "c")
  local part = s.ask("PUT", "/c?partNumber=1&uploadId=" .. id,
    { headers = { ["x-oss-copy-source"] = "/eirun-sandbox-models/b", ["x-oss-copy-source-range"] = "bytes=2-4" } })
  t.eq(xml.text(xml.parse(part.body), "ETag"), '"' .. crypto.hex(crypto.md5 "234"):upper() .. '"')
end))

t.test("buckets_are_made_described_and_only_removed_when_empty", with_service(function(s)
  local other = { host = "other-bucket.oss-cn-hangzhou.aliyuncs.com" }
  t.eq(s.ask("PUT", "/", other).status, 200)
  t.eq(code_of(s.ask("PUT", "/", other)), "BucketAlreadyExists")
  t.eq(xml.parse(s.ask("GET", "/?location", other).body).text, "oss-cn-hangzhou")
  local bucket = xml.children(xml.parse(s.ask("GET", "/?bucketInfo", other).body), "Bucket")[1]
  t.eq(xml.text(bucket, "IntranetEndpoint"), "oss-cn-hangzhou-internal.aliyuncs.com")
  local all = xml.children(xml.parse(s.ask("GET", "/", { host = "oss-cn-hangzhou.aliyuncs.com", bucket = false }).body), "Buckets")[1]
  t.eq(#xml.children(all, "Bucket"), 2)
  s.ask("PUT", "/k", { host = other.host, body = "x" })
  t.eq(code_of(s.ask("DELETE", "/", other)), "BucketNotEmpty")
  s.ask("DELETE", "/k", other)
  t.eq(s.ask("DELETE", "/", other).status, 204)
  t.eq(code_of(s.ask("PUT", "/", { host = "ab.oss-cn-hangzhou.aliyuncs.com" })), "InvalidBucketName")
end))

t.test("bad_names_and_cut_bodies_store_nothing", with_service(function(s)
  t.eq(code_of(s.ask("PUT", "/%2Fabs", { body = "x" })), "InvalidObjectName")
  t.eq(code_of(s.ask("PUT", "/" .. ("k"):rep(1024), { body = "x" })), "InvalidObjectName")
  t.eq(s.ask("PUT", "/" .. ("k"):rep(1023), { body = "x" }).status, 200)
  t.eq(code_of(s.ask("PUT", "/cut", { body = "x", cut = true })), "RequestTimeout")
  t.eq(s.ask("GET", "/cut").status, 404)
  t.eq(code_of(s.ask("PUT", "/a?append&position=0", { body = "x" })), "NotImplemented")
end))

t.test("tags_are_kept_with_the_object", with_service(function(s)
  put(s, "a", "x", { ["x-oss-tagging"] = "owner=eirun&k=v%20w" })
  t.eq(s.ask("HEAD", "/a").headers:get "x-oss-tagging-count", "2")
  local set = xml.children(xml.parse(s.ask("GET", "/a?tagging").body), "TagSet")[1]
  t.eq(xml.text(xml.children(set, "Tag")[2], "Value"), "v w")
  t.eq(s.ask("DELETE", "/a?tagging").status, 204)
end))

t.test("faults_come_in_the_services_words", with_service(function(s)
  put(s, "a", "x")
  t.ok(s.ctx.faults:add { kind = "throttle", service = "OSS", action = "GetObject" })
  local reply = s.ask("GET", "/a")
  t.eq({ reply.status, code_of(reply) }, { 503, "DownloadTrafficRateLimitExceeded" })
  t.eq(s.ask("GET", "/a").status, 200)
end))
