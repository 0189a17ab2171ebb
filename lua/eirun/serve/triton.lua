-- SPDX-License-Identifier: Apache-2.0
-- NVIDIA Triton, as `arena serve triton` runs it. Pure.
local rules = require "eirun.serve.rules"
local types = require "eirun.serve.types"

local M = { type = types.made.triton, call = "ensure_triton" }

local images = {
  vllm = "nvcr.io/nvidia/tritonserver:24.01-vllm-python-py3",
  ["trt-llm"] = "nvcr.io/nvidia/tritonserver:24.01-trtllm-python-py3",
}

M.rules = rules.with(M.type.chart, {
  image = { type = "string" },
  model_name = { type = "string", match = "^[A-Za-z0-9_.-]+$", says = "a model's name" },
  model_version = { type = "string" },
  model_repository = { type = "string", required = true, match = "^[/%a]", says = "an absolute path" },
  backend = { type = "string", one_of = { vllm = true, ["trt-llm"] = true } },
  load_models = { type = "list" },
  metrics = { type = "boolean" },
  extend_command = { type = "string" },
})

---What no single field can tell; nil when all is well.
---@param given table
---@return string|nil problem
function M.check(given)
  if given.backend and (given.gpus or 0) < 1 then return "backend " .. given.backend .. " wants at least one GPU: say gpus" end
end

M.defaults = { rest_port = 8000, port = 8001, metrics_port = 8002 }

---The image of a backend.
---@param given table
---@return string
function M.image(given)
  return given.image or images[given.backend] or "nvcr.io/nvidia/tritonserver:24.01-py3"
end

local function command(given)
  local words = { "tritonserver", "--http-port=" .. given.rest_port, "--grpc-port=" .. given.port }
  if given.metrics then words[#words + 1] = "--metrics-port=" .. given.metrics_port end
  words[#words + 1] = "--allow-metrics=" .. tostring(given.metrics == true)
  words[#words + 1] = "--model-repository=" .. given.model_repository
  for _, model in ipairs(given.load_models or {}) do words[#words + 1] = "--load-model " .. model end
  words[#words + 1] = given.extend_command
  return table.concat(words, " ")
end

---@param given table
---@return eirun.ServingPod
function M.parts(given)
  local ports = { { name = "http", port = given.rest_port, service = "http-serving" },
    { name = "grpc", port = given.port, service = "grpc-serving" } }
  if given.metrics then ports[3] = { name = "metrics", port = given.metrics_port, service = "http-metrics" } end
  return { command = command(given), rest_port = given.rest_port, live_port = given.port, health = "/v2/health/ready",
    live = "/v2/health/live", predict = M.paths(given).predict, ports = ports }
end

---Paths that clients call.
---@param given table
---@return {status: string, predict: string|nil, model: string|nil}
function M.paths(given)
  local model = given.model_name and "/v2/models/" .. given.model_name
  return { status = model and model .. "/ready" or "/v2/health/ready", predict = model and model .. "/infer", model = model }
end

return M
