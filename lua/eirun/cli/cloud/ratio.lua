-- SPDX-License-Identifier: Apache-2.0
-- eirun cloud ratio POOL: is the share of on-demand instances kept? A line of cron: exit code 4 when it is not.
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local term = require "eirun.core.term"

local MISSED = 4

local function usage(text)
  errors.raise("invalid", text, { code = "usage" })
end

local function tolerance_of(text)
  if text == nil then return nil end
  local number = tonumber(text)
  if not number or number < 0 then usage(("--tolerance is a number of instances, not '%s'"):format(text)) end
  return number
end

-- Without --cluster: the sandbox's own, or the only one of the region.
local function cluster_id(options)
  if options.cluster then return options.cluster end
  local now = require("eirun.target").current()
  if now.cluster then return now.cluster end
  local list = require("eirun.cloud").cs("DescribeClustersV1", {}, { query = { page_size = 50, region_id = now.region } }).clusters or {}
  if #list == 1 then return list[1].cluster_id end
  local names = {}
  for i, one in ipairs(list) do names[i] = ("%s (%s)"):format(one.cluster_id, one.name) end
  usage(#list == 0 and ("region %s has no cluster"):format(now.region) or "which cluster? --cluster one of " .. table.concat(names, ", "))
end

-- By its name, or by its id (np...), which is what reports and tags hold.
local function find(cluster, word)
  local pool = cluster:node_pool(word)
  if pool then return pool end
  local names = {}
  local answer = require("eirun.cloud").cs("DescribeClusterNodePools", { ClusterId = cluster.id })
  for _, one in ipairs(answer.nodepools or {}) do
    local info = one.nodepool_info
    if info.nodepool_id == word then return cluster:node_pool(info.name) end
    names[#names + 1] = info.name
  end
  table.sort(names)
  errors.raise("not_found", ("cluster %s has no node pool '%s'"):format(cluster.id, word),
    { object = ("node pool '%s'"):format(word), hint = "it has " .. table.concat(names, ", ") })
end

-- The fourth count; a cron line without a way into the cluster still watches the other three.
local function connect(cluster)
  local ok, k8s = pcall(function()
    local client = require("eirun.kube").connect(cluster)
    client:list("Node", { limit = 1 })
    return client
  end)
  if ok then return k8s end
  if errors.is(k8s, "cancelled") then error(k8s, 0) end
  return nil, errors.text(k8s)
end

local function zones_text(zones)
  local parts = {}
  for _, zone in ipairs(require("eirun.resource").sorted_keys(zones or {})) do
    parts[#parts + 1] = ("%s %d+%d"):format(zone, zones[zone].on_demand, zones[zone].spot)
  end
  return table.concat(parts, ", ")
end

local sources = { { "group", "scaling group" }, { "members", "its members" }, { "instances", "ECS instances" }, { "nodes", "Ready nodes" } }

local function rule_lines(found, add)
  if found.asked then
    add("%-10s %d on-demand first, then %d%% of the rest", "asked", found.asked.base, found.asked.percent)
  else
    add("%-10s on-demand only", "asked")
  end
  add("%-10s %.1f on-demand, %.1f spot", "expected", found.expected.on_demand, found.expected.spot)
  add("%-10s %d on-demand, %d spot: %.1f%% on demand, %s (tolerance %g)", "observed", found.observed.on_demand, found.observed.spot,
    found.observed.percent, found.kept and "kept" or "NOT KEPT", found.tolerance)
end

local function source_lines(found, add)
  add("%-16s %9s %5s  zones (on-demand+spot)", "counted by", "on-demand", "spot")
  for _, source in ipairs(sources) do
    local counts = found.counts[source[1]]
    if counts then add("%-16s %9d %5d  %s", source[2], counts.on_demand, counts.spot, zones_text(found.by_zone[source[1]])) end
  end
  if found.nodes_why then add("%-16s not counted: %s", "Ready nodes", found.nodes_why) end
end

local function text_of(found)
  local lines = {}
  local function add(format, ...) lines[#lines + 1] = (format:format(...):gsub("%s+$", "")) end
  add("node pool '%s' (%s) of cluster %s: %d instances in service", found.pool, found.id, found.cluster, found.total)
  rule_lines(found, add)
  source_lines(found, add)
  for _, difference in ipairs(found.differences) do add("%-10s %s", "DISAGREE", difference) end
  for _, reason in ipairs(found.reasons) do add("%-10s %s: %s", "because", reason.reason, reason.text) end
  return table.concat(lines, "\n") .. "\n"
end

---@param options table
---@param given string[]
---@return integer exit_code 0 kept, 4 not
return function(options, given)
  local word = given[1] or usage "which node pool? eirun cloud ratio POOL, its name or its id"
  if given[2] then usage(("one node pool at a time: what is '%s'?"):format(given[2])) end
  local tolerance = tolerance_of(options.tolerance)
  local _ <close> = require("eirun.cli.cloud.open")(options, { identify = false })
  local cluster = require("eirun.ack").cluster(cluster_id(options))
  local pool = find(cluster, word)
  local k8s, why = connect(cluster)
  local found = pool:ratio { k8s = k8s, tolerance = tolerance }
  found.pool, found.id, found.cluster, found.nodes_why = pool.name, pool.id, cluster.id, why
  found.reasons, found.differences = json.array(found.reasons), json.array(found.differences)
  local text = options.output == "json" and json.encode(found, { indent = term.isatty(1) }) .. "\n" or text_of(found)
  term.write(1, text)
  return found.kept and 0 or MISSED
end
