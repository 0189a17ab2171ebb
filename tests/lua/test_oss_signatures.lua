-- SPDX-License-Identifier: Apache-2.0
-- Requests that ali-oss 6.23.0 signed with a frozen clock, and those of the Go SDK's unit tests: the emulator must accept each.
local crypto = require "eirun.core.crypto"
local errors = require "sandbox.oss.errors"
local sign = require "sandbox.oss.sign"
local t = require "eirun.test"

local now = 1741064767 -- 2025-03-04T05:06:07Z
local stamp, date = "20250304T050607Z", "Tue, 04 Mar 2025 05:06:07 GMT"
local scope = "20250304/cn-hangzhou/oss/aliyun_v4_request"

local vectors = {
  { id = "put", method = "PUT",
    wire = "/models/resnet50/1/saved%20model%2Bv1.pb",
    signed = {
      { "content-md5", "JtsiXNvkGyhRV9UdwmmLqA==" },
      { "content-type", "application/octet-stream" },
      { "x-oss-forbid-overwrite", "true" },
      { "x-oss-meta-crc", "abc" },
      { "x-oss-storage-class", "Standard" },
    },
    v1 = "67mRTnZ7egicdjQQhQU0m1cBwxc=",
    hash = "919cbf5078bccea07a822d451567be653a0c1522f141f61bf24716141577ad40",
    v4 = "775bbba1b55067e72b0ea66e027c5d92ecaa626331bd2f492d0912fc11e9fa30" },
  { id = "put-utf8", method = "PUT",
    wire = "/%E6%A8%A1%E5%9E%8B/%C3%A9.bin",
    signed = {
      { "content-md5", "ndTkYSaMgDT1yFZOFVxnpg==" },
      { "content-type", "application/octet-stream" },
    },
    v1 = "KwvI2ZlgD+cdMko7HIXXx9l/HSY=",
    hash = "580458e72d0cbb8198ee65183dcffd14bc32b35c8c48a810dc12ba02ddb3d2fd",
    v4 = "90020deecf006f348c04c5ff43c40142c25e5933ebeb28905b0bd0be404eb3e1" },
  { id = "head", method = "HEAD",
    wire = "/models/resnet50/1/saved%20model%2Bv1.pb",
    signed = {}, v1 = "LPGg5fLWa04pnKXNUK06zKJDpSA=",
    hash = "3bed7bf7db9b62b0a630f283b0f44471e67a647f4ab38b79d698e2e83849d917",
    v4 = "6d60f8342f33c8e73ffe5aa8f1e6c7013917244e5cc39090329c4e1186cf2dd1" },
  { id = "get-range", method = "GET",
    wire = "/a/b.txt",
    signed = {
      { "content-type", "text/plain" },
    },
    v1 = "RymkuE/1mqh+P/qcfMqaPJ5GhlY=",
    hash = "71efc877e8f3567433241d2063ab40793d2a5479c54436b12be11ca6c00ca5a2",
    v4 = "2998a4d1973b39da9a90e5ba4a7de9f6f59340dea09ce119a3017f5a4fabd177" },
  { id = "listV2", method = "GET",
    wire = "/?list-type=2&prefix=models%2F&delimiter=%2F&max-keys=100&encoding-type=url&start-after=models%2Fa%20b",
    signed = {}, v1 = "eXwKFNlGB2xflkHftXiy1BVUfew=",
    hash = "1b82d84498593b2eae3f794086881cfe9c225198b7526f12ff5ea23e3518c660",
    v4 = "48802bfc0ce92e6075fa0b11d1d27327c7d9dd91276e1c3a5ab4e08455495d23" },
  { id = "listV2-token", method = "GET",
    wire = "/?list-type=2&prefix=models%2F&max-keys=100&continuation-token=CgJiYw--",
    signed = {}, v1 = "00+ly5XLPq/co1KcCY2xQZ6DZLo=",
    hash = "04357f0c51dce42911547f674e732ffce860510840ad787efcc4ff19eb9af00e",
    v4 = "90c889d1449c0ceb092fd2ccf41f8b37adbb21bb495469f50ffe17200cd4160d" },
  { id = "listV2-emptyprefix", method = "GET",
    wire = "/?list-type=2&prefix=",
    signed = {}, v1 = "eXwKFNlGB2xflkHftXiy1BVUfew=",
    hash = "2eb856d2a1b539439abd5c0bef08c5cc18500cfc199572e000e45ab4e85161bc",
    v4 = "c68b09b7e9cf20294255e6abd3dba779d3cae4f81a5036928cf69e053b6f87a7" },
  { id = "initMulti", method = "POST",
    wire = "/big.bin?uploads=",
    signed = {
      { "content-type", "application/octet-stream" },
      { "x-oss-storage-class", "IA" },
    },
    v1 = "86nAEdFsYC9sS7YWUButgX8YMeo=",
    hash = "fa2f0cee4dc745d7ae0bf0042a6e8702b9d7b446cc1b8bcc02f98660e4ebea2d",
    v4 = "d0ed03d01aa25ecd3fa048e6289161c5f69fcfad7cf9c8673119109097bf255d" },
  { id = "uploadPart", method = "PUT",
    wire = "/big.bin?partNumber=1&uploadId=0004B9894A22E5B1888A1E29F8236E2D",
    signed = {
      { "content-type", "application/octet-stream" },
    },
    v1 = "VAsPhgSTEeDCFQ/mJpENLbGSGU0=",
    hash = "670e8c95656d48a3d3109eff686b6de5d97176e94e89f6bf3bc3e12f0f48214d",
    v4 = "065ce3e8498586b580a955dafdd5ea4df18d078fc8aae5a1e3a3d1e44e5cc9f4" },
  { id = "uploadPartCopy", method = "PUT",
    wire = "/big.bin?partNumber=2&uploadId=0004B9894A22E5B1888A1E29F8236E2D",
    signed = {
      { "content-type", "application/octet-stream" },
      { "x-oss-copy-source", "/src-bucket/src%2Fa%20b.bin" },
      { "x-oss-copy-source-range", "bytes=0-102399" },
    },
    v1 = "6yWOXY1qg7240aq8TtklPfqLCSU=",
    hash = "7426dd485b462c04f1249f825bb6126f3dc0e3f65e158312b3cce5bd6bb5f7ee",
    v4 = "beafefced8f2c8c36ab4cba69ba42694feee4246d98c07fd56f7c7c85259d740" },
  { id = "listParts", method = "GET",
    wire = "/big.bin?max-parts=1000&part-number-marker=5&encoding-type=url&uploadId=0004B9894A22E5B1888A1E29F8236E2D",
    signed = {
      { "content-type", "application/octet-stream" },
    },
    v1 = "TmjnwaJLbprc+lnj8giau18FzzM=",
    hash = "31c4eb753b424b41d64e8e28f95de727c66df157a2d6f959734932acdc8dcf62",
    v4 = "33f801b9b87ee88b2ccec4a9d2ea8555e8b1b4292903cf725cda12e812e5037c" },
  { id = "listUploads", method = "GET",
    wire = "/?max-uploads=1000&prefix=big&key-marker=a&upload-id-marker=b&uploads=",
    signed = {}, v1 = "dt+nz7t+O0YVVdvDqwnWpo+LDsM=",
    hash = "950c97fe8db25c0009f297f244db950215db22e9e3ec4ca55ce258a622b50e08",
    v4 = "eac4e501ece6476326edf9b72f9998a10d2bf12b8deacc91377f8f30a797704b" },
  { id = "complete", method = "POST",
    wire = "/big.bin?uploadId=0004B9894A22E5B1888A1E29F8236E2D",
    signed = {
      { "content-md5", "YlEDklx9XIaAo5QU5mYKyQ==" },
      { "content-type", "application/xml" },
    },
    v1 = "h524m8QhvBlMjo1A1UEvAFX53FA=",
    hash = "82df11bb233d3bcda53e29f019999a95e4f0d13e12586ae9b4e8c6745db5bd56",
    v4 = "784c7cfdde32db313b00d91afe08cfce3b2650d71971f4488f68b4300dc7cda6" },
  { id = "abort", method = "DELETE",
    wire = "/big.bin?uploadId=0004B9894A22E5B1888A1E29F8236E2D",
    signed = {
      { "content-type", "application/octet-stream" },
    },
    v1 = "SiNHTpgMMITG5NmRnSvgOFvV5e8=",
    hash = "6cae08535c621a6b821d8b8bd875ceb7a55580b85b448f2fbd543eee8e4462a0",
    v4 = "44c6839747179d0fee2d9e905a81dbdc083fa3f1982d8ec31badf8f10b5b7b0b" },
  { id = "deleteMulti", method = "POST",
    wire = "/?delete=",
    signed = {
      { "content-md5", "AJEZxCffnY0nqypdaQURAg==" },
      { "content-type", "application/xml" },
    },
    v1 = "1JY0EFrLpjSvpwIrbVVhkWhTOwg=",
    hash = "7436061116bd75db01442cbf10a4d58f82c2a0162f6ebada026a19ff11e4e054",
    v4 = "256b97618fdbfe8beb56001d1b3c22e47658be4e412b51d0bec4e04793fb87b5" },
  { id = "delete", method = "DELETE",
    wire = "/a.txt",
    signed = {
      { "content-type", "text/plain" },
    },
    v1 = "tpQQf+espGsFaRNrs5lQ2Su3WOE=",
    hash = "8fb3f325c115a262e29b3fe133b44b50fd534c19a717456e19edabd7cb2b6832",
    v4 = "092fa2403493b3c8b23f47bffc853fab6b74edd0a267022b00066e8e38c9289d" },
  { id = "putTag", method = "PUT",
    wire = "/a.txt?tagging=",
    signed = {
      { "content-md5", "iEZBSuPCkbQ3IxDQnsyCFQ==" },
      { "content-type", "application/xml" },
    },
    v1 = "zREgOrtfBMxP3EmHhOALMVEINSc=",
    hash = "a6c161bd332f86596e23204bf1baad6d32226531c1d53082bd2ceb08b72e577f",
    v4 = "03b24949f24ed2f36c9e65abc3ec1adf344ee6781fef68931191fa47f26b0ed3" },
  { id = "getTag", method = "GET",
    wire = "/a.txt?tagging=",
    signed = {
      { "content-type", "text/plain" },
    },
    v1 = "1n16BfkJU7QDpaP3im5E155GDAg=",
    hash = "1883e145d54e3663d07166e18c62ba91c721dd7b478f5e9e2474acb11d273571",
    v4 = "9845f54dd46b603fd94c24b3b5cd219381f8f60454bb3d1d60d58edd93482ba5" },
  { id = "bucketInfo", method = "GET",
    wire = "/?bucketInfo=",
    signed = {}, v1 = "X5M+vRnwSVvs3o96MNJd3S3sksg=",
    hash = "e88f03138e72e410e0525b094b01e28c26b715ea7db0c3445e202196ad8571da",
    v4 = "37252016a31ffd53554d3f0f560b6898666acac42423b6f579bb857a23d77b8a" },
  { id = "location", method = "GET",
    wire = "/?location=",
    signed = {}, v1 = "bxuz1JUoL5/3VzYhs9IA7ueVjCk=",
    hash = "150fe30f8e84ae2d8df30a23b7583c2cfb5d04b42944acab54ac43e7e6ec2cc1",
    v4 = "ee762e6303e98d7a261808d2e9564b7513dbed2b1fd40508f5232e204be8fc76" },
  { id = "putBucket", method = "PUT",
    wire = "/",
    signed = {
      { "content-md5", "MNMzwbfE+sAHCjAKTZBHhg==" },
      { "content-type", "application/xml" },
      { "x-oss-acl", "private" },
    },
    v1 = "6ug5a0VLYScAOohFL9Oii9UKD/o=",
    hash = "5f991981cf522addf46a6a167b53abde433921275127f316b196deecb42f7bdf",
    v4 = "31156d8e295e6198595c26d4ebee2ff8318b77c00ef7b71a9bf5bc9d4a095ad1" },
  { id = "listBuckets", method = "GET",
    wire = "/",
    signed = {}, v1 = "QhiS1npErrf16lPKPvcksh3AkiY=",
    hash = "f1b0a101229fb013c7779458e0d262be6b6ea03a6708ab7ad9366b5b345f4b56",
    v4 = "c90de0b65922180ab3a76626f9c99cb9e6944bab080a34414c2f1e76cdd8cbdf" },
  { id = "get-sts", method = "GET",
    wire = "/a/b.txt",
    signed = {
      { "content-type", "text/plain" },
      { "x-oss-security-token", "eirunTestToken" },
    },
    v1 = "hUMnXHuoBHU9eZGDlDb7PzSorDI=",
    hash = "ea08de05dbf710b0b9bb52ecb5dbac52b6101ed6edd62b751732987724ea1e3c",
    v4 = "a0b3d9e92534acbb7d8911e1e9498fd9b4a4df16ab3192c29a3014e2dbfa94ec" },
  { id = "additional", method = "PUT",
    wire = "/a/b.txt",
    signed = {
      { "content-md5", "JtsiXNvkGyhRV9UdwmmLqA==" },
      { "content-type", "text/plain" },
      { "host", "eirun-bucket.oss-cn-hangzhou.aliyuncs.com" },
      { "x-custom", "v" },
    },
    additional = "host;x-custom", v1 = nil,
    hash = "7c2e17badca08abbb6bfe2cf1e8aab9d8669716de16dacbf95d8d10893494b53",
    v4 = "97c3e95fdc5005512bc9d0651247105cb4e5d69d0d0b5b0d51d40dcd27cfb6cd" },
}

