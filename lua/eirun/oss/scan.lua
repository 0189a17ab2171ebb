-- SPDX-License-Identifier: Apache-2.0
-- The files of a folder. What cannot be read is told, not passed over: a tree with holes must not look whole.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"

local M = {}

---@class eirun.LocalFile
---@field path string
---@field relative string below the folder
---@field name string
---@field size integer

-- A link to a folder that holds it would be walked for ever.
local function leads_back(path, above)
  local link = fs.stat(path, { follow = false })
  if not link or link.type ~= "link" then return false end
  local real = fs.realpath(path)
  return real ~= nil and (above .. "/"):sub(1, #real + 1) == real .. "/"
end

local function problem(state, path, err)
  state.problems[#state.problems + 1] = { path = path, error = err }
end

local function refuse(state, path, text)
  problem(state, path, errors.new("invalid", ("'%s' %s"):format(path, text), { object = path }))
end

local walk

local function take(state, folder, prefix, name)
  local path, relative = folder .. "/" .. name, prefix .. name
  local stat, err = fs.stat(path)
  if not stat then return problem(state, path, err) end
  if stat.type == "directory" then
    if leads_back(path, fs.realpath(folder) or folder) then return refuse(state, path, "is a link to a folder that holds it") end
    return walk(state, path, relative .. "/")
  elseif stat.type ~= "file" then
    return state.wanted(relative) and refuse(state, path, "is neither a file nor a folder")
  end
  if state.wanted(relative) then
    state.files[#state.files + 1] = { path = path, name = name, relative = relative, size = stat.size }
  end
end

function walk(state, folder, prefix)
  local names, err = fs.list(folder)
  if not names then return problem(state, folder, err) end
  for _, name in ipairs(names) do take(state, folder, prefix, name) end
end

local function by_relative(a, b) return a.relative < b.relative end

---The files below a folder in the order of their keys, and what could not be looked at.
---@param folder string
---@param wanted? fun(relative: string): boolean
---@return eirun.LocalFile[] files
---@return {path: string, error: eirun.Error}[] problems
---Example: `local files, problems = scan.folder "models/bert"`. Raises "not_found" for no such folder, "invalid" for one that is a file.
function M.folder(folder, wanted)
  local stat, err = fs.stat(folder)
  if not stat then error(err, 0) end
  if stat.type ~= "directory" then errors.raise("invalid", ("'%s' is not a folder"):format(folder), { object = folder }) end
  local state = { files = {}, problems = {}, wanted = wanted or function() return true end }
  walk(state, #folder > 1 and folder:gsub("/+$", "") or folder, "")
  table.sort(state.files, by_relative)
  return state.files, state.problems
end

return M
