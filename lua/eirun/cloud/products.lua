-- SPDX-License-Identifier: Apache-2.0
-- What must be known of a product before it can be called, and where it answers.
local M = {}

-- ESS answers at one central host for these regions, at `ess.<region>` elsewhere.
local ess_central = {}
for region in ([[cn-qingdao cn-beijing cn-hangzhou cn-shanghai cn-shenzhen cn-hongkong cn-nanjing ap-southeast-1 us-east-1
  us-west-1]]):gmatch("%S+") do ess_central[region] = true end

local function regional(name)
  return function(region) return ("%s.%s.aliyuncs.com"):format(name, region) end
end

---@type table<string, {version: string, style: "RPC"|"ROA", host: fun(region: string): string, vpc: fun(region: string): string}>
M.known = {
  cs = { version = "2015-12-15", style = "ROA", host = regional "cs", vpc = regional "cs-anony-vpc" },
  ecs = { version = "2014-05-26", style = "RPC", host = regional "ecs", vpc = regional "ecs-vpc" },
  ess = { version = "2022-02-22", style = "RPC", vpc = regional "ess-vpc",
    host = function(region) return ess_central[region] and "ess.aliyuncs.com" or regional "ess"(region) end },
  sts = { version = "2015-04-01", style = "RPC", host = regional "sts", vpc = regional "sts-vpc" },
  vpc = { version = "2016-04-28", style = "RPC", host = regional "vpc", vpc = regional "vpc-vpc" },
  ram = { version = "2015-05-01", style = "RPC", host = function() return "ram.aliyuncs.com" end,
    vpc = function() return "ram.vpc-proxy.aliyuncs.com" end },
}

-- method, path. Names in braces are filled in from the parameters, percent-encoded.
---@type table<string, {[1]: string, [2]: string}>
M.cs_operations = {
  CreateClusterNodePool = { "POST", "/clusters/{ClusterId}/nodepools" },
  ModifyClusterNodePool = { "PUT", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  DescribeClusterNodePools = { "GET", "/clusters/{ClusterId}/nodepools" },
  DescribeClusterNodePoolDetail = { "GET", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  DeleteClusterNodepool = { "DELETE", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  ScaleClusterNodePool = { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}" },
  RemoveNodePoolNodes = { "DELETE", "/clusters/{ClusterId}/nodepools/{NodepoolId}/nodes" },
  DeleteClusterNodes = { "POST", "/clusters/{ClusterId}/nodes" },
  DescribeClusterNodes = { "GET", "/clusters/{ClusterId}/nodes" },
  SyncClusterNodePool = { "POST", "/clusters/{ClusterId}/sync_nodepools" },
  RepairClusterNodePool = { "POST", "/clusters/{ClusterId}/nodepools/{NodepoolId}/repair" },
  DescribeClusterDetail = { "GET", "/clusters/{ClusterId}" },
  DescribeClustersV1 = { "GET", "/api/v1/clusters" },
  DescribeClusterUserKubeconfig = { "GET", "/k8s/{ClusterId}/user_config" },
  DescribeTaskInfo = { "GET", "/tasks/{task_id}" },
  CancelTask = { "POST", "/tasks/{task_id}/cancel" },
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
