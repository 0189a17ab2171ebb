-- SPDX-License-Identifier: Apache-2.0
-- What a ResourceQuota refuses, in the API server's words, and what it tells about its use: the emulated server or a real one.
local json = require "eirun.core.json"
local lib = require "lib_kube"
local t = require "eirun.test"

local NS = "/api/v1/namespaces/default/"
local PODS, QUOTAS = NS .. "pods", NS .. "resourcequotas"

-- A quota whose use the controllers have told: before that a real server refuses all that it is about.
local function limit(p, hard, more)
  local spec = { hard = hard }
  for key, v in pairs(more or {}) do spec[key] = v end
  p:ok("POST", QUOTAS, { metadata = { name = "q" }, spec = spec })
  t.ok(p:until_(function() return (p:ok("GET", QUOTAS .. "/q").status or {}).used end), "the quota tells its use")
end

local function used(p) return p:ok("GET", QUOTAS .. "/q").status.used end

local function container(requests, limits, name)
  return { name = name or "main", image = "nginx", resources = { requests = requests, limits = limits } }
end

local function pod(name, containers, more)
  local spec = { containers = json.array(containers), terminationGracePeriodSeconds = 0 }
  for key, v in pairs(more or {}) do spec[key] = v end
  return { metadata = { name = name }, spec = spec }
end

local function refused(p, path, body)
  local status, answer = p:call("POST", path, body)
  t.eq({ status, answer.reason }, { 403, "Forbidden" }, json.encode(answer))
  return answer.message
end

t.test("pods_beyond_a_quota_are_refused", function()
  local p = lib.new()
  limit(p, { pods = "2", ["requests.cpu"] = "1", ["requests.nvidia.com/gpu"] = 1 })
  p:ok("POST", PODS, pod("a", { container({ cpu = "600m" }) }))
  p:becomes("600m", function() return used(p)["requests.cpu"] end)
  t.eq(refused(p, PODS, pod("b", { container({ cpu = "500m" }) })),
    'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1')
  t.eq(refused(p, PODS, pod("b", { container({ cpu = "100m", ["nvidia.com/gpu"] = 2 }, { ["nvidia.com/gpu"] = 2 }) })),
    'pods "b" is forbidden: exceeded quota: q, requested: requests.nvidia.com/gpu=2, used: requests.nvidia.com/gpu=0, '
      .. "limited: requests.nvidia.com/gpu=1")
  p:ok("POST", PODS, pod("b", { container({ cpu = "200m" }) }))
  t.eq(refused(p, PODS, pod("c", { container({ cpu = "500m" }) })),
    'pods "c" is forbidden: exceeded quota: q, requested: pods=1,requests.cpu=500m, used: pods=2,requests.cpu=800m, '
      .. "limited: pods=2,requests.cpu=1")
  t.eq(refused(p, PODS .. "?dryRun=All", pod("c", { container({ cpu = "100m" }) })),
    'pods "c" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2')
end)

t.test("a_pod_that_does_not_say_what_is_limited_is_refused", function()
  local p = lib.new()
  limit(p, { ["limits.cpu"] = "4", ["requests.memory"] = "1Gi" })
  t.eq(refused(p, PODS, pod("a", { container(nil, nil, "one"), container({ memory = "1Mi" }, nil, "two") })),
    'pods "a" is forbidden: failed quota: q: must specify limits.cpu for: one,two; requests.memory for: one')
  p:ok("POST", PODS, pod("a", { container({ memory = "256Mi" }, { cpu = "1" }) }))
  p:becomes({ ["limits.cpu"] = "1", ["requests.memory"] = "256Mi" }, function() return used(p) end)
end)

