-- SPDX-License-Identifier: Apache-2.0
-- The instance metadata service at 100.100.100.200. There is one address for all instances here, so a caller names
-- its own by the header x-sandbox-instance; without it the first node of the cluster is meant.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local times = require "sandbox.times"

local metadata = {}

local role_name = "KubernetesWorkerRole-sandbox"
local key_life = 6 * 3600

local function instance_of(ctx, req)
  local asked = req.headers:get "x-sandbox-instance"
  if asked then return ctx.store:get("instance", asked) end
  local _, first = ctx.store:each "instance" ()
  return first
end

-- One temporary key for all workers, renewed when half its life is over.
local function role_credentials(ctx)
  local known = ctx.store:get("meta", "worker_key")
  if known and known.expires - ctx.now() > key_life / 2 then return known end
  local fresh = { AccessKeyId = "STS." .. ctx.id("NV", 22, "base36"), AccessKeySecret = crypto.hex(crypto.random(22)),
    SecurityToken = "CAIS" .. crypto.base64(crypto.random(90)), expires = ctx.now() + key_life, updated = ctx.now() }
  ctx.store:tx(function()
    ctx.credentials.add(fresh.AccessKeyId, { secret = fresh.AccessKeySecret, token = fresh.SecurityToken, expires = fresh.expires,
      identity = "AssumedRoleUser", name = role_name .. "/metadata", id = role_name })
    ctx.store:put("meta", "worker_key", fresh)
  end)
  return fresh
end

local pages = {}

pages["meta-data/instance-id"] = function(_, instance) return instance.id end
pages["meta-data/region-id"] = function(ctx) return ctx.region end
pages["meta-data/zone-id"] = function(_, instance) return instance.zone end
pages["meta-data/instance/instance-type"] = function(_, instance) return instance.type end
pages["meta-data/private-ipv4"] = function(_, instance) return instance.ip end
pages["meta-data/owner-account-id"] = function(ctx) return ctx.account end
pages["meta-data/ram/security-credentials/"] = function() return role_name end

pages["meta-data/instance/spot/termination-time"] = function(_, instance)
  return instance.terminates and times.iso(instance.terminates)
end

pages["meta-data/ram/security-credentials/" .. role_name] = function(ctx)
  local key = role_credentials(ctx)
  return json.encode { AccessKeyId = key.AccessKeyId, AccessKeySecret = key.AccessKeySecret, SecurityToken = key.SecurityToken,
    Expiration = times.iso(key.expires), LastUpdated = times.iso(key.updated), Code = "Success" }
end

pages["dynamic/instance-identity/document"] = function(ctx, instance)
  return json.encode { ["instance-id"] = instance.id, ["region-id"] = ctx.region, ["zone-id"] = instance.zone,
    ["instance-type"] = instance.type, ["private-ipv4"] = instance.ip, ["owner-account-id"] = ctx.account }
end

local function text(req, status, body) req:respond(status, { ["Content-Type"] = "text/plain" }, body) end

-- IMDSv2 tokens are not kept: whoever has one may read, and reading without one is allowed too, as by default on ECS.
local function issue_token(req)
  local ttl = math.tointeger(tonumber(req.headers:get "x-aliyun-ecs-metadata-token-ttl-seconds"))
  if not ttl or ttl < 1 or ttl > 21600 then return text(req, 400, "bad ttl\n") end
  text(req, 200, crypto.base64(crypto.random(32)))
end

local function handle(ctx, req)
  if req.method == "PUT" and req.path == "/latest/api/token" then return issue_token(req) end
  local page = pages[req.path:match "^/latest/(.+)$" or ""] or pages[(req.path:match "^/latest/(.-)/?$" or "") .. "/"]
  local instance = instance_of(ctx, req)
  local body = page and instance and page(ctx, instance)
  if not body then return text(req, 404, "404 - Not Found\n") end
  text(req, 200, body)
end

function metadata.start(ctx)
  ctx.service { name = "METADATA", env = "METADATA", hosts = { "100.100.100.200" }, tls = false,
    handle = function(req) handle(ctx, req) end }
end

return metadata
