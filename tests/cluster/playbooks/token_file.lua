-- SPDX-License-Identifier: Apache-2.0
-- A test for `eirun test`: reads a config map again and again in one process, and tells each change between allowed and refused.
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local client = require "eirun.kube.client"
local config = require "eirun.kube.config"
local t = require "eirun.test"
local target = require "eirun.target"
local task = require "eirun.task"
local getenv = require("eirun.core.os").getenv

t.test("reads_go_on", function()
  local job = json.decode(assert(fs.read(getenv "EIRUN_TOKEN_JOB"))) -- { kubeconfig, namespace, map, log }
  local undo = target.use { sandbox = true, region = "cn-hangzhou", endpoints = {}, namespace = job.namespace }
  local k8s = client.new(config.read(job.kubeconfig)):namespace(job.namespace)
  local last
  repeat
    local done, err = pcall(function() return k8s:get("ConfigMap", job.map) end)
    local now = done and "read" or ("%s: %s"):format(err.kind, err.message)
    if now ~= last then assert(fs.append(job.log, now .. "\n")) end
    last = now
    task.sleep(0.3)
  until fs.read(job.log .. ".end")
  undo()
end)
