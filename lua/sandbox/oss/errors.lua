-- SPDX-License-Identifier: Apache-2.0
-- Failures of the object store: code, HTTP status, EC and the service's own sentence.
local M = {}

-- code -> { status, ec, message }
local table_of = {
  AccessDenied = { 403, "0003-00000001", "You have no right to access this object." },
  BucketAlreadyExists = { 409, "0015-00000104",
    "The requested bucket name is not available. The bucket namespace is shared by all users of the system. "
    .. "Please select a different name and try again." },
  BucketNotEmpty = { 409, "0015-00000301", "The bucket has objects. Please delete them first." },
  EntityTooLarge = { 400, "0016-00000104", "Your proposed upload exceeds the maximum allowed object size." },
  EntityTooSmall = { 400, "0042-00000213", "Your proposed upload smaller than the minimum allowed object size." },
  FileAlreadyExists = { 409, "0026-00000002", "The object you specified already exists and can not be overwritten." },
  InternalError = { 500, "0001-00000001", "We encountered an internal error. Please try again." },
  InvalidAccessKeyId = { 403, "0002-00000902", "The OSS Access Key Id you provided does not exist in our records." },
  InvalidArgument = { 400, "0017-00000220", "Invalid Argument." },
  InvalidBucketName = { 400, "0015-00000001", "The specified bucket is not valid." },
  InvalidDigest = { 400, "0017-00000503", "The Content-MD5 you specified is not valid." },
  InvalidObjectName = { 400, "0016-00000201", "The specified object is not valid." },
  InvalidPart = { 400, "0042-00000211", "One or more of the specified parts could not be found or the specified entity tag might "
    .. "not have matched the part's entity tag." },
  InvalidPartOrder = { 400, "0042-00000209", "The list of parts was not in ascending order. Parts list must specified in order by "
    .. "part number." },
  InvalidPolicyDocument = { 400, "0016-00000901", "The policy is not valid." },
  InvalidRange = { 416, "0016-00000401", "The requested range cannot be satisfied" },
  MalformedXML = { 400, "0031-00000001", "The XML you provided was not well-formed or did not validate against our published schema." },
  InvalidTag = { 400, "0016-00000308", "The tag is not valid: a key has 1 to 128 bytes and stands once, a value has at most 256." },
  MetadataTooLarge = { 400, "0016-00000306", "Your metadata headers exceed the maximum allowed metadata size." },
  MethodNotAllowed = { 405, "0016-00000801", "The specified method is not allowed against this resource." },
  MissingArgument = { 400, "0016-00000502", "Missing Some Required Arguments." },
  MissingContentLength = { 411, "0016-00000503", "You must provide the Content-Length HTTP header." },
  NoSuchBucketPolicy = { 404, "0015-00000401", "The bucket policy does not exist." },
  NoSuchBucket = { 404, "0015-00000101", "The specified bucket does not exist." },
  NoSuchKey = { 404, "0026-00000001", "The specified key does not exist." },
  NoSuchUpload = { 404, "0042-00000002", "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
    .. "aborted or completed." },
  NotImplemented = { 501, "0016-00000901", "A header or query you provided implies functionality that is not implemented." },
  OperationNotSupported = { 400, "0016-00000702", "The operation is not supported for this resource" },
  PreconditionFailed = { 412, "0016-00000311", "At least one of the pre-conditions you specified did not hold." },
  RequestTimeTooSkewed = { 403, "0002-00000504", "The difference between the request time and the current time is too large." },
  RequestTimeout = { 400, "0016-00000504", "Your socket connection to the server was not read from or written to within the "
    .. "timeout period." },
  SecondLevelDomainForbidden = { 403, "0007-00000101", "Please use virtual hosted style to access." },
  SecurityTokenExpired = { 403, "0002-00000206", "The security token you provided has expired." },
  InvalidSecurityToken = { 403, "0002-00000207", "The security token you provided is invalid." },
  SignatureDoesNotMatch = { 403, "0002-00000040",
    "The request signature we calculated does not match the signature you provided. Check your key and signing method." },
  TooManyBuckets = { 400, "0015-00000002", "You have attempted to create more buckets than allowed." },
}

---A failure as the service words it; given fields win over the table's.
---@param code string
---@param over? {message?: string, ec?: string, status?: integer, extra?: table[]} `extra` are further XML elements { name, value }
function M.new(code, over)
  local row = table_of[code] or { 400, "0001-00000000", code }
  over = over or {}
  return { fail = true, code = code, status = over.status or row[1], ec = over.ec or row[2], message = over.message or row[3],
    extra = over.extra or {} }
end

function M.is(value)
  return type(value) == "table" and value.fail == true
end

---Raises a failure out of an operation; the dispatcher turns it into the answer.
function M.raise(code, over)
  error(M.new(code, over), 0)
end

return M
