-- SPDX-License-Identifier: Apache-2.0
-- What must be known of a product before it can be called, and where it answers.
local M = {}

local function set(words)
  local found = {}
  for word in words:gmatch("%S+") do found[word] = true end
  return found
end

-- ESS answers at one central host for these regions, at `ess.<region>` elsewhere.
local ess_central = set [[cn-qingdao cn-beijing cn-hangzhou cn-shanghai cn-shenzhen cn-hongkong cn-nanjing ap-southeast-1 us-east-1
  us-west-1]]

local function regional(name)
  return function(region) return ("%s.%s.aliyuncs.com"):format(name, region) end
end

local function central(host)
  return function() return host end
end

-- region: does every call take a RegionId?
---@type table<string, {version: string, style: "RPC"|"ROA", host?: fun(region: string): string, vpc?: fun(region: string): string,
--- region?: boolean}>
M.known = {
  cs = { version = "2015-12-15", style = "ROA", vpc = regional "cs-anony-vpc" },
  ecs = { version = "2014-05-26", style = "RPC", region = true },
  ess = { version = "2022-02-22", style = "RPC", region = true,
    host = function(region) return ess_central[region] and "ess.aliyuncs.com" or regional "ess"(region) end },
  sts = { version = "2015-04-01", style = "RPC" },
  vpc = { version = "2016-04-28", style = "RPC", region = true },
  ram = { version = "2015-05-01", style = "RPC", host = central "ram.aliyuncs.com", vpc = central "ram.vpc-proxy.aliyuncs.com" },
  slb = { version = "2014-05-15", style = "RPC", region = true },
  location = { version = "2015-06-12", style = "RPC", host = central "location.aliyuncs.com" },
}

---The public or VPC host of a product in a region. Without a rule of its own the vendor's pattern is built: regions come and go.
---@param product string
---@param region string
---@param network? "public"|"vpc"
---@return string
function M.host(product, region, network)
  local known = M.known[product] or {}
  if network == "vpc" then return (known.vpc or regional(product .. "-vpc"))(region) end
  return (known.host or regional(product))(region)
end

-- Creates that recognise a repeated ClientToken.
local tokens = {
  ecs = set [[RunInstances CreateInstance CreateDisk CreateSnapshot CreateImage CreateSecurityGroup AuthorizeSecurityGroup
    CreateAutoProvisioningGroup CreateLaunchTemplate AllocateDedicatedHosts CreateNetworkInterface CreateDeploymentSet]],
  ess = set [[CreateScalingGroup CreateScalingRule ExecuteScalingRule ScaleWithAdjustment AttachInstances DetachInstances RemoveInstances
    CreateLifecycleHook ApplyScalingGroup]],
  vpc = set [[CreateVpc CreateVSwitch AllocateEipAddress CreateNatGateway CreateSnatEntry CreateRouteEntry]],
  slb = set [[CreateLoadBalancer]],
}

---Does this operation take a ClientToken?
---@param product string
---@param action string
---@return boolean
function M.takes_token(product, action)
  return tokens[product] ~= nil and tokens[product][action] == true
end

-- The largest page that an operation answers; what is not here keeps the server's own default.
local sizes = {
  ["cs.DescribeClusterNodes"] = { pageSize = 100 }, ["cs.DescribeClustersV1"] = { page_size = 50 },
  ["cs.DescribeClusterTasks"] = { page_size = 100 }, ["cs.DescribeClusterEvents"] = { page_size = 100 },
  ["ecs.DescribeInstances"] = { MaxResults = 100 }, ["ecs.DescribeDisks"] = { PageSize = 100 }, ["ecs.DescribeImages"] = { PageSize = 100 },
  ["ecs.DescribeSecurityGroups"] = { MaxResults = 100 }, ["ecs.DescribeInstanceTypes"] = { MaxResults = 100 },
  ["ess.DescribeScalingGroups"] = { PageSize = 50 }, ["ess.DescribeScalingInstances"] = { PageSize = 100 },
  ["ess.DescribeScalingActivities"] = { PageSize = 50 }, ["vpc.DescribeVSwitches"] = { PageSize = 50 },
  ["vpc.DescribeVpcs"] = { PageSize = 50 }, ["ram.ListRoles"] = { MaxItems = 1000 }, ["ram.ListUsers"] = { MaxItems = 1000 },
}

