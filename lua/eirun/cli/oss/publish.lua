-- SPDX-License-Identifier: Apache-2.0
-- eirun oss publish and verify: a SavedModel as a version in a bucket.
local common = require "eirun.cli.oss.common"
local errors = require "eirun.errors"

local M = {}

local function version_of(text)
  if text == nil or text == "next" then return text end
  local number = math.tointeger(tonumber(text))
  if not number or number < 0 then common.usage(("--set-version is a number or next, not '%s'"):format(text)) end
  return number
end

-- Deleting wants to know what runs; saying nothing about the cluster is not saying that nothing runs.
local function served_by(io, place)
  local options = io.options
  if not options.keep then return nil end
  if options.no_deployments then return function() return nil end end
  io:open()
  local target = require("eirun.target").current()
  if not (target.kubeconfig or options.cluster or target.cluster) then
    common.usage "--keep asks the cluster what it serves: give --kubeconfig or --cluster, or --no-deployments"
  end
  local k8s = require("eirun.kube").connect(target.kubeconfig and {} or require("eirun.ack").cluster(options.cluster or target.cluster))
  return require("eirun.oss").served_by(k8s, place.bucket, place.key)
end

local function tell(io, seen, outcome)
  local what = io.options.dry_run and (outcome == "unchanged" and "is published" or "would be published")
    or outcome == "unchanged" and "was published already" or "published"
  io:say(("version %d %s: oss://%s/%s, %s, %s"):format(seen.version, what, seen.bucket, seen.prefix, common.count(seen.files, "file"),
    common.bytes(seen.bytes)))
  for _, version in ipairs(seen.deleted) do
    io:say(("version %d %s"):format(version, io.options.dry_run and "would be deleted" or "deleted"))
  end
  for _, row in ipairs(seen.kept) do io:say(("version %d kept: %s"):format(row.version, row.why)) end
  local json = require "eirun.core.json"
  seen.outcome, seen.deleted, seen.kept = outcome, json.array(seen.deleted), json.array(seen.kept)
  io:result(seen)
end

function M.publish(io, words)
  io:want(words, 2)
  local place, version = io:remote(words[2], true), version_of(io.options.set_version)
  if io.options.keep and io.options.keep < 1 then common.usage "--keep is 1 or more" end
  local opts = io:transfer_options()
  require("eirun.oss.savedmodel").check(words[1])
  opts.from, opts.to, opts.version, opts.keep, opts.dry_run = words[1], place.key, version, io.options.keep, io.options.dry_run
  opts.served = served_by(io, place)
  local seen, outcome = io:bucket(place.bucket):publish(opts)
  tell(io, seen, outcome)
end

function M.verify(io, words)
  io:want(words, 1, 2)
  local folder, text = words[2] and words[1] or nil, words[2] or words[1]
  local place = io:remote(text, true)
  local seen = io:bucket(place.bucket):verify { prefix = place.key, from = folder }
  local failed = {}
  for i, row in ipairs(seen.differences) do
    failed[i] = { path = row.where .. ": " .. row.path, error = errors.new("conflict", row.what) }
  end
  io:tell_failed(failed)
  io:say(("%s of %s compared with the %s: %s"):format(common.count(seen.files, "file"), text, seen.against,
    seen.ok and "equal" or common.count(#failed, "difference")))
  seen.differences = require("eirun.core.json").array(seen.differences)
  io:result(seen)
end

return M
