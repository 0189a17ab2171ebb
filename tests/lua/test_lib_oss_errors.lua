-- SPDX-License-Identifier: Apache-2.0
-- What OSS refuses with, as the reference lists it: code, status, EC, and the kind and advice that a user gets.
local t = require "eirun.test"
local fake = require "lib_fake"
local judge = require("eirun.oss.errors").judge
local oss = require "eirun.oss"

local rows = {
  { "NoSuchKey", 404, "0026-00000001", "not_found" }, { "NoSuchBucket", 404, "0015-00000101", "not_found", "eirun oss mb" },
  { "BucketAlreadyExists", 409, "0015-00000104", "conflict", "choose another" },
  { "BucketNotEmpty", 409, "0015-00000301", "conflict", "delete its objects" },
  { "SignatureDoesNotMatch", 403, "0002-00000040", "denied", "secret is wrong" },
  { "InvalidAccessKeyId", 403, "0002-00000902", "denied", "does not exist" },
  { "InvalidArgument", 400, "0002-00000226", "invalid", "--region" }, { "InvalidArgument", 400, "0002-00000002", "invalid", "signature" },
  { "InvalidArgument", 400, "0002-00000215", "invalid", "expiry" }, { "InvalidArgument", 400, "0002-00000070", "invalid", "expiry" },
  { "InvalidArgument", 400, "0002-00000232", "invalid", "7 days" }, { "AccessDenied", 403, "0003-00000001", "denied", "oss:PutObject" },
  { "AccessDenied", 403, "0003-00000703", "denied", "readers pay" }, { "UserDisable", 403, "0003-00000801", "denied", "arrears" },
  { "SecondLevelDomainForbidden", 403, nil, "invalid", "host name" },
  { "FileAlreadyExists", 409, "0026-00000002", "conflict", "new version" },
  { "FileAlreadyExists", 409, "0026-00000201", "conflict", "new version" },
  { "PositionNotEqualToLength", 409, "0026-00000016", "conflict", "appended" }, { "InvalidPartOrder", 400, "0042-00000209", "internal" },
  { "EntityTooSmall", 400, "0042-00000213", "invalid", "--part-size" }, { "InvalidArgument", 400, "0042-00000216", "invalid", "exclude" },
  { "MalformedXML", 400, "0031-00000001", "invalid" }, { "MissingArgument", 400, "0016-00000502", "invalid" },
  { "OperationNotSupported", 400, "0016-00000702", "invalid", "kind of bucket" },
  { "InvalidObjectState", 403, "0016-00000719", "conflict", "restore it" }, { "RequestTimeTooSkewed", 403, nil, "denied", "clock" },
  { "CallbackFailed", 203, "0007-00000203", "conflict", "stored" }, { "DownloadTrafficRateLimitExceeded", 503, nil, "throttled", "busy" },
  { "UploadTrafficRateLimitExceeded", 503, nil, "throttled", "busy" }, { "MetaOperationQpsLimitExceeded", 503, nil, "throttled", "busy" },
  { "TotalQpsLimitExceeded", 503, nil, "throttled", "busy" }, { "ActiveRequestLimitExceeded", 503, nil, "throttled", "busy" },
  { "CpuLimitExceeded", 503, nil, "throttled", "busy" }, { "ServiceUnavailable", 503, nil, "throttled", "busy" },
  { "QpsLimitExceeded", 429, nil, "throttled", "busy" }, { "SomethingNew", 503, nil, "throttled", "busy" },
  { "SomethingNew", 404, nil, "not_found" }, { "SomethingNew", 500, nil, "internal" }, { "SomethingNew", 412, nil, "conflict" },
}

t.test("each_refusal_of_the_service_has_its_kind_and_advice", function()
  for _, row in ipairs(rows) do
    local kind, hint = judge(row[1], { status = row[2], ec = row[3] })
    t.eq({ row[1], row[3], kind }, { row[1], row[3], row[4] })
    if row[5] then t.match(hint or "no hint", row[5]:gsub("%-", "%%-")) end
  end
end)

t.test("a_bucket_of_another_region_names_it", function()
  local function answer()
    return 403, "<Error><Code>AccessDenied</Code><Message>must be addressed using the specified endpoint</Message>"
      .. "<RequestId>R1</RequestId><Endpoint>oss-cn-beijing.aliyuncs.com</Endpoint><EC>0003-00001403</EC></Error>"
  end
  fake.with(answer, function()
    local err = t.err("invalid", function() oss.bucket "models":list() end)
    t.match(err.hint, "in region cn%-beijing: give %-%-region cn%-beijing")
    t.match(tostring(err), "AccessDenied, EC 0003%-00001403, request id R1")
  end)
end)
