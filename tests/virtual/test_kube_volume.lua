-- SPDX-License-Identifier: Apache-2.0
-- Volumes whose reader is a RAM role, on the sandbox's cluster: STS judges the trust as `ensure_oss_volume` does beforehand.
local cloud = require "eirun.cloud"
local json = require "eirun.core.json"
local oss = require "eirun.oss"
local reader = require "eirun.kube.volume_reader"
local t = require "eirun.test"
local target = require "eirun.target"
local with_cluster = require "sandbox_cluster"

local function make_role(k8s, name, subject)
  local provider = ("acs:ram::%s:oidc-provider/ack-rrsa-%s"):format(target.current().account, k8s.cluster)
  cloud.rpc("ram", "CreateRole", { RoleName = name, AssumeRolePolicyDocument = json.encode { Version = "1",
    Statement = { { Effect = "Allow",
    Action = "sts:AssumeRole", Principal = { Federated = { provider } },
    Condition = { StringEquals = { ["oidc:aud"] = "sts.aliyuncs.com", ["oidc:sub"] = subject } } } } } })
end

local function pod(name, claim)
  return { apiVersion = "v1", kind = "Pod", metadata = { name = name }, spec = {
    containers = json.array { { name = "c", image = "nginx:1.25", volumeMounts = json.array { { name = "m", mountPath = "/m" } } } },
    volumes = json.array { { name = "m", persistentVolumeClaim = { claimName = claim } } } } }
end

t.test("a_role_that_trusts_the_driver_mounts_and_another_is_refused_before", with_cluster(function(k8s)
  local bucket = oss.bucket "eirun-sandbox-models"
  bucket:put("bert/1/saved_model.pb", "x")
  make_role(k8s, "reader", reader.SUBJECT)
  make_role(k8s, "stranger", "system:serviceaccount:default:default")
  k8s:ensure_oss_volume { name = "good", bucket = bucket.name, path = "/bert", role = "reader" }
  k8s:create(pod("good", "good"))
  t.eq(k8s:wait({ kind = "Pod", name = "good", condition = "Ready" }).status.phase, "Running")
  local bad = { name = "bad", bucket = bucket.name, path = "/bert", role = "stranger" }
  t.match(t.err("invalid", function() k8s:ensure_oss_volume(bad) end).message, "trusts the subject 'system:serviceaccount:default:default'")
  t.eq(k8s:get("PersistentVolume", "bad"), nil)
  bad.check = false
  k8s:ensure_oss_volume(bad)
  k8s:create(pod("bad", "bad"))
  local err = t.err("invalid", function() k8s:wait { kind = "Pod", name = "bad", condition = "Ready", timeout = 900 } end)
  t.match(err.message, "FailedMount: .*AuthenticationFail.NoPermission")
  t.match(err.hint, "trust policy")
end))

t.test("a_path_that_holds_nothing_is_refused_and_its_reader_named", with_cluster(function(k8s)
  local err = t.err("not_found", function() k8s:ensure_oss_volume { name = "v", bucket = "eirun-sandbox-models", path = "/none" } end)
  t.match(err.message, "PersistentVolume 'v': nothing is stored at oss://eirun%-sandbox%-models/none/")
  t.eq(k8s:get("Secret", "v-oss"), nil)
end))
