-- SPDX-License-Identifier: Apache-2.0
-- The doctor on a sandbox that is well, and on one that is broken in one place at a time.
local t = require "eirun.test"
local checks = require "eirun.doctor.checks"
local cloud = require "eirun.cloud"
local credentials = require "eirun.credentials"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local needs = require "eirun.doctor.needs"
local permissions = require "eirun.doctor.permissions"
local process = require "eirun.core.process"
local sandbox = require "sandbox_client"
local target = require "eirun.target"
local wire = require "eirun.wire"

local function pool(more)
  local made = { name = "gpu", types = { "ecs.gn6i-c4g1.xlarge" }, vswitches = { "vsw-bp1eirunh" }, spot = true, max = 3 }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

-- A state as the doctor has it once the cluster is known.
local function with_state(body)
  local box <close> = sandbox.start { parts = { "sandbox.control", "sandbox.cloud", "sandbox.sls" } }
  local undo = target.use { sandbox = true, region = "cn-hangzhou", account = box.info.account, namespace = "default",
    cluster = box.info.cluster_id, ca_file = box.info.ca_file, endpoints = {},
    credentials = credentials.static { access_key_id = box.info.access_key_id, access_key_secret = box.info.access_key_secret } }
  local state = { needs = needs.none(), cluster = box.info.cluster_id, box = box }
  local ok, err = pcall(function()
    checks.credentials(state)
    checks.cluster(state)
    body(state, box)
  end)
  undo()
  if not ok then error(err, 0) end
end

local function refused(check, state, words, hint)
  local err = t.err("invalid", function() checks[check](state) end)
  t.match(err.message, words)
  if hint then t.match(err.hint or "", hint) end
  return err
end

t.test("a_healthy_sandbox_passes_every_check_of_the_cloud", function()
  with_state(function(state)
    state.needs.pools[1] = pool()
    state.needs.writes = { "cs:CreateClusterNodePool" }
    state.needs.roles = { "AliyunCSManagedAutoScalerRole" }
    state.needs.addons, state.needs.logs = { "csi-plugin" }, true
    for _, row in ipairs(checks.order) do
      if row[1] ~= "kubernetes" then t.match(checks[row[1]](state), "%w", row[1]) end
    end
  end)
end)

t.test("each_thing_that_is_missing_is_named_with_its_remedy", function()
  with_state(function(state, box)
    state.needs.pools[1] = pool { vswitches = { "vsw-gone" } }
    refused("addresses", state, "no vSwitch vsw%-gone in VPC", "correct the ids")
    state.needs.pools[1] = pool { max = 5000 }
    refused("addresses", state, "409%d addresses free for 5000 nodes", "add a vSwitch")
    refused("quota", state, "2 nodes and 5000 at most to come, of 100", "Quota Center")
    state.needs.pools[1] = pool()
    state.needs.roles = { "NoSuchRole" }
    refused("roles", state, "missing: NoSuchRole", "service role")
    state.needs.addons = { "cluster-autoscaler", "csi-plugin" }
    refused("addons", state, "not installed: cluster%-autoscaler", "ensure_addon")
    t.eq(box:control("POST", "/faults", { kind = "stock_out", left = 0, market = "spot" }), 200)
    refused("stock", state, "1 are sold on demand, 0 as spot", "DescribeSpotAdvice")
    state.cluster = "c0"
    state.needs.logs = true
    t.match(t.err("not_found", function() checks.logs(state) end).hint, "log project made")
  end)
end)

t.test("an_endpoint_that_does_not_answer_is_named", function()
  with_state(function(state)
    target.current().endpoints = { ESS = "http://ess.nowhere.invalid" }
    refused("endpoints", state, "ess at http://ess.nowhere.invalid: ", "https_proxy")
  end)
end)

t.test("a_clock_that_is_off_is_measured_by_the_servers", function()
  local function reply(offset)
    return { headers = { get = function() return wire.gmt(require("eirun.task").now() + offset) end } }
  end
  t.match(checks.clock { reply = reply(5) }, "%d s off")
  refused("clock", { reply = reply(300) }, "clock is %d+ s behind$", "NTP")
  refused("clock", { reply = reply(-2000) }, "ahead; beyond 900 s every call is refused")
end)

-- A RAM user with these actions, and what the doctor says of the playbook's writes.
local function with_user(state, box, actions, body)
  local function ram(action, query) return assert(cloud.rpc("ram", action, query)) end
  ram("CreateUser", { UserName = "bob" })
  ram("CreatePolicy", { PolicyName = "own", PolicyDocument = json.encode { Version = "1", Statement = json.array {
    { Effect = "Allow", Action = json.array(actions), Resource = "*" } } } })
  ram("AttachPolicyToUser", { UserName = "bob", PolicyName = "own", PolicyType = "Custom" })
  local key = ram("CreateAccessKey", { UserName = "bob" }).AccessKey
  target.current().credentials = credentials.static { access_key_id = key.AccessKeyId, access_key_secret = key.AccessKeySecret }
  checks.credentials(state)
  body(box)
end

