-- SPDX-License-Identifier: Apache-2.0
-- One call of each verb of the cloud, OSS and log libraries; what they said is the result.
local ack = require "eirun.ack"
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local oss = require "eirun.oss"
local play = require "eirun.play"
local price = require "eirun.price"
local sls = require "eirun.sls"
local target = require "eirun.target"
local task = require "eirun.task"

local KEY = "a b+c/é.txt"

local function failure(fn, ...)
  local _, err = pcall(fn, ...)
  return errors.is(err) and { kind = err.kind, code = err.code, request_id = err.request_id, hint = err.hint } or { kind = "none" }
end

local function objects(bucket)
  bucket:put(KEY, "hello", { meta = { note = "1" } })
  local seen = { text = bucket:get(KEY), head = bucket:head(KEY), keys = bucket:list { prefix = "a b" } }
  seen.signed = target.http():request({ method = "GET", url = bucket:sign(KEY) }).body
  bucket:put("once", "1", { forbid_overwrite = true })
  seen.twice = failure(bucket.put, bucket, "once", "2", { forbid_overwrite = true })
  bucket:delete(KEY)
  bucket:delete(KEY)
  seen.gone = bucket:head(KEY) == nil
  return seen
end

local function logs(project, query, signature)
  return sls.query { project = project, logstore = "nginx-ingress", from = task.now() - 60, to = task.now(), query = query,
    signature = signature }
end

return play.book {
  name = "verbs",
  run = function(p)
    local cluster = ack.cluster()
    local project = "k8s-log-" .. cluster.id
    local bucket, first = oss.bucket("another-bucket-1"):ensure()
    local _, second = bucket:ensure()
    p:report {
      bucket = { first, second }, objects = objects(bucket), arn = cloud.caller_identity().Arn, nodes = #cluster:nodes(),
      unknown_cluster = failure(cloud.cs, "DescribeClusterDetail", { ClusterId = "cnope" }),
      unknown_action = failure(cloud.rpc, "ecs", "Nope"),
      unknown_bucket = failure(function() return oss.bucket("nobody-has-this"):list() end),
      unknown_project = failure(logs, "nope", "*"), bad_query = failure(logs, project, "* | select histogram(x)"),
      logs = { v1 = #logs(project, "*", "v1"), v4 = #logs(project, "*", "v4") },
      spot = price.hour("ecs.gn6i-c4g1.xlarge", "cn-hangzhou-h", "spot").hour,
      on_demand = price.hour("ecs.gn6i-c4g1.xlarge", "cn-hangzhou-h", "on-demand").hour,
    }
  end,
}
