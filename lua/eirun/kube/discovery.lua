-- SPDX-License-Identifier: Apache-2.0
-- What the server serves: asked once (both formats), kept in memory and, for a real cluster, on disk for six hours. A word or
-- kind that is not in it is asked for again, at most every few seconds.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local kinds = require "eirun.kube.kinds"
local target = require "eirun.target"
local task = require "eirun.task"

local M = {}

local FRESH, SOON, FORMAT = 6 * 3600, 5, 1
local ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList," ..
  "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"

---@class eirun.ApiResource: eirun.KindInfo
---@field singular string
---@field short string[]
---@field categories string[]
---@field verbs string[]

-- Reading the two formats ---------------------------------------------------------------------------------------------

local function add(list, api_version, plural, kind, namespaced, more)
  if type(kind) ~= "string" or kind == "" or plural:find("/", 1, true) then return end
  list[#list + 1] = { kind = kind, api_version = api_version, plural = plural, namespaced = namespaced,
    singular = more.singular or "", short = more.short or {}, categories = more.categories or {}, verbs = more.verbs or {} }
end

local function joined(group, version)
  return group ~= "" and group .. "/" .. version or version
end

-- Versions come in falling preference, so the first entry of a kind is the preferred one.
local function read_aggregated(list, document)
  for _, group in ipairs(document.items or {}) do
    local name = (group.metadata or {}).name or ""
    for _, version in ipairs(group.versions or {}) do
      for _, resource in ipairs(version.resources or {}) do
        add(list, joined(name, version.version), resource.resource, (resource.responseKind or {}).kind, resource.scope == "Namespaced",
          { singular = resource.singularResource, short = resource.shortNames, categories = resource.categories, verbs = resource.verbs })
      end
    end
  end
end

local function read_old(list, api_version, document)
  for _, resource in ipairs(document.resources or {}) do
    add(list, api_version, resource.name, resource.kind, resource.namespaced == true,
      { singular = resource.singularName, short = resource.shortNames, categories = resource.categories, verbs = resource.verbs })
  end
end

local function ask_version(k8s, api_version)
  -- A broken aggregated API answers 503 and must not block the rest.
  local ok, document = pcall(k8s.call, k8s, { path = kinds.base(api_version), verb = "discover", object = api_version, attempts = 1 })
  if not ok and errors.is(document, "cancelled") then error(document, 0) end
  return ok and document or {}
end

local function old_versions(document)
  local list = {}
  for _, version in ipairs(document.versions or {}) do list[#list + 1] = version end
  for _, group in ipairs(document.groups or {}) do
    local preferred = (group.preferredVersion or {}).groupVersion
    if preferred then list[#list + 1] = preferred end
    for _, version in ipairs(group.versions or {}) do
      if version.groupVersion ~= preferred then list[#list + 1] = version.groupVersion end
    end
  end
  return list
end

local function read_root(k8s, list, path)
  local document = k8s:call { path = path, verb = "discover", object = path, accept = ACCEPT }
  if document.kind == "APIGroupDiscoveryList" then return read_aggregated(list, document) end
  local versions = old_versions(document)
  local answers = task.map(versions, function(version) return ask_version(k8s, version) end, 8)
  for i, version in ipairs(versions) do read_old(list, version, answers[i]) end
end

local function ask(k8s)
  local core, rest = {}, {}
  task.together(function(all)
    all(read_root, k8s, core, "/api")
    all(read_root, k8s, rest, "/apis")
  end)
  return table.move(rest, 1, #rest, #core + 1, core)
end

-- Keeping -------------------------------------------------------------------------------------------------------------

local function file_of(k8s)
  local folder = target.cache_folder "discovery"
  return folder and folder .. "/" .. crypto.hex(crypto.sha256(k8s.config.server)) .. ".json"
end

local function load(path)
  local text = path and fs.read(path)
  local kept = text and json.decode(text)
  if type(kept) ~= "table" or kept.format ~= FORMAT or type(kept.at) ~= "number" then return nil end
  local age = task.now() - kept.at
  return age >= 0 and age < FRESH and kept or nil
end

-- A cache that cannot be written is a pity and no failure.
local function save(path, kept)
  if not path then return end
  if fs.mkdir(path:match("^(.*)/"), { parents = true, mode = tonumber("700", 8) }) then
    fs.write(path, json.encode(kept), { durable = false })
  end
end

local function refresh(k8s)
  local resources = ask(k8s)
  for _, resource in ipairs(resources) do
    for _, key in ipairs { "short", "categories", "verbs" } do json.array(resource[key]) end
  end
  local kept = { format = FORMAT, server = k8s.config.server, at = task.now(), resources = json.array(resources) }
  save(file_of(k8s), kept)
  k8s.shared.discovery = kept
  return kept
end

---All resources that the server serves, in its order of preference.
---@param k8s eirun.KubeClient
---@param anew? boolean ask the server whatever is known
---@return eirun.ApiResource[]
function M.resources(k8s, anew)
  local kept = k8s.shared.discovery or load(file_of(k8s))
  k8s.shared.discovery = kept
  if not kept or anew and task.now() - kept.at > SOON then kept = refresh(k8s) end
  return kept.resources
end

local function first(k8s, fits)
  for _, anew in ipairs { false, true } do
    for _, resource in ipairs(M.resources(k8s, anew)) do
      if fits(resource) then return resource end
    end
  end
end

---The entry of a kind; without an API version the preferred one.
---@param k8s eirun.KubeClient
---@param kind string
---@param api_version? string
---@return eirun.KindInfo|nil
function M.kind(k8s, kind, api_version)
  return first(k8s, function(resource)
    return resource.kind == kind and (not api_version or api_version == resource.api_version)
  end)
end

local function answers_to(resource, name)
  if resource.plural == name or resource.singular == name or resource.kind:lower() == name then return true end
  for _, short in ipairs(resource.short) do if short == name then return true end end
  return false
end

---The entry of a plural, singular or short name, with group and version where the word has them: `crontabs.stable.example.com`.
---@param k8s eirun.KubeClient
---@param word string
---@return eirun.KindInfo|nil
function M.named(k8s, word)
  local name, group, version = kinds.parts(word)
  return first(k8s, function(resource)
    local its_group, its_version = kinds.group(resource.api_version)
    return answers_to(resource, name) and (not group or group == its_group) and (not version or version == its_version)
  end)
end

---The resources of a category, as `all`.
---@param k8s eirun.KubeClient
---@param category string
---@return eirun.KindInfo[]
function M.category(k8s, category)
  local list, seen = {}, {}
  for _, resource in ipairs(M.resources(k8s)) do
    for _, name in ipairs(resource.categories) do
      local key = kinds.resource(resource)
      if name == category and not seen[key] then
        seen[key] = true
        list[#list + 1] = resource
      end
    end
  end
  return list
end

return M
