-- SPDX-License-Identifier: Apache-2.0
-- The doctor's checks, in order. Each answers a line for people, or raises what is wrong and how to mend it.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local http = require "eirun.http"
local permissions = require "eirun.doctor.permissions"
local products = require "eirun.cloud.products"
local target = require "eirun.target"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local SKEW_ALLOWED, SKEW_FATAL = 60, 900

local function fail(text, hint)
  errors.raise("invalid", text, { hint = hint })
end

local function unknown(text, hint)
  errors.raise("invalid", text, { code = "unknown", hint = hint })
end

local function list(items) return table.concat(items, ", ") end

local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }

local function date_of(reply)
  local day, month, year, time = (reply.headers:get "date" or ""):match("(%d%d) (%a%a%a) (%d%d%d%d) (%d%d:%d%d:%d%d)")
  return months[month] and wire.parse_time(("%s-%02d-%sT%sZ"):format(year, months[month], day, time))
end

function M.credentials(state)
  local keys = target.current().credentials:get()
  state.identity, state.reply = cloud.caller_identity()
  target.current().account = target.current().account or state.identity.AccountId
  local expires = keys.expires and (", until %s"):format(wire.iso(keys.expires)) or ""
  return ("%s (%s), from %s%s"):format(state.identity.Arn, state.identity.IdentityType, keys.source, expires)
end

function M.clock(state)
  local server = state.reply and date_of(state.reply)
  if not server then unknown("the server told no time") end
  local skew = task.now() - server
  if math.abs(skew) <= SKEW_ALLOWED then return ("%.0f s off"):format(math.abs(skew)) end
  local text = ("this machine's clock is %.0f s %s"):format(math.abs(skew), skew > 0 and "ahead" or "behind")
  fail(text .. (math.abs(skew) > SKEW_FATAL and "; beyond 900 s every call is refused" or ""), "set it by NTP (chronyc makestep)")
end

-- Any answer at all shows that name, way, TLS and certificates are in order.
local function reach(product, host)
  local now = target.current()
  local url = http.endpoint_url((now.endpoints or {})[product:upper()] or host)
  local reply, err = target.http():request { method = "GET", url = url .. "/", timeout = 15, connect_timeout = 10 }
  if reply then return nil end
  return ("%s at %s: %s"):format(product, url, err.message)
end

