-- SPDX-License-Identifier: Apache-2.0
-- Where bytes live: one file per stored body, named by a number, never changed once it is referred to. Objects that share a
-- body (server-side copies) share the file; a body that nobody refers to any more is removed.
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"

local Disk = {}
Disk.__index = Disk
local M = {}

local per_folder = 1000

local function count(self, file, n)
  local left = (self.references[file] or 0) + n
  self.references[file] = left > 0 and left or nil
  return left
end

function Disk:path(file) return self.root .. "/" .. file end

---A name for a new body; its folder exists. Nothing refers to it yet.
function Disk:new_file()
  self.sequence = self.sequence + 1
  local folder = ("%d/%d"):format(self.boot, self.sequence // per_folder)
  if not self.folders[folder] then
    errors.check(fs.mkdir(self:path(folder), { parents = true }))
    self.folders[folder] = true
  end
  return folder .. "/" .. self.sequence
end

function Disk:hold(file) count(self, file, 1) end

---Lets go of a body; the last one to do so removes it.
function Disk:release(file)
  if file and count(self, file, -1) <= 0 then fs.remove(self:path(file)) end
end

function Disk:discard(file) fs.remove(self:path(file)) end

---Joins ranges of bodies into one new file and returns its name; a cut one is swept away at the next start.
---@param pieces {file: string, offset?: integer, length?: integer}[]
function Disk:join(pieces)
  local file = self:new_file()
  errors.check(fs.write(self:path(file), "", { atomic = false }))
  for _, piece in ipairs(pieces) do
    errors.check(fs.extend(self:path(file), self:path(piece.file), piece.offset, piece.length))
  end
  return file
end

-- Bodies of writes that a killed process never acknowledged.
local function sweep(self, folder)
  for _, name in ipairs(fs.list(folder == "" and self.root or self:path(folder)) or {}) do
    local path = folder == "" and name or folder .. "/" .. name
    local stat = fs.stat(self:path(path))
    if stat and stat.type == "directory" then
      sweep(self, path)
    elseif stat and not self.references[path] then
      fs.remove(self:path(path))
    end
  end
end

---@param root string
---@param boot integer number of this start: names of different starts never meet
---@param referred fun(): fun(): string every file that a committed object or part refers to, once per reference
function M.open(root, boot, referred)
  errors.check(fs.mkdir(root, { parents = true }))
  local self = setmetatable({ root = root, boot = boot, sequence = 0, references = {}, folders = {} }, Disk)
  for file in referred() do self:hold(file) end
  sweep(self, "")
  return self
end

return M
