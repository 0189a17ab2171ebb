-- SPDX-License-Identifier: Apache-2.0
-- Which versions of a model does a cluster serve? Read off the workloads that run: whose volume leads into the bucket, and which paths
-- below its mount their commands and variables name. When in doubt a version is served.
local paths = require "eirun.oss.paths"

local M = {}

local DRIVER = "ossplugin.csi.alibabacloud.com"
local KINDS = { "Deployment", "StatefulSet", "DaemonSet" }

local function attribute(map, wanted)
  for key, value in pairs(map or {}) do
    if key:lower():match "^%s*(.-)%s*$" == wanted then return value end
  end
end

-- "/models/bert" -> "models/bert/", "/" -> "".
local function as_prefix(path)
  return paths.folder(((path or ""):gsub("^/+", ""):gsub("/+$", "")))
end

local function of_csi(csi, bucket)
  if not csi or csi.driver ~= DRIVER or attribute(csi.volumeAttributes, "bucket") ~= bucket then return nil end
  return as_prefix(attribute(csi.volumeAttributes, "path"))
end

-- The prefix of the bucket that each bound claim leads to: "namespace/claim" -> prefix.
local function claims_of(k8s, bucket)
  local map = {}
  for _, volume in ipairs(k8s:list "PersistentVolume") do
    local prefix, claim = of_csi(volume.spec.csi, bucket), volume.spec.claimRef
    if prefix and claim then map[("%s/%s"):format(claim.namespace or "default", claim.name)] = prefix end
  end
  return map
end

-- Volume name -> prefix, of one workload.
local function volumes_of(workload, claims, bucket)
  local map = {}
  for _, volume in ipairs(workload.spec.template.spec.volumes or {}) do
    local claim = volume.persistentVolumeClaim
    map[volume.name] = claim and claims[("%s/%s"):format(workload.metadata.namespace, claim.claimName)] or of_csi(volume.csi, bucket)
  end
  return map
end

local function texts_of(container)
  local list = {}
  for _, field in ipairs { "command", "args" } do
    for _, text in ipairs(container[field] or {}) do list[#list + 1] = text end
  end
  for _, variable in ipairs(container.env or {}) do list[#list + 1] = variable.value end
  return list
end

local function env(container, name)
  for _, variable in ipairs(container.env or {}) do
    if variable.name == name then return variable.value end
  end
end

-- All paths that a container names; TensorFlow Serving's image adds the one that its variables make.
local function named_paths(container)
  local list = {}
  for _, text in ipairs(texts_of(container)) do
    for path in text:gmatch "/[^%s'\"=,:;]*" do list[#list + 1] = path end
  end
  list[#list + 1] = ("%s/%s"):format(env(container, "MODEL_BASE_PATH") or "/models", env(container, "MODEL_NAME") or "model")
  return list
end

local function reads_config(container)
  for _, text in ipairs(texts_of(container)) do
    if text:find "model_config_file" then return true end
  end
end

-- Where in the bucket a path of the container lies; nil for one outside the mount.
local function in_bucket(path, mount, prefix)
  local base = mount.mountPath:gsub("/+$", "")
  if (path .. "/"):sub(1, #base + 1) ~= base .. "/" then return nil end
  local sub = mount.subPath and mount.subPath ~= "" and as_prefix(mount.subPath) or ""
  return prefix .. sub .. as_prefix(path:sub(#base + 1))
end

local function begins(text, with) return text:sub(1, #with) == with end

-- What one place says about the model's versions: { version = N }, { watches = true }, or nothing.
local function meaning(place, base)
  local version = begins(place, base) and place:sub(#base + 1):match "^(%d+)/"
  if version then return { version = math.tointeger(tonumber(version)) } end
  if place == base then return { watches = true } end
end

local function judge(container, mount, prefix, base)
  local found, whole = {}, prefix .. (mount.subPath and as_prefix(mount.subPath) or "")
  for _, path in ipairs(named_paths(container)) do
    local place = in_bucket(path, mount, prefix)
    found[#found + 1] = place and meaning(place, base)
  end
  if reads_config(container) and (begins(base, whole) or begins(whole, base)) then return { { all = true } } end
  if #found > 0 then return found end
  local said = meaning(whole, base)
  if said then return { said } end
  -- The model lies under the mount and nothing says which part is read.
  return begins(base, whole) and { { watches = true } } or {}
end

local function replicas(workload)
  local status = workload.status or {}
  return math.max(workload.spec.replicas or 1, status.replicas or 0,
    status.currentNumberScheduled or 0)
end

local function look_at(workload, claims, bucket, base, found)
  local volumes = volumes_of(workload, claims, bucket)
  local spec, name = workload.spec.template.spec, ("%s %s/%s"):format(workload.kind, workload.metadata.namespace, workload.metadata.name)
  for _, container in ipairs(spec.containers or {}) do
    for _, mount in ipairs(container.volumeMounts or {}) do
      local prefix = volumes[mount.name]
      for _, said in ipairs(prefix and judge(container, mount, prefix, base) or {}) do
        said.name = name
        found[#found + 1] = said
      end
    end
  end
end

---Why a version must stay; see `oss.served_by`.
---@param k8s eirun.KubeClient
---@param bucket string
---@param prefix string
---@return fun(version: integer, newer: integer): string|nil
---Example: `served.by(k8s, "models", "models/bert")(3, 1)`. Raises "denied" without the right to list workloads and volumes.
function M.by(k8s, bucket, prefix)
  local base, found = paths.folder(prefix), {}
  local claims = claims_of(k8s, bucket)
  for _, kind in ipairs(KINDS) do
    for _, workload in ipairs(k8s:list(kind, { all = true })) do
      workload.kind = kind
      if replicas(workload) > 0 then look_at(workload, claims, bucket, base, found) end
    end
  end
  return function(version, newer)
    for _, said in ipairs(found) do
      if said.version == version or said.all then return said.name .. " serves it" end
      -- Who watches the model's folder serves the newest version, and the one before it until the newest is loaded.
      if said.watches and newer <= 1 then return said.name .. " watches this model" end
    end
  end
end

return M
