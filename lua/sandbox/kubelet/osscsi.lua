-- SPDX-License-Identifier: Apache-2.0
-- The OSS CSI driver: reads a volume's attributes with the driver's rules and words, then really opens the bucket with the
-- given keys at the given endpoint, as ossfs does when it mounts.
local crypto = require "eirun.core.crypto"
local roles = require "sandbox.kubelet.roles"
local sign = require "sandbox.oss.sign"
local times = require "sandbox.times"
local unsigned = require("sandbox.oss.reply").unsigned
local xml = require "sandbox.oss.xml"

local M = {}

M.driver = "ossplugin.csi.alibabacloud.com"

-- A failure as the kubelet's event shows it.
local function rpc(code, format, ...)
  error({ mount = ("rpc error: code = %s desc = %s"):format(code, format:format(...)) }, 0)
end

-- Attributes -----------------------------------------------------------------------------------------------------

local function lowered(map)
  local list = {}
  for key, value in pairs(map or {}) do
    value = tostring(value):match "^%s*(.-)%s*$"
    if value ~= "" then list[key:match("^%s*(.-)%s*$"):lower()] = value end
  end
  return list
end

-- akId and akSecret as they are spelled, else AccessKeyId and AccessKeySecret in any case.
local function keys_of_secret(secret)
  if not secret then return {} end
  if secret.akId or secret.akSecret then
    if secret.akId and secret.akSecret then return { id = secret.akId, secret = secret.akSecret } end
    return {}
  end
  local low = lowered(secret)
  return { id = low.accesskeyid, secret = low.accesskeysecret, token = low.securitytoken }
end

