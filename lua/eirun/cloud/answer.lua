-- SPDX-License-Identifier: Apache-2.0
-- What a server answered, in the caller's terms: both envelopes of errors, and bodies that are no JSON at all.
local codes = require "eirun.cloud.codes"
local errors = require "eirun.errors"
local http = require "eirun.http"
local json = require "eirun.core.json"

local M = {}

---"DescribeInstances of instance 'i-a'"
---@param call eirun.CloudCall
---@return string
function M.about(call)
  return call.action .. (call.object and " of " .. call.object or "")
end

local function principal(details)
  return details.AuthPrincipalDisplayName or details.AuthPrincipalType or "the key's owner"
end

-- "grant cs:DescribeClusterDetail on acs:cs:*:*:cluster/c1 to user bob"
local function required_action(details, call, target)
  if type(details) ~= "table" or not details.AuthAction then return nil end
  local resource = details.AuthResource or M.resource(call, target)
  local hint = ("grant %s on %s to %s"):format(details.AuthAction, resource, principal(details))
  return details.NoPermissionType == "ExplicitDeny" and hint .. "; a policy denies it explicitly" or hint
end

---The RAM resource that a call is about, as policies write it.
---@param call eirun.CloudCall
---@param target eirun.Target
---@return string
function M.resource(call, target)
  local id = call.params and call.params.ClusterId
  if call.product == "cs" and id then return ("acs:cs:%s:%s:cluster/%s"):format(target.region, target.account or "*", id) end
  return "*"
end

-- RateLimit headers of older gateways: "Limit:100,Remain:0,TimeLeft:1500".
local function time_left(headers)
  local text = headers:get "x-ratelimit-user-api" or headers:get "x-ratelimit-user"
  return text and tonumber(text:match("TimeLeft:(%d+)"))
end

local function wait_asked(headers)
  local ms = tonumber(headers:get "x-acs-retry-after" or "") or time_left(headers)
  return ms and ms / 1000
end

local function permission(code, call, target)
  if not codes.is_permission(code) then return nil end
  return ("grant %s:%s on %s to the key's owner"):format(call.product, call.action, M.resource(call, target))
end

local function text_of(body, reply)
  return body.Message or body.message or ("the server answered %d with %s"):format(reply.status, http.excerpt(reply.body))
end

---The error that an answer tells.
---@param call eirun.CloudCall
---@param reply eirun.core.http.Answer
---@param target eirun.Target
---@return eirun.Error
function M.failure(call, reply, target)
  local body = json.decode(reply.body or "")
  if type(body) ~= "table" then body = {} end
  local code = body.Code or body.code
  code = code and tostring(code) or nil
  local kind, hint = codes.classify(code or "", reply.status)
  local details = body.accessDeniedDetail or body.AccessDeniedDetail
  return errors.new(kind, M.about(call) .. ": " .. tostring(text_of(body, reply)), {
    code = code, status = reply.status, operation = call.action, object = call.object,
    request_id = body.RequestId or body.requestId or body.request_id or reply.headers:get "x-acs-request-id" or nil,
    hint = required_action(details, call, target) or permission(code or "", call, target) or hint,
    retryable = kind == "throttled" or nil, retry_after = wait_asked(reply.headers), uncertain = reply.status >= 500 or nil,
  })
end

---The decoded body; nil and an error for what is no JSON.
---@param call eirun.CloudCall
---@param reply eirun.core.http.Answer
---@return any
---@return eirun.Error|nil
function M.success(call, reply)
  if (reply.body or "") == "" then return {} end
  local body, err = json.decode(reply.body)
  if body ~= nil then return body end
  return nil, errors.new("internal", ("%s: the answer is not JSON (%s): %s"):format(M.about(call), err.message,
    http.excerpt(reply.body)), { operation = call.action, object = call.object, uncertain = true })
end

return M