t.test("reads_are_tried_and_writes_judged_by_the_policies", function()
  with_state(function(state, box)
    with_user(state, box, { "sts:*", "cs:Describe*", "cs:List*", "cs:CreateClusterNodePool", "ram:List*", "ram:GetPolicy", "vpc:*",
      "ess:*" },
      function()
        state.needs.writes = { "cs:CreateClusterNodePool" }
        t.match(checks.writes(state), "1 writes are allowed")
        state.needs.writes = { "cs:CreateClusterNodePool", "cs:ModifyClusterNodePool" }
        refused("writes", state, "not allowed: cs:ModifyClusterNodePool$", "acs:ram::%d+:user/bob")
        refused("reads", state, "refused: ecs:DescribeAvailableResource, ecs:DescribeInstances, ecs:DescribeSpotAdvice", "user/bob")
        state.needs.roles = { "AliyunCSManagedAutoScalerRole" }
        t.eq(t.err("invalid", function() checks.roles(state) end).code, "unknown")
      end)
  end)
end)

t.test("policies_that_cannot_be_read_leave_it_unknown", function()
  with_state(function(state, box)
    with_user(state, box, { "sts:*", "cs:*" }, function()
      state.needs.writes = { "cs:CreateClusterNodePool" }
      t.eq(refused("writes", state, "cannot be seen: cs:CreateClusterNodePool", "ram:ListPoliciesForUser").code, "unknown")
    end)
  end)
end)

t.test("policies_are_judged_as_ram_does", function()
  local function judge(...) return permissions.judge({ { Statement = json.array { ... } } }, "cs:CreateClusterNodePool") end
  local all = { Effect = "Allow", Action = "cs:*", Resource = "*" }
  t.eq(judge(all), "allowed")
  t.eq(judge({ Effect = "Allow", Action = { "ecs:*", "CS:createCluster*" }, Resource = { "acs:cs:*:*:*" } }), "allowed")
  t.eq(judge({ Effect = "Allow", Action = "ecs:*", Resource = "*" }), "denied")
  t.eq(judge(all, { Effect = "Deny", Action = "cs:Create*", Resource = "*" }), "denied")
  t.eq(judge({ Effect = "Allow", Action = "*", Resource = "acs:cs:*:*:cluster/c9" }), "unknown")
  t.eq(judge({ Effect = "Allow", Action = "*", Resource = "*", Condition = {} }), "unknown")
  t.eq(judge(all, { Effect = "Deny", Action = "cs:*", Resource = "acs:cs:*:*:cluster/c9" }), "unknown")
  t.eq(permissions.judge({}, "cs:X"), "denied")
end)

-- The program itself ----------------------------------------------------------------------------------------------------

local program, folder = fs.realpath("/proc/self/exe"), assert(fs.mkdtemp "/tmp/eirun-cli-")

local function eirun(...)
  local words = { program, ... }
  words.timeout = 60
  return assert(process.run(words))
end

local BOOK = [[
local ack, kube, play, task = require "eirun.ack", require "eirun.kube", require "eirun.play", require "eirun.task"
return play.book { name = "x", args = { max = play.integer { required = true, help = "nodes" } }, run = function(p, arg)
  local cluster = ack.cluster()
  task.sleep(100000)
  p:step("pool", function()
    cluster:ensure_node_pool { name = "gpu", instance_types = { "ecs.gn6i-c4g1.xlarge" }, autoscale = { min = 0, max = arg.max } }
    kube.connect(cluster):ensure_oss_volume { name = "v", claim = "c", bucket = "eirun-sandbox-models" }
  end)
end }
]]

t.test("the_program_reads_the_playbook_and_tells_what_it_needs", function()
  local path, box = folder .. "/book.lua", "--sandbox=" .. folder .. "/sandbox"
  assert(fs.write(path, BOOK))
  local well = eirun("doctor", box, path, "max=3", "--output", "json")
  t.eq(well.code, 0, well.stdout .. well.stderr)
  local told = assert(json.decode(well.stdout))
  t.eq({ told.failed, #told.checks }, { 0, 17 })
  local by_name = {}
  for _, row in ipairs(told.checks) do by_name[row.check] = row end
  t.match(by_name.addresses.detail, "node pool 'gpu': %d+ addresses free for 3 nodes")
  t.match(by_name.addons.detail, "csi%-plugin, csi%-provisioner")
  local many = eirun("doctor", box, path, "max=500")
  t.eq(many.code, 1)
  t.match(many.stdout, "FAIL   quota  .*500 at most to come, of 100.*\n       %-> ask for a higher node quota")
  local without = eirun("doctor", box, path)
  t.match(without.stdout, "FAIL   playbook     arguments without a value: max\n       %-> give them as key=value")
  local line = eirun("doctor", box, path, "--output", "jsonl").stdout:match("^[^\n]+")
  t.eq(json.decode(line).status, "fail")
end)

t.test("an_addon_that_is_gone_is_found_by_the_program", function()
  local path, box = folder .. "/book.lua", "--sandbox=" .. folder .. "/sandbox"
  assert(fs.write(folder .. "/gone.json", '[{"name":"csi-provisioner"}]'))
  local gone = eirun("cloud", "call", "cs", "UnInstallClusterAddons", "ClusterId=c210fbedb96674b9eaf15f2dc47d169a8", box, "--body",
    folder .. "/gone.json")
  t.eq(gone.code, 0, gone.stderr)
  local run
  for _ = 1, 5 do
    run = eirun("doctor", box, path, "max=1")
    if run.code == 1 then break end
  end
  t.match(run.stdout, "FAIL   addons       .*csi%-provisioner")
end)

t.test("clean_up", function()
  fs.remove(folder, { recursive = true })
end)
