-- SPDX-License-Identifier: Apache-2.0
-- Kubeconfigs that Container Service issues: for the public or the private address, long-lived or for some minutes, asked for again before
-- they end.
local cloud = require "eirun.cloud"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local spec = require "eirun.spec"
local task = require "eirun.task"
local wire = require "eirun.wire"

local M = {}

local owner_only = tonumber("600", 8)
local SHARE_LEFT, MOST_LEFT = 0.2, 600 -- renewed when a fifth of its life is left, ten minutes at most

local rules = {
  private = { type = "boolean" }, minutes = { type = "integer", min = 15, max = 4320 }, path = { type = "string", required = true },
}

-- Without a public address the private one is all there is; asked for the public one, the API would answer something unusable.
local function is_private(cluster, private)
  if private ~= nil then return private end
  local urls = cluster:endpoints()
  return urls.public == nil and urls.private ~= nil
end

local function ask(cluster, private, minutes)
  local object = "cluster '" .. cluster.id .. "'"
  local answer = cloud.cs("DescribeClusterUserKubeconfig", { ClusterId = cluster.id }, { object = object,
    query = { PrivateIpAddress = private, TemporaryDurationMinutes = minutes } })
  if type(answer.config) ~= "string" or answer.config == "" then
    errors.raise("invalid", ("%s gave no kubeconfig"):format(object), { object = object,
      hint = not private and "it may have no public API server address: bind an EIP, or use private = true from the VPC" or nil })
  end
  local ends = wire.parse_time(answer.expiration or "") or math.huge
  return { text = answer.config, ends = ends, renew = ends - math.min(MOST_LEFT, SHARE_LEFT * (ends - task.now())) }
end

---The kubeconfig that is good now: the one from before, or a new one when that is about to end.
---@param cluster eirun.Cluster
---@param opts? {private?: boolean, minutes?: integer, anew?: boolean}
---@return {text: string, ends: number, renew: number}
---Raises what the call raises.
function M.get(cluster, opts)
  opts = opts or {}
  local private = is_private(cluster, opts.private)
  local key = ("%s/%s"):format(tostring(private), tostring(opts.minutes))
  cluster.kubeconfigs = cluster.kubeconfigs or {}
  local known = cluster.kubeconfigs[key]
  if not known or opts.anew or task.now() >= known.renew then
    known = ask(cluster, private, opts.minutes)
    cluster.kubeconfigs[key] = known
  end
  return known
end

-- What a file holds besides YAML: when to ask again. A comment, so that every tool reads the file.
local mark = "# eirun: cluster %s, %s address, until %s\n"

local function head_of(cluster, private, ends)
  return mark:format(cluster.id, private and "private" or "public", ends == math.huge and "it is revoked" or wire.iso(ends))
end

-- The end of the file's kubeconfig when it is one of these, for the same address.
local function end_of(path, cluster, private)
  local text = fs.read(path)
  local first = text and text:match "^[^\n]*\n"
  if not first then return nil end
  local ends = wire.parse_time(first:match "until (%S+)\n$" or "") or math.huge
  return head_of(cluster, private, ends) == first and ends or nil
end

---Keeps a kubeconfig in a file; see `cluster:ensure_kubeconfig`.
---@param cluster eirun.Cluster
---@param given {path: string, private?: boolean, minutes?: integer}
---@return string path
---@return "created"|"updated"|"unchanged"
function M.ensure_file(cluster, given)
  spec.check("ensure_kubeconfig", given, rules)
  local private = is_private(cluster, given.private)
  local stat, ends = fs.stat(given.path), end_of(given.path, cluster, private)
  local margin = math.min(MOST_LEFT, SHARE_LEFT * (given.minutes or math.huge) * 60)
  if ends and ends - task.now() > margin then
    if stat.mode & tonumber("777", 8) == owner_only then return given.path, "unchanged" end
  end
  local fresh = M.get(cluster, { private = private, minutes = given.minutes })
  errors.check(fs.write(given.path, head_of(cluster, private, fresh.ends) .. fresh.text, { mode = owner_only, atomic = true }))
  return given.path, stat and "updated" or "created"
end

return M
