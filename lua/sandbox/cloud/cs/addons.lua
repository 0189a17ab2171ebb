-- SPDX-License-Identifier: Apache-2.0
-- Add-ons: a catalogue, what is installed, and tasks that install, upgrade and remove.
local json = require "eirun.core.json"
local errors = require "sandbox.cloud.errors"
local tasks = require "sandbox.cloud.tasks"

local addons = {}

-- Versions are the sandbox's own; clients are meant to read them from ListAddons.
local catalogue = {
  { name = "ack-alibaba-cloud-metrics-adapter", version = "1.3.10", category = "monitor" },
  { name = "ack-node-problem-detector", version = "1.2.24", category = "monitor", at_start = "1.2.20" },
  { name = "alicloud-monitor-controller", version = "v1.9.1", category = "monitor" },
  { name = "arms-prometheus", version = "1.1.29", category = "monitor" },
  { name = "cluster-autoscaler", version = "v1.6.0-sandbox", category = "scheduling" },
  { name = "ack-goatscaler", version = "v0.6.1", category = "scheduling" },
  { name = "coredns", version = "v1.11.3", category = "network", required = true },
  { name = "csi-plugin", version = "v1.33.1", category = "storage" },
  { name = "csi-provisioner", version = "v1.33.1", category = "storage" },
  { name = "storage-operator", version = "v1.33.1", category = "storage" },
  { name = "kube-proxy", version = "v1.36.3-aliyun.1", category = "network", required = true },
  { name = "logtail-ds", version = "v1.8.7", category = "log" },
  { name = "metrics-server", version = "v0.3.9.7", category = "monitor" },
  { name = "nginx-ingress-controller", version = "v1.11.5-aliyun.1", category = "network" },
  { name = "terway-eniip", version = "v1.13.0", category = "network", required = true },
  { name = "ack-pod-identity-webhook", version = "0.2.0", category = "security" },
  { name = "ack-arena", version = "0.15.5", category = "ai" },
  { name = "ack-ai-dashboard", version = "1.4.2", category = "ai" },
}

-- What a fresh cluster has; without the metrics adapter or logtail-ds the ingress metrics are missing, as on ACK.
addons.installed_at_start = { "ack-alibaba-cloud-metrics-adapter", "ack-node-problem-detector", "coredns", "csi-plugin",
  "csi-provisioner", "kube-proxy", "logtail-ds", "metrics-server", "nginx-ingress-controller", "storage-operator", "terway-eniip",
  "ack-arena", "ack-ai-dashboard" }

local function known(name)
  for _, entry in ipairs(catalogue) do
    if entry.name == name then return entry end
  end
end

-- True when the component is there and works: other parts of the sandbox ask this.
function addons.active(ctx, name)
  local record = ctx.store:get("addon", name)
  return record ~= nil and record.state == "active"
end

