-- SPDX-License-Identifier: Apache-2.0
-- An ACK cluster: its node pools, its autoscaler, its kubeconfig, and where its ingress logs.
local addon = require "eirun.ack.addon"
local autoscaling = require "eirun.ack.autoscaling"
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local kubeconfig = require "eirun.ack.kubeconfig"
local node_pool = require "eirun.ack.node_pool"
local pool_spec = require "eirun.ack.pool_spec"
local ratio = require "eirun.ack.ratio"
local spec = require "eirun.spec"
local target = require "eirun.target"

local M = {}

---@class eirun.Cluster
---@field id string
---@field region string
local Cluster = {}
Cluster.__index = Cluster
Cluster.__name = "eirun.cluster"
Cluster.__tostring = function(self) return "cluster " .. self.id end

---A cluster by its id; nothing is asked yet. Without an id: the one that the run was started for.
---@param id? string
---@return eirun.Cluster
---Example: `local cluster = ack.cluster(arg.cluster)`. Raises kind "invalid" when no cluster is known.
function M.cluster(id)
  local now = target.current()
  id = id or now.cluster
  if not id or id == "" then spec.fail("ack.cluster", "which cluster? give its id (c…), as in cluster=c210fbedb…") end
  return setmetatable({ id = id, region = now.region }, Cluster)
end

---What the API tells of the cluster; asked once.
---@return table
---Example: `cluster:describe().current_version`. Raises kind "not_found" for an id unknown in this region.
function Cluster:describe()
  self.detail = self.detail or cloud.cs("DescribeClusterDetail", { ClusterId = self.id }, { object = "cluster '" .. self.id .. "'" })
  return self.detail
end

---The addresses of the API server: `public` may be nil.
---@return {public: string|nil, private: string|nil}
---Example: `if not cluster:endpoints().public then print "only from the VPC" end`. Raises as `describe`.
function Cluster:endpoints()
  local urls = json.decode(self:describe().master_url or "{}") or {}
  return { public = urls.api_server_endpoint, private = urls.intranet_api_server_endpoint }
end

---A kubeconfig as YAML, issued by Container Service for the key's owner. Asked once, and again before it ends.
---@param opts? {private?: boolean, minutes?: integer, anew?: boolean} private: the address inside the VPC (default: only where there is no
--- public one); minutes: a temporary one, 15 to 4320; anew: ask whatever is known
---@return string
---@return number ends when, seconds since the epoch
---@return number renew when it is time to ask again
---Example: `fs.write(path, (cluster:kubeconfig { minutes = 60 }))`; `kube.connect(cluster, { minutes = 60 })` renews it by itself.
---Raises kind "denied" without the RAM right.
function Cluster:kubeconfig(opts)
  local known = kubeconfig.get(self, opts)
  return known.text, known.ends, known.renew
end

---Keeps a kubeconfig in a file of mode 0600, for kubectl and others: written when it is not there, when it is for another cluster
---or address, and when it is about to end.
---@param given {path: string, private?: boolean, minutes?: integer}
---@return string path
---@return "created"|"updated"|"unchanged"
---Example: `cluster:ensure_kubeconfig { path = "/home/me/.kube/ack", minutes = 720 }`. Raises as `kubeconfig`, and "denied" for a path that
---cannot be written.
function Cluster:ensure_kubeconfig(given)
  return kubeconfig.ensure_file(self, given)
end

---Makes an add-on be there: installed when it is missing, upgraded to a version that you name, its configuration changed where the keys
---that you name differ.
---@param given {name: string, version?: string, config?: table, timeout?: number} without a version: the newest for a new one, and whatever
--- there is for one that is installed
---@return {name: string, version: string, state: string, config: table} addon active
---@return "created"|"updated"|"unchanged"
---Example: `cluster:ensure_addon { name = "ack-node-problem-detector" }`.
---Raises "not_found" for a name that this cluster cannot have, with the nearest one; "invalid" for a version that there is not.
function Cluster:ensure_addon(given)
  return addon.ensure(self.id, given)
end

