-- SPDX-License-Identifier: Apache-2.0
-- Bodies for TensorFlow Serving's predict (REST): rows (`instances`) or columns (`inputs`), given or made at random.
local json = require "eirun.core.json"
local spec = require "eirun.spec"

local M = {}

---A body in rows: one entry an example.
---@param instances any[]
---@param signature? string default the model's own
---@return string
---Example: `predict.rows { { 1.0, 2.0 }, { 3.0, 4.0 } } --> '{"instances":[[1.0,2.0],[3.0,4.0]]}'`. Raises what JSON raises.
function M.rows(instances, signature)
  return json.encode { instances = json.array(instances), signature_name = signature }
end

---A body in columns: each input with all its examples.
---@param inputs table<string, any>
---@param signature? string
---@return string
---Example: `predict.columns { ids = { { 101, 102 } } } --> '{"inputs":{"ids":[[101,102]]}}'`. Raises what JSON raises.
function M.columns(inputs, signature)
  return json.encode { inputs = inputs, signature_name = signature }
end

-- splitmix64, as the engine's plan uses it: the i-th body is the same whoever makes it and whenever.
local function generator(seed)
  local state = seed
  return function(low, high)
    state = state + 0x9e3779b97f4a7c15
    local z = (state ~ (state >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ~ (z >> 27)) * 0x94d049bb133111eb
    z = z ~ (z >> 31)
    if math.type(low) == "integer" and math.type(high) == "integer" then return low + ((z >> 1) % (high - low + 1)) end
    return low + (high - low) * ((z >> 11) / (1 << 53))
  end
end

local function tensor(random, shape, low, high, depth)
  if depth > #shape then return random(low, high) end
  local list = {}
  for i = 1, shape[depth] do list[i] = tensor(random, shape, low, high, depth + 1) end
  return json.array(list)
end

local input_rules = {
  shape = { type = "list", required = true }, min = { type = "number" }, max = { type = "number" },
}

---A function for the option `request` of eirun.load: the i-th request carries random tensors, the same ones for the same seed.
---@param given {inputs: table<string, {shape: integer[], min?: number, max?: number}>, instances?: integer,
--- signature?: string, seed?: integer} min (0) to max (1): whole numbers where both are; `instances` (1) examples a body
---@return fun(i: integer): {body: string}
---Example:
---```lua
---local ids, ones = { shape = { 128 }, min = 0, max = 21127 }, { shape = { 128 }, min = 1, max = 1 }
---load.run { url = url, plan = plan, request = predict.random { inputs = { input_ids = ids, input_mask = ones } } }
---```
---Raises kind "invalid" for a spec that is wrong.
function M.random(given)
  spec.check("load.predict.random", given, {
    inputs = { type = "table", required = true }, instances = { type = "integer", min = 1, max = 100000 },
    signature = { type = "string" }, seed = { type = "integer" },
  })
  local names = {}
  for name, input in pairs(given.inputs) do
    spec.check("load.predict.random.inputs." .. name, input, input_rules)
    names[#names + 1] = name
  end
  table.sort(names)
  return function(i)
    local random, instances = generator((given.seed or 1) * 0x9e3779b9 + i), {}
    for n = 1, given.instances or 1 do
      local instance = {}
      for _, name in ipairs(names) do
        local input = given.inputs[name]
        instance[name] = tensor(random, input.shape, input.min or 0, input.max or 1, 1)
      end
      instances[n] = instance
    end
    return { body = M.rows(instances, given.signature) }
  end
end

return M
