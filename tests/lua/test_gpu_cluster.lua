-- SPDX-License-Identifier: Apache-2.0
-- The cluster's GPUs against an API server, exporters and a Prometheus that this test plays.
local allocation = require "eirun.gpu.allocation"
local cluster = require "eirun.gpu.cluster"
local config = require "eirun.kube.config"
local errors = require "eirun.errors"
local gpu = require "eirun.gpu"
local health = require "eirun.gpu.health"
local httpd = require "eirun.core.httpd"
local json = require "eirun.core.json"
local kube_client = require "eirun.kube.client"
local sources = require "eirun.gpu.sources"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"

local function node(name, capacity, more)
  more = more or {}
  local resources = { cpu = "8" }
  for key, value in pairs(capacity) do resources[key] = tostring(value) end
  return { metadata = { name = name, labels = more.labels, annotations = more.annotations }, spec = { unschedulable = more.cordoned },
    status = { capacity = resources, allocatable = more.allocatable or resources,
      conditions = { { type = "Ready", status = more.down and "Unknown" or "True" } },
      addresses = { { type = "InternalIP", address = more.ip or "10.0.0.1" } } } }
end

local function pod(name, limits, more)
  more = more or {}
  return { metadata = { name = name, namespace = more.namespace or "default", uid = "uid-" .. name, labels = more.labels,
    ownerReferences = more.owner and { more.owner } },
    spec = { nodeName = more.node, initContainers = more.init,
      containers = { { name = "main", resources = { limits = limits }, ports = more.ports } } },
    status = { phase = more.phase or "Running", podIP = more.ip } }
end

local GPU, SHARE = "nvidia.com/gpu", "aliyun.com/gpu-mem"

local function respond(req, status, value)
  local text = type(value) == "string"
  req:respond(status, { ["Content-Type"] = text and "text/plain" or "application/json" }, text and value or assert(json.encode(value)))
end

local function forbidden(what)
  return { kind = "Status", status = "Failure", reason = "Forbidden", code = 403,
    message = ('%s is forbidden: User "u" cannot do that'):format(what) }
end

local function config_of(url)
  return ("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: '%s'}}]\n"
    .. "users: [{name: u, user: {}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n"):format(url)
end

-- Runs `body(client, url)` against a server that answers `pages[path]`: a value, a text, or a function of the request.
local function against(pages, body)
  local server <close> = assert(httpd.listen { host = "127.0.0.1", port = 0 })
  local url = "http://127.0.0.1:" .. server.port
  local undo = target.use { sandbox = false, endpoints = {}, namespace = "default" }
  local scope = require("eirun.core.task").scope()
  scope:spawn(function()
    httpd.serve(server, function(req)
      local page = pages[req.path]
      if type(page) == "function" then return page(req) end
      if page == nil then return respond(req, 404, { kind = "Status", reason = "NotFound", message = "no such thing" }) end
      respond(req, type(page) == "table" and page.code or 200, page)
    end)
  end)
  local ok, err = pcall(body, kube_client.new(config.parse(config_of(url), {})), url, pages)
  scope:cancel()
  pcall(scope.join, scope)
  undo()
  if not ok then error(err, 0) end
end

local function lists(nodes, pods)
  return { ["/api/v1/nodes"] = { items = json.array(nodes), metadata = {} },
    ["/api/v1/pods"] = { items = json.array(pods), metadata = {} } }
end

