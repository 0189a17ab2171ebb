-- SPDX-License-Identifier: Apache-2.0
-- What an interrupted transfer of a large file leaves for the next run: one small file under the state home, nothing beside the data.
local crypto = require "eirun.core.crypto"
local errors = require "eirun.errors"
local fs = require "eirun.core.fs"
local json = require "eirun.core.json"
local os_core = require "eirun.core.os"

local M = {}

---@class eirun.OssResume
---@field data table|nil what the run before saved
local Resume = {}
Resume.__index = Resume

---Where these files are: `$XDG_STATE_HOME/eirun/oss`.
---@return string
---Example: `print(resume.dir())`. Raises nothing.
function M.dir()
  local state = os_core.getenv "XDG_STATE_HOME"
  if not state or state == "" then state = (os_core.getenv "HOME" or ".") .. "/.local/state" end
  return state .. "/eirun/oss"
end

local function lines_of(text)
  local list = {}
  for line in text:gmatch "([^\n]*)\n" do list[#list + 1] = line end
  return list
end

-- The first line is what the transfer is, each further one a part that is done; a line without its end is none.
local function read(path)
  local text = fs.read(path)
  local lines = text and lines_of(text) or {}
  local data = lines[1] and json.decode(lines[1])
  if type(data) ~= "table" then return nil end
  data.parts = {}
  for i = 2, #lines do
    local number, crc = lines[i]:match "^(%d+) (%x+)$"
    if number then data.parts[math.tointeger(tonumber(number))] = math.tointeger(tonumber("0x" .. crc)) end
  end
  return data
end

---Takes what a run before left for this transfer, and keeps other runs from it.
---@param what string "upload" or "download"
---@param bucket eirun.Bucket
---@param key string
---@param path string of the local file
---@return eirun.OssResume
---Example: `local state <close> = resume.open("upload", bucket, key, path)`.
---Raises "conflict" while another process does the same transfer.
function M.open(what, bucket, key, path)
  local dir = M.dir()
  errors.check(fs.mkdir(dir, { parents = true }))
  local name = table.concat({ what, bucket.region, bucket.name, key, fs.realpath(path) or path }, "\0")
  local file = dir .. "/" .. crypto.hex(crypto.sha256(name)):sub(1, 32)
  local lock, err = fs.lock(file .. ".lock")
  if not lock then
    error(errors.rephrase(err, ("another run is at the same %s, '%s' and oss://%s/%s: %s"):format(what, path, bucket.name, key,
      err.message)), 0)
  end
  return setmetatable({ file = file, lock = lock, data = read(file) }, Resume)
end

---Begins anew: what was known is replaced.
---@param data table
function Resume:save(data)
  errors.check(fs.write(self.file, json.encode(data) .. "\n", { durable = false }))
  self.data, data.parts = data, {}
end

---A part is done.
---@param number integer
---@param crc integer
function Resume:add(number, crc)
  errors.check(fs.append(self.file, ("%d %x\n"):format(number, crc)))
  self.data.parts[number] = crc
end

---Nothing is left to resume.
function Resume:clear()
  fs.remove(self.file)
  self.data = nil
end

function Resume:close()
  if not self.lock then return end
  if not self.data then fs.remove(self.file .. ".lock") end
  self.lock:close()
  self.lock = nil
end
Resume.__close = Resume.close

return M