function M.endpoints(state)
  local now, hosts = target.current(), {}
  for _, product in ipairs { "cs", "ecs", "ess", "sts", "vpc", "ram" } do
    hosts[#hosts + 1] = { product, products.host(product, now.region, now.network) }
  end
  if #state.needs.buckets > 0 then hosts[#hosts + 1] = { "oss", ("oss-%s.aliyuncs.com"):format(now.region) } end
  if state.needs.logs and state.cluster then
    hosts[#hosts + 1] = { "sls", ("k8s-log-%s.%s.log.aliyuncs.com"):format(state.cluster, now.region) }
  end
  local failures, count = {}, #hosts
  for _, failure in pairs(task.map(hosts, function(row) return reach(row[1], row[2]) or false end)) do
    if failure then failures[#failures + 1] = failure end
  end
  if #failures == 0 then
    return ("%d of %d answer, %s"):format(count, count, now.ca_file and "trusting " .. now.ca_file or "with the system's CAs")
  end
  table.sort(failures)
  fail(table.concat(failures, "; "), "check region, proxy (https_proxy, no_proxy) and certificates (EIRUN_CA_FILE); inside a VPC "
    .. "its own endpoints (ALIBABA_CLOUD_ENDPOINT_TYPE=vpc)")
end

-- Without an id: the only cluster of the region.
local function only_cluster()
  local answer = cloud.call { product = "cs", action = "DescribeClustersV1", query = { page_size = 50 } }
  local names = {}
  for i, one in ipairs(answer.clusters or {}) do names[i] = ("%s (%s)"):format(one.cluster_id, one.name or "?") end
  if #names == 1 then return answer.clusters[1].cluster_id end
  local region = target.current().region
  if #names == 0 then fail("there is no cluster in region " .. region, "is it the right region? --region") end
  fail(("region %s has %d clusters"):format(region, #names), "name one: cluster=ID, of " .. list(names))
end

function M.cluster(state)
  local ack = require "eirun.ack"
  state.cluster = state.cluster or only_cluster()
  state.ack = ack.cluster(state.cluster)
  state.cluster = state.ack.id
  local detail = state.ack:describe()
  state.detail = detail
  local text = ("%s '%s', %s"):format(state.cluster, detail.name or "?", detail.state or "?")
  if detail.state ~= "running" then fail(text, "wait until the cluster is running") end
  return text
end

function M.versions(state)
  local version = state.detail.current_version or "?"
  local minor = tonumber(version:match("^1%.(%d+)"))
  local text = ("eirun %s, Kubernetes %s"):format(require("eirun.core.build").version, version)
  if minor and minor < 23 then fail(text .. ": autoscaling/v2 is served from 1.23 on", "upgrade the cluster") end
  return text
end

-- Permissions ---------------------------------------------------------------------------------------------------------

-- { product, action, arguments }; those of the container service take the cluster.
local function reads_of(state)
  local cluster = { ClusterId = state.cluster }
  local reads = {
    { "cs", "DescribeClusterDetail", params = cluster }, { "cs", "DescribeClusterNodePools", params = cluster },
    { "cs", "DescribeClusterNodes", params = cluster }, { "cs", "ListClusterAddonInstances", params = cluster },
    { "cs", "DescribeUserQuota" }, { "cs", "DescribeClusterUserKubeconfig", params = cluster, query = { TemporaryDurationMinutes = 15 } },
    { "ess", "DescribeScalingGroups" }, { "ecs", "DescribeInstances" }, { "ecs", "DescribeSpotAdvice" },
    { "ecs", "DescribeAvailableResource", query = { DestinationResource = "InstanceType" } }, { "vpc", "DescribeVSwitches" },
  }
  return reads
end

local function try(read)
  return permissions.try(read[1], read[2], function()
    cloud.call { product = read[1], action = read[2], params = read.params, query = read.query, add_region = true, attempts = 2,
      timeout = 30 }
  end) or false
end

function M.reads(state)
  local reads, refused = reads_of(state), {}
  for _, err in pairs(task.map(reads, try, 4)) do
    if err then refused[#refused + 1] = err.action end
  end
  table.sort(refused)
  if #refused == 0 then return ("%d of %d reads are allowed"):format(#reads, #reads) end
  fail("refused: " .. list(refused), "grant these RAM actions to " .. (state.identity or {}).Arn)
end

function M.writes(state)
  local writes = state.needs.writes
  if #writes == 0 then return "the playbook writes nothing to the cloud" end
  local documents, why = permissions.policies(state.identity)
  if documents == true then return ("%d writes: the account itself may do everything"):format(#writes) end
  if not documents then
    unknown("whether these are allowed cannot be seen: " .. list(writes) .. " (" .. why .. ")",
      "grant ram:ListPoliciesForUser and ram:GetPolicy, or try")
  end
  local denied, open = {}, {}
  for _, action in ipairs(writes) do
    local verdict = permissions.judge(documents, action)
    if verdict ~= "allowed" then table.insert(verdict == "denied" and denied or open, action) end
  end
  if #denied > 0 then fail("not allowed: " .. list(denied), "grant these RAM actions to " .. state.identity.Arn) end
  if #open > 0 then unknown("conditions or narrow resources decide: " .. list(open)) end
  return ("%d writes are allowed: %s"):format(#writes, list(writes))
end

function M.roles(state)
  if #state.needs.roles == 0 then return "none is needed" end
  local missing = {}
  for _, name in ipairs(state.needs.roles) do
    local ok, err = pcall(cloud.rpc, "ram", "GetRole", { RoleName = name }, "role '" .. name .. "'")
    if not ok and errors.is(err, "not_found") then
      missing[#missing + 1] = name
    elseif not ok then
      unknown(errors.from(err).message, "grant ram:GetRole to see it")
    end
  end
  if #missing > 0 then
    fail("missing: " .. list(missing), "open the cluster's auto scaling page once: it asks to create the service role")
  end
  return list(state.needs.roles)
end

-- Room ----------------------------------------------------------------------------------------------------------------

local function vswitch_ids(state, pool)
  return #pool.vswitches > 0 and pool.vswitches or state.detail.vswitch_ids or {}
end

local function vswitches(state)
  if not state.vswitches then
    local found = {}
    for _, one in ipairs(cloud.all { product = "vpc", action = "DescribeVSwitches", add_region = true,
      query = { VpcId = state.detail.vpc_id } }.VSwitches.VSwitch) do
      found[one.VSwitchId] = one
    end
    state.vswitches = found
  end
  return state.vswitches
end

function M.addresses(state)
  if #state.needs.pools == 0 then return "no node pool is named" end
  local known, texts = vswitches(state), {}
  for _, pool in ipairs(state.needs.pools) do
    local free, gone = 0, {}
    for _, id in ipairs(vswitch_ids(state, pool)) do
      if known[id] then free = free + (known[id].AvailableIpAddressCount or 0) else gone[#gone + 1] = id end
    end
    local what = ("node pool '%s': %d addresses free for %d nodes"):format(pool.name, free, pool.max)
    if #gone > 0 then
      fail(("node pool '%s': no vSwitch %s in VPC %s"):format(pool.name, list(gone), state.detail.vpc_id or "?"), "correct the ids")
    end
    if free < math.max(pool.max, 1) then fail(what, "add a vSwitch (vswitch_ids), or free addresses") end
    texts[#texts + 1] = what
  end
  return table.concat(texts, "; ")
end

function M.quota(state)
  local quota = cloud.cs("DescribeUserQuota")
  local wanted = 0
  for _, pool in ipairs(state.needs.pools) do wanted = wanted + pool.max end
  local have, limit = state.detail.size or 0, quota.node_quota or math.huge
  local pools = #(cloud.cs("DescribeClusterNodePools", { ClusterId = state.cluster }).nodepools or {})
  local text = ("%d nodes and %d at most to come, of %s; %d node pools of %s"):format(have, wanted, limit, pools,
    quota.cluster_nodepool_quota or "?")
  if have + wanted > limit then fail(text, "ask for a higher node quota in Quota Center, or lower autoscale.max") end
  if pools >= (quota.cluster_nodepool_quota or math.huge) then
    fail(text, "delete a node pool, or ask for a higher quota in Quota Center")
  end
  return text
end

local function sold(answer, types)
  local found = {}
  for _, zone in ipairs((answer.AvailableZones or {}).AvailableZone or {}) do
    for _, resource in ipairs((zone.AvailableResources or {}).AvailableResource or {}) do
      for _, entry in ipairs((resource.SupportedResources or {}).SupportedResource or {}) do
        if entry.Status == "Available" and types[entry.Value] then found[zone.ZoneId .. "/" .. entry.Value] = true end
      end
    end
  end
  return found
end

local function stock_of(state, pool)
  local types, zones, pairs_, have = {}, {}, 0, { 0, 0 }
  for _, name in ipairs(pool.types) do types[name] = true end
  for _, id in ipairs(vswitch_ids(state, pool)) do zones[(vswitches(state)[id] or {}).ZoneId or "?"] = true end
  for at, strategy in ipairs { "NoSpot", "SpotAsPriceGo" } do
    local found = sold(cloud.rpc("ecs", "DescribeAvailableResource", { DestinationResource = "InstanceType", SpotStrategy = strategy,
      IoOptimized = "optimized" }), types)
    pairs_ = 0
    for zone in pairs(zones) do
      for name in pairs(types) do
        pairs_ = pairs_ + 1
        if found[zone .. "/" .. name] then have[at] = have[at] + 1 end
      end
    end
  end
  return have[1], have[2], pairs_
end

function M.stock(state)
  local texts = {}
  for _, pool in ipairs(state.needs.pools) do
    if #pool.types > 0 then
      local on_demand, spot, all = stock_of(state, pool)
      local text = ("node pool '%s': of %d pairs of type and zone %d are sold on demand, %d as spot"):format(pool.name, all, on_demand,
        spot)
      local hint = "add instance types or zones: `eirun cloud call ecs DescribeSpotAdvice` lists what can be had"
      if on_demand + spot == 0 then fail(text, hint) end
      if pool.spot and spot == 0 then fail(text, hint .. "; without spot only on-demand nodes come") end
      texts[#texts + 1] = text
    end
  end
  return #texts > 0 and table.concat(texts, "; ") or "no instance types are named"
end

-- In the cluster ------------------------------------------------------------------------------------------------------

function M.addons(state)
  local installed, missing, broken = {}, {}, {}
  for _, addon in ipairs(cloud.cs("ListClusterAddonInstances", { ClusterId = state.cluster }).addons
    or {}) do installed[addon.name] = addon end
  for _, name in ipairs(state.needs.addons) do
    local addon = installed[name]
    if not addon then missing[#missing + 1] = name elseif addon.state ~= "active" then
      broken[#broken + 1] = name .. " is " .. tostring(addon.state)
    end
  end
  if #missing > 0 then
    fail("not installed: " .. list(missing), 'cluster:ensure_addon { name = "' .. missing[1] .. '" } in a playbook, or the console')
  end
  if #broken > 0 then fail(list(broken), "look at the add-on's pods in kube-system") end
  return #state.needs.addons > 0 and list(state.needs.addons) or "none is needed"
end

function M.logs(state)
  if not state.needs.logs then return "not needed" end
  local project = "k8s-log-" .. state.cluster
  local now = task.now()
  require("eirun.sls").query { project = project, logstore = "nginx-ingress", from = now - 60, to = now, query = "*", line = 1,
    timeout = 15 }
  return project .. "/nginx-ingress answers"
end

function M.buckets(state)
  for _, name in ipairs(state.needs.buckets) do require("eirun.oss").bucket(name):list { max = 1 } end
  return #state.needs.buckets > 0 and list(state.needs.buckets) or "none is needed"
end

function M.kubernetes(state)
  local nodes = require("eirun.kube").connect(state.ack):list("Node")
  local ready = 0
  for _, node in ipairs(nodes) do
    for _, condition in ipairs((node.status or {}).conditions or {}) do
      if condition.type == "Ready" and condition.status == "True" then ready = ready + 1 end
    end
  end
  local text = ("%d of %d nodes are ready"):format(ready, #nodes)
  if ready == 0 then fail(text, "the system's pods need a node: look at the pool 'default'") end
  return text
end

-- name, needs these to have passed
M.order = {
  { "credentials" }, { "clock", "credentials" }, { "endpoints" }, { "cluster" }, { "versions", "cluster" },
  { "reads", "credentials", "cluster" }, { "writes", "credentials" }, { "roles", "credentials" }, { "addresses", "cluster" },
  { "quota", "cluster" }, { "stock", "cluster" }, { "addons", "cluster" }, { "logs", "cluster" }, { "buckets", "credentials" },
  { "kubernetes", "cluster" },
}


return M
