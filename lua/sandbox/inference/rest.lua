-- SPDX-License-Identifier: Apache-2.0
-- TensorFlow Serving's REST face over a table of models. Decides at once what to answer; how long it takes is the replica's matter.
local json = require "eirun.core.json"
local savedmodel = require "sandbox.inference.savedmodel"
local tensors = require "sandbox.inference.tensors"

local M = {}

local default_signature = "serving_default"
local most_cached, most_cached_bytes = 512, 16 << 20
local status_of = { invalid = 400, not_found = 404, precondition = 400, unavailable = 503, unimplemented = 501 }

local function fail(kind, message) error({ rest = kind, message = message }, 0) end

local function decode(text)
  return (text:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- "/v1/models/m/versions/3:predict" -> { model, version, label, verb | sub }; nil when it is none of ours.
local function parse_target(method, path)
  local rest = path:match "^/[vV]1/[mM][oO][dD][eE][lL][sS](.*)$"
  if not rest then return nil end
  local target = {}
  if method == "POST" then
    local before, verb = rest:match "^(.*):(%a+)$"
    target.verb = verb and verb:lower()
    if target.verb ~= "predict" and target.verb ~= "classify" and target.verb ~= "regress" then return nil end
    rest = before
  end
  local name, more = rest:match "^/([^/:]+)(.*)$"
  if not name then return method == "GET" and rest == "" and target or nil end
  target.model = decode(name)
  target.version, target.label = more:match "^/versions/(%d+)", more:match "^/labels/([^/:]+)"
  more = more:gsub("^/versions/%d+", ""):gsub("^/labels/[^/:]+", "")
  if more == "/metadata" and method == "GET" then target.sub = "metadata" elseif more ~= "" then return nil end
  target.version = target.version and math.tointeger(tonumber(target.version))
  return target
end

local function wanted_version(model, target)
  if not target.label then return target.version end
  local version = model.labels and model.labels[target.label]
  if not version then fail("not_found", "Unrecognized servable version label: " .. target.label) end
  return version
end

-- The newest version that answers, or the one that was asked for.
local function servable(server, target)
  local model = server.models[target.model]
  local version = model and wanted_version(model, target)
  local found
  for number, entry in pairs(model and model.versions or {}) do
    if entry.state == "AVAILABLE" and (not version or number == version) and (not found or number > found.number) then
      found = { number = number, bundle = entry.bundle }
    end
  end
  if found then return found end
  local what = version and ("Specific(%s, %d)"):format(target.model, version) or ("Latest(%s)"):format(target.model)
  fail("not_found", "Servable not found for request: " .. what)
end

local function indent(text, by) return (text:gsub("\n", "\n" .. by)) end

-- Status and metadata --------------------------------------------------------------------------------------------

local function version_status(number, entry)
  return ([[
  {
   "version": "%d",
   "state": "%s",
   "status": {
    "error_code": "%s",
    "error_message": %s
   }
  }]]):format(number, entry.state, entry.error_code or "OK", json.encode(entry.error_message or ""))
end

local function model_status(server, target)
  if not target.model then fail("invalid", "Missing model name in request.") end
  local model, list = server.models[target.model], {}
  local version = model and wanted_version(model, target)
  for number in pairs(model and model.versions or {}) do
    if not version or number == version then list[#list + 1] = number end
  end
  if #list == 0 and version then fail("not_found", ("Could not find version %d of model %s"):format(version, target.model)) end
  if #list == 0 then fail("not_found", "Could not find any versions of model " .. target.model) end
  table.sort(list, function(a, b) return a > b end)
  for i, number in ipairs(list) do list[i] = version_status(number, model.versions[number]) end
  return '{\n "model_version_status": [\n' .. table.concat(list, ",\n") .. "\n ]\n}\n"
end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function shape_text(shape)
  local dims = {}
  for i, dim in ipairs(shape) do dims[i] = ('  {\n   "size": "%d",\n   "name": %s\n  }'):format(dim.size, json.encode(dim.name)) end
  local list = #dims > 0 and "[\n" .. table.concat(dims, ",\n") .. "\n ]" or "[]"
  return ('{\n "dim": %s,\n "unknown_rank": %s\n}'):format(list, shape.unknown_rank)
end

local function tensor_text(tensor)
  local kind = (savedmodel.types[tensor.dtype] or savedmodel.types[0])[1]
  return ('{\n "dtype": "%s",\n "tensor_shape": %s,\n "name": %s\n}'):format(kind, indent(shape_text(tensor.shape), " "),
    json.encode(tensor.name))
end

local function map_text(map, text_of)
  local parts = {}
  for i, name in ipairs(sorted(map)) do parts[i] = (' %s: %s'):format(json.encode(name), indent(text_of(map[name]), " ")) end
  if #parts == 0 then return "{}" end
  return "{\n" .. table.concat(parts, ",\n") .. "\n}"
end

local function signature_text(signature)
  return ('{\n "inputs": %s,\n "outputs": %s,\n "method_name": %s\n}'):format(indent(map_text(signature.inputs, tensor_text), " "),
    indent(map_text(signature.outputs, tensor_text), " "), json.encode(signature.method))
end

local function metadata(server, target)
  if not target.model then fail("invalid", "Missing model name in request.") end
  local found = servable(server, target)
  return ('{\n"model_spec":{\n "name": %s,\n "signature_name": "",\n "version": "%d"\n}\n,\n"metadata": {"signature_def": {\n'
    .. ' "signature_def": %s\n}\n}\n}\n'):format(json.encode(target.model), found.number,
    indent(map_text(found.bundle.signatures, signature_text), " "))
end

-- Predict --------------------------------------------------------------------------------------------------------

local function parse_body(body)
  if body == "" then fail("invalid", "JSON Parse error: The document is empty") end
  local doc, err = json.decode(body)
  if doc == nil then
    fail("invalid", ("JSON Parse error: Invalid value. at offset: %d"):format(math.max(0, (err.column or 1) - 1)))
  end
  if type(doc) ~= "table" or json.is_array(doc) then
    fail("invalid", ("JSON Value: %s Is not object"):format(json.encode(doc):sub(1, 256)))
  end
  return doc
end

local function signature_for(bundle, doc)
  local name = doc.signature_name
  if name ~= nil and type(name) ~= "string" then
    fail("invalid", ("JSON Value: %s not formatted correctly. 'signature_name' key must be a string value.")
      :format(json.encode(doc):sub(1, 256)))
  end
  if name == nil or name == "" then name = default_signature end
  return bundle.signatures[name] or fail("invalid", ('Serving signature name: "%s" not found in signature def'):format(name))
end

local function compute(bundle, body)
  local doc = parse_body(body)
  local signature = signature_for(bundle, doc)
  local ok, batch = pcall(tensors.read, doc, signature.inputs)
  if not ok then
    if type(batch) ~= "table" or not batch.invalid then error(batch, 0) end
    fail("invalid", batch.invalid)
  end
  return { text = tensors.write(batch, signature.outputs), examples = #batch.items }
end

-- Answers depend on the body alone, and a load test sends few different ones.
local function remember(bundle, body, answer)
  local cache = bundle.cache
  if not cache or cache.count >= most_cached or cache.bytes > most_cached_bytes then
    cache = { count = 0, bytes = 0, answers = {} }
    bundle.cache = cache
  end
  cache.count, cache.bytes = cache.count + 1, cache.bytes + #body + #answer.text
  cache.answers[body] = answer
end

local function predict(bundle, body)
  local cached = bundle.cache and bundle.cache.answers[body]
  if cached then return cached end
  local answer = compute(bundle, body)
  remember(bundle, body, answer)
  return answer
end

local methods = { classify = "tensorflow/serving/classify", regress = "tensorflow/serving/regress" }
local words = { classify = "classification", regress = "regression" }

local function classify_or_regress(bundle, body, verb)
  local doc = parse_body(body)
  local signature = signature_for(bundle, doc)
  if doc.examples == nil then
    fail("invalid", ("JSON Value: %s When method is classify, key 'examples' is expected and was not found")
      :format(json.encode(doc):sub(1, 256)))
  end
  if signature.method ~= methods[verb] then
    fail("invalid", ("Expected %s signature method_name to be %s. Was: %s"):format(words[verb], methods[verb], signature.method))
  end
  fail("unimplemented", verb .. " is not played by this server")
end

local function dispatch(server, method, path, body)
  local target = (method == "POST" or method == "GET") and parse_target(method, path)
  if not target then fail("invalid", ("Malformed request: %s %s"):format(method, path)) end
  if method == "GET" then
    return { text = target.sub and metadata(server, target) or model_status(server, target), examples = 0 }
  end
  local found = servable(server, target)
  if target.verb == "predict" then return predict(found.bundle, body) end
  return classify_or_regress(found.bundle, body, target.verb)
end

---@param server {models: table<string, {versions: table<integer, table>, labels?: table}>}
---@return integer status
---@return string body
---@return integer examples how many examples the accelerator has to work on
function M.answer(server, method, path, body)
  if not path:find "^/[vV]1/" then return 404, "", 0 end
  local ok, result = pcall(dispatch, server, method, path, body or "")
  if ok then return 200, result.text, result.examples end
  if type(result) ~= "table" or not result.rest then error(result, 0) end
  return status_of[result.rest], ('{ "error": %s }'):format(json.encode(result.message)), 0
end

return M
