-- SPDX-License-Identifier: Apache-2.0
-- A bucket as a volume: Secret, PersistentVolume and claim, bound to each other by name.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local ensure = require "eirun.kube.ensure"
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local target = require "eirun.target"
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
  read_only = { type = "boolean" },
  client = { type = "string", one_of = clients },
  options = { type = "string" },
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

local function check_options(given)
  local known = {}
  for _, word in ipairs(words[given.client or "ossfs2"]) do known[word] = true end
  for option in (given.options or ""):gmatch("%-o%s*([%w_]+)") do
    if not known[option] then
      local near = spec.nearest(option, known)
      spec.fail("ensure_oss_volume", ("%s has no option '%s'%s"):format(given.client or "ossfs2", option,
        near and ", did you mean '" .. near .. "'?" or ""))
    end
  end
  if given.options and not given.options:find("^%s*%-o") then
    spec.fail("ensure_oss_volume", "options must be written as \"-o key=value -o flag\"")
  end
end

local function region_of(url)
  return url:match("oss%-([a-z0-9-]-)%-internal%.") or url:match("oss%-([a-z0-9-]-)%.aliyuncs%.com")
end

local function check(given)
  spec.check("ensure_oss_volume", given, rules)
  check_options(given)
  if given.secret and given.credentials then spec.fail("ensure_oss_volume", "secret and credentials exclude each other") end
  local url = given.url
  if url and url:gsub("^https?://", ""):sub(1, #given.bucket + 1) == given.bucket .. "." then
    spec.fail("ensure_oss_volume", ("url '%s' holds the bucket: give the endpoint alone"):format(url))
  end
  local region = url and region_of(url)
  if region and given.region and region ~= given.region then
    spec.fail("ensure_oss_volume", ("url '%s' is in %s, not in %s"):format(url, region, given.region))
  end
end

local function secret_name(given)
  return given.secret or given.name .. "-oss"
end

-- The run's own keys unless told otherwise. Temporary ones would end before the pods do.
local function ensure_secret(k8s, given)
  if given.secret then
    if k8s:get("Secret", given.secret) then return end
    errors.raise("not_found", ("Secret '%s/%s' does not exist"):format(k8s.ns, given.secret),
      { hint = "make it with akId and akSecret of a key that may read the bucket, or leave secret out" })
  end
  local keys = (given.credentials or target.current().credentials):get()
  if keys.security_token then
    errors.raise("invalid", "temporary keys cannot be put into a volume's Secret: they end",
      { hint = "make a Secret with the key of a RAM user that may read the bucket, and name it with secret = \"…\"" })
  end
  ensure.ensure(k8s, {
    apiVersion = "v1", kind = "Secret", type = "Opaque", metadata = { name = secret_name(given), namespace = k8s.ns },
    data = { akId = crypto.base64(keys.access_key_id), akSecret = crypto.base64(keys.access_key_secret) },
  }, { adopt = given.adopt })
end

---The manifests of volume and claim. Pure.
---@param given table a checked specification
---@param namespace string
---@param region string the run's region
---@return table volume
---@return table claim
function M.manifests(given, namespace, region)
  region = given.region or given.url and region_of(given.url) or region
  local modes = json.array { given.read_only == false and "ReadWriteMany" or "ReadOnlyMany" }
  local size, claim = given.size or "5Gi", given.claim or given.name
  local volume = {
    apiVersion = "v1", kind = "PersistentVolume",
    metadata = { name = given.name, labels = { ["alicloud-pvname"] = given.name } },
    spec = {
      capacity = { storage = size }, accessModes = modes, persistentVolumeReclaimPolicy = "Retain", storageClassName = "",
      csi = {
        -- The handle keys the mount on a node: two volumes with one handle show each other's files.
        driver = "ossplugin.csi.alibabacloud.com", volumeHandle = given.name,
        nodePublishSecretRef = { name = secret_name(given), namespace = namespace },
        volumeAttributes = {
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

---Makes Secret, PersistentVolume and claim for a bucket; waits until the claim is bound.
---@param k8s eirun.KubeClient
---@param given table
---@return {name: string, claim: string, namespace: string, bucket: string}
function M.ensure(k8s, given)
  check(given)
  local volume, claim = M.manifests(given, k8s.ns, target.current().region)
  check_immutable(k8s:get("PersistentVolume", given.name), volume)
  ensure_secret(k8s, given)
  ensure.ensure(k8s, volume, { adopt = given.adopt })
  ensure.ensure(k8s, claim, { adopt = given.adopt, wait = function()
    return wait.bound(k8s, claim.metadata.name, given.timeout)
  end })
  return { name = given.name, claim = claim.metadata.name, namespace = k8s.ns, bucket = given.bucket }
end

return M
