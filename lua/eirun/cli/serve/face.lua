-- SPDX-License-Identifier: Apache-2.0
-- What the verbs of `eirun serve` share: the way to the cluster, the job that is meant, documents.
local errors = require "eirun.errors"
local kube = require "eirun.cli.kube.face"
local task = require "eirun.task"

local M = { out = kube.out, flow = kube.flow, note = kube.note, usage = kube.usage }

---Wraps a verb: connects and runs it. The verb answers its exit code.
---@param fn fun(k8s: eirun.KubeClient, options: table, words: string[]): integer|nil
---@return table module
function M.verb(fn)
  return { run = function(options, words)
    local k8s, session <close> = kube.connect(options) -- luacheck: ignore 211
    return fn(k8s, options, words) or 0
  end }
end

---The one word that names a job.
---@param words string[]
---@return string
function M.name(words)
  if not words[1] then M.usage "which job? `eirun serve list` shows them" end
  if words[2] then M.usage(("one job at a time: '%s' is one word too many"):format(words[2])) end
  return words[1]
end

---What chooses among jobs of one name.
---@param options table
---@return {version?: string, type?: string}
function M.which(options)
  return { version = options.version, type = options.type }
end

-- Of a node that shares its cards: the memory of one.
local function node_memory(k8s)
  local known = {}
  return function(name)
    if not known[name] then
      local node = k8s:get("Node", name)
      local capacity = node and node.status.capacity or {}
      local cards = tonumber(capacity["aliyun.com/gpu-count"]) or 0
      known[name] = cards > 0 and (tonumber(capacity["aliyun.com/gpu-mem"]) or 0) / cards or 0
    end
    return known[name]
  end
end

---Arena's records of jobs.
---@param k8s eirun.KubeClient
---@param jobs eirun.ServingJob[]
---@return table[]
function M.infos(k8s, jobs)
  local shape, memory, list = require "eirun.cli.serve.shape", node_memory(k8s), {}
  for i, job in ipairs(jobs) do list[i] = shape.info(job, task.now(), memory) end
  return list
end

---Prints a value as JSON or YAML; false for another format.
---@param format string|nil
---@param value any
---@return boolean
function M.document(format, value)
  if format == "json" then
    M.out(errors.check(require("eirun.core.json").encode(value, { indent = true })) .. "\n")
  elseif format == "yaml" then
    M.out((require("eirun.core.yaml").encode(value):gsub("\n*$", "\n")))
  end
  return format == "json" or format == "yaml"
end

return M
