-- SPDX-License-Identifier: Apache-2.0
-- What we may do, tokens of service accounts, and the one who leads.
local client = require "eirun.kube.client"
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local os_core = require "eirun.core.os"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}
local Client = client.Client

local UNKNOWN = { api_version = "", namespaced = true }

-- The kind that a word means; with `unknown` also none that the server has.
local function resource_of(self, word, opts)
  local info = kinds.known(word)
  if info or word == "*" then return info or UNKNOWN end
  if not opts.unknown then return self:resource(word) end
  local ok, found = pcall(self.resource, self, word)
  if not ok and not errors.is(found, "not_found") then error(found, 0) end
  return ok and found or UNKNOWN
end

---May we? Asks the server's authorizer.
---@param verb string get, list, watch, create, update, patch, delete
---@param resource string a kind or a word such as `pods` or `deployments.apps`, `*` for all; with `/sub` a subresource; a path from `/` on
---@param opts? {name?: string, all?: boolean, unknown?: boolean} unknown: ask also about what the server does not have
---@return boolean allowed
---@return string reason
---Example: `if not k8s:can_i("create", "pods/eviction") then … end`. Raises "not_found" for an unknown resource.
function Client:can_i(verb, resource, opts)
  opts = opts or {}
  local spec
  if resource:sub(1, 1) == "/" then
    spec = { nonResourceAttributes = { path = resource, verb = verb } }
  else
    local word, sub = resource:match("^([^/]+)/?(.*)$")
    local info = resource_of(self, word, opts)
    local group, version = kinds.group(info.api_version)
    spec = { resourceAttributes = { verb = verb, group = group, version = version, resource = info.plural or word, name = opts.name,
      subresource = sub ~= "" and sub or nil, namespace = info.namespaced and not opts.all and self.ns or nil } }
  end
  local review = self:call { method = "POST", path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", verb = "review",
    object = verb .. " " .. resource, idempotent = true,
    body = json.encode { apiVersion = "authorization.k8s.io/v1", kind = "SelfSubjectAccessReview", spec = spec } }
  local status = review.status or {}
  return status.allowed == true, status.reason or status.evaluationError or ""
end

---A token of a service account.
---@param account string
---@param opts? {seconds?: integer, audiences?: string[]}
---@return userdata token a secret
---@return number expires seconds since the epoch
---Example: `local token = k8s:token("deployer", { seconds = 3600 })`. Raises "not_found" for no such account, "denied" without the right.
function Client:token(account, opts)
  opts = opts or {}
  local info = self:kind "ServiceAccount"
  local reply = self:call { method = "POST", path = kinds.path(info, self.ns, account, "token"), verb = "make a token for",
    object = client.where(info, self.ns, account), body = json.encode { apiVersion = "authentication.k8s.io/v1", kind = "TokenRequest",
      spec = { audiences = json.array(opts.audiences or {}), expirationSeconds = opts.seconds } } }
  return require("eirun.core.secret").new(reply.status.token), wire.parse_time(reply.status.expirationTimestamp)
end

-- Leases --------------------------------------------------------------------------------------------------------------

---@class eirun.KubeLease
---@field name string
---@field holder string
local Lease = {}
Lease.__index = Lease

