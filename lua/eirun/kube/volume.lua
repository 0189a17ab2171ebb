-- SPDX-License-Identifier: Apache-2.0
-- A bucket as a volume: Secret, PersistentVolume and claim, bound to each other by name.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local ensure = require "eirun.kube.ensure"
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local target = require "eirun.target"
local volume_reader = require "eirun.kube.volume_reader"
local wait = require "eirun.kube.wait"

local M = {}

local clients = { ossfs = true, ossfs2 = true }

local rules = {
  name = { type = "string", required = true, match = "^[a-z0-9][a-z0-9.-]*$", says = "a volume's name" },
  claim = { type = "string", match = "^[a-z0-9][a-z0-9.-]*$", says = "a claim's name" },
  bucket = { type = "string", required = true, match = "^[a-z0-9][a-z0-9-]*[a-z0-9]$", says = "a bucket's name" },
  path = { type = "string", match = "^/", says = "a path that starts with '/'" },
  url = { type = "string" },
  region = { type = "string" },
  size = { type = "string", match = "^%d+[KMGTP]i?$", says = "a size such as 5Gi" },
  secret = { type = "string" },
  credentials = { type = "table" },
  role = { type = "string", match = "^[%w.-]+$", says = "the name of a RAM role" },
  role_arn = { type = "string", match = "^acs:ram::%d+:role/.", says = "a role's ARN, acs:ram::<account>:role/<name>" },
  oidc_provider_arn = { type = "string", match = "^acs:ram::%d+:oidc%-provider/.", says = "a provider's ARN" },
  read_only = { type = "boolean" },
  client = { type = "string", one_of = clients },
  options = { type = "string" },
  check = { type = "boolean" },
  adopt = { type = "boolean" },
  timeout = { type = "number", min = 0 },
}

-- ossfs and ossfs2 know different words; a word of the other one aborts the mount, in a pod that nobody looks at.
local words = {
  ossfs = { "umask", "allow_other", "max_stat_cache_size", "stat_cache_expire", "kernel_cache", "readdir_optimize", "parallel_count",
    "multipart_size", "direct_read", "direct_read_chunk_size", "direct_read_prefetch_chunks", "direct_read_backward_chunks",
    "direct_read_local_file_cache_size_mb", "use_cache", "tmpdir", "connect_timeout", "readwrite_timeout", "retries", "uid", "gid",
    "mp_umask", "listobjectsv2", "dbglevel", "ro", "sigv4", "del_cache" },
  ossfs2 = { "memory_data_cache_size", "attr_timeout", "prefetch_concurrency", "prefetch_concurrency_per_file", "prefetch_chunk_size",
    "prefetch_chunks", "seq_read_detect_count", "total_mem_limit", "fuse_threads", "oss_negative_cache_timeout", "close_to_open",
    "allow_other", "uid", "gid", "file_mode", "dir_mode", "ro", "log_level" },
}

local function fail(text)
  spec.fail("ensure_oss_volume", text)
end

