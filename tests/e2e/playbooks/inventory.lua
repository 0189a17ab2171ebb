-- SPDX-License-Identifier: Apache-2.0
-- What there is, as the APIs tell it: for tests that nothing is doubled and nothing is left behind.
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local json = require "eirun.json"
local kube = require "eirun.kube"
local oss = require "eirun.oss"
local play = require "eirun.play"
local service = require "eirun.oss.service"
local task = require "eirun.task"

local kinds = { "Deployment", "ReplicaSet", "Service", "HorizontalPodAutoscaler", "Ingress", "PersistentVolume", "PersistentVolumeClaim",
  "Secret", "ConfigMap", "Node", "Pod" }

local function objects(k8s, kind)
  local names = json.array {}
  for _, object in ipairs(k8s:list(kind, { all = true })) do
    if not object.metadata.deletionTimestamp then names[#names + 1] = (object.metadata.namespace or "") .. "/" .. object.metadata.name end
  end
  table.sort(names)
  return names
end

local function books(k8s)
  local found = {}
  for _, map in ipairs(k8s:list("ConfigMap", { all = true, labels = { ["app.kubernetes.io/managed-by"] = "eirun" } })) do
    if map.data and map.data.app then found[map.metadata.name] = map.data.app end
  end
  return found
end

local function objects_of(bucket)
  local list = json.array {}
  for _, object in ipairs(bucket:list()) do list[#list + 1] = { key = object.key, size = object.size, etag = object.etag } end
  return list
end

local function uploads_of(bucket)
  local reply = service.call { method = "GET", bucket = bucket.name, region = bucket.region, verb = "list uploads to",
    query = { uploads = "" } }
  return #(service.element(reply, "ListMultipartUploadsResult").Upload or {})
end

local function pools_of(cluster)
  local names = json.array {}
  for _, pool in ipairs(cloud.cs("DescribeClusterNodePools", { ClusterId = cluster.id }).nodepools) do
    names[#names + 1] = pool.nodepool_info.name
  end
  table.sort(names)
  return names
end

local function instances()
  local ids = json.array {}
  for _, instance in ipairs(cloud.pages("ecs", "DescribeInstances", {}, 100, function(answer) return answer.Instances.Instance end)) do
    ids[#ids + 1] = instance.InstanceId
  end
  table.sort(ids)
  return ids
end

local function nodes_of(cluster)
  local ids = json.array {}
  for _, node in ipairs(cluster:nodes()) do ids[#ids + 1] = node.instance_id end
  table.sort(ids)
  return ids
end

return play.book {
  name = "inventory",
  args = {
    bucket = play.string { default = "eirun-sandbox-models" },
    settle = play.number { default = 180, help = "seconds before looking, for what is under way" },
  },
  run = function(p, arg)
    local cluster = ack.cluster()
    local k8s, bucket = kube.connect(cluster), oss.bucket(arg.bucket)
    task.sleep(arg.settle)
    local found = {}
    for _, kind in ipairs(kinds) do found[kind] = objects(k8s, kind) end
    p:report { kube = found, books = books(k8s), objects = objects_of(bucket), uploads = uploads_of(bucket), pools = pools_of(cluster),
      instances = instances(), nodes = nodes_of(cluster) }
  end,
}
