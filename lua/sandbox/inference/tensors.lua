-- SPDX-License-Identifier: Apache-2.0
-- JSON to input tensors and output tensors to JSON, with TensorFlow Serving's rules and its words when they are broken.
-- Answers do not come from arithmetic: they are numbers of the right shape and type that depend on the input alone.
local crypto = require "eirun.core.crypto"
local json = require "eirun.core.json"
local savedmodel = require "sandbox.inference.savedmodel"

local M = {}

local longest_debug_text = 256

local function fail(message) error({ invalid = message }, 0) end

local function sorted(map)
  local names = {}
  for name in pairs(map) do names[#names + 1] = name end
  table.sort(names)
  return names
end

local function short_name(dtype) return (savedmodel.types[dtype] or savedmodel.types[0])[2] end

local function is_list(value) return type(value) == "table" and json.is_array(value) end
local function is_object(value) return type(value) == "table" and not json.is_array(value) end

local function is_base64(value)
  return is_object(value) and type(value.b64) == "string" and next(value, next(value)) == nil
end

local function debug_text(value) return json.encode(value):gsub(",", ", "):sub(1, longest_debug_text) end

local function type_word(value)
  if value == json.null then return "Null" end
  if is_list(value) then return "Array" end
  local words = { table = "Object", string = "String", number = "Number" }
  return words[type(value)] or (value and "True" or "False")
end

local function type_error(value, dtype)
  fail(("JSON Value: %s Type: %s is not of expected type: %s"):format(debug_text(value), type_word(value), short_name(dtype)))
end

-- Integers -------------------------------------------------------------------------------------------------------

local ranges = { [3] = 31, [4] = 8, [5] = 15, [6] = 7, [17] = 16, [22] = 32 }
local unsigned = { [4] = true, [17] = true, [22] = true, [23] = true }
local whole_types = { [3] = true, [4] = true, [5] = true, [6] = true, [9] = true, [17] = true, [22] = true, [23] = true }

local function is_whole(value, dtype)
  local n = math.tointeger(value)
  if type(value) ~= "number" or not n then return false end
  if unsigned[dtype] and n < 0 then return false end
  local bits = ranges[dtype]
  return not bits or (n < 1 << bits and n >= -(1 << bits))
end

local function check_leaf(value, dtype)
  if whole_types[dtype] then
    if not is_whole(value, dtype) then type_error(value, dtype) end
  elseif dtype == 7 then
    if type(value) ~= "string" and not is_base64(value) then type_error(value, dtype) end
  elseif dtype == 10 then
    if type(value) ~= "boolean" then type_error(value, dtype) end
  elseif type(value) ~= "number" then
    type_error(value, dtype)
  end
end

-- Shapes ---------------------------------------------------------------------------------------------------------

local function shape_of(value)
  local shape = {}
  while is_list(value) do
    shape[#shape + 1] = #value
    value = value[1]
  end
  return shape
end

local function check_values(value, shape, level, dtype, out)
  if not is_list(value) then
    if level ~= #shape then
      fail(("JSON Value: %s found at incorrect level: %d in the JSON DOM. Expected at level: %d"):format(debug_text(value), level + 1,
        #shape))
    end
    check_leaf(value, dtype)
    out[#out + 1] = tostring(value)
    return
  end
  if level >= #shape then fail(("Encountered list at unexpected level: %d expected < %d"):format(level, #shape)) end
  if #value ~= shape[level + 1] then
    fail(("Encountered list at unexpected size: %d at level: %d expected size: %d"):format(#value, level, shape[level + 1]))
  end
  for i = 1, #value do check_values(value[i], shape, level + 1, dtype, out) end
end

local function shape_text(shape) return "[" .. table.concat(shape, ",") .. "]" end

local function same_shape(a, b)
  if #a ~= #b then return false end
  for i = 1, #a do
    if a[i] ~= b[i] then return false end
  end
  return true
end

-- The values of one instance as text: what its answer depends on.
local function item_text(value, tensor)
  local out, shape = {}, shape_of(value)
  check_values(value, shape, 0, tensor.dtype, out)
  return table.concat(out, ","), shape
end

-- The graph itself complains when an inner dimension is not the one it was built for.
local function check_against_graph(name, shape, tensor)
  local wanted = tensor.shape
  if wanted.unknown_rank then return end
  local good = #shape == #wanted
  for i, dim in ipairs(wanted) do
    if dim.size >= 0 and shape[i] ~= dim.size then good = false end
  end
  if good then return end
  local sizes = {}
  for i, dim in ipairs(wanted) do sizes[i] = dim.size >= 0 and tostring(dim.size) or "?" end
  fail(("Incompatible shapes: %s vs. [%s]\n\t [[{{node %s}}]]"):format(shape_text(shape), table.concat(sizes, ","),
    tensor.name:match "^[^:]*" ~= "" and tensor.name:match "^[^:]*" or name))
end

-- Row format -----------------------------------------------------------------------------------------------------

local function add_item(batch, name, value, inputs)
  local tensor = inputs[name]
  if not tensor then fail("JSON object: does not have named input: " .. name) end
  local text, shape = item_text(value, tensor)
  local first = batch.shapes[name]
  if first and not same_shape(first, shape) then
    fail(("Expecting shape %s but got: %s"):format(shape_text(first), shape_text(shape)))
  end
  batch.shapes[name] = first or shape
  return text
end

local function add_object(batch, index, object, inputs)
  local texts, keys = {}, sorted(object)
  for _, name in ipairs(keys) do
    local ok, text = pcall(add_item, batch, name, object[name], inputs)
    if not ok then
      if type(text) ~= "table" or not text.invalid then error(text, 0) end
      fail(("Failed to process element: %d key: %s of 'instances' list. Error: Invalid argument: %s"):format(index, name, text.invalid))
    end
    texts[#texts + 1] = name .. "=" .. text
  end
  local wanted = sorted(inputs)
  if table.concat(keys, ",") ~= table.concat(wanted, ",") then
    fail(("Failed to process element: %d of 'instances' list. JSON object: %s keys must be equal to: %s"):format(index,
      debug_text(object), table.concat(wanted, ",")))
  end
  return table.concat(texts, ";")
end

local function add_plain(batch, index, value, inputs)
  local name = sorted(inputs)[1]
  local ok, text = pcall(add_item, batch, name, value, inputs)
  if ok then return name .. "=" .. text end
  if type(text) ~= "table" or not text.invalid then error(text, 0) end
  fail(("Failed to process element: %d of 'instances' list. Error: Invalid argument: %s"):format(index, text.invalid))
end

local function is_named(value) return is_object(value) and not is_base64(value) end

local function from_instances(instances, inputs)
  local batch, named = { shapes = {}, items = {} }, is_named(instances[1])
  if not is_object(instances[1]) and #sorted(inputs) > 1 then
    fail("instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")
  end
  for i, item in ipairs(instances) do
    if named and not is_named(item) then fail(("Expecting object but got list at item %d of input list"):format(i - 1)) end
    if not named and is_named(item) then fail(("Expecting value/list but got object at item %d of input list"):format(i - 1)) end
    batch.items[i] = (named and add_object or add_plain)(batch, i - 1, item, inputs)
  end
  for name, shape in pairs(batch.shapes) do check_against_graph(name, { #instances, table.unpack(shape) }, inputs[name]) end
  return batch
end

-- Column format --------------------------------------------------------------------------------------------------

local function column_texts(value, name, tensor)
  local out, shape = {}, shape_of(value)
  check_values(value, shape, 0, tensor.dtype, out)
  check_against_graph(name, shape, tensor)
  local rows = shape[1] or 1
  local width, texts = #out // math.max(rows, 1), {}
  for row = 1, rows do texts[row] = name .. "=" .. table.concat(out, ",", (row - 1) * width + 1, row * width) end
  return texts, shape
end

local function from_inputs(value, inputs)
  local names, columns, rows, shapes = sorted(inputs), {}, nil, {}
  if not is_named(value) then
    if #names > 1 then
      fail("inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map")
    end
    value = { [names[1]] = value }
  end
  for _, name in ipairs(names) do
    if value[name] == nil then fail(("Missing named input: %s in 'inputs' object."):format(name)) end
    columns[#columns + 1], shapes[name] = column_texts(value[name], name, inputs[name])
    if rows and #columns[#columns] ~= rows then
      fail(("Incompatible shapes: [%d] vs. [%d]\n\t [[{{node %s}}]]"):format(rows, #columns[#columns], name))
    end
    rows = #columns[#columns]
  end
  local batch = { shapes = {}, items = {} }
  for name, shape in pairs(shapes) do batch.shapes[name] = table.move(shape, 2, #shape, 1, {}) end
  for row = 1, rows do
    local parts = {}
    for i, texts in ipairs(columns) do parts[i] = texts[row] end
    batch.items[row] = table.concat(parts, ";")
  end
  return batch
end

---Reads the body of a predict request against a signature's inputs.
---@param doc table decoded JSON object
---@return table batch { items = text of each example, shapes, columnar }
---Raises { invalid = message } with the server's own message.
function M.read(doc, inputs)
  if doc.instances ~= nil and doc.inputs ~= nil then
    fail(("JSON Value: %s Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "):format(debug_text(doc)))
  elseif doc.instances ~= nil then
    if not is_list(doc.instances) then fail(("JSON Value: %s Expecting 'instances' to be an list/array"):format(debug_text(doc))) end
    if #doc.instances == 0 then fail(("JSON Value: %s No values in 'instances' array"):format(debug_text(doc))) end
    return from_instances(doc.instances, inputs)
  elseif doc.inputs ~= nil then
    local batch = from_inputs(doc.inputs, inputs)
    batch.columnar = true
    return batch
  end
  fail("Missing 'inputs' or 'instances' key")
end

-- Answers --------------------------------------------------------------------------------------------------------

-- Numbers in [0, 1) that follow from a text (splitmix64 over its CRC).
local function numbers(text)
  local state = crypto.crc64(text)
  return function()
    state = state + 0x9e3779b97f4a7c15
    local z = state
    z = (z ~ (z >> 30)) * 0xbf58476d1ce4e5b9
    z = (z ~ (z >> 27)) * 0x94d049bb133111eb
    return ((z ~ (z >> 31)) >> 11) * (0.5 ^ 53)
  end
end

-- The shortest decimal that reads back as the same float32, with ".0" on whole numbers.
local function float_text(value)
  local single = string.unpack("f", string.pack("f", value))
  local text
  for digits = 6, 9 do
    text = ("%." .. digits .. "g"):format(single)
    if string.unpack("f", string.pack("f", tonumber(text))) == single then break end
  end
  return text:find "[.e]" and text or text .. ".0"
end

-- A row of positive numbers that sum to one: what a classifier's last layer gives.
local function distribution(draw, width)
  local row, sum = {}, 0
  for i = 1, width do
    row[i] = 0.05 + draw()
    sum = sum + row[i]
  end
  for i = 1, width do row[i] = float_text(width == 1 and row[i] or row[i] / sum) end
  return row
end

local leaf = {
  whole = function(draw) return ("%d"):format(math.floor(draw() * 8)) end,
  text = function(draw) return ('"%08x"'):format(math.floor(draw() * 0xFFFFFFFF)) end,
  truth = function(draw) return draw() < 0.5 and "false" or "true" end,
}

local function leaves(draw, width, dtype)
  if not (whole_types[dtype] or dtype == 7 or dtype == 10) then return distribution(draw, width) end
  local make = whole_types[dtype] and leaf.whole or dtype == 7 and leaf.text or leaf.truth
  local row = {}
  for i = 1, width do row[i] = make(draw) end
  return row
end

-- One example's value of an output as nested Lua lists of number texts; `dims` are those behind the batch dimension.
local function value_of(draw, dims, at, dtype)
  if at > #dims then return leaves(draw, 1, dtype)[1] end
  if at == #dims then return leaves(draw, dims[at], dtype) end
  local list = {}
  for i = 1, dims[at] do list[i] = value_of(draw, dims, at + 1, dtype) end
  return list
end

-- An unknown inner dimension takes the length that the inputs have there.
local function inner_dims(tensor, shapes)
  local dims, like = {}, shapes[sorted(shapes)[1]] or {}
  for i = 2, #tensor.shape do
    local size = tensor.shape[i].size
    dims[i - 1] = size >= 0 and size or like[i - 1] or 1
  end
  return dims
end

local function single_line(value)
  if type(value) ~= "table" then return value end
  local parts = {}
  for i, item in ipairs(value) do parts[i] = single_line(item) end
  return "[" .. table.concat(parts, ", ") .. "]"
end

local function many_lines(value, indent)
  if type(value) ~= "table" then return value end
  local parts, inner = {}, indent .. "    "
  for i, item in ipairs(value) do parts[i] = inner .. many_lines(item, inner) end
  return "[\n" .. table.concat(parts, ",\n") .. "\n" .. indent .. "]"
end

local function rows_text(names, columns, count)
  local rows = {}
  for i = 1, count do
    if #names == 1 then
      rows[i] = single_line(columns[names[1]][i])
    else
      local parts = {}
      for k, name in ipairs(names) do parts[k] = ('            "%s": %s'):format(name, single_line(columns[name][i])) end
      rows[i] = "\n        {\n" .. table.concat(parts, ",\n") .. "\n        }"
    end
  end
  return '{\n    "predictions": [' .. table.concat(rows, #names == 1 and ", " or ",") .. "\n    ]\n}"
end

local function columns_text(names, columns)
  if #names == 1 then return '{\n    "outputs": ' .. many_lines(columns[names[1]], "    ") .. "\n}" end
  local parts = {}
  for i, name in ipairs(names) do parts[i] = ('        "%s": %s'):format(name, many_lines(columns[name], "        ")) end
  return '{\n    "outputs": {\n' .. table.concat(parts, ",\n") .. "\n    }\n}"
end

---The body of the answer to a batch.
function M.write(batch, outputs)
  local names, columns = sorted(outputs), {}
  for _, name in ipairs(names) do
    local tensor, column = outputs[name], {}
    local dims = inner_dims(tensor, batch.shapes)
    for i, text in ipairs(batch.items) do column[i] = value_of(numbers(name .. ":" .. text), dims, 1, tensor.dtype) end
    columns[name] = column
  end
  return (batch.columnar and columns_text or rows_text)(names, columns, #batch.items)
end

return M
