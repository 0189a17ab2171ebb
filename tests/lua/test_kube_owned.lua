-- SPDX-License-Identifier: Apache-2.0
-- What is said to need no sending would really change nothing: asked of the API server, the emulated or a real one.
local json = require "eirun.core.json"
local lib = require "lib_kube"
local owned = require "eirun.kube.owned"
local t = require "eirun.test"

local NS = "/namespaces/default/"

local function object(api, kind, more)
  local made = { apiVersion = api, kind = kind, metadata = { name = "a", labels = { app = "web" } } }
  for key, value in pairs(more or {}) do made[key] = value end
  return made
end

local function deployment()
  return object("apps/v1", "Deployment", { spec = { replicas = 2, selector = { matchLabels = { app = "web" } }, template = {
    metadata = { labels = { app = "web" } }, spec = { terminationGracePeriodSeconds = 5,
      containers = json.array { { name = "c", image = "nginx:1", args = json.array { "-x", "on" },
        env = json.array { { name = "A", value = "1" }, { name = "B", value = "2" } },
        ports = json.array { { containerPort = 80 }, { containerPort = 80, protocol = "UDP" } },
        resources = { limits = { cpu = "1", memory = "1Gi" } },
        volumeMounts = json.array { { name = "v", mountPath = "/v" } } }, { name = "d", image = "busybox:1" } },
      volumes = json.array { { name = "v", emptyDir = json.decode "{}" } } } } } })
end

local kinds = {
  { "/api/v1" .. NS .. "configmaps", object("v1", "ConfigMap", { data = { k = "v", ["x.y"] = "w" } }) },
  { "/api/v1" .. NS .. "configmaps", { apiVersion = "v1", kind = "ConfigMap", data = { k = "v" }, metadata = { name = "a",
    annotations = { n = "1" }, finalizers = json.array { "example.com/a", "example.com/b" } } } },
  { "/api/v1" .. NS .. "secrets", object("v1", "Secret", { type = "Opaque", data = { k = "dmFs" } }) },
  { "/apis/apps/v1" .. NS .. "deployments", deployment() },
  { "/api/v1" .. NS .. "services", object("v1", "Service", { spec = { selector = { app = "web" }, ports = json.array {
    { name = "http", port = 80 }, { name = "dns", port = 53, protocol = "UDP" } } } }) },
  { "/apis/networking.k8s.io/v1" .. NS .. "ingresses", object("networking.k8s.io/v1", "Ingress", { spec = { ingressClassName = "nginx",
    rules = json.array { { host = "a.example.com", http = { paths = json.array { { path = "/", pathType = "Prefix",
      backend = { service = { name = "web", port = { number = 80 } } } } } } } } } }) },
  { "/apis/policy/v1" .. NS .. "poddisruptionbudgets", object("policy/v1", "PodDisruptionBudget", { spec = { minAvailable = 1,
    selector = { matchLabels = { app = "web" } } } }) },
}

local function copy(value)
  return json.decode(json.encode(value))
end

-- Applies as eirun does; the object as it is afterwards.
local function apply(p, path, manifest, manager)
  local status, body = p:call("PATCH", ("%s/%s?fieldManager=%s&fieldValidation=Strict&force=true"):format(path, manifest.metadata.name,
    manager or "eirun"), manifest, { type = "application/apply-patch+yaml" })
  if status >= 300 then return nil, body end
  return body
end

-- Each way to change one value, add one key or drop one, anywhere in a manifest: a fresh copy at a time.
local function each_change(manifest, fn)
  local function walk(path)
    local function at(root)
      for _, key in ipairs(path) do root = root[key] end
      return root
    end
    local here = at(manifest)
    local keys = {}
    for key in pairs(here) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    for _, key in ipairs(keys) do
      local dropped = copy(manifest)
      if type(key) == "number" then table.remove(at(dropped), key) else at(dropped)[key] = nil end
      fn(dropped)
      if type(here[key]) == "table" then
        walk(table.move({ key }, 1, 1, #path + 1, { table.unpack(path) }))
      else
        local changed = copy(manifest)
        at(changed)[key] = type(here[key]) == "number" and here[key] + 1 or here[key] .. "x"
        fn(changed)
      end
    end
    if #keys > 1 and type(keys[1]) == "number" then
      local turned = copy(manifest)
      local list = at(turned)
      list[1], list[2] = list[2], list[1]
      fn(turned)
    end
  end
  walk {}
end

-- Of the same object still?
local function is_ours(manifest, was)
  return manifest.apiVersion == was.apiVersion and manifest.kind == was.kind and manifest.metadata and manifest.metadata.name == "a"
end

for i, row in ipairs(kinds) do
  local path, manifest = table.unpack(row)
  t.test(("what_needs_no_sending_changes_nothing_%d_%s"):format(i, manifest.kind:lower()), function()
    local p = lib.new()
    local live = assert(apply(p, path, manifest))
    t.ok(owned.is_as_applied(live, manifest, "eirun"), "the same again is known: " .. json.encode(live))
    t.eq(owned.is_as_applied(live, manifest, "other"), false)
    local tried, known = 0, 0
    each_change(manifest, function(changed)
      if not is_ours(changed, manifest) then return end
      tried = tried + 1
      if not owned.is_as_applied(live, changed, "eirun") then return end
      known = known + 1
      local after = assert(apply(p, path, changed))
      t.eq(after.metadata.resourceVersion, live.metadata.resourceVersion, json.encode(changed))
    end)
    t.ok(tried > 0 and known <= tried // 4, ("%d of %d changes are taken for none"):format(known, tried))
    live = assert(apply(p, path, { apiVersion = manifest.apiVersion, kind = manifest.kind, metadata = { name = "a",
      labels = { app = "x" } } }, "other"))
    t.eq(owned.is_as_applied(live, manifest, "eirun"), not (manifest.metadata.labels or {}).app)
  end)
end

t.test("what_is_being_deleted_is_sent", function()
  local p = lib.new()
  local manifest = kinds[2][2]
  apply(p, kinds[2][1], manifest)
  p:call("DELETE", kinds[2][1] .. "/a")
  t.eq(owned.is_as_applied(p:ok("GET", kinds[2][1] .. "/a"), manifest, "eirun"), false)
end)
