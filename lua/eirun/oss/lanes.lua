-- SPDX-License-Identifier: Apache-2.0
-- What carries the bytes of transfers: threads of their own, or the host's HTTP client where these cannot be used.
local clock = require "eirun.core.clock"
local os_core = require "eirun.core.os"
local plain = require "eirun.oss.plain"
local service = require "eirun.oss.service"
local target = require "eirun.target"
local threads = require "eirun.oss.threads"

local M = {}

---@class eirun.OssOp
---@field action "send"|"fetch"|"allocate" a range of a file to the server, or the other way; room for a file
---@field verb string for messages, "upload a part of"
---@field what? string the piece, for messages: "part 3"
---@field key string
---@field query? table
---@field headers? table<string, string>
---@field path string
---@field offset integer
---@field length integer
---@field size? integer of the whole file that is read: any other is an error
---@field known? {crc: integer|nil, md5: string|nil, etag: string} what the server has: not sent when the file has the same
---@field part_of_object? boolean a ranged read: the CRC that the server tells is another's
---@field target? string where the file is renamed to

---@class eirun.OssResult
---@field crc integer of the bytes
---@field etag string
---@field skipped? boolean nothing was sent
---@field resent integer
---@field reason? string why

---@class eirun.OssLane
---@field run fun(self, op: eirun.OssOp): eirun.OssResult raises
---@field submit fun(self, op: eirun.OssOp, done: fun(result: eirun.OssResult|nil, err: eirun.Error|nil))
---@field quiet fun(self, key: string) waits until nothing of that key is under way
---@field bytes fun(self): integer on the wire so far
---@field close fun(self)

local function environment(name)
  local value = os_core.getenv(name) or os_core.getenv(name:upper())
  return value ~= "" and value or nil
end

local function spared(host)
  for name in (environment "no_proxy" or ""):gmatch "[^%s,]+" do
    name = name:gsub("^%*?%.", "")
    if name == "*" or name == "" or host == name or host:sub(-#name - 1) == "." .. name then return true end
  end
  return false
end

-- The threads speak to the server itself.
local function has_proxy(bucket)
  if target.current().sandbox then return false end
  local url = service.where { bucket = bucket.name, region = bucket.region, place = bucket.place }
  return (environment(url.scheme .. "_proxy") or environment "all_proxy") ~= nil and not spared((url.host:gsub(":%d+$", "")))
end

---Opens what transfers to and from a bucket go over.
---@param bucket eirun.Bucket
---@param opts {connections: integer, bandwidth: number|nil, spawn: fun(fn: function)}
---@return eirun.OssLane
function M.open(bucket, opts)
  local by_threads = clock.kind() == "real" and (bucket.place or {}).signature ~= "v1" and not has_proxy(bucket)
  return (by_threads and threads or plain).open(bucket, opts)
end

return M