t.test("the_use_follows_what_is_there", function()
  local p = lib.new()
  p:ok("POST", PODS, pod("a", { container({ cpu = "1500m", memory = "1536Mi" }) }))
  limit(p, { cpu = "2", memory = "4Gi", pods = "5", ["count/pods"] = "7", configmaps = "9" })
  local mine = used(p)
  t.eq({ mine.cpu, mine.memory, mine.pods, mine["count/pods"] }, { "1500m", "1536Mi", "1", "1" })
  t.eq(p:ok("GET", QUOTAS .. "/q").status.hard, { cpu = "2", memory = "4Gi", pods = "5", ["count/pods"] = "7", configmaps = "9" })
  p:ok("POST", PODS, pod("b", { container({ cpu = "250m", memory = "512Mi" }) },
    { initContainers = json.array { container({ cpu = "500m", memory = "1Mi" }, nil, "first") } }))
  p:becomes({ "2", "2Gi", "2" }, function() return { used(p).cpu, used(p).memory, used(p).pods } end)
  p:ok("DELETE", PODS .. "/a", { gracePeriodSeconds = 0 })
  p:becomes({ "500m", "512Mi", "1" }, function() return { used(p).cpu, used(p).memory, used(p).pods } end)
end)

t.test("objects_are_counted_too", function()
  local p = lib.new()
  limit(p, { ["count/deployments.apps"] = "0", secrets = "1" })
  p:ok("POST", NS .. "secrets", { metadata = { name = "a" } })
  t.eq(refused(p, NS .. "secrets", { metadata = { name = "b" } }),
    'secrets "b" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=1, limited: secrets=1')
  t.eq(refused(p, "/apis/apps/v1/namespaces/default/deployments", { metadata = { name = "web" }, spec = {
    selector = { matchLabels = { app = "web" } }, template = { metadata = { labels = { app = "web" } },
      spec = { containers = json.array { container() } } } } }),
    'deployments.apps "web" is forbidden: exceeded quota: q, requested: count/deployments.apps=1, used: count/deployments.apps=0, '
      .. "limited: count/deployments.apps=0")
end)

t.test("a_quota_of_a_scope_is_about_its_pods_alone", function()
  local p = lib.new()
  limit(p, { pods = "0" }, { scopes = json.array { "BestEffort" } })
  p:ok("POST", PODS, pod("a", { container({ cpu = "1m" }) }))
  t.match(refused(p, PODS, pod("b", { container() })), "exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0")
end)

t.test("a_controller_tells_the_quota_that_its_pods_meet", function()
  local p = lib.new()
  limit(p, { pods = "1" })
  p:ok("POST", "/apis/apps/v1/namespaces/default/deployments", { metadata = { name = "web" }, spec = { replicas = 2,
    selector = { matchLabels = { app = "web" } }, template = { metadata = { labels = { app = "web" } },
      spec = { containers = json.array { container() } } } } })
  local function failure()
    local one = p:ok("GET", "/apis/apps/v1/namespaces/default/deployments/web")
    for _, c in ipairs((one.status or {}).conditions or {}) do
      if c.type == "ReplicaFailure" then return { c.status, c.reason, (c.message:gsub('"web%-[%w-]+"', '"web-x"')) } end
    end
  end
  p:becomes({ "True", "FailedCreate",
    'pods "web-x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1' }, failure)
end)

t.test("controllers_of_other_kinds_tell_it_by_an_event", function()
  local p = lib.new()
  limit(p, { pods = "0" })
  local template = { metadata = { labels = { app = "web" } }, spec = { restartPolicy = "Never",
    containers = json.array { container() } } }
  p:ok("POST", "/apis/batch/v1/namespaces/default/jobs", { metadata = { name = "once" }, spec = { template = template } })
  template.spec.restartPolicy = "Always"
  p:ok("POST", "/apis/apps/v1/namespaces/default/statefulsets", { metadata = { name = "db" }, spec = { serviceName = "db",
    selector = { matchLabels = { app = "web" } }, template = template } })
  local function said(kind)
    return function()
      for _, event in ipairs(p:ok("GET", NS .. "events").items) do
        if event.involvedObject.kind == kind and event.reason == "FailedCreate" then
          return { event.type, (event.message:gsub('"once%-%w+"', '"once-x"')) }
        end
      end
    end
  end
  local why = "is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"
  p:becomes({ "Warning", 'Error creating: pods "once-x" ' .. why }, said "Job")
  p:becomes({ "Warning", 'Create Pod db-0 in StatefulSet db failed error: pods "db-0" ' .. why }, said "StatefulSet")
end)
