-- SPDX-License-Identifier: Apache-2.0
---@meta eirun.core.fs
-- What the C module core/bind_fs.c offers; a test compares the names. Each answers nil and an error when the world does not
-- comply: "cannot open 'x': permission denied", kind not_found, denied, conflict, quota or internal. What may take long
-- (more than 256 KiB, a tree, anything durable) runs on the thread pool while the task waits.
local fs = {}

---Adds to a file's end in one write; makes it (mode 0600) where it is missing.
---@param path string
---@param data string|eirun.Secret
---@return boolean|nil ok, eirun.Error|nil err
---Example: `assert(fs.append("run.log", line .. "\n"))`
function fs.append(path, data) end

---Adds a part of another file to a file's end; makes it (mode 0600) where it is missing. The bytes never become a string.
---@param path string
---@param source string
---@param offset? integer default 0
---@param length? integer default: to the end; a source that is shorter is no error
---@return boolean|nil ok, eirun.Error|nil err
---Example: `assert(fs.extend("whole.bin", "part-2.bin"))`
function fs.extend(path, source, offset, length) end

---Digests of a file or of a range of it, in one pass.
---@param path string
---@param names string[] of "crc64", "md5", "sha1", "sha256", "sha512"
---@param offset? integer default 0
---@param length? integer default: to the end; a file that is shorter is no error
---@return table|nil digests { size = bytes read, md5 = raw bytes, crc64 = integer, ... }, eirun.Error|nil err
---Example: `local sums = assert(fs.digest("model.pb", { "md5", "crc64" }))`
function fs.digest(path, names, offset, length) end

---Names in a directory, in byte order, without "." and "..".
---@param path string
---@return string[]|nil names, eirun.Error|nil err
---Example: `for _, name in ipairs(assert(fs.list "playbooks")) do print(name) end`
function fs.list(path) end

---@class eirun.core.fs.Lock
---@field close fun(self) unlocks; also __close and __gc

---Takes an advisory lock on a file made for it, without waiting. A process that dies gives it up.
---@param path string
---@return eirun.core.fs.Lock|nil lock, eirun.Error|nil err kind conflict: err.holder = { pid, host, since }
---Example: `local lock <close> = errors.check(fs.lock(dir .. "/lock"))`
function fs.lock(path) end

---@class eirun.core.fs.MkdirOptions
---@field mode? integer default 0700
---@field parents? boolean make missing ones too, and be content with a directory that exists

---Makes a directory.
---@param path string
---@param options? eirun.core.fs.MkdirOptions
---@return boolean|nil ok, eirun.Error|nil err
---Example: `assert(fs.mkdir("out/reports", { parents = true }))`
function fs.mkdir(path, options) end

---Makes a new directory that only we may enter.
---@param prefix string six characters are added
---@return string|nil path, eirun.Error|nil err
---Example: `local dir = assert(fs.mkdtemp "/tmp/mine-")`
function fs.mkdtemp(prefix) end

---A file's content.
---@param path string
---@param max? integer bytes, default 1 GiB; a longer file is kind quota
---@return string|nil text, eirun.Error|nil err
---Example: `local text = assert(fs.read "values.json")`
function fs.read(path, max) end

---The path without links, "." and "..".
---@param path string
---@return string|nil path, eirun.Error|nil err
---Example: `fs.realpath "./box"`
function fs.realpath(path) end

---@class eirun.core.fs.RemoveOptions
---@field recursive? boolean a directory with all that is in it; links are removed, never followed

---Removes a file, a link or an empty directory. Nothing there is kind not_found.
---@param path string
---@param options? eirun.core.fs.RemoveOptions
---@return boolean|nil ok, eirun.Error|nil err
---Example: `assert(fs.remove(dir, { recursive = true }))`
function fs.remove(path, options) end

---Moves a file over another one, in one step.
---@param from string
---@param to string
---@return boolean|nil ok, eirun.Error|nil err
---Example: `assert(fs.rename("model.part", "model.bin"))`
function fs.rename(from, to) end

---@class eirun.core.fs.StatOptions
---@field follow? boolean default true; false describes a link itself

---@class eirun.core.fs.Stat
---@field type "file"|"directory"|"link"|"socket"|"fifo"|"device"
---@field size integer
---@field mtime number seconds since the epoch, real time
---@field mode integer permission bits
---@field ino integer

---What a path is.
---@param path string
---@param options? eirun.core.fs.StatOptions
---@return eirun.core.fs.Stat|nil stat, eirun.Error|nil err
---Example: `if fs.stat "env/production.lua" then print "there is one" end`
function fs.stat(path, options) end

---@class eirun.core.fs.WriteOptions
---@field mode? integer default 0600, whatever the umask
---@field atomic? boolean default true: written beside and renamed over, so that a reader sees the old or the new content
---@field durable? boolean default true: on the disk before this returns; only with atomic

---Writes a file.
---@param path string
---@param data string|eirun.Secret
---@param options? eirun.core.fs.WriteOptions
---@return boolean|nil ok, eirun.Error|nil err
---Example: `assert(fs.write("report.html", html, { mode = tonumber("644", 8) }))`
function fs.write(path, data, options) end

return fs
