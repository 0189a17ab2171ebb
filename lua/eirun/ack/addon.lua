-- SPDX-License-Identifier: Apache-2.0
-- Add-ons of a cluster: installed, upgraded or configured where they differ from what is named.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local tasks = require "eirun.ack.tasks"

local M = {}

local TIMEOUT = 600

local rules = {
  name = { type = "string", required = true }, version = { type = "string" }, config = { type = "table" },
  timeout = { type = "number", min = 0 },
}

local function object(name)
  return ("add-on '%s'"):format(name)
end

local function is_installed(cluster_id, name)
  for _, addon in ipairs(cloud.cs("ListClusterAddonInstances", { ClusterId = cluster_id }, { object = object(name) }).addons or {}) do
    if addon.name == name then return true end
  end
  return false
end

local function read(cluster_id, name)
  local addon = cloud.cs("GetClusterAddonInstance", { ClusterId = cluster_id, instance_name = name }, { object = object(name) })
  return { name = addon.name, version = addon.version, state = addon.state, config = json.decode(addon.config or "") or {} }
end

-- nil when it is not installed; one that is going counts as there until it is gone.
local function observe(cluster_id, name)
  return is_installed(cluster_id, name) and read(cluster_id, name) or nil
end

---What the cluster can have under this name.
---@param cluster_id string
---@param name string
---@return table addon with its newest `version`
---Raises "not_found" naming the nearest add-on that there is.
local function offered(cluster_id, name)
  local known = {}
  for _, addon in ipairs(cloud.cs("ListAddons", {}, { query = { cluster_id = cluster_id }, object = object(name) }).addons or {}) do
    if addon.name == name then return addon end
    known[addon.name] = true
  end
  local near = spec.nearest(name, known)
  errors.raise("not_found", ("%s: this cluster has no add-on of that name"):format(object(name)), { object = object(name),
    hint = near and ("did you mean '%s'?"):format(near) or "ListAddons tells what there is; some parts are charts of the app catalogue" })
end

local function compare(observed, given)
  local wanted = { name = given.name, version = given.version, config = given.config }
  return resource.differences(observed, wanted, { named_only = true })
end

local function merged(old, new)
  local all = {}
  for key, value in pairs(old) do all[key] = value end
  for key, value in pairs(new) do all[key] = value end
  return all
end

local function install(cluster_id, given)
  local version = given.version or offered(cluster_id, given.name).version
  local item = { name = given.name, version = version, config = given.config and json.encode(given.config) or nil }
  return cloud.cs("InstallClusterAddons", { ClusterId = cluster_id }, { body = json.array { item }, object = object(given.name) })
end

-- An answer that was lost: the list of add-ons tells whether it was carried out.
local function install_once(cluster_id, given)
  local ok, answer = pcall(install, cluster_id, given)
  if ok then return answer end
  if not errors.is(answer) or not answer.uncertain then error(answer, 0) end
  return is_installed(cluster_id, given.name) and {} or install(cluster_id, given)
end

local function upgrade(cluster_id, given, observed)
  local item = { component_name = given.name, version = observed.version, next_version = given.version, policy = "overwrite",
    config = given.config and json.encode(merged(observed.config, given.config)) or nil }
  return cloud.cs("UpgradeClusterAddons", { ClusterId = cluster_id },
    { body = json.array { item }, object = object(given.name), idempotent = true })
end

local function configure(cluster_id, given, observed)
  return cloud.cs("ModifyClusterAddon", { ClusterId = cluster_id, component_id = given.name },
    { body = { config = json.encode(merged(observed.config, given.config)) }, object = object(given.name), idempotent = true })
end

local function act(cluster_id, given, plan)
  local observed = plan.observed
  local change = not observed and install_once or given.version and given.version ~= observed.version and upgrade or configure
  local answer = change(cluster_id, given, observed)
  tasks.wait(answer.task_id, object(given.name), given.timeout or TIMEOUT)
end

local function wait_active(cluster_id, given)
  local addon, err = http.poll({ timeout = given.timeout or TIMEOUT, interval = 3, cap = 15, what = object(given.name) }, function()
    local now = observe(cluster_id, given.name)
    if now and now.state == "active" then return now end
    return nil, now and "it is " .. tostring(now.state) or "it is not listed"
  end)
  return addon or error(err, 0)
end

---Makes an add-on be there; see `cluster:ensure_addon`.
---@param cluster_id string
---@param given table
---@return table addon
---@return string outcome
function M.ensure(cluster_id, given)
  spec.check("ensure_addon", given, rules)
  return resource.ensure {
    kind = "add-on", name = given.name,
    observe = function() return observe(cluster_id, given.name) end,
    compare = function(observed)
      if not observed then offered(cluster_id, given.name) end
      return compare(observed, given)
    end,
    act = function(plan) return act(cluster_id, given, plan) end,
    wait = function() return wait_active(cluster_id, given) end,
  }
end

return M