-- RFC 3339 with exactly six digits, as MicroTime wants it.
local function micro_time(seconds)
  return os.date("!%Y-%m-%dT%H:%M:%S", seconds // 1) .. (".%06dZ"):format(math.floor(seconds % 1 * 1000000))
end

---A lease that one of several may hold. Nobody's clock is compared with another's: a holder is gone when its record has not
---changed for as long as it says, by our own clock.
---@param name string
---@param opts? {holder?: string, seconds?: integer, renew?: number, retry?: number}
---@return eirun.KubeLease
---Example: `k8s:lease("eirun-controller"):lead(function() … end)`. Raises nothing yet.
function Client:lease(name, opts)
  opts = opts or {}
  local seconds = opts.seconds or 15
  local holder = opts.holder or ("%s_%s"):format(os_core.hostname(), crypto.hex(crypto.random(8)))
  return setmetatable({ k8s = self, name = name, holder = holder, seconds = seconds, renew = opts.renew or seconds * 2 / 3,
    retry = opts.retry or seconds / 7.5 }, Lease)
end

local function created(self)
  local now = micro_time(task.now())
  local ok, object = pcall(self.k8s.create, self.k8s, { apiVersion = "coordination.k8s.io/v1", kind = "Lease",
    metadata = { name = self.name, namespace = self.k8s.ns }, spec = { holderIdentity = self.holder, leaseDurationSeconds = self.seconds,
      acquireTime = now, renewTime = now, leaseTransitions = 0 } })
  if ok then return object end
  if errors.is(object, "conflict") then return nil end
  error(object, 0)
end

local function put(self, object)
  local info = self.k8s:kind "Lease"
  local ok, reply = pcall(self.k8s.call, self.k8s, { method = "PUT", path = kinds.path(info, self.k8s.ns, self.name), verb = "renew",
    object = client.where(info, self.k8s.ns, self.name), body = json.encode(object), attempts = 1, idempotent = false })
  if ok then return reply end
  if errors.is(reply, "conflict") then return nil end
  error(reply, 0)
end

-- Has the record changed since we looked last? Then its holder lives.
local function is_alive(self, object)
  local spec = object.spec or {}
  local record = json.encode(spec)
  if record ~= self.record then self.record, self.seen = record, task.now() end
  return (spec.holderIdentity or "") ~= "" and task.now() - self.seen < (spec.leaseDurationSeconds or self.seconds)
end

local function take(self, object)
  local spec, now = object.spec or {}, micro_time(task.now())
  local mine = spec.holderIdentity == self.holder
  object.spec = { holderIdentity = self.holder, leaseDurationSeconds = self.seconds, renewTime = now,
    acquireTime = mine and spec.acquireTime or now,
    leaseTransitions = (spec.leaseTransitions or 0) + (mine and 0 or 1) }
  return put(self, object)
end

---Tries once to take the lease, or to keep it.
---@return boolean held
---Example: `if lease:try() then work() end`. Raises "denied" without the right.
function Lease:try()
  local object = self.object or self.k8s:get("Lease", self.name)
  local before = self.object
  if not object then
    self.object = created(self)
  elseif (object.spec or {}).holderIdentity == self.holder or not is_alive(self, object) then
    self.object = take(self, object)
  else
    self.object = nil
  end
  -- Our last word may be outdated by an edit that is not another's claim: look once more.
  if before and not self.object then return self:try() end
  self.held_at = self.object and task.now() or self.held_at
  return self.object ~= nil
end

---Who holds it, nil for nobody.
---@return string|nil holder
---Example: `print(lease:holder_now())`. Raises errors with the server's words.
function Lease:holder_now()
  local object = self.k8s:get("Lease", self.name)
  local holder = object and (object.spec or {}).holderIdentity
  return holder ~= "" and holder or nil
end

---Gives it up, so that another one can take it at once.
---@return nil
---Example: `lease:release()`. Raises errors with the server's words.
function Lease:release()
  local object = self.object
  self.object = nil
  if not object then return end
  object.spec.holderIdentity, object.spec.leaseDurationSeconds = "", 1
  put(self, object)
end

local function keep(self)
  local limit = task.now() + self.renew
  while true do
    task.sleep(self.retry)
    local ok, held = pcall(self.try, self)
    if ok and held then limit = task.now() + self.renew end
    if ok and not held then errors.raise("conflict", ("lease '%s' was taken by another"):format(self.name), { object = self.name }) end
    if not ok and (errors.is(held, "cancelled") or errors.is(held, "denied")) then error(held, 0) end
    if task.now() >= limit then
      errors.raise("timeout", ("lease '%s' could not be renewed for %g seconds"):format(self.name, self.renew), { object = self.name })
    end
  end
end

---Waits until the lease is ours, runs `fn` while it is renewed, gives it up afterwards.
---@param fn fun(): any
---@return any
---Example: `k8s:lease("eirun"):lead(run_controller)`.
---Raises "conflict" or "timeout", with `fn` cancelled, as soon as the lease is lost; what `fn` raises.
function Lease:lead(fn)
  while not self:try() do task.sleep(self.retry * (1 + string.unpack("<I4", crypto.random(4)) / 0x100000000)) end
  local ok, result = pcall(task.race, { fn, function() keep(self) end })
  task.shield(5, function() pcall(self.release, self) end)
  if not ok then error(result, 0) end
  return result
end

M.Lease = Lease
return M
