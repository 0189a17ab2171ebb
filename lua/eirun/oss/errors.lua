-- SPDX-License-Identifier: Apache-2.0
-- What OSS says when it refuses, as kinds of error and as advice. Codes are the contract; the EC refines some of them.
local M = {}

-- code -> kind, hint
local codes = {
  NoSuchKey = { "not_found", "list what is there: eirun oss ls" },
  NoSuchBucket = { "not_found", "make the bucket (eirun oss mb), or check its name and region" },
  NoSuchUpload = { "not_found", "the upload was completed or aborted meanwhile: run it again" },
  BucketAlreadyExists = { "conflict", "bucket names are global: choose another one" },
  BucketNotEmpty = { "conflict", "delete its objects and end its open uploads first" },
  TooManyBuckets = { "quota", "100 buckets an account and region: delete one, or ask for more" },
  FileAlreadyExists = { "conflict", "a published object is not overwritten: choose a new version" },
  FileImmutable = { "conflict", "the bucket's retention policy keeps this object: wait, or write another key" },
  ObjectNotAppendable = { "conflict", "the object was not made by appending: write it whole" },
  PositionNotEqualToLength = { "conflict", "somebody else appended meanwhile: read its length again" },
  PreconditionFailed = { "conflict", "the object changed meanwhile: look at it again" },
  AccessDenied = { "denied", "grant the key oss:PutObject, oss:GetObject and oss:ListObjects on the bucket, and check its region" },
  InvalidAccessKeyId = { "denied", "the access key does not exist; check ALIBABA_CLOUD_ACCESS_KEY_ID" },
  SignatureDoesNotMatch = { "denied", "the access key's secret is wrong, or a proxy changed the request" },
  SecurityTokenExpired = { "denied", "the temporary keys have expired; get new ones" },
  InvalidSecurityToken = { "denied", "the token does not belong to this key; check ALIBABA_CLOUD_SECURITY_TOKEN" },
  RequestTimeTooSkewed = { "denied", "set this machine's clock: more than 15 minutes off" },
  SecondLevelDomainForbidden = { "invalid", "this endpoint wants the bucket in the host name" },
  UserDisable = { "denied", "the account is in arrears" },
  InvalidBucketName = { "invalid", "3 to 63 of a-z, 0-9 and '-', a letter or digit at both ends" },
  InvalidObjectName = { "invalid", "1 to 1023 bytes of UTF-8 that do not begin with '/' or '\\'" },
  InvalidObjectState = { "conflict", "the object is archived: restore it before it is read" },
  InvalidDigest = { "network", "the body arrived changed: send it again" },
  InvalidPart = { "conflict", "a part is missing or was replaced: run the upload again, what is there is kept" },
  InvalidPartOrder = { "internal", "the parts were not listed in order" },
  InvalidRange = { "invalid", "the object is shorter than the range asked for" },
  EntityTooSmall = { "invalid", "all parts but the last have at least 100 KiB: give a larger --part-size" },
  EntityTooLarge = { "invalid", "5 GB in one request, 1 GB in one copy: larger ones go in parts" },
  MissingContentLength = { "invalid", "a proxy dropped Content-Length: reach OSS without it" },
  RequestTimeout = { "network", "the body came too slowly: fewer --jobs and --parallel, or a --bandwidth-limit" },
  MalformedXML = { "invalid" },
  MissingArgument = { "invalid" },
  InvalidArgument = { "invalid" },
  OperationNotSupported = { "invalid", "this kind of bucket does not do that" },
  NotImplemented = { "invalid" },
  CallbackFailed = { "conflict", "the object is stored, but the callback's server did not answer 200" },
  DownloadTrafficRateLimitExceeded = { "throttled" },
  UploadTrafficRateLimitExceeded = { "throttled" },
  MetaOperationQpsLimitExceeded = { "throttled" },
  TotalQpsLimitExceeded = { "throttled" },
  ActiveRequestLimitExceeded = { "throttled" },
  CpuLimitExceeded = { "throttled" },
  QpsLimitExceeded = { "throttled" },
  ServiceUnavailable = { "throttled" },
}

local slower = "the service is busy: fewer --jobs and --parallel, or another time"

-- What an EC tells beyond its code.
local refinements = {
  ["0002-00000226"] = { "invalid", "the signature names another region than the endpoint's: give --region of the bucket" },
  ["0002-00000227"] = { "denied", "set this machine's clock: the signature's day is not today's" },
  ["0002-00000002"] = { "invalid", "the endpoint does not know this kind of signature" },
  ["0002-00000215"] = { "invalid", "a signed URL needs its expiry: make a new one with eirun oss sign" },
  ["0002-00000070"] = { "invalid", "the expiry of the signed URL is no number" },
  ["0002-00000232"] = { "invalid", "a signed URL lives 1 second to 7 days" },
  ["0002-00000069"] = { "denied", "the signed URL has expired: make a new one with eirun oss sign" },
  ["0002-00000903"] = { "denied", "the access key is disabled: enable it, or use another one" },
  ["0003-00000703"] = { "denied", "the bucket's readers pay: ask its owner, or read it with an account that pays" },
  ["0003-00000801"] = { "denied", "the account is in arrears" },
  ["0016-00000719"] = { "conflict", "the object is archived: restore it before it is read" },
  ["0042-00000216"] = { "invalid", "a list of parts and x-oss-complete-all exclude each other" },
}

-- "The bucket you are attempting to access must be addressed using the specified endpoint" names the right one.
local function elsewhere(endpoint)
  local region = endpoint:match("oss%-([%w-]+)%.aliyuncs%.com$")
  region = region and region:gsub("%-internal$", "")
  return region and ("the bucket is in region %s: give --region %s"):format(region, region)
    or ("the bucket wants the endpoint %s: set EIRUN_ENDPOINT_OSS to it"):format(endpoint)
end

local function by_status(status)
  if status == 503 or status == 429 then return "throttled", slower end
  if status == 404 then return "not_found" end
  if status == 403 then return "denied" end
  if status == 412 or status == 409 then return "conflict" end
  return status >= 500 and "internal" or "invalid"
end

---The kind of a refusal and what to do about it.
---@param code string the server's code
---@param facts {status: integer, ec?: string, endpoint?: string} `endpoint`: the one that the server named as the right one
---@return eirun.ErrorKind kind
---@return string|nil hint
---Example: `errors.judge("NoSuchKey", { status = 404 })` is `"not_found"` and a hint. Raises nothing.
function M.judge(code, facts)
  local row = refinements[facts.ec] or codes[code]
  if facts.endpoint and (code == "AccessDenied" or facts.status < 400) then return "invalid", elsewhere(facts.endpoint) end
  if not row then return by_status(facts.status) end
  return row[1], row[2] or (row[1] == "throttled" and slower or nil)
end

return M
