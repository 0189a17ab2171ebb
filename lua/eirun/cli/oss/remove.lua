-- SPDX-License-Identifier: Apache-2.0
-- eirun oss rm: objects, all below a prefix, an empty bucket.
local bulk = require "eirun.oss.bulk"
local common = require "eirun.cli.oss.common"
local errors = require "eirun.errors"
local glob = require "eirun.oss.glob"
local paths = require "eirun.oss.paths"

local M = {}

local function below(io, place)
  local wanted, keys = glob.filter(io.options.filter), {}
  local base = place.key:match "^(.*/)" or ""
  for _, object in ipairs(io:bucket(place.bucket):list { prefix = place.key }) do
    if wanted(object.key:sub(#base + 1)) then keys[#keys + 1] = object.key end
  end
  return keys
end

local function one(io, place)
  if place.key == "" or place.key:sub(-1) == "/" and not io:bucket(place.bucket):head(place.key) then
    common.usage(("oss://%s/%s is no object: say -r for all that is below"):format(place.bucket, paths.show(place.key)))
  end
  if io:bucket(place.bucket):head(place.key) then return { place.key } end
  local object = ("oss://%s/%s"):format(place.bucket, paths.show(place.key))
  io:tell_failed { { path = object, error = errors.new("not_found", "there is no " .. object, { code = "NoSuchKey" }) } }
  return {}
end

local function total(todo)
  local sum = 0
  for _, row in ipairs(todo) do sum = sum + #row.keys end
  return sum
end

local function delete_bucket(io, place)
  if place.key ~= "" then common.usage "--bucket wants oss://BUCKET" end
  if io.options.dry_run then return io:say(("would delete the bucket oss://%s"):format(place.bucket)) end
  io:bucket(place.bucket):remove()
  io:say(("oss://%s deleted"):format(place.bucket))
  io:result { bucket = place.bucket, deleted = 1 }
end

local function show(io, todo)
  for _, row in ipairs(todo) do
    for _, key in ipairs(row.keys) do io:say(("would delete oss://%s/%s"):format(row.place.bucket, paths.show(key))) end
  end
  io:say(("would delete %s"):format(common.count(total(todo), "object")))
  io:result { dry_run = true, delete = total(todo) }
end

function M.rm(io, words)
  io:want(words, 1, 1000)
  local places, todo = {}, {}
  for i, word in ipairs(words) do places[i] = io:remote(word) end
  if io.options.bucket then return delete_bucket(io, places[1]) end
  if io.options.filter and not io.options.recursive then common.usage "--include and --exclude choose among many: say -r" end
  for i, place in ipairs(places) do
    todo[i] = { place = place, keys = (io.options.recursive and below or one)(io, place) }
  end
  if io.options.dry_run then return show(io, todo) end
  if io.options.recursive and not io.options.force and total(todo) > 0 then
    errors.raise("denied", ("would delete %s"):format(common.count(total(todo), "object")),
      { code = "guard", hint = "say --force if that is meant, --dry-run to see which" })
  end
  local failed, count = {}, total(todo)
  for _, row in ipairs(todo) do
    for _, lost in ipairs(bulk.delete(io:bucket(row.place.bucket), row.keys)) do failed[#failed + 1] = lost end
  end
  io:tell_failed(failed)
  io:say(("%s deleted"):format(common.count(count - #failed, "object")))
  io:result { deleted = count - #failed, failed = common.failures(io.failed) }
end

return M
