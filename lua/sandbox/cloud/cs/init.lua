-- SPDX-License-Identifier: Apache-2.0
-- Container service, version 2015-12-15: paths to calls.
local json = require "eirun.core.json"
local addons = require "sandbox.cloud.cs.addons"
local autoscale = require "sandbox.cloud.cs.autoscale"
local clusters = require "sandbox.cloud.cs.clusters"
local encoding = require "sandbox.encoding"
local errors = require "sandbox.cloud.errors"
local gateway = require "sandbox.cloud.gateway"
local nodepools = require "sandbox.cloud.cs.nodepools"
local nodes = require "sandbox.cloud.cs.nodes"

local cs = {}

local routes = {
  { "POST", "/clusters/{ClusterId}/nodepools", "CreateClusterNodePool", nodepools.create },
  { "PUT", "/clusters/{ClusterId}/nodepools/{NodepoolId}", "ModifyClusterNodePool", nodepools.modify },
  { "GET", "/clusters/{ClusterId}/nodepools", "DescribeClusterNodePools", nodepools.list },
  { "GET", "/clusters/{ClusterId}/nodepools/{NodepoolId}", "DescribeClusterNodePoolDetail", nodepools.detail },
  { "DELETE", "/clusters/{ClusterId}/nodepools/{NodepoolId}", "DeleteClusterNodepool", nodepools.delete },
  { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}", "ScaleClusterNodePool", nodepools.scale },
  { "DELETE", "/clusters/{ClusterId}/nodepools/{NodepoolId}/nodes", "RemoveNodePoolNodes", nodes.remove_from_pool },
  { "POST", "/clusters/{ClusterId}/nodes", "DeleteClusterNodes", nodes.delete },
  { "GET", "/clusters/{ClusterId}/nodes", "DescribeClusterNodes", nodes.list },
  { "POST", "/clusters/{ClusterId}/sync_nodepools", "SyncClusterNodePool", nodepools.sync },
  { "PUT", "/clusters/{ClusterId}/nodepools/{NodepoolId}/node_config", "ModifyNodePoolNodeConfig", nodepools.touch },
  { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}/repair", "RepairClusterNodePool", nodepools.touch },
  { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}/upgrade", "UpgradeClusterNodepool", nodepools.touch },
  { "PUT", "/api/v2/clusters/{ClusterId}", "ModifyCluster", clusters.modify },
  { "GET", "/clusters/{ClusterId}", "DescribeClusterDetail", clusters.detail },
  { "GET", "/api/v1/clusters", "DescribeClustersV1", clusters.list },
  { "GET", "/k8s/{ClusterId}/user_config", "DescribeClusterUserKubeconfig", clusters.kubeconfig },
  { "GET", "/tasks/{task_id}", "DescribeTaskInfo", clusters.task },
  { "POST", "/tasks/{task_id}/cancel", "CancelTask", clusters.cancel_task },
  { "POST", "/tasks/{task_id}/pause", "PauseTask", clusters.cancel_task },
  { "POST", "/tasks/{task_id}/resume", "ResumeTask", clusters.cancel_task },
  { "GET", "/clusters/{ClusterId}/tasks", "DescribeClusterTasks", clusters.list_tasks },
  { "GET", "/clusters/{ClusterId}/events", "DescribeClusterEvents", clusters.events },
  { "POST", "/cluster/{ClusterId}/autoscale/config/", "CreateAutoscalingConfig", autoscale.create },
  { "GET", "/addons", "ListAddons", addons.list },
  { "GET", "/addons/{addon_name}", "DescribeAddon", addons.describe },
  { "GET", "/clusters/{ClusterId}/addon_instances", "ListClusterAddonInstances", addons.instances },
  { "GET", "/clusters/{ClusterId}/addon_instances/{name}", "GetClusterAddonInstance", addons.instance },
  { "POST", "/clusters/{ClusterId}/components/install", "InstallClusterAddons", addons.install },
  { "POST", "/clusters/{ClusterId}/components/uninstall", "UnInstallClusterAddons", addons.uninstall },
  { "POST", "/clusters/{ClusterId}/components/upgrade", "UpgradeClusterAddons", addons.upgrade },
  { "POST", "/clusters/{ClusterId}/components/{name}/config", "ModifyClusterAddon", addons.modify },
  { "GET", "/api/v1/metadata/versions", "DescribeKubernetesVersionMetadata", clusters.versions },
  { "GET", "/quota", "DescribeUserQuota", clusters.quota },
}

local function segments(path)
  local list = {}
  for part in path:gmatch "[^/]+" do list[#list + 1] = part end
  return list
end

for _, route in ipairs(routes) do route.parts = segments(route[2]) end

-- Variables of the path when it fits the route, else nil. A segment that is empty in the path fits nothing.
local function fit(route, parts)
  if #route.parts ~= #parts then return nil end
  local path = {}
  for i, part in ipairs(route.parts) do
    local name = part:match "^{(.+)}$"
    if name then path[name] = encoding.decode(parts[i]) elseif part ~= parts[i] then return nil end
  end
  return path
end

-- The route of a request and its path variables.
function cs.route(method, path)
  local parts, known = segments(path), false
  for _, route in ipairs(routes) do
    local variables = fit(route, parts)
    if variables and route[1] == method then return route, variables end
    known = known or variables ~= nil
  end
  return nil, known
end

local function not_found()
  errors.raise(404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method.")
end

local function read_json(call)
  local value, err = json.decode(call.body)
  if value == nil or type(value) ~= "table" then
    errors.raise(400, "InvalidParameter", "the body is not JSON: " .. tostring(err and err.message or "an object is expected"))
  end
  return value
end

-- The operation is what method and path say; x-acs-action is signed but not looked at.
local function find(call)
  if not call.route then not_found() end
  call.resource = call.path.ClusterId and "acs:cs:*:*:cluster/" .. call.path.ClusterId or "*"
  function call.json() return read_json(call) end
  return function(checked)
    if checked.path.ClusterId then clusters.check(checked) end
    return checked.route[4](checked)
  end
end

function cs.start(ctx)
  nodepools.start()
  nodes.start(ctx)
  addons.start()
  autoscale.start()
  local product = { name = "CS", ram = "cs", style = "CS", find = find,
    finish = function() end,
    name_action = function(call)
      local route, path = cs.route(call.req.method, call.req.path)
      call.route, call.path = route, route and path
      call.action = route and route[3] or call.action
    end }
  ctx.service { name = "CS", env = "CS", handle = gateway.handler(ctx, product),
    hosts = { ("cs.%s.aliyuncs.com"):format(ctx.region), "cs.aliyuncs.com", ("cs-anony-vpc.%s.aliyuncs.com"):format(ctx.region) } }
end

return cs
