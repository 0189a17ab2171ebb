-- SPDX-License-Identifier: Apache-2.0
-- Each write call of a node pool's life is failed once in each of eleven ways, and asked for again; the twelfth, a killed
-- process, takes two runs: way=kill dies, way=again repairs. The result is the table.
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local json = require "eirun.json"
local play = require "eirun.play"
local sandbox = require "eirun.sandbox"
local task = require "eirun.task"

local ways = {
  { "refused", { kind = "error", status = 400, code = "ErrorClusterState", message = "the cluster is busy" } },
  { "throttled", { kind = "throttle" } },
  { "500", { kind = "error", status = 500, code = "InternalError", message = "an internal error occurred" } },
  { "503 HTML", { kind = "html", status = 503 } },
  { "reset before send", { kind = "reset" } },
  { "reset after commit", { kind = "reset_after_commit" } },
  { "time-out after commit", { kind = "timeout_after_commit" } },
  { "truncated body", { kind = "truncate" } },
  { "wrong JSON", { kind = "wrong_json" } },
  { "expired token", { kind = "expired_token" } },
  { "permission lost", { kind = "permission_lost" } },
  { "kill", { kind = "kill" } },
}

local function scaler(seconds)
  return ack.cluster():ensure_autoscaling { scaler = "cluster-autoscaler", scan_interval = seconds }
end

local detector = "ack-node-problem-detector"

local function detector_of(version)
  return ack.cluster():ensure_addon { name = detector, version = version }
end

local function addon(config)
  return ack.cluster():ensure_addon { name = "arms-prometheus", config = config }
end

local function without_addon(name)
  local ok, answer = pcall(cloud.cs, "UnInstallClusterAddons", { ClusterId = ack.cluster().id }, { body = json.array { { name = name } } })
  if not ok and answer.kind ~= "not_found" then error(answer, 0) end
  task.sleep(60)
end

local function pool(name, percent, min)
  return ack.cluster():ensure_node_pool { name = name, instance_types = { "ecs.gn6i-c4g1.xlarge", "ecs.gn7i-c8g1.2xlarge" },
    vswitch_ids = { "vsw-bp1eirunh", "vsw-bp1eiruni" }, autoscale = { min = min or 1, max = 3 },
    spot = { on_demand_percent = percent or 30 } }
end

local function delete(name, opts)
  local found = ack.cluster():node_pool(name)
  return found and found:delete(opts) or "unchanged"
end

-- A pool whose deletion was refused once, as by a protection that somebody set in the console.
local function stuck(name)
  pool(name)
  sandbox.fault { kind = "delete_failed", service = "CS", action = "DeleteClusterNodepool" }
end

local function protected(name)
  sandbox.fault { kind = "protect", id = pool(name):instances()[1].id }
end

-- prepare: what has to be there; write: the verb under test, which calls `action`, and converges when it is called again; pools: how many
-- of that name there are afterwards.
local writes = {
  { name = "switch autoscaling on", service = "CS", action = "CreateAutoscalingConfig", pools = 0,
    prepare = function() scaler(15) end, write = function() scaler(30) end },
  { name = "install an add-on", service = "CS", action = "InstallClusterAddons", pools = 0,
    prepare = function() without_addon "arms-prometheus" end, write = function() addon() end },
  { name = "upgrade an add-on", service = "CS", action = "UpgradeClusterAddons", pools = 0,
    prepare = function()
      without_addon(detector)
      detector_of "1.2.20"
    end, write = function() detector_of "1.2.24" end },
  { name = "configure an add-on", service = "CS", action = "ModifyClusterAddon", pools = 0,
    prepare = function() addon { retention = 1 } end, write = function() addon { retention = 2 } end },
  { name = "create the pool", service = "CS", action = "CreateClusterNodePool", pools = 1,
    prepare = function() end, write = function(name) pool(name) end },
  { name = "change its ratio", service = "CS", action = "ModifyClusterNodePool", pools = 1,
    prepare = pool, write = function(name) pool(name, 50) end },
  { name = "change its size", service = "CS", action = "ModifyClusterNodePool", pools = 1,
    prepare = pool, write = function(name) pool(name, 30, 2) end },
  { name = "take the scaler off it", service = "CS", action = "ModifyClusterNodePool", pools = 0, prepare = pool, write = delete },
  { name = "empty its nodes", service = "CS", action = "RemoveNodePoolNodes", pools = 0, prepare = pool, write = delete },
  { name = "take protection off nodes", service = "ESS", action = "SetInstancesProtection", pools = 0,
    prepare = protected, write = delete },
  { name = "delete the pool", service = "CS", action = "DeleteClusterNodepool", pools = 0, prepare = pool, write = delete },
  { name = "repair a stuck deletion", service = "ESS", action = "ModifyScalingGroup", pools = 0, prepare = stuck, write = delete },
}

