-- SPDX-License-Identifier: Apache-2.0
-- The options that serving jobs of all types have in common: every flag that arena's `serve` commands share, and what they lack.
local spec = require "eirun.spec"
local words = require "eirun.serve.words"

local M = {}

local function problem_of(parse)
  return function(value)
    local _, problem = parse(value)
    return problem
  end
end

local function check_mounts(what)
  return function(map)
    for name, path in pairs(map) do
      if type(name) ~= "string" or type(path) ~= "string" or not path:find("^/.") then
        return ("%s '%s' at '%s', not at a path below /"):format(what, tostring(name), tostring(path))
      end
    end
  end
end

local function check_names(map)
  for name, value in pairs(map) do
    if type(name) ~= "string" or type(value) ~= "string" then
      return ("has '%s' = %s where names belong"):format(tostring(name), tostring(value))
    end
  end
end

local function check_budget(value)
  return value ~= false and words.share_problem(value) or nil
end

local function check_warm_up(body)
  if #body > 512 << 10 then return ("has %d bytes; a ConfigMap has no room for more than 524288"):format(#body) end
end

local function dns_label(what)
  return "^[a-z]([a-z0-9-]*)$", ("a %s of lower-case letters, digits and '-'"):format(what)
end

local function name_rule(chart)
  local match, says = dns_label "name"
  return { type = "string", required = true, match = match, says = says, check = function(name)
    if name:find(chart, 1, true) then return ("must not contain '%s': arena would not find the job again"):format(chart) end
  end }
end

local port = { type = "integer", min = 1, max = 65535 }
local probe = { type = "table" }

local common = {
  version = { type = "string", match = "^[a-z0-9]([a-z0-9-]*)$", says = "a version of lower-case letters, digits and '-'" },
  image = { type = "string", required = true },
  image_pull_policy = { type = "string", one_of = { Always = true, IfNotPresent = true, Never = true } },
  image_pull_secrets = { type = "list" },
  replicas = { type = "integer", min = 0 },
  gpus = { type = "integer", min = 0 },
  gpu_memory = { type = "integer", min = 0 },
  gpu_core = { type = "integer", min = 0, check = function(n) return n % 5 ~= 0 and "must be a multiple of 5" or nil end },
  devices = { type = "table" },
  cpu = { type = "any" },
  memory = { type = "any" },
  limits = { type = "table" },
  requests = { type = "table" },
  share_memory = { type = "any" },
  env = { type = "table" },
  env_from_secret = { type = "table", check = check_names },
  data = { type = "table", check = check_mounts "mounts" },
  data_subpath = { type = "table", check = check_names },
  data_dirs = { type = "table", check = check_mounts "mounts the host's" },
  temp_dirs = { type = "table", check = check_mounts "mounts" },
  temp_subpath = { type = "table", check = check_names },
  config_files = { type = "table", check = check_mounts "puts" },
  selector = { type = "any", says = "labels of nodes", check = problem_of(words.selector) },
  labels = { type = "table", check = words.label_problem },
  annotations = { type = "table" },
  tolerations = { type = "any", says = "tolerations", check = problem_of(words.tolerations) },
  spot = { type = "boolean" },
  spread = { type = "string", one_of = { zone = true, node = true, none = true } },
  disruption_budget = { type = "any", says = "a number of pods, a share or false", check = check_budget },
  drain = { type = "integer", min = 0, max = 3600 },
  warm_up = { type = "string", check = check_warm_up },
  shell = { type = "string" },
  command = { type = "string" },
  port = port, rest_port = port, metrics_port = port,
  scheduler = { type = "string" },
  user = { type = "string" },
  adopt = { type = "boolean" },
  timeout = { type = "number", min = 0 },
  load_timeout = { type = "integer", min = 0 },
}
M.port, M.probe = port, probe

---The rules of one type: the common ones and its own.
---@param chart string
---@param own table<string, table>
---@return table<string, table>
function M.with(chart, own)
  local all = { name = name_rule(chart) }
  for key, rule in pairs(common) do all[key] = rule end
  for key, rule in pairs(own) do all[key] = rule end
  return all
end

-- A subpath belongs to a mount.
local function check_subpaths(what, given, mounts, paths)
  for name in pairs(given[paths] or {}) do
    if not (given[mounts] or {})[name] then
      spec.fail(what, ("%s names '%s', which %s does not mount"):format(paths, name, mounts), paths)
    end
  end
end

-- Extended resources cannot be asked for and limited by different amounts.
local function check_requests(what, given, limits)
  for key, value in pairs(given.requests or {}) do
    if key:find("/", 1, true) and tostring(limits[key]) ~= tostring(value) then
      spec.fail(what, ("requests say %s of %s, limits say %s: they must be the same"):format(value, key, tostring(limits[key])))
    end
  end
end

---What no single field can tell.
---@param what string
---@param given table
---@param limits table
function M.check_together(what, given, limits)
  check_subpaths(what, given, "data", "data_subpath")
  check_subpaths(what, given, "temp_dirs", "temp_subpath")
  check_requests(what, given, limits)
end

return M