-- `-o k=v -o flag`, `-ok=v` and comma lists, as the driver reads them.
local function read_options(text)
  local options = {}
  local rest = text:gsub("%-o%s*([^%s]+)", function(list)
    for part in list:gmatch("[^,]+") do
      local key, value = part:match("^([%w_]+)=?(.*)$")
      if not key then fail(("'%s' in options is no option"):format(part)) end
      options[#options + 1] = { key = key, value = value }
    end
    return ""
  end)
  if rest:find("%S") then fail("options must be written as \"-o key=value -o flag\"") end
  return options
end

local sizes = { [""] = 1, K = 1 << 10, M = 1 << 20, G = 1 << 30, T = 1 << 40, P = 1 << 50 }

local function bytes_of(text)
  local number, unit = text:match("^(%d+)([KMGTP]?)[iB]*$")
  return number and tonumber(number) * sizes[unit]
end

-- The mount fails with EINVAL, in a pod that nobody looks at, when the limit leaves no room beside the cache.
local function check_memory(values)
  local cache, limit = bytes_of(values.memory_data_cache_size or "0"), bytes_of(values.total_mem_limit or "0")
  if not cache or not limit then fail("memory_data_cache_size and total_mem_limit are sizes such as 4G") end
  local least = cache + math.min(4 << 30, cache * 2 // 3)
  if limit > 0 and cache > 0 and limit < least then
    fail(("total_mem_limit must be at least %.1f GiB for a cache of %.1f GiB"):format(least / (1 << 30), cache / (1 << 30)))
  end
end

local function check_options(given)
  local known, values, client = {}, {}, given.client or "ossfs2"
  for _, word in ipairs(words[client]) do known[word] = true end
  for _, option in ipairs(read_options(given.options or "")) do
    if not known[option.key] then
      local near = spec.nearest(option.key, known)
      fail(("%s has no option '%s'%s"):format(client, option.key, near and ", did you mean '" .. near .. "'?" or ""))
    end
    values[option.key] = option.value
  end
  if values.max_stat_cache_size == "0" then fail("max_stat_cache_size=0 turns every look at a file into a request") end
  check_memory(values)
end

-- Who reads: a Secret, keys that are put into one, or a role that the driver assumes.
local function check_identity(given)
  if given.secret and given.credentials then fail("secret and credentials exclude each other") end
  if (given.role_arn ~= nil) ~= (given.oidc_provider_arn ~= nil) then fail("role_arn and oidc_provider_arn are wanted both, or neither") end
  local by_role = given.role or given.role_arn
  if given.role and given.role_arn then fail("role and role_arn exclude each other") end
  if by_role and (given.secret or given.credentials) then fail("a role needs no keys: leave secret and credentials out") end
end

local function region_of(url)
  return url:match("oss%-([a-z0-9-]-)%-internal%.") or url:match("oss%-([a-z0-9-]-)%.aliyuncs%.com")
end

local function check(given)
  spec.check("ensure_oss_volume", given, rules)
  check_options(given)
  check_identity(given)
  local url = given.url
  if url and url:gsub("^https?://", ""):sub(1, #given.bucket + 1) == given.bucket .. "." then
    fail(("url '%s' holds the bucket: give the endpoint alone"):format(url))
  end
  local region = url and region_of(url)
  if region and given.region and region ~= given.region then
    fail(("url '%s' is in %s, not in %s"):format(url, region, given.region))
  end
end

local function secret_name(given)
  return given.secret or given.name .. "-oss"
end

local function check_secret(k8s, given, secret)
  local data, lower = secret.data or {}, {}
  for key in pairs(data) do lower[key:lower()] = true end
  if data.akId and data.akSecret or not (data.akId or data.akSecret) and lower.accesskeyid and lower.accesskeysecret then return end
  errors.raise("invalid", ("Secret '%s/%s' holds no key"):format(k8s.ns, given.secret),
    { hint = "it needs both akId and akSecret, or both AccessKeyId and AccessKeySecret" })
end

local function named_secret(k8s, given)
  local secret = k8s:get("Secret", given.secret)
  if not secret then
    errors.raise("not_found", ("Secret '%s/%s' does not exist"):format(k8s.ns, given.secret),
      { hint = "make it with akId and akSecret of a key that may read the bucket, or leave secret out" })
  end
  check_secret(k8s, given, secret)
  return secret
end

-- The run's own keys unless told otherwise. Temporary ones would end before the pods do.
local function own_keys(given)
  local source = given.credentials or target.current().credentials
  if source:get().security_token then
    errors.raise("invalid", "temporary keys cannot be put into a volume's Secret: they end",
      { hint = "make a Secret with the key of a RAM user that may read the bucket, and name it with secret = \"…\"" })
  end
  return source
end

-- Who reads: a Secret that is there, keys for one that is made, or a role.
local function reader_of(k8s, given)
  local by_role = given.role or given.role_arn
  return { secret = given.secret and named_secret(k8s, given) or nil, keys = not by_role and not given.secret and own_keys(given) or nil,
    namespace = k8s.ns, cluster = k8s.cluster, region = M.region(given, target.current().region) }
end

local function ensure_secret(k8s, given, source)
  local keys = source:get()
  ensure.ensure(k8s, {
    apiVersion = "v1", kind = "Secret", type = "Opaque", metadata = { name = secret_name(given), namespace = k8s.ns },
    data = { akId = crypto.base64(keys.access_key_id), akSecret = crypto.base64(keys.access_key_secret) },
  }, { adopt = given.adopt })
end

---The region of the bucket: the one given, that of the endpoint, else the run's.
---@param given table
---@param region string
---@return string
function M.region(given, region)
  return given.region or given.url and region_of(given.url) or region
end

---The manifests of volume and claim. Pure.
---@param given table a checked specification
---@param namespace string
---@param region string the run's region
---@return table volume
---@return table claim
function M.manifests(given, namespace, region)
  region = M.region(given, region)
  local modes = json.array { given.read_only == false and "ReadWriteMany" or "ReadOnlyMany" }
  local size, claim, by_role = given.size or "5Gi", given.claim or given.name, given.role or given.role_arn
  local volume = {
    apiVersion = "v1", kind = "PersistentVolume",
    metadata = { name = given.name, labels = { ["alicloud-pvname"] = given.name } },
    spec = {
      capacity = { storage = size }, accessModes = modes, persistentVolumeReclaimPolicy = "Retain", storageClassName = "",
      csi = {
        -- The handle keys the mount on a node: two volumes with one handle show each other's files.
        driver = "ossplugin.csi.alibabacloud.com", volumeHandle = given.name,
        nodePublishSecretRef = not by_role and { name = secret_name(given), namespace = namespace } or nil,
        volumeAttributes = {
          authType = by_role and "rrsa" or nil, roleName = given.role, roleArn = given.role_arn, oidcProviderArn = given.oidc_provider_arn,
          bucket = given.bucket, path = given.path or "/", url = given.url or ("oss-%s-internal.aliyuncs.com"):format(region),
          region = region, fuseType = given.client or "ossfs2", otherOpts = given.options,
        },
      },
    },
  }
  return volume, {
    apiVersion = "v1", kind = "PersistentVolumeClaim", metadata = { name = claim, namespace = namespace },
    spec = {
      accessModes = modes, storageClassName = "", resources = { requests = { storage = size } },
      selector = { matchLabels = { ["alicloud-pvname"] = given.name } },
    },
  }
end

-- A volume's source cannot be changed, and a mount that exists would not notice: say it before the server says it worse.
local function check_immutable(live, volume)
  if not live then return end
  local changes = resource.differences((live.spec or {}).csi, volume.spec.csi, { named_only = true })
  if #changes == 0 then return end
  local change = changes[1]
  errors.raise("conflict", ("PersistentVolume '%s': %s is '%s' and cannot become '%s'"):format(volume.metadata.name, change.field,
    tostring(change.from), tostring(change.to)), { object = "PersistentVolume '" .. volume.metadata.name .. "'",
    hint = "volumes are not changed in place: give the new one another name" })
end

-- Two volumes with one handle share the first one's mount: the wrong files appear and nobody says so.
local function check_handle(k8s, given)
  local ok, others = pcall(k8s.pick, k8s, "PersistentVolume", { "metadata.name", "spec.csi.driver", "spec.csi.volumeHandle" })
  if not ok and not errors.is(others, "denied") then error(others, 0) end
  for _, other in ipairs(ok and others or {}) do -- who may not list them can only hope
    if other["spec.csi.volumeHandle"] == given.name and other["metadata.name"] ~= given.name
        and other["spec.csi.driver"] == "ossplugin.csi.alibabacloud.com" then
      errors.raise("conflict", ("PersistentVolume '%s' has the volume handle '%s' already"):format(other["metadata.name"], given.name),
        { object = ("PersistentVolume '%s'"):format(given.name), hint = "give the new volume another name" })
    end
  end
end

---Makes Secret, PersistentVolume and claim for a bucket; waits until the claim is bound.
---@param k8s eirun.KubeClient
---@param given table
---@return {name: string, claim: string, namespace: string, bucket: string}
function M.ensure(k8s, given)
  check(given)
  local volume, claim = M.manifests(given, k8s.ns, target.current().region)
  local live = k8s:get("PersistentVolume", given.name)
  check_immutable(live, volume)
  local reader = reader_of(k8s, given)
  if not live then
    check_handle(k8s, given)
    if given.check ~= false then volume_reader.check(given, reader) end
  end
  if reader.keys then ensure_secret(k8s, given, reader.keys) end
  ensure.ensure(k8s, volume, { adopt = given.adopt })
  ensure.ensure(k8s, claim, { adopt = given.adopt, wait = function()
    return wait.bound(k8s, claim.metadata.name, given.timeout)
  end })
  return { name = given.name, claim = claim.metadata.name, namespace = k8s.ns, bucket = given.bucket }
end

return M
