-- SPDX-License-Identifier: Apache-2.0
-- Pods on the sandbox's nodes, seen through the API server as anybody would see them.
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local fs = require "eirun.core.fs"
local http = require "eirun.core.http"
local json = require "eirun.core.json"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"

local root = debug.getinfo(1, "S").source:match "^@(.-)tests/virtual/[^/]*$" or ""
local model = root .. "playbooks/models/chnsenticorp/1623831335"
local bucket_name = "eirun-sandbox-models"
local internal = "oss-cn-hangzhou-internal.aliyuncs.com"

local Box = {}
Box.__index = Box

function Box:close()
  self.session:__close()
  if not self.keep then fs.remove(self.dir, { recursive = true }) end
end

function Box:keys() return assert(json.decode(fs.read(self.dir .. "/credentials.json"))) end

function Box:pod(name) return self.k8s:get("Pod", name) end

function Box:wait(what, seconds, check)
  local deadline = task.now() + seconds
  while task.now() < deadline do
    local result = check()
    if result then return result end
    task.sleep(0.5)
  end
  error("waited in vain for " .. what .. "\n" .. (fs.read(self.dir .. "/sandbox.log") or ""), 2)
end

local function condition(pod, kind)
  for _, item in ipairs(pod and pod.status.conditions or {}) do
    if item.type == kind then return item.status == "True" end
  end
  return false
end

function Box:ready(name, seconds)
  return self:wait(name .. " ready", seconds or 300, function()
    local pod = self:pod(name)
    return condition(pod, "Ready") and pod
  end)
end

