-- SPDX-License-Identifier: Apache-2.0
-- eirun oss multipart ls and abort: uploads that nobody completed. Their parts are billed and seen by nobody.
local bulk = require "eirun.oss.bulk"
local common = require "eirun.cli.oss.common"
local errors = require "eirun.errors"
local paths = require "eirun.oss.paths"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local function age(seconds)
  if seconds < 3600 then return ("%d min"):format(seconds // 60) end
  if seconds < 2 * 86400 then return ("%d h"):format(seconds // 3600) end
  return ("%d days"):format(seconds // 86400)
end

-- With sizes: what an upload costs is what one wants to know.
local function chosen(io, place, older)
  local bucket, list, now = io:bucket(place.bucket), {}, task.now()
  for _, open in ipairs(bucket:uploads(place.key)) do
    open.age = math.max(0, math.floor(now - (open.initiated or now)))
    if open.age >= (older or 0) then list[#list + 1] = open end
  end
  task.map(list, function(open)
    local ok, parts = pcall(bulk.parts, bucket, open.key, open.id)
    open.bytes, open.parts = 0, ok and #parts or 0
    for _, part in ipairs(ok and parts or {}) do open.bytes = open.bytes + part.size end
  end, 8)
  return bucket, list
end

local function show(io, bucket, list)
  for _, open in ipairs(list) do
    io:say(("%-20s  %10s  %5d parts  %10s  %s  oss://%s/%s"):format(open.initiated and wire.iso(open.initiated) or "", age(open.age),
      open.parts, common.bytes(open.bytes), open.id, bucket.name, paths.show(open.key)))
  end
end

local function total(list)
  local bytes = 0
  for _, open in ipairs(list) do bytes = bytes + open.bytes end
  return bytes
end

local function ls(io, place, older)
  local bucket, list = chosen(io, place, older)
  show(io, bucket, list)
  io:say(("%s, %s"):format(common.count(#list, "open upload"), common.bytes(total(list))))
  io:result { uploads = require("eirun.core.json").array(list), bytes = total(list) }
end

local function abort(io, place, older)
  if not older then common.usage "multipart abort wants --older-than, as 24h: what is under way now would end, too" end
  local bucket, list = chosen(io, place, older)
  if io.options.dry_run then
    show(io, bucket, list)
    return io:say("would end " .. common.count(#list, "upload"))
  end
  local failed = {}
  task.map(list, function(open)
    local ok, err = pcall(bucket.abort, bucket, open.key, open.id)
    if not ok then failed[#failed + 1] = { key = open.key, error = errors.from(err) } end
  end, 8)
  io:tell_failed(failed)
  io:say(("%s ended, %s"):format(common.count(#list - #failed, "upload"), common.bytes(total(list))))
  io:result { ended = #list - #failed, bytes = total(list), failed = common.failures(failed) }
end

local actions = { ls = ls, abort = abort }

function M.multipart(io, words)
  local action = actions[words[1] or ""]
  if not action then common.usage "eirun oss multipart ls|abort oss://BUCKET[/PREFIX]" end
  io:want(words, 2)
  action(io, io:remote(words[2]), common.duration("older-than", io.options.older_than))
end

return M
