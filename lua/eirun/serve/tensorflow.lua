-- SPDX-License-Identifier: Apache-2.0
-- TensorFlow Serving: its command line, its configuration file and the version policy that arena lost. Pure.
local rules = require "eirun.serve.rules"
local types = require "eirun.serve.types"

local M = { type = types.made.tensorflow, call = "ensure_tensorflow" }

M.DIRECTORY = "/etc/tfserving"

-- Version policy -------------------------------------------------------------------------------------------------------

local function each_version(list)
  local versions = {}
  for number in (list .. ","):gmatch("(.-),") do
    if not number:find("^%d+$") then return nil end
    versions[#versions + 1] = number
  end
  return versions
end

---The policy as a block of the model server's configuration; nil and a reason when it is none.
---@param policy string|nil `latest`, `latest:N`, `all`, `specific:N[,N...]`
---@return string|nil block
---@return string|nil problem
function M.policy(policy)
  local word, rest = (policy or "latest"):match("^(%a+):?(.*)$")
  if word == "latest" and rest:find("^%d*$") and rest ~= "0" then
    return ("latest { num_versions: %s }"):format(rest ~= "" and rest or "1")
  end
  if word == "all" and rest == "" then return "all { }" end
  local versions = word == "specific" and each_version(rest)
  if versions then return ("specific { versions: %s }"):format(table.concat(versions, " versions: ")) end
  return nil, "must be latest, latest:N, all or specific:N"
end

---The versions that must answer before the job is ready; empty when any will do.
---@param policy string|nil
---@return string[]
function M.asked_versions(policy)
  local list = (policy or ""):match("^specific:(.*)$")
  return list and each_version(list) or {}
end

local function version_labels(labels)
  local names, lines = {}, {}
  for name in pairs(labels or {}) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do lines[i] = ("    version_labels { key: %q value: %s }"):format(name, labels[name]) end
  return lines
end

---The model server's configuration file.
---@param given table
---@return string
function M.model_config(given)
  local lines = {
    "model_config_list {", "  config {", ("    name: %q"):format(given.model_name), ("    base_path: %q"):format(given.model_path),
    "    model_platform: \"tensorflow\"", ("    model_version_policy { %s }"):format(M.policy(given.version_policy)),
  }
  for _, line in ipairs(version_labels(given.version_labels)) do lines[#lines + 1] = line end
  return table.concat(lines, "\n") .. "\n  }\n}\n"
end

local MONITORING = "prometheus_config {\n  enable: true\n  path: \"/monitoring/prometheus/metrics\"\n}\n"

-- Options ----------------------------------------------------------------------------------------------------------------

local function check_policy(policy)
  local _, problem = M.policy(policy)
  return problem
end

local function check_labels(labels)
  for name, version in pairs(labels) do
    if type(name) ~= "string" or not tostring(version):find("^%d+$") then
      return ("has '%s' = %s, not a name and a version's number"):format(tostring(name), tostring(version))
    end
  end
end

M.rules = rules.with(M.type.chart, {
  model_name = { type = "string", match = "^[A-Za-z0-9_-]+$", says = "a model's name" },
  model_path = { type = "string", match = "^[/%a]", says = "an absolute path" },
  model_version = { type = "string" },
  version_policy = { type = "string", check = check_policy },
  version_labels = { type = "table", check = check_labels },
  model_config_file = { type = "string", match = "^/", says = "an absolute path inside the container" },
  monitoring_config_file = { type = "string", match = "^/", says = "an absolute path inside the container" },
  monitoring = { type = "boolean" },
  istio = { type = "boolean" },
  expose = { type = "boolean" },
})

-- Labels name versions that the policy keeps loaded.
local function check_labelled(given)
  local asked, has = M.asked_versions(given.version_policy), {}
  for _, version in ipairs(asked) do has[version] = true end
  for name, version in pairs(given.version_labels or {}) do
    if #asked > 0 and not has[tostring(version)] then
      return ("version_labels: '%s' is version %s, which %s does not serve"):format(name, version, given.version_policy)
    end
  end
end

---What no single field can tell; nil when all is well.
---@param given table
---@return string|nil problem
function M.check(given)
  if not given.model_config_file and not (given.model_name and given.model_path) then
    return "field '" .. (given.model_name and "model_path" or "model_name") .. "' is missing"
  end
  if given.model_config_file and (given.version_policy or given.version_labels) then
    return "a model_config_file holds the version policy and the labels: say them there"
  end
  if given.monitoring and given.monitoring_config_file then return "monitoring and monitoring_config_file exclude each other" end
  if given.istio and not given.version then return "istio wants a version: its routes name it" end
  if given.expose and not given.istio then return "expose wants istio: it makes an Istio gateway" end
  return check_labelled(given)
end

M.defaults = { port = 8500, rest_port = 8501 }

-- The pod ----------------------------------------------------------------------------------------------------------------

local function flag(words, name, value)
  if value then words[#words + 1] = ("--%s=%s"):format(name, value) end
end

-- Arena's command line, with our configuration in the place of the model's name and path: a server that has a file ignores both.
local function command(given)
  local words = { "/usr/bin/tensorflow_model_server" }
  flag(words, "port", given.port)
  flag(words, "rest_api_port", given.rest_port)
  if given.model_config_file then
    flag(words, "model_name", given.model_name)
    flag(words, "model_base_path", given.model_path)
  end
  flag(words, "model_config_file", given.model_config_file or M.DIRECTORY .. "/model.config")
  flag(words, "monitoring_config_file", given.monitoring_config_file or given.monitoring and M.DIRECTORY .. "/monitoring.config")
  -- Labels are given before the first version is loaded.
  flag(words, "allow_version_labels_for_unavailable_models", given.version_labels and "true")
  if (given.gpu_memory or 0) > 0 then
    words[#words + 1] = "--per_process_gpu_memory_fraction="
      .. "$(awk \"BEGIN{printf \\\"%.2f\\\", $ALIYUN_COM_GPU_MEM_CONTAINER/$ALIYUN_COM_GPU_MEM_DEV}\")"
  end
  return table.concat(words, " ")
end

local function files(given)
  local made = {}
  if not given.model_config_file then made["model.config"] = M.model_config(given) end
  if given.monitoring then made["monitoring.config"] = MONITORING end
  return made
end

-- One asked version has a status of its own; without one the model's status answers as soon as something is loaded.
local function model_path(given)
  local path, asked = "/v1/models/" .. given.model_name, M.asked_versions(given.version_policy)
  return #asked == 1 and path .. "/versions/" .. asked[1] or path
end

---@param given table
---@return eirun.ServingPod
function M.parts(given)
  local path = given.model_name and model_path(given)
  return {
    command = command(given), directory = M.DIRECTORY, files = files(given), rest_port = given.rest_port, live_port = given.port,
    health = path, predict = path and path .. ":predict",
    ports = { { name = "serving", port = given.port, service = "grpc-serving" },
      { name = "http-serving", port = given.rest_port, service = "http-serving" } },
  }
end

---Paths that clients call.
---@param given table
---@return {status: string|nil, predict: string|nil, model: string|nil}
function M.paths(given)
  local model = given.model_name and "/v1/models/" .. given.model_name
  return { status = model, predict = model and model .. ":predict", model = model }
end

---What is still missing before a status answers the job's demand; nil when it does.
---@param given table
---@param status any decoded
---@return string|nil
function M.missing(given, status)
  local states = {}
  for _, state in ipairs(type(status) == "table" and status.model_version_status or {}) do
    if state.state == "AVAILABLE" then states[tostring(state.version)] = true end
  end
  for _, version in ipairs(M.asked_versions(given.version_policy)) do
    if not states[version] then return "version " .. version .. " is not available" end
  end
  if not next(states) then return "no version is available" end
end

return M
