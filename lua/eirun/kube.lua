-- SPDX-License-Identifier: Apache-2.0
-- Kubernetes as playbooks see it: connect, then say what shall be there.
local await = require "eirun.kube.await"
local client = require "eirun.kube.client"
local config = require "eirun.kube.config"
local diff = require "eirun.kube.diff"
local ensure = require "eirun.kube.ensure"
local errors = require "eirun.errors"
local target = require "eirun.target"
local guard = require "eirun.kube.guard"
local store = require "eirun.kube.store"
local traffic = require "eirun.kube.traffic"
require "eirun.kube.access"
require "eirun.kube.pods"
local volume = require "eirun.kube.volume"
local wait = require "eirun.kube.wait"
local watch = require "eirun.kube.watch"

local M = {}
local Client = client.Client

---Connects to a cluster: the one given, with a kubeconfig that Container Service issues; or by a kubeconfig of your own.
---@param where? eirun.Cluster|{kubeconfig?: string, context?: string, text?: string} none: what kubectl would use, KUBECONFIG,
--- ~/.kube/config, or a pod's own service account
---@param opts? {minutes?: integer, private?: boolean} of a cluster's kubeconfig: for how long it is issued at a time (15 to 4320), and
--- for the
--- address inside the VPC. It is asked for again before it ends, while the client runs.
---@return eirun.KubeClient
---Example:
---```lua
---local k8s = kube.connect(ack.cluster(arg.cluster), { minutes = 60 }):namespace "serving"
---```
---Raises "denied" when no kubeconfig is issued, "invalid" for a bad one. `--kubeconfig FILE` on the command line wins.
function M.connect(where, opts)
  local given = target.current().kubeconfig
  if given then return client.new(config.read(given, target.current().context)) end
  if not where then
    if target.current().sandbox then errors.raise("invalid", "in a sandbox say which cluster: kube.connect(ack.cluster(name))") end
    return client.new(config.load { context = target.current().context })
  end
  if type(where.kubeconfig) == "string" then return client.new(config.read(where.kubeconfig, where.context)) end
  if where.text then return client.new(config.parse(where.text, { context = where.context, where = "kubeconfig of text" })) end
  local k8s = client.new(config.issued(function(anew)
    return where:kubeconfig { minutes = opts and opts.minutes, private = opts and opts.private, anew = anew }
  end, { where = "kubeconfig of " .. tostring(where.id) }))
  k8s.cluster = where.id
  return k8s
end

---Makes an object as a manifest says: compared by the server's own dry run, changed by server-side apply.
---@param manifest table
---@param opts? {adopt?: boolean, force?: boolean, wait?: fun(observed: table): table}
---@return table observed
---@return "created"|"updated"|"unchanged"
---Example: `k8s:ensure { apiVersion = "v1", kind = "ConfigMap", metadata = { name = "a" }, data = { k = "v" } }`.
---Raises "conflict" for an object of somebody else (adopt = true takes it over) or fields of another manager.
function Client:ensure(manifest, opts)
  return ensure.ensure(self, manifest, opts)
end

---What applying a manifest would change, by the server's own dry run; nothing is stored. Values of Secrets are masked.
---@param manifest table
---@param opts? {force?: boolean, manager?: string, validate?: "Strict"|"Warn"|"Ignore"} as of `apply`
---@return eirun.Change[] changes field, from, to; none: it is as the manifest says
---@return table|nil live the object that is there
---@return table merged what it would be
---Example: `for _, c in ipairs(k8s:diff(manifest)) do print(c.field, c.from, c.to) end`.
---Raises as `apply`: "conflict" with each field and its owner, "invalid" with the server's words.
function Client:diff(manifest, opts)
  local found = diff.of(self, manifest, opts)
  return found.changes, found.live, found.merged
end

---Makes the namespace; one that is there is fine, whoever made it. One that is being deleted is waited for.
---@param name string
---@param opts? {labels?: table<string, string>, quota?: table<string, string|number>} labels are only set where we make it
---@return eirun.KubeClient k8s the client in that namespace
---Example: `k8s = k8s:ensure_namespace("serving", { quota = { ["requests.nvidia.com/gpu"] = 8 } })`.
---Raises "invalid" for a name that is none, "denied" without the right, "conflict" for a namespace that is being deleted and does not go,
---with what holds it.
function Client:ensure_namespace(name, opts)
  return guard.ensure_namespace(self, name, opts)
end

---What a namespace may use.
---@param given table hard ({["requests.nvidia.com/gpu"] = 8, pods = 20}), and any of name (default "eirun"), adopt
---@return table quota
---@return "created"|"updated"|"unchanged"
---Example: `k8s:ensure_quota { hard = { ["requests.nvidia.com/gpu"] = 8, pods = 20 } }`.
---Raises "invalid" for an amount that is none, before any write.
function Client:ensure_quota(given)
  return guard.ensure_quota(self, given)
end

---How many pods a drain must leave.
---@param given table name, labels (which pods), and one of min_available, max_unavailable (a number or "25%"), and adopt
---@return table budget
---@return "created"|"updated"|"unchanged"
---Example: `k8s:ensure_pdb { name = "bert", labels = { app = "bert" }, min_available = 1 }`.
---Raises "invalid" for both or neither, and for no labels: an empty selector means all pods.
function Client:ensure_pdb(given)
  return guard.ensure_pdb(self, given)