---"-o a=1 -o b -oc,d=2" -> { "a=1", "b", "c", "d=2" }; nil for anything else.
function M.parse_other_opts(text)
  local list, accepting = {}, false
  for word in (text or ""):gmatch "%S+" do
    local rest = accepting and word or word:match "^%-o(.+)$"
    if accepting then accepting = false elseif word == "-o" then accepting, rest = true, nil elseif not rest then return nil end
    for option in (rest or ""):gmatch "[^,]+" do list[#list + 1] = option end
  end
  return list
end

-- The public endpoint of the node's own region becomes the internal one; without a scheme the internal one is plain HTTP.
local function normal_url(url, region)
  local scheme, host = url:match "^(https?://)(.*)$"
  host = (host or url):gsub("/+$", "")
  if host == ("oss-%s.aliyuncs.com"):format(region) then host = ("oss-%s-internal.aliyuncs.com"):format(region) end
  return (scheme or (host:find "%-internal%.aliyuncs%.com$" and "http://" or "https://")) .. host
end

local function region_of(url)
  local name = url:match "oss%-([%w-]+)%.aliyuncs%.com"
  return name and (name:match "^(.-)%-internal$" or name)
end

---@param volume table spec.csi of a PersistentVolume
---@param secret table|nil decoded data of nodePublishSecretRef
---@param node_region string
function M.options(volume, secret, node_region)
  local attributes = lowered(volume.volumeAttributes)
  local keys = keys_of_secret(secret)
  local url = attributes.url or ""
  return { handle = volume.volumeHandle, bucket = attributes.bucket or "", url = url ~= "" and normal_url(url, node_region) or "",
    path = attributes.path or "/", fuse = attributes.fusetype or volume.fsType or "ossfs", other_opts = attributes.otheropts or "",
    auth = attributes.authtype or "", role = attributes.rolename or attributes.ramrole, role_arn = attributes.rolearn,
    service_account = attributes.serviceaccountname, provider_arn = attributes.oidcproviderarn,
    assume_role = attributes.assumerolearn, secret_ref = attributes.secretref,
    id = keys.id or attributes.akid, secret = keys.secret or attributes.aksecret, token = keys.token,
    region = attributes.region or region_of(url) or node_region, encrypted = attributes.encrypted,
    version = (attributes.sigversion or (attributes.region and "v4") or "v1"):lower() }
end

local function auth_error(options, text)
  rpc("InvalidArgument", "OSS authorization error: %s: %s", options.fuse, text)
end

local function check_rrsa(options)
  if (options.role_arn and not options.provider_arn) or (options.provider_arn and not options.role_arn) then
    auth_error(options, ("use RRSA but one of the ARNs is empty, roleArn: %s, oidcProviderArn: %s"):format(options.role_arn or "",
      options.provider_arn or ""))
  end
  if not options.role_arn and not options.role then auth_error(options, "use RRSA but roleName is empty") end
end

local function check_auth(options)
  if options.auth ~= "rrsa" and options.assume_role then
    auth_error(options, "only support access OSS through STS AssumeRole when authType is RRSA")
  end
  if options.fuse == "ossfs2" and options.auth ~= "" and options.auth ~= "sts" and options.auth ~= "rrsa" then
    auth_error(options, "ossfs2 do not support authType: " .. options.auth)
  end
  if options.auth == "public" then return end
  if options.auth == "rrsa" then return check_rrsa(options) end
  if options.auth == "sts" then
    if not options.role then auth_error(options, "missing roleName or ramRole in volume attributes") end
    return
  end
  if options.secret_ref and options.token then auth_error(options, "token and secretRef cannot be set at the same time") end
  if options.secret_ref and options.id then auth_error(options, "AK and secretRef cannot be set at the same time") end
  if not options.secret_ref and not (options.id and options.secret) then
    auth_error(options, "missing access key in node publish secret")
  end
end

local function check_place(options)
  if options.fuse ~= "ossfs" and options.fuse ~= "ossfs2" then
    rpc("InvalidArgument", "OSS parameters error: Unsupported fuseType %s", options.fuse)
  end
  if options.url == "" or options.bucket == "" then rpc("InvalidArgument", "OSS parameters error: Url/Bucket empty") end
  local host = options.url:gsub("^https?://", "")
  if select(2, options.url:gsub("%.", "")) >= 3 and host:sub(1, #options.bucket + 1) == options.bucket .. "." then
    rpc("InvalidArgument", "OSS url error: url is invalid, %s is a bucket domain name, please use endpoint instead", options.url)
  end
  if options.fuse == "ossfs" and options.path:sub(1, 1) ~= "/" then
    rpc("InvalidArgument", "OSS path error: start with %s, should start with /", options.path)
  end
end

---Everything the driver refuses before it mounts. Raises { mount = text }.
function M.check(options)
  check_auth(options)
  check_place(options)
  if not M.parse_other_opts(options.other_opts) then
    rpc("InvalidArgument", "rpc error: code = InvalidArgument desc = invalid otherOpts: %q", options.other_opts)
  end
  if options.version == "v4" and not options.region then rpc("InvalidArgument", "SigV4 is not supported without region") end
end

-- Requests -------------------------------------------------------------------------------------------------------

local function sign_v1(options, request, now)
  local date = times.http(now)
  table.insert(request.headers, { "x-oss-date", date })
  local text = sign.canonical_v1(request, date)
  return ("OSS %s:%s"):format(options.id, crypto.base64(crypto.hmac_sha1(options.secret, text)))
end

local function sign_v4(options, request, now)
  local stamp, date = times.compact(now), times.compact(now):sub(1, 8)
  local scope = ("%s/%s/oss/aliyun_v4_request"):format(date, options.region)
  table.insert(request.headers, { "x-oss-date", stamp })
  table.insert(request.headers, { "x-oss-content-sha256", "UNSIGNED-PAYLOAD" })
  local to_sign = sign.to_sign_v4(sign.canonical_v4(request, {}), stamp, scope)
  local signature = crypto.hex(crypto.hmac_sha256(sign.signing_key(options.secret, date, options.region), to_sign))
  return ("OSS4-HMAC-SHA256 Credential=%s/%s,Signature=%s"):format(options.id, scope, signature)
end

local function encode_query(query)
  local parts = {}
  for i, pair in ipairs(query) do parts[i] = pair[1] .. "=" .. crypto.percent_encode(pair[2], "rfc3986") end
  return #parts > 0 and "?" .. table.concat(parts, "&") or ""
end

local sources = { sts = roles.of_instance, rrsa = roles.of_service_account }
local renew_before = 600

-- Temporary keys are fetched when they are missing or about to end.
local function settle_keys(mount)
  local options, source = mount.options, sources[mount.options.auth]
  if not source or (mount.expires and mount.expires - mount.now() > renew_before) then return true end
  local found, why = source(mount.world, options)
  if not found then return nil, why end
  options.id, options.secret, options.token, mount.expires = found.id, found.secret, found.token, found.expires
  return true
end

-- GET of a key, or of the bucket's listing when key is "".
local function get(mount, key, query, more)
  local options = mount.options
  local ok, why = settle_keys(mount)
  if not ok then return nil, { message = "Failed to initialize RAM credential: " .. why } end
  local request = { method = "GET", bucket = options.bucket, key = key, query = query or {}, headers = {} }
  if options.token then table.insert(request.headers, { "x-oss-security-token", options.token }) end
  if options.auth ~= "public" then
    local authorization = (options.version == "v4" and sign_v4 or sign_v1)(options, request, mount.now())
    table.insert(request.headers, { "Authorization", authorization })
  end
  table.insert(request.headers, { "User-Agent", options.fuse })
  local scheme, host = options.url:match "^(https?://)(.*)$"
  local call = { method = "GET", headers = request.headers, timeout = 60,
    url = ("%s%s.%s/%s%s"):format(scheme, options.bucket, host, crypto.percent_encode(key, "path"), encode_query(request.query)) }
  for name, value in pairs(more or {}) do call[name] = value end
  return mount.http:request(call)
end

local function message_of(reply)
  local root = reply.body and xml.parse(reply.body)
  return root and xml.text(root, "Message") or "", root and xml.text(root, "Code") or ""
end

-- ossfs' own check of the bucket; its last words go into the event.
local function check_bucket(mount)
  local options = mount.options
  local function exit(text, message)
    rpc("Internal", "failed to mount: %s exited: exit status 1, with stderr: ossfs: %s(host=%s, message=%s)", options.fuse, text,
      options.url, message)
  end
  local reply, err = get(mount, "", { { "list-type", "2" }, { "max-keys", "2" }, { "prefix", mount.prefix } })
  if not reply then
    -- What no route leads to is a name that the cluster's resolver does not know.
    local words = err.kind == "denied" and "Couldn't resolve host name" or err.message or ""
    exit("Failed to check bucket and directory for mount point : Unable to connect", words)
  end
  if reply.status == 200 then return end
  local message, code = message_of(reply)
  if reply.status == 400 then exit("Failed to check bucket and directory for mount point : Bad Request", message) end
  if reply.status == 403 then exit("Failed to check bucket and directory for mount point : Invalid Credentials", message) end
  if reply.status == 404 and code == "NoSuchBucket" then exit("Failed to check bucket : Bucket not found", message) end
  if reply.status ~= 404 then exit("Failed to check bucket and directory for mount point : Unable to connect", message) end
end

-- The mounted tree ------------------------------------------------------------------------------------------------

local Mount = {}
Mount.__index = Mount

local function failure(reply, err, path)
  if not reply then return nil, { message = err.message } end
  if reply.status == 404 then return nil, { message = path .. ": No such file or directory", missing = true } end
  return nil, { message = path .. ": Input/output error (" .. (message_of(reply)) .. ")" }
end

local function add_page(list, root, prefix)
  for _, node in ipairs(xml.children(root, "Contents")) do
    local name = xml.text(node, "Key"):sub(#prefix + 1)
    if name ~= "" then list[#list + 1] = { name = name, dir = false, size = math.tointeger(tonumber(xml.text(node, "Size"))) } end
  end
  for _, node in ipairs(xml.children(root, "CommonPrefixes")) do
    list[#list + 1] = { name = xml.text(node, "Prefix"):sub(#prefix + 1, -2), dir = true }
  end
end

---Entries of a folder as { name, dir, size }, by name; nil when nothing is stored under it.
---@param path string relative to the mount, "" for its root
function Mount:list(path)
  local prefix = self.prefix .. (path ~= "" and path .. "/" or "")
  local list, token = {}, nil
  repeat
    local query = { { "list-type", "2" }, { "prefix", prefix }, { "delimiter", "/" }, { "max-keys", "1000" } }
    if token then query[#query + 1] = { "continuation-token", token } end
    local reply, err = get(self, "", query)
    if not reply or reply.status ~= 200 then return failure(reply, err, path) end
    local root = xml.parse(reply.body)
    add_page(list, root, prefix)
    token = xml.text(root, "IsTruncated") == "true" and xml.text(root, "NextContinuationToken") or nil
  until not token
  if #list == 0 and path ~= "" then return nil, { message = path .. ": No such file or directory", missing = true } end
  table.sort(list, function(a, b) return a.name < b.name end)
  return list
end

---The bytes of a file and what identifies them.
function Mount:read(path)
  local reply, err = get(self, self.prefix .. path)
  if not reply or reply.status ~= 200 then return failure(reply, err, path) end
  return reply.body, reply.headers:get "ETag"
end

---Reads a file to its end without keeping it; the bytes must be those that were stored.
function Mount:check(path)
  local reply, err = get(self, self.prefix .. path, nil, { sink = { file = "/dev/null", digest = { "crc64" } } })
  if not reply or reply.status ~= 200 then return failure(reply, err, path) end
  local stored = reply.headers:get "x-oss-hash-crc64ecma"
  local read = reply.digests and reply.digests.crc64
  if stored and read and unsigned(read) ~= stored then return nil, { message = path .. ": Input/output error (checksum)" } end
  return true
end

---Mounts; answers the tree. Raises { mount = text } with the driver's words.
---@param options table of M.options
---@param world table { http, now } and, for roles, { kube, region, account, cluster_id }
function M.mount(options, world)
  M.check(options)
  local prefix = options.path:gsub("^/+", ""):gsub("/+$", "")
  prefix = prefix ~= "" and prefix .. "/" or ""
  local mount = setmetatable({ options = options, http = world.http, now = world.now, prefix = prefix,
    world = world }, Mount)
  local ok, why = settle_keys(mount)
  if not ok then
    rpc("Internal", "failed to mount: %s exited: exit status 1, with stderr: ossfs: Failed to initialize RAM credential. (%s)",
      options.fuse, why)
  end
  check_bucket(mount)
  return mount
end

return M
