-- SPDX-License-Identifier: Apache-2.0
-- Clusters: list, detail, kubeconfig, quota, versions, tasks and events.
local json = require "eirun.core.json"
local catalog = require "sandbox.cloud.catalog"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local tasks = require "sandbox.cloud.tasks"
local times = require "sandbox.times"

local clusters = {}

clusters.name = "eirun-sandbox"
clusters.version = "1.36.3-aliyun.1"

local function vswitch_ids()
  local ids = json.array {}
  for id in pairs(catalog.vswitches) do ids[#ids + 1] = id end
  table.sort(ids)
  return ids
end

local function node_count(ctx)
  local count = 0
  for _, instance in ctx.store:each "instance" do
    if instance.ess == "InService" then count = count + 1 end
  end
  return count
end

local function endpoints(ctx)
  return assert(json.encode { api_server_endpoint = ctx.api_server, intranet_api_server_endpoint = ctx.api_server })
end

local function view(ctx)
  local known = ctx.store:get("meta", "cluster") or {}
  local created = times.iso_china(ctx.store:get("meta", "created") or ctx.now())
  return { cluster_id = ctx.cluster_id, name = clusters.name, state = "running", cluster_type = "ManagedKubernetes",
    profile = "Default", cluster_spec = "ack.pro.small", current_version = clusters.version, init_version = clusters.version,
    next_version = "", region_id = ctx.region, vpc_id = catalog.vpc.id, vswitch_id = table.concat(vswitch_ids(), ","),
    vswitch_ids = vswitch_ids(), security_group_id = catalog.security_group, worker_ram_role_name = "KubernetesWorkerRole-sandbox",
    size = node_count(ctx),
    deletion_protection = known.deletion_protection or false, tags = json.array {}, resource_group_id = "rg-acfmsandbox",
    master_url = endpoints(ctx), meta_data = "{}", container_cidr = "172.20.0.0/16", service_cidr = "172.21.0.0/20",
    network_mode = "vpc", created = created, updated = created, zone_id = catalog.zones[1], private_zone = false,
    auto_mode = { enable = false }, rrsa_config = { enabled = known.enable_rrsa or false } }
end

-- Raises unless the path names the cluster of this sandbox.
function clusters.check(call)
  if call.path.ClusterId ~= call.ctx.cluster_id then
    errors.raise(404, "ErrorClusterNotFound", ("cluster %s not found"):format(tostring(call.path.ClusterId)))
  end
end

local settings = { "deletion_protection", "enable_rrsa" }

-- What of a cluster can be changed here: these two, and they show in its detail.
function clusters.modify(call)
  local ctx, body = call.ctx, call.json()
  return ctx.store:tx(function()
    local known = ctx.store:get("meta", "cluster") or {}
    for _, name in ipairs(settings) do if type(body[name]) == "boolean" then known[name] = body[name] end end
    ctx.store:put("meta", "cluster", known)
    local task = tasks.start(ctx, { type = "cluster_modify", after = ctx.lag.pool_update,
      target = { id = ctx.cluster_id, type = "cluster" } })
    return { cluster_id = ctx.cluster_id, task_id = task.id, request_id = call.request_id }
  end)
end

function clusters.detail(call) return view(call.ctx) end

local function wanted(params, one)
  for param, field in pairs { name = "name", cluster_id = "cluster_id", cluster_spec = "cluster_spec", cluster_type = "cluster_type",
    profile = "profile", region_id = "region_id" } do
    if params[param] and params[param] ~= "" and params[param] ~= one[field] then return false end
  end
  return true
end

function clusters.list(call)
  local number, size = gateway.integer(call, "page_number", 1, 1, 100000), gateway.integer(call, "page_size", 10, 1, 100)
  local one, list = view(call.ctx), {}
  if wanted(call.params, one) then list[1] = one end
  return { clusters = gateway.page(list, number, size),
    page_info = { page_number = number, page_size = size, total_count = #list } }
end

local year = 365 * 86400

function clusters.kubeconfig(call)
  local minutes = gateway.integer(call, "TemporaryDurationMinutes", 0, 0, 4320)
  if minutes > 0 and minutes < 15 then
    errors.raise(400, "InvalidParameter.TemporaryDurationMinutes", "TemporaryDurationMinutes must be between 15 and 4320")
  end
  local ctx = call.ctx
  local seconds = minutes > 0 and minutes * 60 or 3 * year
  return { config = ctx.kubeconfig { address = ctx.mode == "serve" and "loopback" or "public", seconds = seconds },
    expiration = times.iso(ctx.now() + seconds) }
end

function clusters.quota()
  return { cluster_quota = 50, amk_cluster_quota = 20, ask_cluster_quota = 20, cluster_nodepool_quota = 20, node_quota = 100,
    quotas = {} }
end

function clusters.versions()
  return json.array { { version = clusters.version, ["multi_az"] = "enabled", creatable = true,
    runtimes = json.array { { name = "containerd", version = "1.6.39" } }, images = json.array {} } }
end

function clusters.task(call)
  local record = call.ctx.store:get("task", call.path.task_id)
  if not record then errors.raise(404, "ErrorTaskNotFound", ("task %s not found"):format(call.path.task_id)) end
  return tasks.view(record)
end

function clusters.cancel_task(call)
  clusters.task(call)
  errors.raise(400, "TaskOperationNotSupported", "this type of task cannot be cancelled, paused or resumed")
end

local function newest_first(a, b)
  if a.created ~= b.created then return a.created > b.created end
  return a.id < b.id
end

function clusters.list_tasks(call)
  local list = {}
  for _, record in call.ctx.store:each "task" do list[#list + 1] = record end
  table.sort(list, newest_first)
  local number, size = gateway.integer(call, "page_number", 1, 1, 100000), gateway.integer(call, "page_size", 10, 1, 100)
  local page = gateway.page(list, number, size)
  for i, record in ipairs(page) do page[i] = tasks.view(record) end
  return { tasks = page, page_info = { page_number = number, page_size = size, total_count = #list }, next_token = "",
    requestId = call.request_id }
end

local function event_view(event)
  return { event_id = event.id, cluster_id = event.cluster_id, source = "", subject = event.subject,
    time = times.iso(event.time), type = event.task_id, data = { level = event.level, reason = event.reason, message = event.message } }
end

function clusters.events(call)
  local list, only = {}, call.params.task_id
  for _, event in call.ctx.store:each "event" do
    if not only or only == "" or event.task_id == only then table.insert(list, 1, event_view(event)) end
  end
  local number, size = gateway.integer(call, "page_number", 1, 1, 100000), gateway.integer(call, "page_size", 50, 1, 100)
  return { events = gateway.page(list, number, size), page_info = { page_number = number, page_size = size, total_count = #list } }
end

return clusters
