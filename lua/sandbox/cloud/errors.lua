-- SPDX-License-Identifier: Apache-2.0
-- A call that fails raises one of these; the gateway writes it down as its product does.
local errors = {}

local Failure = { __name = "sandbox.cloud.failure" }
Failure.__index = Failure
Failure.__tostring = function(self) return self.code .. ": " .. self.message end

-- Raises. `extra`: headers={...} to answer with, detail={...} (AccessDeniedDetail).
function errors.raise(status, code, message, extra)
  local failure = { status = status, code = code, message = message }
  for key, value in pairs(extra or {}) do failure[key] = value end
  error(setmetatable(failure, Failure), 0)
end

function errors.is(value) return getmetatable(value) == Failure end

-- RPC products: capitalised, with host and a link.
function errors.rpc_body(failure, request_id, host)
  return { RequestId = request_id, HostId = host, Code = failure.code, Message = failure.message,
    Recommend = "https://api.aliyun.com/troubleshoot?q=" .. failure.code .. "&product=" .. (host or ""):match "^[^.]*",
    AccessDeniedDetail = failure.detail }
end

-- Container service: lower case.
function errors.cs_body(failure, request_id)
  return { requestId = request_id, code = failure.code, message = failure.message, status = failure.status,
    accessDeniedDetail = failure.detail }
end

return errors
