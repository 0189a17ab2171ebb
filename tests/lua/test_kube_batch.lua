-- SPDX-License-Identifier: Apache-2.0
-- Jobs, CronJobs, DaemonSets and StatefulSets.
local t = require "eirun.test"
local cron = require "sandbox.kube.cron"
local json = require "eirun.core.json"
local lib = require "lib_kube"

local PODS = "/api/v1/namespaces/default/pods"
local JOBS = "/apis/batch/v1/namespaces/default/jobs"
local PATIENT = { lag = { node_lease = 1e6 } }

local function pods(plane)
  return plane:ok("GET", PODS).items
end

local function names_of(list, wanted)
  local names = {}
  for _, item in ipairs(list) do
    if not wanted or wanted(item) then names[#names + 1] = item.metadata.name end
  end
  return names
end

local function template(more)
  return { metadata = { labels = { app = "x" } }, spec = { restartPolicy = more and more.restart,
    containers = json.array { { name = "c", image = "i:1" } } } }
end

local function end_pod(plane, pod, phase)
  plane:patch("merge", PODS .. "/" .. pod.metadata.name .. "/status", { status = { phase = phase } })
  plane:settle()
end

local function condition(obj, type)
  for _, c in ipairs(obj.status.conditions or {}) do
    if c.type == type then return c end
  end
end

local function start_job(plane, spec)
  spec.template = template { restart = "Never" }
  plane:ok("POST", JOBS, { metadata = { name = "j" }, spec = spec })
  plane:becomes(spec.parallelism or 1, function() return #pods(plane) end)
end

t.test("a_job_runs_until_enough_pods_have_succeeded", function()
  local plane = lib.new()
  start_job(plane, { completions = 3, parallelism = 2 })
  for _, pod in ipairs(pods(plane)) do end_pod(plane, pod, "Succeeded") end
  plane:becomes({ 3, 1, 2 }, function()
    local status = plane:ok("GET", JOBS .. "/j").status
    return { #pods(plane), status.active, status.succeeded, status.conditions }
  end)
  for _, pod in ipairs(pods(plane)) do
    if pod.status.phase == "Pending" then end_pod(plane, pod, "Succeeded") end
  end
  plane:until_(function() return condition(plane:ok("GET", JOBS .. "/j"), "Complete") end)
  local job = plane:ok("GET", JOBS .. "/j")
  t.eq({ condition(job, "Complete").reason, job.status.succeeded, #pods(plane) }, { "CompletionsReached", 3, 3 })
  t.ok(job.status.completionTime, "a complete job says when")
end)

t.test("a_job_gives_up_behind_its_backoff_limit", function()
  local plane = lib.new()
  start_job(plane, { backoffLimit = 1 })
  end_pod(plane, pods(plane)[1], "Failed")
  t.eq(#pods(plane), 1)
  plane:becomes(2, function() return #pods(plane) end)
  for _, pod in ipairs(pods(plane)) do
    if pod.status.phase == "Pending" then end_pod(plane, pod, "Failed") end
  end
  local c = plane:until_(function() return condition(plane:ok("GET", JOBS .. "/j"), "Failed") end)
  t.eq({ c.status, c.reason }, { "True", "BackoffLimitExceeded" })
end)

t.test("an_indexed_job_gives_each_pod_its_number", function()
  local plane = lib.new()
  start_job(plane, { completions = 2, parallelism = 2, completionMode = "Indexed" })
  local seen = {}
  for _, pod in ipairs(pods(plane)) do seen[pod.metadata.annotations["batch.kubernetes.io/job-completion-index"]] = true end
  t.eq(seen, { ["0"] = true, ["1"] = true })
end)

t.test("a_finished_job_goes_after_its_time_to_live", function()
  local plane = lib.new()
  start_job(plane, { ttlSecondsAfterFinished = 20 })
  end_pod(plane, pods(plane)[1], "Succeeded")
  plane:until_(function() return plane:ok("GET", JOBS .. "/j").status.completionTime end)
  plane:advance(4)
  t.eq(plane:call("GET", JOBS .. "/j"), 200)
  plane:becomes({ 404, 0 }, function() return { (plane:call("GET", JOBS .. "/j")), #pods(plane) } end)
end)

t.test("a_job_deleted_without_a_policy_orphans_its_pods_with_a_warning", function()
  local plane = lib.new()
  start_job(plane, {})
  local _, _, headers = plane:call("DELETE", JOBS .. "/j")
  t.match(headers.Warning, "child pods are preserved by default when jobs are deleted")
  plane:settle()
  t.eq(#pods(plane), 1)
end)

-- 2026-01-05 is a Monday.
t.test("cron_schedules", function()
  local monday = 1767600000
  for text, wanted in pairs { ["*/5 * * * *"] = "08:05 05", ["0 9 * * *"] = "09:00 05", ["30 7 * * *"] = "07:30 06",
    ["0 0 1 * *"] = "00:00 01", ["15 10 * * tue-thu"] = "10:15 06", ["@hourly"] = "09:00 05", ["0 12 13 * 5"] = "12:00 09" } do
    t.eq(os.date("!%H:%M %d", cron.next(cron.parse(text), monday)), wanted, text)
  end
  for _, text in ipairs { "* * * *", "60 * * * *", "a b c d e", "*/0 * * * *", "" } do t.eq(cron.parse(text), nil) end
end)

-- A schedule is due at once where the last run that the status tells of lies before its last time.
t.test("a_cron_job_starts_one_job_a_time_and_keeps_its_history_short", function()
  local plane = lib.new(PATIENT)
  local path, minute = "/apis/batch/v1/namespaces/default/cronjobs", plane.time // 60
  local function due(at)
    plane:patch("merge", path .. "/cj", { spec = { schedule = os.date("!%M * * * *", at * 60) } })
    plane:patch("merge", path .. "/cj", { metadata = { annotations = { at = tostring(at) } } })
  end
  local function jobs() return names_of(plane:ok("GET", JOBS).items) end
  local function name(at) return ("cj-%d"):format(at) end
  local function succeed(at)
    plane:becomes(1, function() return #plane:ok("GET", PODS .. "?labelSelector=job-name%3D" .. name(at)).items end)
    end_pod(plane, plane:ok("GET", PODS .. "?labelSelector=job-name%3D" .. name(at)).items[1], "Succeeded")
  end
  plane:ok("POST", path, { metadata = { name = "cj" }, spec = { schedule = os.date("!%M * * * *", (minute - 5) * 60),
    concurrencyPolicy = "Forbid", successfulJobsHistoryLimit = 1,
    jobTemplate = { spec = { template = template { restart = "Never" } } } } })
  plane:settle()
  t.eq(jobs(), {})
  plane:patch("merge", path .. "/cj/status", { status = { lastScheduleTime = os.date("!%Y-%m-%dT%H:%M:00Z", (minute - 6) * 60) } })
  plane:becomes({ name(minute - 5) }, jobs)
  -- The controller knows what runs from the status that it writes.
  plane:becomes(1, function() return #(plane:ok("GET", path .. "/cj").status.active or {}) end)
  due(minute - 4)
  plane:settle()
  t.eq(jobs(), { name(minute - 5) }, "one at a time")
  succeed(minute - 5)
  plane:becomes({ name(minute - 5), name(minute - 4) }, jobs)
  due(minute - 3)
  succeed(minute - 4)
  plane:becomes({ name(minute - 4), name(minute - 3) }, jobs)
end)

t.test("a_cron_job_runs_at_the_times_of_its_schedule", function()
  local plane = lib.new(PATIENT)
  plane:ok("POST", "/apis/batch/v1/namespaces/default/cronjobs", { metadata = { name = "cj" }, spec = { schedule = "* * * * *",
    jobTemplate = { spec = { template = template { restart = "Never" } } } } })
  local made = plane:ok("GET", "/apis/batch/v1/namespaces/default/cronjobs/cj").metadata.creationTimestamp
  local first = plane:until_(function() return plane:ok("GET", JOBS).items[1] end)
  local at = math.tointeger(tonumber(first.metadata.name:match "^cj%-(%d+)$"))
  t.eq(at, lib.seconds(made) // 60 + 1, "the first full minute")
end)

t.test("a_daemon_runs_on_every_node_that_fits", function()
  local plane = lib.new(PATIENT)
  plane:node("a", { labels = { gpu = "yes" } })
  plane:node("b")
  local spec = template()
  spec.spec.nodeSelector = { gpu = "yes" }
  plane:ok("POST", "/apis/apps/v1/namespaces/default/daemonsets", { metadata = { name = "ds" },
    spec = { selector = { matchLabels = { app = "x" } }, template = spec } })
  plane:until_(function() return pods(plane)[1] and pods(plane)[1].spec.nodeName end)
  t.eq({ #pods(plane), pods(plane)[1].spec.nodeName }, { 1, "a" })
  plane:node("c", { labels = { gpu = "yes" } })
  plane:becomes(2, function() return #pods(plane) end)
  plane:run_all "default"
  plane:becomes({ 2, 2, 2 }, function()
    local status = plane:ok("GET", "/apis/apps/v1/namespaces/default/daemonsets/ds").status
    return { status.desiredNumberScheduled, status.numberReady, status.updatedNumberScheduled }
  end)
end)

local SETS = "/apis/apps/v1/namespaces/default/statefulsets"

-- Two replicas: the second comes when the first runs.
local function run_in_order(plane)
  local function names() return table.concat(names_of(pods(plane)), " ") end
  plane:becomes("db-0", names)
  plane:run_all "default"
  plane:becomes("db-0 db-1", names)
  plane:run_all "default"
end

t.test("a_stateful_set_starts_its_pods_in_order_with_their_claims", function()
  local plane = lib.new(PATIENT)
  plane:node("n")
  for i = 0, 1 do
    plane:ok("POST", "/api/v1/persistentvolumes", { metadata = { name = "pv" .. i }, spec = { capacity = { storage = "1Gi" },
      accessModes = json.array { "ReadWriteOnce" }, hostPath = { path = "/x" } } })
  end
  plane:ok("POST", SETS, { metadata = { name = "db" }, spec = { replicas = 2, serviceName = "db",
    selector = { matchLabels = { app = "x" } }, template = template(), volumeClaimTemplates = json.array { { metadata = { name = "data" },
      spec = { accessModes = json.array { "ReadWriteOnce" }, resources = { requests = { storage = "1Gi" } } } } } } })
  run_in_order(plane)
  plane:becomes("Bound", function()
    return plane:ok("GET", "/api/v1/namespaces/default/persistentvolumeclaims/data-db-1").status.phase
  end)
  plane:becomes({ 2, true }, function()
    local status = plane:ok("GET", SETS .. "/db").status
    return { status.readyReplicas, status.currentRevision == status.updateRevision }
  end)
end)

t.test("a_stateful_set_rolls_from_the_highest_number_down", function()
  local plane = lib.new(PATIENT)
  plane:node("n")
  plane:ok("POST", SETS, { metadata = { name = "db" }, spec = { replicas = 2, serviceName = "db",
    selector = { matchLabels = { app = "x" } }, template = template() } })
  run_in_order(plane)
  plane:becomes(2, function() return plane:ok("GET", SETS .. "/db").status.readyReplicas end)
  plane:patch("strategic", SETS .. "/db", { spec = { template = { spec = { containers = { { name = "c", image = "i:2" } } } } } })
  local function going()
    return names_of(pods(plane), function(pod) return pod.metadata.deletionTimestamp end)
  end
  plane:becomes({ "db-1" }, going)
  plane:settle()
  t.eq(going(), { "db-1" }, "one after the other")
end)
