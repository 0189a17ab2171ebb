-- SPDX-License-Identifier: Apache-2.0
-- Any server in an image, as `arena serve custom` runs it, with what is known of the usual ones. Pure.
local rules = require "eirun.serve.rules"
local types = require "eirun.serve.types"
local words = require "eirun.serve.words"

local M = { type = types.made.custom, call = "ensure_custom" }

local function vllm(given)
  return ("vllm serve %s --served-model-name %s --host 0.0.0.0 --port %d"):format(given.model_path, given.model_name or given.model_path,
    given.rest_port)
end

local function sglang(given)
  return ("python3 -m sglang.launch_server --model-path %s --served-model-name %s --host 0.0.0.0 --port %d"):format(given.model_path,
    given.model_name or given.model_path, given.rest_port)
end

local function tgi(given)
  return ("text-generation-launcher --model-id %s --hostname 0.0.0.0 --port %d"):format(given.model_path, given.rest_port)
end

-- Each server's own defaults, from its documentation; `command` is used where a model_path is given and no command.
M.servers = {
  vllm = { rest_port = 8000, health = "/health", predict = "/v1/completions", command = vllm },
  sglang = { rest_port = 30000, health = "/health", predict = "/v1/completions", command = sglang },
  tgi = { rest_port = 80, health = "/health", predict = "/generate", command = tgi },
  torchserve = { rest_port = 8080, port = 7070, metrics_port = 8082, health = "/ping", predict = "/predictions/%s" },
}

local function known_servers()
  local set = {}
  for name in pairs(M.servers) do set[name] = true end
  return set
end

local function share(value) return words.share_problem(value) end

local path = { type = "string", match = "^/", says = "a path" }

M.rules = rules.with(M.type.chart, {
  server = { type = "string", one_of = known_servers() },
  model_name = { type = "string", match = "^[A-Za-z0-9_.-]+$", says = "a model's name" },
  model_version = { type = "string" },
  model_path = { type = "string", match = "^[%w/]", says = "a path, or a model's id" },
  health = path,
  live = path,
  predict = path,
  max_surge = { type = "any", says = "a number of pods or a share", check = share },
  max_unavailable = { type = "any", says = "a number of pods or a share", check = share },
  probes = { type = "table", fields = { startup = rules.probe, readiness = rules.probe, liveness = rules.probe } },
})

---Adds what is known of the server.
---@param given table
---@return table
function M.complete(given)
  local server = M.servers[given.server or ""] or {}
  for _, key in ipairs { "rest_port", "port", "metrics_port", "health" } do
    if given[key] == nil then given[key] = server[key] end
  end
  if not given.predict and server.predict and (given.model_name or not server.predict:find "%%s") then
    given.predict = server.predict:format(given.model_name)
  end
  return given
end

---What no single field can tell; nil when all is well.
---@param given table
---@return string|nil problem
function M.check(given)
  local server = M.servers[given.server or ""] or {}
  if not (given.port or given.rest_port or server.rest_port) then return "wants a port, a rest_port or a server that has one" end
  if given.warm_up and not (given.predict or server.predict) then return "warm_up wants predict, the path that it asks" end
  if given.warm_up and not (given.rest_port or server.rest_port) then return "warm_up wants a rest_port" end
  if (given.health or given.live) and not (given.rest_port or server.rest_port) then return "health wants a rest_port" end
end

M.defaults = {}

local port_names = { { "port", "grpc", "grpc-serving" }, { "rest_port", "restful", "http-serving" },
  { "metrics_port", "metrics", "http-metrics" } }

---@param given table
---@return eirun.ServingPod
function M.parts(given)
  local ports = {}
  for _, row in ipairs(port_names) do
    if given[row[1]] then ports[#ports + 1] = { name = row[2], port = given[row[1]], service = row[3] } end
  end
  local server = M.servers[given.server or ""] or {}
  return {
    command = given.model_path and server.command and server.command(given) or nil, ports = ports, rest_port = given.rest_port,
    live_port = given.port or given.rest_port, health = given.health, live = given.live or given.health, predict = given.predict,
    probes = given.probes,
  }
end

---Paths that clients call.
---@param given table
---@return {status: string|nil, predict: string|nil, model: string|nil}
function M.paths(given)
  return { status = given.health, predict = given.predict, model = nil }
end

return M
