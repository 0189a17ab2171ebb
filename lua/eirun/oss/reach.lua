-- SPDX-License-Identifier: Apache-2.0
-- Can the region's internal endpoint be reached from here? Then this machine is one of the region's.
local service = require "eirun.oss.service"
local target = require "eirun.target"

local M = {}

local PATIENCE = 1 -- seconds; inside the region it answers in milliseconds

---@param bucket eirun.Bucket
---@return boolean
---Example: `if reach.internal(bucket) then print "use it" end`. Raises nothing but a cancel.
function M.internal(bucket)
  local url = "http://" .. service.endpoint_kinds.internal:format(bucket.region) .. "/"
  local reply = target.http():request { method = "HEAD", url = url, connect_timeout = PATIENCE, timeout = PATIENCE, max_body = 65536 }
  return reply ~= nil and (reply.headers:get "server" or ""):find "AliyunOSS" ~= nil
end

return M