end

---A bucket as a volume: Secret, PersistentVolume and bound claim.
---@param given table name, bucket, and any of claim (default name), path ("/"), url (the region's internal endpoint), region,
--- size ("5Gi"), read_only (true), client ("ossfs2"), options, adopt, timeout, check (true: look with the reader's identity whether it can
--- read what is below the path); who reads: secret (an existing Secret), credentials
--- (default: the run's own), or a RAM role without any key: role, or role_arn with oidc_provider_arn
---@return {name: string, claim: string, namespace: string, bucket: string}
---Example: `k8s:ensure_oss_volume { name = "model-csi-pv", claim = "model-pvc", bucket = "models", path = "/bert" }`.
---Raises "invalid", "denied" or "not_found" before any write, "conflict" for another source under the same name, and early when the claim
---cannot bind.
function Client:ensure_oss_volume(given)
  return volume.ensure(self, given)
end

---An autoscaler (autoscaling/v2). Of several metrics the one that asks for most wins.
---@param given table name, target (a Deployment's name, or what serve made), max; one or more of external = {metric, selector,
--- average|value}, cpu and memory (percent of what is requested), metrics (a list of {external|resource|container|pods|object = {…}});
--- and any of min (1), behavior, adopt, timeout
---@return eirun.Hpa its wait_metric() waits for the first metric
---Example:
---```lua
---k8s:ensure_hpa { name = "bert-hpa", target = app, max = 10,
---  external = { metric = "sls_ingress_qps", average = 10, selector = cluster:ingress_log(app, 8501) } }
---```
---Raises "invalid" when its target cannot be scaled.
function Client:ensure_hpa(given)
  return traffic.ensure_hpa(self, given)
end

---A way in from outside; waits for the address.
---@param given table name, service, port, and any of host, path ("/"), way ("nginx" or "alb"), class (the way's own), tls (a Secret's
--- name), annotations, adopt, timeout
---@return eirun.Web
---Example: `local web = k8s:ensure_ingress { name = "bert", host = "test.example.com", service = app, port = 8501 }`.
---Raises "timeout" when no balancer gives an address.
function Client:ensure_ingress(given)
  return traffic.ensure_ingress(self, given)
end

---Waits for objects of any kind; ends early on what cannot become well: an image that cannot be pulled, a crash loop, a pod that no node
---can take, a used-up quota, a failed mount, a pod or job that has ended.
---@param given table kind ("Pod", "example.com/v1/CronTab"), and name, or labels or fields (and all: of all namespaces); what to wait for,
--- one of condition ("Ready", "Ready=False"), jsonpath ("{.status.phase}") with value or without, delete = true, create = true (which may
--- stand beside a condition or a jsonpath); and any of timeout (300), patient (wait even for what cannot become well)
---@return table|nil object as last seen, or a list where labels or fields were given
---Example:
---```lua
---k8s:wait { kind = "Job", name = "convert", condition = "Complete", timeout = 600 }
---k8s:wait { kind = "Pod", labels = { app = "web" }, jsonpath = "{.status.phase}", value = "Running" }
---k8s:wait { kind = "Namespace", name = "old", delete = true }
---```
---Raises early, quoting the event and saying what to do; "timeout" saying how it stands; "not_found" for what is not there.
function Client:wait(given)
  return await.all(self, given)
end

---Waits for a Deployment's rollout and ends early on what cannot become well.
---@param name string
---@param opts? {timeout?: number, ready?: fun(deployment: table): string|nil}
---@return table deployment
---Example: `k8s:wait_deployment("web", { timeout = 300 })`. Raises an error that quotes the event and says what to do.
function Client:wait_deployment(name, opts)
  return wait.deployment(self, name, opts)
end

---Waits until a claim is bound and ends early when it cannot be.
---@param name string
---@param opts? {timeout?: number}
---@return table claim
---Example: `k8s:wait_claim("models", { timeout = 60 })`. Raises an error that quotes the event and says what to do.
function Client:wait_claim(name, opts)
  return wait.bound(self, name, opts and opts.timeout)
end

---Changes of a kind, for ever: first all objects as "added", then each change once.
---@param kind string
---@param opts? {labels?: table|string, fields?: table|string, all?: boolean}
---@return eirun.Watch iterator; close it with `<close>` or `:close()`
---Example: `for event in k8s:watch("Pod") do print(event.type, event.object.metadata.name) end`.
---Raises "not_found" for an unknown kind; later what `next` of the watch raises.
function Client:watch(kind, opts)
  return watch.new(self, kind, opts)
end

---A cache of a collection that is kept right by a watch: of each object the picked fields, in some hundred bytes.
---@param kind string
---@param opts table pick (paths as `metadata.labels['app']`), and any of labels, fields, all, track (so that `next_change` works), stall
---@return eirun.KubeStore store the same one for the same question; it lives while `run` or `with` does
---Example:
---```lua
---k8s:store("Pod", { pick = { "status.phase", "spec.nodeName" }, all = true }):with(function(pods)
---  for _, pod in ipairs(pods:list()) do print(pod.name, pod["status.phase"]) end
---end)
---```
---Raises "invalid" for a path that is none, "not_found" for an unknown kind.
function Client:store(kind, opts)
  return store.new(self, kind, opts)
end

return M
