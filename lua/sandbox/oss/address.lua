-- SPDX-License-Identifier: Apache-2.0
-- Which bucket and key a request is about: from the Host's first label, from the path, or (one client does both) from either.
local errors = require "sandbox.oss.errors"

local M = {}

function M.decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

---@param name string host without port
---@return table { bucket?, region?, internal?, path_style? }
function M.host(name)
  local label, region = name:match "^(.-)%.?oss%-([%w-]+)%.aliyuncs%.com$"
  if not region or (label ~= "" and not name:find(label .. ".oss-", 1, true)) then return { path_style = true } end
  local inner = region:match "^(.-)%-internal$"
  return { bucket = label ~= "" and label or nil, region = inner or region, internal = inner ~= nil }
end

local function split_path(path)
  local bucket, key = path:match "^/([^/]+)/?(.*)$"
  return bucket and M.decode(bucket), M.decode(key or "")
end

local function from_path(path)
  local bucket, key = split_path(path)
  return { bucket = bucket, key = key }
end

---The ways in which a request may be read, likeliest first: the signature decides.
---@return table[] { {bucket?, key} ... }
---@return table host
function M.read(host_name, path)
  local host = M.host(host_name)
  if host.path_style then return { from_path(path) }, host end
  if not host.bucket then
    if path ~= "/" then errors.raise "SecondLevelDomainForbidden" end
    return { { key = "" } }, host
  end
  local ways = { { bucket = host.bucket, key = M.decode(path:sub(2)) } }
  local bucket, key = split_path(path)
  if bucket == host.bucket then ways[2] = { bucket = bucket, key = key } end
  return ways, host
end

function M.check_bucket_name(name)
  if #name < 3 or #name > 63 or not name:find "^[a-z0-9][a-z0-9-]*[a-z0-9]$" then
    errors.raise("InvalidBucketName", { extra = { { "BucketName", name } } })
  end
end

function M.check_key(key)
  if key == "" or #key > 1023 or key:find "^[/\\]" or key:find("\0", 1, true) or not utf8.len(key) then
    errors.raise("InvalidObjectName", { extra = { { "ObjectName", key } } })
  end
end

return M
