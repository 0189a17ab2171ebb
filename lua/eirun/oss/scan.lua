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

-- The names of a folder in the order of the keys below it: a folder's name counts with its slash.
local function in_key_order(state, folder)
  local names, err = fs.list(folder)
  if not names then
    problem(state, folder, err)
    return {}
  end
  for i, name in ipairs(names) do
    local stat = fs.stat(folder .. "/" .. name)
    if stat and stat.type == "directory" then names[i] = name .. "/" end
  end
  table.sort(names)
  return names
end

local function step_into(state, path, prefix)
  state.stack[#state.stack + 1] = { path = path, prefix = prefix, names = in_key_order(state, path), at = 0 }
end

local function look(state, place, name)
  local path = place.path .. "/" .. name:gsub("/$", "")
  if name:sub(-1) == "/" then
    if leads_back(path, fs.realpath(place.path) or place.path) then return refuse(state, path, "is a link to a folder that holds it") end
    return step_into(state, path, place.prefix .. name)
  end
  local relative = place.prefix .. name
  if not state.wanted(relative) then return nil end
  local stat, err = fs.stat(path)
  if not stat then return problem(state, path, err) end
  if stat.type ~= "file" then return refuse(state, path, "is neither a file nor a folder") end
  return { path = path, name = name, relative = relative, size = stat.size }
end

---The files below a folder one by one, in the order of their keys; no more than one folder's names are kept.
---@param folder string
---@param wanted? fun(relative: string): boolean
---@return fun(): eirun.LocalFile|nil
---@return {path: string, error: eirun.Error}[] problems grows while the files are gone through
---Example: `for file in scan.each "models" do print(file.relative) end`. Raises "not_found" for no such folder, "invalid" for a file.
function M.each(folder, wanted)
  local stat, err = fs.stat(folder)
  if not stat then error(err, 0) end
  if stat.type ~= "directory" then errors.raise("invalid", ("'%s' is not a folder"):format(folder), { object = folder }) end
  local state = { stack = {}, problems = {}, wanted = wanted or function() return true end }
  step_into(state, #folder > 1 and folder:gsub("/+$", "") or folder, "")
  return function()
    while #state.stack > 0 do
      local place = state.stack[#state.stack]
      place.at = place.at + 1
      local name = place.names[place.at]
      if not name then
        state.stack[#state.stack] = nil
      else
        local file = look(state, place, name)
        if file then return file end
      end
    end
  end, state.problems
end

return M
