-- SPDX-License-Identifier: Apache-2.0
-- Is a folder a SavedModel that TensorFlow Serving can load? Looked at before anything is sent: a model with half its variables is
-- found by nobody until a replica fails to start.
local bundle = require "eirun.oss.bundle"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local paths = require "eirun.oss.paths"
local scan = require "eirun.oss.scan"

local M = {}

local MOST_INDEX = 256 << 20

M.graph = "saved_model.pb"

local function fail(folder, text, hint)
  errors.raise("invalid", ("'%s' is no whole SavedModel: %s"):format(folder, text), { object = folder, hint = hint })
end

-- A file by its relative name, with at least one byte.
local function need(folder, files, name)
  local file = files[name]
  if not file then fail(folder, name .. " is missing") end
  if file.size == 0 then fail(folder, name .. " is empty") end
  return file
end

-- The graph's first field is its version: 0x08 0x01. Text, HTML or a Git LFS pointer begin otherwise.
local function check_graph(folder, file)
  local head = errors.check(fs.read(file.path, math.max(file.size, 1))):sub(1, 64)
  if head:find "^version https://git%-lfs" then
    fail(folder, M.graph .. " is a pointer of Git LFS, not the model", "fetch it: git lfs pull")
  end
  local tag = head:byte(1)
  if tag ~= 0x08 and tag ~= 0x12 then fail(folder, M.graph .. " is no protocol buffer of a SavedModel") end
end

local function shard_name(number, count)
  return ("variables/variables.data-%05d-of-%05d"):format(number, count)
end

local function has_shards(files)
  for name in pairs(files) do
    if name:find "^variables/variables%.data%-" then return true end
  end
end

local function check_shard(folder, files, number, found)
  local name = shard_name(number, found.shards)
  local wanted = found.sizes[number] or 0
  local file = files[name] or fail(folder, ("shard %s is missing"):format(name))
  if file.size < wanted then
    fail(folder, ("shard %s has %d bytes, its index wants %d"):format(name, file.size, wanted), "copy it again: it was cut off")
  end
end

local function check_variables(folder, files)
  local index = files["variables/variables.index"]
  if not index then
    if has_shards(files) then fail(folder, "variables/variables.index is missing") end
    return { shards = 0, tensors = 0 }
  end
  local found, why = bundle.read(errors.check(fs.read(index.path, MOST_INDEX)))
  if not found then fail(folder, "variables/variables.index " .. why) end
  for number = 0, found.shards - 1 do check_shard(folder, files, number, found) end
  return found
end

---The number that a folder's name is, as TensorFlow Serving reads versions; nil when it is none.
---@param name string
---@return integer|nil
---Example: `savedmodel.version "00000123"` is 123. Raises nothing.
function M.version(name)
  if not name:find "^%d+$" then return nil end
  return math.tointeger(tonumber(name))
end

---Looks at a SavedModel.
---@param folder string the version folder, the one that holds saved_model.pb
---@return {files: eirun.LocalFile[], bytes: integer, tensors: integer, shards: integer, version: integer|nil, folder: string}
---Example: `savedmodel.check("bert/3").bytes`. Raises "invalid" and says which file is missing, empty, or shorter than its index says.
function M.check(folder)
  folder = #folder > 1 and folder:gsub("/+$", "") or folder
  local list, problems = scan.folder(folder)
  if problems[1] then error(problems[1].error, 0) end
  local files, bytes = {}, 0
  for _, file in ipairs(list) do files[file.relative], bytes = file, bytes + file.size end
  if not files[M.graph] then
    local text = files["saved_model.pbtxt"] and "a saved_model.pbtxt is not read by the published images" or M.graph .. " is missing"
    fail(folder, text, "name the version folder, as models/bert/3, not the one above it")
  end
  check_graph(folder, need(folder, files, M.graph))
  local found = check_variables(folder, files)
  local real = fs.realpath(folder) or folder
  return { files = list, bytes = bytes, tensors = found.tensors, shards = found.shards, version = M.version(paths.base(real)),
    folder = folder }
end

return M