-- The declared list of a fresh cluster, or the one that this sandbox was started with (what the cluster cannot do without comes along).
local function declared(ctx)
  if not ctx.options.addons then return addons.installed_at_start end
  local list, has = {}, {}
  for _, name in ipairs(ctx.options.addons) do
    if not known(name) then error(("there is no add-on '%s'"):format(name), 0) end
    list[#list + 1], has[name] = name, true
  end
  for _, entry in ipairs(catalogue) do
    if entry.required and not has[entry.name] then list[#list + 1] = entry.name end
  end
  return list
end

function addons.fill(ctx)
  for _, name in ipairs(declared(ctx)) do
    local entry = known(name)
    ctx.store:put("addon", name, { name = name, version = entry.at_start or entry.version, state = "active", config = "{}" })
  end
end

local function view(entry)
  return { name = entry.name, version = entry.version, category = entry.category, architecture = json.array { "amd64", "arm64" },
    config_schema = "{}", install_by_default = entry.required or false, managed = false,
    supported_actions = json.array { "Install", "Upgrade", "Modify", "Uninstall" } }
end

function addons.list()
  local list = json.array {}
  for i, entry in ipairs(catalogue) do list[i] = view(entry) end
  return { addons = list }
end

local function need_known(name)
  return known(name) or errors.raise(404, "AddonNotFound", ("addon %s not found"):format(tostring(name)))
end

function addons.describe(call)
  local entry = need_known(call.path.addon_name)
  local installed, result = call.ctx.store:get("addon", entry.name), view(entry)
  result.newer_versions = json.array {}
  if installed and installed.version ~= entry.version then
    result.newer_versions[1] = { version = entry.version, minimum_cluster_version = "1.20.0", upgradable = true }
  end
  return result
end

function addons.instances(call)
  local list = json.array {}
  for _, record in call.ctx.store:each "addon" do
    list[#list + 1] = { name = record.name, version = record.version, state = record.state }
  end
  return { addons = list }
end

local function need_installed(ctx, name)
  return ctx.store:get("addon", name) or errors.raise(404, "AddonNotFound", ("addon %s is not installed"):format(tostring(name)))
end

function addons.instance(call)
  local ctx = call.ctx
  local record = need_installed(ctx, call.path.name)
  return { name = record.name, version = record.version, state = record.state, config = record.config,
    logging = { capable = record.name == "nginx-ingress-controller", enabled = record.name == "nginx-ingress-controller",
      log_project = ctx.log_project, logstore = "nginx-ingress" } }
end

local function body_list(call)
  local body = call.json()
  if not json.is_array(body) or #body == 0 then errors.raise(400, "InvalidParameter", "the body must be an array of components") end
  return body
end

local function check_install(ctx, item)
  local entry = need_known(item.name)
  if item.version and item.version ~= entry.version and item.version ~= entry.at_start then
    errors.raise(400, "InvalidParameter.Version", ("addon %s has no version %s"):format(item.name, tostring(item.version)))
  end
  if item.config ~= nil and item.config ~= json.null and type(item.config) ~= "string" then
    errors.raise(400, "InvalidParameter", "Unmarshal type error: expected=string, got=object, field=config")
  end
  if ctx.store:get("addon", item.name) then
    errors.raise(400, "AddonAlreadyInstalled", ("addon %s is installed already"):format(item.name))
  end
end

local function start_task(call, kind, names, data)
  local ctx = call.ctx
  local task = tasks.start(ctx, { type = kind, target = { id = table.concat(names, ","), type = "addon" },
    after = ctx.lag.addon_install, data = data })
  return { cluster_id = ctx.cluster_id, task_id = task.id, request_id = call.request_id }
end

function addons.install(call)
  local ctx, names, list = call.ctx, {}, body_list(call)
  for _, item in ipairs(list) do check_install(ctx, item) end
  return ctx.store:tx(function()
    for i, item in ipairs(list) do
      names[i] = item.name
      local config = type(item.config) == "string" and item.config or "{}"
      ctx.store:put("addon", item.name, { name = item.name, version = item.version or known(item.name).version, state = "initial",
        config = config })
    end
    return start_task(call, "cluster_addon_install", names, { names = names })
  end)
end

function addons.uninstall(call)
  local ctx, names = call.ctx, {}
  for i, item in ipairs(body_list(call)) do
    names[i] = item.name
    need_installed(ctx, item.name)
    if known(item.name).required then
      errors.raise(400, "AddonUninstallForbidden", ("addon %s is needed by the cluster"):format(item.name))
    end
  end
  return ctx.store:tx(function()
    for _, name in ipairs(names) do
      local record = ctx.store:get("addon", name)
      record.state = "deleting"
      ctx.store:put("addon", name, record)
    end
    return start_task(call, "cluster_addon_uninstall", names, { names = names })
  end)
end

local function check_upgrade(ctx, item)
  need_installed(ctx, item.component_name)
  if item.next_version ~= known(item.component_name).version then
    errors.raise(400, "InvalidParameter.Version", ("addon %s has no version %s"):format(item.component_name, tostring(item.next_version)))
  end
end

function addons.upgrade(call)
  local ctx, names, list = call.ctx, {}, body_list(call)
  for _, item in ipairs(list) do check_upgrade(ctx, item) end
  return ctx.store:tx(function()
    for i, item in ipairs(list) do
      local record = ctx.store:get("addon", item.component_name)
      record.state, record.version, names[i] = "upgrading", item.next_version, item.component_name
      if type(item.config) == "string" then record.config = item.config end
      ctx.store:put("addon", record.name, record)
    end
    return start_task(call, "cluster_addon_upgrade", names, { names = names })
  end)
end

function addons.modify(call)
  local ctx, body = call.ctx, call.json()
  local record = need_installed(ctx, call.path.name)
  record.config = body.config or record.config
  ctx.store:put("addon", record.name, record)
  return nil
end

local function finish(state)
  return function(ctx, task)
    for _, name in ipairs(task.data.names) do
      local record = ctx.store:get("addon", name)
      if record and state == "gone" then ctx.store:delete("addon", name) end
      if record and state ~= "gone" then
        record.state = state
        ctx.store:put("addon", name, record)
      end
    end
    ctx.emit("addons.changed", { names = task.data.names })
  end
end

function addons.start()
  tasks.finisher("cluster_addon_install", finish "active")
  tasks.finisher("cluster_addon_upgrade", finish "active")
  tasks.finisher("cluster_addon_uninstall", finish "gone")
end

return addons
