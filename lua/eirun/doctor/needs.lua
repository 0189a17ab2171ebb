-- SPDX-License-Identifier: Apache-2.0
-- What a playbook will need, found by running it with a library that only notes what it is asked for.
local args = require "eirun.play.args"
local clock = require "eirun.core.clock"
local load_book = require "eirun.play.load"

local M = {}

-- call of the library -> what it needs of the account
local rules = {
  ensure_autoscaling = { writes = { "cs:CreateAutoscalingConfig" }, roles = { "AliyunCSManagedAutoScalerRole" }, autoscaling = true },
  ensure_node_pool = { writes = { "cs:CreateClusterNodePool", "cs:ModifyClusterNodePool" }, pool = true },
  ensure_addon = { writes = { "cs:InstallClusterAddons", "cs:UpgradeClusterAddons", "cs:ModifyClusterAddon" } },
  ensure_tree = { writes = { "oss:PutObject" } },
  sync = { writes = { "oss:PutObject" } },
  ensure_oss_volume = { addons = { "csi-plugin", "csi-provisioner" } },
  ensure_ingress = { addons = { "nginx-ingress-controller" } },
  ensure_hpa = { hpa = true },
  ingress_log = { logs = true },
}

local function add(list, items)
  for _, item in ipairs(items or {}) do
    if not list[item] then
      list[item], list[#list + 1] = true, item
    end
  end
end

local function known(value)
  return value ~= require("eirun.spec").unknown and value or nil
end

local function strings(value)
  local list = {}
  for _, item in ipairs(type(known(value)) == "table" and value or {}) do
    if type(item) == "string" then list[#list + 1] = item end
  end
  return list
end

local function number(value)
  return math.type(value) and value or nil
end

local function note_pool(needs, given)
  if type(given) ~= "table" then return end
  local scale = type(known(given.autoscale)) == "table" and given.autoscale or {}
  needs.pools[#needs.pools + 1] = { name = type(given.name) == "string" and given.name or "?", types = strings(given.instance_types),
    vswitches = strings(given.vswitch_ids), spot = given.spot ~= nil, max = number(scale.max) or number(given.size) or 0 }
end

local function note_hpa(needs, given)
  local external = type(given) == "table" and type(known(given.external)) == "table" and given.external
  if not external then return end
  add(needs.addons, { "ack-alibaba-cloud-metrics-adapter" })
  if tostring(external.metric):find("^sls_") then
    add(needs.addons, { "logtail-ds" })
    needs.logs = true
  end
end

local function observer(needs)
  return function(call, ...)
    local rule, last = rules[call], select(select("#", ...) > 0 and select("#", ...) or 1, ...)
    if call == "eirun.oss.bucket" and type((...)) == "string" then add(needs.buckets, { (...) }) end
    if call == "eirun.ack.cluster" and type((...)) == "string" then needs.cluster = (...) end
    if not rule then return end
    add(needs.writes, rule.writes)
    add(needs.roles, rule.roles)
    add(needs.addons, rule.addons)
    needs.autoscaling, needs.logs = needs.autoscaling or rule.autoscaling, needs.logs or rule.logs
    if rule.pool then note_pool(needs, last) end
    if rule.hpa then note_hpa(needs, last) end
  end
end

---What is needed without a playbook.
---@return table
function M.none()
  return { writes = {}, roles = {}, addons = {}, pools = {}, buckets = {} }
end

local function silent()
  return setmetatable({}, { __index = function() return function() end end })
end

-- The recorders stand in for the library while the playbook runs; the doctor itself wants the real one again.
local function with_recorders(fn)
  local target, spec = require "eirun.target", require "eirun.spec"
  local current, client, check, unknown = target.current, target.http, spec.check, spec.unknown
  clock.use("virtual", os.time()) -- a playbook that sleeps is read at once
  local ok, err = pcall(fn)
  clock.use "real"
  target.current, target.http, spec.check, spec.unknown = current, client, check, unknown
  if not ok then error(err, 0) end
end

---@param path string
---@param options table of the command line
---@param words string[]
---@return table needs writes, roles, addons, buckets (lists and sets), pools, logs, autoscaling, cluster
---@return table values the playbook's arguments
---@return string[] missing arguments without a value
---Raises what loading the playbook raises.
function M.of(path, options, words)
  local needs, values, missing = M.none(), nil, nil
  with_recorders(function()
    local book = load_book.playbook(path, require("eirun.check.recorder").install(observer(needs)))
    values = args.resolve(book, load_book.layers(book, options, words))
    missing = args.missing(book, values)
    if #missing == 0 then pcall(require("eirun.play.run").run, book, values, silent()) end
  end)
  return needs, values, missing
end

return M