-- Messages of a pod's events with that reason, oldest first.
function Box:said(name, reason)
  local list = {}
  for _, event in ipairs(self.k8s:events { kind = "Pod", name = name }) do
    if event.reason == reason then list[#list + 1] = event.message end
  end
  return list
end

function Box:heard(name, reason, seconds)
  return self:wait(reason .. " of " .. name, seconds or 120, function()
    local list = self:said(name, reason)
    return list[1] and list
  end)
end

function Box:waiting(name)
  local pod = self:pod(name)
  local entry = pod.status.containerStatuses and pod.status.containerStatuses[1]
  return entry and entry.state.waiting or {}
end

local function open(dir)
  local box = setmetatable({ dir = dir or assert(fs.mkdtemp "/tmp/eirun-test-kubelet-") }, Box)
  box.session = target.open({ sandbox = box.dir, clock = "virtual" }, { target = function() end })
  box.cluster = ack.cluster()
  box.k8s = kube.connect(box.cluster):namespace "default"
  box:wait("nodes", 300, function() return #box.k8s:list("Node") >= 2 end)
  return box
end

local function with_box(fn)
  return function()
    local box = open()
    local ok, err = xpcall(fn, function(e) return type(e) == "string" and debug.traceback(e) or e end, box)
    box:close()
    if not ok then error(err, 0) end
  end
end

-- Objects ------------------------------------------------------------------------------------------------------------

local function serving_pod(name, more)
  local container = { name = "serving", image = "tensorflow/serving:1.15.0", command = { "sh", "-c" },
    args = { "/usr/bin/tensorflow_model_server --port=8500 --rest_api_port=8501 --model_name=m --model_base_path=/models/tensorflow\n" },
    ports = { { containerPort = 8501 } }, volumeMounts = { { name = "model", mountPath = "/models" } },
    readinessProbe = { httpGet = { path = "/v1/models/m", port = 8501 }, periodSeconds = 5 } }
  for key, value in pairs(more or {}) do container[key] = value end
  return { apiVersion = "v1", kind = "Pod", metadata = { name = name, labels = { app = name } },
    spec = { containers = { container }, volumes = { { name = "model", persistentVolumeClaim = { claimName = "claim-" .. name } } } } }
end

local function plain_pod(name, container, spec)
  container.name, container.image = container.name or "main", container.image or "busybox:1.36"
  local pod = { apiVersion = "v1", kind = "Pod", metadata = { name = name }, spec = { containers = { container } } }
  for key, value in pairs(spec or {}) do pod.spec[key] = value end
  return pod
end

function Box:volume(name, attributes, more)
  local keys = self:keys()
  local all = { bucket = bucket_name, url = internal, akId = keys.access_key_id, akSecret = keys.access_key_secret,
    otherOpts = "-o max_stat_cache_size=0 -o allow_other" }
  for key, value in pairs(attributes or {}) do all[key] = value or nil end
  local csi = { driver = "ossplugin.csi.alibabacloud.com", volumeHandle = "pv-" .. name, volumeAttributes = all }
  for key, value in pairs(more or {}) do csi[key] = value end
  self.k8s:create { apiVersion = "v1", kind = "PersistentVolume", metadata = { name = "pv-" .. name, labels = { pv = name } },
    spec = { capacity = { storage = "5Gi" }, accessModes = { "ReadWriteMany" }, persistentVolumeReclaimPolicy = "Retain",
      storageClassName = "", csi = csi } }
  self.k8s:create { apiVersion = "v1", kind = "PersistentVolumeClaim", metadata = { name = "claim-" .. name },
    spec = { accessModes = { "ReadWriteMany" }, storageClassName = "", resources = { requests = { storage = "5Gi" } },
      selector = { matchLabels = { pv = name } } } }
end

function Box:upload(version)
  oss.bucket(bucket_name):ensure_tree { from = model, to = "tensorflow/" .. (version or 1623831335) }
end

-- Serving -----------------------------------------------------------------------------------------------------------

t.test("a_model_server_is_ready_when_its_model_is_loaded_from_the_volume", with_box(function(box)
  box:upload()
  box:volume "web"
  box.k8s:create(serving_pod "web")
  local pod = box:ready "web"
  local status = pod.status.containerStatuses[1]
  t.eq({ pod.status.phase, status.ready, status.restartCount, status.image },
    { "Running", true, 0, "docker.io/tensorflow/serving:1.15.0" })
  t.match(pod.status.podIP, "^172%.20%.%d+%.%d+$")
  t.eq(box:said("web", "FailedMount"), {})
  t.match(box:said("web", "Pulled")[1], '^Successfully pulled image "tensorflow/serving:1.15.0" in [%d.]+s')
  t.eq(box:said("web", "Started"), { "Container started" })
  local log = box.k8s:logs("web", {})
  t.match(log, "Reading SavedModel from: /models/tensorflow/1623831335\n")
  t.match(log, "Successfully loaded servable version {name: m version: 1623831335}\n")
  t.match(log, "Exporting HTTP/REST API at:localhost:8501 ...")
  t.ok(#box.k8s:logs("web", { tail = 1 }) < 200)
end))

t.test("a_second_pod_finds_the_image_on_its_node", with_box(function(box)
  box.k8s:create(plain_pod("one", {}))
  local node = box:ready("one").spec.nodeName
  box.k8s:create(plain_pod("two", {}, { nodeName = node }))
  box:ready "two"
  t.eq(box:said("two", "Pulled"), { 'Container image "busybox:1.36" already present on machine and can be accessed by the pod' })
  t.eq(box:said("two", "Pulling"), {})
end))

t.test("a_missing_version_never_becomes_ready_and_the_log_says_why", with_box(function(box)
  box:upload()
  box:volume "web"
  box.k8s:create { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "conf" }, data = { ["model.config"] =
    'model_config_list { config { name: "m" base_path: "/models/tensorflow" model_version_policy { specific { versions: 7 } } } }' } }
  local pod = serving_pod("web", { args = { "tensorflow_model_server --rest_api_port=8501 --model_config_file=/etc/tf/model.config" } })
  table.insert(pod.spec.volumes, { name = "conf", configMap = { name = "conf" } })
  table.insert(pod.spec.containers[1].volumeMounts, { name = "conf", mountPath = "/etc/tf" })
  box.k8s:create(pod)
  t.match(box:heard("web", "Unhealthy", 300)[1], "^Readiness probe failed: Get \"http://172%.20%.%d+%.%d+:8501/v1/models/m\": dial tcp .*"
    .. "connect: connection refused$")
  task.sleep(120)
  t.eq(condition(box:pod "web", "Ready"), false)
  t.match(box.k8s:logs("web", {}), "Version 7 of servable m, which was requested to be served as a 'specific' version")
  box:upload(7)
  box:ready("web", 60)
end))

-- Mounts ------------------------------------------------------------------------------------------------------------

local function mount_fails(name, attributes, pattern, more)
  t.test(name, with_box(function(box)
    box:volume("web", attributes, more)
    box.k8s:create(serving_pod "web")
    local message = box:heard("web", "FailedMount")[1]
    t.match(message, '^MountVolume.SetUp failed for volume "pv%-web" : ')
    t.match(message, pattern)
    task.sleep(60)
    t.eq({ box:pod("web").status.phase, box:waiting("web").reason }, { "Pending", "ContainerCreating" })
  end))
end

mount_fails("a_wrong_bucket_is_a_failed_mount", { bucket = "no-such-bucket" },
  "rpc error: code = Internal desc = failed to mount: ossfs exited: exit status 1, with stderr: ossfs: "
  .. "Failed to check bucket : Bucket not found%(host=http://oss%-cn%-hangzhou%-internal.aliyuncs.com, "
  .. "message=The specified bucket does not exist.%)$")
mount_fails("a_wrong_secret_is_a_failed_mount", { akSecret = "wrong" }, "Invalid Credentials%(host=.*message=The request signature we "
  .. "calculated does not match the signature you provided")
mount_fails("an_unknown_key_is_a_failed_mount", { akId = "LTAI5tNobody" }, "Invalid Credentials%(host=.*message=The OSS Access Key Id you "
  .. "provided does not exist in our records.%)$")
mount_fails("an_endpoint_of_another_region_is_a_failed_mount", { url = "oss-cn-beijing.aliyuncs.com" },
  "message=The bucket you are attempting to access must be addressed using the specified endpoint")
mount_fails("an_endpoint_that_cannot_be_reached_is_a_failed_mount", { url = "oss-cn-beijing-internal.aliyuncs.com" },
  "Unable to connect%(host=")
mount_fails("a_bucket_domain_is_refused", { url = bucket_name .. "." .. internal },
  "code = InvalidArgument desc = OSS url error: url is invalid, .* is a bucket domain name, please use endpoint instead$")
mount_fails("keys_are_needed", { akId = false, akSecret = false },
  "code = InvalidArgument desc = OSS authorization error: ossfs: missing access key in node publish secret$")
mount_fails("other_options_have_a_grammar", { otherOpts = "max_stat_cache_size=0" }, 'invalid otherOpts: "max_stat_cache_size=0"$')
mount_fails("a_path_is_absolute", { path = "models" }, "OSS path error: start with models, should start with /$")
mount_fails("a_secret_that_is_not_there_is_named", { akId = false, akSecret = false }, 'fetching NodePublishSecretRef default/keys failed: '
  .. 'kubernetes.io/csi: failed to find the secret keys in the namespace default with error: secrets "keys" not found$',
  { nodePublishSecretRef = { name = "keys", namespace = "default" } })

t.test("a_mount_is_tried_again_until_it_works", with_box(function(box)
  box:upload()
  box:volume("web", { akId = false, akSecret = false, path = "/" }, { nodePublishSecretRef = { name = "keys", namespace = "default" } })
  box.k8s:create(serving_pod "web")
  box:heard("web", "FailedMount")
  local keys = box:keys()
  box.k8s:create { apiVersion = "v1", kind = "Secret", metadata = { name = "keys" },
    stringData = { akId = keys.access_key_id, akSecret = keys.access_key_secret } }
  box:ready "web"
end))

t.test("v4_signatures_and_a_sub_directory_work_too", with_box(function(box)
  box:upload()
  box:volume("web", { region = "cn-hangzhou", path = "/tensorflow", fuseType = "ossfs2", otherOpts = "-o attr_timeout=3600" })
  local flags = "tensorflow_model_server --rest_api_port=8501 --model_name=m --model_base_path=/models"
  box.k8s:create(serving_pod("web", { args = { flags } }))
  box:ready "web"
end))

t.test("roles_give_keys_to_a_mount", with_box(function(box)
  box:upload()
  local no_keys = { akId = false, akSecret = false, region = "cn-hangzhou" }
  local function volume(name, more)
    for key, value in pairs(no_keys) do more[key] = value end
    box:volume(name, more)
    box.k8s:create(serving_pod(name))
  end
  volume("rrsa", { authType = "rrsa", roleName = "AliyunCSDefaultRole" })
  volume("worker", { authType = "sts", roleName = "KubernetesWorkerRole-sandbox" })
  volume("nobody", { authType = "rrsa", roleName = "no-such-role" })
  box:ready "rrsa"
  box:ready "worker"
  t.match(box:heard("nobody", "FailedMount")[1], "stderr: ossfs: Failed to initialize RAM credential. %(EntityNotExist.Role: ")
end))

t.test("a_missing_config_map_is_a_failed_mount_in_the_kubelets_words", with_box(function(box)
  box.k8s:create(plain_pod("p", {}, { volumes = { { name = "c", configMap = { name = "absent" } } } }))
  t.eq(box:heard("p", "FailedMount")[1], 'MountVolume.SetUp failed for volume "c" : configmap "absent" not found')
end))

-- Containers --------------------------------------------------------------------------------------------------------

t.test("an_image_that_does_not_exist_backs_off", with_box(function(box)
  box.k8s:create(plain_pod("p", { image = "tensorflow/serving:1.15.0-gpuu" }))
  local failures = box:heard("p", "BackOff")
  t.eq(failures[1], 'Back-off pulling image "tensorflow/serving:1.15.0-gpuu"')
  t.match(box:said("p", "Failed")[1],
    '^Failed to pull image "tensorflow/serving:1.15.0%-gpuu": rpc error: code = NotFound desc = .*: not found$')
  t.eq(box:waiting("p").reason, "ImagePullBackOff")
  t.eq(box:pod("p").status.phase, "Pending")
end))

t.test("a_program_that_ends_is_started_again_with_growing_pauses", with_box(function(box)
  box.k8s:create(plain_pod("p", { command = { "sh", "-c", "echo hello; exit 3" } }))
  box:heard("p", "BackOff")
  task.sleep(60)
  local status = box:pod("p").status.containerStatuses[1]
  t.ok(status.restartCount >= 3 and status.restartCount <= 5, "restarts: " .. status.restartCount)
  t.eq({ status.lastState.terminated.exitCode, status.lastState.terminated.reason }, { 3, "Error" })
  t.eq(box:waiting("p").reason, "CrashLoopBackOff")
  t.match(box:waiting("p").message, "^back%-off 40s restarting failed container=main pod=p_default%(")
  t.eq(box.k8s:logs("p", { previous = true }), "hello\n")
end))

t.test("a_pod_that_is_meant_to_end_succeeds_or_fails", with_box(function(box)
  box.k8s:create(plain_pod("good", { command = { "sh", "-c", "sleep 3" } }, { restartPolicy = "Never" }))
  box.k8s:create(plain_pod("bad", { command = { "false" } }, { restartPolicy = "Never" }))
  box:wait("the end of both", 60, function()
    return box:pod("good").status.phase == "Succeeded" and box:pod("bad").status.phase == "Failed"
  end)
  t.eq(box:pod("good").status.containerStatuses[1].state.terminated.reason, "Completed")
end))

t.test("a_failing_liveness_probe_kills_and_a_wrong_port_is_told", with_box(function(box)
  box:upload()
  box:volume "web"
  box.k8s:create(serving_pod("web", { readinessProbe = json.null,
    livenessProbe = { tcpSocket = { port = 8600 }, periodSeconds = 5, failureThreshold = 3 } }))
  box:heard("web", "Killing", 300)
  t.match(box:said("web", "Unhealthy")[1], "^Liveness probe failed: dial tcp 172%.20%.%d+%.%d+:8600: connect: connection refused$")
  t.eq(box:said("web", "Killing")[1], "Container serving failed liveness probe, will be restarted")
  box:wait("a restart", 60, function() return box:pod("web").status.containerStatuses[1].restartCount >= 1 end)
end))

t.test("init_containers_come_first_and_missing_configuration_waits", with_box(function(box)
  box.k8s:create(plain_pod("p", { env = { { name = "A", valueFrom = { secretKeyRef = { name = "s", key = "k" } } } } },
    { initContainers = { { name = "prepare", image = "busybox:1.36", command = { "sh", "-c", "sleep 2" } } } }))
  box:wait("the configuration error", 60, function() return box:waiting("p").reason == "CreateContainerConfigError" end)
  t.eq(box:waiting("p").message, 'secret "s" not found')
  t.eq(box:pod("p").status.initContainerStatuses[1].state.terminated.exitCode, 0)
  box.k8s:create { apiVersion = "v1", kind = "Secret", metadata = { name = "s" }, stringData = { k = "v" } }
  box:ready("p", 60)
end))

-- Ends --------------------------------------------------------------------------------------------------------------

t.test("a_deleted_pod_is_stopped_and_goes", with_box(function(box)
  box.k8s:create(plain_pod("p", { lifecycle = { preStop = { exec = { command = { "sleep", "7" } } } } }))
  box:ready "p"
  local began = task.now()
  box.k8s:delete("Pod", "p", { wait = 60 })
  t.ok(task.now() - began >= 7 and task.now() - began < 15, "took " .. task.now() - began)
  t.eq(box:said("p", "Killing"), { "Stopping container main" })
end))

t.test("pods_live_on_through_a_restart_of_the_sandbox", function()
  local box = open()
  box:upload()
  box:volume "web"
  box.k8s:create(serving_pod "web")
  local before = box:ready("web").status
  box.keep = true
  box:close()
  box = open(box.dir)
  local after = box:ready("web", 5).status
  t.eq({ after.podIP, after.containerStatuses[1].restartCount, after.containerStatuses[1].state.running.startedAt },
    { before.podIP, 0, before.containerStatuses[1].state.running.startedAt })
  task.sleep(30)
  t.eq(condition(box:pod "web", "Ready"), true)
  t.eq(#box:said("web", "Started"), 1)
  box:close()
end)

t.test("pods_die_with_their_node_and_the_node_is_removed", with_box(function(box)
  local pool = box.cluster:ensure_node_pool { name = "spot", instance_types = { "ecs.gn6i-c4g1.xlarge" },
    autoscale = { min = 1, max = 2 }, spot = { on_demand_base = 0, on_demand_percent = 0 }, labels = { kind = "spot" } }
  t.ok(pool)
  box.k8s:create(plain_pod("p", {}, { nodeSelector = { kind = "spot" } }))
  local node = box:ready("p").spec.nodeName
  local client <close> = http.client {}
  local reply = client:request { method = "POST", url = "http://sandbox.eirun.invalid/faults",
    headers = { ["x-sandbox-token"] = box:keys().control_token }, body = json.encode { kind = "reclaim", zone = "cn-hangzhou-h" } }
  t.eq(reply.status, 200)
  box:wait("the eviction", 400, function() return not box:pod "p" end)
  box:wait("the node's end", 600, function() return not box.k8s:get("Node", node) end)
end))

t.test("pods_of_a_machine_that_is_switched_off_are_made_anew_elsewhere", with_box(function(box)
  box.k8s:create { apiVersion = "apps/v1", kind = "Deployment", metadata = { name = "web" }, spec = { replicas = 1,
    selector = { matchLabels = { app = "web" } }, template = { metadata = { labels = { app = "web" } },
      spec = { containers = { { name = "web", image = "nginx:1.27", ports = { { containerPort = 80 } } } } } } } }
  local function only_pod()
    local list = box.k8s:list("Pod", { labels = { app = "web" } })
    return #list == 1 and condition(list[1], "Ready") and list[1] or nil
  end
  local before = box:wait("the pod", 60, only_pod)
  cloud.cs("DeleteClusterNodes", { ClusterId = box.cluster.id },
    { body = { nodes = { before.spec.nodeName }, drain_node = false, release_node = true } })
  local after = box:wait("another pod", 300, function()
    local pod = only_pod()
    return pod and pod.metadata.uid ~= before.metadata.uid and pod
  end)
  t.ok(after.spec.nodeName ~= before.spec.nodeName)
  t.eq(box.k8s:get("Node", before.spec.nodeName), nil)
end))
