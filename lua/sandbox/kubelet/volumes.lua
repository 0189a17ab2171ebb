-- SPDX-License-Identifier: Apache-2.0
-- A pod's volumes: made ready one after the other, then seen by its containers as one file system.
local crypto = require "eirun.core.crypto"
local task = require "eirun.core.task"
local osscsi = require "sandbox.kubelet.osscsi"

local M = {}

local function fail(format, ...) error({ mount = format:format(...) }, 0) end

-- Trees ----------------------------------------------------------------------------------------------------------

-- A tree of fixed files: name -> bytes, names may hold "/".
local function fixed_tree(files)
  local tree = {}
  function tree.list(_, path)
    local prefix, seen, list = path ~= "" and path .. "/" or "", {}, {}
    for name in pairs(files) do
      if name:sub(1, #prefix) == prefix then
        local inner, more = name:sub(#prefix + 1):match "^([^/]+)(/?)"
        if not seen[inner] then list[#list + 1] = { name = inner, dir = more == "/" } end
        seen[inner] = true
      end
    end
    if #list == 0 and path ~= "" then return nil, { message = path .. ": No such file or directory", missing = true } end
    table.sort(list, function(a, b) return a.name < b.name end)
    return list
  end
  function tree.read(_, path)
    if files[path] then return files[path], crypto.hex(crypto.md5(files[path])) end
    return nil, { message = path .. ": No such file or directory", missing = true }
  end
  function tree.check(_, path) return files[path] ~= nil, { message = path .. ": No such file or directory" } end
  return tree
end

-- Kinds of volume ------------------------------------------------------------------------------------------------

local function choose_items(data, items, what, optional)
  if not items then return data end
  local chosen = {}
  for _, item in ipairs(items) do
    if data[item.key] == nil and not optional then fail("%s references non-existent config key: %s", what, item.key) end
    chosen[item.path] = data[item.key]
  end
  return chosen
end

local function object_of(world, resource, kind, name, optional)
  local object, err = world.kube:get(resource, world.namespace, name)
  if object then return object end
  if err.kind ~= "not_found" then fail("%s", err.message) end
  if optional then return {} end
  fail("%s %q not found", kind, name)
end

local function config_map_files(world, source)
  local object = object_of(world, "configmaps", "configmap", source.name, source.optional)
  local data = {}
  for key, value in pairs(object.data or {}) do data[key] = value end
  for key, value in pairs(object.binaryData or {}) do data[key] = crypto.unbase64(value) end
  return choose_items(data, source.items, "configmap", source.optional)
end

local function secret_data(object)
  local data = {}
  for key, value in pairs(object.data or {}) do data[key] = crypto.unbase64(value) or "" end
  return data
end

local function secret_files(world, source)
  local object = object_of(world, "secrets", "secret", source.secretName or source.name, source.optional)
  return choose_items(secret_data(object), source.items, "secret", source.optional)
end

local function projected_files(world, source)
  local files = {}
  local function add(more)
    for name, bytes in pairs(more) do files[name] = bytes end
  end
  for _, part in ipairs(source.sources or {}) do
    if part.configMap then add(config_map_files(world, part.configMap)) end
    if part.secret then add(secret_files(world, part.secret)) end
    if part.serviceAccountToken then add { [part.serviceAccountToken.path] = "token" } end
  end
  return files
end

-- Persistent volumes ---------------------------------------------------------------------------------------------

local function claim_of(world, name)
  local claim, err = world.kube:get("persistentvolumeclaims", world.namespace, name)
  if not claim then fail("%s", err.kind == "not_found" and ("persistentvolumeclaim %q not found"):format(name) or err.message) end
  if not claim.spec.volumeName or not claim.status or claim.status.phase ~= "Bound" then
    fail("error processing PVC %s/%s: PVC is not bound", world.namespace, name)
  end
  return claim
end

local function publish_secret(world, reference)
  if not reference then return nil end
  local object, err = world.kube:get("secrets", reference.namespace, reference.name)
  if object then return secret_data(object) end
  fail("fetching NodePublishSecretRef %s/%s failed: kubernetes.io/csi: failed to find the secret %s in the namespace %s with error: %s",
    reference.namespace, reference.name, reference.name, reference.namespace, err.message)
end

-- All volumes of one handle share one mount per node: the first one's.
local function shared_mount(world, volume)
  local node, csi = world.node, volume.spec.csi
  local known = node.mounts[csi.volumeHandle]
  if known then
    known.users = known.users + 1
    return known.mount
  end
  local options = osscsi.options(csi, publish_secret(world, csi.nodePublishSecretRef), world.region)
  osscsi.check(options)
  task.sleep(world.mount_seconds)
  local mount = osscsi.mount(options, world)
  node.mounts[csi.volumeHandle] = { mount = mount, users = 1 }
  return mount
end

local function persistent(world, source)
  local claim = claim_of(world, source.claimName)
  local volume, err = world.kube:get("persistentvolumes", nil, claim.spec.volumeName)
  if not volume then fail("error processing PVC %s/%s: %s", world.namespace, source.claimName, err.message) end
  world.volume_name = volume.metadata.name
  local csi = volume.spec.csi
  if not csi then return fixed_tree {} end
  if csi.driver ~= osscsi.driver then
    fail("kubernetes.io/csi: mounter.SetUpAt failed to get CSI client: driver name %s not found in the list of registered CSI drivers",
      csi.driver)
  end
  local mount = shared_mount(world, volume)
  return mount, csi.volumeHandle
end

local makers = {
  { "persistentVolumeClaim", persistent },
  { "configMap", function(world, source) return fixed_tree(config_map_files(world, source)) end },
  { "secret", function(world, source) return fixed_tree(secret_files(world, source)) end },
  { "projected", function(world, source) return fixed_tree(projected_files(world, source)) end },
}

-- emptyDir, hostPath, downwardAPI and the like: there, and empty.
local function make(world, volume)
  for _, row in ipairs(makers) do
    if volume[row[1]] then return row[2](world, volume[row[1]]) end
  end
  return fixed_tree {}
end

local function message_for(volume, world, why)
  if volume.persistentVolumeClaim and not world.volume_name then
    return ("Unable to attach or mount volumes: unmounted volumes=[%s], unattached volumes=[], failed to process volumes=[%s]: %s")
      :format(volume.name, volume.name, why)
  end
  return ("MountVolume.SetUp failed for volume %q : %s"):format(world.volume_name or volume.name, why)
end

---Makes one volume ready.
---@param world table { kube, node, namespace, region, mount_seconds, http, now }
---@return table|nil ready { tree, handle }
---@return string|nil message of the FailedMount event
function M.setup(world, volume)
  world.volume_name = nil
  local ok, tree, handle = pcall(make, world, volume)
  if ok then return { tree = tree, handle = handle } end
  if type(tree) ~= "table" or not tree.mount then error(tree, 0) end
  return nil, message_for(volume, world, tree.mount)
end

---A pod lets go of its volumes; the last user of a shared mount unmounts it.
function M.teardown(node, ready)
  for _, volume in pairs(ready) do
    local shared = volume.handle and node.mounts[volume.handle]
    if shared then
      shared.users = shared.users - 1
      if shared.users <= 0 then node.mounts[volume.handle] = nil end
    end
  end
end

-- A container's file system ---------------------------------------------------------------------------------------

local function clean(path) return (path:gsub("/+", "/"):gsub("(.)/$", "%1")) end

---@param container table its spec
---@param ready table<string, table> volumes by name
---@return table files { list(path), read(path), check(path), bucket_of(key) }
function M.view(container, ready)
  local mounts = {}
  for _, mount in ipairs(container.volumeMounts or {}) do
    local volume = ready[mount.name]
    if volume then
      local sub = (mount.subPath or ""):gsub("^/+", ""):gsub("/+$", "")
      mounts[#mounts + 1] = { at = clean(mount.mountPath), tree = volume.tree, sub = sub }
    end
  end
  table.sort(mounts, function(a, b) return #a.at > #b.at end)
  local files = { mounts = mounts }
  local function through(verb, path)
    path = clean(path)
    for _, mount in ipairs(mounts) do
      if path == mount.at or path:sub(1, #mount.at + 1) == mount.at .. "/" then
        local inner = path:sub(#mount.at + 2)
        if mount.sub ~= "" then inner = mount.sub .. (inner ~= "" and "/" .. inner or "") end
        return mount.tree[verb](mount.tree, inner)
      end
    end
    return nil, { message = path .. ": No such file or directory", missing = true }
  end
  for _, verb in ipairs { "list", "read", "check" } do files[verb] = function(path) return through(verb, path) end end
  -- Where an object of a bucket appears in this container; nil when nowhere.
  function files.path_of(bucket, key)
    for _, mount in ipairs(mounts) do
      local options, prefix = mount.tree.options, (mount.tree.prefix or "") .. (mount.sub ~= "" and mount.sub .. "/" or "")
      if options and options.bucket == bucket and key:sub(1, #prefix) == prefix then return mount.at .. "/" .. key:sub(#prefix + 1) end
    end
  end
  return files
end

return M
