-- SPDX-License-Identifier: Apache-2.0
-- eirun oss ls, stat, cat, mb, sign: looking, and what takes one request.
local common = require "eirun.cli.oss.common"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local glob = require "eirun.oss.glob"
local paths = require "eirun.oss.paths"
local term = require "eirun.core.term"

local M = {}

-- ls ------------------------------------------------------------------------------------------------------------------

local function list_buckets(io)
  io:open()
  local list = require("eirun.oss").buckets(io.options.region)
  for _, bucket in ipairs(list) do
    io:say(io.options.short and "oss://" .. bucket.name
      or ("%-20s  %-16s  %-10s  oss://%s"):format(bucket.created or "", bucket.region, bucket.class or "", bucket.name))
  end
  if not io.options.short then io:say(common.count(#list, "bucket")) end
  io:result { buckets = require("eirun.core.json").array(list) }
end

local function show_object(io, bucket, object)
  local name = ("oss://%s/%s"):format(bucket.name, paths.show(object.key))
  io:say(io.options.short and name or ("%-24s  %14d  %-12s  %-36s  %s"):format(object.modified or "", object.size, object.class or "",
    object.etag, name))
end

local function chosen(io, objects, prefix)
  local wanted, list = glob.filter(io.options.filter), require("eirun.core.json").array {}
  for _, object in ipairs(objects) do
    if wanted(object.key:sub(#prefix + 1)) then list[#list + 1] = object end
    if #list == io.options.limit then break end
  end
  return list
end

function M.ls(io, words)
  io:want(words, 0, 1)
  if not words[1] or words[1] == "oss://" then return list_buckets(io) end
  local place = io:remote(words[1])
  local bucket = io:bucket(place.bucket)
  local objects, folders = bucket:list { prefix = place.key, delimiter = io.options.directory and "/" or nil }
  local shown, bytes = chosen(io, objects, place.key:match "^(.*/)" or ""), 0
  for _, prefix in ipairs(folders) do io:say(("oss://%s/%s"):format(bucket.name, paths.show(prefix))) end
  for _, object in ipairs(shown) do
    bytes = bytes + object.size
    show_object(io, bucket, object)
  end
  if not io.options.short then io:say(("%s, %s"):format(common.count(#shown, "object"), common.bytes(bytes))) end
  io:result { bucket = bucket.name, prefix = place.key, objects = shown, folders = require("eirun.core.json").array(folders),
    bytes = bytes }
end

-- stat ----------------------------------------------------------------------------------------------------------------

local function no_object(place)
  local object = ("oss://%s/%s"):format(place.bucket, paths.show(place.key))
  errors.raise("not_found", "there is no " .. object, { object = object, code = "NoSuchKey" })
end

local fields = { "key", "size", "etag", "crc64", "type", "class", "object_type", "modified" }

function M.stat(io, words)
  io:want(words, 1)
  local place = io:remote(words[1])
  local bucket = io:bucket(place.bucket)
  local fact
  if place.key == "" then
    fact = bucket:info()
  else
    fact = bucket:head(place.key) or no_object(place)
    fact.key, fact.crc64 = place.key, fact.crc64 and crypto.crc64_text(fact.crc64)
  end
  local names = place.key == "" and { "name", "region", "created", "class", "acl", "public", "internal", "versioning" } or fields
  for _, name in ipairs(names) do
    if fact[name] then io:say(("%-12s %s"):format(name, paths.show(tostring(fact[name])))) end
  end
  for _, pair in ipairs(fact.meta or {}) do io:say(("%-12s %s: %s"):format("meta", pair[1], pair[2])) end
  io:result(fact)
end

-- cat -----------------------------------------------------------------------------------------------------------------

local PIECE = 4 << 20

-- Piece by piece, always of the same object; the whole is compared with its CRC-64.
local function write_object(bucket, place, options)
  local head = bucket:head(place.key) or no_object(place)
  local from = math.min(options.offset or 0, head.size)
  local past = math.min(from + (options.count or head.size), head.size)
  local whole, crc = from == 0 and past == head.size, 0
  while from < past do
    local text = bucket:get(place.key, { offset = from, length = math.min(PIECE, past - from), etag = head.etag })
    crc = crypto.crc64(text, crc)
    from = from + #text
    errors.check(term.write(1, text))
  end
  if whole and head.crc64 and crc ~= head.crc64 then
    errors.raise("network", ("oss://%s/%s arrived changed: its CRC-64 differs"):format(place.bucket, paths.show(place.key)))
  end
end

function M.cat(io, words)
  io:want(words, 1, 1000)
  for _, name in ipairs { "offset", "count" } do
    if (io.options[name] or 0) < 0 then common.usage(("--%s is 0 or more"):format(name)) end
  end
  local places = {}
  for i, word in ipairs(words) do places[i] = io:remote(word, true) end
  for _, place in ipairs(places) do write_object(io:bucket(place.bucket), place, io.options) end
end

-- mb ------------------------------------------------------------------------------------------------------------------

function M.mb(io, words)
  io:want(words, 1)
  local place = io:remote(words[1])
  if place.key ~= "" then common.usage "mb makes buckets: oss://BUCKET" end
  local _, outcome = io:bucket(place.bucket):ensure { class = io.options.storage_class }
  io:say(("oss://%s %s"):format(place.bucket, outcome))
  io:result { bucket = place.bucket, outcome = outcome }
end

-- sign ----------------------------------------------------------------------------------------------------------------

local LONGEST = 7 * 86400

function M.sign(io, words)
  io:want(words, 1)
  local place = io:remote(words[1], true)
  local seconds = common.duration("expires", io.options.expires) or 3600
  if seconds < 1 or seconds > LONGEST then common.usage "--expires is 1s to 7d" end
  local url = io:bucket(place.bucket):sign(place.key, seconds, io.options.method)
  io:say(url)
  io:result { url = url, expires = seconds, method = io.options.method or "GET" }
end

return M