local function decode(text)
  return (text:gsub("+", " "):gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

local function request_of(vector)
  local path, query = vector.wire:match "^([^?]*)%??(.*)$"
  local request = { method = vector.method, query = {}, headers = {} }
  if vector.id ~= "listBuckets" then
    request.bucket, request.key = "eirun-bucket", decode(path:sub(2))
  end
  for name, value in query:gmatch "([^&=]+)=?([^&]*)" do
    request.query[#request.query + 1] = { decode(name), decode(value) }
  end
  table.move(vector.signed, 1, #vector.signed, 1, request.headers)
  return request
end

local function options(over)
  local given = { now = now, region = "cn-hangzhou", lookup = function(id)
    if id == "eirunTestKeyId" then return { secret = "eirunTestKeySecret", token = over and over.token } end
  end }
  for name, value in pairs(over or {}) do given[name] = value end
  return given
end

local function token_of(vector)
  return vector.id:match "sts" and "eirunTestToken" or nil
end

local function signed_v4(vector)
  local request = request_of(vector)
  local more = vector.additional and ",AdditionalHeaders=" .. vector.additional or ""
  table.insert(request.headers, { "x-oss-date", stamp })
  table.insert(request.headers, { "x-oss-content-sha256", "UNSIGNED-PAYLOAD" })
  table.insert(request.headers, { "Authorization",
    ("OSS4-HMAC-SHA256 Credential=eirunTestKeyId/%s%s,Signature=%s"):format(scope, more, vector.v4) })
  return request
end

local function refused(code, request, over)
  local ok, failure = pcall(sign.verify, request, options(over))
  t.ok(not ok, "was accepted")
  t.ok(errors.is(failure), tostring(failure))
  t.eq(failure.code, code)
  return failure
end

t.test("every_v4_header_vector_is_accepted", function()
  for _, vector in ipairs(vectors) do
    local identity = sign.verify(signed_v4(vector), options { token = token_of(vector) })
    t.eq(identity.id, "eirunTestKeyId", vector.id)
  end
end)

t.test("the_canonical_request_hashes_as_recorded", function()
  for _, vector in ipairs(vectors) do
    local text = sign.canonical_v4(signed_v4(vector), { additional = vector.additional, empty_equals = vector.id == "listV2-emptyprefix" })
    t.eq(crypto.hex(crypto.sha256(text)), vector.hash, vector.id)
  end
end)

t.test("every_v1_header_vector_is_accepted", function()
  for _, vector in ipairs(vectors) do
    if vector.v1 then
      local request = request_of(vector)
      table.insert(request.headers, { "x-oss-date", date })
      table.insert(request.headers, { "authorization", "OSS eirunTestKeyId:" .. vector.v1 })
      t.eq(sign.verify(request, options { token = token_of(vector) }).id, "eirunTestKeyId", vector.id)
    end
  end
end)

t.test("separators_and_order_of_the_v4_header_are_free", function()
  local vector = vectors[1]
  local request = request_of(vector)
  table.insert(request.headers, { "x-oss-date", stamp })
  table.insert(request.headers, { "x-oss-content-sha256", "UNSIGNED-PAYLOAD" })
  table.insert(request.headers, { "Authorization",
    ("OSS4-HMAC-SHA256 Credential=eirunTestKeyId/%s, Signature=%s, AdditionalHeaders="):format(scope, vector.v4) })
  t.ok(sign.verify(request, options()))
end)

t.test("a_wrong_secret_shows_what_was_signed", function()
  local failure = refused("SignatureDoesNotMatch", signed_v4(vectors[1]), { lookup = function() return { secret = "other" } end })
  local seen = {}
  for _, pair in ipairs(failure.extra) do seen[pair[1]] = pair[2] end
  t.eq(seen.SignatureProvided, vectors[1].v4)
  t.match(seen.StringToSign, "^OSS4%-HMAC%-SHA256\n20250304T050607Z\n")
  t.match(seen.CanonicalRequest, "^PUT\n/eirun%-bucket/models/")
end)

t.test("an_unknown_key_the_wrong_region_and_a_late_clock_are_refused", function()
  local request = signed_v4(vectors[1])
  refused("InvalidAccessKeyId", request, { lookup = function() end })
  t.eq(refused("InvalidArgument", request, { region = "cn-beijing" }).ec, "0002-00000226")
  refused("RequestTimeTooSkewed", request, { now = now + 901 })
  refused("RequestTimeTooSkewed", request, { now = now - 901 })
  refused("InvalidSecurityToken", request, { token = "expected" })
end)

t.test("a_changed_header_or_query_is_noticed", function()
  local request = signed_v4(vectors[1])
  request.headers[1] = { "content-md5", "AAAAAAAAAAAAAAAAAAAAAA==" }
  refused("SignatureDoesNotMatch", request)
  request = signed_v4(vectors[5])
  request.query[2] = { "prefix", "secrets/" }
  refused("SignatureDoesNotMatch", request)
end)

local function presigned(method, key, query, headers)
  return { method = method, bucket = "eirun-bucket", key = key, query = query, headers = headers or {} }
end

local model = "models/resnet50/1/saved model+v1.pb"

t.test("presigned_v1_urls_are_accepted_until_they_expire", function()
  local function url(method, key, signature, token, headers)
    local query = { { "OSSAccessKeyId", "eirunTestKeyId" }, { "Expires", "1741068367" }, { "Signature", signature } }
    if token then table.insert(query, { "security-token", token }) end
    return presigned(method, key, query, headers)
  end
  t.ok(sign.verify(url("GET", model, "l0ADClIjL8SGXz0GFGjE7CxgrK4="), options()))
  t.ok(sign.verify(url("PUT", "a/b.txt", "97RnXnufsCqrJkGoM1Leu0o7xNc=", nil, { { "Content-Type", "text/plain" } }), options()))
  t.ok(sign.verify(url("GET", "a/b.txt", "ZPdnsls6as3N0v44H8fixvw1NYI=", "eirunTestToken"), options { token = "eirunTestToken" }))
  t.eq(refused("AccessDenied", url("GET", model, "l0ADClIjL8SGXz0GFGjE7CxgrK4="), { now = 1741068368 }).message, "Request has expired.")
end)

local function presigned_v4(method, key, signature, over)
  over = over or {}
  local query = { { "x-oss-signature-version", "OSS4-HMAC-SHA256" }, { "x-oss-credential", "eirunTestKeyId/" .. scope },
    { "x-oss-date", stamp }, { "x-oss-expires", over.expires or "3600" }, { "x-oss-signature", signature } }
  if over.additional then table.insert(query, { "x-oss-additional-headers", over.additional }) end
  if over.token then table.insert(query, { "x-oss-security-token", over.token }) end
  return presigned(method, key, query, over.headers)
end

t.test("presigned_v4_urls_are_accepted", function()
  local host = { { "host", "eirun-bucket.oss-cn-hangzhou.aliyuncs.com" } }
  t.ok(sign.verify(presigned_v4("GET", model, "d583139c1ea0d07b8b46a174996e76b3d4c9abe2255bd49d492a601aa0a6f921"), options()))
  t.ok(sign.verify(presigned_v4("PUT", "a/b.txt", "63687285590209afb6f0885c81723a6fc88b92d86a1b7e4b550c2acd21cd8a7d",
    { headers = { { "content-type", "text/plain" } } }), options()))
  t.ok(sign.verify(presigned_v4("GET", "a/b.txt", "44f84fd50248c52ce00062527d7895b0187d4684ccbbba37bb72949a3a5e1396",
    { additional = "host", headers = host }), options()))
  t.ok(sign.verify(presigned_v4("GET", "a/b.txt", "e516df4bea328d0b610a89775b8e6470c859737c6188b6c1bb5c4c4fbc668749",
    { token = "eirunTestToken" }), options { token = "eirunTestToken" }))
end)

t.test("a_presigned_v4_url_needs_a_sane_expiry", function()
  local signature = "d583139c1ea0d07b8b46a174996e76b3d4c9abe2255bd49d492a601aa0a6f921"
  t.eq(refused("InvalidArgument", presigned_v4("GET", model, signature, { expires = "604801" })).ec, "0002-00000232")
  t.eq(refused("InvalidArgument", presigned_v4("GET", model, signature, { expires = "soon" })).ec, "0002-00000070")
  refused("AccessDenied", presigned_v4("GET", model, signature), { now = now + 3601 })
end)

t.test("the_go_sdks_vectors_agree", function()
  local query = { { "param1", "value1" }, { "|param1", "value4" }, { "+param1", "value3" }, { "param2", "" }, { "|param2", "" },
    { "+param2", "" } }
  local function request(at)
    return { method = "PUT", bucket = "bucket", key = "1234+-/123/1.txt", query = query, headers = {
      { "x-oss-head1", "value" }, { "abc", "value" }, { "ZAbc", "value" }, { "XYZ", "value" }, { "content-type", "text/plain" },
      { "x-oss-content-sha256", "UNSIGNED-PAYLOAD" }, { "x-oss-date", at } } }
  end
  local function signature(at, additional)
    local text = sign.canonical_v4(request(at), { additional = additional })
    local to_sign = sign.to_sign_v4(text, at, "20231216/cn-hangzhou/oss/aliyun_v4_request")
    return crypto.hex(crypto.hmac_sha256(sign.signing_key("sk", "20231216", "cn-hangzhou"), to_sign))
  end
  t.eq(signature("20231216T162057Z"), "e21d18daa82167720f9b1047ae7e7f1ce7cb77a31e8203a7d5f4624fa0284afe")
  t.eq(signature("20231216T172512Z", "abc;ZAbc"), "4a4183c187c07c8947db7620deb0a6b38d9fbdd34187b6dbaccb316fa251212f")
end)

t.test("the_go_sdks_v1_vectors_agree", function()
  local function signature(query)
    local text = sign.canonical_v1({ method = "PUT", bucket = "examplebucket", key = "nelson", query = query, headers = {
      { "Content-MD5", "eB5eJF1ptWaXm4bijSPyxw==" }, { "Content-Type", "text/html" }, { "x-oss-date", "Wed, 28 Dec 2022 10:27:41 GMT" },
      { "x-oss-meta-author", "alice" }, { "x-oss-meta-magic", "abracadabra" } } }, "Wed, 28 Dec 2022 10:27:41 GMT")
    return crypto.base64(crypto.hmac_sha1("sk", text))
  end
  t.eq(signature {}, "kSHKmLxlyEAKtZPkJhG9bZb5k7M=")
  t.eq(signature { { "acl", "" } }, "/afkugFbmWDQ967j1vr6zygBLQk=")
end)

t.test("no_signature_is_anonymous_and_a_strange_one_is_refused", function()
  t.eq(sign.verify(presigned("GET", "a", {}), options()), nil)
  t.eq(refused("InvalidArgument", presigned("GET", "a", {}, { { "Authorization", "Bearer x" } })).ec, "0002-00000002")
end)