local function metrics(name, values)
  local lines = {}
  for i, value in ipairs(values) do
    lines[#lines + 1] = ('DCGM_FI_DEV_GPU_UTIL{gpu="%d",UUID="GPU-%s-%d",modelName="T4",Hostname="%s"%s} %s'):format(i - 1, name, i, name,
      value.pod and (',namespace="default",pod="%s"'):format(value.pod) or "", value.util)
    lines[#lines + 1] = ('DCGM_FI_DEV_FB_USED{gpu="%d",UUID="GPU-%s-%d"} %d'):format(i - 1, name, i, value.mib or 0)
    lines[#lines + 1] = ('DCGM_FI_DEV_FB_FREE{gpu="%d",UUID="GPU-%s-%d"} %d'):format(i - 1, name, i, 1000 - (value.mib or 0))
    if value.xid then
      lines[#lines + 1] = ('DCGM_FI_DEV_XID_ERRORS{gpu="%d",UUID="GPU-%s-%d"} %d'):format(i - 1, name, i, value.xid)
    end
  end
  return table.concat(lines, "\n") .. "\n"
end

local function exporter(name, on, ip)
  return pod(name, {}, { node = on, ip = ip, labels = { app = "nvidia-dcgm-exporter" },
    ports = { { name = "metrics", containerPort = 9400 } } })
end

local function by_name(list)
  local map = {}
  for _, item in ipairs(list) do map[item.name] = item end
  return map
end

-- Allocation --------------------------------------------------------------------------------------------------------------

t.test("gpu_of_a_pod_is_what_the_scheduler_counts", function()
  local function count(init, main)
    return allocation.of_pod({ spec = { initContainers = init, containers = main } }, GPU)
  end
  local function c(n, policy) return { restartPolicy = policy, resources = { limits = { [GPU] = n } } } end
  t.eq({ count({}, { c "1", c "2" }), count({ c "4" }, { c "1" }), count({ c "1" }, { c "2" }) }, { 3, 4, 2 })
  t.eq({ count({ c("1", "Always") }, { c "2" }), count({ c("1", "Always"), c "3" }, { c "2" }) }, { 3, 4 })
  t.eq({ count({}, { {} }), count({}, { { resources = { requests = { [GPU] = 2 } } } }), count({}, { c "x" }) }, { 0, 2, 0 })
end)

t.test("gpu_jobs_are_arenas_or_a_controllers", function()
  local function job(p)
    local found = allocation.job_of(p)
    return { found.name, found.kind, found.version }
  end
  t.eq(job(pod("a", {}, { labels = { servingName = "bert", servingVersion = "1" } })), { "bert", "serving", "1" })
  t.eq(job(pod("web-77-x", {}, { labels = { ["pod-template-hash"] = "77" },
    owner = { kind = "ReplicaSet", name = "web-77", controller = true } })),
    { "web", "Deployment" })
  t.eq(job(pod("j-1", {}, { owner = { kind = "Job", name = "j", controller = true } })), { "j", "Job" })
  t.eq(job(pod("alone", {})), { "alone", "Pod" })
end)

t.test("gpu_nodes_are_spot_by_any_vendors_label", function()
  t.eq({ allocation.billing { ["node.alibabacloud.com/spot-strategy"] = "SpotAsPriceGo" },
    allocation.billing { ["node.alibabacloud.com/spot-strategy"] = "NoSpot" },
    allocation.billing { ["karpenter.sh/capacity-type"] = "spot" }, allocation.billing {} }, { "spot", "on-demand", "spot" })
end)

t.test("gpu_cluster_counts_what_was_given", function()
  local labels = { ["topology.kubernetes.io/zone"] = "z1", ["node.kubernetes.io/instance-type"] = "t",
    ["aliyun.accelerator/nvidia_name"] = "T4", ["node.alibabacloud.com/spot-strategy"] = "SpotAsPriceGo" }
  local nodes = { node("a", { [GPU] = 4 }, { labels = labels, allocatable = { [GPU] = "3" } }), node("b", { [GPU] = 2 }), node("c", {}),
    node("d", { [SHARE] = 48, ["aliyun.com/gpu-count"] = 2 }), node("e", { [GPU] = 2 }, { cordoned = true }),
    node("f", { [GPU] = 8 }, { down = true }) }
  local serving = { servingName = "bert", servingVersion = "1" }
  local pods = { pod("p1", { [GPU] = 1 }, { node = "a", labels = serving }), pod("p2", { [GPU] = 1 }, { node = "b", labels = serving }),
    pod("done", { [GPU] = 1 }, { node = "a", phase = "Succeeded" }), pod("failed", { [GPU] = 1 }, { node = "a", phase = "Failed" }),
    pod("waits", { [GPU] = 4 }, { phase = "Pending", labels = serving }), pod("share", { [SHARE] = 12 }, { node = "d" }),
    pod("plain", {}, { node = "a" }), pod("starts", { [GPU] = 1 }, { node = "b", phase = "Pending" }) }
  against(lists(nodes, pods), function(k8s)
    local view = gpu.cluster(k8s, { source = "none", prices = function(n) return n.name == "a" and 8.0 or nil end })
    local found = by_name(view.nodes)
    t.eq({ #view.nodes, found.c }, { 5 })
    t.eq({ found.a.gpus, found.a.allocatable, found.a.allocated, found.a.free }, { 4, 3, 1, 3 })
    t.eq({ found.a.zone, found.a.model, found.a.billing, found.a.price, found.a.idle_cost }, { "z1", "T4", "spot", 8.0, 6.0 })
    t.eq({ found.b.allocated, found.b.pods }, { 2, { "default/p2", "default/starts" } })
    t.eq({ found.d.gpus, found.d.allocated, found.d.share, found.d.mode }, { 2, 0.5, { total = 48, allocated = 12 }, "share" })
    t.eq({ found.e.state, found.f.state }, { "Ready,SchedulingDisabled", "NotReady" })
    t.eq({ view.total.gpus, view.total.allocated, view.total.waiting, view.total.price, view.total.idle_cost }, { 18, 3.5, 1, 8.0, 6.0 })
    local bert = view.jobs[1]
    t.eq({ bert.name, bert.version, bert.pods, bert.pending, bert.allocated, bert.nodes, bert.spot, bert.price },
      { "bert", "1", 2, 1, 2, 2, 1, 2.0 })
    t.eq({ view.fragmentation, view.fits }, { "2 free GPUs on 1 node; not counted: 10 on nodes that take no pods, 1 not allocatable, "
      .. "1.5 as shares", { ["1"] = 2, ["2"] = 1, ["4"] = 0, ["8"] = 0 } })
  end)
end)

t.test("gpu_cluster_says_how_free_gpus_lie", function()
  local function words(free)
    local nodes = {}
    for i, n in ipairs(free) do nodes[i] = { state = "Ready", mode = "exclusive", allocatable = 4, allocated = 4 - n } end
    return (cluster.fragmentation(nodes))
  end
  t.eq({ words { 0, 0 }, words { 1 }, words { 1, 1, 1 }, words { 2, 1 } },
    { "no free GPU", "1 free GPU on 1 node", "3 free GPUs on 3 nodes, none on one node with 2",
      "3 free GPUs on 2 nodes, none on one node with 3" })
end)

t.test("gpu_cluster_counts_mig_instances_and_overhead", function()
  local MIG = "nvidia.com/mig-1g.10gb"
  local sidecar = { restartPolicy = "Always", resources = { limits = { [MIG] = "1" } } }
  local over = pod("over", { [GPU] = 1 }, { node = "b" })
  over.spec.overhead = { [GPU] = "1" }
  local pods = { pod("m1", { [MIG] = 2 }, { node = "a" }), pod("m2", {}, { node = "a", init = { sidecar } }), over }
  local pages = lists({ node("a", { [GPU] = 0, [MIG] = 7 }), node("b", { [GPU] = 4 }) }, pods)
  against(pages, function(k8s)
    local view = gpu.cluster(k8s, { source = "none", prices = false })
    t.eq({ view.nodes[1].mig, view.total.mig, view.nodes[2].allocated }, { { total = 7, allocated = 3 }, { total = 7, allocated = 3 }, 2 })
    t.eq({ by_name(view.jobs).m1.mig, by_name(view.jobs).m2.mig, by_name(view.jobs).m2.allocated }, { 2, 1, 0 })
    t.eq(view.fragmentation, "2 free GPUs on 1 node; not counted: 4 of MIG")
    pages["/api/v1/pods"] = forbidden "pods"
    t.eq(gpu.cluster(k8s, { source = "none", prices = false }).nodes[1].mig, { total = 7 })
  end)
end)

t.test("gpu_cluster_shows_who_holds_gpus_of_a_node_that_has_none_any_more", function()
  local nodes = { node("b", { [GPU] = 2 }), node("a", { [GPU] = 0 }), node("c", {}),
    node("sick", { [GPU] = 8 }, { allocatable = { [GPU] = "7" } }) }
  local pods = { pod("left", { [GPU] = 1 }, { node = "a" }), pod("web", {}, { node = "c" }), pod("lost", { [GPU] = 1 }, { node = "gone" }) }
  against(lists(nodes, pods), function(k8s)
    local view = gpu.cluster(k8s, { source = "none", prices = false })
    t.eq({ #view.nodes, view.nodes[1].name, view.nodes[1].gpus, view.nodes[1].allocated, view.nodes[1].free }, { 3, "a", 0, 1, 0 })
    t.eq({ #view.jobs, view.jobs[1].name, view.jobs[1].allocated, view.jobs[1].nodes }, { 1, "left", 1, 1 })
    local found = {}
    for i, one in ipairs(view.findings) do found[i] = { one.severity, one.node, one.text, one.pods } end
    t.eq(found, { { "warning", "a", "0 GPUs, but its pods hold 1", { "default/left" } },
      { "warning", "sick", "1 of 8 GPUs are not given to pods", {} } })
  end)
end)

t.test("gpu_cluster_says_where_a_job_runs_and_what_of_its_price_is_idle", function()
  local function at(zone) return { labels = { ["topology.kubernetes.io/zone"] = zone, ["nvidia.com/gpu.product"] = "L20" } } end
  local serving = { servingName = "bert", servingVersion = "1" }
  local pages = lists({ node("a", { [GPU] = 2 }, at "z1"), node("b", { [GPU] = 2 }, at "z2") },
    { pod("p1", { [GPU] = 2 }, { node = "a", labels = serving }), pod("p2", { [GPU] = 1 }, { node = "b", labels = serving }),
      exporter("x1", "a") })
  pages["/api/v1/namespaces/default/pods/x1:9400/proxy/metrics"] = metrics("a", { { util = 60, pod = "p1" }, { util = 20, pod = "p1" } })
  against(pages, function(k8s)
    local job = gpu.cluster(k8s, { prices = function() return 10.0 end }).jobs[1]
    t.eq({ job.zones, job.models, job.price }, { { "z1", "z2" }, { "L20" }, 15.0 })
    t.ok(math.abs(job.idle_cost - 9.0) < 1e-9, job.idle_cost)
  end)
end)

-- Use ---------------------------------------------------------------------------------------------------------------------

t.test("gpu_cluster_reads_exporters_through_the_proxy", function()
  local pages = lists({ node("a", { [GPU] = 2 }) }, { pod("p1", { [GPU] = 1 }, { node = "a" }), exporter("x1", "a") })
  pages["/api/v1/namespaces/default/pods/x1:9400/proxy/metrics"] = metrics("a", { { util = 80, mib = 600, pod = "p1" }, { util = 0 } })
  against(pages, function(k8s)
    local view = gpu.cluster(k8s, { prices = false })
    t.eq(view.notes, {})
    t.eq({ view.nodes[1].via, view.nodes[1].used }, { "API server's proxy",
      { utilization = 40.0, memory_used = 600 << 20, memory_total = 2000 << 20, busy = 1 } })
    t.eq(view.jobs[1].used, { utilization = 80.0, memory_used = 600 << 20, gpus = 1 })
    t.eq({ view.total.utilization, view.nodes[1].devices[1].pod }, { 40.0, "p1" })
  end)
end)

t.test("gpu_cluster_reads_nodes_directly_where_the_proxy_refuses", function()
  against({}, function(k8s, url, pages)
    local port = math.tointeger(tonumber(url:match ":(%d+)$"))
    local told = { annotations = { [sources.ANNOTATION] = url .. "/b" } }
    for path, page in pairs(lists({ node("a", { [GPU] = 1 }), node("b", { [GPU] = 1 }, told) }, { exporter("x1", "a", "127.0.0.1") })) do
      pages[path] = page
    end
    pages["/metrics"], pages["/b"] = metrics("a", { { util = 7 } }), metrics("b", { { util = 9 } })
    pages[("/api/v1/namespaces/default/pods/x1:%d/proxy/metrics"):format(port)] = { kind = "Status", reason = "Forbidden", code = 403,
      message = "address not allowed" }
    local view = gpu.cluster(k8s, { prices = false, port = port })
    t.eq({ view.nodes[1].via, view.nodes[1].used.utilization }, { "pod's address", 7.0 })
    t.eq({ view.nodes[2].via, view.nodes[2].used.utilization }, { "node's own address", 9.0 })
    t.eq(gpu.cluster(k8s, { prices = false, port = port, source = "proxy" }).nodes[1].used, nil)
  end)
end)

t.test("gpu_cluster_follows_an_exporter_that_has_moved", function()
  against({}, function(k8s, url, pages)
    local function at(path) return node("a", { [GPU] = 1 }, { annotations = { [sources.ANNOTATION] = url .. path } }) end
    for path, page in pairs(lists({ at "/old" }, {})) do pages[path] = page end
    pages["/api/v1/nodes/a"], pages["/new"] = at "/new", metrics("a", { { util = 3 } })
    t.eq(gpu.cluster(k8s, { prices = false }).nodes[1].used.utilization, 3.0)
    pages["/api/v1/nodes/a"] = forbidden "nodes"
    local view = gpu.cluster(k8s, { prices = false })
    t.match(view.notes[1], "a: node's own address: .*/old answered 404")
  end)
end)

t.test("gpu_cluster_says_what_it_could_not_read_and_shows_the_rest", function()
  local names = { "good", "garbage", "slow", "denied", "gone", "half" }
  local nodes, pods = {}, { pod("p1", { [GPU] = 1 }, { node = "good" }) }
  for i, name in ipairs(names) do
    nodes[i] = node(name, { [GPU] = 1 })
    if name ~= "gone" then pods[#pods + 1] = exporter("x-" .. name, name) end
  end
  local pages = lists(nodes, pods)
  local function at(name) return ("/api/v1/namespaces/default/pods/x-%s:9400/proxy/metrics"):format(name) end
  pages[at "good"] = metrics("good", { { util = 50 } })
  pages[at "garbage"] = "<html>\0not metrics</html>"
  pages[at "slow"] = function(req) task.sleep(3) respond(req, 200, "") end
  pages[at "denied"] = { kind = "Status", reason = "Forbidden", code = 403, message = 'pods "x-denied" is forbidden: no' }
  pages[at "half"] = "DCGM_FI_DEV_GPU_UTIL{ 1\n" .. metrics("half", { { util = 5 } })
  against(pages, function(k8s)
    local from = require("eirun.core.os").monotonic()
    local view = gpu.cluster(k8s, { prices = false, deadline = 0.3 })
    t.ok(require("eirun.core.os").monotonic() - from < 2.5, "the slow node held nobody up")
    local found, notes = by_name(view.nodes), table.concat(view.notes, "\n")
    t.eq({ found.good.used.utilization, found.half.used.utilization, found.good.allocated }, { 50.0, 5.0, 1 })
    for _, name in ipairs { "garbage", "slow", "denied", "gone" } do t.eq(found[name].used, nil, name) end
    t.match(notes, "garbage: API server's proxy: these are no metrics: line 1 is")
    t.match(notes, "slow: API server's proxy: no answer within 0.3 s")
    t.match(notes, 'denied: API server\'s proxy: cannot read the metrics of Pod \'default/x%-denied\': pods "x%-denied" is forbidden: no')
    t.match(notes, "gone: no exporter runs there")
    t.match(notes, "half: 1 line of its metrics could not be read")
  end)
end)

t.test("gpu_cluster_takes_no_endless_body", function()
  local pages = lists({ node("a", { [GPU] = 1 }), node("b", { [GPU] = 1 }) }, { exporter("x1", "a"), exporter("x2", "b") })
  local line = 'other_metric{a="b"} 1\n'
  pages["/api/v1/namespaces/default/pods/x1:9400/proxy/metrics"] = function(req)
    req:start(200, {})
    local block = line:rep(50000)
    for _ = 1, 100 do
      if not req:write(block) then return end -- 105 MB, if somebody takes them
    end
    req:finish()
  end
  pages["/api/v1/namespaces/default/pods/x2:9400/proxy/metrics"] = metrics("b", { { util = 5 } })
  against(pages, function(k8s)
    local view = gpu.cluster(k8s, { prices = false, source = "proxy", deadline = 20 })
    t.eq({ view.nodes[1].used, view.nodes[2].used.utilization }, { nil, 5.0 })
    t.match(view.notes[1], "^a: API server's proxy: ")
  end)
end)

t.test("gpu_cluster_asks_no_more_where_the_proxy_is_forbidden", function()
  local nodes, pods, asked = {}, {}, 0
  for i = 1, 20 do
    nodes[i], pods[i] = node("n" .. i, { [GPU] = 1 }), exporter("x" .. i, "n" .. i)
  end
  local pages = lists(nodes, pods)
  for i = 1, 20 do
    pages[("/api/v1/namespaces/default/pods/x%d:9400/proxy/metrics"):format(i)] = function(req)
      asked = asked + 1
      respond(req, 403, forbidden "pods/proxy")
    end
  end
  against(pages, function(k8s)
    local view = gpu.cluster(k8s, { prices = false, source = "proxy", parallel = 2 })
    t.ok(asked <= 2, asked .. " were asked")
    t.eq(#view.nodes, 20)
    t.match(view.notes[1], "n1, n10 and 18 more: .*forbidden")
  end)
end)

t.test("gpu_cluster_without_the_right_to_list_pods_still_shows_use", function()
  against({}, function(k8s, url, pages)
    local told = { annotations = { [sources.ANNOTATION] = url .. "/a" } }
    pages["/api/v1/nodes"] = lists({ node("a", { [GPU] = 1 }, told) }, {})["/api/v1/nodes"]
    pages["/api/v1/pods"] = forbidden "pods"
    pages["/a"] = metrics("a", { { util = 3 } })
    local view = gpu.cluster(k8s, { prices = false })
    t.eq({ view.nodes[1].used.utilization, view.nodes[1].allocated, view.total.gpus, view.fragmentation }, { 3.0, nil, 1, "not known" })
    t.match(view.notes[1], "^allocated GPUs: cannot list Pod .*pods is forbidden")
    pages["/api/v1/nodes"] = forbidden "nodes"
    t.err("denied", function() gpu.cluster(k8s) end)
  end)
end)

-- What strangers write must neither end the look nor reach a terminal or JSON as it is.
t.test("gpu_cluster_bears_odd_bytes_and_numbers_of_exporters", function()
  local nodes, pods = {}, {}
  for i, name in ipairs { "bytes", "names", "numbers" } do nodes[i], pods[i] = node(name, { [GPU] = 1 }), exporter("x-" .. name, name) end
  local pages = lists(nodes, pods)
  local function at(name) return ("/api/v1/namespaces/default/pods/x-%s:9400/proxy/metrics"):format(name) end
  pages[at "bytes"] = "\x1f\x8b\xff\xc0 not gzip either"
  pages[at "names"] = 'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="\xff",modelName="T4\27[2J\\n\xc2\x9b\xe4\xb8\xad"} 5\n'
  pages[at "numbers"] = 'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 5\nDCGM_FI_DEV_XID_ERRORS{gpu="0"} 13.5\n'
    .. 'DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{gpu="0"} 0.5\nDCGM_FI_DEV_ECC_DBE_VOL_TOTAL{gpu="0"} 1e300\n'
  against(pages, function(k8s)
    local view = gpu.cluster(k8s, { prices = false, source = "proxy" })
    local found = by_name(view.nodes)
    t.eq({ found.names.devices[1].model, found.names.devices[1].uuid }, { "T4?[2J??\xe4\xb8\xad", "?" })
    t.eq({ found.numbers.used.utilization, found.numbers.devices[1].xid, view.findings }, { 5.0, nil, {} })
    t.match(view.notes[1], "^bytes: API server's proxy: these are no metrics: line 1 is")
    t.ok(utf8.len(view.notes[1]), "a note is UTF-8")
  end)
end)

t.test("gpu_cluster_as_programs_read_it", function()
  local fs, process = require "eirun.core.fs", require "eirun.core.process"
  local pages = lists({ node("a", { ["nvidia.com/mig-1g.10gb"] = 7 }) }, { exporter("x1", "a"),
    pod("m1", { ["nvidia.com/mig-1g.10gb"] = 2 }, { node = "a" }) })
  pages["/api/v1/namespaces/default/pods/x1:9400/proxy/metrics"] = "\x1f\x8b\xff"
  against(pages, function(_, url)
    local folder = assert(fs.mkdtemp "/tmp/eirun-gpu-")
    assert(fs.write(folder .. "/config", config_of(url)))
    local function run(...)
      return assert(process.run { assert(fs.realpath "/proc/self/exe"), "gpu", "cluster", "--source=proxy",
        "--kubeconfig", folder .. "/config", timeout = 20, ... })
    end
    local view = json.decode(run("-o", "json").stdout)
    t.eq({ view.nodes[1].mig.allocated, view.jobs[1].mig, #view.jobs[1].zones }, { 2, 2, 0 })
    local lines = run("-o", "csv", "--watch=0.01", "--count", "2").stdout
    t.match(lines, "^node,state,[^\n]*,mig_total,mig_allocated\na,Ready,[^\n]*,7,2\na,Ready,[^\n]*,7,2\n$")
    t.match(run().stdout, "2/7 MIG")
    t.eq({ run("--count", "2").code, run("--port", "0").code, run("--source", "http://").code }, { 64, 64, 64 })
    assert(fs.remove(folder, { recursive = true }))
  end)
end)

t.test("gpu_cluster_reads_the_use_of_mig_instances", function()
  local pages = lists({ node("a", { ["nvidia.com/mig-1g.10gb"] = 2 }) }, { exporter("x1", "a") })
  pages["/api/v1/namespaces/default/pods/x1:9400/proxy/metrics"] = table.concat({
    'DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="u",GPU_I_PROFILE="1g.10gb",GPU_I_ID="7"} 0.5',
    'DCGM_FI_PROF_GR_ENGINE_ACTIVE{gpu="0",UUID="u",GPU_I_PROFILE="1g.10gb",GPU_I_ID="8"} 0.1' }, "\n") .. "\n"
  against(pages, function(k8s) t.eq(gpu.cluster(k8s, { prices = false, source = "proxy" }).nodes[1].used.utilization, 30.0) end)
end)

t.test("gpu_cluster_reads_the_exporter_that_runs_while_it_is_replaced", function()
  local old, new = exporter("old", "a"), exporter("new", "a")
  new.status.phase = "Pending"
  local pages = lists({ node("a", { [GPU] = 1 }) }, { old, new })
  pages["/api/v1/namespaces/default/pods/old:9400/proxy/metrics"] = metrics("a", { { util = 4 } })
  against(pages, function(k8s) t.eq(gpu.cluster(k8s, { prices = false, source = "proxy" }).nodes[1].used.utilization, 4.0) end)
  old.metadata.deletionTimestamp, new.status.phase = "2026-01-01T00:00:00Z", "Running"
  t.eq({ sources.better(old, new), sources.better(new, old), sources.better(nil, old) }, { new, new, old })
end)

t.test("gpu_cluster_finds_nodes_in_prometheus_by_their_exporters", function()
  local function series(labels, value)
    labels.__name__, labels.gpu = "DCGM_FI_DEV_GPU_UTIL", "0"
    return { metric = labels, value = { 1, value } }
  end
  local pages = lists({ node("a", { [GPU] = 1 }), node("b", { [GPU] = 1 }, { ip = "10.0.0.2" }) },
    { exporter("x-a", "a", "172.16.0.5"), exporter("x-b", "b", "172.16.0.6"), pod("p1", { [GPU] = 1 }, { node = "a" }) })
  pages["/api/v1/query"] = { status = "success", data = { resultType = "vector", result = json.array {
    series({ instance = "172.16.0.5:9400", pod = "x-a", namespace = "default", UUID = "u1" }, "8"),
    series({ Hostname = "x-b", pod = "x-b", namespace = "default", UUID = "u2" }, "9") } } }
  against(pages, function(k8s, url)
    local view = gpu.cluster(k8s, { prices = false, source = url })
    t.eq({ view.nodes[1].used.utilization, view.nodes[2].used.utilization }, { 8.0, 9.0 })
    t.eq({ view.nodes[1].devices[1].pod, view.nodes[2].devices[1].pod }, { "p1" }) -- the only pod there, and nobody
    view = gpu.cluster(k8s, { prices = false, source = "http://me:hush@" .. url:sub(8) })
    t.match(view.notes[1], "a user name and password do not belong in a url")
    t.eq(view.notes[1]:find "hush", nil)
  end)
end)

t.test("gpu_cluster_reads_prometheus", function()
  local function series(name, labels, value)
    labels.__name__ = name
    return { metric = labels, value = { 1, value } }
  end
  local result = { series("DCGM_FI_DEV_GPU_UTIL", { gpu = "0", UUID = "u1", Hostname = "a", exported_pod = "p1",
    exported_namespace = "default", pod = "exporter" }, "42"),
    series("DCGM_FI_DEV_FB_USED", { gpu = "0", UUID = "u1", Hostname = "a" }, "100"),
    series("DCGM_FI_DEV_GPU_UTIL", { gpu = "0", UUID = "u2", instance = "10.0.0.2:9400" }, "7"),
    series("DCGM_FI_DEV_GPU_UTIL", { gpu = "0", UUID = "u3", instance = "elsewhere:9400" }, "99"),
    series("DCGM_FI_DEV_FB_FREE", { gpu = "0", UUID = "u1", Hostname = "a" }, "NaN") }
  local pages = lists({ node("a", { [GPU] = 1 }), node("b", { [GPU] = 1 }, { ip = "10.0.0.2" }) },
    { pod("p1", { [GPU] = 1 }, { node = "a" }) })
  pages["/api/v1/query"] = { status = "success", data = { resultType = "vector", result = json.array(result) } }
  against(pages, function(k8s, url)
    local view = gpu.cluster(k8s, { prices = false, source = url .. "/" })
    t.eq({ view.nodes[1].used.utilization, view.nodes[2].used.utilization, view.jobs[1].used.utilization }, { 42.0, 7.0, 42.0 })
    t.eq({ view.nodes[1].used.memory_used, view.nodes[1].used.memory_total }, { 100 << 20 })
    pages["/api/v1/query"] = { status = "error", error = "too many series" }
    view = gpu.cluster(k8s, { prices = false, source = url })
    t.match(table.concat(view.notes, "\n"), "Prometheus: Prometheus did not answer a vector: too many series")
    t.eq(view.nodes[1].allocated, 1)
  end)
end)

t.test("gpu_cluster_finds_xids_with_node_pod_and_advice", function()
  local pages = lists({ node("a", { [GPU] = 2 }) }, { pod("p1", { [GPU] = 1 }, { node = "a" }), exporter("x1", "a") })
  pages["/api/v1/namespaces/default/pods/x1:9400/proxy/metrics"] = metrics("a",
    { { util = 1, pod = "p1", xid = 79 }, { util = 0, xid = 0 } })
  against(pages, function(k8s)
    local findings = gpu.cluster(k8s, { prices = false }).findings
    t.eq(#findings, 1)
    t.eq({ findings[1].severity, findings[1].node, findings[1].gpu, findings[1].pods, findings[1].drain },
      { "fatal", "a", 0, { "default/p1" }, true })
    t.match(findings[1].advice, "drain the node")
  end)
end)

-- Acting ------------------------------------------------------------------------------------------------------------------

t.test("gpu_nodes_of_fatal_findings_are_isolated_within_a_limit", function()
  local function finding(name, severity) return health.of_xid(severity == "fatal" and 79 or 63, { node = name, gpu = 0 }) end
  local patched, out = {}, { out = true }
  local function object(name)
    return function(req)
      if req.method == "PATCH" then
        patched[#patched + 1], out[name] = name, true
      end
      respond(req, 200, node(name, { [GPU] = 1 }, { cordoned = out[name] }))
    end
  end
  local pages = { ["/api/v1/nodes/a"] = object "a", ["/api/v1/nodes/b"] = object "b", ["/api/v1/nodes/out"] = object "out",
    ["/api/v1/pods"] = { items = json.array {}, metadata = {} } }
  against(pages, function(k8s)
    t.eq(health.isolate(k8s, { finding("a", "warning") }), {})
    t.eq(health.isolate(k8s, { finding("a", "fatal"), finding("a", "fatal"), finding("b", "warning") }), { "a" })
    t.eq(patched, { "a" })
    t.eq(health.isolate(k8s, { finding("a", "fatal") }), {})
    local left = pod("web", {}, { node = "a", owner = { kind = "ReplicaSet", name = "web", controller = true } })
    pages["/api/v1/pods"].items = json.array { left }
    pages["/api/v1/namespaces/default/pods/web"] = function(req) respond(req, 404, { kind = "Status", reason = "NotFound", code = 404 }) end
    pages["/api/v1/namespaces/default/pods/web/eviction"] = function(req)
      pages["/api/v1/pods"].items = json.array {}
      respond(req, 201, { kind = "Status", status = "Success" })
    end
    t.eq(health.isolate(k8s, { finding("a", "fatal") }), { "a" }, "a drain that ended early goes on")
    t.eq(#pages["/api/v1/pods"].items, 0)
    t.eq(patched, { "a" })
    out.a = nil
    local err = t.err("denied", function() health.isolate(k8s, { finding("a", "fatal"), finding("b", "fatal") }) end)
    t.eq(err and err.code or "guard", "guard")
    t.err("denied", function() health.isolate(k8s, { finding("a", "fatal"), finding("out", "fatal") }) end)
    t.eq(health.isolate(k8s, { finding("a", "fatal"), finding("out", "fatal") }, { limit = 2, drain = false }), { "a" })
    out.a = nil
    local undo = require("eirun.resource").guard(function() return nil, "not today" end)
    local ok, refused = pcall(health.isolate, k8s, { finding("a", "fatal") })
    undo()
    t.ok(not ok and errors.is(refused, "denied"), "a guard is asked")
    t.eq(patched, { "a", "a" })
  end)
end)