-- What is wrong with the world now: doubles, groups without a pool, instances of nobody.
local function trouble(name, wanted)
  local id = ack.cluster().id
  local known, same, list = {}, 0, {}
  for _, one in ipairs(cloud.cs("DescribeClusterNodePools", { ClusterId = id }).nodepools) do
    known[one.scaling_group.scaling_group_id] = true
    if one.nodepool_info.name == name then same = same + 1 end
  end
  if same ~= wanted then list[1] = ("%d pools called %s"):format(same, name) end
  for _, group in ipairs(cloud.rpc("ess", "DescribeScalingGroups", { PageSize = 50 }).ScalingGroups) do
    if not known[group.ScalingGroupId] then list[#list + 1] = "scaling group " .. group.ScalingGroupId .. " of no pool" end
  end
  for _, one in ipairs(cloud.rpc("ecs", "DescribeInstances", { MaxResults = 100 }).Instances.Instance) do
    local group
    for _, tag in ipairs(one.Tags.Tag) do if tag.TagKey == "acs:autoscaling:scalingGroupId" then group = tag.TagValue end end
    if not known[group or ""] then list[#list + 1] = "instance " .. one.InstanceId .. " of no pool" end
  end
  return #list > 0 and table.concat(list, ", ") or nil
end

local function fault_for(write, way)
  local fault = { service = write.service, action = write.action }
  for key, value in pairs(way[2]) do fault[key] = value end
  if fault.code == "ErrorClusterState" and write.service == "ESS" then fault.code = "IncorrectScalingGroupStatus" end
  return fault
end

-- An error is clear when it names the object or the call and says why.
local function unclear(err)
  if not errors.is(err) then return "no error of ours: " .. tostring(err) end
  if not (err.operation or err.object) then return "names nothing: " .. err.message end
end

local function in_words(ok, err)
  return ok and "done" or (errors.is(err) and (err.code or err.kind) or tostring(err))
end

local function try(write, way, name)
  write.prepare(name)
  sandbox.fault(fault_for(write, way))
  local ok, err = pcall(write.write, name)
  if #sandbox.status().faults > 0 then return { bad = "the fault was never met" } end
  local bad = not ok and unclear(err) or nil
  local again, second = pcall(write.write, name)
  sandbox.clear()
  bad = bad or not again and ("ran again: " .. tostring(second)) or trouble(name, write.pools)
  delete(name)
  return { first = in_words(ok, err), second = in_words(again, second), bad = bad }
end

local function table_of()
  local rows = json.array {}
  for number, write in ipairs(writes) do
    for _, way in ipairs(ways) do
      if way[1] ~= "kill" then
        local cell = try(write, way, ("f-%d"):format(number))
        cell.write, cell.way = write.name, way[1]
        rows[#rows + 1] = cell
      end
    end
  end
  return rows
end

local function kill(write, name)
  write.prepare(name)
  sandbox.fault(fault_for(write, ways[#ways]))
  write.write(name)
  return { bad = "nobody was killed" }
end

local function again(write, name)
  write.write(name)
  return { first = "killed", second = "done", bad = trouble(name, write.pools), write = write.name, way = "process killed" }
end

return play.book {
  name = "failures",
  args = {
    way = play.string { default = "all", help = "all, kill or again" },
    number = play.integer { default = 1, help = "which write call, for kill and again" },
  },
  run = function(p, arg)
    local write, rows = writes[arg.number], nil
    p:step(arg.way, function()
      scaler(15)
      if arg.way == "kill" then rows = json.array { kill(write, "killed") } end
      if arg.way == "again" then rows = json.array { again(write, "killed") } end
      rows = rows or table_of()
    end)
    p:report { rows = rows, writes = #writes }
  end,
}
