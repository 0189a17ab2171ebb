-- SPDX-License-Identifier: Apache-2.0
-- What a SavedModel says about itself: tags and signatures, read from saved_model.pb.
local protobuf = require "sandbox.inference.protobuf"

local M = {}

-- DataType of tensorflow/core/framework/types.proto: number -> { enum name, short name }
M.types = {
  [0] = { "DT_INVALID", "invalid" }, [1] = { "DT_FLOAT", "float" }, [2] = { "DT_DOUBLE", "double" }, [3] = { "DT_INT32", "int32" },
  [4] = { "DT_UINT8", "uint8" }, [5] = { "DT_INT16", "int16" }, [6] = { "DT_INT8", "int8" }, [7] = { "DT_STRING", "string" },
  [9] = { "DT_INT64", "int64" }, [10] = { "DT_BOOL", "bool" }, [14] = { "DT_BFLOAT16", "bfloat16" }, [17] = { "DT_UINT16", "uint16" },
  [19] = { "DT_HALF", "half" }, [22] = { "DT_UINT32", "uint32" }, [23] = { "DT_UINT64", "uint64" },
}

local function shape_of(bytes)
  local shape = { unknown_rank = protobuf.one(bytes, 3, 0) ~= 0 }
  for i, dim in ipairs(protobuf.all(bytes, 2)) do shape[i] = { size = protobuf.one(dim, 1, 0), name = protobuf.one(dim, 2, "") } end
  return shape
end

local function tensor_of(bytes)
  return { name = protobuf.one(bytes, 1, ""), dtype = protobuf.one(bytes, 2, 0), shape = shape_of(protobuf.one(bytes, 3, "")) }
end

local function tensors_of(bytes, field)
  local tensors = {}
  for name, value in pairs(protobuf.map(bytes, field)) do tensors[name] = tensor_of(value) end
  return tensors
end

local function signature_of(bytes)
  return { inputs = tensors_of(bytes, 1), outputs = tensors_of(bytes, 2), method = protobuf.one(bytes, 3, "") }
end

local function meta_graph_of(bytes)
  local graph = { tags = protobuf.all(protobuf.one(bytes, 1, ""), 4), signatures = {} }
  for name, value in pairs(protobuf.map(bytes, 5)) do graph.signatures[name] = signature_of(value) end
  return graph
end

local function has_tag(graph, tag)
  for _, name in ipairs(graph.tags) do
    if name == tag then return true end
  end
end

---@param data string the bytes of saved_model.pb
---@return table|nil model { signatures = { name = { inputs, outputs, method } } }
---@return string|nil why as the loader words it
function M.parse(data)
  local ok, graphs = pcall(function()
    local list = {}
    for i, bytes in ipairs(protobuf.all(data, 2)) do list[i] = meta_graph_of(bytes) end
    return list
  end)
  if not ok or #data == 0 then return nil, "Data loss: Can't parse saved_model.pb as binary proto" end
  for _, graph in ipairs(graphs) do
    if has_tag(graph, "serve") then return graph end
  end
  return nil, "Not found: Could not find meta graph def matching supplied tags: { serve }. To inspect available tag-sets in the "
    .. "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
end

return M
