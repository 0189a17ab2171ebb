-- SPDX-License-Identifier: Apache-2.0
-- Volumes, autoscalers, ways in, quotas, budgets and namespaces: what is made, and what is refused before any write.
local client = require "eirun.kube.client"
local fake = require "lib_fake"
local json = require "eirun.core.json"
local t = require "eirun.test"
local traffic = require "eirun.kube.traffic"
local volume = require "eirun.kube.volume"
local ways = require "eirun.kube.ways"
require "eirun.kube"

local function connect(url)
  return client.new { server = url, verify = true, namespace = "serving", context = "test" }
end

-- The bucket below a prefix as its reader sees it: `world.keys`, or what `world.bucket(call)` answers.
local function bucket(world, call)
  world.asked = world.asked or {}
  table.insert(world.asked, { call.method, call.query.prefix or call.path, call.headers:get("authorization"):match "Credential=([^/]+)" })
  local status, code = (world.bucket or function() return 200 end)(call)
  if status ~= 200 then
    return status, ("<Error><Code>%s</Code><Message>%s it is</Message><RequestId>R1</RequestId></Error>"):format(code, code)
  end
  local list = {}
  for _, key in ipairs(world.keys or { "model/saved_model.pb" }) do list[#list + 1] = "<Contents><Key>" .. key .. "</Key></Contents>" end
  return 200, "<ListBucketResult>" .. table.concat(list) .. "</ListBucketResult>"
end

-- A server that keeps what is applied, by path; `world.objects[path]` may be filled before.
local function keeping(world)
  world.objects, world.writes = world.objects or {}, 0
  return function(call)
    if call.action == "GetRole" then
      if not world.trust then return 404, { Code = "EntityNotExist.Role", Message = "The role not exists" } end
      return 200, { Role = { RoleName = "reader", Arn = "acs:ram::1:role/reader", AssumeRolePolicyDocument = json.encode(world.trust) } }
    end
    if call.path:find "^/models" then return bucket(world, call) end
    local object = world.objects[call.path]
    if call.method == "GET" then
      if object then return 200, object end
      if call.path:find "/%l+s$" and not call.path:find "/%l+s/[%w-]+$" then return 200, { metadata = {},
        items = json.array(world.list or {}) } end
      return 404, fake.status(404, "NotFound", "not found")
    end
    local applied = call.json()
    applied.metadata.uid, applied.metadata.resourceVersion = "u", "1"
    if applied.kind == "PersistentVolumeClaim" then applied.status = { phase = "Bound" } end
    if applied.kind == "HorizontalPodAutoscaler" then
      applied.status = { conditions = json.array { { type = "AbleToScale", status = "True" } } }
    end
    if applied.kind == "Ingress" then applied.status = { loadBalancer = { ingress = json.array { { hostname = "lb.example.com" } } } } end
    if not call.query.dryRun then
      world.writes = world.writes + 1
      world.objects[call.path] = applied
    end
    return 200, applied
  end
end

-- Nothing is written when the words are wrong.
local function refused(world, kind, words, act)
  fake.with(keeping(world), function(url)
    local err = t.err(kind, function() act(connect(url)) end)
    t.match(err.message .. " " .. (err.hint or ""), words)
    t.eq(world.writes, 0)
  end)
end

-- Volumes --------------------------------------------------------------------------------------------------------------

local bad_volumes = {
  { { path = "models" }, "path 'models' is not a path" }, { { bucket = "B_" }, "a bucket's name" },
  { { url = "https://models.oss-cn-hangzhou.aliyuncs.com" }, "holds the bucket" },
  { { url = "oss-cn-beijing.aliyuncs.com", region = "cn-hangzhou" }, "is in cn%-beijing, not in cn%-hangzhou" },
  { { options = "umask=022" }, "must be written as" }, { { options = "-o umask=022" }, "ossfs2 has no option 'umask'" },
  { { options = "-oattr_timout=1" }, "did you mean 'attr_timeout'" }, { { options = "-o attr_timeout=1,umask=2" },
    "has no option 'umask'" },
  { { client = "ossfs", options = "-o max_stat_cache_size=0" }, "every look at a file" },
  { { options = "-o memory_data_cache_size=4G -o total_mem_limit=5G" }, "at least 6.7 GiB for a cache of 4.0 GiB" },
  { { client = "ossfs3" }, "must be one of ossfs, ossfs2" }, { { secret = "a", credentials = {} }, "exclude each other" },
  { { role = "r", secret = "a" }, "a role needs no keys" }, { { role_arn = "acs:ram::1:role/r" }, "wanted both, or neither" },
  { { role_arn = "r", oidc_provider_arn = "x" }, "ARN" }, { { size = "big" }, "a size such as 5Gi" }, { { sise = "5Gi" },
    "did you mean 'size'" },
}

for i, row in ipairs(bad_volumes) do
  t.test("a_bad_volume_is_refused_before_any_write_" .. i, function()
    refused({}, "invalid", row[2], function(k8s)
      local given = { name = "v", bucket = "models" }
      for key, value in pairs(row[1]) do given[key] = value end
      k8s:ensure_oss_volume(given)
    end)
  end)
end

t.test("a_role_reads_without_any_key", function()
  local world = { trust = {} } -- whose cluster is not known, so that nothing is said of its trust
  fake.with(keeping(world), function(url)
    connect(url):ensure_oss_volume { name = "v", bucket = "models", role = "reader",
      options = "-o memory_data_cache_size=4G -o total_mem_limit=8G" }
    local pv = world.objects["/api/v1/persistentvolumes/v"]
    local attributes = pv.spec.csi.volumeAttributes
    t.eq({ attributes.authType, attributes.roleName, pv.spec.csi.nodePublishSecretRef, world.writes }, { "rrsa", "reader", nil, 2 })
    t.eq({ pv.spec.csi.volumeHandle, pv.spec.accessModes[1], pv.spec.storageClassName, pv.spec.persistentVolumeReclaimPolicy },
      { "v", "ReadOnlyMany", "", "Retain" })
  end)
end)

t.test("the_pair_of_arns_is_passed_on_for_either_client", function()
  local pv = volume.manifests({ name = "v", bucket = "b", client = "ossfs", role_arn = "acs:ram::1:role/r",
    oidc_provider_arn = "acs:ram::1:oidc-provider/p" }, "ns", "cn-hangzhou")
  local attributes = pv.spec.csi.volumeAttributes
  t.eq({ attributes.fuseType, attributes.authType, attributes.roleArn, attributes.oidcProviderArn },
    { "ossfs", "rrsa", "acs:ram::1:role/r", "acs:ram::1:oidc-provider/p" })
end)

t.test("keys_go_into_a_secret_and_nowhere_else", function()
  local world = {}
  fake.with(keeping(world), function(url)
    connect(url):ensure_oss_volume { name = "v", bucket = "models" }
    t.eq(world.objects["/api/v1/namespaces/serving/secrets/v-oss"].data, { akId = "aWQ=", akSecret = "c2VjcmV0LXRleHQ=" })
    local pv = json.encode(world.objects["/api/v1/persistentvolumes/v"])
    t.ok(not pv:find("secret%-text") and not pv:find "c2VjcmV0", "no key in the volume")
  end)
end)

t.test("a_secret_must_hold_a_whole_key", function()
  local function world(data) return { objects = { ["/api/v1/namespaces/serving/secrets/s"] = { metadata = { name = "s" },
    data = data } } } end
  local function make(k8s) k8s:ensure_oss_volume { name = "v", bucket = "models", secret = "s" } end
  refused(world { akId = "x" }, "invalid", "holds no key", make)
  refused(world { akId = "x", AccessKeyId = "x", AccessKeySecret = "y" }, "invalid", "holds no key", make)
  refused({}, "not_found", "does not exist", make)
  fake.with(keeping(world { accesskeyid = "eA==", ACCESSKEYSECRET = "eQ==" }), function(url) make(connect(url)) end)
end)

t.test("a_handle_that_another_volume_has_is_refused", function()
  local other = { metadata = { name = "other" }, spec = { csi = { driver = "ossplugin.csi.alibabacloud.com", volumeHandle = "v" } } }
  refused({ list = { other } }, "conflict", "'other' has the volume handle 'v' already", function(k8s)
    k8s:ensure_oss_volume { name = "v", bucket = "models" }
  end)
end)

-- Who reads --------------------------------------------------------------------------------------------------------------

local PROVIDER = "acs:ram::1:oidc-provider/ack-rrsa-c1"
local SUBJECT = "system:serviceaccount:ack-csi-fuse:csi-fuse-ossfs"

local function trust(more)
  local statement = { Effect = "Allow", Action = "sts:AssumeRole", Principal = { Federated = json.array { PROVIDER } },
    Condition = { StringEquals = { ["oidc:aud"] = "sts.aliyuncs.com", ["oidc:sub"] = SUBJECT, ["oidc:iss"] = "https://oidc" } } }
  for key, value in pairs(more or {}) do statement[key] = value end
  return { Version = "1", Statement = json.array { statement } }
end

local function by_role(given)
  return function(k8s)
    k8s.cluster = "c1"
    local spec = { name = "v", bucket = "models", role = "reader" }
    for key, value in pairs(given or {}) do spec[key] = value end
    k8s:ensure_oss_volume(spec)
  end
end

local function sub(value, operator)
  return { Condition = { [operator or "StringEquals"] = { ["oidc:aud"] = "sts.aliyuncs.com", ["oidc:sub"] = value } } }
end

local distrust = {
  { trust { Principal = { Service = json.array { "ecs.aliyuncs.com" } } }, "role 'reader' trusts no OIDC provider" },
  { trust { Effect = "Deny" }, "trusts no OIDC provider" }, { trust { Action = "sts:TagSession" }, "trusts no OIDC provider" },
  { trust { Principal = { Federated = PROVIDER .. "0" } }, "trusts '.*ack%-rrsa%-c10', not '.*ack%-rrsa%-c1'" },
  { trust(sub "system:serviceaccount:default:ossfs"),
    "trusts the subject 'system:serviceaccount:default:ossfs', not '.*csi%-fuse%-ossfs'" },
  { trust(sub(json.array { "system:serviceaccount:kube-system:csi-fuse-ossfs" })), "trusts the subject" },
  { trust { Condition = { StringEquals = { ["oidc:aud"] = "other", ["oidc:sub"] = SUBJECT } } },
    "the audience 'other', not 'sts.aliyuncs.com'" },
}

for i, row in ipairs(distrust) do
  t.test("a_role_that_does_not_trust_the_driver_is_refused_" .. i, function()
    refused({ trust = row[1] }, "invalid", row[2] .. ".*let its trust policy say {.*" .. SUBJECT:gsub("%-", "%%-"), by_role())
  end)
end

t.test("a_role_that_is_not_there_is_refused", function()
  refused({}, "not_found", "there is no RAM role 'reader'", by_role())
end)

t.test("a_role_that_trusts_the_driver_is_taken", function()
  for _, document in ipairs { trust(), trust(sub(json.array { "x", SUBJECT })), trust(sub("system:serviceaccount:ack-csi-fuse:*",
    "StringLike")),
    { Version = "1", Statement = json.array { trust { Principal = { Service = "ecs" } }.Statement[1], trust().Statement[1] } } } do
    local world = { trust = document }
    fake.with(keeping(world), function(url) by_role()(connect(url)) end)
    t.eq(world.writes, 2)
  end
  local world = { trust = trust() }
  fake.with(keeping(world), function(url)
    connect(url):ensure_oss_volume { name = "v", bucket = "models", role_arn = "acs:ram::1:role/reader", oidc_provider_arn = PROVIDER }
  end)
  t.eq(world.writes, 2)
end)

t.test("a_role_that_may_not_be_looked_at_is_passed_over", function()
  local world = {}
  local keep = keeping(world)
  fake.with(function(call)
    if call.action == "GetRole" then return 403, { Code = "NoPermission", Message = "You are not authorized" } end
    return keep(call)
  end, function(url) by_role()(connect(url)) end)
  t.eq(world.writes, 2)
end)

local function with_secret(fields)
  fields.objects = { ["/api/v1/namespaces/serving/secrets/s"] = { metadata = { name = "s" },
    data = { akId = "cmVhZGVy", akSecret = "eA==" } } }
  return fields
end

local function by_secret(given)
  return function(k8s)
    local spec = { name = "v", bucket = "models", path = "/bert", secret = "s" }
    for key, value in pairs(given or {}) do spec[key] = value end
    k8s:ensure_oss_volume(spec)
  end
end

local function answers(status, code, method)
  return function(call) if not method or call.method == method then return status, code end return 200 end
end

local unreadable = {
  { answers(404, "NoSuchBucket"), "not_found", "NoSuchBucket it is" },
  { answers(403, "InvalidAccessKeyId"), "denied", "put a key that exists into Secret 'serving/s'" },
  { answers(403, "SignatureDoesNotMatch"), "denied", "secret key in Secret 'serving/s'" },
  { answers(403, "AccessDenied"), "denied", "grant the owner of the key in Secret 'serving/s' oss:Get%* and oss:List%*" },
  { answers(403, "AccessDenied", "HEAD"), "denied", "check = false" },
}

for i, row in ipairs(unreadable) do
  t.test("what_its_reader_cannot_read_is_refused_" .. i, function()
    refused(with_secret { bucket = row[1] }, row[2], "PersistentVolume 'v' cannot be read: .*" .. row[3], by_secret())
  end)
end

t.test("the_readers_own_key_looks_at_the_path_and_at_an_object", function()
  local world = with_secret { keys = { "bert/", "bert/1/saved_model.pb" } }
  fake.with(keeping(world), function(url) by_secret()(connect(url)) end)
  t.eq(world.asked, { { "GET", "bert/", "reader" }, { "HEAD", "/models/bert/1/saved_model.pb", "reader" } })
  t.eq(world.writes, 2)
end)

t.test("an_empty_path_is_refused_where_it_is_only_read", function()
  refused(with_secret { keys = {} }, "not_found", "nothing is stored at oss://models/bert/; upload the model first", function(k8s)
    local ok, err = pcall(by_secret(), k8s)
    if not ok then
      err.message = err.message .. "; " .. err.hint
      error(err, 0)
    end
  end)
  for _, given in ipairs { { read_only = false }, { path = "/" }, { check = false } } do
    local world = with_secret { keys = {} }
    fake.with(keeping(world), function(url) by_secret(given)(connect(url)) end)
    t.eq(world.writes, 2)
  end
end)

t.test("a_volume_that_is_there_is_not_looked_at_again", function()
  local world = with_secret {}
  fake.with(keeping(world), function(url)
    by_secret()(connect(url))
    local asked = #world.asked
    by_secret()(connect(url))
    t.eq(#world.asked, asked)
  end)
end)

-- Autoscalers ------------------------------------------------------------------------------------------------------------

local external = { metric = "qps", average = 10, selector = { a = "b" } }

local bad_hpas = {
  { { external = external, max = 0 }, "max must be at least 1" }, { { external = external, min = 5, max = 2 }, "min is 5, above max, 2" },
  { { max = 2 }, "wants a metric" }, { { max = 2, external = { metric = "q", selector = {} } }, "external wants either average or value" },
  { { max = 2, external = { metric = "q", selector = {}, average = 1, value = 2 } }, "wants either average or value" },
  { { max = 2, external = { metric = "q", selector = {}, average = -1 } }, "must be above 0" },
  { { max = 2, external = { metric = "a/b", selector = {}, average = 1 } }, "a metric's name" },
  { { max = 2, cpu = 0 }, "cpu must be at least 1" }, { { max = 2, metrics = { {} } }, "metrics%[1%] wants one of" },
  { { max = 2, metrics = { { resource = { name = "gpu", utilization = 5 } } } }, "must be one of cpu, memory" },
  { { max = 2, metrics = { { pods = { metric = "q" } } } }, "pods wants either average" },
  { { max = 2, metrics = { { pods = { metric = "q", average = 1 }, resource = { name = "cpu", utilization = 1 } } } },
    "names two metrics" },
  { { max = 2, metrics = { { pods = { metric = "q", average = "much" } } } }, "is no quantity" },
  { { max = 2, cpu = 50, behavior = { scaleup = {} } }, "did you mean 'scaleUp'" },
  { { max = 2, cpu = 50, behavior = { scaleUp = { stabilizationWindowSeconds = 9999 } } }, "must be at most 3600" },
  { { max = 2, cpu = 50, behavior = { scaleDown = { policies = { { type = "Pod", value = 1, periodSeconds = 5 } } } } },
    "one of Percent, Pods" },
  { { max = 2, cpu = 50, behavior = { scaleDown = { policies = { { type = "Pods", value = 1, periodSeconds = 0 } } } } }, "at least 1" },
}

for i, row in ipairs(bad_hpas) do
  t.test("a_bad_autoscaler_is_refused_before_any_write_" .. i, function()
    refused({}, "invalid", row[2], function(k8s)
      local given = { name = "h", target = "web" }
      for key, value in pairs(row[1]) do given[key] = value end
      k8s:ensure_hpa(given)
    end)
  end)
end

t.test("several_metrics_stand_side_by_side_and_behaviour_is_passed_on", function()
  local behavior = { scaleDown = { stabilizationWindowSeconds = 60, policies = json.array { { type = "Pods", value = 1,
    periodSeconds = 30 } } } }
  local hpa = traffic.hpa_manifest({ name = "h", target = "web", max = 9, external = external, cpu = 70, behavior = behavior, metrics = {
    { pods = { metric = "queue", average = 0.5 } }, { container = { name = "memory", container = "c", average = "500Mi" } },
    { object = { metric = "hits", kind = "Ingress", api_version = "networking.k8s.io/v1", name = "i", value = 3 } } } }, "ns")
  local spec = hpa.spec
  t.eq({ hpa.apiVersion, #spec.metrics, spec.behavior }, { "autoscaling/v2", 5, behavior })
  t.eq(spec.metrics[2], { type = "Resource", resource = { name = "cpu", target = { type = "Utilization", averageUtilization = 70 } } })
  t.eq(spec.metrics[3], { type = "Pods", pods = { metric = { name = "queue" }, target = { type = "AverageValue",
    averageValue = "500m" } } })
  t.eq(spec.metrics[4].containerResource.target, { type = "AverageValue", averageValue = "500Mi" })
  t.eq(spec.metrics[5].object.target, { type = "Value", value = "3" })
end)

-- Ways in ------------------------------------------------------------------------------------------------------------------

t.test("a_way_says_class_path_type_and_address", function()
  local world = {}
  fake.with(keeping(world), function(url)
    local web = connect(url):ensure_ingress { name = "w", service = "s", port = 80, way = "alb", host = "a.example.com", tls = "cert" }
    local made = world.objects["/apis/networking.k8s.io/v1/namespaces/serving/ingresses/w"]
    t.eq({ made.spec.ingressClassName, made.spec.rules[1].http.paths[1].pathType, made.spec.tls[1].secretName, web.address },
      { "alb", "Prefix", "cert", "lb.example.com" })
  end)
  refused({}, "invalid", "way must be one of alb, nginx", function(k8s)
    k8s:ensure_ingress { name = "w", service = "s", port = 80, way = "gateway" }
  end)
end)

t.test("a_way_of_ones_own_fits_the_same_seam", function()
  ways.add("route", { kind = "ConfigMap", class = "x", no_address = "?",
    manifest = function(given, ns)
      return { apiVersion = "v1", kind = "ConfigMap", metadata = { name = given.name, namespace = ns }, data = { address = "1.2.3.4" } }
    end,
    address = function(object) return object.data.address end })
  fake.with(keeping {}, function(url)
    t.eq(connect(url):ensure_ingress({ name = "w", service = "s", port = 80, way = "route" }).base, "http://1.2.3.4")
  end)
  ways.ways.route = nil
end)

-- Limits -------------------------------------------------------------------------------------------------------------------

t.test("a_namespace_comes_with_labels_and_a_quota", function()
  local world = {}
  fake.with(keeping(world), function(url)
    local inside = connect(url):ensure_namespace("team", { labels = { a = "b" }, quota = { ["requests.nvidia.com/gpu"] = 8, pods = "20" } })
    t.eq({ inside.ns, world.objects["/api/v1/namespaces/team"].metadata.labels.a }, { "team", "b" })
    t.eq(world.objects["/api/v1/namespaces/team/resourcequotas/eirun"].spec.hard, { ["requests.nvidia.com/gpu"] = "8", pods = "20" })
  end)
end)

t.test("bad_limits_are_refused_before_any_write", function()
  local rows = {
    { "is no name", function(k8s) k8s:ensure_namespace "Team_1" end }, { "is no name",
      function(k8s) k8s:ensure_namespace(("x"):rep(64)) end },
    { "no amount", function(k8s) k8s:ensure_quota { hard = { pods = "many" } } end }, { "limits nothing",
      function(k8s) k8s:ensure_quota { hard = {} } end },
    { "either min_available or", function(k8s) k8s:ensure_pdb { name = "p", labels = { a = "b" } } end },
    { "either min_available or", function(k8s) k8s:ensure_pdb { name = "p", labels = { a = "b" }, min_available = 1,
      max_unavailable = 1 } end },
    { "all pods", function(k8s) k8s:ensure_pdb { name = "p", labels = {}, min_available = 1 } end },
    { "a share such as", function(k8s) k8s:ensure_pdb { name = "p", labels = { a = "b" }, min_available = "most" } end },
  }
  for _, row in ipairs(rows) do refused({}, "invalid", row[1], row[2]) end
end)

t.test("a_budget_says_what_must_stay", function()
  local world = {}
  fake.with(keeping(world), function(url)
    local k8s, outcomes = connect(url), {}
    for i = 1, 2 do outcomes[i] = select(2, k8s:ensure_pdb { name = "p", labels = { app = "web" }, max_unavailable = "25%" }) end
    t.eq(outcomes, { "created", "unchanged" })
    t.eq(world.objects["/apis/policy/v1/namespaces/serving/poddisruptionbudgets/p"].spec,
      { selector = { matchLabels = { app = "web" } }, maxUnavailable = "25%" })
  end)
end)
