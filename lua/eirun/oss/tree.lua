-- SPDX-License-Identifier: Apache-2.0
-- A folder becomes a tree of objects: compared by one listing and by content, only what differs is sent, and what makes the rest
-- visible (saved_model.pb) is sent last.
local errors = require "eirun.errors"
local paths = require "eirun.oss.paths"
local resource = require "eirun.resource"
local spec = require "eirun.spec"
local step = require "eirun.step"
local sync = require "eirun.oss.sync"

local M = {}

local rules = {
  from = { type = "string", required = true },
  to = { type = "string", required = true, match = "^[^/\\]", says = "a prefix that does not start with '/'" },
  last = { type = "string" },
  delete = { type = "boolean" },
  force = { type = "boolean" },
  filter = { type = "table" },
}

local function changes_of(plan, prefix)
  local changes = {}
  for _, job in ipairs(plan.send) do
    changes[#changes + 1] = { field = job.relative, from = job.replaces and job.replaces .. " bytes", to = job.size .. " bytes" }
  end
  for _, key in ipairs(plan.delete) do changes[#changes + 1] = { field = key:sub(#prefix + 1), from = "there", to = nil } end
  return changes
end

local function show_progress(progress)
  step.progress { done = progress.bytes_done or 0, total = progress.bytes, unit = "bytes", text = progress.current }
end

local function check_arrived(bucket, given, plan)
  local seen = {}
  for _, object in ipairs(bucket:list { prefix = given.to }) do seen[object.key] = object end
  for _, job in ipairs(plan.send) do
    local object = seen[job.key]
    if not object or object.size ~= job.size then
      local key = ("oss://%s/%s"):format(bucket.name, job.key)
      errors.raise("conflict", key .. " is not what was uploaded: somebody else writes there", { object = key })
    end
  end
  return seen
end

local function total_of(plan)
  return { files = #plan.send + plan.same, bytes = plan.bytes + plan.same_bytes }
end

---Makes the objects below a prefix hold a folder's files; see `bucket:ensure_tree`.
---@param bucket eirun.Bucket
---@param given {from: string, to: string, last?: string, delete?: boolean, force?: boolean, filter?: table}
---@return {bucket: string, prefix: string, files: integer, bytes: integer}
---@return string outcome
function M.ensure(bucket, given)
  spec.check("ensure_tree", given, rules)
  local from, to = given.from:gsub("/+$", ""), paths.folder(given.to)
  local plan = sync.plan_upload(bucket, from, to, { filter = given.filter, delete = given.delete })
  sync.raise_failed { failed = plan.problems }
  if plan.source_empty and not (given.delete and given.force) then
    errors.raise("invalid", ("'%s' is empty: there is nothing to upload"):format(from), { object = from })
  end
  local _, outcome = resource.ensure {
    kind = "model", name = ("oss://%s/%s"):format(bucket.name, to),
    observe = function() return plan.found > 0 and plan or nil end,
    compare = function() return changes_of(plan, to) end,
    act = function()
      local report = sync.run(bucket, plan, { last = given.last or "saved_model.pb", force = given.force, on_progress = show_progress })
      sync.raise_failed(report)
      return check_arrived(bucket, { to = to }, plan)
    end,
  }
  local total = total_of(plan)
  return { bucket = bucket.name, prefix = to, files = total.files, bytes = total.bytes }, outcome
end

return M
