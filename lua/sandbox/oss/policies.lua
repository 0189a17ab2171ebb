-- SPDX-License-Identifier: Apache-2.0
-- Bucket policies: statements that allow or deny actions on the bucket and its objects to principals. Conditions are not played.
local json = require "eirun.core.json"
local policy = require "sandbox.cloud.policy"
local errors = require "sandbox.oss.errors"
local objects = require "sandbox.oss.objects"
local reply = require "sandbox.oss.reply"

local M = {}

local longest = 16 << 10
local effects = { Allow = true, Deny = true }

local function malformed(why)
  errors.raise("InvalidPolicyDocument", { message = "The policy is not valid: " .. why })
end

local function check_statement(statement)
  if type(statement) ~= "table" or not effects[statement.Effect or ""] then malformed "Effect is Allow or Deny." end
  for _, field in ipairs { "Action", "Principal", "Resource" } do
    local value = statement[field]
    if type(value) ~= "string" and not (type(value) == "table" and value[1]) then malformed(field .. " is missing.") end
  end
  if statement.Condition then errors.raise("NotImplemented", { message = "Conditions of policies are not played here." }) end
end

function M.put(oss, q)
  local text = objects.read_xml(q, longest)
  local document = json.decode(text)
  if type(document) ~= "table" or type(document.Statement) ~= "table" then malformed "it is no JSON with statements." end
  for _, statement in ipairs(document.Statement) do check_statement(statement) end
  q.record.policy = document
  oss.store:put("oss_bucket", q.bucket, q.record)
  return reply.of(200)
end

function M.get(_, q)
  if not q.record.policy then errors.raise("NoSuchBucketPolicy", { extra = { { "BucketName", q.bucket } } }) end
  return reply.of(200, { { "Content-Type", "application/json" } }, (assert(json.encode(q.record.policy))))
end

function M.delete(oss, q)
  q.record.policy = nil
  oss.store:put("oss_bucket", q.bucket, q.record)
  return reply.of(204)
end

local function meant(statement, who)
  local list = type(statement.Principal) == "table" and statement.Principal or { statement.Principal }
  for _, principal in ipairs(list) do
    if principal == "*" or principal == who then return true end
  end
end

---What a bucket's policy says to this principal: "Allow", "Deny", or nothing.
---@param document table|nil
---@param who string|nil account, nil for anonymous
function M.verdict(document, who, action, resource)
  local said
  for _, statement in ipairs(document and document.Statement or {}) do
    -- Judged as one that allows, so that "allowed" tells whether it fits.
    local alone = { { Statement = { { Effect = "Allow", Action = statement.Action, Resource = statement.Resource } } } }
    if meant(statement, who) and policy.allows(alone, action, resource) then
      if statement.Effect == "Deny" then return "Deny" end
      said = "Allow"
    end
  end
  return said
end

return M
