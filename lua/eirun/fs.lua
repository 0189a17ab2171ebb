-- SPDX-License-Identifier: Apache-2.0
-- Files of this machine. A path that is not absolute begins where eirun was started. What takes long runs on threads while the task
-- waits. Under `eirun check` nothing here is done.
local core = require "eirun.core.fs"
local errors = require "eirun.errors"
local raising = require("eirun.face").raising

local M = {}

local stat = raising(core.stat)

---A file's content.
---@param path string
---@param max? integer bytes, default 1 GiB
---@return string text
---Example: `local values = yaml.decode(fs.read "values.yaml")`
---Raises kind `not_found` or `denied`; `quota` for a longer file.
M.read = raising(core.read)

---@class eirun.fs.WriteOptions
---@field mode? integer default 0600, whatever the umask
---@field atomic? boolean default true: written beside and renamed over, so that a reader sees the old or the new content
---@field durable? boolean default true: on the disk before this returns; only with atomic

---Writes a file.
---@param path string
---@param data string|eirun.Secret
---@param options? eirun.fs.WriteOptions
---Example: `fs.write("report.html", html, { mode = tonumber("644", 8) })`
---Raises kind `not_found` where the folder is missing, `denied`, `quota` where the disk is full.
M.write = raising(core.write)

---Adds to a file's end in one write; makes it (mode 0600) where it is missing.
---@param path string
---@param data string|eirun.Secret
---Example: `fs.append("runs.log", line .. "\n")`
---Raises kind `not_found` where the folder is missing, `denied`, `quota` where the disk is full.
M.append = raising(core.append)

---@class eirun.fs.StatOptions
---@field follow? boolean default true; false describes a link itself

---@class eirun.fs.Stat
---@field type "file"|"directory"|"link"|"socket"|"fifo"|"device"
---@field size integer
---@field mtime number seconds since the epoch, real time
---@field mode integer permission bits
---@field ino integer

---What a path is; nil when there is nothing.
---@param path string
---@param options? eirun.fs.StatOptions
---@return eirun.fs.Stat|nil
---Example: `if fs.stat "env/production.lua" then p:note "production is set up" end`
---Raises kind `denied` where it cannot be seen.
function M.stat(path, options)
  local ok, found = pcall(stat, path, options)
  if ok then return found end
  if errors.is(found, "not_found") then return nil end
  error(found, 0)
end

---Names in a folder, in byte order.
---@param path string
---@return string[] names
---Example: `for _, name in ipairs(fs.list "models") do p:note(name) end`
---Raises kind `not_found` where there is no folder, `denied`.
M.list = raising(core.list)

---@class eirun.fs.MkdirOptions
---@field mode? integer default 0700
---@field parents? boolean make missing ones too, and be content with a folder that exists

---Makes a folder.
---@param path string
---@param options? eirun.fs.MkdirOptions
---Example: `fs.mkdir("out/reports", { parents = true })`
---Raises kind `conflict` where something is, unless `parents` is given and it is a folder; `not_found`, `denied`.
M.mkdir = raising(core.mkdir)

---Makes a new folder that only we may enter.
---@param prefix string six characters are added
---@return string path
---Example: `local dir = fs.mkdtemp "/tmp/mine-"`
---Raises kind `not_found` or `denied`.
M.mkdtemp = raising(core.mkdtemp)

---@class eirun.fs.RemoveOptions
---@field recursive? boolean a folder with all that is in it; links are removed, never followed

---Removes a file, a link or an empty folder.
---@param path string
---@param options? eirun.fs.RemoveOptions
---Example: `fs.remove(dir, { recursive = true })`
---Raises kind `not_found` where there is nothing, `conflict` for a folder that is not empty, `denied`.
M.remove = raising(core.remove)

---Moves a file over another one, in one step.
---@param from string
---@param to string
---Example: `fs.rename("model.part", "model.bin")`
---Raises kind `not_found` or `denied`.
M.rename = raising(core.rename)

---The path without links, "." and "..".
---@param path string
---@return string path
---Example: `local program = fs.realpath "/proc/self/exe"`
---Raises kind `not_found` or `denied`.
M.realpath = raising(core.realpath)

---Digests of a file or of a range of it, in one pass.
---@param path string
---@param names string[] of "crc64", "md5", "sha1", "sha256", "sha512"
---@param offset? integer default 0
---@param length? integer default: to the end; a file that is shorter is no error
---@return table digests { size = bytes read, md5 = raw bytes, crc64 = integer, ... }
---Example: `local sum = crypto.hex(fs.digest("model.pb", { "sha256" }).sha256)`
---Raises kind `not_found` or `denied`; `invalid` for a name of none.
M.digest = raising(core.digest)

return M