---What to add to a query so that pages are as large as they may be.
---@param product string
---@param action string
---@return table<string, integer>
function M.page_size(product, action)
  return sizes[product .. "." .. action] or {}
end

-- method, path. Names in braces are filled in from the parameters, percent-encoded.
---@type table<string, {[1]: string, [2]: string}>
M.cs_operations = {
  CreateCluster = { "POST", "/clusters" },
  DeleteCluster = { "DELETE", "/clusters/{ClusterId}" },
  CreateClusterNodePool = { "POST", "/clusters/{ClusterId}/nodepools" },
  ModifyClusterNodePool = { "PUT", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  DescribeClusterNodePools = { "GET", "/clusters/{ClusterId}/nodepools" },
  DescribeClusterNodePoolDetail = { "GET", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  DeleteClusterNodepool = { "DELETE", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  ScaleClusterNodePool = { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  RemoveNodePoolNodes = { "DELETE", "/clusters/{ClusterId}/nodepools/{NodepoolId}/nodes" },
  ModifyNodePoolNodeConfig = { "PUT", "/clusters/{ClusterId}/nodepools/{NodepoolId}/node_config" },
  RepairClusterNodePool = { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}/repair" },
  UpgradeClusterNodepool = { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}/upgrade" },
  DeleteClusterNodes = { "POST", "/clusters/{ClusterId}/nodes" },
  DescribeClusterNodes = { "GET", "/clusters/{ClusterId}/nodes" },
  SyncClusterNodePool = { "POST", "/clusters/{ClusterId}/sync_nodepools" },
  DescribeClusterDetail = { "GET", "/clusters/{ClusterId}" },
  DescribeClustersV1 = { "GET", "/api/v1/clusters" },
  DescribeClusterUserKubeconfig = { "GET", "/k8s/{ClusterId}/user_config" },
  DescribeTaskInfo = { "GET", "/tasks/{task_id}" },
  CancelTask = { "POST", "/tasks/{task_id}/cancel" },
  PauseTask = { "POST", "/tasks/{task_id}/pause" },
  ResumeTask = { "POST", "/tasks/{task_id}/resume" },
  DescribeClusterTasks = { "GET", "/clusters/{ClusterId}/tasks" },
  DescribeClusterEvents = { "GET", "/clusters/{ClusterId}/events" },
  -- Singular "cluster" and a trailing slash: the vendor's own spelling.
  CreateAutoscalingConfig = { "POST", "/cluster/{ClusterId}/autoscale/config/" },
  ListAddons = { "GET", "/addons" },
  DescribeAddon = { "GET", "/addons/{addon_name}" },
  ListClusterAddonInstances = { "GET", "/clusters/{ClusterId}/addon_instances" },
  GetClusterAddonInstance = { "GET", "/clusters/{ClusterId}/addon_instances/{instance_name}" },
  InstallClusterAddons = { "POST", "/clusters/{ClusterId}/components/install" },
  UnInstallClusterAddons = { "POST", "/clusters/{ClusterId}/components/uninstall" },
  UpgradeClusterAddons = { "POST", "/clusters/{ClusterId}/components/upgrade" },
  ModifyClusterAddon = { "POST", "/clusters/{ClusterId}/components/{component_id}/config" },
  DescribeKubernetesVersionMetadata = { "GET", "/api/v1/metadata/versions" },
  DescribeUserQuota = { "GET", "/quota" },
  ModifyCluster = { "PUT", "/api/v2/clusters/{ClusterId}" },
}

return M