---Makes a node pool: created, changed where it differs, or left alone.
---@param given table name, instance_types, and any of vswitch_ids (the cluster's own when absent), autoscale = {min, max, type},
--- size, spot = {strategy, price_limit, on_demand_base, on_demand_percent, pools, compensate, remedy}, policy, labels, taints,
--- tags, key_pair, image_type, system_disk, data_disks, security_group_ids, runtime, adopt, wait_nodes, timeout
---@return eirun.NodePool pool active, with at least `wait_nodes` (default autoscale.min) healthy nodes
---@return "created"|"updated"|"unchanged"
---Example:
---```lua
---local pool = cluster:ensure_node_pool {
---  name = "gpu", instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn7i-c8g1.2xlarge" },
---  autoscale = { min = 1, max = 10 }, spot = { on_demand_percent = 30 }, labels = { inference = "tensorflow" },
---}
---```
---Raises "invalid" before any write for what cannot be, "conflict" for a pool that eirun did not make (adopt = true takes it
---over) or a field that cannot change, "quota" quoting the scaling group when there is no stock.
function Cluster:ensure_node_pool(given)
  pool_spec.check(given)
  return node_pool.ensure(self.id, given, function() return self:describe().vswitch_ids end)
end

---The pool of that name, nil when there is none.
---@param name string
---@return eirun.NodePool|nil
---Example: `local pool = cluster:node_pool "gpu"`. Raises what the call raises.
function Cluster:node_pool(name)
  return node_pool.get(self.id, name)
end

---Switches the cluster's autoscaler on; without it a pool's own autoscale setting does nothing.
---@param given? table scaler ("cluster-autoscaler" or "goatscaler"), scan_interval and unneeded and cool_down in seconds,
--- utilization, gpu_utilization; of cluster-autoscaler alone: expander ("least-waste", "random", or "priority" with
--- priorities = { [100] = { pool }, [10] = { other_pool } }), scale_down, from_zero, daemonset_eviction, max_graceful_termination in
--- seconds, min_replicas, skip_local_storage, skip_system_pods
---@return table config what is in force
---@return "created"|"updated"|"unchanged"
---Example: `cluster:ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = 15 }`.
---Raises "denied" naming the service role when it was never granted, "invalid" for a setting that the scaler does not have.
function Cluster:ensure_autoscaling(given)
  return autoscaling.ensure(self.id, given or {})
end

local LABEL = "^[%w]([%w_.-]*[%w])$"

local function check_label(key, value)
  if #value <= 63 and (value:find(LABEL) or value:find("^%w$")) then return end
  errors.raise("invalid", ("%s = '%s' is no label value: at most 63 letters, digits, '-', '_', '.', it has %d"):format(key, value, #value),
    { hint = "choose a shorter name or version: the HPA would accept the selector and never get a metric" })
end

local route_rules = {
  service = { type = "string", required = true }, port = { type = "any", required = true }, namespace = { type = "string" },
}

---The labels that the metrics adapter wants for what this cluster's ingress logs about one service.
---@param service string|{name: string, namespace?: string} a Service
---@param port integer|string as the Ingress names it
---@param namespace? string default the service's own, else "default"
---@return table<string, string>
---Example: `cluster:ingress_log(app, 8501)["sls.ingress.route"]` is `default-bert-8501`.
---Raises "invalid" for a route over 63 characters, before anything is written.
function Cluster:ingress_log(service, port, namespace)
  local name = type(service) == "table" and (service.service or service.name) or service
  namespace = namespace or type(service) == "table" and service.namespace or "default"
  spec.check("ingress_log", { service = name, port = port, namespace = namespace }, route_rules)
  local labels = {
    ["sls.project"] = "k8s-log-" .. self.id, ["sls.logstore"] = "nginx-ingress",
    ["sls.ingress.route"] = ("%s-%s-%s"):format(namespace, name, port),
  }
  for key, value in pairs(labels) do check_label(key, value) end
  return labels
end

---All nodes of the cluster as Container Service lists them.
---@param pool? eirun.NodePool only this pool's
---@return table[]
---Example: `for _, node in ipairs(cluster:nodes()) do print(node.node_name) end`. Raises what the calls raise.
function Cluster:nodes(pool)
  local list, number = {}, 1
  while true do
    local answer = cloud.cs("DescribeClusterNodes", { ClusterId = self.id }, { object = "cluster '" .. self.id .. "'",
      query = { nodepool_id = pool and pool.id, state = "all", pageNumber = number, pageSize = 100 } })
    local nodes = answer.nodes or {}
    table.move(nodes, 1, #nodes, #list + 1, list)
    if #nodes == 0 or #list >= ((answer.page or {}).total_count or 0) then return list end
    number = number + 1
  end
end

---Asked against observed billing of a pool.
---@param pool eirun.NodePool
---@param opts? {k8s?: table, tolerance?: number}
---@return eirun.Ratio
---Example: `if not ack.ratio(pool).kept then step.note "the pool drifted" end`.
---Raises what the calls raise.
function M.ratio(pool, opts)
  return ratio.of(pool, opts)
end

return M
